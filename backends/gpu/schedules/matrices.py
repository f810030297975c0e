"""Contractions by blocks of threads on tensor cores, of 2-byte floats or of f32 whose fractions are
rounded to 10 bits (TF32), with sums in f32.

As in products.py, a block computes `rows` x `columns` results, and slices of both operands pass
through shared memory. Several slices are on their way there at a time, copied without registers
where neighbours of 16 bytes lie side by side in memory; else element by element. In shared memory
an operand lies with k innermost where it does in memory, else outermost, and is transposed on its
way into the registers of a warp, which for f32 reads element by element then. Lines are padded, so
that those of a matrix begin in different banks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphtorch.ir.dtype import DType, bf16, f16, f32, u32
from graphtorch.ir.shape import evaluate

from ...dataclass import dataclass
from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Axis, Contraction, Source, stride
from ...kernels.ir import (
    Await,
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
    load,
    tf32,
    unary,
)
from ...kernels.uniform import WARP
from ..machine import Gpu
from .epilogue import Finish
from .operands import HALF, Operand, bind
from .parts import BANKED, along_k, copied
from .products import Share, frame, inside, steps_along, where

LONG = 8192  # steps of k for each part that are worth more than smaller tiles


@dataclass(frozen=True)
class Tile:
    """Sizes of a block's work: results of it and of a warp, steps of k at a time, slices in shared
    memory."""

    rows: int
    columns: int
    depth: int
    warp_rows: int
    warp_columns: int
    stages: int

    @property
    def threads(self) -> int:
        return self.rows // self.warp_rows * (self.columns // self.warp_columns) * 32

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth} matrices"


TILES = (Tile(128, 256, 32, 64, 64, 3), Tile(128, 128, 32, 64, 32, 4), Tile(64, 64, 32, 32, 32, 4))
TF32_TILES = tuple(replace(tile, depth=tile.depth // 2) for tile in TILES)


def matrix_dtype(p: Contraction, gpu: Gpu) -> DType | None:
    """What tensor cores multiply for `p`, f32 as TF32; None where they do not, or must not."""
    dtype = factor(p)
    taken = (f16, bf16, f32) if gpu.rounds_factors(p.node) else (f16, bf16)
    return dtype if dtype in taken and p.acc is f32 else None


def factor(p: Contraction) -> DType | None:
    """The dtype of both operands as they are multiplied; None where it is not the same."""
    a, b = ((*x.casts[-1:], x.dtype)[0] for x in (p.a, p.b))
    return a if a is b else None


def side_by_side(p: Contraction, source: Source, axes: Sequence[Axis]) -> bool:
    """Whether the neighbours of a copy lie side by side in memory, all of them inside or none."""
    inner = p.k[-1] if along_k(p, source) else axes[-1]
    limit = evaluate(p.limits.get(inner.name, 0), {x.name: 0 for x in p.batch})
    gated = any(stride(g.coordinate, inner) != 0 for g in source.gates)
    return (
        not source.casts
        and not gated
        and stride(source.address, inner) == 1
        and all(isinstance(n, int) and n % copied(source.dtype) == 0 for n in (inner.extent, limit))
    )


def tiles_of(p: Contraction) -> Sequence[Tile]:
    """The tiles for `p`, large ones first.

    What is not copied passes through registers, of which the largest tile has none left.
    """
    tiles = TF32_TILES if factor(p) is f32 else TILES
    direct = side_by_side(p, p.a, p.m) and side_by_side(p, p.b, p.n)
    return tiles[not direct :]


def emit(
    e: Scope,
    p: Contraction,
    tile: Tile,
    finish: Finish,
    share: Share | None = None,
) -> None:
    """The kernel's body; `finish` takes each sum where its m and n are bound."""
    b = e.b
    with frame(e, p, tile, share) as f:
        work = _Work(e, p, tile, f.thread)
        slices = (
            _Slice(work, p.m, p.a, tile.rows, f.top, f.m, f.k, "a"),
            _Slice(work, p.n, p.b, tile.columns, f.left, f.n, f.k, "b"),
        )
        steps = steps_along(b, f.k, tile.depth)
        Operand.begin(b, [s.operand for s in slices])
        for stage in range(tile.stages - 1):
            for s in slices:
                s.fetch(Const(stage), Const(stage))
            if stage < tile.stages - 2:
                b.emit(Await(tile.stages))
        with b.loop(steps, "rolled", "step") as step:
            b.emit(Await(tile.stages - 2))
            b.barrier()  # all have their part of this step, and are done with the last one
            ahead = b.let(step + (tile.stages - 1), "ahead")
            for s in slices:
                s.fetch(ahead, b.let(ahead % tile.stages, "stage"))
                s.operand.fill(b.let(ahead + 1, "after"))
            work.multiply(slices, b.let(step % tile.stages, "stage"))
        b.emit(Await(0))
        work.finish((f.top, f.m), (f.left, f.n), finish)


