"""Contractions by blocks of threads, for GPUs: tiles of both operands in shared memory, results in
registers.

A block computes `rows` x `columns` results. Step by step along k its threads copy a slice of A and
one of B into shared memory, `depth` deep, and each thread multiplies what its own results need of
them; while they do, the elements of the next slices are on their way into registers. Slices lie in
shared memory with k outermost, padded by some elements, and a warp reads neighbours of 16 bytes
without conflicts of banks. What has its neighbours along k in memory is written across: a warp
takes a sector of it from so many rows that no two of its threads write to the same bank. Sectors of
narrow elements have more steps than there are banks for groups of neighbours: steps that share
banks have their elements in another order among neighbours, which costs nothing where they are
read, as steps are numbers there.

Any address that is affine along k will do: convolutions are read in place (implicit GEMM),
transposed operands as they lie; neighbouring threads read neighbours in memory along m, n or k,
whichever that is. Few results of a long k are cut into parts, whose sums a second kernel adds in a
fixed order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from graphtorch.ir.shape import Dim

from ...cpu.contraction.choice import guess
from ...cpu.contraction.split import partial_address, partial_slot, split
from ...cpu.contraction.tile import steps_of
from ...cpu.contraction.writer import ResultWriter
from ...dataclass import dataclass
from ...kernels.body.scope import Scope
from ...kernels.builder import Builder
from ...kernels.contraction.problem import (
    Axis,
    Contraction,
    Source,
    extent_of,
    is_affine,
    stride,
)
from ...kernels.ir import Buffer, Const, Expr, KType, Name, aligned, binary, cast, fma, load
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from ...kernels.uniform import WARP
from ..machine import gpu_of
from .epilogue import Finish, Partial, Results
from .operands import Operand, bind
from .parts import BANKED, COPIED, along_k, both, copied, in_parts, is_multiple, read_part

SECTOR = 32  # bytes that memory moves at least
LANES = 8  # threads of a warp side by side, which read 128 bytes of shared memory at once
LEAST_DEPTH = 128  # steps of k that are worth a part of their own
LONG = 1024  # steps of k for each part that are worth more than smaller tiles
MOST_PARTS = 32
# blocks of so many threads, of 128 and 168 registers each: places along one axis of k take few, and
# blocks hide each other's waits
RESIDENT = {256: 2, 64: 6}
SIDE = 4  # sums are added to in squares, whose factors are needed for a short time
MANY = 64  # sums of a thread that leave few of 128 registers for anything else


class Size(Protocol):
    """Sizes of a block's work: results, steps of k at a time; and its threads."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def threads(self) -> int: ...


