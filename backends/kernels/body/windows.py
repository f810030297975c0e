"""Pooling as values at an index: a result is computed from the elements of its window where it is
needed.

So a pool fuses with what follows it, and its gradient with what precedes it. Small windows are
unrolled, which leaves the loop over results to the vectoriser; large and variable ones are loops.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphtorch.ir.dtype import i32, i64
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim

from ...dataclass import dataclass
from ..ir import Const, Expr, KType, binary, cast, select, unary
from .evaluate import SPECIAL, Evaluator, Mask, Result, Special, Unready
from .pointwise import maximum, number, wide
from .views import Index

UNROLL = 36  # most elements of a window that are written out

Visit = Callable[[tuple[Dim, ...]], None]


@dataclass(eq=False)
class Axis:
    """Window positions along a dimension: ``start + k * step`` for k < `count`, inside ``[0,
    size)``.

    With `ends`, positions from one expression up to another instead.
    """

    size: Dim
    start: Dim = 0
    step: int = 1
    count: int = 0
    ends: tuple[Expr, Expr] | None = None


def visit(e: Evaluator, axes: Sequence[Axis], body: Visit) -> None:
    """Run `body` at every position of a window, in row-major order, unrolled where it is small."""
    if unrolled(axes):
        for tap in itertools.product(*(range(a.count) for a in axes)):
            body(tuple(a.start + k * a.step for a, k in zip(axes, tap, strict=True)))
        return
    with _loops(e, axes) as position:
        body(position)


def unrolled(axes: Sequence[Axis]) -> bool:
    return all(a.ends is None for a in axes) and math.prod(a.count for a in axes) <= UNROLL


@contextmanager
def _loops(e: Evaluator, axes: Sequence[Axis]) -> Iterator[tuple[Dim, ...]]:
    if not axes:
        yield ()
        return
    first, *rest = axes
    if first.ends is not None:
        with (
            e.scope.loop(
                first.size,
                "serial",
                "k",
                first.ends[0],
                first.ends[1],
                variable=e.scope.space.opaque(first.size),
            ) as i,
            _loops(e, rest) as inner,
        ):
            yield (i, *inner)
        return
    with (
        e.scope.loop(first.count, "serial", "k", variable=e.scope.space.opaque(first.count)) as k,
        _loops(e, rest) as inner,
    ):
        yield (first.start + k * first.step, *inner)


def read_tap(
    e: Evaluator, x: Value, lead: Index, at: tuple[Dim, ...], mask: Mask | None
) -> tuple[Expr, Expr | None]:
    """The element of x at spatial position `at` (0 outside), and whether it is inside; None where
    that is certain."""
    tests = [(i, 0, size) for i, size in zip(at, x.shape[2:], strict=True)]
    condition, narrowed = e.within(mask, tests)
    return e.at(x, (*lead, *at), narrowed), condition


def dilation_of(node: Node) -> tuple[int, ...]:
    return getattr(node.attrs, "dilation", (1,) * len(node.attrs.kernel))


def pool_axes(node: Node, index: Index) -> list[Axis]:
    attrs = node.attrs
    return [
        Axis(size, o * s - p, d, k)
        for size, o, s, p, d, k in zip(
            node.operands[0].shape[2:],
            index[2:],
            attrs.stride,
            attrs.padding,
            dilation_of(node),
            attrs.kernel,
            strict=True,
        )
    ]


def adaptive_axes(e: Evaluator, node: Node, index: Index) -> list[Axis]:
    axes = []
    for size, o, out in zip(
        node.operands[0].shape[2:], index[2:], node.types[0].shape[2:], strict=True
    ):
        start = binary("div", e.scope.condition(o * size), e.scope.expr(out))
        stop = binary("div", e.scope.condition((o + 1) * size + (out - 1)), e.scope.expr(out))
        axes.append(Axis(size, ends=(e.scope.b.let(start, "start"), e.scope.b.let(stop, "stop"))))
    return axes


def innermost(e: Evaluator) -> int:
    """Windows are computed in the innermost loop: their registers must not be shared between
    iterations."""
    return e.scope.b.depth


def _max(e: Evaluator, value: Value, index: Index, mask: Mask | None, axes: list[Axis]) -> Result:
    node = value.node
    assert node is not None
    return (
        _max_place(e, node, index, mask, axes)
        if value.index
        else _max_value(e, node, index, mask, axes)
    )


def lowest(like: KType) -> Const:
    return Const(like.dtype.ends[0], like)


def _max_value(
    e: Evaluator, node: Node, index: Index, mask: Mask | None, axes: list[Axis]
) -> Result:
    x, b = node.operands[0], e.scope.b
    floor = lowest(KType(x.dtype))
    best = b.var(floor, "best")

    def step(at: tuple[Dim, ...]) -> None:
        found, here = read_tap(e, x, index[:2], at, mask)
        candidate = found if here is None else select(here, found, floor)
        b.assign(best, maximum(best, b.let(candidate, "tap")))

    visit(e, axes, step)
    return Result(best, innermost(e))


def _max_place(
    e: Evaluator, node: Node, index: Index, mask: Mask | None, axes: list[Axis]
) -> Result:
    """The position of the maximum."""
    x, b = node.operands[0], e.scope.b
    if unrolled(axes):
        return _max_offset(e, x, index, mask, axes)
    best = b.var(lowest(KType(x.dtype)), "best")
    where = b.var(Const(-1), "where")

    def step(at: tuple[Dim, ...]) -> None:
        found, here = read_tap(e, x, index[:2], at, mask)
        flat = e.scope.condition(e.scope.space.linear(at, x.shape[2:]))
        better = binary("or", beats(found, best), binary("lt", where, Const(0)))
        taken = b.let(better if here is None else binary("and", better, here), "taken")
        b.assign(best, select(taken, found, best))
        b.assign(where, select(taken, flat, where))

    visit(e, axes, step)
    return Result(b.let(binary("max", where, Const(0)), "where"), innermost(e))


def _max_offset(
    e: Evaluator, x: Value, index: Index, mask: Mask | None, axes: list[Axis]
) -> Result:
    """The same where the window is written out: where it starts, plus a choice between
    constants."""
    b, space = e.scope.b, e.scope.space
    first = space.linear(tuple(a.start for a in axes), x.shape[2:])
    best: Expr | None = None
    offset: Expr = Const(-1, KType(i32))  # no element of the window is inside

    def step(at: tuple[Dim, ...]) -> None:
        nonlocal best, offset
        found, here = read_tap(e, x, index[:2], at, mask)
        own = cast(e.scope.expr(space.linear(at, x.shape[2:]) - first), i32)
        value = found if here is None else select(here, found, lowest(found.type))
        if best is None:
            best, offset = value, own if here is None else select(here, own, offset)
        else:
            better = beats(found, best)
            if here is not None:
                better = binary("or", better, binary("lt", offset, Const(0, KType(i32))))
                better = binary("and", better, here)
            offset = select(b.let(better, "taken"), own, offset)
            best = maximum(best, value)  # a select of floats would branch on the data
        best, offset = b.let(best, "best"), b.let(offset, "offset")

    visit(e, axes, step)
    where = binary("add", e.scope.condition(first), cast(offset, i64))
    ends = [(i, a.size) for a in axes for i in (a.start, a.start + (a.count - 1) * a.step)]
    if not all(space.within(i, size) for i, size in ends):
        where = select(binary("lt", offset, Const(0, KType(i32))), Const(0), where)
    return Result(b.let(where, "where"), innermost(e))


def beats(x: Expr, best: Expr) -> Expr:
    """Whether x replaces the maximum so far: greater ones do, and NaN does."""
    greater = greater_than(best, x)
    return binary("or", greater, unary("isnan", x)) if x.type.dtype.is_floating_point else greater


def greater_than(a: Expr, x: Expr) -> Expr:
    """Whether x > a."""
    if a.type.dtype.signed:
        return binary("gt", x, a)
    return binary("lt_u", a, x)


def _sum(e: Evaluator, x: Value, index: Index, mask: Mask | None, axes: list[Axis]) -> Expr:
    """The sum of a window in the dtype it is computed in; outside the input counts as 0."""
    b = e.scope.b
    dtype = wide(x.dtype)
    total = b.var(Const(0.0, KType(dtype)), "total")

    def step(at: tuple[Dim, ...]) -> None:
        # masked loads give 0; computed values may not
        found, here = read_tap(e, x, index[:2], at, mask)
        value = cast(found, dtype)
        if here is not None:
            value = select(here, value, number(0, value))
        b.assign(total, binary("add", total, b.let(value, "tap")))

    visit(e, axes, step)
    return total


def max_pool(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    assert value.node is not None
    return _max(e, value, index, mask, pool_axes(value.node, index))


def adaptive_max_pool(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    assert value.node is not None
    return _max(e, value, index, mask, adaptive_axes(e, value.node, index))


def avg_pool(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    node = value.node
    assert node is not None
    (x,) = node.operands
    total = _sum(e, x, index, mask, pool_axes(node, index))
    count = divisor(e, node.attrs, x.shape[2:], index[2:], None)
    return _mean(e, node, total, count)


def _mean(e: Evaluator, node: Node, total: Expr, count: Expr) -> Result:
    quotient = binary("div", total, cast_count(count, total))
    return Result(e.scope.b.let(cast(quotient, node.types[0].dtype), node.op.name), innermost(e))


def cast_count(count: Expr, like: Expr) -> Expr:
    return number(count.value, like) if isinstance(count, Const) else cast(count, like.type.dtype)


def divisor(
    e: Evaluator,
    attrs: Any,
    spatial: Sequence[Dim],
    index: Sequence[Dim],
    clamped: Sequence[Dim] | None,
) -> Expr:
    """What the sum of window `index` of an average pool is divided by."""
    fixed = attrs.divisor
    if fixed is not None:
        return Const(fixed)
    total: Expr = Const(1)
    for size, o, k, s, p in zip(
        spatial,
        index,
        attrs.kernel,
        attrs.stride,
        attrs.padding,
        strict=True,
    ):
        total = binary("mul", total, _extent(e, attrs, size, o * s - p, k, p))
    return e.scope.b.let(total, "count")


def _extent(e: Evaluator, attrs: Any, size: Dim, start: Dim, k: int, pad: int) -> Expr:
    include = attrs.count_include_pad
    space = e.scope.space
    if space.within(start + pad + k - 1, size + 2 * pad) and (include or pad == 0):
        return Const(k)
    first = e.scope.condition(start)
    last = binary("min", binary("add", first, Const(k)), e.scope.expr(size + pad))
    if not include:
        first, last = binary("max", first, Const(0)), binary("min", last, e.scope.expr(size))
    return binary("max", binary("sub", last, first), Const(1))


def reach_of(node: Node) -> list[int]:
    """Of a pool's gradient: over how many windows an element may lie along each dimension."""
    rows = zip(node.attrs.kernel, dilation_of(node), node.attrs.stride, strict=True)
    return [-(-((k - 1) * d + 1) // s) for k, d, s in rows]


def is_looped(node: Node) -> bool:
    """Whether a pool or its gradient goes over windows in loops: they are not written out."""
    name = node.op.name
    if name not in WINDOWS or name.startswith("adaptive"):
        return name in WINDOWS
    grad = name.endswith("_grad")
    return math.prod(reach_of(node) if grad else node.attrs.kernel) > UNROLL


# takes a window over the element, and whether it is one: None where that is certain
Share = Callable[[tuple[Dim, ...], Expr | None, Mask | None], None]


def visit_windows(e: Evaluator, node: Node, index: Index, mask: Mask | None, body: Share) -> None:
    """Run `body` for the windows of a pool that reach over element `index` of its input: window
    o = (i + p) // s - t for a few t, written out where these are few."""
    attrs, sizes = node.attrs, node.operands[0].shape[2:]
    spans = [(k - 1) * d + 1 for k, d in zip(attrs.kernel, dilation_of(node), strict=True)]
    reach = reach_of(node)
    places = [i + p for i, p in zip(index[2:], attrs.padding, strict=True)]
    if math.prod(reach) > UNROLL:
        axes = []
        for at, span, s, size in zip(places, spans, attrs.stride, sizes, strict=True):
            i = e.scope.condition(at)
            first = binary("div", binary("max", i - span + s, Const(0)), Const(s))
            end = binary("min", i // s + 1, e.scope.expr(size))
            axes.append(Axis(size, ends=(e.scope.b.let(first, "first"), e.scope.b.let(end, "end"))))
        visit(e, axes, lambda o: body(o, None, mask))
        return
    space = e.scope.space
    last = [space.div(at, s) for at, s in zip(places, attrs.stride, strict=True)]
    for back in itertools.product(*map(range, reach)):
        o = tuple(a - t for a, t in zip(last, back, strict=True))
        tests: list[tuple[Dim, Dim, Dim]] = [(a, 0, size) for a, size in zip(o, sizes, strict=True)]
        tests += [
            (space.mod(at, s) + t * s, 0, span)
            for at, t, s, span in zip(places, back, attrs.stride, spans, strict=True)
        ]
        body(o, *e.within(mask, tests))


def avg_pool_grad(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    """The shares of all windows that hold the element."""
    node = value.node
    assert node is not None
    g, attrs, b = node.operands[0], node.attrs, e.scope.b
    dtype = wide(g.dtype)
    total = b.var(Const(0.0, KType(dtype)), "total")

    def add(o: tuple[Dim, ...], condition: Expr | None, here: Mask | None) -> None:
        share = cast(e.result(g, (*index[:2], *o), here).expr, dtype)
        share = binary("div", share, cast_count(divisor(e, attrs, attrs.spatial, o, None), share))
        share = share if condition is None else select(condition, share, number(0, share))
        b.assign(total, binary("add", total, b.let(share, "share")))

    visit_windows(e, node, index, mask, add)
    return Result(cast(total, g.dtype), innermost(e))


def max_pool_grad(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    """The g of all windows whose maximum is the element."""
    node = value.node
    assert node is not None
    if not node.attrs.kernel:
        raise Unready(value)
    g, places = node.operands
    b, dtype = e.scope.b, wide(g.dtype)
    here = e.scope.condition(e.scope.space.linear(index[2:], node.attrs.spatial))
    total = b.var(number(0, Const(0, KType(dtype))), "total")

    def add(o: tuple[Dim, ...], condition: Expr | None, reads: Mask | None) -> None:
        found = binary("eq", e.at(places, (*index[:2], *o), reads), here)
        if condition is not None:
            found = binary("and", found, condition)
        share = cast(e.at(g, (*index[:2], *o), reads), dtype)
        share = select(b.let(found, "found"), share, number(0, share))
        b.assign(total, binary("add", total, b.let(share, "share")))

    visit_windows(e, node, index, mask, add)
    return Result(cast(total, g.dtype), innermost(e))


def adaptive_avg_pool(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    node = value.node
    assert node is not None
    axes = adaptive_axes(e, node, index)
    total = _sum(e, node.operands[0], index, mask, axes)
    count: Expr = Const(1)
    for axis in axes:
        assert axis.ends is not None
        count = binary("mul", count, binary("sub", axis.ends[1], axis.ends[0]))
    return _mean(e, node, total, count)


def adaptive_avg_pool_grad(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    """The shares of the windows o with floor(i*O/S) <= o < ceil((i+1)*O/S): those that hold element
    i."""
    node = value.node
    assert node is not None
    g, b = node.operands[0], e.scope.b
    dtype = wide(g.dtype)
    total = b.var(Const(0.0, KType(dtype)), "total")
    axes = []
    for i, size, out in zip(index[2:], node.attrs.spatial, g.shape[2:], strict=True):
        first = binary("div", e.scope.condition(i * out), e.scope.expr(size))
        end = binary("div", e.scope.condition((i + 1) * out + (size - 1)), e.scope.expr(size))
        axes.append(Axis(out, ends=(b.let(first, "first"), b.let(end, "end"))))

    def step(o: tuple[Dim, ...]) -> None:
        share = cast(e.result(g, (*index[:2], *o), mask).expr, dtype)
        count: Expr = Const(1)
        for at, size, out in zip(o, node.attrs.spatial, g.shape[2:], strict=True):
            start = binary("div", e.scope.condition(at * size), e.scope.expr(out))
            stop = binary("div", e.scope.condition((at + 1) * size + (out - 1)), e.scope.expr(out))
            count = binary("mul", count, binary("sub", stop, start))
        b.assign(total, binary("add", total, binary("div", share, cast(count, dtype))))

    visit(e, axes, step)
    return Result(cast(total, g.dtype), innermost(e))


WINDOWS: dict[str, Special] = {
    "max_pool": max_pool,
    "max_pool_grad": max_pool_grad,
    "adaptive_max_pool": adaptive_max_pool,
    "avg_pool": avg_pool,
    "avg_pool_grad": avg_pool_grad,
    "adaptive_avg_pool": adaptive_avg_pool,
    "adaptive_avg_pool_grad": adaptive_avg_pool_grad,
}
SPECIAL.update(WINDOWS)  # the evaluator meets pools by name, like any op that reads elsewhere
