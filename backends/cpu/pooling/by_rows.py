"""Pools row by row, for windows that overlap or reach over the edge of the input.

A maximum or a sum over a window is separable: of the rows it covers first, which is a loop over
neighbours in memory, then of neighbours in the line that this leaves. The line is padded, so no
element is tested for being inside. Maxima over windows two wide are pairs.py's; other windows of
few elements without padding are left to windows.py, which computes each result from the elements of
its window.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

from graphtorch.ir.dtype import DType, i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, bounds, numel

from ...kernels.body.pointwise import less, logical_not, maximum, number, wide
from ...kernels.body.scope import Scope
from ...kernels.body.windows import cast_count, dilation_of, lowest
from ...kernels.ir import Buffer, Const, Expr, KType, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows
from ..whole.lines import is_used
from .pairs import PairPool, is_pair_pool

LONGEST_LINE = 1 << 13  # elements of a line kept in scratch
MANY_TAPS = 6  # from so many elements of a window on, rows are worth it without padding too
WRITTEN_OUT = 16  # most taps along a line, or rows, that are not a loop


def by_rows(node: Node) -> bool:
    """Whether a max_pool or avg_pool is lowered here."""
    if node.op.name not in ("max_pool", "avg_pool"):
        return False
    if is_pair_pool(node):
        return True
    attrs = node.attrs
    width, out = node.operands[0].shape[-1], node.types[0].shape[-1]
    if not isinstance(width, int) or not isinstance(out, int) or attrs.kernel[-1] > WRITTEN_OUT:
        return False
    overlaps = math.prod(attrs.kernel) >= MANY_TAPS and any(
        k > s for k, s in zip(attrs.kernel, attrs.stride, strict=True)
    )
    return (any(attrs.padding) or attrs.ceil_mode or overlaps) and line_length(node) <= LONGEST_LINE


def line_length(node: Node) -> int:
    """Positions along the last dimension from the first window's start to the last one's end."""
    attrs, out = node.attrs, node.types[0].shape[-1]
    assert isinstance(out, int)
    return max(0, out - 1) * attrs.stride[-1] + (attrs.kernel[-1] - 1) * dilation_of(node)[-1] + 1


def lower_pool(places: Places, node: Node) -> None:
    """One kernel for one pool; indices that nobody reads are not computed."""
    source = places.materialise(node.operands[0])
    wanted = {
        i: places.result_slot(r)
        for i, r in enumerate(node.results())
        if i == 0 or is_used(places, r)
    }
    if 0 in node.types[0].shape:
        return
    if is_pair_pool(node):
        PairPool(places, node, source, wanted).emit()
        return
    rows: type[PoolRows] = (
        MaxPlaces if 1 in wanted else MaxPool if node.op.name == "max_pool" else AvgPool
    )
    rows(places, node, source, wanted).emit()


class PoolRows(ABC):
    """The kernel: `reset` and `fold` make the line of a row of results, `across` its results."""

    def __init__(self, places: Places, node: Node, source: Slot, results: dict[int, Slot]):
        self.node, self.attrs = node, node.attrs
        self.x, self.shape = node.operands[0], node.types[0].shape
        self.scope = Scope(places.lowering, node.op.name)
        self.outputs = {i: self.scope.buffer(s, "write") for i, s in results.items()}
        self.source = self.scope.buffer(source)
        self.dtype = wide(self.x.dtype)
        self.length = line_length(node)
        width, pad = self.x.shape[-1], self.attrs.padding[-1]
        assert isinstance(width, int)
        # columns of the input in the line, from `pad` on
        self.covered = min(width, self.length - pad)
        self.moved: Dim = self.x.type.numel * self.x.dtype.itemsize + sum(
            numel(s.shape) * s.dtype.itemsize for s in results.values()
        )

    @property
    @abstractmethod
    def floor(self) -> Const:
        """The value of what is outside the input."""

    def lines(self) -> None:
        """Declare the scratch lines."""
        self.line = self.scope.b.scratch(self.dtype, self.length, "line")

    def reset(self, at: Expr) -> None:
        self.scope.b.store(self.line, at, self.floor)

    def fold(self, x: Expr, at: Expr, position: Expr) -> None:
        """Take element `x`, whose position in its plane is `position`, into the line at `at`."""
        self.scope.b.store(self.line, at, self.combine(load(self.line, at), x))

    @abstractmethod
    def combine(self, a: Expr, x: Expr) -> Expr:
        """Two values of a window as one."""

    def across(self, column: Expr, out: Expr) -> None:
        """The result in `column`, stored at `out`."""
        b = self.scope.b
        total = self.tap(self.line, column, 0)
        for k in range(1, self.attrs.kernel[-1]):
            total = b.let(self.combine(total, self.tap(self.line, column, k)), "total")
        b.store(self.outputs[0], out, self.finished(total, column))

    def finished(self, total: Expr, column: Expr) -> Expr:
        return cast(total, self.x.dtype)

    def tap(self, line: Buffer, column: Expr, k: int) -> Expr:
        at = column * self.attrs.stride[-1] + k * dilation_of(self.node)[-1]
        return self.scope.b.let(load(line, at), "tap")

    # The loops ------------------------------------------------------------------------------------

    def emit(self) -> None:
        scope, b = self.scope, self.scope.b
        rows, taps = numel(self.shape[:-1]), math.prod(self.attrs.kernel[:-1])
        work = self.covered * (taps + 1) + int(self.shape[-1]) * self.attrs.kernel[-1]
        with task_rows(scope, rows, work, cost.grain([self.node], 4.0)) as row:
            self.lines()
            # what lies outside the input stays as it is now
            with b.loop(self.length, "vector", "c") as c:
                self.reset(c)
            at = self.row_index(row)
            self.plane = at[0]
            self.starts = [
                b.let(o * s - p, "start")
                for o, s, p in zip(at[1:], self.attrs.stride, self.attrs.padding, strict=False)
            ]
            self.fold_rows()
            first = b.let(row * int(self.shape[-1]), "out")
            with b.loop(int(self.shape[-1]), "vector", "c") as c:
                self.across(c, first + c)
        scope.launch(
            self.node.op.name, numel(self.shape) * math.prod(self.attrs.kernel), self.moved
        )

    def row_index(self, row: Expr) -> list[Expr]:
        """Plane and outer spatial indices of a row of results."""
        b, rest = self.scope.b, row
        index: list[Expr] = []
        for size in reversed(self.shape[2:-1]):
            extent = self.scope.expr(size)
            index.insert(0, b.let(rest % extent, "o"))
            rest = b.let(rest // extent, "rest")
        return [rest, *index]

    def fold_rows(self) -> None:
        """All rows of the window in one go where all are inside the input, else one by one."""
        b, sizes = self.scope.b, self.x.shape[2:-1]
        reach = [
            (k - 1) * d for k, d in zip(self.attrs.kernel, dilation_of(self.node), strict=True)
        ][:-1]
        taps = list(itertools.product(*map(range, self.attrs.kernel[:-1])))
        if len(taps) > WRITTEN_OUT:
            self.fold_inside_rows()
            return
        whole: Expr | None = None
        for start, size, last in zip(self.starts, sizes, reach, strict=True):
            here = binary(
                "and",
                binary("ge", start, Const(0)),
                binary("lt", start + last, self.scope.expr(size)),
            )
            whole = here if whole is None else binary("and", whole, here)
        if whole is None:
            self.fold_row([[]])
            return
        with b.when(whole):
            self.fold_row(
                [
                    [
                        start + k * d
                        for start, k, d in zip(
                            self.starts, tap, dilation_of(self.node), strict=False
                        )
                    ]
                    for tap in taps
                ]
            )
        with b.otherwise():
            with b.loop(self.covered, "vector", "c") as c:
                self.reset(c + self.attrs.padding[-1])
            self.fold_inside_rows()

    def fold_inside_rows(self, fixed: tuple[Expr, ...] = ()) -> None:
        """Loops over the taps of the outer dimensions that are inside the input."""
        b, axis = self.scope.b, len(fixed)
        if axis == len(self.starts):
            self.fold_row([list(fixed)], fresh=False)
            return
        start, d = self.starts[axis], dilation_of(self.node)[axis]
        size, k = self.scope.expr(self.x.shape[2 + axis]), self.attrs.kernel[axis]
        low = binary("max", (Const(d - 1) - start) // d, Const(0))
        high = binary("min", (size - start + (d - 1)) // d, Const(k))
        with b.loop(b.let(high, "high"), "serial", "k", b.let(low, "low")) as tap:
            self.fold_inside_rows((*fixed, b.let(start + tap * d, "i")))

    def fold_row(self, rows: list[list[Expr]], fresh: bool = True) -> None:
        """Fold the input rows at `rows` into the line; a `fresh` line has nothing to keep yet."""
        b = self.scope.b
        bases = [b.let(self.position_of(at), "flat") for at in rows]
        area = self.scope.expr(numel(self.x.shape[2:]))
        plane = b.let(self.plane * area, "plane")
        with b.loop(self.covered, "vector", "c") as c:
            at = c + self.attrs.padding[-1]
            if fresh:
                self.reset(at)
            for base in bases:
                x = b.let(cast(load(self.source, plane + base + c), self.dtype), "x")
                self.fold(x, at, base + c)

    def position_of(self, at: list[Expr]) -> Expr:
        """The position in its plane of the first element of the row at spatial index `at`."""
        flat: Expr = Const(0)
        for i, size in zip([*at, Const(0)], self.x.shape[2:], strict=True):
            flat = flat * self.scope.expr(size) + i
        return flat


class MaxPool(PoolRows):
    """The maximum; NaN where there is one."""

    @property
    def floor(self) -> Const:
        return lowest(KType(self.dtype))

    def combine(self, a: Expr, x: Expr) -> Expr:
        return maximum(a, x)


class MaxPlaces(MaxPool):
    """The maximum and its position: the first of equal ones, but the last NaN, in row-major
    order."""

    def lines(self) -> None:
        super().lines()
        self.places: DType = i32 if bounds(numel(self.x.shape[2:]))[1] < 1 << 31 else i64
        self.nowhere = Const((1 << self.places.bits - 1) - 1, KType(self.places))
        self.where = self.scope.b.scratch(self.places, self.length, "where")

    def reset(self, at: Expr) -> None:
        super().reset(at)
        self.scope.b.store(self.where, at, self.nowhere)

    def fold(self, x: Expr, at: Expr, position: Expr) -> None:
        b = self.scope.b
        best, where = b.let(load(self.line, at), "best"), b.let(load(self.where, at), "at_best")
        better = binary("or", less(best, x), binary("eq", where, self.nowhere))
        if self.dtype.is_floating_point:
            better = binary("or", better, unary("isnan", x))
        taken = b.let(better, "taken")
        b.store(self.line, at, select(taken, x, best))
        b.store(self.where, at, select(taken, cast(position, self.places), where))

    def across(self, column: Expr, out: Expr) -> None:
        b = self.scope.b
        best, where = self.tap(self.line, column, 0), self.tap(self.where, column, 0)
        for k in range(1, self.attrs.kernel[-1]):
            x, place = self.tap(self.line, column, k), self.tap(self.where, column, k)
            taken = b.let(self.beats(x, place, best, where), "taken")
            best, where = (
                b.let(select(taken, x, best), "best"),
                b.let(select(taken, place, where), "at_best"),
            )
        b.store(self.outputs[0], out, cast(best, self.x.dtype))
        found = select(binary("eq", where, self.nowhere), number(0, where), where)
        b.store(self.outputs[1], out, cast(found, i64))

    def beats(self, x: Expr, place: Expr, best: Expr, where: Expr) -> Expr:
        """Whether `x` at `place` comes before the best one so far: columns do not come in row-major
        order."""
        wins = binary(
            "or", less(best, x), binary("and", binary("eq", x, best), binary("lt", place, where))
        )
        if not self.dtype.is_floating_point:
            return wins
        later = binary("or", logical_not(unary("isnan", best)), binary("gt", place, where))
        return binary("or", wins, binary("and", unary("isnan", x), later))


class AvgPool(PoolRows):
    """The sum of a window divided by what the op says."""

    @property
    def floor(self) -> Const:
        return Const(0.0, KType(self.dtype))

    def combine(self, a: Expr, x: Expr) -> Expr:
        return binary("add", a, x)

    def finished(self, total: Expr, column: Expr) -> Expr:
        count = self.count(column)
        return cast(binary("div", total, cast_count(count, total)), self.x.dtype)

    def count(self, column: Expr) -> Expr:
        """Elements of the window, or the fixed divisor."""
        if self.attrs.divisor is not None:
            return Const(self.attrs.divisor)
        total: Expr = Const(1)
        starts = [*self.starts, column * self.attrs.stride[-1] - self.attrs.padding[-1]]
        for axis, (size, out, start) in enumerate(
            zip(self.x.shape[2:], self.shape[2:], starts, strict=True)
        ):
            total = total * extent_from(self.scope, self.attrs, axis, size, out, start)
        return total


def window_extent(scope: Scope, attrs: object, axis: int, size: Dim, out: Dim, o: Expr) -> Expr:
    """Elements of window `o` of `out` along a dimension of `size`, as a divisor counts them."""
    return extent_from(scope, attrs, axis, size, out, o * attrs.stride[axis] - attrs.padding[axis])  # type: ignore[attr-defined]


def extent_from(scope: Scope, attrs: object, axis: int, size: Dim, out: Dim, start: Expr) -> Expr:
    """The same for a window given by its first position."""
    fields = ("kernel", "padding", "stride", "count_include_pad")
    k, pad, stride, include = (getattr(attrs, name) for name in fields)
    fits = bounds(size + 2 * pad[axis] - k[axis] - (out - 1) * stride[axis])[0] >= 0
    if fits and (include or pad[axis] == 0):
        return Const(k[axis])
    limit = scope.expr(size)
    stop = binary("min", start + k[axis], limit + pad[axis])
    if not include:
        start, stop = binary("max", start, Const(0)), binary("min", stop, limit)
    return binary("max", stop - start, Const(1))
