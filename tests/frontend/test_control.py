"""`cond`, `while_loop` and `scan`: line by line, compiled and traced; gradients; what they
refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch._deferred import programs
from graphtorch.ir import ops


def modes(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    return [function, torch.compile(function)]


def unrolled(step: Callable[..., Any], carry: Any, xs: Any) -> Any:
    ys = []
    for x in xs:
        carry, y = step(carry, x)
        ys.append(y)
    return carry, torch.stack(ys)


@pytest.mark.parametrize("mode", [0, 1], ids=["deferred", "compiled"])
def test_scan_and_its_gradients_equal_a_python_loop(mode: int) -> None:
    torch.manual_seed(0)
    weight, scale = torch.randn(4, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    h, xs = torch.randn(3, 4, requires_grad=True), torch.randn(6, 3, 4, requires_grad=True)

    def step(carry: Any, x: Any) -> Any:
        new = torch.tanh(carry @ weight.t() + x * scale)
        return new, new * 2

    def loss(loop: Any, h: Any, xs: Any) -> Any:
        last, ys = loop(step, h, xs)
        return (last * last).sum() + (ys**3).sum()

    run = modes(lambda h, xs: loss(torch.scan, h, xs))[mode]
    wanted = torch.autograd.grad(loss(unrolled, h, xs), (weight, scale, h, xs))
    found = torch.autograd.grad(run(h, xs), (weight, scale, h, xs))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


def test_scan_takes_nests_a_dim_and_the_other_direction() -> None:
    xs = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, 3)}
    carry, (totals, double) = torch.scan(
        lambda c, x: ([c[0] + x["a"], c[1] * 2], (c[0], x["b"] * 2)),
        [torch.zeros(2), torch.ones(())],
        xs,
        dim=1,
        reverse=True,
    )
    assert carry[0].tolist() == [3.0, 12.0] and carry[1].item() == 8.0
    assert totals.tolist() == [[3.0, 2.0, 0.0], [9.0, 5.0, 0.0]] and double.shape == (2, 3)


def test_scan_of_a_traced_length() -> None:
    def total(x: Any) -> Any:
        return torch.scan(lambda c, v: (c + v, c), torch.zeros(2), x)[0]

    graph = torch.trace(total, torch.ones(3, 2), dynamic={"x": {0: torch.Dim("steps")}}).graph
    (node,) = [n for n in graph.nodes if n.op is ops.scan]
    assert str(node.attrs.length) == "steps"  # type: ignore[attr-defined]


def test_running_a_loop_before_its_gradient_does_not_run_it_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs: list[Any] = []
    original = programs.find
    monkeypatch.setattr(programs, "find", lambda g, *rest: graphs.append(g) or original(g, *rest))
    weight = torch.randn(5, 5, requires_grad=True)
    xs = torch.randn(7, 2, 5)
    loss = torch.scan(lambda h, x: (torch.tanh(h @ weight + x),) * 2, torch.zeros(2, 5), xs)[
        0
    ].sum()
    loss.item()
    loss.backward()
    weight.grad.sum().item()
    loops = [n for g in graphs for n in g.nodes if n.op is ops.scan]
    assert len(loops) == 2, "one forwards, one backwards"
    products = [sum(n.op is ops.matmul for n in loop.attrs.body.nodes) for loop in loops]
    assert products == [1, 1]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda c, x: c, "must return the next carry and a y"),
        (lambda c, x: (c.sum(), x), "must keep its structure, shapes and dtypes"),
        (lambda c, x: (c + torch.randn(3), x), "draws random numbers.*draw them before it"),
        (lambda c, x: (c if c.sum() > 0 else x, x), "a tensor's value is needed in Python"),
    ],
)
def test_scan_refuses(step: Callable[..., Any], message: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=message):
        torch.scan(step, torch.zeros(3), torch.ones(4, 3))


def test_scan_refuses_writes_to_the_outside_and_no_xs() -> None:
    outside = torch.zeros(3)
    with pytest.raises(RuntimeError, match="writes into a tensor from outside"):
        torch.scan(lambda c, x: (outside.add_(x), x), torch.zeros(3), torch.ones(4, 3))
    with pytest.raises(RuntimeError, match="requires xs"):
        torch.scan(lambda c, x: (c, x), torch.zeros(3), ())
    assert outside.tolist() == [0, 0, 0]


def test_a_step_may_write_to_what_is_its_own() -> None:
    def step(c: Any, x: Any) -> Any:
        c = c + x
        c[0] = 1.0
        return c, c

    assert torch.scan(step, torch.zeros(2), torch.ones(3, 2))[0].tolist() == [1.0, 3.0]


# --------------------------------------------------------------------------------- cond, while_loop


@pytest.mark.parametrize("mode", [0, 1], ids=["deferred", "compiled"])
@pytest.mark.parametrize("start", [1.0, 3.0])
def test_cond(start: float, mode: int) -> None:
    x, scale = (
        torch.full((2,), start, requires_grad=True),
        torch.full((2,), 5.0, requires_grad=True),
    )
    run = modes(lambda x: torch.cond(x.sum() > 4, lambda v: v * scale, lambda v: v + 1, (x,)))[mode]
    y = run(x)
    gradients = torch.autograd.grad(y.sum(), (x, scale), allow_unused=True)
    large = start > 2
    assert y.tolist() == ([start * 5] * 2 if large else [start + 1] * 2)
    assert [g.tolist() for g in gradients] == ([[5, 5], [start] * 2] if large else [[1, 1], [0, 0]])


def test_cond_on_what_python_knows() -> None:
    assert torch.cond(True, lambda v: v + 1, lambda v: v, (torch.ones(2),)).tolist() == [2, 2]
    for wrong in (1.5, torch.ones(2, dtype=torch.bool), torch.tensor(1)):
        with pytest.raises(
            RuntimeError, match="Expected pred to be bool or single-element bool tensor"
        ):
            torch.cond(wrong, lambda v: v, lambda v: v, (torch.ones(2),))
    with pytest.raises(RuntimeError, match="both must return the same shapes and dtypes"):
        torch.cond(torch.tensor(True), lambda v: v, lambda v: v.sum(), (torch.ones(2),))


@pytest.mark.parametrize("mode", [0, 1], ids=["deferred", "compiled"])
def test_while_loop(mode: int) -> None:
    limit = torch.tensor(20.0)

    def doubled(n: Any, x: Any) -> Any:
        return torch.while_loop(lambda n, x: x.sum() < limit, lambda n, x: (n + 1, x * 2), (n, x))

    n, x = modes(doubled)[mode](torch.tensor(0), torch.ones(2))
    assert n.item() == 4 and x.tolist() == [16, 16]


def test_while_loop_has_no_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    (y,) = torch.while_loop(lambda x: x.sum() < 9, lambda x: (x * 2,), (x,))
    with pytest.raises(RuntimeError, match="while_loop has no gradient"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="cond_fn must return a bool tensor"):
        torch.while_loop(lambda x: x, lambda x: (x,), (x,))
    with pytest.raises(RuntimeError, match="body_fn must return what is carried"):
        torch.while_loop(lambda x: x.sum() < 9, lambda x: (x.sum(),), (x,))
