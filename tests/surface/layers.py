"""Every layer class: what it computes, against NumPy where that is short, else shape and
gradients."""

import math

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F


def same(x, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        x.detach().numpy(), np.asarray(expected), rtol=tolerance, atol=tolerance
    )


def trains(layer, *shapes, out=None):
    """For random inputs the output has the shape `out` and finite elements; all leaves get
    gradients."""
    torch.manual_seed(0)
    inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
    y = layer(*inputs)
    y = y[0] if isinstance(y, tuple) else y
    assert y.shape == out and torch.isfinite(y).all()
    y.square().sum().backward()
    for leaf in (*inputs, *layer.parameters()):
        assert leaf.grad is not None and leaf.grad.abs().sum() > 0
    return y


ERF = np.vectorize(math.erf)
X = np.array([-4.0, -2.5, -1.0, -0.3, 0.0, 0.3, 1.0, 2.5, 7.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def check_activations():
    x = torch.tensor(X)
    cases = (
        (nn.ELU(2.0), np.where(X > 0, X, 2 * np.expm1(X))),
        (nn.Hardshrink(0.5), np.where(np.abs(X) > 0.5, X, 0)),
        (nn.Hardsigmoid(), np.clip(X / 6 + 0.5, 0, 1)),
        (nn.Hardtanh(-2, 3), np.clip(X, -2, 3)),
        (nn.Hardswish(), X * np.clip(X + 3, 0, 6) / 6),
        (nn.LeakyReLU(0.1), np.where(X > 0, X, 0.1 * X)),
        (nn.LogSigmoid(), np.log(sigmoid(X))),
        (nn.ReLU(), np.maximum(X, 0)),
        (nn.ReLU6(), np.clip(X, 0, 6)),
        (nn.SELU(), 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X))),
        (nn.CELU(2.0), np.maximum(X, 0) + np.minimum(0, 2 * np.expm1(X / 2))),
        (nn.GELU(), X * 0.5 * (1 + ERF(X / math.sqrt(2)))),
        (
            nn.GELU(approximate="tanh"),
            0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))),
        ),
        (nn.Sigmoid(), sigmoid(X)),
        (nn.SiLU(), X * sigmoid(X)),
        (nn.Mish(), X * np.tanh(np.log1p(np.exp(X)))),
        (nn.Softplus(beta=2), np.log1p(np.exp(2 * X)) / 2),
        (nn.Softshrink(0.5), np.sign(X) * np.maximum(np.abs(X) - 0.5, 0)),
        (nn.Softsign(), X / (1 + np.abs(X))),
        (nn.Tanh(), np.tanh(X)),
        (nn.Tanhshrink(), X - np.tanh(X)),
        (nn.Threshold(0.5, 9.0), np.where(X > 0.5, X, 9)),
        (nn.RReLU(0.1, 0.3).eval(), np.where(X > 0, X, 0.2 * X)),
        (nn.PReLU(init=0.3).double(), np.where(X > 0, X, 0.3 * X)),
    )
    for layer, expected in cases:
        same(layer(x), expected)
    slopes = nn.RReLU(0.1, 0.3)(torch.full((200,), -1.0))
    assert (slopes <= -0.1).all() and (slopes >= -0.3).all() and slopes.std() > 0.01
    trains(nn.PReLU(3), (2, 3, 4), out=(2, 3, 4))
    a, b = np.split(X[:8], 2)
    same(nn.GLU(dim=0)(x[:8]), a * sigmoid(b))


def check_softmaxes():
    x = torch.randn(2, 3, 4, 5)
    e = np.exp(x.numpy())
    same(nn.Softmax(dim=1)(x), e / e.sum(1, keepdims=True))
    same(nn.Softmax2d()(x), e / e.sum(1, keepdims=True))
    same(nn.LogSoftmax(dim=-1)(x), np.log(e / e.sum(-1, keepdims=True)))
    same(nn.Softmin(dim=0)(x), (1 / e) / (1 / e).sum(0, keepdims=True))


def check_adaptive_softmax():
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12])
    x, target = torch.randn(6, 8), torch.arange(6) * 3
    output, loss = layer(x, target)
    full = layer.log_prob(x)
    same(output, full[torch.arange(6), target].detach().numpy())
    same(loss, -output.detach().numpy().mean())
    same(full.exp().sum(1), np.ones(6))


