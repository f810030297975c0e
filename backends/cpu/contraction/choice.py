"""Choosing the schedule of a contraction: every tile of the family is costed, the cheapest is
taken.

The cost is in cycles of one core: multiply-adds or loads, whichever take longer, plus what packing
and transposing add. It has to rank schedules of one shape, not to predict a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from graphtorch.ir.shape import Dim, Quotient, bounds, likely, unit

from ...dataclass import dataclass
from ...kernels.body.space import terms_of
from ...kernels.contraction.problem import (
    Axis,
    Contraction,
    Source,
    extent_of,
    is_affine,
    stride,
)
from ...kernels.machine import BYTE_WORK, SERIAL_WORK, Machine
from .schedule import (
    TASKS,
    Chunk,
    Schedule,
    Tiling,
    any_row_sizes,
    blocks,
    chunks,
    column_sizes,
    most_rows,
    row_sizes,
    sweep,
)

UNKNOWN = 64  # what a size known at run time only counts as
# What symbols may be: rows, and the sides of images at the entry of a net.
ROWS = (7, 14, 28, 56)
SIDES = (160, 224, 320)
DEEP = 512  # a k known at run time only, of which operands have to fit a cache
LARGE = 1024  # the largest that one is likely to be
IDLE = 1.25  # times as long as on paper, tiles take that do not keep the units busy
LATENCY = 4  # cycles until an accumulator can be added to again
# bytes: rows of A whose elements lie further apart along k cost an address translation each
PAGE = 4096
LINE = 64
LOADS = 2  # loads a cycle
SHORT = 16  # rows for each step of a loop along k from which on it is too short
ISSUED = 6  # instructions a cycle
MAX_ROWS = 28
ADDRESSES = 6  # rows whose distances are not known, so that each has a register for its address
DOT_TILES = ((1, 4), (1, 8), (1, 12), (2, 6), (3, 4), (4, 6))
WIDTHS = (1, 2, 3, 4, 6, 8, 12)  # vectors in a tile's columns; the wide ones for few rows


def guess(dim: Dim) -> int:
    return dim if isinstance(dim, int) else UNKNOWN


def choose(p: Contraction, machine: Machine) -> tuple[Contraction, Schedule]:
    """The contraction, its operands perhaps exchanged, and its schedule.

    An image in its borders, the second operand, is the one that tiles read element by element.
    """
    lanes = machine.lanes(p.acc.itemsize)
    if not (p.acc.is_floating_point or p.words):
        return p, Schedule("loops", lanes)
    best: tuple[float, Contraction, Schedule] | None = None
    for cost, oriented, schedule in ways(p, machine):
        if best is None or cost < best[0] * 0.999:
            best = cost, oriented, schedule
    assert best is not None
    return best[1], finished(best[1], best[2], machine)


def ways(
    p: Contraction, machine: Machine, feeding: Feed | None = None
) -> Iterator[tuple[float, Contraction, Schedule]]:
    """Every tile of the family: cycles, the contraction with its operands perhaps exchanged, and
    the schedule, which is still to be `finished`.

    Args: feeding: how operands are read, by the contraction; None: as costs less, and dot products
        as well.
    """
    lanes = machine.lanes(p.acc.itemsize)
    for swap in (True,) if p.gated else (False, True):
        oriented = p.swapped() if swap else p
        made = (
            itertools.chain(
                candidates(oriented, lanes, machine), dot_candidates(oriented, lanes, machine)
            )
            if feeding is None
            else _fed(oriented, feeding(oriented, machine), lanes, machine)
        )
        for cost, schedule in made:
            yield cost, oriented, replace(schedule, swap=swap)


@dataclass(frozen=True)
class Feeding:
    """Whether the operands are packed, and what packing costs in cycles."""

    pack_a: bool
    pack_b: bool
    cost: float


def candidates(p: Contraction, lanes: int, machine: Machine) -> Iterator[tuple[float, Schedule]]:
    feed = feeding(p, machine)
    if p.gated:
        feed = replace(feed, pack_a=False)
    yield from _tiles(p, feed, MAX_ROWS, lanes, machine)
    if feed.pack_a and not _fixed_rows(p) and is_affine(p.a.address, [*p.batch, *p.m, *p.k]):
        direct = feeding(p, machine, pack_a=False)
        yield from _tiles(p, direct, ADDRESSES, lanes, machine)


def repacked_rows(p: Contraction, machine: Machine) -> Feeding | None:
    """Rows packed where the estimate reads them in place, and the other way round; None where they
    cannot be."""
    packs = must_pack_rows(p, machine)
    if p.gated or not is_affine(p.a.address, [*p.batch, *p.m, *p.k]) or not _fixed_rows(p):
        return None
    return feeding(p, machine, pack_a=not packs)


def repacked_columns(p: Contraction, machine: Machine) -> Feeding | None:
    """The same of columns."""
    if not _reads_columns(p):
        return None
    return feeding(p, machine, pack_b=not must_pack_columns(p, machine))


Feed: TypeAlias = Callable[[Contraction, Machine], Feeding | None]


def _fed(
    p: Contraction, feed: Feeding | None, lanes: int, machine: Machine
) -> Iterator[tuple[float, Schedule]]:
    """Tiles that read their operands as `feed` says."""
    if feed is not None:
        yield from _tiles(
            p, replace(feed, pack_a=feed.pack_a and not p.gated), MAX_ROWS, lanes, machine
        )


def _tiles(
    p: Contraction, feed: Feeding, limit: int, lanes: int, machine: Machine
) -> Iterator[tuple[float, Schedule]]:
    """Tiles of all widths, of at most `limit` rows."""
    seen: set[Tiling] = set()
    for vectors in WIDTHS:
        columns = column_tiling(p.n, vectors, lanes, not feed.pack_b)
        parts = list(column_chunks(columns, lanes))
        if columns in seen or len(parts) > max(4, vectors):
            continue
        seen.add(columns)
        partial = columns.ragged or any(c.valid < c.lanes for c in parts)
        masked = partial and not feed.pack_b and not machine.masks  # the mask takes a register
        product = p.words == "i16"  # is added to a sum by an instruction of its own
        most = min(most_rows(len(parts), machine.registers - masked - product), limit)
        rows = row_tiling(p.m, most, not feed.pack_a and _fixed_rows(p))
        cost = total_cost(p, rows, columns, lanes, machine) + feed.cost
        if not isinstance(p.m[-1].extent, int) and not _is_busy(most, len(parts), machine):
            cost *= IDLE
        yield cost, Schedule("tile", lanes, False, rows, columns, feed.pack_a, feed.pack_b)


def _is_busy(rows: int, vectors: int, machine: Machine) -> bool:
    """Whether a tile keeps the units busy whatever comes between: one of just as many sums as that
    takes is as fast as others on paper only, and so is a row that shares nothing."""
    return rows > 1 and rows * vectors > LATENCY * machine.multiply_adds


def dot_candidates(
    p: Contraction, lanes: int, machine: Machine
) -> Iterator[tuple[float, Schedule]]:
    """Tiles of dot products, where both operands are contiguous along k."""
    axes = [*p.batch, *p.m, *p.n, *p.k]
    if not p.k or p.gated:
        return
    if not all(is_affine(x.address, axes) and stride(x.address, p.k[-1]) == 1 for x in (p.a, p.b)):
        return
    depth = guess(extent_of(p.k[:-1])) * -(-guess(p.k[-1].extent) // lanes)
    for r, c in DOT_TILES:
        if r * c + min(r, c) + 1 > machine.registers:
            continue
        rows, columns = (
            Tiling(sizes_of_rows(x[-1].extent, size)) for x, size in ((p.m, r), (p.n, c))
        )
        cost = 0.0
        for a, x in sweeps(p.m[-1].extent, rows.sizes):
            for b, y in sweeps(p.n[-1].extent, columns.sizes):
                step = max(a * b / machine.multiply_adds, (a + b) / LOADS, float(LATENCY))
                step = max(step, 0.0 if machine.fused else issue(a + b, a * b)) + 0.5
                cost += x * y * (step * depth + 8 * a * b + 20)
        others = math.prod(guess(x.extent) for x in (*p.batch, *p.m[:-1], *p.n[:-1]))
        yield cost * others, Schedule("dot", lanes, False, rows, columns)


def column_chunks(columns: Tiling, lanes: int) -> Iterator[Chunk]:
    """The vectors of the main tile."""
    for _ in range(columns.sizes[0] if columns.inner else 1):
        yield from chunks(columns.inner[0] if columns.inner else columns.sizes[0], lanes)


def column_tiling(axes: Sequence[Axis], vectors: int, lanes: int, direct: bool) -> Tiling:
    """Tiles of about `vectors` vectors; over two axes where rows of an image are short."""
    extent = axes[-1].extent
    if direct and len(axes) > 1 and isinstance(extent, int):
        across = len(chunks(extent, lanes))
        if across and across <= vectors:
            return Tiling(sizes_of_rows(axes[-2].extent, vectors // across), (extent,))
    return Tiling(column_sizes(extent, vectors, lanes), ragged=not isinstance(extent, int))


def row_tiling(axes: Sequence[Axis], most: int, direct: bool) -> Tiling:
    extent = axes[-1].extent
    if direct and len(axes) > 1 and isinstance(extent, int) and 0 < extent <= most // 2:
        return Tiling(sizes_of_rows(axes[-2].extent, most // extent), (extent,))
    return Tiling(sizes_of_rows(extent, most))


def sizes_of_rows(extent: Dim, most: int) -> tuple[int, ...]:
    """Of tiles of at most `most` rows, of which `extent` may be known at run time only."""
    return row_sizes(extent, most) if isinstance(extent, int) else any_row_sizes(unit(extent), most)


def sweeps(extent: Dim, sizes: tuple[int, ...]) -> list[tuple[int, float]]:
    """(size, how often) of the tiles that cover `extent`: of one known at run time only, as in
    `guess` of it on average."""
    if isinstance(extent, int):
        return [(size, float(count)) for size, count in sweep(extent, sizes)]
    seen = likely_extents(extent)
    return [
        (size, count * guess(extent) / e / len(seen))
        for e in seen
        for size, count in sweep(e, sizes)
    ]


def likely_extents(extent: Dim) -> list[int]:
    """What a size known at run time only may be: of rows of smaller images that nets make of an
    image, or of some; for all pixels their products."""
    sizes = SIDES if any(isinstance(a, Quotient) for m, _ in terms_of(extent) for a in m) else ROWS
    step = unit(extent)
    return [-(-likely(extent, size) // step) * step for size in sizes]


def feeding(
    p: Contraction, machine: Machine, pack_a: bool | None = None, pack_b: bool | None = None
) -> Feeding:
    """Operands are packed where tiles cannot read them in place, or would read them badly.

    Args: pack_a, pack_b: whether rows and columns are, for tiles that can read them in place; None:
        as for any tile.
    """
    pack_a = must_pack_rows(p, machine) if pack_a is None else pack_a
    pack_b = must_pack_columns(p, machine) if pack_b is None else pack_b
    cost = 0.0
    for packed, source, along in ((pack_a, p.a, p.m), (pack_b, p.b, p.n)):
        if packed and not source.stable and not source.reused:
            copies = math.prod(guess(x.extent) for x in (*p.batch, *along, *p.k))
            cost += copies * pack_cost(p, source, along)
    return Feeding(pack_a, pack_b, cost)


def pack_cost(p: Contraction, source: Source, along: Sequence[Axis]) -> float:
    """Cycles for one element: as vectors, through transposition, or one by one."""
    if not is_affine(source.address, [*along, *p.k]):
        return 6.0
    if stride(source.address, along[-1]) == 1:
        return 0.15
    return 0.5 if p.k and stride(source.address, p.k[-1]) == 1 else 2.0


def must_pack_rows(p: Contraction, machine: Machine) -> bool:
    axes = [*p.batch, *p.m, *p.k]
    if not is_affine(p.a.address, axes) or not _fixed_rows(p):
        return True
    hop, step = stride(p.a.address, p.m[-1]), stride(p.a.address, p.k[-1]) if p.k else 0
    crowded = isinstance(hop, int) and hop * p.a.dtype.itemsize % 2048 == 0 and hop > 0
    distant = isinstance(step, int) and _are_distant(p, step * p.a.dtype.itemsize, machine)
    reused = math.prod(guess(x.extent) for x in p.n)
    badly = (crowded and guess(p.n[-1].extent) > 256) or (distant and reused > 64)
    return badly and guess(p.m[-1].extent) > 4 and guess(extent_of(p.k)) >= 64


def _are_distant(p: Contraction, step: int, machine: Machine) -> bool:
    """Whether elements `step` bytes apart along k cost more than a load each: a page, or a cache
    line of which too little is used before it has left the first cache."""
    steps = math.prod(x.extent if isinstance(x.extent, int) else DEEP for x in p.k)
    return step >= PAGE or (step >= LINE and steps * LINE > machine.caches[0] // 2)


def _fixed_rows(p: Contraction) -> bool:
    """Whether the distances between rows of A are constants, which cost no registers."""
    return is_affine(p.a.address, p.m) and all(
        isinstance(stride(p.a.address, x), int) for x in p.m[-2:]
    )


def must_pack_columns(p: Contraction, machine: Machine) -> bool:
    if not _reads_columns(p):
        return True
    if len(p.n) > 1 or not p.k or _overlaps(p.b, [*p.n, *p.k]):
        return _goes_in_short_loops(p)
    # what may be large is packed where sizes are not known: large ones would take three times as
    # long without, small ones take a little longer with, and up to twice where rows are few
    size = math.prod(_most(x.extent) for x in (*p.n, *p.k)) * p.b.dtype.itemsize
    room = machine.caches[0] // 2 if p.b.stable else machine.caches[1] // 4
    rows = math.prod(guess(x.extent) for x in p.m)
    return size > room and rows > (4 if p.b.stable else 24)


def _overlaps(source: Source, axes: Sequence[Axis]) -> bool:
    """Whether elements of an operand are read at several places, as pixels by the taps of filters:
    a copy would be larger."""
    elements = math.prod(guess(x.extent) for x in axes)
    return footprint(source, axes) < elements * source.dtype.itemsize


def _goes_in_short_loops(p: Contraction) -> bool:
    """Whether steps of k are in loops so short, of so many rows, that a copy in which they are a
    single loop takes less than entering these."""
    inner = p.k[-1].extent if len(p.k) > 1 else None
    return isinstance(inner, int) and math.prod(guess(x.extent) for x in p.m) >= SHORT * inner


def _reads_columns(p: Contraction) -> bool:
    """Whether tiles can read columns where they lie."""
    return is_affine(p.b.address, [*p.batch, *p.n, *p.k]) and stride(p.b.address, p.n[-1]) == 1


def _most(dim: Dim) -> int:
    """The largest size that is likely."""
    return dim if isinstance(dim, int) else min(bounds(dim)[1], LARGE)


def total_cost(
    p: Contraction, rows: Tiling, columns: Tiling, lanes: int, machine: Machine
) -> float:
    """Cycles for the whole result."""
    depth = max(1, guess(extent_of(p.k)))
    others = math.prod(guess(x.extent) for x in p.batch)
    others *= math.prod(guess(x.extent) for x in p.m[: len(p.m) - (2 if rows.inner else 1)])
    others *= math.prod(guess(x.extent) for x in p.n[: len(p.n) - (2 if columns.inner else 1)])
    turned = stride(p.address, p.n[-1]) != 1
    cost = 0.0
    for row_count, row_times in tile_shapes(p.m, rows):
        for widths, column_times in column_shapes(p.n, columns):
            step = tile_cost(row_count, widths, lanes, machine)
            vectors = sum(len(chunks(w, lanes)) for w in widths)
            finish = row_count * vectors * (6 if turned else 1.5) + 20
            cost += row_times * column_times * (step * depth + finish)
    return cost * others


def tile_shapes(axes: Sequence[Axis], rows: Tiling) -> list[tuple[int, float]]:
    """(rows, how often) for each size of tile."""
    outer = sweeps(axes[-2 if rows.inner else -1].extent, rows.sizes)
    if not rows.inner:
        return outer
    inner = sweeps(axes[-1].extent, rows.inner)
    return [(a * b, x * y) for a, x in outer for b, y in inner]


def column_shapes(axes: Sequence[Axis], columns: Tiling) -> list[tuple[list[int], float]]:
    """(widths of the pieces of rows, how often) for each size of tile."""
    if not columns.inner:
        extent, width = axes[-1].extent, columns.sizes[0]
        if not isinstance(extent, int):
            return [([width], -(-LARGE // width))]
        return [([w], t) for w, t in sweep(extent, columns.sizes)]
    return [
        ([w] * a, x * y)
        for a, x in sweeps(axes[-2].extent, columns.sizes)
        for w, y in sweeps(axes[-1].extent, columns.inner)
    ]


def issue(others: int, products: int) -> float:
    """Cycles that instructions take where a product that is added is three: a copy of an operand,
    a product and a sum."""
    return (others + 3 * products) / ISSUED


def tile_cost(rows: int, widths: Sequence[int], lanes: int, machine: Machine) -> float:
    """Cycles of one step of k for a tile."""
    parts = [c for w in widths for c in chunks(w, lanes)]
    row = sum(1.0 if c.lanes == lanes else machine.narrow_cost for c in parts)
    multiply = max(rows * row / machine.multiply_adds, float(LATENCY))
    loads = rows + len(parts)
    if not machine.fused:  # a scalar is loaded, and then spread
        multiply = max(multiply, issue(2 * rows + len(parts), rows * len(parts)))
    return max(multiply, loads / LOADS) + 0.25 + 0.02 * loads


def finished(p: Contraction, s: Schedule, machine: Machine) -> Schedule:
    """With block sizes, and whether threads are worth it."""
    static = all(isinstance(x.extent, int) for x in p.axes())
    work = math.prod(guess(x.extent) for x in p.axes())
    sides = (p.a, (*p.batch, *p.m, *p.k)), (p.b, (*p.batch, *p.n, *p.k))
    read = sum(footprint(source, axes) for source, axes in sides)
    worth = max(work, read * BYTE_WORK) >= SERIAL_WORK
    return blocked(p, replace(s, parallel=not static or worth), machine)


def blocked(p: Contraction, s: Schedule, machine: Machine, tasks: int = TASKS) -> Schedule:
    """With sizes of blocks, and the order in which they are computed.

    Args: tasks: that there are to be at least, where several threads are worth it.
    """
    m, n = p.m[-2 if s.rows.inner else -1], p.n[-2 if s.columns.inner else -1]
    sides = (p.m[-1], s.rows.inner), (p.n[-1], s.columns.inner)
    inner = math.prod(guess(x.extent) for x, spans_two in sides if spans_two)
    depth = max(1, math.prod(x.extent if isinstance(x.extent, int) else DEEP for x in p.k))
    known = math.prod(x.extent for x in (*p.batch, *p.m, *p.n) if isinstance(x.extent, int))
    inside = math.prod(x.extent for x in (m, n) if isinstance(x.extent, int)) * inner
    others = known // max(1, inside)  # a symbolic batch may be 1: it does not count as tasks
    row_block, column_block = blocks(
        s.rows,
        s.columns,
        m.extent,
        n.extent,
        depth * inner,
        tasks if s.parallel else 1,
        max(1, others),
        p.acc.itemsize,
        machine,
    )
    return replace(
        s,
        rows=replace(s.rows, block=row_block),
        columns=replace(s.columns, block=column_block),
        columns_first=_columns_first(p, s, column_block or guess(n.extent), machine),
    )


def _columns_first(p: Contraction, s: Schedule, block: int, machine: Machine) -> bool:
    """Which order of tasks reads less from beyond the L2 cache: an operand that does not fit there
    is read again for each piece of the other.

    A layer of many filters on a small image would read all filters again for each row of it.
    """
    outer = math.prod(guess(x.extent) for x in p.m[: len(p.m) - (2 if s.rows.inner else 1)])
    if outer == 1:
        return False
    room = machine.caches[1] // 2
    a, b = (footprint(source, (*axes, *p.k)) for source, axes in ((p.a, p.m), (p.b, p.n)))
    pieces = math.prod(guess(x.extent) for x in p.n) // max(1, block)
    by_rows = a + (b if b <= room else b * outer)
    by_columns = b + (a if a <= room else a * pieces)
    return by_columns < by_rows


def footprint(source: Source, axes: Sequence[Axis]) -> int:
    """Bytes of an operand that lie between the first and the last element that is read."""
    if not is_affine(source.address, axes):
        return math.prod(guess(x.extent) for x in axes) * source.dtype.itemsize
    steps = [(guess(stride(source.address, x)), guess(x.extent)) for x in axes]
    reach = sum(abs(step) * max(extent - 1, 0) for step, extent in steps)
    return (1 + reach) * source.dtype.itemsize
