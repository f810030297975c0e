"""Transposes for targets whose tasks are blocks of threads.

A block has a square of two loops. Along one of them some buffers have neighbours side by side,
along the other one the rest; so the former go through a tile of shared memory, and all of memory is
read and written in the order in which it lies. A tile has a column more than it needs, so that
neither its rows nor its columns fall into the same bank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir.shape import Dim, numel

from ...cpu.loops.nest import TILE, Loop
from ...kernels.body.scope import Scope
from ...kernels.body.space import coefficient, depends, name_of
from ...kernels.body.views import Index
from ...kernels.ir import Buffer, Expr, binary, load
from ...kernels.program.lowering import Lowering
from ...kernels.program.program import Slot

THREADS = 256  # of a block
PITCH = TILE + 1
MOST_TILES = 8  # which shared memory holds in any case
ENOUGH = 1 << 12  # elements from which on a tile is worth it


class TileScope(Scope):
    """A kernel over squares of the loops `across` and `along`, the innermost one."""

    def __init__(self, lowering: Lowering, hint: str):
        super().__init__(lowering, hint)
        self._tiles: dict[tuple[Slot, Dim], Buffer] = {}
        self._stores: list[tuple[Slot, Dim, Buffer]] = []
        self._filled = False

    @contextmanager
    def squares(self, loops: Sequence[Loop], index: Index, across: int) -> Iterator[None]:
        """The body is run for each element, by some thread; `across` is the number of that loop."""
        b = self.b
        *outer, last = loops
        first = outer.pop(across)
        self.across, self.along = index[first.axis], index[last.axis]
        self.ends = self.expr(first.extent), self.expr(last.extent)
        sizes = [
            *(x.extent for x in outer),
            *((x.extent + (TILE - 1)) // TILE for x in (first, last)),
        ]
        with b.block_loop(self.expr(numel(tuple(sizes))), THREADS) as rest:
            places = []
            for size in reversed(sizes[1:]):
                places.append(b.let(rest % self.expr(size), "i"))
                rest = b.let(rest // self.expr(size), "rest")
            right, top, *others = [*places, rest]
            for loop, at in zip(outer, reversed(others), strict=True):
                self.space.bind(index[loop.axis], at, b.depth)
            self.top, self.right = b.let(top * TILE, "top"), b.let(right * TILE, "right")
            self.depth = b.depth
            with self.elements(down="along") as (row, column):
                self.row, self.column = row, column
                yield
                if self._filled:
                    with b.hoisted(self.depth):
                        b.barrier()
            self.flush()

    @contextmanager
    def elements(self, down: str) -> Iterator[tuple[Expr, Expr]]:
        """A loop over the square, with neighbouring threads beside each other in the loop `down`.

        Gives the places in the square, in `across` and in `along`, where there is an element.
        """
        b = self.b
        with b.loop(TILE * TILE, "thread", "t") as t:
            slow, fast = b.let(t // TILE, "slow"), b.let(t % TILE, "fast")
            row, column = (slow, fast) if down == "along" else (fast, slow)
            i, j = b.let(self.top + row, "i"), b.let(self.right + column, "j")
            inside = binary("and", binary("lt", i, self.ends[0]), binary("lt", j, self.ends[1]))
            with b.when(inside):
                if down == "along":
                    self.space.bind(self.across, i, b.depth)
                    self.space.bind(self.along, j, b.depth)
                self.places = {name_of(self.across): i, name_of(self.along): j}
                yield row, column

    def is_across(self, position: Dim) -> bool:
        """Whether neighbours at `position` lie side by side along the loop `across`, and only
        there."""
        across, along = name_of(self.across), name_of(self.along)
        if coefficient(position, across) != 1 or coefficient(position, along) in (None, 0, 1):
            return False
        inner = {s for s, depth in self.space.depths.items() if depth > self.depth} - {
            across,
            along,
        }
        room = len(self._tiles) + len(self._stores) < MOST_TILES
        return room and not any(depends(position, s) for s in inner)

    def tile(self, slot: Slot) -> Buffer:
        return self.b.shared(slot.dtype, TILE * PITCH, "tile")

    def at(self, position: Dim) -> Expr:
        """The position of the element that `elements` is at."""
        return self.space.where(position, self.places)

    def read(self, slot: Slot, position: Dim, mask: Expr | None = None) -> Expr:
        if mask is not None or not ((slot, position) in self._tiles or self.is_across(position)):
            return super().read(slot, position, mask)
        tile = self._tiles.get((slot, position))
        if tile is None:
            source, main = self.buffer(slot), self.places
            with self.b.hoisted(self.depth):
                tile = self._tiles[slot, position] = self.tile(slot)
                with self.elements(down="across") as (row, column):
                    self.b.store(tile, column * PITCH + row, load(source, self.at(position)))
            self.places, self._filled = main, True
        return load(tile, self.column * PITCH + self.row)

    def put(self, slot: Slot, position: Dim, value: Expr) -> None:
        """Store an element."""
        to, at = self.buffer(slot, "write"), self.expr(position)
        if not self.is_across(position):
            self.b.store(to, at, value)
            return
        with self.b.hoisted(self.depth):
            tile = self.tile(slot)
        self.b.store(tile, self.column * PITCH + self.row, value)
        self._stores.append((slot, position, tile))

    def flush(self) -> None:
        """Store what went to tiles."""
        if not self._stores:
            return
        self.b.barrier()
        with self.elements(down="across") as (row, column):
            for slot, position, tile in self._stores:
                self.b.store(
                    self.buffer(slot, "write"), self.at(position), load(tile, column * PITCH + row)
                )
