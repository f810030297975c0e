"""Contractions with a long k and few results (weight gradients): k is cut into parts.

Each part is a task of its own with sums of its own; a second kernel adds them up, in the order of
the parts, and applies the epilogue. The number of parts depends on the shapes only, so the result
does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphtorch.ir.shape import Dim, evaluate, unit

from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Contraction, axis, extent_of, flat
from ...kernels.ir import Const, KType, binary, constant, load
from ...kernels.machine import SERIAL_WORK, Machine
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .choice import guess
from .schedule import Schedule, Tiling, column_sizes
from .tile import side_of, sweep_axis, tile_columns
from .writer import ResultWriter

PARTS = 16
BATCH = 8  # images of a number that is not known
FEW_TASKS = 8  # with as many, threads are busy without splitting k
MOST_PARTS = 64
LONG = 2048  # steps of k that are worth a pass over the results
SHORT = 256  # steps of a part at least


def parts_of(p: Contraction, s: Schedule, machine: Machine) -> int:
    """How many parts to cut k into; 1 for none."""
    if not s.parallel or not p.k or _depth(p.k) < LONG:
        return 1
    if s.kind == "dot" and len(p.k) == 1:
        return 1
    first = p.k[0].extent
    fitting = _fitting(p, s, machine) if s.kind == "tile" else 1
    if tasks_of(p, s) >= FEW_TASKS:
        return in_parts(p, fitting)
    if len(p.k) == 1 and isinstance(first, int):
        return max(fitting, 1, min(PARTS, first // (LONG // 4)))
    return in_parts(p, max(fitting, min(PARTS, first) if isinstance(first, int) else PARTS))


def _depth(k: Sequence[Axis]) -> int:
    """Steps of k, of which there are a batch's number of times as many as are known."""
    return math.prod(x.extent if isinstance(x.extent, int) else _many(x.extent) for x in k)


def _many(extent: Dim) -> int:
    return max(guess(extent), BATCH * unit(extent))


def _fitting(p: Contraction, s: Schedule, machine: Machine) -> int:
    """Parts of which one's operands stay in the L2 cache; 1 where they do so for all of k, or where
    results are too many.

    Each tile reads its rows and columns along all of k: what does not stay is read from beyond the
    cache for each.
    """
    m, n, depth = guess(extent_of(p.m)), guess(extent_of(p.n)), _depth(p.k)
    rows, columns = (t.sizes[0] * (t.inner or (1,))[0] for t in (s.rows, s.columns))
    room = machine.caches[1] // 2 // p.acc.itemsize
    if depth * (rows + columns) <= room:
        return 1
    parts = min(MOST_PARTS, -(-depth * (m + n) // room), depth // SHORT)
    saved = depth * m * n * (1 / rows + 1 / columns)
    return parts if 4 * parts * m * n < saved else 1


def in_parts(p: Contraction, parts: int) -> int:
    """About as many: parts are made of the outermost axis of k, or of all of that and the next."""
    first = p.k[0].extent
    if not isinstance(first, int) or parts <= first:
        return parts
    if len(p.k) == 1 or not isinstance(p.k[1].extent, int):
        return first
    return first * min(p.k[1].extent, -(-parts // max(first, 1)))


def tasks_of(p: Contraction, s: Schedule) -> int:
    count = math.prod(guess(x.extent) for x in p.batch)
    for axes, tiling in ((p.m, s.rows), (p.n, s.columns)):
        side = side_of(axes, tiling)
        count *= math.prod(guess(x.extent) for x in side.outer)
        count *= -(-guess(side.block.extent) // tiling.block) if tiling.block else 1
    return count


def split(p: Contraction, parts: int) -> tuple[Contraction, Axis, Dim]:
    """The contraction with its outermost k in `parts`, the axis of parts, the steps of k before a
    part. More parts than the outermost k has steps: these are parts, and the next k is cut."""
    first, *rest = p.k
    part = axis(p.space, parts)
    moved: dict[str, Dim] = {}
    skipped: Dim = 0
    number: Dim = part.variable
    if isinstance(first.extent, int) and parts > first.extent:
        parts //= first.extent
        outer, number = p.space.div(number, parts), p.space.mod(number, parts)
        moved[first.name], skipped = outer, outer * extent_of(rest)
        first, *rest = rest
    chunk = (first.extent + (parts - 1)) // parts
    inner = axis(p.space, chunk)
    moved[first.name] = number * chunk + inner.variable
    a, b = (x.mapped(lambda dim: evaluate(dim, moved)) for x in (p.a, p.b))
    limits = {inner.name: first.extent - number * chunk}
    made = replace(p, batch=[part, *p.batch], k=[inner, *rest], a=a, b=b, limits=limits)
    return made, part, skipped + number * chunk * extent_of(rest)


def partial_address(p: Contraction, part: Axis) -> Dim:
    """Where a sum of one part stands: row-major by part, batch, m, n."""
    return flat([part, *p.batch, *p.m, *p.n])


def partial_slot(p: Contraction, lowering: Lowering, parts: int) -> Slot:
    return lowering.temporary(p.acc, (parts * extent_of([*p.batch, *p.m, *p.n]),))


def add_parts(
    p: Contraction, region: Region, lowering: Lowering, s: Schedule, slot: Slot, part: Axis
) -> None:
    """Launch the kernel that sums the parts and finishes the region."""
    e = Scope(lowering, "sum_parts", p.space)
    writer = ResultWriter(e, p, region)
    tiling = Tiling(
        column_sizes(p.n[-1].extent, 1, s.lanes), ragged=not isinstance(p.n[-1].extent, int)
    )
    side = side_of(p.n, tiling)
    source = e.buffer(slot, hint="partial")
    address = partial_address(p, part)

    def tile(size: int, valid: object) -> None:
        writer.reader.memo.clear()
        for column in tile_columns(side, (size,), valid, s.lanes):  # type: ignore[arg-type]
            total = e.b.var(constant(0, KType(p.acc, column.chunk.lanes)), "sum")
            with e.b.loop(part.extent if isinstance(part.extent, int) else 1, name="part") as i:
                e.space.bind(part.variable, i)
                where = e.expr(evaluate(address, column.at))
                value = load(source, where, column.chunk.lanes, column.mask())
                e.b.assign(total, binary("add", total, value))
            writer.element(total, column.at, column.axis, column.inside())

    extent = p.n[-1].extent
    length = extent if isinstance(extent, int) else e.expr(extent)
    levels = [x.loop for x in (*p.batch, *p.m, *p.n[:-1])]
    work = guess(extent_of([*p.batch, *p.m, *p.n])) * guess(part.extent)
    grain = max(1, 8192 // max(1, guess(extent)))
    parallel = work > SERIAL_WORK // 8
    with e.tasks(levels, parallel, grain):
        sweep_axis(e, p.n[-1], Const(0), length, tiling, tile)
    e.launch(f"{region.label} sum of {part.extent} parts", 0, slot.elements * p.acc.itemsize)
