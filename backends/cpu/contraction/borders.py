"""Zeros around an image that are not in memory: which steps of k and which rows of a tile read the
image.

Operand `a` of a contraction is the image. Each of its gates is a coordinate that moves with one
axis of k, the tap, and perhaps with the rows of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.dtype import boolean
from graphtorch.ir.shape import Dim, evaluate

from ...kernels.body.scope import Scope
from ...kernels.body.space import depends
from ...kernels.contraction.problem import Axis, Contraction, Gate, stride
from ...kernels.ir import Const, Expr, KType, binary

Row = dict[str, Dim]


class Borders:
    """The gates of a contraction's image as one tile meets them."""

    def __init__(self, e: Scope, p: Contraction, rows: Sequence[Row]):
        self.e, self.rows = e, rows
        self._by_tap = {
            tap.name: (tap, gate)
            for gate in p.a.gates
            for tap in p.k
            if depends(gate.coordinate, tap.name)
        }
        assert len(self._by_tap) == len(p.a.gates), "a gate moves with one axis of k"

    def across(self, tap: Axis) -> Gate | None:
        """The gate along `tap` that rows of the tile meet at different steps."""
        gate = self._gate(tap)
        return gate if gate is not None and self._parts_rows(gate) else None

    def _gate(self, tap: Axis) -> Gate | None:
        found = self._by_tap.get(tap.name)
        return None if found is None else found[1]

    def _parts_rows(self, gate: Gate) -> bool:
        return any(depends(gate.coordinate, name) for name in (self.rows[0] if self.rows else ()))

    def span(self, tap: Axis, end: Expr) -> tuple[Expr, Expr]:
        """The steps of `tap`, of those before `end`, at which all rows of the tile are inside."""
        gate = self._gate(tap)
        if gate is None or self._parts_rows(gate):
            return Const(0), end
        b, hop = self.e.b, stride(gate.coordinate, tap)
        assert isinstance(hop, int), "a dilation"
        start = b.let(self.e.expr(evaluate(gate.coordinate, {tap.name: 0})), "start")
        low = binary("max", Const(0), Const(0) - start)
        high = binary("max", Const(0), self.e.expr(gate.extent) - start)
        last = binary("min", end, (high + (hop - 1)) // hop)
        return b.let((low + (hop - 1)) // hop, "low"), b.let(last, "high")

    def inside(self, gate: Gate) -> list[Expr]:
        """Of each row, whether it is inside at the present step of the gate's tap."""
        found: dict[Dim, Expr] = {}
        places = [evaluate(gate.coordinate, row) for row in self.rows]
        for place in places:
            if place not in found:
                found[place] = self.e.b.let(self._within(place, gate), "inside")
        return [found[place] for place in places]

    def both(self, some: Sequence[Expr], others: Sequence[Expr]) -> list[Expr]:
        """Of each row, whether it is inside along the dimensions looked at before and along
        another."""
        if not some:
            return list(others)
        return [
            self.e.b.let(binary("and", x, y), "inside") for x, y in zip(some, others, strict=True)
        ]

    def everywhere(self) -> Expr | None:
        """Whether all rows are inside at all steps; None where rows meet all borders at the same
        ones."""
        checks: list[Expr] = []
        for tap, gate in self._by_tap.values():
            if self._parts_rows(gate):
                for row, step in ((self.rows[0], 0), (self.rows[-1], tap.extent - 1)):
                    checks.append(
                        self._within(evaluate(gate.coordinate, {**row, tap.name: step}), gate)
                    )
        return self.e.b.let(all_of(checks), "whole") if checks else None

    def _within(self, place: Dim, gate: Gate) -> Expr:
        at = self.e.b.let(self.e.expr(place), "pixel")
        return binary("and", binary("le", Const(0), at), binary("lt", at, self.e.expr(gate.extent)))


def all_of(conditions: Sequence[Expr]) -> Expr:
    """Whether all hold; equal ones are asked once."""
    total: Expr = Const(True, KType(boolean))
    for one in dict.fromkeys(conditions):
        total = one if isinstance(total, Const) else binary("and", total, one)
    return total
