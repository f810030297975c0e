"""Elements that lie side by side in memory, read and written by a thread as one vector of up to 16
bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import Dim

from ...kernels.body.evaluate import Evaluator, Mask, Result
from ...kernels.body.pointwise import logical_not
from ...kernels.body.scope import Scope
from ...kernels.body.space import coefficient, depends, name_of
from ...kernels.ir import Buffer, Const, Expr, KType, binary, load
from ...kernels.program.lowering import Lowering
from ...kernels.program.program import Slot


class WideEvaluator(Evaluator):
    """Reads what lies side by side as lines of a `WideScope`."""

    def load(self, slot: Slot, position: Dim, mask: Mask | None, depth: int = 0) -> Result:
        scope = self.scope
        assert isinstance(scope, WideScope)
        ahead = mask is None or mask.depth <= scope.depth
        if not ahead or depth > scope.depth or not scope.is_line(position):
            return super().load(slot, position, mask, depth)
        depth = scope.space.depth((position,))
        with scope.b.hoisted(depth):
            return Result(
                scope.b.let(scope.line(slot, position, mask.expr if mask else None), "v"), depth
            )


def zero(dtype: DType) -> Const:
    return Const(False if dtype.is_bool else 0.0 if dtype.is_floating_point else 0, KType(dtype))


class WideScope(Scope):
    """A kernel whose threads have `lanes` neighbours each.

    What a position has along them is read as one vector into private memory, and stored from there.
    """

    def __init__(self, lowering: Lowering, hint: str, lanes: int):
        super().__init__(lowering, hint)
        self.lanes = lanes
        self.variable: Dim = 0  # no group has begun
        self._lines: dict[tuple[Slot, Dim, Expr | None], Buffer] = {}
        self._stores: list[tuple[Slot, Dim, Buffer]] = []

    def begin(self, variable: Dim, base: Expr, limit: Expr | None) -> None:
        """A group begins at `base`; `limit` is how far elements go, where that may be short of its
        end."""
        self.variable = variable
        self.base = base
        self.depth = self.b.depth
        self.limit = limit
        self.full = limit and self.b.let(binary("le", base + self.lanes, limit), "full")
        self._lines.clear()
        self._stores.clear()

    @contextmanager
    def element(self, lane: Expr) -> Iterator[None]:
        """Element number `lane` of the group, where there is one."""
        b = self.b
        self.lane = lane
        i = b.let(self.base + lane, "i")
        if self.limit is None:
            self.space.bind(self.variable, i, b.depth)
            yield
            return
        with b.when(binary("lt", i, self.limit)):
            self.space.bind(self.variable, i, b.depth)
            yield

    def is_line(self, position: Dim) -> bool:
        """Whether a group's elements lie side by side at `position`, and where is known ahead of
        them."""
        if isinstance(self.variable, int):
            return False
        name = name_of(self.variable)
        if coefficient(position, name) != 1:
            return False
        others = [s for s, depth in self.space.depths.items() if s != name and depth > self.depth]
        return not any(depends(position, s) for s in others)

    def start(self, position: Dim) -> Expr:
        """The position of the group's first element."""
        return self.space.where(position, {name_of(self.variable): self.base})

    def line(self, slot: Slot, position: Dim, mask: Expr | None) -> Expr:
        """An element of a line that the group reads at once, or not at all where `mask` is
        false."""
        line = self._lines.get((slot, position, mask))
        if line is None:
            source, b = self.buffer(slot), self.b
            with b.hoisted(self.depth):
                line = self._lines[slot, position, mask] = b.scratch(slot.dtype, self.lanes, "line")
                if mask is None:
                    self.move(line, Const(0), source, self.start(position))
                else:
                    with b.loop(self.lanes, "unroll", "u") as u:
                        b.store(line, u, zero(slot.dtype))
                    with b.when(mask):
                        self.move(line, Const(0), source, self.start(position))
        return load(line, self.lane)

    def put(self, slot: Slot, position: Dim, value: Expr, mask: Expr | None = None) -> None:
        """Store an element. Args: mask: whether at all; what lies side by side is for `flush` to
        store."""
        to, at = self.buffer(slot, "write"), self.expr(position)
        if not self.is_line(position):
            self.b.store(to, at, value, mask)
            return
        with self.b.hoisted(self.depth):
            line = self.b.scratch(slot.dtype, self.lanes, "out")
        self.b.store(line, self.lane, value)
        self._stores.append((slot, position, line))

    @property
    def holds_results(self) -> bool:
        """Whether there is something to `flush`."""
        return bool(self._stores)

    def flush(self) -> None:
        """Store what the group has computed."""
        for slot, position, line in self._stores:
            self.move(self.buffer(slot, "write"), self.start(position), line, Const(0))

    def move(self, to: Buffer, at: Expr, source: Buffer, start: Expr) -> None:
        """Copy a group from or to private memory."""
        b = self.b
        if self.full is None or self.limit is None:
            b.store(to, at, load(source, start, self.lanes))
            return
        with b.when(self.full):
            b.store(to, at, load(source, start, self.lanes))
        with (
            b.when(logical_not(self.full)),
            b.loop(self.lanes, "unroll", "u") as u,
            b.when(binary("lt", self.base + u, self.limit)),
        ):
            b.store(to, at + u, load(source, start + u))
