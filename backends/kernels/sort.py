"""Sorting rows: a stable bottom-up merge sort of keys with their positions, NaN as the greatest key.

Each row is copied to contiguous memory and merged in runs of 1, 2, 4, ... between two buffers. The merge has no
branch on the data: which run gives the next element is a select.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphtorch.ir.dtype import boolean, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, bounds, numel

from . import cost
from .evaluate import Evaluator
from .ir import Buffer, Const, Expr, KType, binary, cast, load, select, unary
from .loops import task_rows
from .pointwise import less, logical_not
from .scope import Scope

if TYPE_CHECKING:  # stages.py runs what is defined here
    from .stages import Stages

Run = tuple[Buffer, Buffer]  # keys, positions


def before(a: Expr, b: Expr, descending: bool) -> Expr:
    """Whether a comes strictly before b."""
    if descending:
        a, b = b, a
    smaller = less(a, b)
    if not a.type.dtype.is_floating_point:
        return smaller
    return binary("or", smaller, binary("and", unary("isnan", b), logical_not(unary("isnan", a))))


class SortKernel:
    """The kernel of one sort."""

    def __init__(self, stages: Stages, node: Node):
        self.node = node
        self.x = node.operands[0]
        self.dim = node.attrs.dim
        self.length = self.x.shape[self.dim] if self.x.rank else 1
        self.scope = Scope(stages.lowering, "sort")
        outputs = [stages.result_slot(v) for v in node.results()]
        self.outputs = [self.scope.buffer(slot, "write") for slot in outputs]
        count = numel(self.x.shape)
        self.runs: list[Run] = []
        for _ in range(2):
            slots = stages.lowering.temporary(self.x.dtype, (count,)), stages.lowering.temporary(i64, (count,))
            keys, places = (self.scope.buffer(s, "readwrite") for s in slots)
            self.runs.append((keys, places))
        self.evaluator = Evaluator(self.scope, stages.leaves())

    def emit(self) -> None:
        scope = self.scope
        others = tuple(d for a, d in enumerate(self.x.shape) if a != self.dim)
        self.index = tuple(scope.space.variable(extent) for extent in self.x.shape)
        axes = [a for a in range(self.x.rank) if a != self.dim and self.x.shape[a] != 1]
        with task_rows(scope, numel(others), self.length * 16, cost.grain([self.node], 8.0)) as row:
            rest = row
            for axis in reversed(axes):
                size = scope.expr(self.x.shape[axis])
                scope.space.bind(self.index[axis], rest if axis == axes[0] else scope.b.let(rest % size, "i"),
                                 scope.b.depth)
                rest = rest if axis == axes[0] else scope.b.let(rest // size, "rest")
            self.base = scope.b.let(row * scope.expr(self.length), "base")
            self.n = scope.expr(self.length)
            self.sort_row()
        scope.launch("sort", numel(self.x.shape) * 20, cost.traffic([self.x, *self.node.results()]))

    def sort_row(self) -> None:
        b = self.scope.b
        keys, places = self.runs[0]
        with self.scope.loop(self.length, variable=self.along()) as k:
            at = b.let(self.base + self.scope.expr(k), "at")
            b.store(keys, at, self.evaluator.at(self.x, self.index))
            b.store(places, at, self.scope.expr(k))
        passes = max(bounds(self.length)[1] - 1, 0).bit_length()
        flipped = b.var(Const(False, KType(boolean)), "flipped")
        width = b.var(Const(1), "width")
        with b.loop(passes, "serial", "level"), b.when(binary("lt", width, self.n)):
            for state, (source, target) in enumerate((self.runs, self.runs[::-1])):
                with b.when(binary("eq", flipped, Const(bool(state), KType(boolean)))):
                    self.merge_runs(source, target, width)
            b.assign(flipped, logical_not(flipped))
            b.assign(width, binary("add", width, width))
        self.store_row(flipped)

    def along(self) -> Dim:
        return self.index[self.dim] if self.x.rank else 0

    def merge_runs(self, source: Run, target: Run, width: Expr) -> None:
        b = self.scope.b
        with b.loop(self.n, "serial", "start", 0, binary("add", width, width)) as start:
            middle = b.let(self.base + binary("min", binary("add", start, width), self.n), "middle")
            end = b.let(self.base + binary("min", binary("add", start, binary("add", width, width)), self.n), "end")
            i = b.var(binary("add", self.base, start), "left")
            j = b.var(middle, "right")
            with b.loop(end, "serial", "k", binary("add", self.base, start)) as k:
                limit = binary("sub", end, Const(1))
                left = b.let(load(source[0], binary("min", i, limit)), "x")
                right = b.let(load(source[0], binary("min", j, limit)), "y")
                first = binary("and", binary("lt", j, end), before(right, left, self.node.attrs.descending))
                from_right = b.let(binary("or", binary("ge", i, middle), first), "from_right")
                b.store(target[0], k, select(from_right, right, left))
                b.store(target[1], k, load(source[1], select(from_right, j, i)))
                step = b.let(cast(from_right, i64), "step")
                b.assign(j, binary("add", j, step))
                b.assign(i, binary("add", i, binary("sub", Const(1), step)))

    def store_row(self, flipped: Expr) -> None:
        b, scope = self.scope.b, self.scope
        for state, (keys, places) in enumerate(self.runs):
            with b.when(binary("eq", flipped, Const(bool(state), KType(boolean)))), \
                    scope.loop(self.length, variable=self.along()) as k:
                at = b.let(self.base + scope.expr(k), "at")
                out = b.let(scope.expr(scope.space.linear(self.index, self.x.shape)), "out")
                b.store(self.outputs[0], out, load(keys, at))
                b.store(self.outputs[1], out, load(places, at))


def lower_sort(stages: Stages, node: Node) -> None:
    """Values in order along a dimension and their positions."""
    if 0 in node.operands[0].shape:
        for value in node.results():
            stages.result_slot(value)
    else:
        SortKernel(stages, node).emit()
