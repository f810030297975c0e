"""Functions and layers: values by hand, errors of PyTorch's type."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import nn


def close(got, want, rtol=1e-5):
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=rtol, atol=1e-6)


def test_linear_and_conv_agree_on_one_pixel():
    x, w = torch.randn(2, 3), torch.randn(4, 3)
    close(F.conv1d(x.unsqueeze(2), w.unsqueeze(2)).squeeze(2), F.linear(x, w).numpy())


def test_unbatched_equals_batch_of_one():
    x = torch.randn(3, 6, 6)
    for layer in (
        nn.Conv2d(3, 2, 3, padding="same"),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d((2, None)),
        nn.InstanceNorm2d(3),
        nn.ConvTranspose2d(3, 2, 3, 2, 1, 1),
    ):
        close(layer(x), layer(x.unsqueeze(0))[0].detach().numpy())


def test_pool_indices_lead_back():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    values, where = F.max_pool2d(x, 2, return_indices=True)
    assert where.flatten().tolist() == [5, 7, 13, 15]
    close(F.max_unpool2d(values, where, 2).sum(), 5.0 + 7 + 13 + 15)


def test_batch_norm_running_statistics():
    layer = nn.BatchNorm1d(2)
    x = torch.tensor([[0.0, 2.0], [2.0, 6.0]])
    close(layer(x), [[-1, -1], [1, 1]], rtol=1e-4)
    close(layer.running_mean, [0.1, 0.4])
    close(layer.running_var, [0.9 + 0.1 * 2, 0.9 + 0.1 * 8])
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    close(layer(x)[0, 0], (0 - 0.1) / math.sqrt(1.1 + 1e-5))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer.train()(torch.ones(1, 2))


def test_cumulative_batch_norm():
    layer = nn.BatchNorm1d(1, momentum=None)
    for value in (0.0, 3.0, 6.0):
        layer(torch.tensor([[value], [value]]))
    close(layer.running_mean, [3.0])


def test_dropout_modes():
    x = torch.ones(1000)
    y = F.dropout(x, 0.25).numpy()
    assert (
        set(np.unique(y)) <= {np.float32(0), np.float32(1 / 0.75)} and 0.65 < (y > 0).mean() < 0.85
    )
    assert nn.Dropout(0.5).eval()(x) is x
    channels = F.dropout2d(torch.ones(4, 8, 3, 3)).numpy()
    assert all(len(np.unique(c)) == 1 for c in channels.reshape(32, 9))
    close(F.dropout(x, 1.0), np.zeros(1000))
    torch.manual_seed(1)
    a = F.dropout(x)
    torch.manual_seed(1)
    close(F.dropout(x), a.numpy())


def test_embedding_padding_row_gets_no_gradient():
    table = nn.Embedding(4, 2, padding_idx=0)
    assert not table.weight[0].detach().numpy().any()
    table(torch.tensor([[0, 1], [1, 3]])).sum().backward()
    close(table.weight.grad, [[0, 0], [2, 2], [0, 0], [1, 1]])
    with pytest.raises(IndexError):
        table(torch.tensor([4])).tolist()


def test_cross_entropy_forms():
    x = torch.tensor([[1.0, 2.0, 0.5], [0.1, 0.2, 0.3]])
    t = torch.tensor([1, 2])
    log_p = np.log(np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True))
    close(F.cross_entropy(x, t), -(log_p[0, 1] + log_p[1, 2]) / 2)
    close(F.cross_entropy(x, F.one_hot(t, 3).float()), F.cross_entropy(x, t).item())
    close(F.cross_entropy(x[0], t[0]), -log_p[0, 1])
    close(F.cross_entropy(x, torch.tensor([1, -100])), -log_p[0, 1])
    weight = torch.tensor([1.0, 2.0, 3.0])
    close(F.cross_entropy(x, t, weight), -(2 * log_p[0, 1] + 3 * log_p[1, 2]) / 5)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
def test_interpolate_keeps_constants(mode):
    close(
        F.interpolate(torch.full((1, 1, 3, 5), 2.0), scale_factor=2, mode=mode),
        np.full((1, 1, 6, 10), 2.0),
    )


def test_fold_is_the_adjoint_of_unfold():
    x, y = torch.randn(1, 2, 5, 6), torch.randn(1, 2 * 6, 3 * 5)
    left = (F.unfold(x, (2, 3), stride=(2, 1), padding=(1, 0))[:, :, :] * y[:, :, :12]).sum()
    right = (x * F.fold(y[:, :, :12], (5, 6), (2, 3), stride=(2, 1), padding=(1, 0))).sum()
    close(left, right.item(), rtol=1e-4)


def test_inplace_activation_writes_its_input():
    x = torch.tensor([-1.0, 2.0])
    assert F.relu(x, inplace=True) is x
    close(x, [0, 2])
    with pytest.raises(RuntimeError, match="leaf"):
        nn.ReLU(inplace=True)(torch.ones(2, requires_grad=True))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: nn.Linear(3, 2)(torch.ones(2, 4)), RuntimeError, "cannot be multiplied"),
        (
            lambda: nn.Linear(3, 2)(torch.ones(2, 3, dtype=torch.float64)),
            RuntimeError,
            "same dtype",
        ),
        (
            lambda: nn.Conv2d(3, 2, 3)(torch.ones(1, 4, 5, 5)),
            RuntimeError,
            "to have 3 channels, but got 4",
        ),
        (lambda: nn.Conv2d(3, 2, 3)(torch.ones(5, 5)), RuntimeError, "Expected 3D"),
        (
            lambda: nn.Conv2d(3, 2, 9)(torch.ones(1, 3, 5, 5)),
            RuntimeError,
            "Kernel size can't be greater",
        ),
        (lambda: nn.Conv2d(3, 2, 3, groups=2), ValueError, "divisible by groups"),
        (lambda: nn.Conv2d(3, 2, 3, padding_mode="wrap"), ValueError, "padding_mode"),
        (lambda: F.max_pool2d(torch.ones(1, 1, 4, 4), 2, padding=2), RuntimeError, "at most half"),
        (lambda: F.gelu(torch.ones(2, dtype=torch.int64)), RuntimeError, "not implemented"),
        (lambda: F.softmax(torch.ones(2), 3), IndexError, "out of range"),
        (lambda: F.dropout(torch.ones(2), 1.5), ValueError, "probability"),
        (lambda: F.pad(torch.ones(1, 1, 3), (3, 0), "reflect"), RuntimeError, "Padding size"),
        (lambda: F.layer_norm(torch.ones(2, 3), (4,)), RuntimeError, "normalized_shape"),
        (lambda: F.group_norm(torch.ones(2, 3, 4), 2), RuntimeError, "divisible by num_groups"),
        (
            lambda: F.cross_entropy(torch.ones(2, 3), torch.ones(3, dtype=torch.int64)),
            ValueError,
            "batch_size",
        ),
        (
            lambda: F.mse_loss(torch.ones(2), torch.ones(2), reduction="avg"),
            ValueError,
            "reduction",
        ),
        (lambda: F.interpolate(torch.ones(1, 1, 4)), ValueError, "either size or scale_factor"),
        (lambda: F.glu(torch.ones(3)), RuntimeError, "must be even"),
        (lambda: nn.Unflatten(1, 3), TypeError, "tuple of ints"),
        (lambda: nn.MaxPool2d(), TypeError, "kernel_size"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_init_statistics():
    w = torch.empty(200, 100)
    nn.init.kaiming_normal_(w, nonlinearity="relu")
    assert abs(w.numpy().std() - math.sqrt(2 / 100)) < 5e-3
    nn.init.xavier_uniform_(w)
    assert np.abs(w.numpy()).max() <= math.sqrt(6 / 300)
    nn.init.trunc_normal_(w, std=2.0, a=-1.0, b=1.0)
    assert np.abs(w.numpy()).max() <= 1
    q = nn.init.orthogonal_(torch.empty(4, 6)).numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(4), atol=1e-5)
    assert (nn.init.sparse_(torch.empty(10, 3), 0.3).numpy() == 0).sum() == 9
    close(nn.init.dirac_(torch.empty(2, 2, 3))[:, :, 1], np.eye(2))
    assert nn.init.calculate_gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04)


def test_clip_grad_norm():
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    (3 * a + 4 * b).sum().backward()
    total = nn.utils.clip_grad_norm_([a, b], 1.0)
    close(total, math.sqrt(50))
    close(nn.utils.get_total_norm([a.grad, b.grad]), 1.0, rtol=1e-4)
    nn.utils.clip_grad_value_([a, b], 0.5)
    assert float(b.grad.max()) == 0.5
    vector = nn.utils.parameters_to_vector([a, b])
    nn.utils.vector_to_parameters(vector * 2, [a, b])
    close(a, [2, 2])


IN_PLACE = {
    **dict.fromkeys(("relu", "relu6", "hardtanh", "elu", "selu", "celu", "leaky_relu"), ()),
    **dict.fromkeys(("silu", "mish", "hardswish", "hardsigmoid"), ()),
    "threshold": (0.1, 0.2),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_through_functions_in_place(name, compiled):
    """Their own write is none that the backward pass refuses: they read what was there before."""
    weights = torch.linspace(-3, 4, 24).reshape(4, 6)

    def gradient(inplace):
        x = torch.linspace(-4, 5, 24).reshape(4, 6).requires_grad_()
        made = getattr(F, name)(x * 1.5, *IN_PLACE[name], inplace=inplace)
        (made * weights).sum().backward()
        return x.grad

    found = (torch.compile(gradient) if compiled else gradient)(True)
    assert torch.allclose(found, gradient(False))


def test_what_read_an_activation_before_its_write_in_place_refuses():
    y = torch.randn(4, requires_grad=True) * 1
    product = y * y
    F.silu(y, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
