"""Schedules of contractions: tile sizes chosen from the machine and the shapes, as data.

    C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n]

The family: a register tile of `rows` x `columns` accumulators is computed over the whole of k.
Columns are vectors along n, read from B (in place where n is contiguous there, else from a packed
copy); rows are scalars of A, broadcast. Tiles sweep a block of C that is one task; blocks are sized
so that what a task reads again stays in the L2 cache. Where a tile does not divide the matrix,
smaller tiles take the rest.
"""

from __future__ import annotations

import math

from graphtorch.ir.shape import Dim

from ...dataclass import dataclass
from ...kernels.machine import Machine

TASK_WORK = 60_000  # multiply-adds that make a task worth its start
FULL_ROWS = 0.7  # of the rows that fit: a tile of fewer does not keep the units busy
LIKELY = 256  # an extent that is known at run time only
TASKS = 16  # enough tasks to balance a few threads


@dataclass(frozen=True)
class Chunk:
    """A vector of a tile's columns: `valid` of its `lanes` lie inside the matrix."""

    offset: int
    lanes: int
    valid: int


def chunks(width: int, lanes: int) -> tuple[Chunk, ...]:
    """`width` columns as full vectors and one narrower vector for the rest: 100 = 6 x 16 + 4."""
    full = [Chunk(i, lanes, lanes) for i in range(0, width - lanes + 1, lanes)]
    rest = width % lanes
    if rest:
        narrow = 1 if rest == 1 else min(lanes, max(4, 1 << (rest - 1).bit_length()))
        full.append(Chunk(width - rest, narrow, rest))
    return tuple(full)


