"""Maxima over windows two wide, two apart and without padding: the pool of most small networks.

Rows of such a network are narrower than the loops that a vectoriser makes worthwhile, so the
vectors are written out: of each row that a window covers two vectors of neighbours, whose even and
odd elements are the two columns of a vector of windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from graphtorch.ir.dtype import i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import numel

from ...kernels.body.access import lane_mask, store_lanes
from ...kernels.body.pointwise import maximum, wide
from ...kernels.body.scope import Scope
from ...kernels.body.windows import beats
from ...kernels.ir import (
    Buffer,
    Const,
    Expr,
    KType,
    Lanes,
    Shuffle,
    binary,
    cast,
    load,
    select,
    splat,
)
from ...kernels.program.program import Slot
from .. import cost
from ..contraction.schedule import Chunk, chunks
from ..loops.places import Places
from ..loops.tasks import task_rows

MOST_ROWS = 8  # rows of a window that are written out
# vectors of results in a row that are written out; longer rows are for the vectoriser
MOST_CHUNKS = 8


def is_pair_pool(node: Node) -> bool:
    """Whether a max_pool is lowered here."""
    attrs, x, out = node.attrs, node.operands[0], node.types[0].shape
    return (
        node.op.name == "max_pool"
        and (attrs.kernel[-1], attrs.stride[-1], attrs.dilation[-1]) == (2, 2, 1)
        and not any(attrs.padding)
        and not attrs.ceil_mode
        and wide(x.dtype) is x.dtype
        and x.dtype.itemsize in (4, 8)
        and isinstance(out[-1], int)
        and 1 < out[-1] <= MOST_CHUNKS * 64 // x.dtype.itemsize
        and math.prod(attrs.kernel[:-1]) <= MOST_ROWS
    )


class PairPool:
    """The kernel: a row of windows at a time, their places as well where somebody reads them."""

    def __init__(self, places: Places, node: Node, source: Slot, results: dict[int, Slot]):
        self.node, self.attrs, self.x, self.shape = (
            node,
            node.attrs,
            node.operands[0],
            node.types[0].shape,
        )
        self.scope = Scope(places.lowering, node.op.name)
        self.machine = places.lowering.machine
        self.outputs = {i: self.scope.buffer(s, "write") for i, s in results.items()}
        self.source = self.scope.buffer(source)
        self.moved = self.x.type.numel * self.x.dtype.itemsize + sum(
            numel(s.shape) * s.dtype.itemsize for s in results.values()
        )

    def emit(self) -> None:
        scope, b, width = self.scope, self.scope.b, int(self.shape[-1])
        work = width * math.prod(self.attrs.kernel)
        with task_rows(scope, numel(self.shape[:-1]), work, cost.grain([self.node], 2.0)) as row:
            plane, rows = self._rows(row)
            out = b.let(row * width, "out")
            for chunk in chunks(width, self.machine.lanes(self.x.dtype.itemsize)):
                self._chunk(chunk, plane, rows, out + chunk.offset)
        scope.launch(
            self.node.op.name, numel(self.shape) * math.prod(self.attrs.kernel), self.moved
        )

    def _rows(self, row: Expr) -> tuple[Expr, list[Expr]]:
        """Where the plane of a row of results starts, and where in it the rows of its windows
        do."""
        b, rest = self.scope.b, row
        index: list[Expr] = []
        for size in reversed(self.shape[2:-1]):
            extent = self.scope.expr(size)
            index.insert(0, b.let(rest % extent, "o"))
            rest = b.let(rest // extent, "rest")
        sizes = [self.scope.expr(s) for s in self.x.shape[2:]]
        area = self.scope.expr(numel(self.x.shape[2:]))
        starts = []
        for tap in itertools.product(*map(range, self.attrs.kernel[:-1])):
            at: Expr = Const(0)
            steps = zip(index, tap, self.attrs.stride, self.attrs.dilation, sizes, strict=False)
            for o, k, s, d, size in steps:
                at = at * size + (o * s + k * d)
            starts.append(b.let(at * sizes[-1], "start"))
        return b.let(rest * area, "plane"), starts

    def _chunk(self, chunk: Chunk, plane: Expr, rows: list[Expr], out: Expr) -> None:
        b, first = self.scope.b, 2 * chunk.offset
        best: Expr | None = None
        offset: Expr = Const(0, KType(i32, chunk.lanes))
        for start in rows:
            for column, x in enumerate(self._columns(chunk, plane + start + first)):
                if best is None:
                    best = x
                    continue
                if 1 in self.outputs:
                    here = splat(cast(binary("sub", start + column, rows[0]), i32), chunk.lanes)
                    offset = b.let(select(b.let(beats(x, best), "taken"), here, offset), "offset")
                best = b.let(maximum(best, x), "best")
        assert best is not None
        self._store(0, out, best, chunk)
        if 1 in self.outputs:
            like = KType(i64, chunk.lanes)
            lane: Expr = Lanes(like) if chunk.lanes > 1 else Const(0)
            place = binary(
                "add", splat(rows[0] + first, chunk.lanes), binary("mul", lane, Const(2, like))
            )
            self._store(1, out, binary("add", place, cast(offset, i64)), chunk)

    def _columns(self, chunk: Chunk, at: Expr) -> Iterator[Expr]:
        """The left, then the right elements of a vector of windows in the row at `at`."""
        b, lanes = self.scope.b, chunk.lanes
        if lanes == 1:
            yield from (b.let(load(self.source, at + column), "x") for column in range(2))
            return
        halves = [
            b.let(_load(self.source, at + i * lanes, 2 * chunk.valid - i * lanes, lanes), "x")
            for i in range(2)
        ]
        for column in range(2):
            picked = tuple(range(column, 2 * lanes, 2))
            yield b.let(Shuffle(halves[0], halves[1], picked, KType(self.x.dtype, lanes)), "x")

    def _store(self, result: int, at: Expr, value: Expr, chunk: Chunk) -> None:
        if result in self.outputs:
            store_lanes(
                self.scope.b, self.outputs[result], at, value, chunk.valid, self.machine.masks
            )


def _load(source: Buffer, at: Expr, valid: int, lanes: int) -> Expr:
    """`lanes` elements, of which the first `valid` may be read."""
    if valid <= 0:
        return Const(0, KType(source.dtype, lanes))
    return load(source, at, lanes, lane_mask(valid, lanes))