class _Work:
    """What the parts of a kernel share: a thread's sums, and where its warp stands in the tile."""

    def __init__(self, e: Scope, p: Contraction, tile: Tile, thread: Name):
        self.e, self.p, self.tile, self.thread = e, p, tile, thread
        b, across = e.b, tile.columns // tile.warp_columns
        warp = b.let(thread // 32, "warp")
        self.lane = b.let(thread % 32, "lane")
        self.row = b.let(warp // across * tile.warp_rows, "row")
        self.column = b.let(warp % across * tile.warp_columns, "column")
        self.down, self.across = tile.warp_rows // (2 * HALF), tile.warp_columns // HALF
        count = self.down * self.across * 4
        self.sums = b.scratch(f32, count, "sums")
        with b.loop(count, "unroll") as i:
            b.store(self.sums, i, Const(0.0, KType(f32)))

    def multiply(self, slices: tuple[_Slice, _Slice], stage: Expr) -> None:
        """Multiply two slices."""
        b, dtype = self.e.b, slices[0].shared.dtype
        firsts = [
            b.let(s.first_of(stage, start, left), "first")
            for s, start, left in ((slices[0], self.row, True), (slices[1], self.column, False))
        ]
        x, y = (b.scratch(u32, n, h) for n, h in ((self.down * 4, "x"), (self.across * 2, "y")))
        deep = 2 * copied(dtype)
        with b.loop(self.tile.depth // deep, "unroll", "k") as k:
            for s, first, target, count, left in (
                (slices[0], firsts[0], x, self.down, True),
                (slices[1], firsts[1], y, self.across // 2, False),
            ):
                with b.loop(count, "unroll") as i:
                    at = first + s.offset(i * (2 * HALF), k * deep)
                    s.take(target, i * 4, at, left)
            with b.loop(self.down, "unroll") as i, b.loop(self.across, "unroll", "j") as j:
                b.emit(
                    MultiplyMatrices(
                        dtype, self.sums, (i * self.across + j) * 4, x, i * 4, y, j * 2
                    )
                )

    def finish(self, rows: tuple[Expr, Expr], columns: tuple[Expr, Expr], finish: Finish) -> None:
        """Hand over the thread's sums that lie inside."""
        b, p, (top, m), (left, n) = self.e.b, self.p, rows, columns
        first = b.let(top + self.row + self.lane // 4, "first")
        start = b.let(left + self.column + self.lane % 4 * 2, "start")

        def place(j: Expr) -> Expr | None:
            column = b.let(start + j // 2 * HALF + j % 2, "n")
            bind(self.e, p.n, column)
            return inside(column, n, p.n, self.tile.columns)

        with b.loop(self.down * 2, "unroll") as i:
            row = b.let(first + i * HALF, "m")
            with where(b, inside(row, m, p.m, self.tile.rows)):
                bind(self.e, p.m, row)
                with finish.batch(self.across * 2, place), finish.each() as j:
                    at = (i // 2 * self.across + j // 2) * 4 + i % 2 * 2 + j % 2
                    finish(b.let(load(self.sums, at), "sum"))


class _Slice:
    """Slices of an operand: `size` rows (or columns) from `first` on, `depth` steps of k each."""

    def __init__(
        self,
        work: _Work,
        axes: Sequence[Axis],
        source: Source,
        size: int,
        first: Expr,
        count: Expr,
        k: Expr,
        hint: str,
    ):
        self.work, self.axes, self.source = work, axes, source
        self.first, self.count, self.k = first, count, k
        e, p, depth = work.e, work.p, work.tile.depth
        self.along_k = along_k(p, source)
        line, lines = (depth, size) if self.along_k else (size, depth)
        dtype = factor(p)
        assert dtype is not None
        self.by_matrices = self.along_k or dtype.itemsize == 2
        # eight lines of a matrix are read at once, 16 bytes of each; else four, eight elements
        self.width = line + (copied(dtype) if self.by_matrices else HALF)
        self.room = lines * self.width
        self.shared = e.b.shared(dtype, work.tile.stages * self.room, hint)
        self.lanes = copied(dtype) if side_by_side(p, source, axes) else 1
        self.each = size * depth // self.lanes // work.tile.threads
        self.inner = e.b.let(work.thread % (line // self.lanes) * self.lanes, "inner")
        outer = e.b.let(work.thread // (line // self.lanes), "outer")
        # threads whose turn is the same write to two lines, in different banks
        turn = min(WARP, BANKED // (self.lanes * dtype.itemsize))
        if turn == line // self.lanes * 2:
            outer = e.b.let(outer // 8 * 8 + outer % 2 * 4 + outer % 8 // 2, "outer")
        self.outer = outer
        self.step = work.tile.threads * self.lanes // line
        self.buffer = e.buffer(source.slot, hint=hint)
        self.operand = Operand(e, source, p.k, depth, work.tile.stages, not self.along_k)
        self.operand.find(axes, lambda i: first + self._row(i), self.each if self.along_k else 1)

    def _line(self, i: Expr) -> Expr:
        return self.outer + i * self.step

    def _row(self, i: Expr) -> Expr:
        return self._line(i) if self.along_k else self.inner

    def fetch(self, step: Expr, stage: Expr) -> None:
        """Begin to bring the slice of a step; what lies outside is 0."""
        b, depth = self.work.e.b, self.work.tile.depth
        with b.loop(self.each, "unroll") as i:
            k = self.inner if self.along_k else self._line(i)
            inside = b.let(
                binary(
                    "and",
                    binary("lt", step * depth + k, self.k),
                    binary("lt", self.first + self._row(i), self.count),
                ),
                "inside",
            )
            where, there = self.operand.at(step, k, i if self.along_k else Const(0))
            where = b.let(where, "where")
            inside = inside if there is None else b.let(binary("and", inside, there), "inside")
            at = stage * self.room + self._line(i) * self.width + self.inner
            if self.lanes > 1:
                b.emit(Copy(self.shared, at, self.buffer, where, self.lanes, inside))
            else:
                value: Expr = load(self.buffer, where, mask=inside)
                for dtype in (*self.source.casts, self.shared.dtype):
                    value = cast(value, dtype)
                b.store(self.shared, at, value)

    def take(self, target: Buffer, at: Expr, place: Expr, left: bool) -> None:
        """Bring four matrices into registers; `place`: what `first_of` gives, for these."""
        b = self.work.e.b
        if self.by_matrices:
            b.emit(LoadMatrices(target, at, self.shared, place, not self.along_k))
        if self.shared.dtype is f32:
            with b.loop(4, "unroll", "j") as j:
                value = (
                    unary("bitcast_float", load(target, at + j))
                    if self.by_matrices
                    else load(self.shared, place + self.offset(*_matrix(j, left, f32)))
                )
                b.store(target, at + j, tf32(value))

    def offset(self, row: Expr, k: Expr) -> Expr:
        """How far from an element of shared memory another one is."""
        return row * self.width + k if self.along_k else k * self.width + row

    def first_of(self, stage: Expr, start: Expr, left: bool) -> Expr:
        """Where the line of a matrix begins that this thread names: of the tile's row `start` and
        its k 0. Where it reads by itself, its element of the first matrix.
        """
        lane = self.work.lane
        if not self.by_matrices:
            return stage * self.room + self.offset(start + lane // 4, lane % 4)
        within = lane % HALF
        row, k = _matrix(lane // HALF, left, self.shared.dtype)
        row, k = (row + within, k) if self.along_k else (row, k + within)
        return stage * self.room + self.offset(start + row, k)


def _matrix(which: Expr, left: bool, dtype: DType) -> tuple[Expr, Expr]:
    """The first row and k of one of four matrices: a left operand of 16 rows, by columns, or two
    right ones, whose rows lie across."""
    row, k = (which % 2, which // 2) if left else (which // 2, which % 2)
    return row * HALF, k * copied(dtype)