def padded(width: int, lanes: int) -> int:
    """Columns that a packed copy of `width` columns holds."""
    return sum(c.lanes for c in chunks(width, lanes))


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles along one side (m or n) of C.

    Attributes:
        sizes: along the side's blocked axis, tried in order: the main tile, then smaller ones for
            the rest.
        inner: along the axis inside it (pixels of a row), if the tile spans two axes; else ().
        block: extent of a task along the blocked axis, a multiple of ``sizes[0]``; 0 for all of it.
        ragged: the extent is not known: the last tile is as wide as the others and masked.
    """

    sizes: tuple[int, ...]
    inner: tuple[int, ...] = ()
    block: int = 0
    ragged: bool = False


@dataclass(frozen=True)
class Schedule:
    """How a contraction runs.

    Attributes:
        kind: ``tile`` (register tiles), ``dot`` (vectors along k), ``diagonal`` (vectors along an
            axis of both operands) or ``loops`` (any dtype, no tiles).
        swap: the operands exchange their roles, so vectors run along m.
        pack_a, pack_b: the operand is copied into the order in which tiles read it.
        split: parts that k is cut into, each a task of its own with its own partial result.
        parallel: worth running on several threads.
        columns_first: tasks that read the same columns of B follow one another; else those that
            read the same outer rows of A do.
    """

    kind: str
    lanes: int
    swap: bool = False
    rows: Tiling = Tiling((1,))
    columns: Tiling = Tiling((1,))
    pack_a: bool = False
    pack_b: bool = False
    split: int = 1
    parallel: bool = True
    columns_first: bool = False

    def __str__(self) -> str:
        packed = " ".join(
            ["pack"] + [n for n, on in (("a", self.pack_a), ("b", self.pack_b)) if on]
        )
        parts = [self.kind, f"{_sizes(self.rows)} x {_sizes(self.columns)}"]
        parts += ["swapped"] * self.swap + [packed] * (self.pack_a or self.pack_b)
        parts += ["columns first"] * self.columns_first
        parts += [f"split {self.split}"] * (self.split > 1) + ["serial"] * (not self.parallel)
        return ", ".join(parts)


def _sizes(tiling: Tiling) -> str:
    text = "/".join(map(str, tiling.sizes))
    if tiling.inner:
        text += "." + "/".join(map(str, tiling.inner))
    return text + ("?" if tiling.ragged else "") + (f" of {tiling.block}" if tiling.block else "")


def most_rows(vectors: int, registers: int) -> int:
    """Rows of a tile of `vectors` columns: accumulators, a row of B and an element of A fit the
    registers."""
    return max(1, (registers - 1 - vectors) // vectors)


def row_sizes(extent: Dim, most: int) -> tuple[int, ...]:
    """Tile sizes along rows: equal tiles where the extent is known, else halving down to one
    row."""
    if not isinstance(extent, int):
        main = most if most < 8 else most - most % 2
        return tuple(dict.fromkeys((main, *([max(main // 3, 2)] if main > 4 else []), 1)))
    if extent <= most:
        return (max(extent, 1),)
    size = min(range(most, most // 2, -1), key=lambda size: _sweep_cost(extent, size, most))
    return (size, extent % size) if extent % size else (size,)


def any_row_sizes(unit: int, most: int) -> tuple[int, ...]:
    """Tile sizes along rows of which there are some multiple of `unit`: one that divides it, or
    the main tile and what leaves few tiles for the rest: halves of it, and three rows beside
    four."""
    exact = max(size for size in range(1, most + 1) if unit % size == 0)
    if exact > most // 2:
        return (exact,)
    main = most if most < 8 else most - most % 2
    step = math.gcd(unit, main)
    rests = [step << i for i in range(main.bit_length()) if step << i < main]
    if (main, step) == (4, 1):
        rests = [1, 2, 3]
    return (main, *reversed(rests))


def _sweep_cost(extent: int, size: int, most: int) -> float:
    """Of tiles of `size` rows and one with the rest, in rows: one of few rows takes as long as its
    sums wait for each other, and each has a beginning and an end."""
    count, rest = divmod(extent, size)
    return count * size + (max(rest, FULL_ROWS * most) if rest else 0) + 0.3 * -(-extent // size)


def column_sizes(extent: Dim, vectors: int, lanes: int) -> tuple[int, ...]:
    width = vectors * lanes
    if not isinstance(extent, int) or extent == 0:
        return (width,)
    if extent <= width:
        return (extent,)
    return (width, extent % width) if extent % width else (width,)


def sweep(extent: int, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(size, count) of the tiles that cover `extent`."""
    found, left = [], extent
    for size in sizes:
        found.append((size, left // size))
        left %= size
    return [(size, count) for size, count in found if count]


def blocks(
    rows: Tiling,
    columns: Tiling,
    m: Dim,
    n: Dim,
    depth: int,
    tasks: int,
    others: int,
    itemsize: int,
    machine: Machine,
) -> tuple[int, int]:
    """Extents of a task along the blocked axes (0: all), for reuse in L2 and for enough tasks.

    Args:
        m, n: extents of the blocked axes.
        tasks: at least as many are wanted.
        depth: multiply-adds behind one position of the two blocked axes (k times the axes inside).
        others: combinations of all other axes; each is a task of its own.
    """
    room = machine.caches[1] // itemsize // max(depth, 1)
    sides = [
        [max(1, room // 4 // rows.sizes[0]), rows.sizes[0], m],
        [max(1, room // 2 // columns.sizes[0]), columns.sizes[0], n],
    ]
    for side in sides:
        side[0] = min(side[0], tiles_of(side[2], side[1]))
    while (
        sides[0][0] * sides[1][0] > 1
        and _tasks(sides, others) < tasks
        and math.prod(t * size for t, size, _ in sides) * depth > 2 * TASK_WORK
    ):
        side = sides[0] if sides[0][0] > 1 else sides[1]
        side[0] = (side[0] + 1) // 2
    return tuple(_block(_evenly(*side), *side[1:]) for side in sides)  # type: ignore[return-value]


def _evenly(tiles: int, size: int, extent: Dim) -> int:
    """Tiles of a task, such that as many tasks as with `tiles` have about as many each."""
    if not isinstance(extent, int):
        return tiles
    total = tiles_of(extent, size)
    return -(-total // -(-total // tiles))


def tiles_of(extent: Dim, size: int) -> int:
    return max(1, -(-extent // size)) if isinstance(extent, int) else 1 << 20


def _tasks(sides: list[list[int]], others: int) -> int:
    return others * math.prod(
        -(-tiles_of(extent if isinstance(extent, int) else LIKELY, size) // tiles)
        for tiles, size, extent in sides
    )


def _block(tiles: int, size: int, extent: Dim) -> int:
    return 0 if isinstance(extent, int) and tiles * size >= extent else tiles * size
