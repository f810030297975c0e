"""Optimizers: each parameter of each changes the path over a small problem as it should;
averages."""

import math

import numpy as np

import graphtorch as torch
from graphtorch import nn
from surface import covers

optim = torch.optim
START = (1.0, -2.0, 3.0)
CURVES = np.array([1.0, 0.5, 2.0])


def path(make, steps=4, sparse=False):
    """The points that an optimizer visits on sum(curve * x^2) / 2, from START."""
    x = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = make(x)
    seen = []
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = (torch.tensor(CURVES) * x * x).sum() / 2
            loss.backward()
            return loss

        optimizer.step(closure=closure)
        seen.append(x.detach().numpy().copy())
    return np.array(seen)


def differs(make, base):
    """The path is another one than `base`, and stays finite."""
    got = path(make)
    assert np.isfinite(got).all() and not np.allclose(got, base, rtol=1e-9, atol=1e-12)
    return got


def check_sgd():
    base = path(lambda x: optim.SGD(params=[x], lr=0.1))
    np.testing.assert_allclose(base[-1], np.array(START) * (1 - 0.1 * CURVES) ** 4)
    v, x = np.zeros(3), np.array(START)
    for first in (True, False, False, False):
        g = CURVES * x + 0.01 * x
        v = g if first else 0.9 * v + 0.7 * g
        x = x - 0.1 * v
    got = path(lambda p: optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01))
    np.testing.assert_allclose(got[-1], x)
    v, x = np.zeros(3), np.array(START)
    for _ in range(4):
        g = CURVES * x
        v = 0.9 * v + g
        x = x - 0.1 * (g + 0.9 * v)
    got = path(lambda p: optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True))
    np.testing.assert_allclose(got[-1], x)


def adam(lr=0.1, betas=(0.9, 0.999), eps=1e-8, decay=0.0, decoupled=False, amsgrad=False):
    m, v, top, x, seen = np.zeros(3), np.zeros(3), np.zeros(3), np.array(START), []
    for t in range(1, 5):
        g = CURVES * x
        if decoupled:
            x = x * (1 - lr * decay)
        else:
            g = g + decay * x
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        top = np.maximum(top, v)
        size = np.sqrt((top if amsgrad else v) / (1 - betas[1] ** t)) + eps
        x = x - lr * m / (1 - betas[0] ** t) / size
        seen.append(x)
    return np.array(seen)


def check_adam():
    options = {"lr": 0.3, "betas": (0.5, 0.6), "eps": 1e-2, "weight_decay": 0.1}
    numbers = {"lr": 0.3, "betas": (0.5, 0.6), "eps": 1e-2, "decay": 0.1}
    np.testing.assert_allclose(path(lambda x: optim.Adam(params=[x], **options)), adam(**numbers))
    got = path(lambda x: optim.Adam([x], amsgrad=True, **options))
    np.testing.assert_allclose(got, adam(amsgrad=True, **numbers))
    np.testing.assert_allclose(
        path(lambda x: optim.AdamW(params=[x], **options)), adam(decoupled=True, **numbers)
    )
    got = path(lambda x: optim.AdamW([x], amsgrad=True, **options))
    np.testing.assert_allclose(got, adam(decoupled=True, amsgrad=True, **numbers))


def check_adadelta():
    square, step, x = np.zeros(3), np.zeros(3), np.array(START)
    for _ in range(4):
        g = CURVES * x + 0.1 * x
        square = 0.8 * square + 0.2 * g * g
        d = np.sqrt(step + 1e-2) / np.sqrt(square + 1e-2) * g
        step = 0.8 * step + 0.2 * d * d
        x = x - 0.5 * d
    got = path(lambda p: optim.Adadelta(params=[p], lr=0.5, rho=0.8, eps=1e-2, weight_decay=0.1))
    np.testing.assert_allclose(got[-1], x)


def check_adagrad():
    cache, x = np.full(3, 0.2), np.array(START)
    for t in range(4):
        g = CURVES * x + 0.1 * x
        cache = cache + g * g
        x = x - 0.3 / (1 + t * 0.5) * g / (np.sqrt(cache) + 1e-10)
    got = path(
        lambda p: optim.Adagrad(
            params=[p], lr=0.3, lr_decay=0.5, weight_decay=0.1, initial_accumulator_value=0.2
        )
    )
    np.testing.assert_allclose(got[-1], x)


def check_adamax():
    m, u, x = np.zeros(3), np.zeros(3), np.array(START)
    for t in range(1, 5):
        g = CURVES * x + 0.1 * x
        m, u = 0.5 * m + 0.5 * g, np.maximum(0.6 * u, np.abs(g) + 1e-2)
        x = x - 0.3 / (1 - 0.5**t) * m / u
    got = path(
        lambda p: optim.Adamax(params=[p], lr=0.3, betas=(0.5, 0.6), eps=1e-2, weight_decay=0.1)
    )
    np.testing.assert_allclose(got[-1], x)


def check_asgd():
    make = lambda **given: lambda p: optim.ASGD(params=[p], **{"lr": 0.1, "t0": 1e6, **given})  # noqa: E731
    base = path(make())
    first = np.array(START) * (1 - 1e-4 * 0.1) - 0.1 * CURVES * np.array(START)
    np.testing.assert_allclose(base[0], first)
    optimizer = optim.ASGD([torch.ones(1)], lr=0.2, lambd=0.01, alpha=0.5, t0=2.0, weight_decay=0.1)
    assert optimizer.defaults["t0"] == 2 and differs(make(lr=0.2), base).shape == (4, 3)
    differs(make(lambd=0.1), base)
    differs(make(weight_decay=0.5), base)
    differs(make(alpha=0.1, lambd=0.5), path(make(lambd=0.5)))
    x = torch.tensor(START, requires_grad=True)
    optimizer = optim.ASGD([x], lr=0.1, t0=1.0)
    points = []
    for _ in range(5):
        optimizer.zero_grad()
        x.square().sum().backward()
        optimizer.step()
        points.append(x.detach().clone())
    average = optimizer.state[x]["ax"]
    assert not torch.equal(average, x) and average.abs().max() <= points[0].abs().max()


