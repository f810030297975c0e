"""Optimizers and schedules: rules by hand, groups, saving, no recompilation."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn, optim
from graphtorch._deferred import programs


def param(*values):
    return nn.Parameter(torch.tensor(values))


def step_with(optimizer, p, grad):
    p.grad = torch.tensor(grad)
    optimizer.step()
    return p.detach().numpy()


def test_sgd_momentum_by_hand():
    p = param(1.0)
    opt = optim.SGD([p], lr=0.1, momentum=0.5, weight_decay=0.1)
    np.testing.assert_allclose(step_with(opt, p, [2.0]), [1 - 0.1 * 2.1], rtol=1e-6)
    g = 2.0 + 0.1 * 0.79
    np.testing.assert_allclose(step_with(opt, p, [2.0]), [0.79 - 0.1 * (0.5 * 2.1 + g)], rtol=1e-6)


def test_first_adam_step_is_about_lr():
    p = param(1.0, -1.0)
    np.testing.assert_allclose(
        step_with(optim.Adam([p], lr=0.01), p, [100.0, -0.001]), [0.99, -0.99], rtol=1e-5
    )


def test_groups_have_options_of_their_own():
    a, b, c = param(1.0), param(1.0), param(1.0)
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    opt.add_param_group({"params": c, "lr": 1.0})
    for p in (a, b, c):
        p.grad = torch.ones(1)
    opt.step()
    assert [round(float(p), 5) for p in (a, b, c)] == [0.9, 0.5, 0.0]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: optim.SGD(p, lr=0.1), TypeError, "should be an iterable"),
        (lambda p: optim.SGD([]), ValueError, "empty parameter list"),
        (lambda p: optim.SGD([3]), TypeError, "can only optimize Tensors"),
        (lambda p: optim.SGD([p * 2]), ValueError, "non-leaf"),
        (lambda p: optim.SGD([p], lr=-1), ValueError, "Invalid learning rate"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "Nesterov"),
        (
            lambda p: optim.Adam([p], betas=(1.0, 0.9)),
            ValueError,
            "Invalid beta parameter at index 0: 1.0",
        ),
        (lambda p: optim.Adam([p], eps=-1), ValueError, "Invalid epsilon"),
        (
            lambda p: optim.Adam([{"params": p}, {"params": p}]),
            ValueError,
            "more than one parameter group",
        ),
        (lambda p: optim.Adam([{"params": {p}}]), TypeError, "ordered"),
        (lambda p: optim.lr_scheduler.StepLR(p, 1), TypeError, "not an Optimizer"),
        (
            lambda p: optim.lr_scheduler.LambdaLR(optim.SGD([p]), [abs, abs]),
            ValueError,
            "same length",
        ),
        (lambda p: optim.Optimizer([p], {}).step(), NotImplementedError, "step"),
    ],
)
def test_errors(make, error, match):
    with pytest.raises(error, match=match):
        make(param(1.0))


def test_state_dict_round_trip():
    def train(p, opt, steps):
        for i in range(steps):
            step_with(opt, p, [0.1 * i - 0.2, 0.3])
        return p.detach().numpy().copy()

    p = param(1.0, 2.0)
    opt = optim.AdamW([p], lr=0.1, amsgrad=True)
    train(p, opt, 3)
    saved, at = pickle.loads(pickle.dumps(opt.state_dict())), p.detach().clone()
    want = train(p, opt, 3)
    q = nn.Parameter(at)
    fresh = optim.AdamW([q], lr=1.0)
    fresh.load_state_dict(saved)
    assert fresh.param_groups[0]["lr"] == 0.1 and fresh.param_groups[0]["amsgrad"]
    np.testing.assert_array_equal(train(q, fresh, 3), want)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optim.SGD([{"params": p}, {"params": q}]).load_state_dict(saved)


def test_counters_part_when_a_parameter_rests():
    a, b = param(1.0), param(1.0)
    opt = optim.Adam([a, b])
    for p in (a, b):
        p.grad = torch.ones(1)
    opt.step()
    assert opt.state[a]["step"] is opt.state[b]["step"]
    b.grad = None
    opt.step()
    assert (opt.state[a]["step"].item(), opt.state[b]["step"].item()) == (2.0, 1.0)
    saved = opt.state_dict()["state"]
    assert saved[0]["step"] is not opt.state[a]["step"]


def test_deepcopied_optimizer_keeps_its_state():
    p = param(1.0)
    opt = optim.SGD([p], lr=0.1, momentum=0.9)
    step_with(opt, p, [1.0])
    assert float(copy.deepcopy(opt).state_dict()["state"][0]["momentum_buffer"]) == 1.0


def test_hooks_and_closure():
    p, seen = param(1.0), []
    opt = optim.SGD([p], lr=0.1)
    opt.register_step_pre_hook(lambda o, a, k: seen.append("pre"))
    opt.register_step_post_hook(lambda o, a, k: seen.append("post"))

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert float(opt.step(closure)) == 1.0 and seen == ["pre", "post"]


def test_new_rates_compile_nothing():
    model = nn.Linear(3, 2)
    opt = optim.Adam(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(opt, 0.9)
    x = torch.randn(4, 3)
    counts = []
    for _ in range(5):
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()
        schedule.step()
        counts.append(programs.new_count)
    assert counts[1] == counts[-1]


def test_half_precision_parameters_move():
    p = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    opt = optim.Adam([p], lr=0.1)
    for _ in range(3):
        p.grad = torch.ones(4, dtype=torch.bfloat16)
        opt.step()
    assert p.dtype is torch.bfloat16 and abs(float(p[0].detach().float()) - 0.7) < 0.02
    assert abs(float(opt.state[p]["exp_avg_sq"][0].float()) - 0.003) < 2e-4


def test_lbfgs_solves_least_squares():
    torch.manual_seed(0)
    a, b = torch.randn(8, 3), torch.randn(8)
    for search in (None, "strong_wolfe"):
        x = nn.Parameter(torch.zeros(3))
        opt = optim.LBFGS([x], lr=0.5 if search is None else 1, max_iter=50, line_search_fn=search)

        def closure(x=x, opt=opt):
            opt.zero_grad()
            loss = (a.matmul(x) - b).square().sum()
            loss.backward()
            return loss

        for _ in range(3):
            opt.step(closure)
        want = np.linalg.lstsq(a.numpy(), b.numpy(), rcond=None)[0]
        np.testing.assert_allclose(x.detach().numpy(), want, atol=1e-3)


def test_plateau_waits_for_patience():
    opt = optim.SGD([param(1.0)], lr=1.0)
    schedule = optim.lr_scheduler.ReduceLROnPlateau(opt, patience=2)
    rates = []
    for metric in (1.0, 1.0, 1.0, 1.0, 1.0):
        schedule.step(metric)
        rates.append(opt.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 1.0, 0.1, 0.1]


def test_averaged_model():
    model = nn.Linear(1, 1)
    average = optim.swa_utils.AveragedModel(model)
    for value in (1.0, 3.0, 5.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert float(average.module.weight) == 3.0 and int(average.n_averaged) == 3


STATEFUL = {
    "SGD": lambda p: optim.SGD(p, lr=0.01, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: optim.Adam(p),
    "AdamW": lambda p: optim.AdamW(p, amsgrad=True),
    "Adagrad": lambda p: optim.Adagrad(p),
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.1, centered=True),
    "NAdam": lambda p: optim.NAdam(p),
}


@pytest.mark.parametrize("kind", STATEFUL)
def test_the_first_step_is_the_same_program_as_later_ones(kind):
    """State that a parameter has not got yet is in memory before the step is recorded."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    opt, x = STATEFUL[kind](net.parameters()), torch.ones(5, 3)
    net(x).sum().item()  # initial weights are drawn
    programs.clear()
    for _ in range(3):
        opt.zero_grad()
        loss = net(x).square().sum()
        loss.backward()
        opt.step()
        loss.item()
    assert len(list(programs.structures())) == 1


