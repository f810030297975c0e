"""Kernels some of whose buffers have neighbours along another loop than the rest.

Memory is walked through in squares of those two loops. What lies along the outer one of them goes
through a tile in the nearest cache, turned in registers, so that all of memory is read and written
in runs of whole cache lines, and the body's innermost loop finds all of it in order.

Rows are turned as usual: vectors are put together from 16 bytes of as many rows as they have such
parts, and log2 steps of interleaving them in pairs turn every part by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir.dtype import DType, boolean, u8
from graphtorch.ir.shape import Dim, numel

from ...kernels.body.scope import Level, Scope, upper_bound
from ...kernels.body.space import coefficient, depends, name_of
from ...kernels.ir import Buffer, Const, Expr, KType, Shuffle, cast, load
from ...kernels.machine import Machine
from ...kernels.program.lowering import Lowering
from ...kernels.program.program import Slot
from .. import cost
from .streams import StreamScope
from .tasks import task_rows

EDGES = (128, 64, 32)  # elements along a square, the first one whose tiles fit into the L1 cache
MOST_TILES = 8
PART = 16  # bytes: shuffles within such parts of a register are the cheap ones
# Rows that are read side by side, if that fills a register: those of a large power of two bytes
# share the lines of one set of the cache, which usually are as many.
ROWS = 8

Place = Callable[[Expr, Expr], Expr]  # of an element of a row and a column


class Squares(Scope):
    """A scope whose kernel walks through squares of the loops over `across` and `along`, the
    innermost one; `square` is the depth of the block in which a square is."""

    across: Dim
    along: Dim
    square: int

    def is_across(self, position: Dim) -> bool:
        """Whether neighbours at `position` lie side by side along the loop `across`, and only
        there."""
        across, along = name_of(self.across), name_of(self.along)
        if coefficient(position, across) != 1 or coefficient(position, along) in (None, 0, 1):
            return False
        inner = {s for s, depth in self.space.depths.items() if depth > self.square}
        return not any(depends(position, s) for s in inner - {across, along})


class TileScope(Squares, StreamScope):
    """A kernel over squares whose edges have `edge` elements; it stores to `slots`."""

    def __init__(self, lowering: Lowering, hint: str, edge: int, slots: Iterable[Slot] = ()):
        super().__init__(lowering, hint, slots)
        self.edge = edge
        self._tiles: dict[tuple[Slot, Dim], Buffer] = {}
        self._full: list[tuple[Slot, Dim, Buffer]] = []

    @contextmanager
    def squares(self, loops: Sequence[tuple[Dim, Dim]], across: int, grain: int) -> Iterator[None]:
        """The body is run for each element of `loops`, extents and variables; `across` is the
        number of that loop. Squares between the same rows are a task, and more if those have less
        than `grain` elements."""
        edge = self.edge
        *middle, (self.width, self.along) = loops[across + 1 :]
        self.height, self.across = loops[across]
        strips = (self.height + (edge - 1)) // edge
        levels: list[Level] = [*loops[:across], (strips, self._bind_strip)]
        work = numel((edge, *(extent for extent, _ in middle), self.width))
        count = numel((*(extent for extent, _ in loops[:across]), strips))
        with task_rows(self, count, work, grain) as row:
            self.decode(levels, [self.expr(extent) for extent, _ in levels], row)
            with (
                self.nested(middle),
                self.b.loop(self.expr(self.width), "serial", "right", 0, edge) as self.right,
                self.square_loops(),
            ):
                yield

    @contextmanager
    def square_loops(self) -> Iterator[None]:
        """The loops over a square, and what is to be done after them."""
        b = self.b
        self.square = b.depth
        self.rows = b.let(self.rest(self.height, self.top), "rows")
        self.columns = b.let(self.rest(self.width, self.right), "columns")
        with b.loop(self.rows, "serial", "row") as self.row:
            self.space.bind(self.across, b.let(self.top + self.row, "i"), b.depth)
            with self.run(), b.loop(self.columns, "vector", "column") as self.column:
                self.space.bind(self.along, b.let(self.right + self.column, "j"), b.depth)
                yield
        for slot, position, tile in self._full:
            self.empty(slot, position, tile)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Around the loop over the columns of a row."""
        if not (self.large and self.pays(min(self.edge, cost.guess(self.width)))):
            yield
            return
        with self.chunk(self.along, self.right, self.columns, self.edge):
            yield

    def _bind_strip(self, strip: Expr) -> None:
        self.top = self.b.let(strip * self.edge, "top")

    def rest(self, extent: Dim, start: Expr) -> Expr:
        """Elements of a square that begins at `start` of a loop."""
        if isinstance(extent, int) and (extent % self.edge == 0 or extent < self.edge):
            return Const(min(extent, self.edge))
        return upper_bound(self.expr(extent) - start, Const(self.edge))

    def read(self, slot: Slot, position: Dim, mask: Expr | None = None) -> Expr:
        key = (slot, position)
        if mask is not None or not (key in self._tiles or self.takes(position)):
            return super().read(slot, position, mask)
        if key not in self._tiles:
            with self.b.hoisted(self.square):
                self._tiles[key] = self.fill(slot, position)
        return cast(load(self._tiles[key], self.place(self.row, self.column)), slot.dtype)

    def put(self, slot: Slot, position: Dim, value: Expr) -> None:
        if not self.takes(position):
            super().put(slot, position, value)
            return
        with self.b.hoisted(self.square):
            tile = self.tile(slot)
        self._full.append((slot, position, tile))
        self.b.store(tile, self.place(self.row, self.column), cast(value, tile.dtype))

    def takes(self, position: Dim) -> bool:
        """Whether what lies at `position` gets a tile."""
        return len(self._tiles) + len(self._full) < MOST_TILES and self.is_across(position)

    def tile(self, slot: Slot) -> Buffer:
        return self.b.scratch(as_number(slot.dtype), self.edge**2, "tile")

    def place(self, row: Expr, column: Expr) -> Expr:
        """Where a tile has an element of the square."""
        return row * self.edge + column

    def at(self, position: Dim, row: Expr, column: Expr) -> Expr:
        """The position of an element of the square."""
        i, j = name_of(self.across), name_of(self.along)
        return self.space.where(position, {i: self.top + row, j: self.right + column})

    def fill(self, slot: Slot, position: Dim) -> Buffer:
        """A tile of what memory has of the square."""
        tile, source = self.tile(slot), self.buffer(slot)
        self.turn(
            (source, lambda column, row: self.at(position, row, column), self.columns, self.width),
            (tile, lambda column, row: self.place(row, column), self.rows, self.height),
        )
        return tile

    def empty(self, slot: Slot, position: Dim, tile: Buffer) -> None:
        """What memory is to have of the square, from a tile."""
        to = self.buffer(slot, "write")
        self.turn(
            (tile, self.place, self.rows, self.height),
            (to, lambda row, column: self.at(position, row, column), self.columns, self.width),
        )

    def turn(
        self,
        source: tuple[Buffer, Place, Expr, Dim],
        target: tuple[Buffer, Place, Expr, Dim],
    ) -> None:
        """Copy a matrix whose rows lie in order in `source`, and its columns in `target`.

        With each of them goes where it has an element, and how many there are of the rows, of the
        columns: of this square, and in all.
        """
        b = self.b
        (x, read, rows, height), (y, write, columns, width) = source, target
        number = as_number(x.dtype)
        lanes, part = block(self.lowering.machine, number)
        whole, full = b.let(rows // lanes * lanes, "whole"), b.let(columns // part * part, "full")
        with b.loop(whole, "serial", "r", 0, lanes) as r, b.loop(full, "rolled", "c", 0, part) as c:
            vectors = [
                joined(
                    [
                        cast(load(x, read(r + (n + k), c), part), number)
                        for n in range(0, lanes, part)
                    ]
                )
                for k in range(part)
            ]
            for k, v in enumerate(interleaved(b.let, vectors, part)):
                b.store(y, write(r, c + k), cast(v, y.dtype))
        if not (isinstance(width, int) and width % part == 0):
            with b.loop(whole, "serial", "r") as r, b.loop(columns, "serial", "c", full) as c:
                b.store(y, write(r, c), cast(load(x, read(r, c)), y.dtype))
        if not (isinstance(height, int) and height % lanes == 0):
            with b.loop(rows, "serial", "r", whole) as r, b.loop(columns, "serial", "c") as c:
                b.store(y, write(r, c), cast(load(x, read(r, c)), y.dtype))


def edge_for(machine: Machine, element: int) -> int:
    """Elements along a square of which tiles have `element` bytes for each."""
    room = machine.caches[0]
    return next((edge for edge in EDGES if edge**2 * element <= room), EDGES[-1])


def as_number(dtype: DType) -> DType:
    """What elements are in tiles and registers: vectors of truths are bits, not bytes."""
    return u8 if dtype is boolean else dtype


def block(machine: Machine, dtype: DType) -> tuple[int, int]:
    """Rows and columns that are turned in registers: whole vectors of the former; 1 and 1 where
    elements are turned one by one."""
    part = PART // dtype.itemsize
    if machine.vector_bytes < PART:
        return 1, 1
    return max(part, min(ROWS, machine.lanes(dtype.itemsize))), part


def joined(parts: Sequence[Expr]) -> Expr:
    """The lanes of `parts`, a power of two of them, one after the other."""
    while len(parts) > 1:
        lanes = 2 * parts[0].type.lanes
        parts = [
            Shuffle(low, high, tuple(range(lanes)), KType(low.type.dtype, lanes))
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def interleaved(let: Callable[[Expr], Expr], rows: Sequence[Expr], part: int) -> list[Expr]:
    """The columns of `rows` of vectors, each part of `part` lanes turned by itself."""
    rows, run = [let(row) for row in rows], part // len(rows)
    if len(rows) == 1:
        return rows
    halves = [
        [
            Shuffle(low, high, pairs(low.type.lanes, part, run, half), low.type)
            for low, high in zip(rows[::2], rows[1::2], strict=True)
        ]
        for half in (0, 1)
    ]
    return [v for half in halves for v in interleaved(let, half, part)]


def pairs(lanes: int, part: int, run: int, half: int) -> tuple[int, ...]:
    """Of two vectors the lanes of a half of each part, `run` neighbours of them in turn."""
    return tuple(
        vector * lanes + start + i
        for first in range(half * part // 2, lanes, part)
        for start in range(first, first + part // 2, run)
        for vector in (0, 1)
        for i in range(run)
    )
