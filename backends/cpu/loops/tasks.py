"""The loops of a kernel, shared between tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.shape import Dim, numel

from ...kernels.body.scope import Scope, ceildiv, clamp_min, upper_bound
from ...kernels.ir import Const, Expr
from .. import cost


class Nest:
    """Opens the loops of a kernel: tasks outside, a long vectorisable loop inside.

    A task has at least `grain` elements, so small kernels have one task and run without a fork.
    With `shared` the number of elements of a single loop is a parameter.
    """

    def __init__(
        self,
        scope: Scope,
        loops: list[tuple[Dim, Dim]],
        grain: int,
        shared: bool = False,
    ):
        self.shared = shared
        self.scope = scope
        self.loops = loops
        self.grain = grain

    @contextmanager
    def open(self) -> Iterator[None]:
        if not self.loops:
            yield
        elif len(self.loops) == 1:
            with self.line():
                yield
        else:
            with self.rows():
                yield

    @contextmanager
    def line(self) -> Iterator[None]:
        """One loop, cut into chunks of `grain`."""
        ((extent, variable),) = self.loops
        if self.grain == 1:
            with self.scope.loop(extent, "parallel", variable=variable):
                yield
            return
        shared = self.shared and isinstance(extent, int) and extent > 1
        n, b = self.scope.count(int(extent)) if shared else self.scope.expr(extent), self.scope.b
        if isinstance(extent, int) and extent <= self.grain:
            with self.scope.loop(extent, "vector", hi=n, variable=variable):
                yield
            return
        with b.loop(ceildiv(n, self.grain), "parallel", "task") as task:
            lo = b.let(task * self.grain, "lo")
            hi = b.let(upper_bound(lo + self.grain, n), "hi")
            with self.scope.loop(extent, "vector", lo=lo, hi=hi, variable=variable):
                yield

    @contextmanager
    def rows(self) -> Iterator[None]:
        """Outer loops flattened into rows that tasks share, inner loops nested."""
        flat = self.flattened()
        rows = numel(tuple(extent for extent, _ in self.loops[:flat]))
        work = numel(tuple(extent for extent, _ in self.loops[flat:]))
        with task_rows(self.scope, rows, work, self.grain) as row:
            self.bind_rows(row, flat)
            with self.scope.nested(self.loops[flat:], "vector"):
                yield

    def flattened(self) -> int:
        """How many outer loops become rows: enough that a row is not much more than a task."""
        if self.grain == 1:
            return len(self.loops)
        for count in range(1, len(self.loops)):
            if cost.elements(tuple(extent for extent, _ in self.loops[count:])) <= self.grain:
                return count
        return len(self.loops) - 1

    def bind_rows(self, row: Expr, flat: int) -> None:
        b, space = self.scope.b, self.scope.space
        rest = row
        for extent, variable in reversed(self.loops[1:flat]):
            size = self.scope.expr(extent)
            space.bind(variable, b.let(rest % size, "i"), b.depth)
            rest = b.let(rest // size, "row")
        if flat:
            space.bind(self.loops[0][1], rest, b.depth)


@contextmanager
def task_rows(scope: Scope, rows: Dim, work: Dim, grain: int) -> Iterator[Expr]:
    """A loop over `rows` of `work` elements each, shared between tasks of at least `grain`
    elements; where tasks cost nothing each row is one."""
    b = scope.b
    if rows == 1:
        yield Const(0)
        return
    if not scope.lowering.task_ns:
        with b.loop(scope.expr(rows), "parallel", "row") as row:
            yield row
        return
    if isinstance(rows, int) and isinstance(work, int) and rows * work <= grain:
        with b.loop(rows, "serial", "row") as row:
            yield row
        return
    count = b.let(clamp_min(Const(grain) // clamp_min(scope.expr(work), 1), 1), "rows")
    n = scope.expr(rows)
    with b.loop((n + count - 1) // count, "parallel", "task") as task:
        lo = b.let(task * count, "lo")
        with b.loop(b.let(upper_bound(lo + count, n), "hi"), "serial", "row", lo) as row:
            yield row
