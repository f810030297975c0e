"""Gradients of pools that look at more than one window: each task owns planes or rows of the
result.

The gradient of a max pool adds at positions that are data, plane by plane. That of an average pool
sums the shares of the windows over a row into a line, then spreads the line along the row, which is
a loop over neighbours too: position ``u * stride + r`` has the shares of windows u, u - 1, ... that
reach so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, numel

from ...kernels.body.pointwise import logical_not, wide
from ...kernels.body.scope import Scope, ceildiv
from ...kernels.body.windows import cast_count
from ...kernels.ir import Buffer, Const, Expr, KType, binary, cast, load
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows
from .by_rows import LONGEST_LINE, WRITTEN_OUT, window_extent


def lower_max_pool_grad(places: Places, node: Node) -> None:
    """Each g added at its index in its plane; 16-bit floats are summed in f32."""
    g, indices = map(places.materialise, node.operands)
    out = places.result_slot(node.result())
    if 0 in node.types[0].shape:
        return
    dtype = wide(out.dtype)
    sums = out if dtype is out.dtype else places.lowering.temporary(dtype, out.shape)
    PlaneSums(places, node, g, indices, sums, out).emit()


class PlaneSums:
    """The kernel of the gradient of a max pool."""

    def __init__(self, places: Places, node: Node, g: Slot, indices: Slot, sums: Slot, out: Slot):
        self.node = node
        self.scope = Scope(places.lowering, node.op.name)
        self.sums = self.scope.buffer(sums, "readwrite")
        self.out = self.scope.buffer(out, "readwrite" if sums is out else "write")
        self.g, self.indices = self.scope.buffer(g), self.scope.buffer(indices)
        self.windows: Dim = numel(node.operands[0].shape[2:])
        self.area: Dim = numel(node.types[0].shape[2:])
        self.site = places.lowering.fail_site(
            node, f"an index is out of bounds for {self.area} positions"
        )

    def emit(self) -> None:
        scope, b = self.scope, self.scope.b
        planes = numel(self.node.types[0].shape[:2])
        with task_rows(
            scope, planes, self.windows * 4 + self.area, cost.grain([self.node], 4.0)
        ) as plane:
            area = scope.expr(self.area)
            base = b.let(plane * area, "base")
            zero = 0.0 if self.sums.dtype.is_floating_point else 0
            with b.loop(area, "vector", "c") as c:
                b.store(self.sums, base + c, Const(zero, KType(self.sums.dtype)))
            first = b.let(plane * scope.expr(self.windows), "first")
            with b.loop(scope.expr(self.windows), "serial", "o") as o:
                self.add(base, area, first + o)
            if self.sums is not self.out:
                with b.loop(area, "vector", "c") as c:
                    b.store(self.out, base + c, cast(load(self.sums, base + c), self.out.dtype))
        operands = cost.traffic(self.node.operands)
        scope.launch(
            self.node.op.name, self.windows * planes, operands + cost.traffic(self.node.results())
        )

    def add(self, base: Expr, area: Expr, window: Expr) -> None:
        b = self.scope.b
        raw = b.let(load(self.indices, window), "raw")
        valid = b.let(binary("lt_u", raw, area), "valid")
        self.scope.fails(logical_not(valid), self.site)
        with b.when(valid):
            at = b.let(base + raw, "at")
            x = cast(load(self.g, window), self.sums.dtype)
            b.store(self.sums, at, binary("add", load(self.sums, at), x))


def grad_by_rows(node: Node) -> bool:
    """Whether an avg_pool_grad is lowered here: windows overlap or reach over the edge."""
    attrs = node.attrs
    width, windows = attrs.spatial[-1], node.operands[0].shape[-1]
    if (
        not isinstance(width, int)
        or not isinstance(windows, int)
        or attrs.kernel[-1] > WRITTEN_OUT
        or attrs.stride[-1] > WRITTEN_OUT
    ):
        return False
    overlaps = any(k > s for k, s in zip(attrs.kernel, attrs.stride, strict=True))
    return (any(attrs.padding) or attrs.ceil_mode or overlaps) and max(
        width, windows
    ) <= LONGEST_LINE


def lower_avg_pool_grad(places: Places, node: Node) -> None:
    """The transpose of avg_pool, row by row of the result."""
    g = places.materialise(node.operands[0])
    out = places.result_slot(node.result())
    if 0 not in node.types[0].shape:
        Spread(places, node, g, out).emit()


class Spread:
    """The kernel of the gradient of an average pool."""

    def __init__(self, places: Places, node: Node, g: Slot, out: Slot):
        self.node, self.attrs = node, node.attrs
        self.scope = Scope(places.lowering, node.op.name)
        self.out, self.g = self.scope.buffer(out, "write"), self.scope.buffer(g)
        self.dtype = wide(g.dtype)
        self.shape, self.windows = node.types[0].shape, node.operands[0].shape
        self.count, self.width = int(self.windows[-1]), int(self.shape[-1])
        stride, kernel, pad = self.attrs.stride[-1], self.attrs.kernel[-1], self.attrs.padding[-1]
        self.reach = -(-kernel // stride) - 1  # how many windows back still cover a position
        self.steps = -(-(pad + self.width) // stride)

    def emit(self) -> None:
        scope, b, attrs = self.scope, self.scope.b, self.attrs
        work = (self.count + self.width) * (2 + len(attrs.kernel))
        with task_rows(scope, numel(self.shape[:-1]), work, cost.grain([self.node], 4.0)) as row:
            length = max(self.steps, self.count) + self.reach
            shares = b.scratch(self.dtype, length, "shares")
            line = b.scratch(self.dtype, self.steps * attrs.stride[-1], "line")
            with b.loop(length, "vector", "c") as c:
                b.store(shares, c, Const(0.0, KType(self.dtype)))
            plane, *at = self.row_index(row)
            with self.windows_over(at) as window:
                self.collect(shares, plane, window)
            with b.loop(self.steps, "vector", "u") as u:
                self.spread(shares, line, u)
            first = b.let(row * self.width, "out")
            with b.loop(self.width, "vector", "c") as c:
                b.store(
                    self.out, first + c, cast(load(line, c + attrs.padding[-1]), self.out.dtype)
                )
        scope.launch(
            self.node.op.name,
            numel(self.shape) * (self.reach + 1),
            cost.traffic([*self.node.operands, *self.node.results()]),
        )

    def row_index(self, row: Expr) -> list[Expr]:
        """Plane and outer spatial indices of a row of the result."""
        b, rest = self.scope.b, row
        index: list[Expr] = []
        for size in reversed(self.shape[2:-1]):
            extent = self.scope.expr(size)
            index.insert(0, b.let(rest % extent, "i"))
            rest = b.let(rest // extent, "rest")
        return [rest, *index]

    @contextmanager
    def windows_over(self, at: list[Expr], fixed: tuple[Expr, ...] = ()) -> Iterator[list[Expr]]:
        """Loops over the windows of the outer dimensions that cover the row at index `at`."""
        b, axis = self.scope.b, len(fixed)
        if axis == len(at):
            yield list(fixed)
            return
        k, s, p = (getattr(self.attrs, name)[axis] for name in ("kernel", "stride", "padding"))
        position = at[axis] + p
        low = ceildiv(binary("max", position - (k - 1), Const(0)), s)
        high = binary("min", position // s + 1, self.scope.expr(self.windows[2 + axis]))
        with (
            b.loop(b.let(high, "high"), "serial", "o", b.let(low, "low")) as o,
            self.windows_over(at, (*fixed, o)) as window,
        ):
            yield window

    def collect(self, shares: Buffer, plane: Expr, window: list[Expr]) -> None:
        """Add the shares of a row of windows."""
        b = self.scope.b
        flat = plane
        for o, size in zip([*window, Const(0)], self.windows[2:], strict=True):
            flat = flat * self.scope.expr(size) + o
        first = b.let(flat, "first")
        outer: Expr = Const(1)
        for axis, o in enumerate(window):
            outer = outer * self.extent(axis, o)
        outer = b.let(outer, "count")
        with b.loop(self.count, "vector", "c") as c:
            fixed = self.attrs.divisor
            count = outer * self.extent(-1, c) if fixed is None else Const(fixed)
            g = cast(load(self.g, first + c), self.dtype)
            share = binary("div", g, cast_count(count, g))
            b.store(shares, c + self.reach, binary("add", load(shares, c + self.reach), share))

    def extent(self, axis: int, o: Expr) -> Expr:
        """Elements of window `o` along a spatial dimension, as the divisor counts them."""
        return window_extent(
            self.scope,
            self.attrs,
            axis % len(self.attrs.kernel),
            self.attrs.spatial[axis],
            self.windows[2:][axis],
            o,
        )

    def spread(self, shares: Buffer, line: Buffer, u: Expr) -> None:
        """Positions ``u * stride + r`` for every r."""
        b, stride, kernel = self.scope.b, self.attrs.stride[-1], self.attrs.kernel[-1]
        taps = [b.let(load(shares, u + (self.reach - j)), "share") for j in range(self.reach + 1)]
        for r in range(stride):
            total: Expr = Const(0.0, KType(self.dtype))
            covering = [taps[j] for j in range(self.reach + 1) if r + j * stride < kernel]
            for i, share in enumerate(covering):
                total = share if i == 0 else binary("add", total, share)
            b.store(line, u * stride + r, total)
