"""nn.functional, nn.init, nn.utils.rnn and linalg, with every parameter of the table given."""

import math

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F


def same(x, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        x.detach().numpy(), np.asarray(expected), rtol=tolerance, atol=tolerance
    )
    assert x.shape == np.shape(expected)


X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
A = X.numpy()


def check_activations():
    half = A[:, :, :2], A[:, :, 2:]
    same(F.relu(X), np.maximum(A, 0))
    same(F.sigmoid(input=X), 1 / (1 + np.exp(-A)))
    same(F.tanh(X), np.tanh(A))
    same(F.softmax(X, dim=1), np.exp(A) / np.exp(A).sum(1, keepdims=True))
    same(F.glu(input=X, dim=2), half[0] / (1 + np.exp(-half[1])))
    exact = 0.5 * A * (1 + np.vectorize(math.erf)(A / math.sqrt(2)))
    same(F.gelu(input=X, approximate="none"), exact)
    same(
        F.gelu(X, approximate="tanh"),
        0.5 * A * (1 + np.tanh(math.sqrt(2 / math.pi) * (A + 0.044715 * A**3))),
    )


def check_pools_and_one_hot():
    same(F.max_pool1d(X, 2, 1), np.maximum(A[..., :-1], A[..., 1:]))
    square = torch.arange(16.0).reshape(1, 1, 4, 4)
    same(F.max_pool2d(square, (2, 2)), [[[[5, 7], [13, 15]]]])
    same(F.one_hot(torch.tensor([1, 0, 3])), np.eye(4)[[1, 0, 3]])
    same(F.one_hot(torch.tensor([1]), num_classes=3), [[0, 1, 0]])


def check_fold_and_unfold():
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    options = {"dilation": 1, "padding": 0, "stride": 2}
    columns = F.unfold(input=x, kernel_size=2, **options)
    assert columns.shape == (1, 8, 4)
    same(columns[0, :4, 1], [2, 3, 6, 7])
    same(F.fold(input=columns, output_size=(4, 4), kernel_size=2, **options), x.numpy())
    overlapping = F.unfold(x, kernel_size=3, padding=1)
    counted = F.fold(torch.ones_like(overlapping), (4, 4), 3, padding=1)
    assert counted[0, 0, 1, 1] == 9 and counted[0, 0, 0, 0] == 4
    assert F.unfold(x, kernel_size=2, dilation=2).shape == (1, 8, 4)
    assert F.fold(torch.ones(8, 4), (4, 4), 2, dilation=2).shape == (2, 4, 4)


def normal(a, axes):
    return (a - a.mean(axes, keepdims=True)) / np.sqrt(a.var(axes, keepdims=True) + 1e-3)


def check_norms():
    w, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, -1.0])
    scale, shift = w.numpy()[:, None], b.numpy()[:, None]
    mean, var = torch.zeros(3), torch.ones(3)
    options = {"weight": w, "bias": b, "momentum": 0.5, "eps": 1e-3}
    y = F.batch_norm(input=X, running_mean=mean, running_var=var, training=True, **options)
    same(y, normal(A, (0, 2)) * scale + shift)
    same(mean, 0.5 * A.mean((0, 2)))
    same(
        F.batch_norm(X, mean, var, eps=0.0),
        (A - mean.numpy()[:, None]) / np.sqrt(var.numpy()[:, None]),
    )
    mean, var = torch.zeros(3), torch.ones(3)
    y = F.instance_norm(
        input=X, running_mean=mean, running_var=var, use_input_stats=True, **options
    )
    same(y, normal(A, 2) * scale + shift)
    same(mean, 0.5 * A.mean((0, 2)))
    w, b = torch.full((4,), 2.0), torch.arange(4.0)
    y = F.layer_norm(input=X, normalized_shape=(4,), weight=w, bias=b, eps=1e-3)
    same(y, normal(A, 2) * 2 + np.arange(4))
    out = torch.empty(2, 3, 4)
    lengths = np.maximum((np.abs(A) ** 3).sum(2, keepdims=True) ** (1 / 3), 2.5)
    assert F.normalize(input=X, p=3, dim=2, eps=2.5, out=out) is out
    same(out, A / lengths)


def check_pads():
    x = torch.arange(6.0).reshape(1, 2, 3)
    a = x.numpy()
    same(
        F.pad(input=x, pad=(1, 2), mode="constant", value=7.0),
        np.pad(a, ((0, 0), (0, 0), (1, 2)), constant_values=7),
    )
    for mode, name in (("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")):
        same(F.pad(x, (2, 1), mode=mode), np.pad(a, ((0, 0), (0, 0), (2, 1)), name))
    same(F.pad(x, (2, 1), mode="reflect")[0, 0], [2, 1, 0, 1, 2, 1])
    same(F.pad(x, (1, 1), mode="replicate")[0, 0], [0, 0, 1, 2, 2])
    same(F.pad(x, (1, 1), mode="circular")[0, 0], [2, 0, 1, 2, 0])
    same(F.pad(x, (0, -1, 1, 0)), np.pad(a, ((0, 0), (1, 0), (0, 0)))[..., :-1])


def check_vector_norms():
    norm = torch.linalg.vector_norm
    same(
        norm(x=X, ord=3, dim=2, keepdim=True, dtype=torch.float64),
        (np.abs(A.astype(float)) ** 3).sum(2, keepdims=True) ** (1 / 3),
    )
    out = torch.empty(())
    assert torch.linalg.vector_norm(X, ord=math.inf, out=out) is out and out == np.abs(A).max()
    same(norm(X), np.linalg.norm(A.reshape(-1)))
    options = {"dim": (0, 2), "keepdim": True, "dtype": torch.float64}
    same(torch.linalg.vector_norm(x=X, ord=1, **options), np.abs(A).sum((0, 2), keepdims=True))