def check_convolutions():
    options = {
        "stride": 2,
        "padding": 1,
        "dilation": 2,
        "groups": 2,
        "bias": True,
        "padding_mode": "zeros",
    }
    x = torch.randn(1, 4, 9)
    layer = nn.Conv1d(
        in_channels=4, out_channels=6, kernel_size=3, device="cpu", dtype=torch.float32, **options
    )
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1)))
    w = layer.weight.detach().numpy()
    first = (w[0] * padded[0, :2, 0:5:2]).sum() + layer.bias[0].item()
    assert layer(x).shape == (1, 6, 4) and abs(layer(x)[0, 0, 0].item() - first) < 1e-5
    layer = nn.Conv2d(
        in_channels=4,
        out_channels=6,
        kernel_size=(3, 2),
        device="cpu",
        dtype=torch.float64,
        **options,
    )
    y = layer(torch.randn(2, 4, 9, 9, dtype=torch.float64))
    assert (
        y.shape == (2, 6, 4, 5) and layer.weight.shape == (6, 2, 3, 2) and layer.bias.shape == (6,)
    )
    assert nn.Conv1d(1, 32, 3)(torch.zeros(100, 1, 28)).shape == (100, 32, 26)
    assert nn.Conv1d(1, 32, 3, stride=3, padding=1)(torch.zeros(100, 1, 28)).shape == (100, 32, 10)
    trains(nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 5), out=(1, 3, 2, 3, 4))
    trains(nn.ConvTranspose1d(2, 3, 3, stride=2), (1, 2, 4), out=(1, 3, 9))
    trains(nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (1, 2, 4, 3), out=(1, 3, 10, 8))
    trains(nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 2, 2), out=(1, 3, 4, 3, 3))


def check_lazy_layers():
    x, square, cube = torch.randn(2, 4, 8), torch.randn(2, 4, 6, 6), torch.randn(1, 4, 5, 5, 5)
    assert nn.LazyLinear(3)(torch.zeros(2, 5)).shape == (2, 3)
    for layer, given, shape in (
        (nn.LazyConv1d(3, 2), x, (3, 4, 2)),
        (nn.LazyConv2d(3, 2), square, (3, 4, 2, 2)),
        (nn.LazyConv3d(3, 2), cube, (3, 4, 2, 2, 2)),
        (nn.LazyConvTranspose1d(3, 2), x, (4, 3, 2)),
        (nn.LazyConvTranspose2d(3, 2), square, (4, 3, 2, 2)),
        (nn.LazyConvTranspose3d(3, 2), cube, (4, 3, 2, 2, 2)),
        (nn.LazyBatchNorm1d(), x, (4,)),
        (nn.LazyBatchNorm2d(), square, (4,)),
        (nn.LazyBatchNorm3d(), cube, (4,)),
        (nn.LazyInstanceNorm1d(affine=True), x, (4,)),
        (nn.LazyInstanceNorm2d(affine=True), square, (4,)),
        (nn.LazyInstanceNorm3d(affine=True), cube, (4,)),
    ):
        layer(given)
        assert layer.weight.shape == shape and not type(layer).__name__.startswith("Lazy")


