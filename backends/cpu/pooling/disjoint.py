"""The gradient of a max pool whose windows do not overlap, computed from the pool's input.

Neighbouring windows of a row go side by side in a vector: their elements are loaded as they lie,
one shuffle a tap brings the taps of all windows together, and the results are shuffled back. The
last vector of a row overlaps the one before it, so rows have no scalar rest; it stores the same
numbers again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.dtype import DType, f32, f64, i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import numel

from ...kernels.body.pointwise import less, maximum
from ...kernels.body.scope import Scope
from ...kernels.ir import Const, Expr, KType, Shuffle, binary, load, select, splat, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows

WIDEST_STRIDE = 4  # beyond it, shuffles cost more than they save
MOST_TAPS = 16


def fits_vectors(node: Node) -> bool:
    """Whether a max_pool_input_grad is lowered here; others decompose into positions and a
    scatter."""
    kernel, stride = node.attrs.kernel, node.attrs.stride
    width, out = node.operands[1].shape[-1], node.operands[0].shape[-1]
    if (
        node.types[0].dtype not in (f32, f64)
        or not isinstance(width, int)
        or not isinstance(out, int)
    ):
        return False
    return (
        out > 1
        and stride[-1] <= WIDEST_STRIDE
        and math.prod(kernel) <= MOST_TAPS
        and out * stride[-1] <= width
    )


def lower_max_pool_input_grad(places: Places, node: Node) -> None:
    """One kernel; a task owns rows of windows, or planes where some positions belong to no
    window."""
    g, x = map(places.materialise, node.operands)
    out = places.result_slot(node.result())
    if 0 not in node.types[0].shape:
        WindowGrad(places, node, g, x, out).emit()


class WindowGrad:
    """The kernel."""

    def __init__(self, places: Places, node: Node, g: Slot, x: Slot, out: Slot):
        self.node, self.kernel, self.stride = node, node.attrs.kernel, node.attrs.stride
        self.windows, self.shape = node.operands[0].shape, node.types[0].shape
        self.scope = Scope(places.lowering, node.op.name)
        self.out = self.scope.buffer(out, "write")
        self.g, self.x = self.scope.buffer(g), self.scope.buffer(x)
        self.count, self.step = int(self.windows[-1]), int(self.stride[-1])
        most = max(1, min(self.count, places.lowering.machine.vector_bytes // out.dtype.itemsize))
        self.lanes = 1 << (most.bit_length() - 1)
        self.type = KType(out.dtype, self.lanes)
        # as wide as the elements: masks need no change
        self.places: DType = i32 if out.dtype is f32 else i64
        taps = [*itertools.product(*(range(s) for s in self.stride[:-1]))]
        self.rows = [t for t in taps if all(i < k for i, k in zip(t, self.kernel, strict=False))]
        self.gaps = [t for t in taps if t not in self.rows]

    def emit(self) -> None:
        with self.rows_of_windows() as row:
            *outer, first = self.place(row)
            steps = -(-self.count // self.lanes)
            with self.scope.b.loop(steps, "serial", "block") as block:
                start = binary("min", block * self.lanes, Const(self.count - self.lanes))
                self.windows_at(row, outer, first, self.scope.b.let(start, "o"))
        moved = cost.traffic([*self.node.operands, *self.node.results()])
        self.scope.launch(self.node.op.name, 2 * numel(self.shape), moved)

    @contextmanager
    def rows_of_windows(self) -> Iterator[Expr]:
        """The loop over rows of windows; positions that no window has are filled before."""
        scope, b = self.scope, self.scope.b
        grain = cost.grain([self.node], 8.0)
        per_row = self.count * math.prod(self.stride)
        if all(
            o * s == n
            for o, s, n in zip(self.windows[2:], self.stride, self.shape[2:], strict=True)
        ):
            with task_rows(scope, numel(self.windows[:-1]), per_row, grain) as row:
                yield row
            return
        area, rows = scope.expr(numel(self.shape[2:])), scope.expr(numel(self.windows[2:-1]))
        with task_rows(scope, numel(self.shape[:2]), numel(self.shape[2:]), grain) as plane:
            base = b.let(plane * area, "base")
            with b.loop(area, "vector", "c") as c:
                b.store(self.out, base + c, Const(0.0, KType(self.out.dtype)))
            with b.loop(rows, "serial", "r") as r:
                yield b.let(plane * rows + r, "row")

    def place(self, row: Expr) -> list[Expr]:
        """Plane and outer window indices of a row as positions: each outer axis' first element,
        then flat."""
        b, rest = self.scope.b, row
        at: list[Expr] = []
        for size, step in zip(
            reversed(self.windows[2:-1]), reversed(self.stride[:-1]), strict=True
        ):
            extent = self.scope.expr(size)
            at.insert(0, b.let((rest % extent) * step, "i"))
            rest = b.let(rest // extent, "rest")
        return [rest, *at, Const(0)]

    def position(self, outer: list[Expr], tap: tuple[int, ...], column: Expr) -> Expr:
        """The flat position of an element of x."""
        flat = outer[0]
        for i, offset, size in zip(outer[1:], tap, self.shape[2:-1], strict=True):
            flat = flat * self.scope.expr(size) + (i + offset)
        return flat * int(self.shape[-1]) + column

    def windows_at(self, row: Expr, outer: list[Expr], first: Expr, o: Expr) -> None:
        """The windows ``o .. o + lanes`` of a row."""
        b, k = self.scope.b, self.kernel[-1]
        column = b.let(first + o * self.step, "column")
        at = {
            tap: b.let(self.position(outer, tap, column), "at") for tap in (*self.rows, *self.gaps)
        }
        place = self.search([at[tap] for tap in self.rows])
        g = b.let(load(self.g, row * self.count + o, self.lanes), "g")
        zero = splat(Const(0.0, KType(self.out.dtype)), self.lanes)
        for number, tap in enumerate(self.rows):
            taps = [
                select(binary("eq", place, self.number(number * k + q)), g, zero) for q in range(k)
            ]
            taps = [b.let(t, "part") for t in taps] + [zero] * (self.step - k)
            b.store(self.out, at[tap], self.interleaved(taps))
        for tap in self.gaps:
            b.store(
                self.out, at[tap], splat(Const(0.0, KType(self.out.dtype)), self.lanes * self.step)
            )

    def number(self, value: int) -> Expr:
        return splat(Const(value, KType(self.places)), self.lanes)

    def search(self, rows: list[Expr]) -> Expr:
        """Which taps are the maxima of the windows; the first of equal ones, the last NaN."""
        b = self.scope.b
        best: Expr | None = None
        place = self.number(0)
        for number, at in enumerate(rows):
            line = b.let(load(self.x, at, self.lanes * self.step), "line")
            for q in range(self.kernel[-1]):
                x = b.let(self.tap(line, q), "tap")
                if best is None:
                    best = x
                    continue
                taken = b.let(binary("or", less(best, x), unary("isnan", x)), "taken")
                best = b.let(maximum(best, x), "best")
                place = b.let(
                    select(taken, self.number(number * self.kernel[-1] + q), place), "place"
                )
        return place

    def tap(self, line: Expr, q: int) -> Expr:
        if self.step == 1:
            return line
        return Shuffle(line, line, tuple(range(q, self.lanes * self.step, self.step)), self.type)

    def interleaved(self, taps: list[Expr]) -> Expr:
        """``taps[0][0], taps[1][0], ..., taps[0][1], ...``"""
        if len(taps) == 1:
            return taps[0]
        n, b = self.lanes, self.scope.b
        wide = KType(self.type.dtype, 2 * n)
        pairs = [*taps, *[taps[-1]] * (len(taps) % 2)]
        joined = [
            b.let(Shuffle(pairs[i], pairs[i + 1], tuple(range(2 * n)), wide), "pair")
            for i in range(0, len(pairs), 2)
        ]
        lanes = tuple(q * n + i for i in range(n) for q in range(len(taps)))
        return Shuffle(joined[0], joined[-1], lanes, KType(self.type.dtype, n * len(taps)))
