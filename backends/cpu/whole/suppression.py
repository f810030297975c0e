"""Suppression of boxes that overlap better ones: each box that stays is compared with all behind
it."""

from __future__ import annotations

from graphtorch.ir.dtype import boolean, f64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import numel

from ...kernels.body.pointwise import logical_not, wide
from ...kernels.body.scope import Scope
from ...kernels.ir import Buffer, Const, Expr, KType, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows

BOOL = KType(boolean)
SIDES, AREA, LINES = 4, 4, 5  # lines of a task's memory: x1, y1, x2, y2, area


def lower_nms(places: Places, node: Node) -> None:
    """One kernel; the boxes of one entry are one task's."""
    boxes = places.materialise(node.operands[0])
    out = places.result_slot(node.result())
    if 0 not in node.types[0].shape:
        Suppression(places, node, boxes, out).emit()


class Suppression:
    """The kernel: coordinates become lines first, so that boxes are compared as vectors."""

    def __init__(self, places: Places, node: Node, boxes: Slot, out: Slot):
        self.node = node
        self.scope = Scope(places.lowering, node.op.name)
        self.b = self.scope.b
        self.stays = self.scope.buffer(out, "readwrite")
        self.dtype = wide(boxes.dtype)
        *self.batch, self.length = node.types[0].shape
        lines = places.lowering.temporary(self.dtype, (*self.batch, LINES, self.length))
        self.lines = self.scope.buffer(lines, "readwrite")
        self.boxes: Buffer = self.scope.buffer(boxes)

    def emit(self) -> None:
        scope, b, length = self.scope, self.b, self.length
        work = length * cost.guess(length) // 8
        with task_rows(scope, numel(tuple(self.batch)), work, cost.grain([self.node], 16.0)) as row:
            self.n = scope.expr(length)
            self.base = b.let(row * self.n, "base")
            self.spread()
            with b.loop(self.n, "serial", "i") as i, b.when(load(self.stays, self.base + i)):
                first = [b.let(self.coordinate(line, i), "a") for line in range(LINES)]
                with b.loop(self.n, "vector", "j", i + 1) as j:
                    over = self.overlaps(first, [self.coordinate(line, j) for line in range(LINES)])
                    at = self.base + j
                    b.store(self.stays, at, binary("and", load(self.stays, at), logical_not(over)))
        scope.launch(
            self.node.op.name, numel(tuple(self.batch)) * work, cost.traffic(self.node.operands)
        )

    def coordinate(self, line: int, i: Expr) -> Expr:
        return load(self.lines, self.base * LINES + self.n * line + i)

    def spread(self) -> None:
        """Coordinates and areas as lines; every box may stay."""
        b = self.b
        with b.loop(self.n, "vector", "i") as i:
            at = self.base + i
            x1, y1, x2, y2 = box = [
                b.let(cast(load(self.boxes, at * SIDES + side), self.dtype), "x")
                for side in range(SIDES)
            ]
            area = unary("rounded", binary("mul", x2 - x1, y2 - y1))
            for line, value in enumerate([*box, area]):
                b.store(self.lines, self.base * LINES + self.n * line + i, value)
            b.store(self.stays, at, Const(True, BOOL))

    def overlaps(self, first: list[Expr], box: list[Expr]) -> Expr:
        """Whether the intersection is more than the threshold of the union, each step rounded by
        itself."""
        b, zero = self.b, Const(0.0, KType(self.dtype))
        a, c = first, [b.let(x, "b") for x in box]
        low = [select(binary("lt", a[k], c[k]), c[k], a[k]) for k in (0, 1)]
        high = [select(binary("lt", c[k], a[k]), c[k], a[k]) for k in (2, 3)]
        sides = [b.let(y - x, "side") for x, y in zip(low, high, strict=True)]
        w, h = [select(binary("gt", side, zero), side, zero) for side in sides]
        common = b.let(unary("rounded", binary("mul", w, h)), "common")
        ratio = binary("div", common, a[AREA] + c[AREA] - common)
        return b.let(
            binary("gt", cast(ratio, f64), Const(self.node.attrs.threshold, KType(f64))), "over"
        )