def check_normalisations():
    x = torch.randn(6, 4, 3)
    a = x.numpy()
    layer = nn.BatchNorm1d(num_features=4)
    y = layer(x)
    same(
        y, (a - a.mean((0, 2), keepdims=True)) / np.sqrt(a.var((0, 2), keepdims=True) + 1e-5), 1e-4
    )
    same(layer.running_mean, 0.1 * a.mean((0, 2)), 1e-4)
    layer = nn.BatchNorm2d(num_features=4)
    trains(layer, (3, 4, 2, 2), out=(3, 4, 2, 2))
    assert layer.running_mean.abs().sum() > 0 and not layer.running_mean.requires_grad
    trains(nn.BatchNorm3d(2), (3, 2, 2, 2, 2), out=(3, 2, 2, 2, 2))
    sync = nn.SyncBatchNorm(4)
    same(sync(x), y.detach().numpy(), 1e-4)
    same(nn.GroupNorm(2, 4)(x)[:, :2].flatten(1).std(1, unbiased=False), np.ones(6), 1e-3)
    same(nn.LayerNorm((4, 3))(x).flatten(1).mean(1), np.zeros(6))
    one = (a - a.mean(2, keepdims=True)) / np.sqrt(a.var(2, keepdims=True) + 1e-5)
    same(nn.InstanceNorm1d(4)(x), one, 1e-4)
    trains(nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 3), out=(2, 4, 3, 3))
    trains(nn.InstanceNorm3d(2, affine=True), (2, 2, 3, 3, 3), out=(2, 2, 3, 3, 3))
    squares = np.pad(a * a, ((0, 0), (1, 1), (0, 0)))
    around = sum(squares[:, i : i + 4] for i in range(3)) / 3
    same(nn.LocalResponseNorm(3, alpha=0.5, beta=0.75, k=2.0)(x), a / (2 + 0.5 * around) ** 0.75)


def windows(a, size):
    return np.lib.stride_tricks.sliding_window_view(a, size, -1)[..., ::size, :]


def check_pools():
    x = torch.randn(2, 3, 8)
    a = x.numpy()
    same(nn.MaxPool1d(kernel_size=2, stride=2)(x), windows(a, 2).max(-1))
    assert nn.MaxPool1d(2, stride=1)(x).shape == (2, 3, 7)
    square = torch.randn(1, 2, 6, 6)
    same(
        nn.MaxPool2d(kernel_size=2, stride=None)(square),
        square.numpy().reshape(1, 2, 3, 2, 3, 2).max((3, 5)),
    )
    assert nn.MaxPool2d(2, stride=1)(square).shape == (1, 2, 5, 5)
    cube = torch.randn(1, 1, 4, 4, 4)
    same(nn.MaxPool3d(2)(cube), cube.numpy().reshape(1, 1, 2, 2, 2, 2, 2, 2).max((3, 5, 7)))
    same(nn.AvgPool1d(4)(x), windows(a, 4).mean(-1))
    same(nn.AvgPool2d(2)(square), square.numpy().reshape(1, 2, 3, 2, 3, 2).mean((3, 5)))
    same(nn.AvgPool3d(2)(cube), cube.numpy().reshape(1, 1, 2, 2, 2, 2, 2, 2).mean((3, 5, 7)))
    same(nn.LPPool1d(2, 2)(x), np.sqrt((windows(a, 2) ** 2).sum(-1)), 1e-4)
    trains(nn.LPPool2d(2, 2), (1, 2, 4, 4), out=(1, 2, 2, 2))
    for cls, dims in ((nn.MaxUnpool1d, 1), (nn.MaxUnpool2d, 2), (nn.MaxUnpool3d, 3)):
        given = torch.randn(1, 2, *[4] * dims)
        pooled, where = getattr(F, f"max_pool{dims}d")(given, 2, return_indices=True)
        back = cls(2)(pooled, where)
        assert back.shape == given.shape and torch.equal(back[back != 0], given[back != 0])
    assert nn.MaxUnpool1d(2) and nn.MaxUnpool2d(2) and nn.MaxUnpool3d(2)


def check_adaptive_and_fractional_pools():
    x, square, cube = torch.randn(2, 3, 7), torch.randn(2, 3, 7, 5), torch.randn(1, 2, 4, 5, 6)
    same(nn.AdaptiveAvgPool1d(output_size=1)(x)[..., 0], x.numpy().mean(-1))
    same(nn.AdaptiveMaxPool1d(output_size=1)(x)[..., 0], x.numpy().max(-1))
    assert nn.AdaptiveAvgPool1d(3)(x).shape == nn.AdaptiveMaxPool1d(3)(x).shape == (2, 3, 3)
    assert nn.AdaptiveAvgPool2d(output_size=(2, None))(square).shape == (2, 3, 2, 5)
    same(nn.AdaptiveAvgPool2d(1)(square).flatten(1), square.numpy().mean((2, 3)))
    assert nn.AdaptiveMaxPool2d(output_size=2)(square).shape == (2, 3, 2, 2)
    assert nn.AdaptiveAvgPool3d(output_size=2)(cube).shape == (1, 2, 2, 2, 2)
    same(nn.AdaptiveMaxPool3d(output_size=1)(cube).flatten(1), cube.numpy().max((2, 3, 4)))
    y, where = nn.FractionalMaxPool2d(2, output_size=(3, 2), return_indices=True)(square)
    assert y.shape == (2, 3, 3, 2) and torch.equal(
        square.flatten(2).gather(2, where.flatten(2)), y.flatten(2)
    )
    assert nn.FractionalMaxPool3d(2, output_ratio=0.5)(cube).shape == (1, 2, 2, 2, 3)