@pytest.mark.parametrize("at_once", ["Adam", "AdamW", "momentum"])
def test_an_update_is_one_node(at_once):
    """... where no number changes its dtype; else the same arithmetic in parts."""
    make = {
        "Adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1),
        "AdamW": lambda p: optim.AdamW(p, lr=0.1),
        "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    }[at_once]
    plain, double = param(1.0, -2.0), param(1.0, -2.0)
    for p, name in ((plain, None), (double, "double")):
        opt = make([p])
        for _ in range(3):
            p.grad = torch.tensor([0.5, 1.0])
            opt.step()
            if name:  # state of another dtype
                for state in opt.state[p]:
                    if state != "step":
                        opt.state[p][state] = opt.state[p][state].double()
    np.testing.assert_allclose(plain.detach().numpy(), double.detach().numpy(), rtol=1e-6)


def _in_numpy():
    array = np.array([1.0, -2.0], np.float32)
    return torch.from_numpy(array).requires_grad_(), lambda: array


def _in_a_part():
    base = torch.tensor([7.0, 1.0, -2.0, 8.0])
    return base[1:3].requires_grad_(), lambda: base.numpy()[1:3]


def _alone():
    p = param(1.0, -2.0)
    alias = p.detach()
    return p, lambda: alias.numpy()


@pytest.mark.parametrize("place", [_alone, _in_numpy, _in_a_part])
@pytest.mark.parametrize("kind", ["Adam", "momentum"])
def test_updates_land_where_the_parameter_is(kind, place):
    """In memory shared with NumPy, in the tensor that a parameter is a part of, in an alias."""
    make = {
        "Adam": lambda p: optim.Adam(p, lr=0.1),
        "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    }[kind]
    plain = param(1.0, -2.0)
    p, seen = place()
    for q in (plain, p):
        opt = make([q])
        for step in range(3):
            q.grad = torch.tensor([0.5, step - 1.0])
            before = q._version
            opt.step()
            assert q._version == before + 1
    np.testing.assert_array_equal(seen(), plain.detach().numpy())


@pytest.mark.parametrize("kind", ["Adam", "momentum"])
def test_a_gradient_that_reads_an_updated_parameter_is_refused(kind):
    p = param(1.0, -2.0)
    opt = optim.Adam([p]) if kind == "Adam" else optim.SGD([p], lr=0.1, momentum=0.9)
    for _ in range(4):
        p.grad = torch.ones(2)
        loss = (p * p).sum()
        opt.step()
        with pytest.raises(RuntimeError, match="modified by an inplace"):
            loss.backward()
