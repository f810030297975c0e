"""Copies of small operands with the steps of k side by side, as tiles are brought in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Contraction, Source, extent_of, flat, stride
from ...kernels.ir import Expr, cast, load
from ...kernels.program.lowering import Lowering, Region
from .matrices import factor
from .parts import copied, in_parts

TIMES = 8  # as many times as large the other operand is, of which one is worth a copy


def laid(p: Contraction, region: Region, lowering: Lowering) -> None:
    """Let an operand that is brought element by element be a copy that is brought in parts, where
    that costs little: the filters of a convolution."""
    a, b = (extent_of([*axes, *p.k]) for axes in (p.m, p.n))
    if not (isinstance(a, int) and isinstance(b, int)) or p.limits:
        return
    if is_scattered(p, p.a, p.m) and (p.a.stable or a * TIMES <= b):
        p.a = _copy(p, p.a, p.m, region, lowering)
    if is_scattered(p, p.b, p.n) and (p.b.stable or b * TIMES <= a):
        p.b = _copy(p, p.b, p.n, region, lowering)


def is_scattered(p: Contraction, source: Source, axes: Sequence[Axis]) -> bool:
    dtype, inner = factor(p), p.k[-1].extent
    assert dtype is not None
    return (
        in_parts(p, source, axes) is None
        and not source.gates
        and isinstance(inner, int)
        and inner % copied(dtype) == 0
        and all(stride(source.address, x) == 0 for x in p.batch)
    )


def _copy(
    p: Contraction, source: Source, axes: Sequence[Axis], region: Region, lowering: Lowering
) -> Source:
    dtype, places = factor(p), [*axes, *p.k]
    assert dtype is not None
    count, address = extent_of(places), flat(places)
    slot = (lowering.packed if source.stable else lowering.temporary)(dtype, (count,))
    e = Scope(lowering, "lay", p.space)
    with e.tasks([x.loop for x in places]):
        value: Expr = load(e.buffer(source.slot, hint="x"), e.expr(source.address))
        for to in source.casts:
            value = cast(value, to)
        e.b.store(e.buffer(slot, "write", "packed"), e.expr(address), value)
    moved = count * (dtype.itemsize + source.dtype.itemsize)
    e.launch(f"{region.label} operand along k", 0, moved, prologue=source.stable)
    return replace(source, slot=slot, dtype=dtype, address=address, casts=())