def check_pads():
    x, square, cube = torch.randn(1, 2, 5), torch.randn(1, 2, 4, 4), torch.randn(1, 1, 3, 3, 3)
    for given, dims, reflection, replication, constant in (
        (
            x,
            1,
            nn.ReflectionPad1d(padding=(2, 1)),
            nn.ReplicationPad1d(padding=(2, 1)),
            nn.ConstantPad1d(padding=(2, 1), value=3.5),
        ),
        (
            square,
            2,
            nn.ReflectionPad2d(padding=(2, 1, 1, 2)),
            nn.ReplicationPad2d(padding=(2, 1, 1, 2)),
            nn.ConstantPad2d(padding=(2, 1, 1, 2), value=3.5),
        ),
        (
            cube,
            3,
            nn.ReflectionPad3d(padding=(2, 1, 1, 2, 0, 1)),
            nn.ReplicationPad3d(padding=(2, 1, 1, 2, 0, 1)),
            nn.ConstantPad3d(padding=(2, 1, 1, 2, 0, 1), value=3.5),
        ),
    ):
        widths = [(0, 0), (0, 0), *((0, 1), (1, 2), (2, 1))[3 - dims :]]
        same(reflection(given), np.pad(given.numpy(), widths, "reflect"))
        same(replication(given), np.pad(given.numpy(), widths, "edge"))
        same(constant(given), np.pad(given.numpy(), widths, constant_values=3.5))
    same(nn.ZeroPad2d(padding=1)(square), np.pad(square.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)]))


