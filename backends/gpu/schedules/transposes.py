"""Transposes for targets whose tasks are blocks of threads.

A block has a square of two loops. Along one of them some buffers have neighbours side by side,
along the other one the rest; so the former go through a tile of shared memory, and all of memory is
read and written in the order in which it lies. A row of a tile has a word more than it needs, so
that neither its rows nor its columns fall into the same bank.

Elements of less than 4 bytes are taken 2 or 4 at a time, so that threads move words: a thread reads
as many words below each other, turns them in registers, and fills as many rows of the tile, which
lie so far apart that the words of neighbouring threads fall into different banks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import Dim, numel

from ...cpu.loops.nest import Loop
from ...cpu.loops.transposes import Squares
from ...kernels.body.space import name_of
from ...kernels.body.views import Index
from ...kernels.ir import Buffer, Expr, as_expr, binary, load
from ...kernels.program.lowering import Lowering
from ...kernels.program.program import Slot
from .wide import WideScope

TILE = 32  # elements along an edge of a tile, times those that a thread takes at once
THREADS = 256  # of a block
WORD = 4  # bytes that a bank of shared memory gives at a time
MOST_TILES = 8  # of 4 bytes an element, which shared memory holds in any case
ENOUGH = 1 << 12  # elements from which on a tile is worth it


def edge(lanes: int) -> int:
    """Elements along a tile of which a thread takes `lanes` at once."""
    return TILE * lanes


class TileScope(Squares, WideScope):
    """A kernel over squares of the loops `across` and `along`, the innermost one.

    Args: lanes: elements that a thread takes at once; more than 1 where both loops are whole
        numbers of them.
    """

    def __init__(self, lowering: Lowering, hint: str, lanes: int = 1):
        super().__init__(lowering, hint, lanes)
        self.edge = edge(lanes)
        self._tiles: dict[tuple[Slot, Dim], Buffer] = {}
        self._words: dict[tuple[Slot, Dim], Buffer] = {}
        self._results: list[tuple[Buffer, Buffer]] = []
        self._full: list[tuple[Slot, Dim, Buffer]] = []

    @contextmanager
    def squares(self, loops: Sequence[Loop], index: Index, across: int) -> Iterator[None]:
        """The body is run for each element, by some thread; `across` is the number of that loop."""
        b, side = self.b, self.edge
        *outer, last = loops
        first = outer.pop(across)
        self.across, self.along = index[first.axis], index[last.axis]
        self.ends = first.extent, last.extent
        sizes = [
            *(x.extent for x in outer),
            *((x.extent + (side - 1)) // side for x in (first, last)),
        ]
        with b.block_loop(self.expr(numel(tuple(sizes))), THREADS) as rest:
            places = []
            for size in reversed(sizes[1:]):
                places.append(b.let(rest % self.expr(size), "i"))
                rest = b.let(rest // self.expr(size), "rest")
            right, top, *others = [*places, rest]
            for loop, at in zip(outer, reversed(others), strict=True):
                self.space.bind(index[loop.axis], at, b.depth)
            self.top, self.right = b.let(top * side, "top"), b.let(right * side, "right")
            self.square = b.depth
            with self.rows(side) as (slow, number, fast):
                step = b.let(number * (THREADS // TILE), "step")
                self.row, self.column = b.let(slow + step, "row"), self.times(fast)
                # a step is a whole number of lanes
                self.own = (slow % self.lanes, slow // self.lanes + step // self.lanes)
                with self.inside(self.row, self.column) as (i, j), self.each(i, j):
                    yield
                    if self._tiles:
                        with b.hoisted(self.square):
                            b.barrier()
            self.empty()

    @contextmanager
    def rows(self, count: int) -> Iterator[tuple[Expr, Expr, Expr]]:
        """A loop over `count` rows of TILE: each thread has one in every few rows.

        Gives the first one, the number of the row among the thread's, and the place in the row.
        """
        b, each = self.b, THREADS // TILE
        with b.loop(THREADS, "thread", "t") as t:
            slow, fast = b.let(t // TILE, "slow"), b.let(t % TILE, "fast")
            with b.loop(count // each, "unroll", "n") as n:
                yield slow, n, fast

    @contextmanager
    def inside(self, row: Expr, column: Expr) -> Iterator[tuple[Expr, Expr]]:
        """The indices of a place in the square, where it is within the loops."""
        b = self.b
        i, j = b.let(self.top + row, "i"), b.let(self.right + column, "j")
        limits = [
            binary("lt", at, self.expr(end))
            for at, end in zip((i, j), self.ends, strict=True)
            if not isinstance(end, int) or end % self.edge
        ]
        if not limits:
            yield i, j
            return
        with b.when(limits[0] if len(limits) == 1 else binary("and", *limits)):
            yield i, j

    @contextmanager
    def each(self, i: Expr, j: Expr) -> Iterator[None]:
        """The elements that a thread takes at once."""
        b = self.b
        self.space.bind(self.across, i, b.depth)
        if self.lanes == 1:
            self.space.bind(self.along, j, b.depth)
            self.depth = b.depth
            yield
            return
        self.begin(self.along, j, None)
        with b.loop(self.lanes, "unroll", "u") as lane, self.element(lane):
            yield
        self.flush()
        for tile, words in self._results:
            b.store(tile, self.place(tile, *self.own, self.column), load(words, 0, self.lanes))

    @contextmanager
    def turned(self) -> Iterator[tuple[Expr, Expr, Expr]]:
        """A loop over the square, with neighbouring threads beside each other in the loop `across`.

        Each has `lanes` elements of either loop at a time: gives its number across, the first
        along, and how many it had before. Where they are in memory `at` tells.
        """
        with self.rows(TILE) as (slow, number, fast):
            line = self.b.let(slow + number * (THREADS // TILE), "row")
            row, column = self.times(fast), self.times(line)
            with self.inside(row, column) as (i, j):
                self.first = i, j
                yield fast, column, number * self.lanes**2

    def times(self, number: Expr) -> Expr:
        return number if self.lanes == 1 else self.b.let(number * self.lanes, "first")

    def place(self, tile: Buffer, rest: Expr | int, number: Expr, column: Expr) -> Expr:
        """Where a tile has an element of row `number * lanes + rest`: rows of the same rest come
        one after the other."""
        row = number if self.lanes == 1 else number + as_expr(rest) * TILE
        return row * self.pitch(tile.dtype) + column

    def pitch(self, dtype: DType) -> int:
        """Elements of a row of a tile: whole words, one more than the banks."""
        return self.edge + max(self.lanes, WORD // dtype.itemsize)

    def at(self, position: Dim, step: int) -> Expr:
        """The position of what `turned` is at, some steps along."""
        i, j = self.first
        names = name_of(self.across), name_of(self.along)
        return self.space.where(
            position, dict(zip(names, (i, j + step if step else j), strict=True))
        )

    def takes(self, position: Dim) -> bool:
        """Whether what lies at `position` gets a tile."""
        room = len(self._tiles) + len(self._full) < MOST_TILES // self.lanes
        return room and self.is_across(position)

    def tile(self, slot: Slot) -> Buffer:
        return self.b.shared(slot.dtype, self.edge * self.pitch(slot.dtype), "tile")

    def read(self, slot: Slot, position: Dim, mask: Expr | None = None) -> Expr:
        b, key = self.b, (slot, position)
        if mask is not None or not (key in self._tiles or self.takes(position)):
            return super().read(slot, position, mask)
        tile = self._tiles.get(key)
        if tile is None:
            source = self.buffer(slot)
            with b.hoisted(self.square):
                tile = self._tiles[key] = self.tile(slot)
                self.fill(tile, source, position)
        if self.lanes == 1:
            return load(tile, self.place(tile, *self.own, self.column))
        words = self._words.get(key)
        if words is None:
            with b.hoisted(self.depth):
                words = self._words[key] = b.scratch(slot.dtype, self.lanes, "words")
                b.store(words, 0, load(tile, self.place(tile, *self.own, self.column), self.lanes))
        return load(words, self.lane)

    def put(self, slot: Slot, position: Dim, value: Expr, mask: Expr | None = None) -> None:
        """Store an element."""
        b, to = self.b, self.buffer(slot, "write")
        if mask is not None or not self.takes(position):
            super().put(slot, position, value, mask)
            return
        with b.hoisted(self.square):
            tile = self.tile(slot)
        self._full.append((slot, position, tile))
        if self.lanes == 1:
            b.store(tile, self.place(tile, *self.own, self.column), value)
            return
        with b.hoisted(self.depth):
            words = b.scratch(to.dtype, self.lanes, "out")
        b.store(words, self.lane, value)
        self._results.append((tile, words))

    def fill(self, tile: Buffer, source: Buffer, position: Dim) -> None:
        """What memory has of the square, to a tile: all is asked for before the first is needed."""
        b, lanes = self.b, self.lanes
        if lanes == 1:
            with self.turned() as (number, column, _):
                b.store(
                    tile, self.place(tile, 0, number, column), load(source, self.at(position, 0))
                )
            return
        words = b.scratch(source.dtype, lanes**2 * TILE * TILE // THREADS, "words")
        with self.turned() as (_, _, before):
            for n in range(lanes):
                b.store(words, before + n * lanes, load(source, self.at(position, n), lanes))
        with self.turned() as (number, column, before):
            turned = self.crossed(words, before)
            for n in range(lanes):
                b.store(tile, self.place(tile, n, number, column), load(turned, n * lanes, lanes))

    def empty(self) -> None:
        """What went to tiles, to memory."""
        b, lanes = self.b, self.lanes
        if not self._full:
            return
        b.barrier()
        with self.turned() as (number, column, _):
            for slot, position, tile in self._full:
                to = self.buffer(slot, "write")
                if lanes == 1:
                    b.store(
                        to, self.at(position, 0), load(tile, self.place(tile, 0, number, column))
                    )
                    continue
                words = b.scratch(slot.dtype, lanes * lanes, "words")
                for n in range(lanes):
                    b.store(
                        words, n * lanes, load(tile, self.place(tile, n, number, column), lanes)
                    )
                words = self.crossed(words, as_expr(0))
                for n in range(lanes):
                    b.store(to, self.at(position, n), load(words, n * lanes, lanes))

    def crossed(self, words: Buffer, first: Expr) -> Buffer:
        """A square of `lanes` by `lanes` elements of a thread, with rows and columns exchanged."""
        b, lanes = self.b, self.lanes
        turned = b.scratch(words.dtype, lanes**2, "turned")
        for n in range(lanes**2):
            b.store(turned, n, load(words, first + (n % lanes * lanes + n // lanes)))
        return turned
