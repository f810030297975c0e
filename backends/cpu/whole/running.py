"""Running reductions along a dimension: cumsum, cumprod, cummax and cummin.

A line is walked through once with the running value in a register. Where neighbours in memory
belong to different lines, a task takes a block of lines and keeps their running values in scratch,
so the loop over the block vectorises. 16-bit floats accumulate in f32, and f32 in f64, and are
rounded for each result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.ir.dtype import DType, f32, f64, i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim

from ...dataclass import dataclass
from ...kernels.body.pointwise import less, logical_not, unsigned, wide
from ...kernels.body.scope import Scope
from ...kernels.ir import Buffer, Const, Expr, KType, Name, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows
from .lines import Lines, block_width, column_blocks, is_used

SCANS = ("cumsum", "cumprod", "cummax", "cummin")


def lower_scan(places: Places, node: Node, make: Callable[..., Any] | None = None) -> None:
    """The kernels of one of SCANS; indices that nobody reads are not stored.

    Args: make: gives what `emit` of launches them, of what `Scan` takes, which it is as a rule.
    """
    (x,) = node.operands
    source = places.materialise(x)
    lines = Lines.along(node.attrs.dim, x.shape)
    results = {
        i: places.result_slot(r)
        for i, r in enumerate(node.results())
        if i == 0 or is_used(places, r)
    }
    if 0 not in x.shape:
        (make or Scan)(places, node, source, lines, results).emit()


def running_dtype(dtype: DType) -> DType:
    """The dtype of running values; bools count."""
    return i32 if dtype.is_bool else wide(dtype)


def walked_dtype(node: Node, dtype: DType) -> DType:
    """As `running_dtype`, where one walker takes all elements of a line: it rounds as often."""
    adds = node.op.name in ("cumsum", "cumprod")
    return f64 if adds and dtype is f32 else running_dtype(dtype)


def start(node: Node, dtype: DType) -> Const:
    """The running value before the first element; -0.0 is what adding leaves every float as it is
    to."""
    like, name = KType(dtype), node.op.name
    if name in ("cumsum", "cumprod"):
        value = 0 if name == "cumsum" else 1
        return Const(
            (-0.0 if name == "cumsum" else 1.0) if dtype.is_floating_point else value, like
        )
    return Const(dtype.ends[name == "cummin"], like)


def beats(node: Node, x: Expr, best: Expr) -> Expr:
    """Whether `x` replaces the extremum before it: a tie does, a NaN does, and only a NaN replaces
    a NaN."""
    above = node.op.name == "cummax"
    if unsigned(x):
        return logical_not(less(x, best) if above else less(best, x))
    wins = binary("ge" if above else "le", x, best)
    return binary("or", wins, unary("isnan", x)) if x.type.dtype.is_floating_point else wins


@dataclass(eq=False)
class Running:
    """Where a running value is kept: a register, or a line of scratch with one for each column."""

    scope: Scope
    home: Name | Buffer

    def get(self, column: Expr) -> Expr:
        return load(self.home, column) if isinstance(self.home, Buffer) else self.home

    def set(self, column: Expr, value: Expr) -> None:
        if isinstance(self.home, Buffer):
            self.scope.b.store(self.home, column, value)
        else:
            self.scope.b.assign(self.home, value)


class Scan:
    """The kernel of one scan."""

    def __init__(
        self, places: Places, node: Node, source: Slot, lines: Lines, results: dict[int, Slot]
    ):
        self.node = node
        self.lines = lines
        self.scope = Scope(places.lowering, node.op.name)
        self.outputs = {i: self.scope.buffer(slot, "write") for i, slot in results.items()}
        self.source = self.scope.buffer(source)
        self.dtype = walked_dtype(node, source.dtype)
        sizes = [s.dtype.itemsize for s in (source, *results.values())]
        self.moved: Dim = lines.elements * sum(sizes)

    def emit(self) -> None:
        grain = cost.grain([self.node], 8.0)
        if self.lines.inner == 1:
            self.single_lines(grain)
        else:
            self.blocks_of_lines(grain)
        self.scope.launch(self.node.op.name, self.lines.elements, self.moved)

    def single_lines(self, grain: int) -> None:
        scope, b, lines = self.scope, self.scope.b, self.lines
        with task_rows(scope, lines.outer, lines.length, grain) as row:
            length = scope.expr(lines.length)
            base = b.let(row * length, "base")
            value = Running(scope, b.var(start(self.node, self.dtype), "running"))
            place = Running(scope, b.var(Const(0), "place")) if 1 in self.outputs else None
            with b.loop(length, "serial", "k") as k:
                self.step(k, b.let(base + k, "at"), Const(0), value, place)

    def blocks_of_lines(self, grain: int) -> None:
        scope, b, lines = self.scope, self.scope.b, self.lines
        width = block_width(lines.inner, lines.length, grain)
        with column_blocks(scope, lines.outer, lines.inner, lines.length, width, grain) as block:
            value = Running(scope, b.scratch(self.dtype, width, "running"))
            place = Running(scope, b.scratch(i64, width, "place")) if 1 in self.outputs else None
            count = b.let(block.end - block.first, "count")
            with b.loop(count, "vector", "c") as c:
                value.set(c, start(self.node, self.dtype))
                if place is not None:
                    place.set(c, Const(0))
            length, inner = scope.expr(lines.length), scope.expr(lines.inner)
            base = b.let(block.outer * length * inner + block.first, "base")
            with b.loop(length, "serial", "k") as k:
                row = b.let(base + k * inner, "row")
                with b.loop(count, "vector", "c") as c:
                    self.step(k, b.let(row + c, "at"), c, value, place)

    def step(self, k: Expr, at: Expr, column: Expr, value: Running, place: Running | None) -> None:
        """Take in element `k` of a line, at position `at`, and store the running results."""
        b, dtype = self.scope.b, self.outputs[0].dtype
        x = b.let(cast(load(self.source, at), self.dtype), "x")
        if self.node.op.name in ("cumsum", "cumprod"):
            op = "add" if self.node.op.name == "cumsum" else "mul"
            result = b.let(binary(op, value.get(column), x), "total")
        else:
            taken = b.let(beats(self.node, x, value.get(column)), "taken")
            result = b.let(select(taken, x, value.get(column)), "best")
            if place is not None:
                where = b.let(select(taken, k, place.get(column)), "where")
                place.set(column, where)
                b.store(self.outputs[1], at, where)
        value.set(column, result)
        b.store(self.outputs[0], at, cast(result, dtype))
