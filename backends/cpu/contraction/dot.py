"""The dot schedule: vectors along k, for operands that are both contiguous there.

What a tile of few rows needs when nothing is packed (a vector times a weight matrix that may
change): every element of both operands is loaded once, as part of a vector, and lanes are added up
at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphtorch.ir.shape import Dim

from ...kernels.body.access import lane_mask
from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Contraction
from ...kernels.ir import Expr, KType, Name, cast, constant, load, reduce
from .tile import Column, Direct, Packed, Row, Writer, steps_of


def dot_tile(lanes: int) -> Callable[..., None]:
    """The tile emitter for vectors of `lanes` elements."""
    return partial(_dot_tile, lanes)


def _dot_tile(
    lanes: int,
    e: Scope,
    p: Contraction,
    rows: Sequence[Row],
    columns: Sequence[Column],
    a: Direct | Packed,
    b: Direct | Packed,
    writer: Writer,
) -> None:
    sums = {
        (i, j): e.b.var(constant(0, KType(p.acc, lanes)), "c")
        for i in range(len(rows))
        for j in range(len(columns))
    }
    a_offsets = [e.b.let(e.expr(a.offset(row, i)), "row") for i, row in enumerate(rows)]
    b_offsets = [e.b.let(e.expr(b.offset(c.at, j)), "column") for j, c in enumerate(columns)]
    starts = e.b.let(a.base(1), "a_at"), e.b.let(b.base(1), "b_at")

    def step(a_at: Expr, b_at: Expr, mask: Expr | None) -> None:
        left = [_vector(e, p, a, a_at + o, lanes, mask) for o in a_offsets]
        right = [_vector(e, p, b, b_at + o, lanes, mask) for o in b_offsets]
        for (i, j), total in sums.items():
            e.b.assign(total, p.multiply_add(left[i], right[j], total))

    def row(a_at: Expr, b_at: Expr) -> None:
        _along(e, p.k[-1].extent, lanes, a_at, b_at, sums, step)

    _outer(e, p, p.k, (a.steps(1), b.steps(1)), starts, row)
    writer.write(
        rows, columns, {at: e.b.let(reduce("add", total), "sum") for at, total in sums.items()}
    )


def _vector(
    e: Scope, p: Contraction, feed: Direct | Packed, at: Expr, lanes: int, mask: Expr | None
) -> Expr:
    buffer = e.buffer(feed.source.slot, dtype=feed.source.dtype)
    value: Expr = load(buffer, at, lanes, mask)
    for dtype in (*feed.source.casts, p.factor):
        value = cast(value, dtype)
    return e.b.let(value, "v")


def _outer(
    e: Scope,
    p: Contraction,
    k: Sequence[Axis],
    steps: tuple[list[Dim], list[Dim]],
    at: tuple[Expr, Expr],
    body: Callable[[Expr, Expr], None],
) -> None:
    """Loops over all axes of k but the last; `steps` and `at` are those of a and b."""
    if len(k) == 1:
        body(*at)
        return
    with e.b.loop(steps_of(e, p, k[0]), name="k") as i:
        a_at, b_at = (e.b.let(x + i * e.expr(s[0]), "at") for x, s in zip(at, steps, strict=True))
        _outer(e, p, k[1:], (steps[0][1:], steps[1][1:]), (a_at, b_at), body)


def _along(
    e: Scope,
    extent: Dim,
    lanes: int,
    a_at: Expr,
    b_at: Expr,
    sums: dict[tuple[int, int], Name],
    step: Callable[[Expr, Expr, Expr | None], None],
) -> None:
    """The last axis of k: whole vectors, then what is left under a mask."""
    size = e.expr(extent)
    whole = e.b.let(size // lanes * lanes, "whole")
    with e.b.loop(whole, "rolled" if len(sums) >= 8 else "serial", "k", step=lanes) as i:
        step(a_at + i, b_at + i, None)
    if isinstance(extent, int) and extent % lanes == 0:
        return
    left: int | Expr = e.b.let(size - whole, "left")
    if isinstance(extent, int):
        left = extent % lanes
    step(a_at + whole, b_at + whole, lane_mask(left, lanes))