def check_lbfgs():
    make = lambda **given: lambda p: optim.LBFGS(params=[p], **{"lr": 0.5, **given})  # noqa: E731
    base = path(make(max_iter=3))
    assert np.abs(base[-1]).max() < np.abs(base[0]).max() < 3
    differs(make(lr=0.9, max_iter=3), base)
    differs(make(max_iter=2), base)
    differs(make(max_iter=3, max_eval=2), base)
    differs(make(max_iter=3, tolerance_grad=2.0), base)
    differs(make(max_iter=3, tolerance_change=1.0), base)
    differs(make(max_iter=3, history_size=1), base)
    strong = path(make(lr=1, line_search_fn="strong_wolfe"))
    assert np.abs(strong[-1]).max() < 1e-5


def check_rmsprop():
    square, mean, buffer, x = np.zeros(3), np.zeros(3), np.zeros(3), np.array(START)
    for _ in range(4):
        g = CURVES * x + 0.1 * x
        square, mean = 0.8 * square + 0.2 * g * g, 0.8 * mean + 0.2 * g
        buffer = 0.5 * buffer + g / (np.sqrt(square - mean * mean) + 1e-2)
        x = x - 0.05 * buffer
    got = path(
        lambda p: optim.RMSprop(
            params=[p], lr=0.05, alpha=0.8, eps=1e-2, weight_decay=0.1, momentum=0.5, centered=True
        )
    )
    np.testing.assert_allclose(got[-1], x)


def check_rprop():
    got = path(lambda p: optim.Rprop(params=[p], lr=0.1, etas=(0.5, 2.0), step_sizes=(1e-3, 0.3)))
    steps = np.cumsum([0.1, 0.2, 0.3, 0.3])
    np.testing.assert_allclose(
        got, np.array(START) - np.sign(START) * steps[:, None] * np.ones(3), atol=1
    )
    np.testing.assert_allclose(got[:3, 1], -2 + steps[:3])


def check_nadam_and_radam():
    for make in (lambda x: optim.NAdam([x], lr=0.1), lambda x: optim.RAdam([x], lr=0.1)):
        got = path(make, 60)
        assert np.abs(got[-1]).sum() < np.abs(got[0]).sum() < np.abs(START).sum()


def check_sparse_adam():
    table = nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = optim.SparseAdam(
        params=list(table.parameters()), lr=0.1, betas=(0.5, 0.6), eps=1e-2
    )
    table(torch.tensor([1, 3])).sum().backward()
    optimizer.step()
    moved = table.weight.detach() - before
    assert (moved[[0, 2, 4]] == 0).all()
    np.testing.assert_allclose(moved[[1, 3]].numpy(), -0.1 / 1.01 * np.ones((2, 2)), atol=2e-3)


@covers("torch.optim.Optimizer.params", "torch.optim.Optimizer")
def check_base_class():
    x, y = torch.ones(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = optim.SGD([{"params": [x], "lr": 0.5}], lr=0.1, momentum=0.9)
    optimizer.add_param_group(param_group={"params": [y]})
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1] and optimizer.defaults[
        "momentum"
    ] == 0.9
    (x.sum() + y.sum()).backward()
    optimizer.step()
    assert "momentum_buffer" in optimizer.state[x] and x.tolist() == [0.5, 0.5]
    state = optimizer.state_dict()
    assert set(state) == {"state", "param_groups"}
    other = optim.SGD([{"params": [x]}, {"params": [y]}], lr=3.0)
    other.load_state_dict(state_dict=state)
    assert other.param_groups[0]["lr"] == 0.5
    optimizer.zero_grad(set_to_none=False)
    assert x.grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert x.grad is None and not hasattr(optimizer, "params")
    optimizer.param_groups[0]["lr"] = 0.25
    x.sum().backward()
    optimizer.step(closure=None)

    class Plain(optim.Optimizer):
        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p -= group["rate"]

    z = torch.ones(1, requires_grad=True)
    Plain([z], {"rate": 0.5}).step()
    base = torch.optim.Optimizer(params=[z], defaults={"rate": 1})
    assert z.item() == 0.5 and base.defaults == {"rate": 1}
    try:
        optim.SGD([{"params": {x, y}}], lr=0.1)
    except TypeError:
        return
    raise AssertionError("a set of parameters")


# ----------------------------------------------------------------------------------------- averages


def check_averages():
    swa = torch.optim.swa_utils
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    averaged = swa.AveragedModel(net)
    first = net[0].weight.detach().clone()
    averaged.update_parameters(net)
    with torch.no_grad():
        net[0].weight += 2
    averaged.update_parameters(net)
    np.testing.assert_allclose(
        averaged.module[0].weight.detach().numpy(), first.numpy() + 1, rtol=1e-5
    )
    batches = [torch.randn(8, 2) for _ in range(3)]
    swa.update_bn(batches, averaged)
    outs = torch.stack([averaged.module[0](b) for b in batches]).mean((0, 1))
    np.testing.assert_allclose(
        averaged.module[1].running_mean.numpy(), outs.detach().numpy(), atol=1e-5
    )
    assert averaged.eval()(batches[0]).shape == (8, 2)
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    schedule = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.05)
