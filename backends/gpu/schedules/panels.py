"""What attention by blocks of threads is made of: rows of operands in shared memory, and their
products.

A block has *own* rows, and meets *others* some at a time: queries and keys, or keys and queries.
Products of own rows by others stay in the registers of the threads, and weigh the others in a
second product. Floats of 2 bytes are multiplied by warps on tensor cores, where the sums of the
first product lie just as the second one takes its left side; wider ones by multiply-adds, where the
weights pass through shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from graphtorch.ir.dtype import DType, f32, u32
from graphtorch.ir.shape import evaluate

from ...dataclass import dataclass
from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Source, stride
from ...kernels.ir import (
    Buffer,
    Const,
    Copy,
    Expr,
    KType,
    LoadMatrices,
    MultiplyMatrices,
    Name,
    binary,
    cast,
    fma,
    load,
    pair,
)
from ...kernels.uniform import WARP
from .operands import HALF
from .parts import copied

DEEP = 16  # steps of a multiplication of matrices; features are padded to a multiple of it
ACROSS = 16  # threads that share rows where there are no matrices
QUAD = 4  # steps that a thread reads at once


@dataclass(frozen=True)
class Sizes:
    """Of a block's work: its own rows, the others that it meets at a time, its threads; and of how
    many blocks a multiprocessor is to have room for (`For.resident`)."""

    rows: int
    others: int
    threads: int = 128
    resident: int = 0

    def __str__(self) -> str:
        return f"{self.rows}x{self.others}"


def padded(features: int) -> int:
    return -(-features // DEEP) * DEEP


class Rows:
    """An operand of which blocks bring `rows` rows at a time into shared memory."""

    def __init__(self, e: Scope, source: Source, row: Axis, feature: Axis, rows: int, hint: str):
        self.e, self.source, self.row, self.feature, self.rows = e, source, row, feature, rows
        self.depth = int(feature.extent)
        self.buffer = e.buffer(source.slot, hint=hint)

    def base(self) -> Expr:
        """Where the operand's first row lies, of the batch entry that is bound."""
        return self.e.expr(evaluate(self.source.address, {self.row.name: 0, self.feature.name: 0}))


