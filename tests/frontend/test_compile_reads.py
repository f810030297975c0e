"""Values that Python asks for in compiled functions: the recording goes on, on one of several
paths."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

from ..helpers.both_ways import Compile, agrees, filled, vector

limit = 4.0


def branch(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        if y.sum() > 0:
            return y + 1
        return y - 1

    run = compile(f)
    return [run(vector(*v)) for v in ((1, 2), (-1, -2), (3, 4), (-3, 1), (5, 6))]


def gradients(compile: Compile) -> Any:
    model, found = filled(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))), []

    def f(x: Any) -> Any:
        y = model(x)
        return (y * y).sum() if y[0] > y[1] else y.exp().sum()

    run = compile(f)
    for v in ((1, 2), (-3, 1), (0.5, -4), (1, 2)):
        x = vector(*v).requires_grad_()
        (g,) = torch.autograd.grad(run(x), x, create_graph=True)
        g.square().sum().backward()
        found += [g, x.grad, *[p.grad for p in model.parameters()]]
    return found


def written(compile: Compile) -> Any:
    total, calls = torch.zeros(2), torch.zeros((), dtype=torch.int64)

    def f(x: Any) -> Any:
        calls.add_(1)
        x.mul_(2)
        view = x[1:]
        if x.sum() > 3:
            view.zero_()
            total.add_(x)
        if total[0] > 5:
            total.zero_()
        return view, calls % 2 == 0

    run, found = compile(f), []
    for v in ((1, 1), (0.5, 0.25), (1, 3), (2, 2), (0, 0)):
        x = vector(*v)
        y, even = run(x)
        y.add_(1)
        found += [x, y, total, calls, even]
    return found


def numbers(compile: Compile) -> Any:
    def f(x: Any, n: Any) -> Any:
        for i in range(n.item()):
            x = x + i
        shape = n.reshape(1).tolist()
        return x * torch.ones(int(n)) + torch.zeros(*shape), shape, [int(x.abs().max()), bool(x[0])]

    run = compile(f)
    return [
        run(vector(v), torch.tensor(n)) for v, n in ((1, 2), (2.7, 3), (-5, 2), (0, 3), (1.5, 2))
    ]


def sizes_from_data(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        kept = x[x > 0]
        return kept.sum() * kept.shape[0], torch.nonzero(x)

    run = compile(f)
    return [run(vector(*v)) for v in ((1, -1, 2), (3, -2, 1), (0, 0, 5), (1, 1, 1), (2, -1, 1))]


def compared_numbers(compile: Compile) -> Any:
    global limit

    def f(x: Any, n: Any) -> Any:
        while x.norm().item() < n:
            x = x * 2
        if x.sum().item() >= limit:
            x = x - 1
        return x if x[0].item() != 0.5 else -x

    run, found = compile(f), []
    for v, n in ((1, 3), (1, 3.0), (0.1, 3), (5, 3), (1.5, 1), (2.5, 3)):
        found.append(run(vector(v), n))
    limit = 2.0
    found += [run(vector(3), 1), run(vector(1), 3)]
    limit = 4.0
    return [*found, run(vector(3), 1)]


def handed_out(compile: Compile) -> Any:
    model = filled(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        value = loss.item()
        loss.backward()
        optimizer.step()
        return {"loss": value, "all": (loss, [value, 2])}, loss.item()

    run = compile(f)
    return [run(vector(1, v)) for v in (1, 2, 3, 4)]


def numbers_that_go_elsewhere(compile: Compile) -> Any:
    kept: list[float] = []

    def twice(x: Any) -> Any:
        value = x.sum().item()
        return value * 2

    def keeps(x: Any) -> Any:
        value = x.sum().item()
        kept.append(value)
        return value

    def again(x: Any) -> Any:
        value = x.sum().item()
        return x + value, value

    def chosen(x: Any) -> Any:
        return max(x.sum().item(), 2.5)

    runs = [compile(f) for f in (twice, keeps, again, chosen)]
    return [[run(vector(v)) for run in runs] for v in (1, 2, 3, 4)], kept


def draws(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        if torch.rand(()) > 0.5:
            return x * torch.rand(2)
        return x + torch.randint(0, 9, (2,))

    run = compile(f)
    torch.manual_seed(3)
    return [run(vector(1, 2)) for _ in range(8)], torch.rand(2)


def failures(compile: Compile) -> Any:
    table = torch.arange(4.0)

    def f(x: Any, i: Any) -> Any:
        x.add_(1)
        assert x.sum() < 50, "too much"
        y = table.index_select(0, i)
        if y.sum() > 1:
            x.mul_(2)
        return y

    run, found = compile(f), []
    for v, i in ((1, 1), (2, 3), (99, 1), (3, 2), (4, 7), (5, 3), (6, 9), (1, 1)):
        x = vector(v)
        try:
            found.append(run(x, torch.tensor([i])))
        except Exception as error:
            found.append(type(error).__name__)
        found.append(x)
    return found


def backward_inside(compile: Compile) -> Any:
    weight, found = vector(1, 2).requires_grad_(), []

    def f(x: Any) -> Any:
        loss = (weight * x).sum().square()
        if loss > 4:
            loss.backward()
            if weight.grad.sum() > 100:
                weight.grad.mul_(0.5)
        return loss.detach()

    run = compile(f)
    for v in ((1, 1), (0.1, 0.1), (9, 9), (1, 2), (0.1, 0)):
        found += [run(vector(*v)), weight.grad]
    return found


def costly_beginnings(compile: Compile) -> Any:
    """What both paths begin with is made once: matrix products, and reductions of much."""
    a, found = torch.linspace(-1, 1, 10000).double().reshape(100, 100).requires_grad_(), []

    def f(x: Any) -> Any:
        y = torch.relu(a @ x)
        z = y.softmax(1)
        if y.sum() > z.sum() * 2:
            return (y * z).sum() + y.mean()
        if y.max() > 0.5:
            return y.sum()
        return (z * z).sum() - y.exp().mean()

    run = compile(f)
    for k in (1.0, 0.01, -1.0, 0.5, 0.02):
        x = torch.full((100, 100), k, dtype=torch.float64).requires_grad_()
        y = run(x)
        (g,) = torch.autograd.grad(y, a, create_graph=True)
        (h,) = torch.autograd.grad(g.square().sum() + y, x)
        found += [y, g.sum(), g[3, :4], h.abs().sum(), h[0, 1:3]]
    return found


def outer(compile: Compile) -> Any:
    """A compiled function in a compiled function, a module, hooks."""
    inner = compile(lambda x: x * 2 if x[0] > 0 else x - 1)
    model, found = filled(nn.Linear(1, 1)), []
    run = compile(lambda x: inner(model(x)) if x.sum() > 0 else inner(x))
    for v in (1, -2, 3, -4):
        found.append(run(vector(v)))
    handle = model.register_forward_hook(lambda m, a, y: y + 1 if y[0] > 0 else y - 1)
    for v in (1, -2, 3, -4):
        found.append(run(vector(v)))
    handle.remove()
    return [*found, run(vector(1))]


PROGRAMS = [
    branch,
    gradients,
    written,
    numbers,
    sizes_from_data,
    compared_numbers,
    handed_out,
    numbers_that_go_elsewhere,
    draws,
    failures,
    backward_inside,
    costly_beginnings,
    outer,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_reads_lead_where_they_lead_plainly(program: Callable[[Compile], Any]) -> None:
    agrees(program)


def test_paths_are_recorded_once() -> None:
    a = torch.ones(8, 8)

    def f(x: Any) -> Any:
        y = a @ x
        if y.sum() > 0:
            return y * 2
        return y - 1

    run = torch.compile(f)
    for _ in range(3):
        for v in (1.0, -1.0):
            run(torch.full((8, 8), v))
    assert run.recorded == 2
    entries = [e for kind in run._entries.values() for e in kind.entries]
    assert len({e.replay.steps[0].segment for e in entries}) == 1  # the beginning is one program
    # and its product is not made again
    assert not any("matmul" in str(e.replay.graph) for e in entries)
    assert all("matmul" in str(g) for g in run.graphs)


def test_a_training_step_that_returns_its_loss_is_replayed() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    @torch.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [step(torch.ones(4, 3)) for _ in range(6)]
    assert (
        step.recorded == 2 and losses == sorted(losses, reverse=True) and type(losses[5]) is float
    )


def test_too_many_paths_run_line_by_line() -> None:
    run = torch.compile(lambda x: x * int(x.sum().long()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(20):
            assert run(vector(i)).item() == i * i
    assert len(caught) == 1 and "paths" in str(caught[0].message)
    assert "paths" in run.explain() and run.recorded < 12


def test_side_effects_on_one_path_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            print("positive")
        return x + 1

    run = torch.compile(f)
    for v in (-1, 1, -1, 1, 1, -1):
        assert run(vector(v)).item() == v + 1
    assert capsys.readouterr().out == "positive\n" * 3


def test_the_whole_graph_is_asked_for() -> None:
    for f in (lambda x: x if x.sum() > 0 else -x, lambda x: x.sum().item(), lambda x: x[x > 0]):
        with pytest.raises(RuntimeError, match="depend"):
            torch.compile(f, fullgraph=True)(vector(1, 2))
