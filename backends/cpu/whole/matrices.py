"""What the factorizations of small matrices are written with; each task takes whole matrices of the
batch.

Everything is computed in f64, in memory of its own for each matrix, and rounded once. The
conventions that make a factorization unique are those of its record
(`graphtorch.ir.ops.factor_reference`).
"""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.ir.dtype import DType, f64, i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.ops.factor_reference import SLACK
from graphtorch.ir.shape import Dim, numel

from ...dataclass import dataclass
from ...kernels.body.scope import Scope
from ...kernels.builder import Block, Builder
from ...kernels.ir import Buffer, Const, Expr, KType, Name, binary, cast, fma, load, select, unary
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows

F64 = KType(f64)
NEXT = Const(1)
ZERO, ONE = Const(0.0, F64), Const(1.0, F64)
EXPONENT = 0x7FF << 52  # bits of an f64
LEAST_SCALE = 2.0**-1000


def sqrt(x: Expr) -> Expr:
    return unary("sqrt", x)


def magnitude(x: Expr) -> Expr:
    return unary("abs", x)


def both(a: Expr, b: Expr) -> Expr:
    return binary("and", a, b)


def minus_product(x: Expr, a: Expr, c: Expr) -> Expr:
    """x - a * c with both operations rounded: the same bits as in NumPy."""
    return binary("sub", x, unary("rounded", binary("mul", a, c)))


@dataclass(frozen=True)
class Matrix:
    """A matrix in a buffer: element (i, j) stands at ``base + i * row + j * column``."""

    buffer: Buffer
    base: Expr
    row: Expr
    column: Expr = NEXT

    def at(self, i: Expr, j: Expr) -> Expr:
        return self.base + i * self.row + j * self.column

    def get(self, i: Expr, j: Expr) -> Expr:
        return cast(load(self.buffer, self.at(i, j)), f64)

    @property
    def transposed(self) -> Matrix:
        return Matrix(self.buffer, self.base, self.column, self.row)


@dataclass(frozen=True)
class Vector:
    """A line of numbers in a buffer."""

    buffer: Buffer
    base: Expr

    def get(self, i: Expr) -> Expr:
        return load(self.buffer, self.base + i)


