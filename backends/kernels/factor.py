"""Factorizations of small matrices: each task takes whole matrices of the batch, one after the other.

Everything is computed in f64, in memory of its own for each matrix, and rounded once. Singular values by
one-sided Jacobi rotations, eigenvalues by two-sided ones (G. Golub, C. Van Loan, "Matrix Computations",
4th ed., 8.5 and 8.6.3): both converge quadratically, and a bound on the sweeps makes the loops finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphtorch.ir.dtype import DType, boolean, f64, i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, numel

from . import cost
from .ir import Block, Buffer, Builder, Const, Expr, KType, Name, binary, cast, fma, load, select, unary
from .loops import task_rows
from .scope import Scope

if TYPE_CHECKING:  # stages.py runs what is defined here
    from .stages import Stages

SWEEPS = 40  # of Jacobi rotations: six to ten are enough for anything but adversarial matrices
TINY = 2.0**-52
F64 = KType(f64)
NEXT = Const(1)
ZERO, ONE = Const(0.0, F64), Const(1.0, F64)


def sqrt(x: Expr) -> Expr:
    return unary("sqrt", x)


def magnitude(x: Expr) -> Expr:
    return unary("abs", x)


def both(a: Expr, b: Expr) -> Expr:
    return binary("and", a, b)


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

    def __init__(self, stages: Stages, node: Node):
        self.stages, self.node = stages, node
        self.batch: Dim = numel(node.operands[0].shape[:-2])
        self.scope = Scope(stages.lowering, node.op.name)
        sources = [(v, stages.materialise(v)) for v in node.operands]
        results = [stages.result_slot(r) for r in node.results()]
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
        raise TypeError(f"{type(self).__name__} is one of several kernels: it has no body of its own")

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

    def line_target(self, which: int) -> Vector:
        size = self.scope.expr(self.node.types[which].shape[-1])
        return Vector(self.targets[which], self.b.let(self.place * size, "y"))

    def working(self, rows: Dim, columns: Dim, name: str) -> Matrix:
        """Memory for one matrix of each of the batch, rows one after the other."""
        slot = self.stages.lowering.temporary(f64, (self.batch, rows, columns), name=name)
        width = self.scope.expr(columns)
        base = self.b.let(self.place * self.scope.expr(rows) * width, name)
        return Matrix(self.scope.buffer(slot, "readwrite"), base, width)

    def working_line(self, dtype: DType, size: Dim, name: str) -> Vector:
        slot = self.stages.lowering.temporary(dtype, (self.batch, size), name=name)
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

    def angle(self, difference: Expr, off: Expr) -> tuple[Expr, Expr, Expr]:
        """t = tan, c = cos and s = sin of the smaller angle that makes `off` vanish; `difference` is that of
        the two diagonal elements."""
        b = self.b
        zeta = b.let(binary("div", difference, binary("mul", Const(2.0, F64), off)), "zeta")
        root = sqrt(binary("add", ONE, binary("mul", zeta, zeta)))
        size = binary("div", ONE, binary("add", magnitude(zeta), root))
        t = b.let(select(binary("lt", zeta, ZERO), unary("neg", size), size), "t")
        c = b.let(binary("div", ONE, sqrt(binary("add", ONE, binary("mul", t, t)))), "c")
        return t, c, b.let(binary("mul", c, t), "s")

    @contextmanager
    def pairs(self, count: Expr) -> Iterator[tuple[Expr, Expr, Name]]:
        """Sweeps over all pairs p < q, until one in which `turned` stays 0."""
        b = self.b
        active = b.var(Const(1), "active")
        with self.each(Const(SWEEPS), "sweep"), b.when(binary("eq", active, Const(1))):
            b.assign(active, Const(0))
            with self.each(count, "p") as p, self.each(count, "q", p + 1) as q:
                yield p, q, active


# ------------------------------------------------------------------------------------------ singular values


class Svd(MatrixKernel):
    """One-sided Jacobi: rotations make the columns of x orthogonal; their lengths are the singular values."""

    def body(self) -> None:
        m, n = self.node.operands[0].shape[-2:]
        wide = not m >= n
        rows, columns = (n, m) if wide else (m, n)
        self.k, self.long = self.scope.expr(columns), self.scope.expr(rows)
        x = self.source()
        x = x.transposed if wide else x
        w = self.working(columns, rows, "w")  # row j is column j of x
        v = self.working(columns, columns, "v")
        self.copy(x.transposed, w, self.k, self.long)
        self.unit(v, self.k, self.k)
        self.orthogonalise(w, v)
        lengths = self.working_line(f64, columns, "length")
        order = self.working_line(i64, columns, "order")
        self.measure(w, lengths)
        self.sort(lengths, order)
        left, right = self.target(0), self.target(2)
        near, far = (right.transposed, left.transposed) if wide else (left, right)
        self.deliver(w, v, lengths, order, near, far)

    def orthogonalise(self, w: Matrix, v: Matrix) -> None:
        b = self.b
        with self.pairs(self.k) as (p, q, active):
            alpha = self.dot(lambda k: w.get(p, k), lambda k: w.get(p, k), self.long)
            beta = self.dot(lambda k: w.get(q, k), lambda k: w.get(q, k), self.long)
            gamma = self.dot(lambda k: w.get(p, k), lambda k: w.get(q, k), self.long)
            limit = binary("mul", Const(TINY, F64), binary("mul", sqrt(alpha), sqrt(beta)))
            with b.when(binary("gt", magnitude(gamma), limit)):
                b.assign(active, Const(1))
                _, c, s = self.angle(binary("sub", beta, alpha), gamma)
                self.rotate(w, p, q, self.long, c, s)
                self.rotate(v, p, q, self.k, c, s)

    def measure(self, w: Matrix, lengths: Vector) -> None:
        with self.each(self.k, "j") as j:
            total = self.dot(lambda k: w.get(j, k), lambda k: w.get(j, k), self.long)
            self.put(lengths, j, sqrt(total))

    def sort(self, lengths: Vector, order: Vector) -> None:
        """The column of rank r, by counting the longer ones."""
        b = self.b
        with self.each(self.k, "j") as j:
            rank = b.var(Const(0), "rank")
            own = b.let(lengths.get(j), "own")
            with self.each(self.k, "i") as i:
                other = b.let(lengths.get(i), "other")
                ties = both(binary("eq", other, own), binary("lt", i, j))
                b.assign(rank, binary("add", rank, cast(binary("or", binary("gt", other, own), ties), i64)))
            self.put(order, rank, j)

    def deliver(
        self, w: Matrix, v: Matrix, lengths: Vector, order: Vector, near: Matrix, far: Matrix
    ) -> None:
        """Columns in order; those of vanishing length are completed to an orthonormal set."""
        b = self.b
        longest = b.let(lengths.get(b.let(order.get(Const(0)), "first")), "longest")
        noise = binary("mul", Const(TINY, F64), binary("mul", longest, cast(self.long, f64)))
        limit = b.let(binary("max", noise, Const(1e-300, F64)), "limit")
        values = self.line_target(1)
        with self.each(self.k, "r") as r:
            j = b.let(order.get(r), "j")
            length = b.let(lengths.get(j), "length")
            self.put(values, r, length)
            with self.each(self.k, "i", kind="vector") as i:
                self.set(far, r, i, v.get(j, i))
            with b.when(binary("gt", length, limit)), self.each(self.long, "i", kind="vector") as i:
                self.set(w, j, i, binary("div", w.get(j, i), length))
            with b.otherwise():
                self.complete(w, order, r, j)
            with self.each(self.long, "i") as i:
                self.set(near, i, r, w.get(j, i))

    def complete(self, w: Matrix, order: Vector, r: Expr, j: Expr) -> None:
        """Row j of w becomes a unit vector orthogonal to the rows already delivered: of the axis that has
        the largest part outside of them."""
        b = self.b
        best, largest = b.var(Const(0), "best"), b.var(Const(-1.0, F64), "largest")
        with self.each(self.long, "i") as i:
            rest = b.var(ONE, "rest")
            with self.each(r, "d") as d:
                part = b.let(w.get(b.let(order.get(d), "other"), i), "part")
                b.assign(rest, binary("sub", rest, binary("mul", part, part)))
            with b.when(binary("gt", rest, largest)):
                b.assign(largest, rest)
                b.assign(best, i)
        with self.each(self.long, "i") as i:
            self.set(w, j, i, select(binary("eq", i, best), ONE, ZERO))
        with self.each(Const(2), "again"), self.each(r, "d") as d:
            other = b.let(order.get(d), "other")
            part = self.dot(lambda k: w.get(j, k), lambda k: w.get(other, k), self.long)
            with self.each(self.long, "i", kind="vector") as i:
                self.set(w, j, i, binary("sub", w.get(j, i), binary("mul", part, w.get(other, i))))
        total = self.dot(lambda k: w.get(j, k), lambda k: w.get(j, k), self.long)
        length = b.let(sqrt(total), "length")
        with self.each(self.long, "i", kind="vector") as i:
            self.set(w, j, i, binary("div", w.get(j, i), length))


# ------------------------------------------------------------------------------------------ eigenvalues


class Eigh(MatrixKernel):
    """Cyclic Jacobi: rotations of rows and columns make the matrix diagonal."""

    def body(self) -> None:
        n = self.node.operands[0].shape[-1]
        x = self.source()
        w, v = self.working(n, n, "w"), self.working(n, n, "v")
        with self.each(self.n) as i, self.each(self.n, "j") as j:
            lower = binary("ge", i, j)
            self.set(w, i, j, x.get(select(lower, i, j), select(lower, j, i)))
        self.unit(v, self.n, self.n)
        self.diagonalise(w, v)
        values, vectors = self.line_target(0), self.target(1)
        b = self.b
        with self.each(self.n, "j") as j:
            own, rank = b.let(w.get(j, j), "own"), b.var(Const(0), "rank")
            with self.each(self.n, "i") as i:
                other = b.let(w.get(i, i), "other")
                ties = both(binary("eq", other, own), binary("lt", i, j))
                b.assign(rank, binary("add", rank, cast(binary("or", binary("lt", other, own), ties), i64)))
            self.put(values, rank, own)
            with self.each(self.n, "i") as i:
                self.set(vectors, i, rank, v.get(j, i))

    def diagonalise(self, w: Matrix, v: Matrix) -> None:
        b = self.b
        size = self.norm(w)
        limit = b.let(binary("mul", Const(TINY * 1e-3, F64), size), "limit")
        with self.pairs(self.n) as (p, q, active):
            off = b.let(w.get(p, q), "off")
            with b.when(binary("gt", magnitude(off), limit)):
                b.assign(active, Const(1))
                _, c, s = self.angle(binary("sub", w.get(q, q), w.get(p, p)), off)
                self.rotate(w, p, q, self.n, c, s)
                self.rotate(w.transposed, p, q, self.n, c, s)
                self.rotate(v, p, q, self.n, c, s)
                self.set(w, p, q, ZERO)
                self.set(w, q, p, ZERO)

    def norm(self, w: Matrix) -> Expr:
        total = self.b.var(ZERO, "total")
        with self.each(self.n) as i, self.each(self.n, "j", kind="vector") as j:
            x = w.get(i, j)
            self.b.assign(total, binary("add", total, binary("mul", x, x)))
        return self.b.let(sqrt(total), "size")


# ------------------------------------------------------------------------------------------ orthogonal factor


class Qr(MatrixKernel):
    """Householder reflections (Golub, Van Loan, 5.2): the matrix becomes r, the unit matrix q."""

    def body(self) -> None:
        m, n = self.node.operands[0].shape[-2:]
        k = self.node.types[0].shape[-1]
        self.k = self.scope.expr(k)
        x, w = self.source(), self.working(n, m, "w")  # row j is column j of x
        self.copy(x.transposed, w, self.n, self.m)
        reflectors, q = self.working(m, m, "h"), self.working(k, m, "q")
        steps = self.b.let(binary("min", self.m, self.n), "steps")
        with self.each(steps, "j") as j:
            self.reflector(w, reflectors, j)
            self.reflect(w, reflectors, j, self.n, j)
        self.unit(q, self.k, self.m)
        with self.each(steps, "back") as back:
            j = self.b.let(steps - 1 - back, "j")
            self.reflect(q, reflectors, j, self.k, Const(0))
        self.copy(q.transposed, self.target(0), self.m, self.k)
        r = self.target(1)
        with self.each(self.k) as i, self.each(self.n, "j") as j:
            self.set(r, i, j, select(binary("le", i, j), w.get(j, i), ZERO))

    def reflector(self, w: Matrix, reflectors: Matrix, j: Expr) -> None:
        """Row j of `reflectors`: the u, of length sqrt(2), with (1 - u u^T) w[j, j:] along the first axis."""
        b = self.b
        first = b.let(w.get(j, j), "first")
        below = self.dot(lambda k: w.get(j, k), lambda k: w.get(j, k), self.m, j + 1)
        with self.each(self.m, lo=j) as i:
            self.set(reflectors, j, i, ZERO)
        with b.when(binary("gt", below, ZERO)):
            length = b.let(sqrt(binary("add", below, binary("mul", first, first))), "length")
            signed = select(binary("lt", first, ZERO), unary("neg", length), length)
            head = b.let(binary("add", first, signed), "head")
            norm = sqrt(binary("add", below, binary("mul", head, head)))
            scale = b.let(binary("div", Const(2.0**0.5, F64), norm), "scale")
            with self.each(self.m, lo=j) as i:
                part = select(binary("eq", i, j), head, w.get(j, i))
                self.set(reflectors, j, i, binary("mul", part, scale))

    def reflect(self, matrix: Matrix, reflectors: Matrix, j: Expr, rows: Expr, first: Expr) -> None:
        """Rows `first`.. of `matrix` reflected by reflector j."""
        with self.each(rows, "row", first) as row:
            part = self.dot(lambda k: matrix.get(row, k), lambda k: reflectors.get(j, k), self.m, j)
            with self.each(self.m, "i", j, "vector") as i:
                moved = binary("mul", part, reflectors.get(j, i))
                self.set(matrix, row, i, binary("sub", matrix.get(row, i), moved))


# ------------------------------------------------------------------------------------------ elimination


class Cholesky(MatrixKernel):
    """Row by row; a pivot that is not positive ends the factorization and is reported in info."""

    def body(self) -> None:
        b, n = self.b, self.node.operands[0].shape[-1]
        x, w = self.source(), self.working(n, n, "w")
        info = b.var(Const(0), "info")
        with self.each(self.n) as i, self.each(self.n, "j", kind="vector") as j:
            self.set(w, i, j, ZERO)
        with self.each(self.n, "i") as i, self.each(i + 1, "j") as j:
            total = self.dot(lambda k: w.get(i, k), lambda k: w.get(j, k), j)
            rest = b.let(binary("sub", x.get(i, j), total), "rest")
            with b.when(binary("eq", i, j)):
                good = binary("gt", rest, ZERO)
                failed = both(binary("eq", info, Const(0)), binary("eq", good, Const(False, KType(boolean))))
                b.assign(info, select(failed, i + 1, info))
                self.set(w, i, i, select(good, sqrt(rest), ONE))
            with b.otherwise():
                self.set(w, i, j, binary("div", rest, w.get(j, j)))
        self.copy(w, self.target(0), self.n, self.n)
        b.store(self.targets[1], self.place, cast(info, i32))


class Lu(MatrixKernel):
    """Partial pivoting, column by column."""

    def body(self) -> None:
        b = self.b
        m, n = self.node.operands[0].shape[-2:]
        w = self.working(m, n, "w")
        self.copy(self.source(), w, self.m, self.n)
        order, pivots = self.line_target(1), self.line_target(2)
        with self.each(self.m) as i:
            self.put(order, i, i)
        info = b.var(Const(0), "info")
        steps = b.let(binary("min", self.m, self.n), "steps")
        with self.each(steps, "j") as j:
            best = self.pivot(w, j)
            self.put(pivots, j, best)
            self.exchange(w, order, j, best)
            top = b.let(w.get(j, j), "top")
            with b.when(binary("eq", top, ZERO)):
                b.assign(info, select(binary("eq", info, Const(0)), j + 1, info))
            with b.otherwise():
                self.eliminate(w, j, top)
        self.copy(w, self.target(0), self.m, self.n)
        b.store(self.targets[3], self.place, cast(info, i32))

    def pivot(self, w: Matrix, j: Expr) -> Expr:
        b = self.b
        best, largest = b.var(j, "best"), b.var(Const(-1.0, F64), "largest")
        with self.each(self.m, "i", j) as i:
            size = b.let(magnitude(w.get(i, j)), "size")
            with b.when(binary("gt", size, largest)):
                b.assign(largest, size)
                b.assign(best, i)
        return best

    def exchange(self, w: Matrix, order: Vector, j: Expr, best: Expr) -> None:
        b = self.b
        with self.each(self.n, "k", kind="vector") as k:
            x, y = b.let(w.get(j, k), "x"), b.let(w.get(best, k), "y")
            self.set(w, j, k, y)
            self.set(w, best, k, x)
        first, second = b.let(order.get(j), "first"), b.let(order.get(best), "second")
        self.put(order, j, second)
        self.put(order, best, first)

    def eliminate(self, w: Matrix, j: Expr, top: Expr) -> None:
        b = self.b
        with self.each(self.m, "i", j + 1) as i:
            factor = b.let(binary("div", w.get(i, j), top), "factor")
            self.set(w, i, j, factor)
            with self.each(self.n, "k", j + 1, "vector") as k:
                self.set(w, i, k, binary("sub", w.get(i, k), binary("mul", factor, w.get(j, k))))


class Triangular(MatrixKernel):
    """Substitution, forward or backward, for all columns of b at once."""

    def body(self) -> None:
        b, attrs = self.b, self.node.attrs
        k = self.node.operands[1].shape[-1]
        columns = self.scope.expr(k)
        a, w = self.source(0), self.working(self.node.operands[1].shape[-2], k, "w")
        self.copy(self.source(1), w, self.n, columns)
        with self.each(self.n, "step") as step:
            i = b.let(self.n - 1 - step if attrs.upper else step, "i")
            lo, hi = (i + 1, self.n) if attrs.upper else (Const(0), i)
            with self.each(hi, "d", lo) as d:
                factor = b.let(a.get(i, d), "factor")
                with self.each(columns, "j", kind="vector") as j:
                    self.set(w, i, j, binary("sub", w.get(i, j), binary("mul", factor, w.get(d, j))))
            if not attrs.unit:
                top = b.let(a.get(i, i), "top")
                with self.each(columns, "j", kind="vector") as j:
                    self.set(w, i, j, binary("div", w.get(i, j), top))
        self.copy(w, self.target(0), self.n, columns)


KERNELS: dict[str, type[MatrixKernel]] = {
    "svd": Svd,
    "eigh": Eigh,
    "qr": Qr,
    "cholesky": Cholesky,
    "lu": Lu,
    "triangular_solve": Triangular,
}


def lower_factor(stages: Stages, node: Node) -> None:
    """One kernel for one of KERNELS."""
    KERNELS[node.op.name](stages, node).emit()


def lower_require(stages: Stages, node: Node) -> None:
    """The first operand as it is, and a report of failure where an info is not 0."""
    x, info = node.operands
    source = stages.materialise(info)
    stages.fill(x, stages.result_slot(node.result()))
    scope = Scope(stages.lowering, "require")
    site = stages.lowering.fail_site(node, node.attrs.message, "linalg")
    with scope.loop(numel(info.shape)) as i:
        scope.fails(binary("ne", scope.read(source, i), Const(0, KType(i32))), site)
    scope.launch("require", 0, 0)
