"""Contractions whose operands and result all run along the same axis: depthwise convolutions,
channels last.

    C[m, n] = sum over k of A[m, k, n] * B[k, n]

Nothing is summed across n, so vectors along it are read of both operands; a tile's rows (pixels of
a row, or positions of a kernel) share what is read of B. Neighbouring pixels read the same elements
of A at different steps of k: short loops over k are written out, and what comes again stays in
registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Contraction, extent_of, stride
from ...kernels.ir import Const, Expr, KType, binary, cast, fma, load, splat
from ...kernels.machine import SERIAL_WORK, Machine
from .borders import Borders
from .choice import guess, sizes_of_rows
from .schedule import Schedule, Tiling, column_sizes
from .tile import Column, Direct, Packed, Row, Writer, steps_of

MOST_ROWS = 8  # of a tile one vector wide
UNROLL = 32  # steps of k that are written out


def diagonal(p: Contraction) -> Contraction | None:
    """The contraction with its one batch axis as n; None where that axis is not contiguous in the
    image, or something else runs along m."""
    if len(p.batch) != 1 or any(a.extent != 1 for a in p.m) or not p.acc.is_floating_point:
        return None
    (along,) = p.batch
    if stride(p.b.address, along) != 1 or not isinstance(along.extent, int):
        return None
    return replace(p, batch=[], m=p.n, n=[along], a=p.b, b=p.a)


def diagonal_schedule(p: Contraction, machine: Machine) -> Schedule:
    """Vectors along n, as many rows as have registers."""
    lanes = machine.lanes(p.acc.itemsize)
    work = extent_of(p.axes())
    vectors = 1 if machine.registers <= 16 else 2
    return Schedule(
        "diagonal",
        lanes,
        False,
        _row_tiling(p.m, MOST_ROWS),
        Tiling(column_sizes(p.n[-1].extent, vectors, lanes)),
        False,
        stride(p.b.address, p.n[-1]) != 1,
        parallel=not isinstance(work, int) or work >= SERIAL_WORK // lanes,
    )


def _row_tiling(axes: Sequence[Axis], most: int) -> Tiling:
    extent = axes[-1].extent
    if (
        len(axes) > 1
        and all(isinstance(a.extent, int) for a in axes[-2:])
        and math.prod(guess(a.extent) for a in axes[-2:]) <= most + 1
    ):
        return Tiling((guess(axes[-2].extent),), (guess(extent),))
    return Tiling(sizes_of_rows(extent, most))


def diagonal_tile(
    e: Scope,
    p: Contraction,
    rows: Sequence[Row],
    columns: Sequence[Column],
    a: Direct | Packed,
    b: Direct | Packed,
    writer: Writer,
) -> None:
    """Accumulate one tile over all of k and hand it to `writer`."""
    sums = {
        (i, j): e.b.var(Const(0.0, KType(p.acc, c.chunk.lanes)), "c")
        for i in range(len(rows))
        for j, c in enumerate(columns)
    }
    width = sum(c.chunk.lanes for c in columns)
    a_offsets = {(i, j): e.expr(a.offset({**rows[i], **columns[j].at}, 0)) for i, j in sums}
    b_offsets = [e.expr(b.offset(c.at, c.chunk.offset)) for c in columns]

    borders = Borders(e, p, rows)

    def step(a_at: Expr, b_at: Expr, inside: Sequence[Expr] | None) -> None:
        for j, c in enumerate(columns):
            shared = _vector(e, p, b, b_at + b_offsets[j], c)
            for i in range(len(rows)):
                own = _vector(e, p, a, a_at + a_offsets[i, j], c, inside[i] if inside else None)
                e.b.assign(sums[i, j], fma(own, shared, sums[i, j]))

    def loops(depth: int, a_at: Expr, b_at: Expr, inside: Sequence[Expr] | None) -> None:
        if depth == len(p.k):
            step(a_at, b_at, inside)
            return
        axis = p.k[depth]
        low, high = borders.span(axis, steps_of(e, p, axis))
        kind = "unroll" if _is_short(p.k[depth:], p) and isinstance(high, Const) else "serial"
        with e.b.loop(high, kind, "k", lo=low) as i:
            e.space.bind(axis.variable, i)
            border = borders.across(axis) if inside is not None else None
            kept = inside if border is None else borders.both(inside or (), borders.inside(border))
            loops(
                depth + 1,
                e.b.let(a_at + i * e.expr(a_steps[depth]), "a_at"),
                e.b.let(b_at + i * e.expr(b_steps[depth]), "b_at"),
                kept,
            )

    a_steps, b_steps = a.steps(len(rows)), b.steps(width)
    starts = e.b.let(a.base(len(rows)), "a_at"), e.b.let(b.base(width), "b_at")
    whole = borders.everywhere()
    if whole is None:
        loops(0, *starts, None)
    else:
        with e.b.when(whole):
            loops(0, *starts, None)
        with e.b.otherwise():
            loops(0, *starts, ())
    writer.write(rows, columns, dict(sums))


def _is_short(k: Sequence[Axis], p: Contraction) -> bool:
    """Whether the loops over `k` are written out."""
    known = all(isinstance(x.extent, int) and x.name not in p.limits for x in k)
    return known and math.prod(guess(x.extent) for x in k) <= UNROLL


def _vector(
    e: Scope,
    p: Contraction,
    feed: Direct | Packed,
    at: Expr,
    c: Column,
    inside: Expr | None = None,
) -> Expr:
    mask = None if isinstance(feed, Packed) else c.mask()
    if inside is not None:
        outside = splat(inside, c.chunk.lanes)
        mask = outside if mask is None else binary("and", mask, outside)
    value: Expr = load(e.buffer(feed.source.slot), at, c.chunk.lanes, mask)
    for dtype in (*feed.source.casts, p.acc):
        value = cast(value, dtype)
    return e.b.let(splat(value, c.chunk.lanes), "v")
