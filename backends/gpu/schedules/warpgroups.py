"""Contractions by groups of four warps (`MultiplyTiles`), for GPUs of compute capability 9.0: of
2-byte floats, or of f32 whose fractions are rounded to 10 bits (TF32), with sums in f32.

A block computes `rows` x `columns` results, each group of four warps 64 of the rows. Tensor cores
read both operands from shared memory by themselves, while the threads bring the slices ahead
(`warpgroup_slices`). A stage is written to again two steps after it was multiplied.

Sums are handed over by way of shared memory, so that neighbouring threads have neighbours of a row.
"""

from __future__ import annotations

from typing import TypeAlias

from graphtorch.ir.dtype import f32

from ...kernels.body.scope import Scope
from ...kernels.contraction.problem import Contraction
from ...kernels.ir import (
    TILE,
    Await,
    Const,
    Expr,
    KType,
    MultiplyTiles,
    Publish,
    Settle,
    binary,
    load,
)
from ...kernels.ir import Tile as Operated
from .epilogue import Finish, Place
from .operands import Operand, bind
from .parts import both
from .products import Share, frame, inside, steps_along
from .warpgroup_slices import Slice, Work, slice_of, way_of
from .warpgroup_tiles import (
    BEHIND,
    CHUNK,
    HEIGHT,
    PITCH,
    Tile,
    resident_of,
    stages_of,
    steps_of,
    tile_of,
    tiles_of,
)

__all__ = ["emit", "tile_of", "tiles_of"]

BAND = 8  # rows of tiles that are done together
READS = 24  # elements of other arrays that a thread reads at a time

Slices: TypeAlias = tuple[Slice, Slice]


def emit(e: Scope, p: Contraction, tile: Tile, finish: Finish, share: Share | None = None) -> None:
    """The kernel's body; `finish` takes each sum where its m and n are bound."""
    stages, known = stages_of(p, tile), steps_of(p)
    whole = known is not None and known <= stages  # no stage is written to twice
    ahead = stages if whole else stages - BEHIND
    copied = way_of(p, p.m, p.a).copied and way_of(p, p.n, p.b).copied
    # what passes through registers may take more of them
    resident = resident_of(p, tile, finish.reads) if copied else 0
    with frame(e, p, tile, share, BAND, resident) as f:
        work = _Work(e, p, tile, f.thread, stages)
        slices = (
            slice_of(work, p.m, p.a, tile.rows, (f.top, f.m, f.k), "a"),
            slice_of(work, p.n, p.b, tile.columns, (f.left, f.n, f.k), "b"),
        )
        work.begin()
        steps = steps_along(e.b, f.k, work.depth)
        Operand.begin(e.b, [s.operand for s in slices])
        _begin(work, slices, steps, ahead, whole)
        with e.b.loop(steps, "rolled", "step") as step:
            stage = e.b.let(step % stages, "stage")
            _await(work, slices, stage, ahead)
            work.multiply(slices, stage)
            if not whole:
                _bring(work, slices, steps, e.b.let(step + ahead, "later"))
            e.b.emit(Settle(1))
        e.b.emit(Await(0))
        work.finish((f.top, f.m), (f.left, f.n), finish)


def _begin(work: Work, slices: Slices, steps: Expr, ahead: int, whole: bool) -> None:
    """Bring the first slices, and fetch the one after them where there may be one."""
    b = work.e.b
    for stage in range(ahead + (not whole)):
        with b.when(binary("lt", Const(stage), steps)):
            for s in slices:
                s.fetch(Const(stage))
                if stage < ahead:
                    s.put(Const(stage), Const(stage))
        if stage < ahead - 1:
            b.emit(Await(work.stages))
    b.emit(Publish())


def _await(work: Work, slices: Slices, stage: Expr, ahead: int) -> None:
    """Wait until the slices of this step are there, and products of the last but one are done."""
    b = work.e.b
    b.emit(Await(ahead - 1))
    for s in slices:
        s.arrive(stage)
    if any(s.copied for s in slices):
        b.emit(Publish())
    b.barrier()


