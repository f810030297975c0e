"""Copies of operands with the steps of k side by side, as tiles are brought in parts, and rounded
to what is multiplied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphtorch.ir.dtype import f32
from graphtorch.ir.shape import Dim

from ...cpu.loops.nest import Loop
from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Contraction, Source, extent_of, flat, stride
from ...kernels.ir import Expr, cast, load, tf32, unary
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .matrices import factor
from .parts import along_k, copied, in_parts
from .transposes import TileScope

TIMES = 8  # as many times as large the other operand is, of which one is worth a copy
MANY = 2048  # rows of the other operand, for whose tiles one is turned once, not by each of them


def laid(p: Contraction, region: Region, lowering: Lowering) -> None:
    """Let an operand be a copy that is brought in parts along k, where that costs little: one that
    is brought element by element, as the filters of a convolution, or through registers, which turn
    f32 for each tile."""
    a, b = (extent_of([*axes, *p.k]) for axes in (p.m, p.n))
    m, n = (extent_of(axes) for axes in (p.m, p.n))
    if not all(isinstance(size, int) for size in (a, b, m, n)) or p.limits:
        return
    for_a, for_b = (p.a, p.m, a, b, n), (p.b, p.n, b, a, m)
    p.a, p.b = (
        _copy(p, source, axes, region, lowering)
        if _is_free(p, source) and _is_worth(p, source, axes, own, other, rows)
        else source
        for source, axes, own, other, rows in (for_a, for_b)
    )


def _is_free(p: Contraction, source: Source) -> bool:
    """Whether a copy can be made once for all of the contraction."""
    return not source.gates and all(stride(source.address, x) == 0 for x in p.batch)


def _is_worth(
    p: Contraction, source: Source, axes: Sequence[Axis], own: int, other: int, rows: int
) -> bool:
    """Args: own, other: elements of this operand and of the other; rows: of the other."""
    dtype, inner = factor(p), p.k[-1].extent
    assert dtype is not None
    if not isinstance(inner, int) or inner % copied(dtype):
        return False
    if in_parts(p, source, axes) is None:
        return source.stable or own * TIMES <= other
    return dtype is f32 and not along_k(p, source) and (source.stable or rows >= MANY)


def _copy(
    p: Contraction, source: Source, axes: Sequence[Axis], region: Region, lowering: Lowering
) -> Source:
    dtype, places = factor(p), [*axes, *p.k]
    assert dtype is not None
    count, address = extent_of(places), flat(places)
    slot = (lowering.packed if source.stable else lowering.temporary)(dtype, (count,))

    def value(read: Expr) -> Expr:
        for to in source.casts:
            read = cast(read, to)
        return unary("bitcast_float", tf32(read)) if dtype is f32 else read

    e = (_turn if _is_matrix(source, axes, p.k) else _gather)(
        lowering, source, places, (slot, address), value
    )
    moved = count * (dtype.itemsize + source.dtype.itemsize)
    e.launch(f"{region.label} operand along k", 0, moved, prologue=source.stable)
    return replace(source, slot=slot, dtype=dtype, address=address, casts=(), rounded=dtype is f32)


def _is_matrix(source: Source, axes: Sequence[Axis], k: Sequence[Axis]) -> bool:
    return len(axes) == len(k) == 1 and stride(source.address, axes[0]) == 1


To = tuple[Slot, Dim]


def _gather(
    lowering: Lowering,
    source: Source,
    places: Sequence[Axis],
    to: To,
    value: Callable[[Expr], Expr],
) -> Scope:
    """Elements one by one, in the order of the copy."""
    e, (slot, address) = Scope(lowering, "lay"), to
    with e.tasks([x.loop for x in places]):
        read = load(e.buffer(source.slot, hint="x"), e.expr(source.address))
        e.b.store(e.buffer(slot, "write", "packed"), e.expr(address), value(read))
    return e


def _turn(
    lowering: Lowering,
    source: Source,
    places: Sequence[Axis],
    to: To,
    value: Callable[[Expr], Expr],
) -> Scope:
    """Squares by way of shared memory."""
    e, (slot, address) = TileScope(lowering, "lay"), to
    loops = [Loop(i, x.extent, [i]) for i, x in enumerate(places)]
    with e.squares(loops, tuple(x.variable for x in places), 0):
        e.put(slot, address, value(e.read(source.slot, source.address)))
    return e
