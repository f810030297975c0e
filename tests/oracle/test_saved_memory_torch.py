"""What a backward pass reads where memory was written to, or replaced, since the forward pass.

PyTorch keeps operands as tensors, which show what ``.data`` they have by now, and results as the
memory they had then; writes through ``.data`` are in both, and no version counts them.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt

torch: Any = pytest.importorskip("torch")


def leaf(t: Any, *shape: int, by: float = 0.31) -> Any:
    count = t.arange(float(t.Size(shape).numel()), dtype=t.float64)
    return ((count * by).sin() + 1.5).reshape(shape).requires_grad_()


def fresh(t: Any, *shape: int) -> Any:
    return leaf(t, *shape, by=0.7).detach() * 2


# What is computed of x and w; then what happens to x, w or what was computed.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "square": lambda t, x, w: x * x,
    "product": lambda t, x, w: x * w,
    "sin": lambda t, x, w: x.sin(),
    "exp": lambda t, x, w: x.exp(),
    "matmul": lambda t, x, w: x @ w.t(),
    "linear": lambda t, x, w: t.nn.functional.linear(x, w),
    "division": lambda t, x, w: x / w,
    "power": lambda t, x, w: x**3,
    "affine": lambda t, x, w: t.nn.functional.linear(x, w, w[:, 0]),
    "softmax": lambda t, x, w: x.softmax(-1) * w,
    "cast": lambda t, x, w: x.float() * w.float(),
}


def _in_half(t: Any, x: Any, w: Any, y: Any) -> None:
    w.data = fresh(t, 2, 3)[:1].expand(2, 3)


CHANGES: dict[str, Callable[..., Any]] = {
    "w replaced": lambda t, x, w, y: setattr(w, "data", fresh(t, 2, 3)),
    "x replaced": lambda t, x, w, y: setattr(x, "data", fresh(t, 2, 3)),
    "replaced twice": lambda t, x, w, y: (
        setattr(x, "data", fresh(t, 2, 3)),
        setattr(x, "data", x.data * 3),
    ),
    "replaced by a view": _in_half,
    "replaced, then written to": lambda t, x, w, y: (
        setattr(x, "data", fresh(t, 2, 3)),
        x.data.mul_(2),
    ),
    "written to, then replaced": lambda t, x, w, y: (
        x.data.mul_(2),
        setattr(x, "data", fresh(t, 2, 3)),
    ),
    "result replaced": lambda t, x, w, y: setattr(y, "data", y.detach() * 3),
    "result written to, then replaced": lambda t, x, w, y: (
        y.data.mul_(2),
        setattr(y, "data", y.detach() * 3),
    ),
    "copied into": lambda t, x, w, y: x.data.copy_(fresh(t, 2, 3)),
    "a row written to": lambda t, x, w, y: x.data.__setitem__(0, 5.0),
    "optimizer's step": lambda t, x, w, y: t.optim.SGD([x, w], 0.1).step(),
    "under no_grad": lambda t, x, w, y: _quietly(t, x),
    "swapped": lambda t, x, w, y: _swap(x, w),
}


def _quietly(t: Any, x: Any) -> None:
    with t.no_grad():
        x.mul_(2)


def _swap(x: Any, w: Any) -> None:
    x.data, w.data = w.data, x.data


def outcome(function: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function()
        except Exception as error:
            return type(error).__name__


def gradients(t: Any, function: Any, change: Any, second: bool, tracked: bool) -> Any:
    x, w = leaf(t, 2, 3), leaf(t, 2, 3, by=0.5)
    a, b = (x * 1, w * 1) if tracked else (x, w)
    a.grad, b.grad = (t.ones_like(a), t.ones_like(b)) if not tracked else (None, None)
    y = function(t, a, b)
    change(t, a, b, y)
    if a.grad is not None:
        a.grad = b.grad = None
    found = t.autograd.grad(
        (y * y).sum(), [x, w], create_graph=second, retain_graph=True, allow_unused=True
    )
    if second:
        total = sum((g * g).sum() for g in found if g is not None)
        found = t.autograd.grad(total, [x, w], allow_unused=True)
    return [None if g is None else g.flatten().tolist() for g in found]


@pytest.mark.parametrize("tracked", [False, True], ids=["leaf", "computed"])
@pytest.mark.parametrize("change", CHANGES)
def test_gradients_read_what_pytorchs_do(change: str, tracked: bool) -> None:
    for name, function in FUNCTIONS.items():
        for second in (False, True):
            given = function, CHANGES[change], second, tracked
            ours, theirs = (outcome(functools.partial(gradients, t, *given)) for t in (gt, torch))
            same(ours, theirs, f"{name}, second: {second}")


def same(ours: Any, theirs: Any, what: str) -> None:
    if isinstance(theirs, str) or isinstance(ours, str):
        assert ours == theirs, what
        return
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None), what
        assert a is None or a == pytest.approx(b, rel=1e-5), what


def _nobody_has_it(t: Any) -> Any:
    """A tensor that is written to through .data, and then has no name any more."""
    x = leaf(t, 3)

    def inside() -> Any:
        h = x * 2
        y = h * h
        h.data.mul_(3)
        return y

    inside().sum().backward()
    return x.grad.tolist()


def _result_nobody_has(t: Any) -> Any:
    x = leaf(t, 3)

    def inside() -> Any:
        y = x.exp()
        y.data.mul_(3)
        return y * 2

    inside().sum().backward()
    return x.grad.tolist()


def _replaced_and_gone(t: Any) -> Any:
    x = leaf(t, 3)

    def inside() -> Any:
        h = x * 2
        y = h * h
        h.data = fresh(t, 3)
        return y

    inside().sum().backward()
    return x.grad.tolist()


def _views_stay(t: Any) -> Any:
    """A view that was made before shows the memory from before."""
    x = leaf(t, 2, 3)
    v = x[0]
    y = v * v
    x.data = fresh(t, 2, 3)
    z = (x * x).sum() + y.sum()
    z.backward()
    return x.grad.flatten().tolist(), v.tolist(), x.flatten().tolist()


def _detached_stays(t: Any) -> Any:
    x, w = leaf(t, 3), leaf(t, 3)
    d = x.detach()
    y = (d * w).sum() + (x * w).sum()
    x.data = fresh(t, 3)
    y.backward()
    return x.grad.tolist(), w.grad.tolist()


def _averaged_weights(t: Any) -> Any:
    """Weights that are swapped for an average and back leave the gradient alone."""
    layer = t.nn.Linear(3, 2).double()
    for p in layer.parameters():
        p.data.fill_(0.5)
    x = leaf(t, 4, 3)
    loss = layer(x).tanh().sum()
    kept = [p.data for p in layer.parameters()]
    for p in layer.parameters():
        p.data = t.zeros_like(p.data)
    for p, before in zip(layer.parameters(), kept, strict=True):
        p.data = before
    loss.backward()
    return x.grad.flatten().tolist(), *[p.grad.flatten().tolist() for p in layer.parameters()]


def _frees_all_the_same(t: Any) -> Any:
    """A pass that read memory as it was by then has freed what it saved; so do others later."""
    found = []
    for write in (True, False):
        x = leaf(t, 5)
        y = (x * 1).exp()
        if write:
            y.data.mul_(2)
        z = y.sum()
        z.backward()
        found.append(x.grad.tolist())
        found.append(outcome(lambda z=z: z.backward()))
    return found


def _in_place_on_a_view(t: Any) -> Any:
    x = leaf(t, 2, 3)
    base = x - 1.6
    base.t().relu_()
    base.data.exp_()
    base.sum().backward()
    return x.grad.flatten().tolist()


def _other_shape(t: Any) -> Any:
    x, w = leaf(t, 3), leaf(t, 3)
    y = x * w
    w.data = fresh(t, 4)
    y.sum().backward()
    return x.grad.tolist()


def _between_first_and_second(t: Any) -> Any:
    x = leaf(t, 3)
    h = x * 1
    (g,) = t.autograd.grad((h**3).sum(), x, create_graph=True)
    with t.no_grad():
        h.mul_(2)
    g.sum().backward()
    return x.grad.tolist()


def _equal_operands(t: Any) -> Any:
    """Two operands that hold the same numbers, of which one is written to."""
    x, w = leaf(t, 3), leaf(t, 3)
    z = w.clone()
    y = x * z
    z.data.mul_(3)
    y.sum().backward()
    return x.grad.tolist(), w.grad.tolist()


def _a_function_of_the_users(t: Any) -> Any:
    class Square(t.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g * ctx.saved_tensors[0]

    x = leaf(t, 3)
    y = Square.apply(x)
    x.data = fresh(t, 3)
    y.sum().backward()
    return x.grad.tolist()


PROGRAMS = (
    _nobody_has_it,
    _result_nobody_has,
    _replaced_and_gone,
    _views_stay,
    _detached_stays,
    _averaged_weights,
    _frees_all_the_same,
    _in_place_on_a_view,
    _other_shape,
    _between_first_and_second,
    _equal_operands,
    _a_function_of_the_users,
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(program: Callable[[Any], Any]) -> None:
    ours, theirs = (outcome(functools.partial(program, t)) for t in (gt, torch))
    assert rounded(ours) == rounded(theirs)


def rounded(found: Any) -> Any:
    if isinstance(found, (list, tuple)):
        return [rounded(x) for x in found]
    return float(f"{found:.9g}") if isinstance(found, float) else found


def test_compiled_calls_read_what_plain_ones_do() -> None:
    def step(x: Any, w: Any) -> Any:
        return (x * w).sin() * x

    compiled = gt.compile(step)
    for change in ("w replaced", "x replaced", "copied into", "swapped", "replaced twice"):
        for _ in range(3):
            found = []
            for function in (step, compiled):
                x, w = leaf(gt, 2, 3), leaf(gt, 2, 3, by=0.5)
                y = function(x, w)
                CHANGES[change](gt, x, w, y)
                y.sum().backward()
                found.append([x.grad.flatten().tolist(), w.grad.flatten().tolist()])
            for plain, replayed in zip(*found, strict=True):
                assert plain == pytest.approx(replayed), change
