"""Where elements of a contraction's operands lie in memory, for blocks of threads that read slices
of them.

An address is a part that depends on the row (or column), found once by each thread, and one that
depends on the step of k. So are the coordinates of an image around which zeros are read (`Gate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphtorch.ir.dtype import i32, i64
from graphtorch.ir.shape import Dim, bounds, evaluate

from ...kernels.body.scope import Scope
from ...kernels.builder import Builder
from ...kernels.contraction.operands import passing
from ...kernels.contraction.problem import Axis, Source, stride
from ...kernels.ir import Const, Expr, KType, binary, cast, load

HALF = 8  # rows and columns of a matrix
NARROW = 1 << 30  # positions below it are computed in 32 bits


def bind(e: Scope, axes: Sequence[Axis], flat: Expr) -> None:
    """Let the variables of `axes` be the parts of a row-major position among them."""
    rest = flat
    for x in reversed(axes[1:]):
        size = e.expr(x.extent)
        e.space.bind(x.variable, e.b.let(rest % size, "i"))
        rest = e.b.let(rest // size, "rest")
    e.space.bind(axes[0].variable, rest)


class Operand:
    """Where a thread's elements of the slices of an operand are.

    Where several axes of k, those of a convolution, take divisions, and a thread reads several
    steps, they are done once in a block, ahead of the step that they are for, and kept in shared
    memory for `ahead` slices of `depth` steps.
    """

    def __init__(
        self, e: Scope, source: Source, k: Sequence[Axis], depth: int, ahead: int, several: bool
    ):
        """Args: several: a thread reads several steps of k."""
        self.e, self.source, self.k, self.depth, self.ahead = e, source, k, depth, ahead
        self.types = [
            type_of(source.address, 0),
            *(type_of(g.coordinate, g.reach) for g in source.gates),
        ]
        tabled = self.types if several and len(k) > 1 else []
        self.tables = [e.b.shared(t.dtype, ahead * depth, "offsets") for t in tabled]

    def find(self, axes: Sequence[Axis], row: Callable[[Expr], Expr], count: int) -> None:
        """Where the thread's rows begin: `row` says which is its number i of `count`."""
        e, zero = self.e, {x.name: 0 for x in self.k}
        self.rows = [e.b.scratch(t.dtype, count, "places") for t in self.types]
        with e.b.loop(count, "unroll") as i:
            bind(e, axes, e.b.let(row(i), "place"))
            for places, part in zip(self.rows, self.source.polynomials, strict=True):
                e.b.store(places, i, cast(e.expr(evaluate(part, zero)), places.dtype))

    @staticmethod
    def begin(b: Builder, all: Sequence[Operand]) -> None:
        """Fill tables for the first slices."""
        for o in all:
            for slice in range(o.ahead):
                o.fill(Const(slice))
        if any(o.tables for o in all):
            b.barrier()

    def fill(self, slice: Expr) -> None:
        """Take a slice's place in the tables: that of the one `ahead` before, which all are done
        with."""
        if self.tables:
            b = self.e.b
            with b.loop(self.depth, "thread", "t") as t:
                steps = self._along(b.let(slice * self.depth + t, "k"))
                at = b.let(slice % self.ahead * self.depth + t, "at")
                for table, far in zip(self.tables, steps, strict=True):
                    b.store(table, at, far)

    def _along(self, k: Expr) -> list[Expr]:
        """What step `k`, which may lie beyond the last, adds to each polynomial."""
        bind(self.e, self.k, k)
        found = []
        for t, part in zip(self.types, self.source.polynomials, strict=True):
            far: Dim = 0
            for x in self.k:
                far = far + stride(part, x) * x.variable
            found.append(cast(self.e.expr(far), t.dtype))
        return found

    def at(self, slice: Expr, step: Expr, row: Expr) -> tuple[Expr, Expr | None]:
        """Where the element of a step of a slice and of the thread's number `row` is, and whether
        it is."""
        b = self.e.b
        if self.tables:
            place = (
                b.let(slice % self.ahead * self.depth + step, "at")
                if self.source.gates
                else slice % self.ahead * self.depth + step
            )
            steps: list[Expr] = [load(table, place) for table in self.tables]
        else:
            steps = self._along(b.let(slice * self.depth + step, "k"))
        address, *coordinates = (
            binary("add", load(places, row), far)
            for places, far in zip(self.rows, steps, strict=True)
        )
        coordinates = [b.let(c, "t") for c in coordinates]
        return passing(self.e, self.source, cast(address, i64), coordinates)


def type_of(part: Dim, limit: Dim) -> KType:
    """What a polynomial is computed in, and compared with `limit`."""
    low, high = bounds(part)
    return KType(i32 if low > -NARROW and max(high, bounds(limit)[1]) < NARROW else i64)
