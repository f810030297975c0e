"""Slices of operands on their way to the tiles of shared memory that groups of four warps multiply.

What lies side by side along k is brought by copies of 16 bytes without registers, and rounded where
it then lies; so is what lies along rows, of 2 bytes. The rest passes through registers, where it is
cast, rounded or turned, 16 bytes at a time where the layout allows it, else element by element.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from graphtorch.ir.dtype import boolean, f32

from ...kernels.body.scope import Scope
from ...kernels.contraction.operands import passing
from ...kernels.contraction.problem import Axis, Contraction, Source, extent_of
from ...kernels.ir import (
    DEPTH,
    TILE,
    Buffer,
    Const,
    Copy,
    Expr,
    KType,
    Name,
    binary,
    cast,
    load,
    tf32,
    unary,
)
from .matrices import factor
from .operands import Operand, bind
from .parts import COPIED, along_k, both, copied, in_parts, is_multiple, parts_fit, read_part
from .warpgroup_tiles import GROUP, Tile

WARP = 32
PARTS = DEPTH // COPIED  # of a line


class Work:
    """What the parts of a kernel share: where a thread stands in its group, and the stages that
    slices pass through."""

    def __init__(self, e: Scope, p: Contraction, tile: Tile, thread: Name, stages: int):
        self.e, self.p, self.tile, self.thread, self.stages = e, p, tile, thread, stages
        dtype = factor(p)
        assert dtype is not None
        self.dtype, self.depth, self.near = dtype, DEPTH // dtype.itemsize, copied(dtype)
        self.group = e.b.let(thread // GROUP, "group")
        self.warp = e.b.let(thread // WARP, "warp")
        self.lane = e.b.let(thread % WARP, "lane")


class Slice(ABC):
    """Slices of an operand: `size` rows (or columns) from `first` on, some steps of k each.

    A thread has `count` items of a slice, some elements each, which begin in `own_rows` rows.
    Subclasses say which they are, and how they are brought.

    Attributes:
        turned: whether rows lie side by side in a line of shared memory, not steps of k.
        copied: whether slices are brought without registers: `put` begins to, and nobody fetches.
    """

    turned = False
    copied = False
    several = True  # steps of k that a thread's items begin at
    count: int
    own_rows: int
    held: Buffer  # what is in registers between `fetch` and `put`, if anything

    def __init__(
        self,
        work: Work,
        axes: Sequence[Axis],
        source: Source,
        size: int,
        bounds: tuple[Expr, Expr, Expr],
        hint: str,
    ):
        """Args: bounds: the first row, and how many rows and steps of k there are."""
        self.work, self.axes, self.source, self.size = work, axes, source, size
        self.first, self.rows, self.k = bounds
        e, p = work.e, work.p
        self.hint, self.thread, self.threads = hint, work.thread, work.tile.threads
        self.depth, self.near = work.depth, work.near
        self.room = size * self.depth
        self.shared = e.b.shared(work.dtype, work.stages * self.room, hint, 1024)
        self.all_rows = is_multiple(extent_of(axes), size)
        self.all_steps = is_multiple(extent_of(p.k), self.depth) and not p.limits
        self.buffer = e.buffer(source.slot, hint=hint)
        self.deal()
        self.operand = Operand(e, source, p.k, self.depth, work.stages, self.several)
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

    def advance(self, slice: Expr, stage: Expr, after: Expr) -> None:
        """`put` a slice, and `fetch` the one after it."""
        self.put(slice, stage)
        self.fetch(after)

    def arrive(self, stage: Expr) -> None:  # noqa: B027
        """Make of what the thread has copied into a stage what is multiplied."""

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


class _Parts(Slice):
    """Items are parts of 16 bytes, which are side by side in memory, and aligned if the operand is.

    Where that turns out not to be, elements are brought one by one.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        sizes = in_parts(self.work.p, self.source, self.axes) or ()
        self.aligned = parts_fit(self.work.e, self.buffer, sizes)

    def put(self, slice: Expr, stage: Expr) -> None:
        with self._where_aligned():
            self.put_parts(slice, stage)
        self._else_put_elements(slice, stage)

    def advance(self, slice: Expr, stage: Expr, after: Expr) -> None:
        with self._where_aligned():
            self.advance_parts(slice, stage, after)
        self._else_put_elements(slice, stage)

    def fetch(self, slice: Expr) -> None:
        with self._where_aligned():
            self.fetch_parts(slice)

    def arrive(self, stage: Expr) -> None:
        with self._where_aligned():
            self.arrive_parts(stage)

    def fetch_parts(self, slice: Expr) -> None:
        """What `fetch` does where the operand is aligned."""

    @abstractmethod
    def put_parts(self, slice: Expr, stage: Expr) -> None:
        """What `put` does where the operand is aligned."""

    def advance_parts(self, slice: Expr, stage: Expr, after: Expr) -> None:
        """What `advance` does where the operand is aligned."""
        self.put_parts(slice, stage)

    def arrive_parts(self, stage: Expr) -> None:
        """What `arrive` does where the operand is aligned."""

    def _where_aligned(self) -> AbstractContextManager[object]:
        return nullcontext() if self.aligned is None else self.work.e.b.when(self.aligned)

    def _else_put_elements(self, slice: Expr, stage: Expr) -> None:
        if self.aligned is not None:
            with self.work.e.b.otherwise():
                self._put_elements(slice, stage)

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
    """Parts along k, copied, and rounded where they then lie by the thread that copied them."""

    def arrive_parts(self, stage: Expr) -> None:
        b, near = self.work.e.b, self.near
        begin = b.let(stage * self.room, "begin")
        part = b.scratch(self.work.dtype, self.count * near, "part")
        with b.loop(self.count, "unroll") as i:
            b.store(part, i * near, load(self.shared, begin + self.far(i), near, aligned=True))
        with b.loop(self.count * near, "unroll") as i:
            b.store(part, i, self.rounded(load(part, i)))
        with b.loop(self.count, "unroll") as i:
            b.store(self.shared, begin + self.far(i), load(part, i * near, near, aligned=True))