class Panel(Rows):
    """`rows` rows of an operand in shared memory, of as many stages; features beyond the last are
    0.

    Rows are padded by 16 bytes, so that eight of them begin in different banks.
    """

    def __init__(
        self,
        e: Scope,
        thread: Name,
        threads: int,
        source: Source,
        row: Axis,
        feature: Axis,
        rows: int,
        stages: int,
        hint: str,
    ):
        super().__init__(e, source, row, feature, rows, hint)
        self.width = padded(self.depth)
        near = copied(source.dtype)
        self.pitch = self.width + near
        self.room = rows * self.pitch
        self.lanes = near if stride(source.address, feature) == 1 and self.depth % near == 0 else 1
        self.shared = e.b.shared(source.dtype, stages * self.room, hint)
        self.line = self.width // self.lanes  # threads for a row
        self.step, left = divmod(threads, self.line)
        self.even = left == 0 and rows % self.step == 0
        if self.even:
            self.inner = e.b.let(thread % self.line * self.lanes, "inner")
            self.outer = e.b.let(thread // self.line, "outer")

    def fetch(self, base: Expr, first: Expr, count: Expr, stage: Expr | int) -> None:
        """Begin to bring the rows from `first` on; those from `count` on are 0."""
        b = self.e.b
        if self.even:
            with b.loop(self.rows // self.step, "unroll") as i:
                self._bring(
                    base, first, count, stage * self.room, self.outer + i * self.step, self.inner
                )
            return
        with b.loop(self.rows * self.line, "thread", "t") as t:
            self._bring(
                base,
                first,
                count,
                stage * self.room,
                b.let(t // self.line, "outer"),
                b.let(t % self.line * self.lanes, "inner"),
            )

    def _bring(
        self, base: Expr, first: Expr, count: Expr, place: Expr | int, row: Expr, inner: Expr
    ) -> None:
        b, e, address = self.e.b, self.e, self.source.address
        inside = binary("lt", first + row, count)
        if self.depth < self.width:
            inside = binary("and", inside, binary("lt", inner, Const(self.depth)))
        hop, step = (e.expr(stride(address, a)) for a in (self.row, self.feature))
        far = (first + row) * hop + inner * step
        where, inside = b.let(base + far, "where"), b.let(inside, "inside")
        at = place + row * self.pitch + inner
        if self.lanes > 1:
            b.emit(Copy(self.shared, at, self.buffer, where, self.lanes, inside))
        else:
            b.store(self.shared, at, load(self.buffer, where, mask=inside))


P = TypeVar("P", bound=Rows, contravariant=True)


class Products(Protocol[P]):
    """How the threads of a block multiply what panels of a kind bring.

    Attributes:
        sizes: of the block's work.
        acc: dtype of sums, scores and weights before these are rounded.
        own: rows of a thread.
        shared_by: neighbouring threads that have the same rows.
        near: columns of a thread that lie side by side.
        staged: whether weights pass through shared memory: a barrier stands before they are used.
    """

    sizes: Sizes
    acc: DType
    own: int
    shared_by: int
    near: int
    staged: bool

    def columns(self, n: int) -> int:
        """Columns of a thread of `n`, numbered from 0 on."""

    def row(self, i: Expr) -> Expr:
        """The block's row that is the thread's row `i`."""

    def column(self, j: Expr) -> Expr:
        """The tile's column that is the thread's column `j`."""

    def beyond(self, j: Expr) -> Expr:
        """How far it is from the thread's first one."""

    def at(self, i: Expr, j: Expr, n: int) -> Expr:
        """Where a sum of `n` columns is among the thread's."""

    def weights(self, name: str) -> Buffer:
        """Memory for weights of the others by own rows."""

    def hold(self, weights: Buffer, values: Buffer) -> None:
        """Let `values`, as they come from a product, be weights."""

    def multiply(self, sums: Buffer, left: P, right: P, stage: Expr) -> None:
        """sums[row, other] = left[row] . right[other]"""

    def weigh(self, sums: Buffer, weights: Buffer, right: P, stage: Expr) -> None:
        """sums[row, feature] += weights[row] . right[:, feature]"""


def products_of(e: Scope, thread: Name, sizes: Sizes, dtype: DType) -> Products[Panel]:
    return (MatrixProducts if dtype.itemsize == 2 else ThreadProducts)(e, thread, sizes, dtype)


def sums_of(e: Scope, products: Products[Any], n: int, name: str) -> Buffer:
    """A thread's sums of `n` columns, 0 at first."""
    sums = e.b.scratch(products.acc, products.own * products.columns(n), name)
    clear(e, sums, products.own * products.columns(n))
    return sums


def clear(e: Scope, buffer: Buffer, count: int, number: float = 0.0) -> None:
    with e.b.loop(count, "unroll") as i:
        e.b.store(buffer, i, Const(number, KType(buffer.dtype)))


@contextmanager
def each(e: Scope, products: Products[Any], n: int) -> Iterator[tuple[Expr, Expr, Expr]]:
    """A thread's rows and columns of a tile of `n` columns, and where their sum is."""
    with e.b.loop(products.own, "unroll") as i, e.b.loop(products.columns(n), "unroll", "j") as j:
        yield i, j, products.at(i, j, n)


class WarpSums:
    """Sums of products of 2-byte floats by warps on tensor cores: of 16 rows, or some times as
    many."""

    acc, shared_by, near, staged = f32, 4, 2, False

    def __init__(self, e: Scope, thread: Name, sizes: Sizes, dtype: DType):
        self.e, self.sizes, self.dtype = e, sizes, dtype
        b, rows = e.b, sizes.rows // (sizes.threads // WARP)
        self.down = rows // DEEP
        self.own = 2 * self.down
        self.lane = b.let(thread % WARP, "lane")
        self.top = b.let(thread // WARP * rows, "top")
        self.first = b.let(self.top + self.lane // 4, "first")
        self.start = b.let(self.lane % 4 * 2, "start")

    def columns(self, n: int) -> int:
        return n // HALF * 2

    def row(self, i: Expr) -> Expr:
        return self.first + i * HALF

    def column(self, j: Expr) -> Expr:
        return self.start + self.beyond(j)

    def beyond(self, j: Expr) -> Expr:
        return j // 2 * HALF + j % 2

    def at(self, i: Expr, j: Expr, n: int) -> Expr:
        return (i // 2 * (n // HALF) + j // 2) * 4 + i % 2 * 2 + j % 2

    def weights(self, name: str) -> Buffer:
        return self.e.b.scratch(u32, self.down * self.sizes.others // DEEP * 4, name)

    def hold(self, weights: Buffer, values: Buffer) -> None:
        b, across = self.e.b, self.sizes.others // DEEP
        with b.loop(self.down * across, "unroll") as i, b.loop(4, "unroll", "j") as j:
            at = (i * 2 + j // 2) * 4 + j % 2 * 2
            b.store(weights, i * 4 + j, pair(self.dtype, load(values, at), load(values, at + 1)))


class MatrixProducts(WarpSums):
    """Products of matrices of 2-byte floats, which each warp reads into registers."""

    def __init__(self, e: Scope, thread: Name, sizes: Sizes, dtype: DType):
        super().__init__(e, thread, sizes, dtype)
        within, which = self.lane % HALF, self.lane // HALF
        self.low = e.b.let(which % 2 * HALF, "low")  # of the matrix that this thread names a row of
        self.high = e.b.let(which // 2 * HALF, "high")
        self.within = e.b.let(within, "within")

    def multiply(self, sums: Buffer, left: Panel, right: Panel, stage: Expr) -> None:
        b, others = self.e.b, right.rows
        clear(self.e, sums, self.own * self.columns(others))
        x, y = b.scratch(u32, self.down * 4, "x"), b.scratch(u32, 4, "y")
        row = b.let((self.top + self.low + self.within) * left.pitch + self.high, "row")
        other = b.let(
            stage * right.room + (self.high + self.within) * right.pitch + self.low, "other"
        )
        with b.loop(left.width // DEEP, "unroll", "k") as k:
            with b.loop(self.down, "unroll") as i:
                b.emit(
                    LoadMatrices(
                        x, i * 4, left.shared, row + i * (DEEP * left.pitch) + k * DEEP, False
                    )
                )
            with b.loop(others // DEEP, "unroll", "j") as j:
                b.emit(
                    LoadMatrices(
                        y,
                        Const(0),
                        right.shared,
                        other + j * (DEEP * right.pitch) + k * DEEP,
                        False,
                    )
                )
                self._products(sums, x, 0, 4, y, j, others)

    def weigh(self, sums: Buffer, weights: Buffer, right: Panel, stage: Expr) -> None:
        b, steps = self.e.b, right.rows // DEEP
        y = b.scratch(u32, 4, "y")
        first = b.let(
            stage * right.room + (self.low + self.within) * right.pitch + self.high, "feature"
        )
        with b.loop(steps, "unroll", "k") as k, b.loop(right.width // DEEP, "unroll", "j") as j:
            b.emit(
                LoadMatrices(
                    y, Const(0), right.shared, first + k * (DEEP * right.pitch) + j * DEEP, True
                )
            )
            self._products(sums, weights, k * 4, steps * 4, y, j, right.width)

    def _products(
        self, sums: Buffer, x: Buffer, first: Expr | int, step: int, y: Buffer, j: Expr, n: int
    ) -> None:
        """16 columns from number `j` on; the left matrices are ``x[first + i * step ..]``."""
        b = self.e.b
        with b.loop(self.down, "unroll") as i, b.loop(2, "unroll", "half") as half:
            at = (i * (n // HALF) + j * 2 + half) * 4
            b.emit(MultiplyMatrices(self.dtype, sums, at, x, i * step + first, y, half * 2))


class ThreadProducts:
    """Products of f32 and f64: a thread has some rows, far apart, and every 16th column."""

    shared_by, near, staged = ACROSS, 1, True

    def __init__(self, e: Scope, thread: Name, sizes: Sizes, dtype: DType):
        self.e, self.sizes, self.acc = e, sizes, dtype
        self.apart = sizes.threads // ACROSS
        self.own = sizes.rows // self.apart
        self.first = e.b.let(thread // ACROSS, "first")
        self.start = e.b.let(thread % ACROSS, "start")
        self.pitch = sizes.others | ACROSS  # two rows that a warp writes to lie in different banks

    def columns(self, n: int) -> int:
        return n // ACROSS

    def row(self, i: Expr) -> Expr:
        return self.first + i * self.apart

    def column(self, j: Expr) -> Expr:
        return self.start + self.beyond(j)

    def beyond(self, j: Expr) -> Expr:
        return j * ACROSS

    def at(self, i: Expr, j: Expr, n: int) -> Expr:
        return i * self.columns(n) + j

    def weights(self, name: str) -> Buffer:
        return self.e.b.shared(self.acc, self.sizes.rows * self.pitch, name)

    def hold(self, weights: Buffer, values: Buffer) -> None:
        with each(self.e, self, self.sizes.others) as (i, j, at):
            self.e.b.store(weights, self.row(i) * self.pitch + self.column(j), load(values, at))

    def multiply(self, sums: Buffer, left: Panel, right: Panel, stage: Expr) -> None:
        b, count = self.e.b, self.columns(right.rows)
        clear(self.e, sums, self.own * count)
        x, y = b.scratch(self.acc, self.own * QUAD, "x"), b.scratch(self.acc, count * QUAD, "y")
        row = b.let(self.first * left.pitch, "row")
        other = b.let(stage * right.room + self.start * right.pitch, "other")
        with self._steps(left.width) as k:
            for target, source, first, step, n in (
                (x, left, row, self.apart, self.own),
                (y, right, other, ACROSS, count),
            ):
                with b.loop(n, "unroll") as i:
                    self._take(
                        target, i * QUAD, source.shared, first + i * (step * source.pitch) + k
                    )
            self._add(sums, x, y, count)

    def weigh(self, sums: Buffer, weights: Buffer, right: Panel, stage: Expr) -> None:
        b, count = self.e.b, self.columns(right.width)
        x, y = b.scratch(self.acc, self.own * QUAD, "x"), b.scratch(self.acc, count * QUAD, "y")
        row = b.let(self.first * self.pitch, "row")
        feature = b.let(stage * right.room + self.start, "feature")
        with self._steps(right.rows) as k:
            with b.loop(self.own, "unroll") as i:
                self._take(x, i * QUAD, weights, row + i * (self.apart * self.pitch) + k)
            with b.loop(QUAD, "unroll", "u") as u, b.loop(count, "unroll", "j") as j:
                b.store(
                    y,
                    j * QUAD + u,
                    load(right.shared, feature + (k + u) * right.pitch + j * ACROSS),
                )
            self._add(sums, x, y, count)

    def _take(self, to: Buffer, at: Expr, source: Buffer, first: Expr) -> None:
        """Read four neighbours, 16 bytes at once: threads that are a padded row apart meet in no
        bank then."""
        near = copied(self.acc)
        for u in range(0, QUAD, near):
            value = load(source, first + u, near, aligned=True)
            self.e.b.store(to, at + u, value)

    @contextmanager
    def _steps(self, count: int) -> Iterator[Expr]:
        """`count` steps, four at a time."""
        with (
            self.e.b.loop(count // DEEP, "rolled", "k") as k,
            self.e.b.loop(DEEP // QUAD, "unroll", "part") as part,
        ):
            yield self.e.b.let(k * DEEP + part * QUAD, "step")

    def _add(self, sums: Buffer, x: Buffer, y: Buffer, count: int) -> None:
        b = self.e.b
        with (
            b.loop(QUAD, "unroll", "u") as u,
            b.loop(self.own, "unroll") as i,
            b.loop(count, "unroll", "j") as j,
        ):
            at = i * count + j
            b.store(sums, at, fma(load(x, i * QUAD + u), load(y, j * QUAD + u), load(sums, at)))


def stored(
    e: Scope,
    products: Products[Any],
    sums: Buffer,
    features: int,
    target: Buffer,
    where: Expr,
    i: Expr,
    factor: Expr,
) -> None:
    """Store the thread's row `i` of sums times `factor`: that of `features` which begins at
    `where`."""
    b, n = e.b, padded(features)
    near = products.near if features % products.near == 0 else 1
    line = b.scratch(target.dtype, near, "line")
    with b.loop(products.columns(n) // near, "unroll", "j") as j:
        with b.loop(near, "unroll", "u") as u:
            x = load(sums, products.at(i, j * near + u, n)) * factor
            b.store(line, u, cast(x, target.dtype))
        column = b.let(products.column(j * near), "column")
        with b.when(binary("lt", column, Const(features))):
            b.store(target, where + column, load(line, Const(0), near))


__all__ = [
    "MatrixProducts",
    "Panel",
    "Products",
    "Rows",
    "Sizes",
    "ThreadProducts",
    "WarpSums",
    "clear",
    "each",
    "padded",
    "products_of",
    "stored",
    "sums_of",
]
