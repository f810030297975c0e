"""Rows of attention's operands as tiles of shared memory, and their products by groups of four
warps (`MultiplyTiles`), for GPUs of compute capability 9.0.

A group has 64 of the block's own rows. Tensor cores read queries, keys and values from shared
memory by themselves; weights stay in the registers that scores were computed in.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from graphtorch.ir.dtype import DType, boolean

from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Source, stride
from ...kernels.ir import (
    DEPTH,
    FRAGMENT,
    TILE,
    Buffer,
    Const,
    Copy,
    Expr,
    Fragment,
    KType,
    MultiplyTiles,
    Name,
    Tile,
    binary,
    load,
)
from .panels import Rows, Sizes, WarpSums
from .parts import COPIED, both, is_multiple, parts_along, parts_fit
from .warpgroup_slices import PARTS
from .warpgroup_tiles import GROUP

NEAR = COPIED // 2  # elements of 2 bytes of a copy
LINE = DEPTH // 2  # and of a line


class TilePanel(Rows):
    """`rows` rows of an operand in shared memory, of as many stages, in lines of 64 features;
    features beyond the last are 0.

    The lines of the first features of `block` rows come first, then those of the next features,
    then the next rows. Lines lie as a `Tile` has them: of rows, or turned of features.
    """

    def __init__(
        self,
        e: Scope,
        thread: Name,
        threads: int,
        source: Source,
        batch: Sequence[Axis],
        row: Axis,
        feature: Axis,
        rows: int,
        stages: int,
        block: int,
        hint: str,
    ):
        super().__init__(e, source, row, feature, rows, hint)
        b = e.b
        self.width, self.block = -(-self.depth // LINE) * LINE, block
        self.room = rows * self.width
        self.shared = b.shared(source.dtype, stages * self.room, hint, 8 * DEPTH)
        self.hop = threads // PARTS  # lines from one item of a thread to its next
        self.count = self.room // LINE // self.hop
        part = b.let(thread % PARTS, "part")
        self.line, self.inner = b.let(thread // PARTS, "line"), b.let(part * NEAR, "inner")
        swizzled = binary("xor", part, self.line % PARTS) * NEAR
        self.begin = b.let(self.line * LINE + swizzled, "begin")
        self.all_rows = is_multiple(row.extent, rows)
        sizes = parts_along(source, feature, (*batch, row, feature))
        self.in_parts = sizes is not None
        self.aligned = None if sizes is None else parts_fit(e, self.buffer, sizes)

    def fetch(self, base: Expr, first: Expr, count: Expr, stage: Expr | int) -> None:
        """Begin to bring the rows from `first` on; those from `count` on are 0."""
        b = self.e.b
        item = functools.partial(self._item, base, first, count)
        begin = b.let(stage * self.room + self.begin, "begin")
        if not self.in_parts:
            self._elements(item, begin)
        elif self.aligned is None:
            self._copies(item, begin)
        else:
            with b.when(self.aligned):
                self._copies(item, begin)
            with b.otherwise():
                self._elements(item, begin)

    def _item(
        self, base: Expr, first: Expr, count: Expr, i: Expr, u: Expr | int
    ) -> tuple[Expr, Expr | None]:
        """Where element `u` of the thread's item `i` lies in memory, and whether it is inside;
        None: it is."""
        b, e, address, across = self.e.b, self.e, self.source.address, self.width // LINE
        block, within = i * self.hop // self.block, i * self.hop % self.block
        row = b.let(first + (block // across * self.block + within + self.line), "row")
        feature = b.let(block % across * LINE + self.inner + u, "feature")
        hop, step = (e.expr(stride(address, a)) for a in (self.row, self.feature))
        tests = [] if self.all_rows else [binary("lt", row, count)]
        if self.depth < self.width:
            tests.append(binary("lt", feature, Const(self.depth)))
        inside = both(tests)
        where = b.let(base + (row * hop + feature * step), "where")
        return where, None if inside is None else b.let(inside, "inside")

    def _copies(self, item: functools.partial[tuple[Expr, Expr | None]], begin: Expr) -> None:
        b, always = self.e.b, Const(True, KType(boolean))
        with b.loop(self.count, "unroll") as i:
            where, inside = item(i, 0)
            at, mask = begin + i * (self.hop * LINE), always if inside is None else inside
            b.emit(Copy(self.shared, at, self.buffer, where, NEAR, mask, aligned=True))

    def _elements(self, item: functools.partial[tuple[Expr, Expr | None]], begin: Expr) -> None:
        b = self.e.b
        with b.loop(self.count, "rolled") as i, b.loop(NEAR, "unroll", "u") as u:
            where, inside = item(i, u)
            value = load(self.buffer, where, mask=inside)
            b.store(self.shared, begin + i * (self.hop * LINE) + u, value)


class TileProducts(WarpSums):
    """Products of 2-byte floats by groups of four warps; none is there before it is settled.

    A warp has 16 rows.
    """

    def __init__(self, e: Scope, thread: Name, sizes: Sizes, dtype: DType):
        super().__init__(e, thread, sizes, dtype)
        self.group = e.b.let(thread // GROUP, "group")
        self.weighing = sizes.others // TILE  # products that `weigh` begins

    def multiply(self, sums: Buffer, left: TilePanel, right: TilePanel, stage: Expr) -> None:
        b = self.e.b
        mine = b.let(self.group * (TILE * left.width), "mine")
        other = b.let(stage * right.room, "other")
        for i in range(left.width // LINE):
            x = Tile(left.shared, mine + i * (TILE * LINE), TILE, False)
            y = Tile(right.shared, other + i * (right.rows * LINE), right.rows, False)
            b.emit(MultiplyTiles(self.dtype, sums, x, y, fresh=i == 0))

    def weigh(self, sums: Buffer, weights: Buffer, right: TilePanel, stage: Expr) -> None:
        b = self.e.b
        other = b.let(stage * right.room, "other")
        for i in range(self.weighing):
            x = Fragment(weights, Const(i * FRAGMENT))
            y = Tile(right.shared, other + i * (TILE * right.width), right.width, True)
            b.emit(MultiplyTiles(self.dtype, sums, x, y))


__all__ = ["LINE", "TilePanel", "TileProducts"]
