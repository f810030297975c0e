"""Singular values by one-sided Jacobi rotations, eigenvalues of symmetric matrices by two-sided
ones.

Both converge quadratically, and a bound on the sweeps makes the loops finite (G. Golub, C. Van
Loan, "Matrix Computations", 4th ed., 8.5 and 8.6.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.dtype import f64, i64
from graphtorch.ir.ops.factor_reference import SAME

from ...kernels.ir import Const, Expr, Name, binary, cast, select, unary
from .matrices import F64, ONE, ZERO, Matrix, MatrixKernel, Vector, both, magnitude, sqrt

SWEEPS = 40  # of Jacobi rotations: six to ten are enough for anything but adversarial matrices
TINY = 2.0**-52


class Spectral(MatrixKernel):
    """Jacobi rotations, and the order and direction of vectors."""

    def angle(self, difference: Expr, off: Expr) -> tuple[Expr, Expr]:
        """c = cos and s = sin of the smaller angle that makes `off` vanish; `difference` is that of
        the two diagonal elements."""
        b = self.b
        zeta = b.let(binary("div", difference, binary("mul", Const(2.0, F64), off)), "zeta")
        root = sqrt(binary("add", ONE, binary("mul", zeta, zeta)))
        size = binary("div", ONE, binary("add", magnitude(zeta), root))
        t = b.let(select(binary("lt", zeta, ZERO), unary("neg", size), size), "t")
        c = b.let(binary("div", ONE, sqrt(binary("add", ONE, binary("mul", t, t)))), "c")
        return c, b.let(binary("mul", c, t), "s")

    @contextmanager
    def pairs(self, count: Expr) -> Iterator[tuple[Expr, Expr, Name]]:
        """Sweeps over all pairs p < q, until one in which `turned` stays 0."""
        b = self.b
        active = b.var(Const(1), "active")
        with self.each(Const(SWEEPS), "sweep"), b.when(binary("eq", active, Const(1))):
            b.assign(active, Const(0))
            with self.each(count, "p") as p, self.each(count, "q", p + 1) as q:
                yield p, q, active

    def sort(self, values: Vector, order: Vector, count: Expr, before: str) -> None:
        """order[r] becomes the position of the value of rank r, by counting those that come
        before."""
        b = self.b
        with self.each(count, "j") as j:
            rank = b.var(Const(0), "rank")
            own = b.let(values.get(j), "own")
            with self.each(count, "i") as i:
                other = b.let(values.get(i), "other")
                ties = both(binary("eq", other, own), binary("lt", i, j))
                b.assign(
                    rank,
                    binary("add", rank, cast(binary("or", binary(before, other, own), ties), i64)),
                )
            self.put(order, rank, j)

    def limit(self, values: Vector, count: Expr) -> Expr:
        """What two values may differ by that count as equal."""
        b = self.b
        largest = b.var(ZERO, "largest")
        with self.each(count) as i:
            b.assign(largest, binary("max", largest, magnitude(values.get(i))))
        return b.let(binary("mul", largest, Const(SAME, F64)), "limit")

    def settle(
        self, values: Vector, order: Vector, limit: Expr, *matrices: tuple[Matrix, Expr]
    ) -> None:
        """Turn the vectors of equal values as the record says: rows of the first of `matrices` (and
        their length), which is square, decide; those of the others are turned along."""
        b, (matrix, count) = self.b, matrices[0]
        end = b.var(Const(0), "end")
        with self.each(count, "r") as r:
            own = b.let(order.get(r), "own")
            with b.when(binary("eq", r, end)):
                self.find_end(values, order, limit, r, end, count)
            stop = b.let(end, "stop")
            axis = self.axis(matrix, order, r, stop, count)
            with self.each(stop, "j", r + 1) as j:
                other = b.let(order.get(j), "other")
                x, y = b.let(matrix.get(own, axis), "x"), b.let(matrix.get(other, axis), "y")
                length = b.let(
                    sqrt(binary("add", binary("mul", x, x), binary("mul", y, y))), "length"
                )
                with b.when(binary("gt", length, ZERO)):
                    c = b.let(binary("div", x, length), "c")
                    s = b.let(binary("div", unary("neg", y), length), "s")
                    for turned, width in matrices:
                        self.rotate(turned, own, other, width, c, s)
            with b.when(binary("lt", matrix.get(own, axis), ZERO)):
                for turned, width in matrices:
                    with self.each(width, "i", kind="vector") as i:
                        self.set(turned, own, i, unary("neg", turned.get(own, i)))

    def find_end(
        self, values: Vector, order: Vector, limit: Expr, r: Expr, end: Name, count: Expr
    ) -> None:
        """`end` becomes the rank after the last value that is equal to that of rank `r`."""
        b = self.b
        first = b.let(values.get(b.let(order.get(r), "at")), "first")
        with self.each(count, "j", r) as j:
            gap = binary("sub", values.get(b.let(order.get(j), "at")), first)
            b.assign(end, binary("add", end, cast(binary("le", magnitude(gap), limit), i64)))

    def axis(self, rows: Matrix, order: Vector, first: Expr, stop: Expr, count: Expr) -> Expr:
        """Where the rows of rank `first` .. `stop` have most together."""
        b = self.b

        def size(i: Expr) -> Expr:
            total = b.var(ZERO, "total")
            with self.each(stop, "j", first) as j:
                part = b.let(rows.get(b.let(order.get(j), "at"), i), "part")
                b.assign(total, binary("add", total, binary("mul", part, part)))
            return total

        return self.first_largest(size, count)


class Svd(Spectral):
    """Rotations make the columns of x orthogonal; their lengths are the singular values."""

    def body(self) -> None:
        m, n = self.node.operands[0].shape[-2:]
        wide = not m >= n
        rows, columns = (n, m) if wide else (m, n)
        self.k, self.long = self.scope.expr(columns), self.scope.expr(rows)
        x = self.source()
        x = x.transposed if wide else x
        self.measure(x.get, self.long, self.k)
        w = self.working(columns, rows, "w")  # row j is column j of x
        v = self.working(columns, columns, "v")
        with self.each(self.k) as i, self.each(self.long, "j", kind="vector") as j:
            self.set(w, i, j, self.scaled(x.get(j, i)))
        self.unit(v, self.k, self.k)
        self.orthogonalise(w, v)
        lengths = self.working_line(f64, columns, "length")
        order = self.working_line(i64, columns, "order")
        with self.each(self.k, "j") as j:
            total = self.dot(lambda k: w.get(j, k), lambda k: w.get(j, k), self.long)
            self.put(lengths, j, sqrt(total))
        self.sort(lengths, order, self.k, "gt")
        limit = self.limit(lengths, self.k)
        self.settle(lengths, order, limit, (v, self.k), (w, self.long))
        left, right = self.target(0), self.target(2)
        near, far = (right.transposed, left.transposed) if wide else (left, right)
        self.deliver(w, v, lengths, order, limit, near, far)

    def orthogonalise(self, w: Matrix, v: Matrix) -> None:
        b = self.b
        with self.pairs(self.k) as (p, q, active):
            alpha = self.dot(lambda k: w.get(p, k), lambda k: w.get(p, k), self.long)
            beta = self.dot(lambda k: w.get(q, k), lambda k: w.get(q, k), self.long)
            gamma = self.dot(lambda k: w.get(p, k), lambda k: w.get(q, k), self.long)
            limit = binary("mul", Const(TINY, F64), binary("mul", sqrt(alpha), sqrt(beta)))
            with b.when(binary("gt", magnitude(gamma), limit)):
                b.assign(active, Const(1))
                c, s = self.angle(binary("sub", beta, alpha), gamma)
                self.rotate(w, p, q, self.long, c, s)
                self.rotate(v, p, q, self.k, c, s)

    def deliver(
        self,
        w: Matrix,
        v: Matrix,
        lengths: Vector,
        order: Vector,
        limit: Expr,
        near: Matrix,
        far: Matrix,
    ) -> None:
        """Columns in order; those of vanishing length are completed to an orthonormal set."""
        b = self.b
        values = self.line_target(1)
        with self.each(self.k, "r") as r:
            j = b.let(order.get(r), "j")
            length = b.let(lengths.get(j), "length")
            self.put(values, r, self.rescaled(length))
            with self.each(self.k, "i", kind="vector") as i:
                self.set(far, r, i, self.tainted(v.get(j, i)))
            with b.when(binary("gt", length, limit)), self.each(self.long, "i", kind="vector") as i:
                self.set(w, j, i, binary("div", w.get(j, i), length))
            with b.otherwise():
                self.complete(w, order, r, j)
            with self.each(self.long, "i") as i:
                self.set(near, i, r, self.tainted(w.get(j, i)))

    def complete(self, w: Matrix, order: Vector, r: Expr, j: Expr) -> None:
        """Row j of w becomes a unit vector orthogonal to the rows already delivered: of the axis
        that has the largest part outside of them."""
        b = self.b

        def outside(i: Expr) -> Expr:
            rest = b.var(ONE, "rest")
            with self.each(r, "d") as d:
                part = b.let(w.get(b.let(order.get(d), "other"), i), "part")
                b.assign(rest, binary("sub", rest, binary("mul", part, part)))
            return rest

        best = self.first_largest(outside, self.long)
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


class Eigh(Spectral):
    """Cyclic rotations of rows and columns make the matrix diagonal."""

    def body(self) -> None:
        b, n = self.b, self.node.operands[0].shape[-1]
        x, w, v = self.source(), self.working(n, n, "w"), self.working(n, n, "v")
        self.diagonalise(x, w, v)
        diagonal = self.working_line(f64, n, "diagonal")
        order = self.working_line(i64, n, "order")
        with self.each(self.n, "j") as j:
            self.put(diagonal, j, w.get(j, j))
        self.sort(diagonal, order, self.n, "lt")
        self.settle(diagonal, order, self.limit(diagonal, self.n), (v, self.n))
        values, vectors = self.line_target(0), self.target(1)
        with self.each(self.n, "r") as r:
            j = b.let(order.get(r), "j")
            self.put(values, r, self.rescaled(diagonal.get(j)))
            with self.each(self.n, "i") as i:
                self.set(vectors, i, r, self.tainted(v.get(j, i)))

    def diagonalise(self, x: Matrix, w: Matrix, v: Matrix) -> None:
        """`w`, at first the lower triangle of `x`, becomes diagonal, and the rows of `v` its
        vectors."""
        b = self.b

        def symmetric(i: Expr, j: Expr) -> Expr:
            lower = binary("ge", i, j)
            return x.get(select(lower, i, j), select(lower, j, i))

        self.measure(symmetric, self.n, self.n)
        with self.each(self.n) as i, self.each(self.n, "j") as j:
            self.set(w, i, j, self.scaled(symmetric(i, j)))
        self.unit(v, self.n, self.n)
        limit = b.let(binary("mul", Const(TINY * 1e-3, F64), self.norm(w)), "limit")
        with self.pairs(self.n) as (p, q, active):
            off = b.let(w.get(p, q), "off")
            with b.when(binary("gt", magnitude(off), limit)):
                b.assign(active, Const(1))
                c, s = self.angle(binary("sub", w.get(q, q), w.get(p, p)), off)
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
