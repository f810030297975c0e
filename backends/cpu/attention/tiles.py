"""What the attention kernels share: products of blocks in a task's scratch memory, and masks of
scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphtorch.ir.dtype import DType, i32
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, SymInt, evaluate, symbols

from ...kernels.body.access import Reader, broadcast_to, lane_mask, resolve, store_lanes
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space, coefficient
from ...kernels.builder import Builder
from ...kernels.contraction.problem import Axis, Contraction, Source, stride
from ...kernels.ir import Buffer, Const, Expr, KType, Lanes, binary, cast, fma, load, select, splat
from ...kernels.machine import Machine
from ...kernels.program.program import Slot
from ..contraction.schedule import Tiling, chunks, column_sizes, most_rows, row_sizes
from ..contraction.tile import Column, Row, Span, Writer, emit_product, transpose
from ..loops.places import Places

WIDEST = 512  # features of queries and of values for which a task's memory stays small
FEW = 4  # queries: so few have no more scores than keys have elements, and would waste lanes


def fits_blocks(q: Value, k: Value, v: Value) -> bool:
    """Whether attention runs as one kernel: sizes of heads are known and moderate, queries not too
    few."""
    sizes = q.shape[-1], v.shape[-1]
    few = isinstance(q.shape[-2], int) and q.shape[-2] < FEW
    return (
        all(isinstance(d, int) and 0 < d <= WIDEST for d in sizes) and not few and 0 not in k.shape
    )


def vector_tiling(extent: int, most: int, lanes: int, machine: Machine) -> tuple[Tiling, int]:
    """Columns of a product in tiles of up to `most` vectors, and how many rows fit the registers
    beside."""
    sizes = column_sizes(extent, most, lanes)
    return Tiling(sizes), most_rows(len(chunks(sizes[0], lanes)), machine.registers)


def rest_rows(machine: Machine) -> Tiling:
    """Rows of a product beside two vectors where their number is only known at run time."""
    return Tiling((8, 4, 1) if machine.registers >= 32 else (4, 1))


class Blocks:
    """Emits the parts of an attention kernel into one `Scope`."""

    masks: list[Source]  # of the scores

    def __init__(self, places: Places, node: Node, acc: DType, hint: str):
        self.node, self.acc, self.masks = node, acc, []
        self.machine = places.lowering.machine
        self.lanes = self.machine.lanes(acc.itemsize)
        self.space = Space()
        self.e = Scope(places.lowering, hint, self.space)

    @property
    def b(self) -> Builder:
        return self.e.b

    @property
    def is_causal(self) -> bool:
        return bool(self.node.attrs.is_causal)

    def operand(self, places: Places, value: Value, index: tuple[Dim, ...]) -> Source:
        """An operand at `index`, broadcast to it: where it lies if its end is contiguous, or a
        copy."""
        index = broadcast_to(index, value)
        access = resolve(value, index)
        if access is not None and not access.casts and access.leaf in places.slots:
            last = index[-1] if value.rank else 0
            if not isinstance(last, SymInt) or self._is_contiguous(access.address, last):
                slot = places.slots[access.leaf]
                return Source(slot, slot.dtype, access.address)
        return self.result(places.materialise(value), value, index)

    @staticmethod
    def _is_contiguous(address: Dim, last: SymInt) -> bool:
        return all(
            coefficient(address, s.name) == coefficient(last, s.name) for s in symbols((last,))
        )

    def result(self, slot: Slot, value: Value, index: tuple[Dim, ...]) -> Source:
        """What lies row-major in `slot`, at `index` broadcast to it."""
        return Source(slot, slot.dtype, self.space.linear(broadcast_to(index, value), value.shape))

    def fill(self, buffer: Buffer, first: Expr, size: Expr, number: float) -> None:
        with self.b.loop(size, "vector", "i") as i:
            self.b.store(buffer, first + i, Const(number, KType(self.acc)))

    def scratch(self, size: int, name: str, number: float | None = None) -> Slot:
        """Private memory of a task, with `number` in it if one is given."""
        slot = self.e.scratch(self.acc, size, name)
        if number is not None:
            self.fill(self.e.buffer(slot), Const(0), Const(size), number)
        return slot

    # -- products

    def product(
        self,
        m: Span,
        n: Span,
        k: tuple[Axis, Dim | None],
        a: Source,
        b: Source,
        address: Dim,
        writer: Writer,
        lanes: int | None = None,
    ) -> None:
        """Sums over k of a * b for all of m and n, in register tiles; `k` is an axis and a limit of
        it.

        Afterwards the variables of all three are 0.
        """
        inner, limit = k
        p = Contraction(
            self.node, self.space, [], [m.axis], [n.axis], [inner], a, b, (), address, (), self.acc
        )
        if limit is not None:
            p.limits[inner.name] = limit
        emit_product(self.e, p, m, n, writer, lanes or self.lanes)
        for done in (m.axis, n.axis, inner):
            self.space.bind(done.variable, Const(0))

    def turned(
        self, source: Source, along: Axis, count: Expr, inner: Axis, name: str, factor: float = 1.0
    ) -> Slot:
        """A scratch copy [inner, along] of what lies in memory as [along, inner], zeros from
        `count` on.

        Where whole vectors fit, squares are transposed in registers.
        """
        width, depth = along.extent, inner.extent
        assert isinstance(width, int) and isinstance(depth, int)
        self.space.bind(along.variable, Const(0))
        self.space.bind(inner.variable, Const(0))
        start = self.b.let(self.e.expr(source.address), "from")
        hop = self.b.let(self.e.expr(stride(source.address, along)), "hop")
        square = self.lanes if depth % self.lanes == 0 and width % self.lanes == 0 else 1
        slot = self.scratch(depth * width, name, None if square > 1 else 0.0)
        target, x = self.e.buffer(slot), self.e.buffer(source.slot, hint="x")
        scale = Const(factor, KType(self.acc, square))

        def read(at: Expr, row: Expr) -> Expr:
            mask = splat(binary("lt", row, count), square) if square > 1 else None
            value = cast(load(x, at + row * hop, square, mask), self.acc)
            return self.b.let(value if factor == 1.0 else value * scale, "row")

        with (
            self.b.loop(count if square == 1 else width, name="row", step=square) as row,
            self.b.loop(depth, name="i", step=square) as i,
        ):
            rows = [read(start + i, row + j) for j in range(square)]
            for j, column in enumerate(transpose(self.e, rows) if square > 1 else rows):
                self.b.store(target, (i + j) * width + row, column)
        return slot

    # -- masks

    def seen(self, x: Expr, along: Axis, valid: Expr, order: str, bound: Expr) -> Expr:
        """Scores as a vector along `along`, -inf where a key is not seen. All variables are bound.

        Args:
            valid: elements of a mask that exist from the first lane on.
            order, bound: a causal mask lets the lanes see that are in this order ("le", "ge") to
                `bound`.
        """
        lanes, nothing = x.type.lanes, Const(-math.inf, x.type)
        if self.is_causal:
            lane = Lanes(KType(i32, lanes))
            x = select(binary(order, lane, splat(cast(bound, i32), lanes)), x, nothing)
        for mask in self.masks:
            m = splat(self._mask(mask, along, lanes, valid), lanes)
            x = select(m, x, nothing) if mask.dtype.is_bool else x + cast(m, self.acc)
        return x

    def _mask(self, mask: Source, along: Axis, lanes: int, valid: Expr) -> Expr:
        space = self.space
        if coefficient(mask.address, along.name) != 0:
            space.vector, space.lanes = along.name, lanes
        buffer = self.e.buffer(mask.slot, hint="mask")
        reader = Reader(self.b, space, lambda _: buffer)
        reader.mask = lane_mask(valid, lanes) if space.vector is not None else None
        found = reader.read(mask.address, buffer)
        space.vector = None
        return found


class AddingWriter:
    """Adds finished sums to those in memory, these first multiplied by the factor of their row, if
    any."""

    def __init__(self, e: Scope, slot: Slot, place: Dim, factors: tuple[Slot, Dim] | None = None):
        self.e, self.slot, self.place, self.factors = e, slot, place, factors

    def write(
        self, rows: Sequence[Row], columns: Sequence[Column], values: dict[tuple[int, int], Expr]
    ) -> None:
        e, b = self.e, self.e.b
        target = e.buffer(self.slot, "readwrite")
        factors = [self._factor(row) for row in rows]
        for (i, j), value in values.items():
            column = columns[j]
            where = b.let(e.expr(evaluate(self.place, {**rows[i], **column.at})), "at")
            old = load(target, where, value.type.lanes, column.mask())
            factor = factors[i]
            total = (
                value + old if factor is None else fma(splat(factor, value.type.lanes), old, value)
            )
            store_lanes(b, target, where, total, column.inside(), e.masks)

    def _factor(self, row: Row) -> Expr | None:
        if self.factors is None:
            return None
        slot, at = self.factors
        return self.e.b.let(load(self.e.buffer(slot), self.e.expr(evaluate(at, row))), "scale")


__all__ = [
    "AddingWriter",
    "Blocks",
    "Span",
    "fits_blocks",
    "rest_rows",
    "row_sizes",
    "vector_tiling",
]