def check_dropouts():
    torch.manual_seed(0)
    x = torch.ones(4, 50, 6)
    y = nn.Dropout(p=0.25)(x)
    assert (
        set(y.flatten().unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
        and abs(y.mean() - 1) < 0.1
    )
    assert torch.equal(nn.Dropout(0.25).eval()(x), x)
    for layer, shape in (
        (nn.Dropout1d(0.5), (4, 50, 6)),
        (nn.Dropout2d(p=0.5), (4, 50, 3, 2)),
        (nn.Dropout3d(0.5), (4, 50, 3, 2, 2)),
    ):
        whole = layer(torch.ones(shape)).flatten(2)
        assert (whole == whole[..., :1]).all() and set(whole.flatten().unique().tolist()) == {
            0.0,
            2.0,
        }
    alpha = nn.AlphaDropout(0.3)(torch.randn(20000))
    assert abs(alpha.mean().item()) < 0.05 and abs(alpha.std().item() - 1) < 0.05
    channels = nn.FeatureAlphaDropout(0.5)(torch.ones(4, 50, 6))
    assert (channels == channels[..., :1]).all() and len(channels.flatten().unique()) == 2


def check_embeddings():
    layer = nn.Embedding(num_embeddings=6, embedding_dim=3)
    bags = torch.tensor([[0, 2], [5, 5]])
    w = layer.weight.detach().numpy()
    same(layer(bags), w[bags.numpy()])
    for mode, expected in (("sum", w[bags.numpy()].sum(1)), ("mean", w[bags.numpy()].mean(1))):
        same(nn.EmbeddingBag(6, 3, mode=mode, _weight=layer.weight)(bags), expected)
    same(nn.EmbeddingBag(6, 3, mode="sum", _weight=layer.weight)(bags), w[bags.numpy()].sum(1))
    same(nn.EmbeddingBag(6, 3, mode="mean", _weight=layer.weight)(bags), w[bags.numpy()].mean(1))


def check_distances_and_bilinear():
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    x, y = a.numpy(), b.numpy()
    same(
        nn.CosineSimilarity(dim=1)(a, b),
        (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1),
    )
    same(nn.PairwiseDistance(p=2)(a, b), np.linalg.norm(x - y + 1e-6, axis=1))
    layer = nn.Bilinear(4, 4, 2)
    w = layer.weight.detach().numpy()
    same(layer(a, b), np.einsum("bi,oij,bj->bo", x, w, y) + layer.bias.detach().numpy())


def check_reshaping_layers():
    x = torch.randn(2, 8, 3, 4)
    a = x.numpy()
    up = nn.PixelShuffle(upscale_factor=2)(x)
    same(up, a.reshape(2, 2, 2, 2, 3, 4).transpose(0, 1, 4, 2, 5, 3).reshape(2, 2, 6, 8))
    same(nn.PixelUnshuffle(downscale_factor=2)(up), a)
    same(
        nn.ChannelShuffle(groups=2)(x), a.reshape(2, 2, 4, 3, 4).swapaxes(1, 2).reshape(2, 8, 3, 4)
    )
    same(nn.Flatten()(x), a.reshape(2, -1))
    same(nn.Unflatten(1, (2, 4))(x), a.reshape(2, 2, 4, 3, 4))
    columns = nn.Unfold(kernel_size=2, dilation=1, padding=1, stride=2)(x)
    assert columns.shape == (2, 32, 6)
    folded = nn.Fold(output_size=(3, 4), kernel_size=2, dilation=1, padding=1, stride=2)(columns)
    same(folded, a)


def check_upsampling():
    line, square, cube = torch.randn(1, 2, 4), torch.randn(1, 2, 3, 4), torch.randn(1, 1, 2, 2, 2)
    same(nn.Upsample(scale_factor=2, mode="nearest")(line), line.numpy().repeat(2, 2))
    exact = nn.Upsample(size=7, mode="linear", align_corners=True)(line)
    same(exact[0, 0], np.interp(np.linspace(0, 3, 7), np.arange(4), line[0, 0].numpy()))
    assert nn.Upsample(size=(6, 8), mode="bilinear")(square).shape == (1, 2, 6, 8)
    assert nn.Upsample(scale_factor=2, mode="bicubic", recompute_scale_factor=True)(
        square
    ).shape == (
        1,
        2,
        6,
        8,
    )
    assert nn.Upsample(scale_factor=2.0, mode="trilinear")(cube).shape == (1, 1, 4, 4, 4)
    flat = torch.full((1, 1, 3, 3), 2.5)
    for mode in ("bilinear", "bicubic"):
        same(nn.Upsample(scale_factor=3, mode=mode)(flat), np.full((1, 1, 9, 9), 2.5))
    same(nn.UpsamplingNearest2d(scale_factor=2)(square), square.numpy().repeat(2, 2).repeat(2, 3))
    corners = nn.UpsamplingBilinear2d(scale_factor=2)(square)
    assert corners.shape == (1, 2, 6, 8) and corners[0, 0, -1, -1] == square[0, 0, -1, -1]


def check_losses():
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    a, b = x.numpy(), y.numpy()
    d = a - b
    same(nn.L1Loss(reduction="mean")(x, y), np.abs(d).mean())
    same(nn.L1Loss(reduction="sum")(x, y), np.abs(d).sum(), 1e-4)
    same(nn.MSELoss(reduction="mean")(x, y), (d * d).mean())
    same(nn.MSELoss(reduction="sum")(x, y), (d * d).sum(), 1e-4)
    small = np.abs(d) < 0.5
    same(nn.HuberLoss(delta=0.5)(x, y), np.where(small, d * d / 2, 0.5 * (np.abs(d) - 0.25)).mean())
    same(nn.SmoothL1Loss(beta=0.5)(x, y), np.where(small, d * d, np.abs(d) - 0.25).mean())
    same(
        nn.KLDivLoss(reduction="batchmean")(x, y.softmax(1)),
        (y.softmax(1).numpy() * (np.log(y.softmax(1).numpy()) - a)).sum() / 4,
    )
    same(nn.PoissonNLLLoss()(x, y), (np.exp(a) - b * a).mean())
    var = np.abs(b) + 0.5
    same(nn.GaussianNLLLoss()(x, y, torch.tensor(var)), 0.5 * (np.log(var) + d * d / var).mean())
    p, t = x.sigmoid(), (y > 0).float()
    bce = -(t.numpy() * np.log(p.numpy()) + (1 - t.numpy()) * np.log(1 - p.numpy())).mean()
    same(nn.BCELoss()(p, t), bce)
    same(nn.BCEWithLogitsLoss()(x, t), bce)


def check_margin_losses():
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    a, b = x.numpy(), y.numpy()
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    s = signs.numpy()
    same(
        nn.MarginRankingLoss(margin=0.3)(x[:, 0], y[:, 0], signs),
        np.maximum(0, -s * (a - b)[:, 0] + 0.3).mean(),
    )
    same(
        nn.HingeEmbeddingLoss()(x[:, 0], signs),
        np.where(s > 0, a[:, 0], np.maximum(0, 1 - a[:, 0])).mean(),
    )
    same(nn.SoftMarginLoss()(x[:, 0], signs), np.log1p(np.exp(-s * a[:, 0])).mean())
    cos = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    same(nn.CosineEmbeddingLoss()(x, y, signs), np.where(s > 0, 1 - cos, np.maximum(0, cos)).mean())
    target = torch.tensor([0, 2, 4, 1])
    margins = np.maximum(0, 1 - a[np.arange(4), target.numpy()][:, None] + a)
    margins[np.arange(4), target.numpy()] = 0
    same(nn.MultiMarginLoss()(x, target), margins.sum(1).mean() / 5)
    labels = torch.tensor([[3, 0, -1, 1, 1]])
    own = np.array([0.1, 0.2, 0.4, 0.8, 0.0])
    expected = sum(max(0, 1 - (own[i] - own[j])) for i in (3, 0) for j in (1, 2, 4)) / 5
    same(nn.MultiLabelMarginLoss()(torch.tensor(own)[None], labels), expected)
    t = (b > 0).astype(float)
    multi = -(t * np.log(sigmoid(a)) + (1 - t) * np.log(sigmoid(-a))).mean()
    same(nn.MultiLabelSoftMarginLoss()(x, torch.tensor(t).float()), multi)
    z = torch.randn(4, 5)
    near, far = (np.linalg.norm(a - o + 1e-6, axis=1) for o in (b, z.numpy()))
    same(nn.TripletMarginLoss(margin=0.7)(x, y, z), np.maximum(0, near - far + 0.7).mean(), 1e-4)
    distance = lambda u, v: (u - v).abs().sum(1)  # noqa: E731
    near, far = (np.abs(a - o).sum(1) for o in (b, z.numpy()))
    layer = nn.TripletMarginWithDistanceLoss(distance_function=distance, margin=0.7)
    same(layer(x, y, z), np.maximum(0, near - far + 0.7).mean(), 1e-4)


def check_classification_losses():
    x, target = torch.randn(4, 5), torch.tensor([1, 0, 4, 2])
    logs = np.log(np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True))
    picked = -logs[np.arange(4), target.numpy()]
    same(nn.NLLLoss(reduction="mean")(torch.tensor(logs), target), picked.mean())
    weight = np.array([1.0, 2, 3, 4, 5])
    w = weight[target.numpy()] * (target.numpy() != 4)
    layer = nn.CrossEntropyLoss(
        weight=torch.tensor(weight).float(), ignore_index=4, reduction="mean"
    )
    same(layer(x, target), (w * picked).sum() / w.sum())
    same(nn.CrossEntropyLoss(size_average=False, reduce=True)(x, target), picked.sum())
    same(nn.CrossEntropyLoss(reduce=False)(x, target), picked)