class MatrixKernel:
    """The kernel of one factorization: a loop over the batch, and what its body is written with."""

    def __init__(self, places: Places, node: Node):
        self.places, self.node = places, node
        self.batch: Dim = numel(node.operands[0].shape[:-2])
        self.scope = Scope(places.lowering, node.op.name)
        sources = [(v, places.materialise(v)) for v in node.operands]
        results = [places.result_slot(r) for r in node.results()]
        self.targets = [self.scope.buffer(slot, "write") for slot in results]
        self.sources = [self.scope.buffer(slot) for _, slot in sources]

    @property
    def b(self) -> Builder:
        return self.scope.b

    def emit(self) -> None:
        nodes = (*self.node.operands, *self.node.results())
        if any(0 in v.shape for v in self.node.operands):
            self.empty()
            return
        m, n = self.node.operands[0].shape[-2:]
        work = cost.guess(m * n) * min(cost.guess(m), cost.guess(n))
        with task_rows(self.scope, self.batch, work, cost.grain([self.node], 8.0)) as row:
            self.place = row
            self.m, self.n = self.scope.expr(m), self.scope.expr(n)
            self.body()
        self.scope.launch(self.node.op.name, self.batch * work * 8, cost.traffic(nodes))

    def body(self) -> None:
        raise TypeError(
            f"{type(self).__name__} is one of several kernels: it has no body of its own"
        )

    def empty(self) -> None:
        """Results where an operand has no elements: q of an empty matrix is the unit matrix."""
        for value, slot in zip(self.node.results(), self.targets, strict=True):
            if 0 not in value.shape:
                self._fill_empty(value.shape, slot)
        if any(0 not in v.shape for v in self.node.results()):
            self.scope.launch(self.node.op.name, 0, 0)

    def _fill_empty(self, shape: tuple[Dim, ...], slot: Buffer) -> None:
        b, kind = self.b, KType(slot.dtype)
        with b.loop(self.scope.expr(numel(shape)), "serial", "i") as i:
            if slot.dtype is i64:  # the rows of lu in their order
                value = i % self.scope.expr(shape[-1])
            elif slot.dtype is i32:  # info
                value = Const(0, kind)
            else:
                width, rows = self.scope.expr(shape[-1]), self.scope.expr(shape[-2])
                on = binary("eq", i % width, (i // width) % rows)
                value = select(on, Const(1.0, kind), Const(0.0, kind))
            b.store(slot, i, value)

    # -- memory

    def source(self, which: int = 0) -> Matrix:
        m, n = self.node.operands[which].shape[-2:]
        width = self.scope.expr(n)
        base = self.b.let(self.place * self.scope.expr(m) * width, "x")
        return Matrix(self.sources[which], base, width)

    def target(self, which: int) -> Matrix:
        shape = self.node.types[which].shape
        width = self.scope.expr(shape[-1])
        base = self.b.let(self.place * self.scope.expr(shape[-2]) * width, "y")
        return Matrix(self.targets[which], base, width)

    def line_target(self, which: int, reads_back: bool = False) -> Vector:
        """A line of a result, which the kernel may also read (`reads_back`)."""
        if reads_back:
            self.targets[which].access = "readwrite"
        size = self.scope.expr(self.node.types[which].shape[-1])
        return Vector(self.targets[which], self.b.let(self.place * size, "y"))

    def working(self, rows: Dim, columns: Dim, name: str) -> Matrix:
        """Memory for one matrix of each of the batch, rows one after the other."""
        slot = self.places.lowering.temporary(f64, (self.batch, rows, columns), name=name)
        width = self.scope.expr(columns)
        base = self.b.let(self.place * self.scope.expr(rows) * width, name)
        return Matrix(self.scope.buffer(slot, "readwrite"), base, width)

    def working_line(self, dtype: DType, size: Dim, name: str) -> Vector:
        slot = self.places.lowering.temporary(dtype, (self.batch, size), name=name)
        base = self.b.let(self.place * self.scope.expr(size), name)
        return Vector(self.scope.buffer(slot, "readwrite"), base)

    def set(self, target: Matrix, i: Expr, j: Expr, value: Expr) -> None:
        self.b.store(target.buffer, target.at(i, j), cast(value, target.buffer.dtype))

    def put(self, target: Vector, i: Expr, value: Expr) -> None:
        self.b.store(target.buffer, target.base + i, cast(value, target.buffer.dtype))

    # -- loops

    def each(self, hi: Expr, name: str = "i", lo: Expr | int = 0, kind: str = "serial") -> Block:
        return self.b.loop(hi, kind, name, lo)

    def copy(self, source: Matrix, target: Matrix, rows: Expr, columns: Expr) -> None:
        with self.each(rows) as i, self.each(columns, "j", kind="vector") as j:
            self.set(target, i, j, source.get(i, j))

    def unit(self, target: Matrix, rows: Expr, columns: Expr) -> None:
        with self.each(rows) as i, self.each(columns, "j") as j:
            self.set(target, i, j, select(binary("eq", i, j), ONE, ZERO))

    def dot(
        self,
        a: Callable[[Expr], Expr],
        c: Callable[[Expr], Expr],
        hi: Expr,
        lo: Expr | int = 0,
        start: Expr = ZERO,
    ) -> Name:
        """start + the sum of a(k) * c(k) for k in lo..hi."""
        total = self.b.var(start, "sum")
        with self.each(hi, "k", lo, "vector") as k:
            self.b.assign(total, fma(a(k), c(k), total))
        return total

    def rotate(self, matrix: Matrix, p: Expr, q: Expr, count: Expr, c: Expr, s: Expr) -> None:
        """Rows p and q of `matrix` turned by the rotation (c, s)."""
        with self.each(count, "k", kind="vector") as k:
            x = self.b.let(matrix.get(p, k), "x")
            y = self.b.let(matrix.get(q, k), "y")
            self.set(matrix, p, k, binary("sub", binary("mul", c, x), binary("mul", s, y)))
            self.set(matrix, q, k, binary("add", binary("mul", s, x), binary("mul", c, y)))

    # -- numbers

    def first_largest(self, size: Callable[[Expr], Expr], hi: Expr) -> Expr:
        """The first position below `hi` that holds the largest size, up to `SLACK`."""
        b = self.b
        largest, place = b.var(Const(-1.0, F64), "largest"), b.var(Const(-1), "place")
        with self.each(hi) as i:
            b.assign(largest, binary("max", largest, size(i)))
        bound = b.let(binary("mul", largest, Const(1 - SLACK, F64)), "bound")
        with self.each(hi) as i:
            found = b.let(
                both(binary("lt", place, Const(0)), binary("ge", size(i), bound)), "found"
            )
            b.assign(place, select(found, i, place))
        return b.let(binary("max", place, Const(0)), "first")

    def measure(self, item: Callable[[Expr, Expr], Expr], rows: Expr, columns: Expr) -> None:
        """Sets `scale`, a power of two near the largest element, which no square overflows without,
        and `taint`: 0, or nan for a matrix with an inf or nan."""
        b = self.b
        largest, taint = b.var(Const(LEAST_SCALE, F64), "largest"), b.var(ZERO, "taint")
        with self.each(rows) as i, self.each(columns, "j") as j:
            x = b.let(item(i, j), "x")
            b.assign(largest, binary("maxnum", largest, magnitude(x)))
            b.assign(taint, binary("add", taint, binary("mul", x, ZERO)))
        bits = binary("and", unary("bitcast_int", largest), Const(EXPONENT))
        self.taint = taint
        self.finite = b.let(binary("eq", taint, ZERO), "finite")
        self.scale = b.let(select(self.finite, unary("bitcast_float", bits), ONE), "scale")

    def scaled(self, item: Expr) -> Expr:
        """An element over `scale`; 0 in a matrix that is not finite."""
        return select(self.finite, binary("div", item, self.scale), ZERO)

    def rescaled(self, item: Expr) -> Expr:
        """An element of the result that is proportional to the matrix."""
        return self.tainted(binary("mul", item, self.scale))

    def tainted(self, item: Expr) -> Expr:
        return binary("add", item, self.taint)