def _bring(work: Work, slices: Slices, steps: Expr, later: Expr) -> None:
    """Begin to bring the slices of a later step."""
    b = work.e.b
    with b.when(binary("lt", later, steps)):
        stage = b.let(later % work.stages, "stage")
        after = b.let(binary("min", later + 1, steps - 1), "after")  # the last one for nobody
        for s in slices:
            s.advance(later, stage, after)
        if not all(s.copied for s in slices):
            b.emit(Publish())
    for s in slices:
        s.operand.fill(b.let(later + 2, "after"))


class _Work(Work):
    """A thread's sums."""

    def begin(self) -> None:
        """Sums of 0."""
        b, count = self.e.b, self.tile.columns // 2
        self.sums = b.scratch(f32, count, "sums")
        with b.loop(count, "unroll") as i:
            b.store(self.sums, i, Const(0.0, KType(f32)))

    def multiply(self, slices: Slices, stage: Expr) -> None:
        """Begin to multiply two slices."""
        b, (left, right) = self.e.b, slices
        mine = b.let(stage * left.room + self.group * (TILE * self.depth), "mine")
        b.emit(
            MultiplyTiles(
                self.dtype,
                self.sums,
                Operated(left.shared, mine, TILE, left.turned),
                Operated(
                    right.shared,
                    b.let(stage * right.room, "other"),
                    self.tile.columns,
                    right.turned,
                ),
            )
        )

    def finish(self, rows: tuple[Expr, Expr], columns: tuple[Expr, Expr], finish: Finish) -> None:
        """Hand over the sums that lie inside, a warp those of 16 rows, some columns at a time."""
        b, count = self.e.b, _batch(finish.reads * len(self.p.m))
        self.lines = b.shared(f32, self.tile.lines, "lines")
        self.own = b.let(self.warp * (HEIGHT * PITCH), "own")
        self.inner = b.let(self.own + self.lane // 4 * PITCH + self.lane % 4 * 2, "inner")
        for chunk in range(self.tile.columns // CHUNK):
            for first in range(0, TILE // 4, count):
                place = self._place(rows, columns, first, chunk * CHUNK)
                with finish.batch(count, place):
                    if (chunk, first) == (0, 0):
                        b.emit(Settle(0, self.sums))
                    for row in range(first, first + count, min(count, HEIGHT)):
                        self._finish_rows(chunk, row, min(count, HEIGHT), row - first, finish)

    def _finish_rows(self, chunk: int, row: int, count: int, number: int, finish: Finish) -> None:
        """Finish some rows from `row` on, which are those from `number` on of a batch."""
        b = self.e.b
        if row % HEIGHT == 0:
            self._hand_over(chunk, row // HEIGHT)
        with finish.each(number, count) as i:
            at = self.own + (i + row % HEIGHT) * PITCH + self.lane
            finish(b.let(load(self.lines, at), "sum"))
        if (row + count) % HEIGHT == 0:
            b.barrier()

    def _place(
        self, rows: tuple[Expr, Expr], columns: tuple[Expr, Expr], row: int, column: int
    ) -> Place:
        """Where a thread's results are from a row and a column of its warp's tile on."""
        b, p, (top, m), (left, n) = self.e.b, self.p, rows, columns

        def place(i: Expr) -> Expr | None:
            down = b.let(top + self.warp * (TILE // 4) + row + i, "m")
            across = b.let(left + column + self.lane, "n")
            bind(self.e, p.m, down)
            bind(self.e, p.n, across)
            tests = (
                inside(down, m, p.m, self.tile.rows),
                inside(across, n, p.n, self.tile.columns),
            )
            return both([test for test in tests if test is not None])

        return place

    def _hand_over(self, chunk: int, part: int) -> None:
        """Let the warp see its sums of a part of the rows."""
        b = self.e.b
        with b.loop(CHUNK // 8, "unroll", "j") as j, b.loop(2, "unroll", "u") as u:
            value = load(self.sums, j * 4 + (u + (chunk * (CHUNK // 2) + part * 2)))
            b.store(self.lines, self.inner + u + j * 8, value)
        b.barrier()


def _batch(reads: int) -> int:
    """Rows that are finished at a time, where each reads elements of so many arrays."""
    most = READS // max(reads, 1)
    return max(4, min(TILE // 4, 1 << (most.bit_length() - 1)))
