"""Factorizations by reflections and by elimination; those by rotations are in `spectral`."""

from __future__ import annotations

from graphtorch.ir.dtype import f64, i32
from graphtorch.ir.graph import Node
from graphtorch.ir.ops.factor_reference import SAME
from graphtorch.ir.shape import numel

from ...kernels.body.scope import Scope
from ...kernels.ir import Const, Expr, KType, binary, cast, select, unary
from ..loops.places import Places
from .matrices import F64, ZERO, Matrix, MatrixKernel, Vector, both, magnitude, minus_product, sqrt
from .spectral import Eigh, Svd


class Qr(MatrixKernel):
    """Householder reflections (Golub, Van Loan, 5.2): the matrix becomes r, the unit matrix q."""

    def body(self) -> None:
        m, n = self.node.operands[0].shape[-2:]
        k = self.node.types[0].shape[-1]
        self.k = self.scope.expr(k)
        x, w = self.source(), self.working(n, m, "w")  # row j is column j of x
        self.measure(x.get, self.m, self.n)
        with self.each(self.n) as i, self.each(self.m, "j", kind="vector") as j:
            self.set(w, i, j, self.scaled(x.get(j, i)))
        tiny = self.working_line(f64, n, "tiny")
        with self.each(self.n, "j") as j:
            length = sqrt(self.dot(lambda k: w.get(j, k), lambda k: w.get(j, k), self.m))
            self.put(tiny, j, binary("mul", length, Const(SAME, F64)))
        reflectors, q = self.working(m, m, "h"), self.working(k, m, "q")
        steps = self.b.let(binary("min", self.m, self.n), "steps")
        with self.each(steps, "j") as j:
            self.reflector(w, reflectors, j, self.b.let(tiny.get(j), "least"))
            self.reflect(w, reflectors, j, self.n, j)
        self.unit(q, self.k, self.m)
        with self.each(steps, "back") as back:
            j = self.b.let(steps - 1 - back, "j")
            self.reflect(q, reflectors, j, self.k, Const(0))
        q_target, r_target = self.target(0), self.target(1)
        with self.each(self.m) as i, self.each(self.k, "j") as j:
            self.set(q_target, i, j, self.tainted(q.get(j, i)))
        with self.each(self.k) as i, self.each(self.n, "j") as j:
            self.set(r_target, i, j, select(binary("le", i, j), self.rescaled(w.get(j, i)), ZERO))

    def reflector(self, w: Matrix, reflectors: Matrix, j: Expr, tiny: Expr) -> None:
        """Row j of `reflectors`: the u, of length sqrt(2), with (1 - u u^T) w[j, j:] along the
        first axis; 0 where everything but the first element of w[j, j:] is `tiny`."""
        b = self.b
        first = b.let(w.get(j, j), "first")
        below = self.dot(lambda k: w.get(j, k), lambda k: w.get(j, k), self.m, j + 1)
        with self.each(self.m, lo=j) as i:
            self.set(reflectors, j, i, ZERO)
        with b.when(binary("gt", sqrt(below), tiny)):
            length = b.let(sqrt(binary("add", below, binary("mul", first, first))), "length")
            negative = binary("lt", first, unary("neg", tiny))
            head = b.let(
                binary("add", first, select(negative, unary("neg", length), length)), "head"
            )
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


class Cholesky(MatrixKernel):
    """Column by column; a pivot that is not positive ends the factorization and is reported in
    info."""

    def body(self) -> None:
        b, n = self.b, self.node.operands[0].shape[-1]
        x, w = self.source(), self.working(n, n, "w")
        column = self.working_line(f64, n, "column")
        with self.each(self.n) as i, self.each(self.n, "j") as j:
            self.set(w, i, j, select(binary("le", j, i), x.get(i, j), ZERO))
        info = b.var(Const(0), "info")
        with self.each(self.n, "j") as j:
            good = both(binary("gt", w.get(j, j), ZERO), binary("eq", info, Const(0)))
            with b.when(b.let(good, "good")):
                self.eliminate(w, column, j)
            with b.otherwise():
                b.assign(info, select(binary("eq", info, Const(0)), j + 1, info))
                with self.each(self.n, "i", j) as i:
                    self.set(w, i, j, ZERO)
        self.copy(w, self.target(0), self.n, self.n)
        b.store(self.targets[1], self.place, cast(info, i32))

    def eliminate(self, w: Matrix, column: Vector, j: Expr) -> None:
        """Column j of the factor, taken out of those after it."""
        b = self.b
        root = b.let(sqrt(w.get(j, j)), "root")
        self.set(w, j, j, root)
        with self.each(self.n, "i", j + 1) as i:
            part = b.let(binary("div", w.get(i, j), root), "part")
            self.set(w, i, j, part)
            self.put(column, i, part)
        with self.each(self.n, "i", j + 1) as i:
            own = b.let(column.get(i), "own")
            with self.each(i + 1, "k", j + 1, "vector") as k:
                self.set(w, i, k, minus_product(w.get(i, k), own, column.get(k)))


class Lu(MatrixKernel):
    """Partial pivoting, column by column."""

    def body(self) -> None:
        b = self.b
        m, n = self.node.operands[0].shape[-2:]
        w = self.working(m, n, "w")
        self.copy(self.source(), w, self.m, self.n)
        order, pivots = self.line_target(1, reads_back=True), self.line_target(2)
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
                self.set(w, i, k, minus_product(w.get(i, k), factor, w.get(j, k)))


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
            with self.each(step, "known") as known:
                d = b.let(self.n - 1 - known if attrs.upper else known, "d")
                factor = b.let(a.get(i, d), "factor")
                with self.each(columns, "j", kind="vector") as j:
                    self.set(w, i, j, minus_product(w.get(i, j), factor, w.get(d, j)))
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


def lower_factor(places: Places, node: Node) -> None:
    """One kernel for one of KERNELS."""
    KERNELS[node.op.name](places, node).emit()


def lower_require(places: Places, node: Node) -> None:
    """The first operand as it is, and a report of failure where an info is not 0."""
    x, info = node.operands
    source = places.materialise(info)
    places.fill(x, places.result_slot(node.result()))
    scope = Scope(places.lowering, "require")
    site = places.lowering.fail_site(node, node.attrs.message, node.attrs.kind)
    with scope.loop(numel(info.shape)) as i:
        scope.fails(binary("ne", scope.read(source, i), Const(0, KType(i32))), site)
    scope.launch("require", 0, 0)
