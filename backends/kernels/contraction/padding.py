"""Images copied with their zeros, for kernels that read them without asking where they end."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.shape import Dim, evaluate

from ..body.scope import Scope
from ..ir import Buffer, Const, Expr, KType, binary, constant, load
from ..program.lowering import Lowering
from ..program.program import Slot
from .problem import Axis, Source, axis, extent_of, flat

PLANE_WORK = 16384  # elements to copy that make a task


def padded_copy(
    lowering: Lowering,
    source: Source,
    shape: Sequence[Dim],
    low: Sequence[int],
    spread: Sequence[int],
    out: Sequence[Dim],
) -> Slot:
    """An image with zeros around it (and between its elements): ``y[.., low + i * spread] = x[..,
    i]``.

    Args:
        shape: of the source [N, C, *S], read at `source.address` of its row-major position.
        low: zeros before the first element of each spatial dim; negative cuts elements off.
        spread: distance of neighbours in the copy (the stride of a transposed convolution).
        out: spatial sizes of the copy.
    """
    key = "pad", source.slot, tuple(shape), tuple(low), tuple(spread), tuple(out)
    if key in lowering.copies:
        return lowering.copies[key]
    slot = lowering.copies[key] = lowering.temporary(source.dtype, (*shape[:2], *out))
    e = Scope(lowering, "pad")
    axes = [axis(e.space, d) for d in (*shape[:2], *out)]
    x, y = e.buffer(source.slot, hint="x"), e.buffer(slot, "write", "y")
    plane = extent_of(axes[2:])
    grain = max(1, PLANE_WORK // max(1, plane)) if isinstance(plane, int) else 1
    large = not isinstance(slot.elements, int) or slot.elements > 4 * PLANE_WORK
    loops = [a.loop for a in axes]
    with e.tasks(loops[:2], large, grain), e.nested(loops[2:-1]):
        _padded_row(e, x, y, source, axes, shape, low, spread)
    e.launch("pad", 0, slot.elements * source.dtype.itemsize * 2)
    return slot


def _padded_row(
    e: Scope,
    x: Buffer,
    y: Buffer,
    source: Source,
    axes: Sequence[Axis],
    shape: Sequence[Dim],
    low: Sequence[int],
    spread: Sequence[int],
) -> None:
    """The last spatial dim: zeros, then the source's elements over them, loops without branches."""
    zero = constant(0, KType(source.dtype))
    last = axes[-1]
    start = e.b.let(e.expr(evaluate(flat(axes), {last.name: 0})), "row")
    inside: Expr | None = None
    position: list[Expr] = [e.expr(a.variable) for a in axes[:2]]
    for a, size, before, gap in zip(axes[2:-1], shape[2:-1], low[:-1], spread[:-1], strict=True):
        at = e.expr(a.variable) - before
        within = binary("and", binary("le", Const(0), at), binary("lt", at, e.expr(size) * gap))
        if gap > 1:
            within = binary("and", within, binary("eq", at % gap, Const(0)))
        inside = within if inside is None else binary("and", inside, within)
        position.append(at // gap)
    with e.b.loop(e.expr(last.extent), "vector", "j") as j:
        e.b.store(y, start + j, zero)
    with e.b.when(inside) if inside is not None else e.b.loop(1) as _:
        origin: Expr = Const(0)
        for p, size in zip(position, shape[:-1], strict=True):
            origin = origin * e.expr(size) + p
        origin = e.b.let(origin * e.expr(shape[-1]), "origin")
        gap, before = spread[-1], low[-1]
        first = -(before // gap) if before < 0 else 0
        end = (e.expr(last.extent) - before + (gap - 1)) // gap
        with e.b.loop(binary("min", e.expr(shape[-1]), end), "vector", "j", lo=first) as j:
            e.b.store(y, start + (j * gap + before), load(x, origin + j))
