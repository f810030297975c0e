"""Layers, optimizers, schedules and files against PyTorch itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

LAYERS = [
    ("Linear", (6, 3), (4, 6)),
    ("Conv1d", (2, 4, 3), (2, 2, 9)),
    ("Conv2d", (4, 6, 3, 2, 1, 1, 2), (2, 4, 7, 7)),
    ("Conv3d", (1, 2, 2), (1, 1, 3, 4, 5)),
    ("ConvTranspose2d", (3, 2, 3, 2, 1, 1), (2, 3, 4, 4)),
    ("BatchNorm2d", (3,), (4, 3, 2, 2)),
    ("InstanceNorm1d", (3,), (2, 3, 5)),
    ("LayerNorm", ((3, 4),), (2, 3, 4)),
    ("GroupNorm", (2, 4), (3, 4, 5)),
    ("RMSNorm", (6,), (2, 6)),
    ("LocalResponseNorm", (3,), (2, 5, 4)),
    ("MaxPool2d", (3, 2, 1), (2, 3, 7, 7)),
    ("AvgPool2d", (3, 2, 1, True, False), (2, 3, 7, 8)),
    ("AdaptiveAvgPool2d", ((3, 2),), (2, 3, 7, 5)),
    ("AdaptiveMaxPool1d", (3,), (2, 3, 7)),
    ("LPPool2d", (2, 2), (1, 2, 4, 4)),
    ("GELU", (), (3, 4)),
    ("SiLU", (), (3, 4)),
    ("Mish", (), (3, 4)),
    ("Softplus", (2.0,), (3, 4)),
    ("GLU", (), (3, 4)),
    ("Softmax", (1,), (3, 4)),
    ("LogSoftmax", (0,), (3, 4)),
    ("Hardswish", (), (3, 4)),
    ("CELU", (1.3,), (3, 4)),
    ("Softshrink", (), (3, 4)),
    ("PReLU", (3,), (2, 3, 4)),
    ("ReflectionPad2d", ((1, 2, 0, 1),), (1, 2, 4, 4)),
    ("CircularPad1d", (2,), (1, 2, 4)),
    ("PixelShuffle", (2,), (1, 8, 2, 3)),
    ("Unfold", (2,), (1, 2, 4, 4)),
    ("Upsample", (None, 2.0, "bilinear"), (1, 2, 3, 4)),
    ("Upsample", ((5, 7), None, "bicubic"), (1, 1, 3, 4)),
]


def pair(name, args):
    torch.manual_seed(0)
    theirs, mine = getattr(torch.nn, name)(*args), getattr(gt.nn, name)(*args)
    mine.load_state_dict({k: gt.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    assert repr(mine) == repr(theirs)
    return mine, theirs


@pytest.mark.parametrize(
    ("name", "args", "shape"), LAYERS, ids=lambda v: v if isinstance(v, str) else None
)
def test_layer(name, args, shape):
    mine, theirs = pair(name, args)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x, y = gt.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    out, want = mine(x), theirs(y)
    np.testing.assert_allclose(out.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
    weight = np.random.default_rng(1).standard_normal(tuple(out.shape)).astype(np.float32)
    (out * gt.tensor(weight)).sum().backward()
    (want * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-3, atol=1e-4)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-3, atol=1e-4)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adadelta", {}),
    ("Adamax", {}),
    ("RAdam", {"lr": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("ASGD", {"t0": 2, "lambd": 0.1}),
    ("Rprop", {}),
]


def mlp(t):
    return t.nn.Sequential(t.nn.Linear(3, 5), t.nn.Tanh(), t.nn.BatchNorm1d(5), t.nn.Linear(5, 2))


def trajectory(t, model, opt, steps, schedule=None):
    data = np.random.default_rng(2).standard_normal((8, 3)).astype(np.float32)
    x, y = t.tensor(data), t.tensor((data[:, 0] > 0).astype(np.int64))
    losses = []
    for _ in range(steps):
        opt.zero_grad()
        loss = t.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if schedule is not None:
            schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("name", "options"), OPTIMIZERS, ids=lambda v: v if isinstance(v, str) else None
)
def test_optimizer_and_checkpoints_both_ways(name, options, tmp_path):
    torch.manual_seed(0)
    theirs = mlp(torch)
    their_opt = getattr(torch.optim, name)(theirs.parameters(), **options)
    trajectory(torch, theirs, their_opt, 3)
    torch.save(
        {"model": theirs.state_dict(), "opt": their_opt.state_dict()}, tmp_path / "theirs.pt"
    )
    mine = mlp(gt)
    my_opt = getattr(gt.optim, name)(mine.parameters())
    saved = gt.load(tmp_path / "theirs.pt")
    mine.load_state_dict(saved["model"])
    my_opt.load_state_dict(saved["opt"])
    np.testing.assert_allclose(
        trajectory(gt, mine, my_opt, 6), trajectory(torch, theirs, their_opt, 6), rtol=1e-4
    )
    gt.save({"model": mine.state_dict(), "opt": my_opt.state_dict()}, tmp_path / "mine.pt")
    back = torch.load(tmp_path / "mine.pt")
    theirs.load_state_dict(back["model"])
    their_opt.load_state_dict(back["opt"])
    np.testing.assert_allclose(
        trajectory(torch, theirs, their_opt, 4), trajectory(gt, mine, my_opt, 4), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StepLR", {"step_size": 2}),
        ("MultiStepLR", {"milestones": [1, 1, 4]}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingLR", {"T_max": 3, "eta_min": 0.01}),
        ("LinearLR", {}),
        ("ConstantLR", {}),
        ("PolynomialLR", {}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}),
        ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3, "mode": "triangular2"}),
    ],
)
def test_schedule(name, options):
    def rates(t):
        opt = t.optim.SGD([t.nn.Parameter(t.ones(1))], lr=0.5, momentum=0.9)
        schedule = getattr(t.optim.lr_scheduler, name)(opt, **options)
        out = []
        for _ in range(8):
            opt.step()
            schedule.step()
            out.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(rates(gt), rates(torch), rtol=1e-12)


def test_whole_module_of_pytorch_loads(tmp_path):
    theirs = mlp(torch).eval()
    torch.save(theirs, tmp_path / "module.pt")
    mine = gt.load(tmp_path / "module.pt", weights_only=False)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(
        mine(gt.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-5
    )