class _Blocks(_Parts):
    """Parts along rows, rounded and turned on their way: blocks of four rows and four steps.

    Eight threads read two parts of a line each, and write to different banks.
    """

    def deal(self) -> None:
        b, near, lane = self.work.e.b, self.near, self.work.lane
        blocks = self.size * self.depth // near**2
        self.own_rows = max(blocks // self.threads, 1)
        self.count = self.own_rows * near
        self.busy = binary("lt", self.work.warp, blocks // WARP) if blocks < self.threads else None
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
        with self._blocks() as block:
            self._fetch_block(slice, block)

    def put_parts(self, slice: Expr, stage: Expr) -> None:
        with self._blocks() as block:
            self._put_block(stage, block)

    def advance_parts(self, slice: Expr, stage: Expr, after: Expr) -> None:
        """Block by block, so that what is read is on its way while others are put."""
        with self._blocks() as block:
            self._put_block(stage, block)
            self._fetch_block(after, block)

    @contextmanager
    def _blocks(self) -> Iterator[Expr]:
        """A loop over the thread's blocks; threads may be more than there are."""
        b = self.work.e.b
        with (
            nullcontext() if self.busy is None else b.when(self.busy),
            b.loop(self.own_rows, "unroll") as block,
        ):
            yield block

    def _fetch_block(self, slice: Expr, block: Expr) -> None:
        """Read the parts of a block into `held`; what lies outside is 0."""
        b, near = self.work.e.b, self.near
        with b.loop(near, "unroll") as part:
            i = block * near + part
            where, inside = self.item(slice, i)
            read_part(b, self.held, i * near, self.buffer, where, near, inside)

    def _put_block(self, stage: Expr, block: Expr) -> None:
        b, near = self.work.e.b, self.near
        begin = b.let(stage * self.room, "begin")
        part = b.scratch(self.work.dtype, near, "part")
        with b.loop(near, "unroll", "r") as r:
            with b.loop(near, "unroll", "u") as u:
                b.store(part, u, self.rounded(load(self.held, (block * near + u) * near + r)))
            at = begin + self.place(self.row(block) + r, self._low(block))
            b.store(self.shared, at, load(part, 0, near, aligned=True))


class _Singles(Slice):
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


def slice_of(work: Work, axes: Sequence[Axis], source: Source, *args: Any) -> Slice:
    """Slices of an operand, brought in the way that its layout allows."""
    return way_of(work.p, axes, source)(work, axes, source, *args)


def way_of(p: Contraction, axes: Sequence[Axis], source: Source) -> type[Slice]:
    if in_parts(p, source, axes) is None:
        return _Singles
    if along_k(p, source):
        return _Copies if source.rounded or factor(p) is not f32 else _Lines
    return _Blocks if factor(p) is f32 else _TurnedCopies
