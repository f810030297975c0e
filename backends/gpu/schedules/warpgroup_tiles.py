"""Which tile groups of four warps compute a contraction by: the one that is expected to take the
least time.

A multiprocessor has some blocks at a time. A block brings slices and multiplies them, which takes
as long as the slower of both, and at its end reads and writes whole memory; while one does this,
the others multiply. Numbers are those of an H100 (SXM), a cycle each of a multiprocessor.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.dtype import f32

from ...cpu.contraction.choice import guess
from ...dataclass import dataclass
from ...kernels.contraction.problem import Contraction, extent_of
from ...kernels.ir import DEPTH, TILE
from .matrices import factor
from .parts import in_parts
from .products import parts_of

GROUP = 128  # threads that multiply together
CHUNK = 32  # columns of sums that are handed over at a time
HEIGHT = 8  # rows of a warp that are
PITCH = CHUNK + 8  # of them in shared memory: half a warp writes to different banks
BEHIND = 2  # steps after which a stage is written to again

SHARED, BLOCK = 227 << 10, 1 << 10  # bytes of a multiprocessor, of them for the system in a block
REGISTERS, OWN = 1 << 16, 64  # of a multiprocessor; of a thread besides its sums
PLACES = 64  # of a thread for places of results whose rows are of several axes
BRINGS = 32  # bytes a cycle from the L2 cache
MOVES = 17  # bytes a cycle from and to memory
MULTIPLIES = 1024  # multiply-adds a cycle of TF32, half of those of 2-byte floats
DELAY = 2500  # cycles until a block has its first slice, and from its last product to its end
LAUNCH = 5000  # cycles of a kernel that adds parts, besides moving them


@dataclass(frozen=True)
class Tile:
    """Sizes of a block's work: its results, and slices in shared memory where k is long."""

    rows: int
    columns: int
    stages: int

    @property
    def threads(self) -> int:
        return self.rows // TILE * GROUP

    @property
    def depth(self) -> int:
        """Steps of k of 2-byte floats at a time, which decides on parts of k alone."""
        return DEPTH // 2

    @property
    def lines(self) -> int:
        """Elements of shared memory by way of which sums are handed over."""
        return self.threads // 32 * HEIGHT * PITCH

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} tiles"


TILES = (
    Tile(128, 256, 4),
    Tile(128, 128, 3),
    Tile(128, 64, 4),
    Tile(64, 128, 4),
    Tile(64, 64, 6),
)


def tiles_of(p: Contraction) -> Sequence[Tile]:
    """The tiles for `p`, large ones first.

    Elements of 2 bytes that are not copied take too many registers for the largest.
    """
    direct = None not in (in_parts(p, p.a, p.m), in_parts(p, p.b, p.n))
    return [t for t in TILES if direct or factor(p) is f32 or t.columns < 256]


def steps_of(p: Contraction) -> int | None:
    """Slices along k, where that is known."""
    dtype, depth = factor(p), extent_of(p.k)
    assert dtype is not None
    return -(-depth * dtype.itemsize // DEPTH) if isinstance(depth, int) and not p.limits else None


def stages_of(p: Contraction, tile: Tile) -> int:
    """Slices that shared memory has room for: all of them, or as many as the tile says."""
    steps = steps_of(p)
    return tile.stages if steps is None else min(max(steps, 1), tile.stages)


def resident_of(p: Contraction, tile: Tile, reads: int) -> int:
    """Blocks that a multiprocessor has room for. Args: reads: as `cycles` takes it."""
    shared = stages_of(p, tile) * (tile.rows + tile.columns) * DEPTH + tile.lines * 4 + BLOCK
    own = tile.columns // 2 + OWN + (PLACES if len(p.m) > 1 and reads else 0)
    return min(SHARED // shared, REGISTERS // (tile.threads * own))


def tile_of(p: Contraction, reads: int, multiprocessors: int) -> Tile:
    """The tile that takes the least time. Args: reads: as `cycles` takes it."""
    return min(tiles_of(p), key=lambda tile: cycles(p, tile, reads, multiprocessors))


def cycles(p: Contraction, tile: Tile, reads: int, multiprocessors: int) -> float:
    """About how long a contraction takes. Args: reads: arrays that results are made of besides
    sums."""
    dtype = factor(p)
    assert dtype is not None
    m, n, batch = (guess(extent_of(axes)) for axes in (p.m, p.n, p.batch))
    parts = parts_of(p, tile, multiprocessors)
    blocks = batch * parts * -(-m // tile.rows) * -(-n // tile.columns)
    steps = -(-guess(extent_of(p.k)) * dtype.itemsize // (DEPTH * parts))
    results = tile.rows * tile.columns
    brought = (tile.rows + tile.columns) * DEPTH / BRINGS
    multiplied = results * DEPTH / (4 * MULTIPLIES)
    product = steps * max(brought, multiplied)
    element = 4 if parts > 1 else p.node.types[0].dtype.itemsize * (1 + reads)
    end = results * element / MOVES
    most = resident_of(p, tile, reads)
    full, rest = divmod(blocks, most * multiprocessors)
    total = full * wave(most, product, end) + wave(-(-rest // multiprocessors), product, end)
    if parts > 1:
        total += LAUNCH + batch * m * n * 4 * parts / (MOVES * multiprocessors)
    return total


def wave(resident: int, product: float, end: float) -> float:
    """The cycles of some blocks at a time of a multiprocessor."""
    return DELAY + max(resident * max(product, end), product + end) if resident else 0
