"""What becomes of finished sums: the fused epilogue and the store of the region's results."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.shape import Dim, evaluate

from ...kernels.body.access import Reader, store_lanes
from ...kernels.body.scope import Scope
from ...kernels.body.space import coefficient
from ...kernels.contraction.problem import Axis, Contraction, stride
from ...kernels.ir import Expr, binary, cast, splat
from ...kernels.program.lowering import Region
from ...kernels.program.program import Slot
from .tile import Column, Row, transpose


class ResultWriter:
    """Applies the region's epilogue to sums and stores its results.

    Vectors run along n. Where the results are contiguous along m instead, tiles are transposed
    first.
    """

    def __init__(self, e: Scope, p: Contraction, region: Region):
        self.e, self.p, self.region = e, p, region
        self.anchor = p.node.result()
        slots = dict(zip(region.body.inputs, region.operands, strict=True))
        self.reader = Reader(e.b, e.space, lambda leaf: e.buffer(e.lowering.slot(slots[leaf])))

    def write(
        self, rows: Sequence[Row], columns: Sequence[Column], values: dict[tuple[int, int], Expr]
    ) -> None:
        self.reader.memo.clear()
        if self._transposed(rows, columns):
            self._write_transposed(rows, columns, values)
            return
        for (i, j), value in values.items():
            column = columns[j]
            self.element(value, {**rows[i], **column.at}, column.axis, column.inside())

    def element(
        self, value: Expr, at: dict[str, Dim], axis: Axis | None, valid: int | Expr
    ) -> None:
        """Finish one vector of sums that stands at `at` and runs along `axis`."""
        space, lanes = self.e.space, value.type.lanes
        space.vector = axis.name if axis is not None and lanes > 1 else None
        space.lanes = lanes
        mask = self.reader.limit(valid, lanes)
        index = [evaluate(i, at) for i in self.p.index]
        address = evaluate(self.p.address, at)
        self.reader.whole = self.p.shape, index, address
        known = {self.anchor: cast(self._biased(value, index), self.anchor.dtype)}
        for output, result in zip(self.region.body.outputs, self.region.results, strict=True):
            finished = splat(self.reader.value(output, index, known), lanes)
            target = self.e.buffer(self.e.lowering.slot(result), "write", "y")
            contiguous = space.vector is None or coefficient(address, space.vector) == 1
            if contiguous:
                store_lanes(self.e.b, target, space.base(address), finished, valid, self.e.masks)
            else:
                self.e.b.store(target, space.expr(address), finished, mask)
        space.vector = None

    def _biased(self, value: Expr, index: Sequence[Dim]) -> Expr:
        """Plus the bias of a convolution, before the sum is rounded to the result's dtype."""
        for bias in self.p.node.operands[2:]:
            at = (index[self.p.channel],)
            value = binary("add", value, cast(self.reader.value(bias, at, {}), self.p.acc))
        return value

    def _transposed(self, rows: Sequence[Row], columns: Sequence[Column]) -> bool:
        along = self._row_axis()
        if along is None or len(rows) < 4 or any(not isinstance(c.valid, int) for c in columns):
            return False
        across = all(stride(self.p.address, c.axis) != 1 for c in columns)
        return across and stride(self.p.address, along) == 1

    def _row_axis(self) -> Axis | None:
        return self.p.m[-1] if self.p.m else None

    def _write_transposed(
        self, rows: Sequence[Row], columns: Sequence[Column], values: dict[tuple[int, int], Expr]
    ) -> None:
        axis = self._row_axis()
        assert axis is not None
        for j, column in enumerate(columns):
            lanes = column.chunk.lanes
            for run in runs(rows, axis, lanes):
                block = [values[i, j] for i in run]
                block += [block[0]] * (lanes - len(block))
                turned = transpose(self.e, block) if lanes > 1 else block
                for offset in range(column.chunk.valid):
                    at = {**rows[run[0]], **moved(column, offset)}
                    self.element(turned[offset], at, axis, len(run))


def moved(column: Column, offset: int) -> dict[str, Dim]:
    """The place of lane `offset` of a column."""
    name = column.axis.name
    return {**column.at, name: column.at[name] + offset}


def runs(rows: Sequence[Row], axis: Axis, most: int) -> list[list[int]]:
    """Positions of rows that follow one another along `axis`, in groups of at most `most`."""
    found: list[list[int]] = []
    for i, row in enumerate(rows):
        last = rows[found[-1][-1]] if found else None
        rest = {k: v for k, v in row.items() if k != axis.name}
        follows = (
            last is not None
            and rest == {k: v for k, v in last.items() if k != axis.name}
            and row[axis.name] == last[axis.name] + 1
        )
        if follows and len(found[-1]) < most:
            found[-1].append(i)
        else:
            found.append([i])
    return found


class PartialWriter:
    """Stores sums as they are, in the order of the axes: one part of a split contraction."""

    def __init__(self, e: Scope, slot: Slot, address: Dim):
        self.e, self.slot, self.address = e, slot, address

    def write(
        self, rows: Sequence[Row], columns: Sequence[Column], values: dict[tuple[int, int], Expr]
    ) -> None:
        target = self.e.buffer(self.slot, "write", "partial")
        for (i, j), value in values.items():
            column = columns[j]
            address = evaluate(self.address, {**rows[i], **column.at})
            store_lanes(
                self.e.b, target, self.e.expr(address), value, column.inside(), self.e.masks
            )