@dataclass(frozen=True)
class Share:
    """When one of two kernels computes a product whose sizes are told at the call: that of large
    tiles where there are enough of them for the GPU, else that of small ones.

    Attributes:
        large: the large tile.
        enough: how many of them.
        many: whether it is the kernel for so many.
    """

    large: Size
    enough: int
    many: bool

    def factor(self, m: Expr, n: Expr, batch: Sequence[Expr]) -> Expr:
        """1 where it is this kernel's turn, else 0. Args: how many rows, columns, entries."""
        blocks = (m + (self.large.rows - 1)) // self.large.rows
        blocks = blocks * ((n + (self.large.columns - 1)) // self.large.columns)
        for count in batch:
            blocks = blocks * count
        many = binary("min", blocks // self.enough, Const(1))
        return many if self.many else 1 - many


Emit: TypeAlias = Callable[[Scope, Contraction, Any, Finish, "Share | None"], None]


@dataclass(frozen=True)
class Tile:
    """Sizes of a block's work: results, steps of k at a time, and results of a thread (multiples of
    4)."""

    rows: int
    columns: int
    depth: int
    own_rows: int
    own_columns: int

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (self.own_rows * self.own_columns)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"


TILES = (Tile(128, 128, 16, 8, 8), Tile(64, 64, 16, 4, 4), Tile(32, 32, 32, 4, 4))


def takes(p: Contraction) -> bool:
    """Whether blocks of threads can compute `p`: sums of floats, of operands with strides."""
    return (
        p.acc.is_floating_point
        and bool(p.k)
        and all(is_affine(x.address, p.axes()) for x in (p.a, p.b))
    )


def lower_for_sizes(
    p: Contraction,
    region: Region,
    lowering: Lowering,
    large: Size,
    tile: Size,
    emit: Emit,
) -> None:
    """The kernel of a contraction, or two where its rows or columns are told at the call: one for
    few results, and one for many.

    Args: tile: for as many as are guessed; large: for many; emit: as `lower_block_product` takes
        it.
    """
    count = gpu_of(lowering).multiprocessors
    m, n = (extent_of(axes) for axes in (p.m, p.n))
    known = (isinstance(m, int), isinstance(n, int))
    fits = all(
        not isinstance(size, int) or size * 4 >= most * 3
        for size, most in ((m, large.rows), (n, large.columns))
    )
    if all(known) or not fits or tile == large:
        lower_block_product(p, region, lowering, tile, emit)
        return
    for size, many in ((large, True), (tile, False)):
        lower_block_product(p, region, lowering, size, emit, Share(large, max(count // 2, 1), many))


def lower_block_product(
    p: Contraction,
    region: Region,
    lowering: Lowering,
    tile: Size,
    emit: Emit,
    share: Share | None = None,
) -> None:
    """The kernel of a contraction; with a long k in parts, also the one that adds them.

    Args: emit: writes the kernel's body for tiles of the size `tile`; it is given what finishes
        sums. share: when it is this kernel's turn; None: always.
    """
    many = share is not None and share.many
    parts = 1 if many else parts_of(p, tile, gpu_of(lowering).multiprocessors)
    label, flops = f"{region.label} [blocks {tile}]", 2 * extent_of(p.axes())
    e = Scope(lowering, region.label, p.space)
    if parts == 1:
        emit(e, p, tile, Results(e, p, region), share)
        e.launch(label, flops)
        return
    cut, part, _ = split(p, parts)
    slot, address = partial_slot(p, lowering, parts), partial_address(p, part)
    emit(e, cut, tile, Partial(e, slot, address), share)
    e.launch(f"{label} {parts} parts", flops)
    add_parts(p, region, lowering, slot, address, part, share)


def regroup(p: Contraction) -> None:
    """Axes of the batch that only one operand has are more rows, or columns, of that one."""
    kept: list[Axis] = []
    rows: list[Axis] = []
    columns: list[Axis] = []
    for x in p.batch:
        in_a, in_b = (
            not is_affine(s.address, (x,)) or stride(s.address, x) != 0 for s in (p.a, p.b)
        )
        (kept if in_a == in_b else rows if in_a else columns).append(x)
    p.batch, p.m, p.n = kept, [*rows, *p.m], [*columns, *p.n]


def tiles_of(p: Contraction) -> Sequence[Tile]:
    """The tiles for `p`, large ones first."""
    return TILES if p.acc.itemsize == 4 else TILES[1:]


def shallow(tiles: Sequence[Tile], p: Contraction) -> Sequence[Tile]:
    """The same with half as many steps of k in the largest, where sizes are told at the call: those
    take registers, of which some GPUs' assemblers then leave too few for elements on their way."""
    large = tiles[0]
    if are_known(p) or p.acc.itemsize > 4:
        return tiles
    return replace(large, depth=large.depth // 2), *tiles[1:]


def are_known(p: Contraction) -> bool:
    """Whether rows, columns and steps of k are numbers."""
    return all(isinstance(extent_of(axes), int) for axes in (p.m, p.n, p.k))


def resident_of(p: Contraction, tile: Tile) -> int:
    """How many blocks a multiprocessor is to have room for, as `For` has it. Without a bound
    assemblers count on more small blocks than registers are left for, where sizes take some."""
    if len(p.k) > 1 or p.acc.itemsize > 4 or (tile.threads == 64 and are_known(p)):
        return 0
    return RESIDENT.get(tile.threads, 0)


def tile_of(p: Contraction, tiles: Sequence[Size], long: int, multiprocessors: int) -> Size:
    """The largest of `tiles` that leaves few multiprocessors without work, and wastes little at the
    edges. Args: long: as `is_enough` takes it."""
    m, n = (guess(extent_of(axes)) for axes in (p.m, p.n))
    batch = guess(extent_of(p.batch))
    for tile in tiles[:-1]:
        blocks = batch * -(-m // tile.rows) * -(-n // tile.columns)
        enough = is_enough(p, blocks, long, multiprocessors)
        if enough and m * 4 >= tile.rows * 3 and n * 4 >= tile.columns * 3:
            return tile
    return tiles[-1]


def is_enough(p: Contraction, blocks: int, long: int, multiprocessors: int) -> bool:
    """Whether so many blocks keep a GPU busy, in parts where k is so long that their sums hardly
    count.

    Args: long: steps of k of a part that take much longer than to write its sums and to add them.
    """
    first = p.k[0].extent
    parts = min(guess(extent_of(p.k)) // long, first, MOST_PARTS) if isinstance(first, int) else 1
    return blocks * max(parts, 1) >= multiprocessors


def parts_of(p: Contraction, tile: Size, multiprocessors: int) -> int:
    """How many parts to cut k into; 1 for none."""
    first, depth = p.k[0].extent, guess(extent_of(p.k))
    blocks = guess(extent_of(p.batch))
    for axes, size in ((p.m, tile.rows), (p.n, tile.columns)):
        blocks *= -(-guess(extent_of(axes)) // size)
    # parts of what keeps three quarters of a GPU busy cost more than the rest does
    if not isinstance(first, int) or blocks * 4 >= multiprocessors * 3:
        return 1
    return max(
        1, min(2 * multiprocessors // max(blocks, 1), depth // LEAST_DEPTH, first, MOST_PARTS)
    )


def add_parts(
    p: Contraction,
    region: Region,
    lowering: Lowering,
    slot: Slot,
    address: Dim,
    part: Axis,
    share: Share | None,
) -> None:
    """Launch the kernel that sums the parts, a thread for each result, and finishes the region."""
    e = Scope(lowering, "sum_parts", p.space)
    writer = ResultWriter(e, p, region)
    source = e.buffer(slot, hint="partial")
    turn: Expr = Const(1)
    if share is not None:
        counts = (e.b.let(e.expr(extent_of(axes)), "count") for axes in (p.m, p.n, p.batch))
        m, n, batch = counts
        turn = e.b.let(share.factor(m, n, [batch]), "turn")
    with (
        e.tasks([x.loop for x in (*p.batch, *p.m, *p.n)]),
        e.b.when(binary("eq", turn, 1)) if share is not None else nullcontext(),
    ):
        total = e.b.var(Const(0.0, KType(p.acc)), "sum")
        with e.b.loop(e.expr(part.extent), name="part") as i:
            e.space.bind(part.variable, i)
            e.b.assign(total, binary("add", total, load(source, e.expr(address))))
        writer.element(total, {}, None, 1)
    e.launch(f"{region.label} sum of {part.extent} parts")


# --------------------------------------------------------------------------------------- the kernel


@dataclass
class Frame:
    """What a block knows of its tile: first row and column, number of rows, columns and steps of
    k."""

    top: Expr
    left: Expr
    m: Expr
    n: Expr
    k: Expr
    thread: Name


@contextmanager
def frame(
    e: Scope,
    p: Contraction,
    tile: Size,
    share: Share | None,
    band: int = 1,
    resident: int = 0,
) -> Iterator[Frame]:
    """The loop over blocks, a tile each; the variables of the batch are bound in it.

    Args: band: rows of tiles that are done together, column by column, so that blocks which run at
        the same time read few slices, of both operands. resident: as `For` has it.
    """
    b = e.b
    m, n = (b.let(e.expr(extent_of(axes)), "count") for axes in (p.m, p.n))
    across, down = (
        b.let((count + (size - 1)) // size, "tiles")
        for count, size in ((n, tile.columns), (m, tile.rows))
    )
    batch = [b.let(e.expr(x.extent), "batch") for x in p.batch]
    total: Expr = across * down
    for count in batch:
        total = total * count
    if share is not None:
        total = total * share.factor(m, n, batch)
    with b.block_loop(b.let(total, "total"), tile.threads, resident=resident) as block:
        rest = b.let(block // (across * down), "rest")
        top, left = corner(b, b.let(block % (across * down), "place"), across, down, band)
        top, left = b.let(top * tile.rows, "top"), b.let(left * tile.columns, "left")
        for x, count in zip(reversed(p.batch), reversed(batch), strict=True):
            e.space.bind(x.variable, b.let(rest % count, "i"))
            rest = b.let(rest // count, "rest")
        k = b.let(_depth(e, p), "depth")
        yield Frame(top, left, m, n, k, thread_of(e, tile.threads))


def corner(b: Builder, place: Expr, across: Expr, down: Expr, rows: int) -> tuple[Expr, Expr]:
    """The row and the column of tile `place`, where so many rows are done together."""
    if rows == 1:
        return place // across, place % across
    band, within = b.let(place // (across * rows), "band"), b.let(place % (across * rows), "within")
    height = b.let(binary("min", down - band * rows, Const(rows)), "height")
    return band * rows + within % height, within // height


def steps_along(b: Builder, k: Expr, depth: int) -> Expr:
    return b.let((k + (depth - 1)) // depth, "steps")


def emit(
    e: Scope,
    p: Contraction,
    tile: Tile,
    finish: Finish,
    share: Share | None = None,
) -> None:
    """The kernel's body; `finish` takes each sum where its m and n are bound."""
    b = e.b
    with frame(e, p, tile, share, resident=resident_of(p, tile)) as f:
        work = _Work(e, p, tile, f.thread)
        a = _Operated(work, p.m, p.a, tile.rows, (f.top, f.m, f.k), "a")
        c = _Operated(work, p.n, p.b, tile.columns, (f.left, f.n, f.k), "b")
        steps = steps_along(b, f.k, tile.depth)
        tests = [test for o in (a, c) for test in o.tests]
        # Where there are two loops anyway, or sums take half of a thread's registers, the loop of
        # parts takes none for single elements.
        apart = bool(tests) or tile.own_rows * tile.own_columns >= MANY
        together = both([*tests, *(test for o in (a, c) for test in o.aligned() if apart)])
        with b.when(together) if together is not None else nullcontext():
            _along_k(work, (a.slices(a.lanes, apart), c.slices(c.lanes, apart)), steps)
        if together is not None:
            with b.otherwise():
                _along_k(work, (a.slices(1), c.slices(1)), steps)
        _finish(work, work.sums, (f.top, f.m), (f.left, f.n), finish)


def _depth(e: Scope, p: Contraction) -> Expr:
    total: Expr = Const(1)
    for x in p.k:
        total = total * steps_of(e, p, x)
    return total


def thread_of(e: Scope, threads: int) -> Name:
    """The number of the thread in its block of `threads`, in a register."""
    number = e.b.var(Const(0), "thread")
    with e.b.loop(threads, "thread", "t") as t:
        e.b.assign(number, t)
    return number


class _Work:
    """What the parts of a kernel share: a thread's sums, and where it stands in the tile."""

    def __init__(self, e: Scope, p: Contraction, tile: Tile, thread: Name):
        self.e, self.p, self.tile, self.thread = e, p, tile, thread
        self.near = copied(p.acc)  # neighbours that a thread has, which it reads at once
        b, across = e.b, tile.columns // tile.own_columns // LANES
        warp, lane = b.let(thread // WARP, "warp"), b.let(thread % WARP, "lane")
        down = warp // across * (WARP // LANES) + lane // LANES
        self.row = b.let(down * self.near, "row")
        self.column = b.let((warp % across * LANES + lane % LANES) * self.near, "column")
        self.sums = b.scratch(p.acc, tile.own_rows * tile.own_columns, "sums")
        with b.loop(tile.own_rows * tile.own_columns, "unroll") as i:
            b.store(self.sums, i, Const(0.0, KType(p.acc)))

    def rows(self, i: Expr) -> Expr:
        """The tile's row of the thread's row `i`: groups of neighbours, spread over the tile."""
        return self._spread(self.row, i, self.tile.rows // self.tile.own_rows)

    def columns(self, i: Expr) -> Expr:
        return self._spread(self.column, i, self.tile.columns // self.tile.own_columns)

    def _spread(self, first: Expr, i: Expr, threads: int) -> Expr:
        """Args: threads: how many have a group each before the next groups begin."""
        return first + i // self.near * (self.near * threads) + i % self.near


class _Operated:
    """An operand of the tile: `size` rows (or columns) from the first on, and how it is read.

    Attributes:
        lanes: neighbours that are read at once, 16 bytes, or 1.
        tests: what has to hold for it of sizes that are told at the call.
        line: elements of a slice that are neighbours in memory.
        sector: how many of them threads side by side take.
        beside: rows (or columns) of a step that are written at once.
        pitch: from step to step in shared memory.
        apart: steps after which banks are the same.
    """

    def __init__(
        self,
        work: _Work,
        axes: Sequence[Axis],
        source: Source,
        size: int,
        bounds: tuple[Expr, Expr, Expr],
        hint: str,
    ):
        """Args: bounds: the first row, and how many rows and steps of k there are."""
        self.work, self.axes, self.source, self.size, self.bounds = work, axes, source, size, bounds
        self.hint = hint
        e, p, depth = work.e, work.p, work.tile.depth
        self._lay_out()
        self.room = depth * self.pitch
        self.shared = e.b.shared(p.acc, 2 * self.room, hint)
        self.buffer = e.buffer(source.slot, hint=hint)
        unknown = in_parts(p, source, axes) if source.dtype is p.acc else None
        lanes = copied(p.acc)
        fits = size * depth // lanes % work.tile.threads == 0
        self.lanes = lanes if unknown is not None and fits else 1
        self.tests = [binary("eq", e.expr(n) % lanes, 0) for n in unknown or () if self.lanes > 1]

    def _lay_out(self) -> None:
        """How a slice lies in shared memory, and what of it threads side by side have."""
        p, near, source = self.work.p, self.work.near, self.source
        banks, narrow = BANKED // p.acc.itemsize, min(source.dtype.itemsize, p.acc.itemsize)
        self.along_k = along_k(p, source)
        self.line = self.work.tile.depth if self.along_k else self.size
        self.sector = min(SECTOR // narrow, self.line) if self.along_k else self.line
        self.beside = max(1, banks // self.sector) if self.along_k else near
        pad = max(near, self.beside)
        self.pitch, self.apart = self.size + pad, banks // pad

    def aligned(self) -> list[Expr]:
        """What has to hold of its memory for parts to be read at once."""
        known = self.lanes == 1 or self.buffer.align % COPIED == 0
        return [] if known else [aligned(self.buffer)]

    @property
    def turns(self) -> bool:
        """Whether more steps are written at once than have banks of their own."""
        return self.beside < self.work.near

    def turned(self, step: Expr, row: Expr) -> Expr:
        """Where the element of a row is in a step's line: steps that share banks have as many
        neighbours as a warp writes at once in each other's places."""
        if not self.turns:
            return row
        return binary("xor", row, step // self.apart * self.beside % self.work.near)

    def slices(self, lanes: int, is_aligned: bool = False) -> _Slice:
        return _Slice(self, lanes, is_aligned)


class _Slice:
    """Slices of an operand, `depth` steps of k each. A thread has some items of one, of `lanes`
    neighbours along k, or along rows, which it holds in registers until they are `put`."""

    def __init__(self, operated: _Operated, lanes: int, is_aligned: bool):
        """Args: is_aligned: memory is known to be, where several lanes are read at once."""
        self.operated, self.lanes = operated, lanes
        work, source, axes = operated.work, operated.source, operated.axes
        self.work, self.size, self.room = work, operated.size, operated.room
        self.shared, self.buffer = operated.shared, operated.buffer
        self.first, self.rows, self.k = operated.bounds
        e, p, tile = work.e, work.p, work.tile
        self.items = self.size * tile.depth // lanes // tile.threads
        self.held = e.b.scratch(p.acc, self.items * lanes, f"{operated.hint}_next")
        self.along_k = operated.along_k
        self._share_out()
        self.all_rows = is_multiple(extent_of(axes), self.size)
        self.all_steps = is_multiple(extent_of(p.k), tile.depth) and not p.limits
        self.aligned = None
        if lanes > 1 and not is_aligned and operated.aligned():
            self.aligned = e.b.let(aligned(self.buffer), "aligned")
        self.operand = Operand(e, source, p.k, tile.depth, 2, not self.along_k)
        self.operand.find(
            axes, lambda i: self.first + self._place(i)[0], self.items if self.along_k else 1
        )

    def _share_out(self) -> None:
        """Which items the thread has: where the first is, along the line and across, and how far
        on the next are.

        Along k a warp has a sector of many rows, and warps have sectors side by side; a thread has
        items of several sectors where there are not as many warps.
        """
        work, lanes, tile = self.work, self.lanes, self.work.tile
        let, thread, sector = work.e.b.let, work.thread, self.operated.sector
        threads, sectors = (
            sector // lanes,
            self.operated.line // sector,
        )  # of a sector, and of a line
        beside = min(sectors, tile.threads // WARP) if self.along_k else 1
        self.laps, self.hop = sectors // beside, beside * sector
        each = tile.threads // beside
        inner, outer = thread % threads * lanes, thread // threads
        if beside > 1:
            inner, outer = thread // each * sector + inner, thread % each // threads
        self.inner, self.outer = let(inner, "inner"), let(outer, "outer")
        self.step = each // threads

    def _place(self, i: Expr) -> tuple[Expr, Expr]:
        """The row and the step of k of the first element of item `i`."""
        outer, inner = self.outer + i // self.laps * self.step, self.inner
        if self.laps > 1:
            inner = inner + i % self.laps * self.hop
        return (outer, inner) if self.along_k else (inner, outer)

    def fetch(self, slice: Expr, more: Expr | None = None) -> None:
        """Read a slice into registers; what lies outside is 0. Args: more: whether there is one."""
        b = self.work.e.b
        if self.lanes == 1:
            self._fetch(slice, more, self._element)
        elif self.aligned is None:
            self._fetch(slice, more, self._part)
        else:
            with b.when(self.aligned):
                self._fetch(slice, more, self._part)
            with b.otherwise():
                self._fetch(slice, more, self._element)

    def _fetch(
        self, slice: Expr, more: Expr | None, read: Callable[[Expr, Expr, Expr | None], None]
    ) -> None:
        b, depth = self.work.e.b, self.work.tile.depth
        with b.loop(self.items, "unroll") as i:
            row, step = self._place(i)
            where, there = self.operand.at(slice, step, i if self.along_k else Const(0))
            tests = [there] if there is not None else []
            if not self.all_rows:
                tests.append(binary("lt", self.first + row, self.rows))
            if not self.all_steps:
                tests.append(binary("lt", slice * depth + step, self.k))
            elif more is not None:
                tests.append(more)
            inside = both(tests)
            where = b.let(where, "where")
            read(i * self.lanes, where, None if inside is None else b.let(inside, "inside"))

    def _part(self, at: Expr, where: Expr, inside: Expr | None) -> None:
        read_part(self.work.e.b, self.held, at, self.buffer, where, self.lanes, inside)

    def _element(self, at: Expr, where: Expr, inside: Expr | None) -> None:
        b = self.work.e.b
        with b.loop(self.lanes, "unroll", "u") as u:
            value: Expr = load(self.buffer, where + u, mask=inside)
            for dtype in (*self.operated.source.casts, self.work.p.acc):
                value = cast(value, dtype)
            b.store(self.held, at + u, value)

    def put(self, half: Expr) -> None:
        """Write what was read into a half of the shared memory."""
        b, lanes, pitch = self.work.e.b, self.lanes, self.operated.pitch
        with b.loop(self.items, "unroll") as i:
            begin = half * self.room + self._place(i)[1] * pitch + self._line_of(i)
            if lanes > 1 and not self.along_k:
                b.store(self.shared, begin, load(self.held, i * lanes, lanes, aligned=True))
            else:
                with b.loop(lanes, "unroll", "u") as u:
                    b.store(self.shared, begin + u * pitch, load(self.held, i * lanes + u))

    def _line_of(self, i: Expr) -> Expr:
        """Where in its step's line item `i` goes. Other laps, and rows behind those that are
        neighbours, are turned as the first are: their addresses differ by constants."""
        if not self.operated.turns:
            return self._place(i)[0]
        lap, near = i // self.laps, max(1, self.work.near // self.step)
        first = self.operated.turned(self.inner, self.outer + lap % near * self.step)
        return first + lap // near * (near * self.step)

    def take(
        self, to: Buffer, count: int, half: Expr, step: Expr, row: Callable[[Expr], Expr]
    ) -> None:
        """Read the thread's elements of a step, neighbours at once."""
        b, near = self.work.e.b, self.work.near
        with b.loop(count // near, "unroll") as i:
            at = half * self.room + step * self.operated.pitch + row(i * near)
            b.store(to, i * near, load(self.shared, at, near, aligned=True))


def _along_k(work: _Work, slices: tuple[_Slice, _Slice], steps: Expr) -> None:
    b = work.e.b
    Operand.begin(b, [s.operand for s in slices])
    for s in slices:
        s.fetch(Const(0))
        s.put(Const(0))
    b.barrier()
    if isinstance(steps, Const) and steps.value == 1:
        # A loop of one step is straight text too, with a slice of zeros put at its end: it takes
        # more registers than there are.
        _multiply(work, slices, Const(0))
        b.barrier()
        return
    with b.loop(steps, "rolled", "step") as step:
        half, ahead = b.let(step % 2, "half"), b.let(step + 1, "ahead")
        # Nothing here stands behind a condition: the compiler would read what is ahead only where
        # it is stored, and the products would not hide how long that takes.
        more = b.let(binary("lt", ahead, steps), "more")
        for s in slices:
            s.fetch(ahead, more)
            s.operand.fill(b.let(step + 2, "after"))
        _multiply(work, slices, half)
        for s in slices:
            s.put(1 - half)
        b.barrier()


def _multiply(work: _Work, slices: tuple[_Slice, _Slice], half: Expr) -> None:
    """All multiply-adds of a slice."""
    b, tile, (left, right) = work.e.b, work.tile, slices
    rows, columns = (
        b.scratch(work.p.acc, n, h) for n, h in ((tile.own_rows, "x"), (tile.own_columns, "y"))
    )
    with b.loop(tile.depth, "unroll", "k") as k:
        left.take(rows, tile.own_rows, half, k, work.rows)
        right.take(columns, tile.own_columns, half, k, work.columns)
        for top, first in itertools.product(
            range(0, tile.own_rows, SIDE), range(0, tile.own_columns, SIDE)
        ):
            with b.loop(SIDE, "unroll") as p, b.loop(SIDE, "unroll", "j") as q:
                i, j = top + p, first + q
                at = i * tile.own_columns + j
                x = load(rows, left.operated.turned(k, i))
                y = load(columns, right.operated.turned(k, j))
                b.store(work.sums, at, fma(x, y, load(work.sums, at)))


def _finish(
    work: _Work,
    sums: Buffer,
    rows: tuple[Expr, Expr],
    columns: tuple[Expr, Expr],
    finish: Finish,
) -> None:
    """Hand over the thread's sums that lie inside."""
    b, tile, p = work.e.b, work.tile, work.p
    (top, m), (left, n) = rows, columns

    def place(j: Expr) -> Expr | None:
        column = b.let(left + work.columns(j), "n")
        bind(work.e, p.n, column)
        return inside(column, n, p.n, tile.columns)

    with b.loop(tile.own_rows, "unroll") as i:
        row = b.let(top + work.rows(i), "m")
        with where(b, inside(row, m, p.m, tile.rows)):
            bind(work.e, p.m, row)
            with finish.batch(tile.own_columns, place), finish.each() as j:
                finish(b.let(load(sums, i * tile.own_columns + j), "sum"))


def inside(at: Expr, count: Expr, axes: Sequence[Axis], size: int) -> Expr | None:
    """Whether a row (or column) is one of `count`; None: all are, as tiles of `size` fit."""
    return None if is_multiple(extent_of(axes), size) else binary("lt", at, count)


def where(b: Builder, condition: Expr | None) -> AbstractContextManager[object]:
    """The block that runs where a condition holds; None: it does."""
    return nullcontext() if condition is None else b.when(condition)