def check_matrix_norms():
    options = {"keepdim": True, "dtype": torch.float64}
    y = torch.linalg.matrix_norm(A=X, ord="fro", dim=(-2, -1), **options)
    same(y, np.sqrt((A.astype(float) ** 2).sum((1, 2), keepdims=True)))
    out = torch.empty(2)
    assert torch.linalg.matrix_norm(X, ord=1, out=out) is out
    same(out, np.abs(A).sum(1).max(1))
    same(
        torch.linalg.norm(A=X, ord=1, dim=(1, 2), **options), np.abs(A).sum(1).max(1)[:, None, None]
    )
    out = torch.empty(())
    assert torch.linalg.norm(X, out=out) is out
    same(out, np.linalg.norm(A.reshape(-1)))
    same(torch.linalg.norm(X[0], ord="fro"), np.linalg.norm(A[0]))


def check_gains():
    gain = torch.nn.init.calculate_gain
    assert gain("linear") == 1 and gain("tanh") == 5 / 3 and gain("relu") == math.sqrt(2)
    assert torch.nn.init.calculate_gain(nonlinearity="leaky_relu", param=0.2) == math.sqrt(2 / 1.04)


def moments(x):
    return x.mean().item(), x.std().item()


def check_plain_initialisers():
    torch.manual_seed(0)
    init, x = torch.nn.init, torch.empty(100, 100, requires_grad=True)
    assert init.uniform_(tensor=x, a=2.0, b=4.0) is x and x.min() >= 2 and x.max() < 4
    assert abs(moments(x)[0] - 3) < 0.05
    init.normal_(tensor=x, mean=1.0, std=0.5)
    assert abs(moments(x)[0] - 1) < 0.05 and abs(moments(x)[1] - 0.5) < 0.05
    assert (init.constant_(tensor=x, val=2.5) == 2.5).all()
    assert (init.ones_(tensor=x) == 1).all() and (init.zeros_(tensor=x) == 0).all()
    same(init.eye_(tensor=x), np.eye(100))
    y = init.trunc_normal_(tensor=x, mean=0.5, std=2.0, a=-1.0, b=1.0)
    assert y.min() >= -1 and y.max() <= 1 and abs(moments(y)[0]) < 0.1
    kernel = init.dirac_(tensor=torch.empty(4, 2, 3), groups=2)
    image = torch.randn(1, 4, 5)
    same(F.conv1d(image, kernel, padding=1, groups=2), image.numpy())
    y = init.orthogonal_(tensor=torch.empty(4, 6), gain=2.0)
    same(y @ y.t(), 4 * np.eye(4), 1e-4)
    y = init.sparse_(tensor=torch.empty(50, 10), sparsity=0.3, std=0.5)
    assert ((y == 0).sum(0) == 15).all() and abs(moments(y[y != 0])[1] - 0.5) < 0.1
    assert x.is_leaf and x.requires_grad


def check_scaled_initialisers():
    torch.manual_seed(0)
    init, x = torch.nn.init, torch.empty(300, 100)
    bound = 2 * math.sqrt(6 / 400)
    init.xavier_uniform_(tensor=x, gain=2.0)
    assert x.abs().max() <= bound and abs(moments(x)[1] - bound / math.sqrt(3)) < 0.01
    init.xavier_normal_(tensor=x, gain=2.0)
    assert abs(moments(x)[1] - 2 * math.sqrt(2 / 400)) < 0.01
    gain = math.sqrt(2 / (1 + 0.25))
    init.kaiming_uniform_(tensor=x, a=0.5, mode="fan_in", nonlinearity="leaky_relu")
    assert abs(x.abs().max().item() - gain * math.sqrt(3 / 100)) < 0.01
    init.kaiming_normal_(tensor=x, a=0.5, mode="fan_in", nonlinearity="leaky_relu")
    assert abs(moments(x)[1] - gain / 10) < 0.01
    init.kaiming_normal_(x, mode="fan_out", nonlinearity="relu")
    assert abs(moments(x)[1] - math.sqrt(2 / 300)) < 0.01


def check_sequences():
    rnn = torch.nn.utils.rnn
    parts = [torch.arange(n * 2.0).reshape(n, 2) for n in (3, 1, 2)]
    padded = rnn.pad_sequence(parts, batch_first=True, padding_value=-1.0)
    assert padded.shape == (3, 3, 2) and padded[1, 1:].eq(-1).all()
    packed = rnn.pack_padded_sequence(padded, [3, 1, 2], batch_first=True, enforce_sorted=False)
    assert isinstance(packed, rnn.PackedSequence)
    assert packed.batch_sizes.tolist() == [3, 2, 1] and packed.data.shape == (6, 2)
    back, lengths = rnn.pad_packed_sequence(packed, batch_first=True, padding_value=-1.0)
    assert torch.equal(back, padded) and lengths.tolist() == [3, 1, 2]
    same(rnn.pack_sequence(parts, enforce_sorted=False).data, packed.data.numpy())
    made = torch.nn.utils.rnn.PackedSequence(packed.data, packed.batch_sizes)
    assert torch.equal(made.data, packed.data)
    layer = nn.GRU(2, 3)
    alone = torch.cat([layer(p)[1] for p in parts], 0)
    same(layer(packed)[1][0], alone.detach().numpy(), 1e-4)


def check_prune():
    layer = nn.Linear(4, 3)
    torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=5)
    assert (layer.weight == 0).sum() == 5 and torch.nn.utils.prune.is_pruned(layer)
    torch.nn.utils.prune.remove(layer, "weight")
    assert (layer.weight == 0).sum() == 5 and "weight" in dict(layer.named_parameters())