def check_ctc():
    logits = torch.randn(6, 1, 4).log_softmax(2).requires_grad_()
    loss = nn.CTCLoss(reduction="sum")(
        logits, torch.tensor([[1]]), torch.tensor([6]), torch.tensor([1])
    )
    p, total = logits.detach().exp().numpy()[:, 0], 0.0
    for start in range(6):  # blanks, then the label, then blanks
        for end in range(start + 1, 7):
            total += p[:start, 0].prod() * p[start:end, 1].prod() * p[end:, 0].prod()
    same(loss, -math.log(total), 1e-4)
    loss.backward()
    assert logits.grad.abs().sum() > 0


def check_recurrent_layers():
    x, lengths = torch.randn(7, 3, 5), (3, 7)
    for cls in (nn.LSTM, nn.GRU):
        layer = cls(
            input_size=5,
            hidden_size=4,
            num_layers=2,
            batch_first=False,
            dropout=0.5,
            bidirectional=True,
        )
        out, state = layer(x)
        hidden = state[0] if cls is nn.LSTM else state
        assert out.shape == (7, 3, 8) and hidden.shape == (4, 3, 4) and lengths
        layer.eval()
        assert torch.equal(layer(x)[0], layer(x)[0]) and not torch.equal(
            layer.train()(x)[0], layer(x)[0]
        )
        first = cls(5, 4, batch_first=True)(x.transpose(0, 1))
        assert first[0].shape == (3, 7, 4)
    layer = nn.LSTM(
        input_size=5,
        hidden_size=4,
        num_layers=2,
        batch_first=True,
        dropout=0.0,
        bidirectional=False,
    )
    out, (hidden, _) = layer(x.transpose(0, 1))
    assert torch.equal(hidden[-1], out[:, -1])
    nn.LSTM(5, 4, dropout=0.0, bidirectional=True)
    layer = nn.GRU(
        input_size=5,
        hidden_size=4,
        num_layers=1,
        batch_first=True,
        dropout=0.0,
        bidirectional=False,
    )
    out, hidden = layer(x.transpose(0, 1))
    assert torch.equal(hidden[-1], out[:, -1])
    for kind, f in (("tanh", np.tanh), ("relu", lambda v: np.maximum(v, 0))):
        layer = nn.RNN(5, 4, nonlinearity=kind)
        state = np.zeros((3, 4))
        w, u, b, c = (p.detach().numpy() for p in layer.parameters())
        for step in x.numpy():
            state = f(step @ w.T + b + state @ u.T + c)
        same(layer(x)[1][0], state)
    assert nn.RNN(5, 4, nonlinearity="tanh").nonlinearity == "tanh"
    assert nn.RNN(5, 4, nonlinearity="relu").nonlinearity == "relu"
    assert isinstance(layer, nn.RNNBase) and nn.RNNBase("LSTM", 5, 4).mode == "LSTM"


