"""Contractions by groups of four warps (`MultiplyTiles`), for GPUs of compute capability 9.0: of
2-byte floats, or of f32 whose fractions are rounded to 10 bits (TF32), with sums in f32.

A block computes `rows` x `columns` results, each group of four warps 64 of the rows. Tensor cores
read both operands from shared memory by themselves, while the threads bring the slices ahead: what
lies side by side and is multiplied as it is by copies of 16 bytes without registers; the rest
through registers, where it is cast, rounded or turned, 16 bytes at a time where the layout allows
it, else element by element. A stage is written to again two steps after it was multiplied.

Sums are handed over by way of shared memory, so that neighbouring threads have neighbours of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from graphtorch.ir.dtype import boolean, f32

from ...dataclass import dataclass
from ...kernels.body.scope import Scope
from ...kernels.builder import Builder
from ...kernels.contraction.operands import passing
from ...kernels.contraction.problem import Axis, Contraction, Source, extent_of
from ...kernels.ir import (
    DEPTH,
    TILE,
    Await,
    Buffer,
    Const,
    Copy,
    Expr,
    KType,
    MultiplyTiles,
    Name,
    Publish,
    Settle,
    aligned,
    binary,
    cast,
    load,
    tf32,
    unary,
)
from ...kernels.ir import Tile as Operated
from .matrices import factor
from .operands import Operand, bind
from .parts import COPIED, along_k, both, copied, in_parts, is_multiple, read_part
from .products import Share, frame, steps_along

GROUP = 128  # threads that multiply together
WARP = 32
PARTS = DEPTH // COPIED  # of a line
CHUNK = 32  # columns of sums that are handed over at a time
PITCH = CHUNK + 4  # of them in shared memory: a quarter of a warp writes to different banks
BAND = 8  # rows of tiles that are done together
BEHIND = 2  # steps after which a stage is written to again


@dataclass(frozen=True)
class Tile:
    """Sizes of a block's work: its results, and slices in shared memory."""

    rows: int
    columns: int
    stages: int

    @property
    def threads(self) -> int:
        return self.rows // TILE * GROUP

    @property
    def depth(self) -> int:
        """Steps of k of 2-byte floats at a time, which decides on parts of k alone."""
        return DEPTH // 2

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} tiles"


TILES = (Tile(128, 256, 4), Tile(128, 128, 6), Tile(64, 128, 6), Tile(64, 64, 6))


def tiles_of(p: Contraction) -> Sequence[Tile]:
    """The tiles for `p`, large ones first.

    Elements of 2 bytes that are not copied take too many registers for the largest.
    """
    direct = None not in (in_parts(p, p.a, p.m), in_parts(p, p.b, p.n))
    return TILES[not direct and factor(p) is not f32 :]


def emit(
    e: Scope,
    p: Contraction,
    tile: Tile,
    finish: Callable[[Expr], None],
    share: Share | None = None,
) -> None:
    """The kernel's body; `finish` takes each sum where its m and n are bound."""
    b = e.b
    with frame(e, p, tile, share, BAND) as f:
        work = _Work(e, p, tile, f.thread)
        slices = (
            slice_of(work, p.m, p.a, tile.rows, (f.top, f.m, f.k), "a"),
            slice_of(work, p.n, p.b, tile.columns, (f.left, f.n, f.k), "b"),
        )
        work.begin()
        steps = steps_along(b, f.k, work.depth)
        Operand.begin(b, [s.operand for s in slices])
        ahead, copies = tile.stages - BEHIND, any(s.copied for s in slices)
        for stage in range(ahead + 1):
            with b.when(binary("lt", Const(stage), steps)):
                for s in slices:
                    s.fetch(Const(stage))
                    if stage < ahead:
                        s.put(Const(stage), Const(stage))
            if stage < ahead - 1:
                b.emit(Await(tile.stages))
        b.emit(Publish())
        with b.loop(steps, "rolled", "step") as step:
            b.emit(Await(ahead - 1))
            if copies:
                b.emit(Publish())
            b.barrier()  # this step's slices are there
            work.multiply(slices, b.let(step % tile.stages, "stage"))
            later = b.let(step + ahead, "later")
            with b.when(binary("lt", later, steps)):
                for s in slices:
                    s.put(later, b.let(later % tile.stages, "stage"))
                if not all(s.copied for s in slices):
                    b.emit(Publish())  # before what is read next: it is not to be waited for
            with b.when(binary("lt", later + 1, steps)):
                for s in slices:
                    s.fetch(b.let(later + 1, "next"))
            for s in slices:
                s.operand.fill(b.let(later + 2, "after"))
            b.emit(Settle(1))
        b.emit(Await(0))
        b.emit(Settle(0, work.sums))
        work.finish((f.top, f.m), (f.left, f.n), finish)