def check_recurrent_cells():
    x = torch.randn(3, 5)
    for cell, whole in (
        (nn.RNNCell(5, 4), nn.RNN(5, 4)),
        (nn.GRUCell(5, 4), nn.GRU(5, 4)),
        (nn.LSTMCell(5, 4), nn.LSTM(5, 4)),
    ):
        whole.load_state_dict({k + "_l0": v for k, v in cell.state_dict().items()})
        one = cell(x)
        same(one[0] if isinstance(one, tuple) else one, whole(x[None])[0][0].detach().numpy())


def check_attention_and_transformers():
    torch.manual_seed(0)
    x, memory = torch.randn(5, 2, 8), torch.randn(3, 2, 8)
    y, weights = nn.MultiheadAttention(8, 2)(x, memory, memory)
    assert y.shape == (5, 2, 8) and weights.shape == (2, 5, 3)
    same(weights.sum(-1), np.ones((2, 5)))
    encoder, decoder = (
        nn.TransformerEncoderLayer(8, 2, 16, 0.0),
        nn.TransformerDecoderLayer(8, 2, 16, 0.0),
    )
    trains(encoder, (5, 2, 8), out=(5, 2, 8))
    stack = nn.TransformerEncoder(encoder, 1)
    same(stack(x), encoder(x).detach().numpy())
    same(nn.TransformerDecoder(decoder, 1)(x, memory), decoder(x, memory).detach().numpy())
    model = nn.Transformer(8, 2, 1, 1, 16, 0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    changed = x.clone()
    changed[4] += 1
    first, second = model(memory, x, tgt_mask=mask), model(memory, changed, tgt_mask=mask)
    same(first[:4], second[:4].detach().numpy())
    assert (first[4] - second[4]).abs().max() > 1e-3