class _Work:
    """What the parts of a kernel share: a thread's sums, and where it stands in its group."""

    def __init__(self, e: Scope, p: Contraction, tile: Tile, thread: Name):
        self.e, self.p, self.tile, self.thread = e, p, tile, thread
        dtype = factor(p)
        assert dtype is not None
        self.dtype, self.depth, self.near = dtype, DEPTH // dtype.itemsize, copied(dtype)
        b = e.b
        self.group = b.let(thread // GROUP, "group")
        self.warp = b.let(thread // WARP, "warp")
        self.lane = b.let(thread % WARP, "lane")

    def begin(self) -> None:
        """Sums of 0."""
        b, count = self.e.b, self.tile.columns // 2
        self.sums = b.scratch(f32, count, "sums")
        with b.loop(count, "unroll") as i:
            b.store(self.sums, i, Const(0.0, KType(f32)))

    def multiply(self, slices: tuple[_Slice, _Slice], stage: Expr) -> None:
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

    def finish(
        self, rows: tuple[Expr, Expr], columns: tuple[Expr, Expr], finish: Callable[[Expr], None]
    ) -> None:
        """Hand over the sums that lie inside, a warp those of 16 rows."""
        b, p, (top, m), (left, n) = self.e.b, self.p, rows, columns
        height = TILE // 4
        lines = b.shared(f32, self.tile.threads // WARP * height * PITCH, "lines")
        own = b.let(self.warp * (height * PITCH), "own")
        first = b.let(top + self.warp * height, "first")
        inner = b.let(own + self.lane // 4 * PITCH + self.lane % 4 * 2, "inner")
        for chunk in range(self.tile.columns // CHUNK):
            with b.loop(CHUNK // 8, "unroll", "j") as j, b.loop(4, "unroll", "i") as i:
                value = load(self.sums, j * 4 + (i + chunk * (CHUNK // 2)))
                b.store(lines, inner + i // 2 * (8 * PITCH) + i % 2 + j * 8, value)
            b.barrier()
            column = b.let(left + chunk * CHUNK + self.lane, "n")
            with inside(b, column, n, p.n, self.tile.columns):
                bind(self.e, p.n, column)
                with b.loop(height, "unroll") as i:
                    row = b.let(first + i, "m")
                    with inside(b, row, m, p.m, self.tile.rows):
                        bind(self.e, p.m, row)
                        finish(b.let(load(lines, own + i * PITCH + self.lane), "sum"))
            b.barrier()


def inside(
    b: Builder, at: Expr, count: Expr, axes: Sequence[Axis], size: int
) -> AbstractContextManager[object]:
    """The block that runs where a row (or column) is one of `count`: all are where tiles of `size`
    of them fit."""
    if is_multiple(extent_of(axes), size):
        return nullcontext()
    return b.when(binary("lt", at, count))


class _Slice(ABC):
    """Slices of an operand: `size` rows (or columns) from `first` on, some steps of k each.

    A thread has `count` items of a slice, some elements each, which begin in `own_rows` rows.
    Subclasses say which they are, and how they are brought.

    Attributes:
        turned: whether rows lie side by side in a line of shared memory, not steps of k.
    """

    turned = False
    copied = False  # without registers
    several = True  # steps of k that a thread's items begin at
    count: int
    own_rows: int
    held: Buffer  # what is in registers between `fetch` and `put`, if anything

    def __init__(
        self,
        work: _Work,
        axes: Sequence[Axis],
        source: Source,
        size: int,
        bounds: tuple[Expr, Expr, Expr],
        hint: str,
    ):
        """Args: bounds: the first row, and how many rows and steps of k there are."""
        self.work, self.axes, self.source, self.size = work, axes, source, size
        self.first, self.rows, self.k = bounds
        e, p, tile = work.e, work.p, work.tile
        self.hint, self.thread, self.threads = hint, work.thread, tile.threads
        self.depth, self.near = work.depth, work.near
        self.room = size * self.depth
        self.shared = e.b.shared(work.dtype, tile.stages * self.room, hint, 1024)
        self.all_rows = is_multiple(extent_of(axes), size)
        self.all_steps = is_multiple(extent_of(p.k), self.depth) and not p.limits
        self.buffer = e.buffer(source.slot, hint=hint)
        self.deal()
        self.operand = Operand(e, source, p.k, self.depth, tile.stages, self.several)
        self.operand.find(axes, lambda i: self.first + self.row(i), self.own_rows)

    @abstractmethod
    def deal(self) -> None:
        """Let the thread have items: find what those have in common."""

    @abstractmethod
    def row(self, i: Expr) -> Expr:
        """The row that is the thread's number `i`."""

    @abstractmethod
    def step(self, i: Expr) -> tuple[Expr, Expr]:
        """The step of k that item `i` begins at, and the number of its row."""

    @abstractmethod
    def fetch(self, slice: Expr) -> None:
        """Read the slice into registers."""

    @abstractmethod
    def put(self, slice: Expr, stage: Expr) -> None:
        """Bring the slice into a stage of the shared memory: what `fetch` has read, or begin to."""

    def item(self, slice: Expr, i: Expr) -> tuple[Expr, Expr | None]:
        """Where item `i` lies in memory, and whether it is inside; None: it is."""
        b = self.work.e.b
        step, number = self.step(i)
        where, there = self.operand.at(slice, step, number)
        tests = [there] if there is not None else []
        if not self.all_rows:
            tests.append(binary("lt", self.first + self.row(number), self.rows))
        if not self.all_steps:
            tests.append(binary("lt", slice * self.depth + step, self.k))
        inside = both(tests)
        return b.let(where, "where"), None if inside is None else b.let(inside, "inside")

    def place(self, row: Expr, k: Expr) -> Expr:
        """Where an element lies in a stage."""
        if self.turned:
            part = binary("xor", row % TILE // self.near, k % PARTS) * self.near
            return row // TILE * (TILE * self.depth) + k * TILE + part + row % self.near
        part = binary("xor", k // self.near, row % PARTS) * self.near
        return row * self.depth + part + k % self.near

    def rounded(self, value: Expr) -> Expr:
        """A factor as it is multiplied."""
        return unary("bitcast_float", tf32(value)) if self.work.dtype is f32 else value


class _Parts(_Slice):
    """Items are parts of 16 bytes, which are side by side in memory, and aligned if the operand is.

    Where that turns out not to be, elements are brought one by one.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        e = self.work.e
        tests = [
            binary("eq", e.expr(size) % self.near, 0)
            for size in in_parts(self.work.p, self.source, self.axes) or ()
        ]
        if self.buffer.align % COPIED:
            tests.append(aligned(self.buffer))
        together = both(tests)
        self.aligned = None if together is None else e.b.let(together, "aligned")

    def put(self, slice: Expr, stage: Expr) -> None:
        b = self.work.e.b
        if self.aligned is None:
            self.put_parts(slice, stage)
            return
        with b.when(self.aligned):
            self.put_parts(slice, stage)
        with b.otherwise():
            self._put_elements(slice, stage)

    def fetch(self, slice: Expr) -> None:
        if self.aligned is None:
            self.fetch_parts(slice)
            return
        with self.work.e.b.when(self.aligned):
            self.fetch_parts(slice)

    def fetch_parts(self, slice: Expr) -> None:
        """What `fetch` does where the operand is aligned."""

    @abstractmethod
    def put_parts(self, slice: Expr, stage: Expr) -> None:
        """What `put` does where the operand is aligned."""

    def _put_elements(self, slice: Expr, stage: Expr) -> None:
        e, p, b = self.work.e, self.work.p, self.work.e.b
        with b.loop(self.room // self.threads, "rolled") as i:
            at = b.let(self.thread + i * self.threads, "at")
            inner = self.depth if self.along_k else self.size
            low, high = b.let(at % inner, "low"), b.let(at // inner, "high")
            row, step = (high, low) if self.along_k else (low, high)
            place, k = b.let(self.first + row, "place"), b.let(slice * self.depth + step, "k")
            bind(e, self.axes, place)
            bind(e, p.k, k)
            address, *coordinates = (e.expr(x) for x in self.source.polynomials)
            where, there = passing(e, self.source, address, coordinates)
            inside = binary("and", binary("lt", place, self.rows), binary("lt", k, self.k))
            inside = inside if there is None else binary("and", inside, there)
            value = load(self.buffer, b.let(where, "where"), mask=b.let(inside, "inside"))
            far = stage * self.room + self.place(row, step)
            b.store(self.shared, far, self.rounded(value))

    @property
    def along_k(self) -> bool:
        return along_k(self.work.p, self.source)

    def held_parts(self, slice: Expr) -> None:
        """Read all items into `held`; what lies outside is 0."""
        b, near = self.work.e.b, self.near
        with b.loop(self.count, "unroll") as i:
            where, inside = self.item(slice, i)
            read_part(b, self.held, i * near, self.buffer, where, near, inside)


class _Copies(_Parts):
    """Parts along k, copied."""

    copied, several = True, False

    def deal(self) -> None:
        let, thread = self.work.e.b.let, self.thread
        self.hop = self.threads // PARTS  # rows from one item to the next, some times eight
        self.count = self.own_rows = self.size // self.hop
        part, top = let(thread % PARTS, "part"), let(thread // PARTS, "top")
        self.top, self.part = top, let(part * self.near, "part")
        self.begin = let(self.place(top, self.part), "begin")

    def row(self, i: Expr) -> Expr:
        return self.top + i * self.hop

    def step(self, i: Expr) -> tuple[Expr, Expr]:
        return self.part, i

    def far(self, i: Expr) -> Expr:
        """Where item `i` lies in a stage."""
        return self.begin + i * (self.hop * self.depth)

    def put_parts(self, slice: Expr, stage: Expr) -> None:
        b = self.work.e.b
        begin = b.let(stage * self.room, "begin")
        with b.loop(self.count, "unroll") as i:
            where, inside = self.item(slice, i)
            mask = Const(True, KType(boolean)) if inside is None else inside
            at = begin + self.far(i)
            b.emit(Copy(self.shared, at, self.buffer, where, self.near, mask, aligned=True))


class _TurnedCopies(_Copies):
    """Parts along rows, copied."""

    turned, several = True, True

    def deal(self) -> None:
        let, thread, line = self.work.e.b.let, self.thread, self.size // self.near
        self.hop = self.threads // line  # steps from one item to the next, some times eight
        self.count, self.own_rows = self.depth // self.hop, 1
        self.top, self.low = let(thread % line * self.near, "top"), let(thread // line, "low")
        self.begin = let(self.place(self.top, self.low), "begin")

    def row(self, i: Expr) -> Expr:
        return self.top

    def step(self, i: Expr) -> tuple[Expr, Expr]:
        return self.low + i * self.hop, Const(0)

    def far(self, i: Expr) -> Expr:
        return self.begin + i * (self.hop * TILE)


class _Lines(_Copies):
    """Parts along k, rounded on their way."""

    copied = False

    def deal(self) -> None:
        super().deal()
        self.held = self.work.e.b.scratch(self.work.dtype, self.count * self.near, "held")

    def fetch_parts(self, slice: Expr) -> None:
        self.held_parts(slice)

    def put_parts(self, slice: Expr, stage: Expr) -> None:
        b, near = self.work.e.b, self.near
        begin = b.let(stage * self.room, "begin")
        part = b.scratch(self.work.dtype, near, "part")
        with b.loop(self.count, "unroll") as i:
            with b.loop(near, "unroll", "u") as u:
                b.store(part, u, self.rounded(load(self.held, i * near + u)))
            b.store(self.shared, begin + self.far(i), load(part, 0, near, aligned=True))


class _Blocks(_Parts):
    """Parts along rows, rounded and turned on their way: blocks of four rows and four steps.

    Eight threads read two parts of a line each, and write to different banks.
    """

    def deal(self) -> None:
        b, near, lane = self.work.e.b, self.near, self.work.lane
        self.count = self.size * self.depth // near // self.threads
        self.own_rows = self.count // near
        self.held = b.scratch(self.work.dtype, self.count * near, "held")
        wide = WARP // near * near  # rows that a warp reads at a time, and half as many steps
        self.across = self.size // wide
        self.top = b.let((lane % 2 + lane // 8 * 2) * near, "top")
        self.low = b.let(lane // 2 % 4 * near, "low")

    def _which(self, block: Expr) -> Expr:
        return self.work.warp + block * (self.threads // WARP)

    def row(self, i: Expr) -> Expr:
        return self.top + self._which(i) % self.across * WARP

    def _low(self, block: Expr) -> Expr:
        return self.low + self._which(block) // self.across * (WARP // 2)

    def step(self, i: Expr) -> tuple[Expr, Expr]:
        return self._low(i // self.near) + i % self.near, i // self.near

    def fetch_parts(self, slice: Expr) -> None:
        self.held_parts(slice)

    def put_parts(self, slice: Expr, stage: Expr) -> None:
        b, near = self.work.e.b, self.near
        begin = b.let(stage * self.room, "begin")
        part = b.scratch(self.work.dtype, near, "part")
        with b.loop(self.own_rows, "unroll") as i, b.loop(near, "unroll", "r") as r:
            with b.loop(near, "unroll", "u") as u:
                b.store(part, u, self.rounded(load(self.held, (i * near + u) * near + r)))
            at = begin + self.place(self.row(i) + r, self._low(i))
            b.store(self.shared, at, load(part, 0, near, aligned=True))


class _Singles(_Slice):
    """Elements one by one, neighbours in memory by neighbouring threads: cast, or around an image
    zeros, or as they may lie."""

    def deal(self) -> None:
        b, thread = self.work.e.b, self.thread
        self.lined = along_k(self.work.p, self.source)
        self.held = b.scratch(self.work.dtype, self.room // self.threads, "held")
        self.count = self.room // self.threads
        inner = self.depth if self.lined else self.size
        self.inner = b.let(thread % inner, "inner")
        self.outer = b.let(thread // inner, "outer")
        self.hop = self.threads // inner
        self.several = not self.lined
        self.own_rows = self.count if self.lined else 1

    def row(self, i: Expr) -> Expr:
        return self.outer + i * self.hop if self.lined else self.inner

    def step(self, i: Expr) -> tuple[Expr, Expr]:
        if self.lined:
            return self.inner, i
        return (self.outer + i // self.near * self.hop) * self.near + i % self.near, Const(0)

    def fetch(self, slice: Expr) -> None:
        b = self.work.e.b
        with b.loop(self.count, "unroll") as i:
            where, inside = self.item(slice, i)
            value: Expr = load(self.buffer, where, mask=inside)
            for dtype in (*self.source.casts, self.work.dtype):
                value = cast(value, dtype)
            b.store(self.held, i, value)

    def put(self, slice: Expr, stage: Expr) -> None:
        b, near = self.work.e.b, self.near
        begin = b.let(stage * self.room, "begin")
        if self.lined:
            with b.loop(self.count, "unroll") as i:
                at = begin + self.place(self.row(i), self.inner)
                b.store(self.shared, at, self.rounded(load(self.held, i)))
            return
        part = b.scratch(self.work.dtype, near, "part")
        with b.loop(self.count // near, "unroll") as i:
            with b.loop(near, "unroll", "u") as u:
                b.store(part, u, self.rounded(load(self.held, i * near + u)))
            at = begin + self.place(self.inner, (self.outer + i * self.hop) * near)
            b.store(self.shared, at, load(part, 0, near, aligned=True))


def slice_of(work: _Work, axes: Sequence[Axis], source: Source, *args: Any) -> _Slice:
    """Slices of an operand, brought in the way that its layout allows."""
    if in_parts(work.p, source, axes) is None:
        way: type[_Slice] = _Singles
    elif along_k(work.p, source):
        way = _Lines if work.dtype is f32 else _Copies
    else:
        way = _Blocks if work.dtype is f32 else _TurnedCopies
    return way(work, axes, source, *args)
