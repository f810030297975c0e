"""The register-tile kernel: blocks, tiles and accumulators of a contraction.

A tile holds `rows` x `columns` results in vector registers for the whole of k. For each step of k
it reads the tile's columns of B as vectors and multiplies them with one broadcast element of A a
row. What becomes of the finished vectors (epilogue, transposition, store) is the business of a
`Writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from graphtorch.ir.shape import Dim, evaluate

from ...dataclass import dataclass
from ...kernels.body.access import lane_mask
from ...kernels.body.scope import Level, Scope
from ...kernels.contraction.problem import Axis, Contraction, Source, extent_of, stride
from ...kernels.ir import (
    Const,
    Expr,
    KType,
    Name,
    Shuffle,
    binary,
    cast,
    constant,
    load,
    select,
    splat,
)
from .borders import Borders, all_of
from .schedule import Chunk, Schedule, Tiling, chunks


@dataclass(frozen=True)
class Side:
    """The axes of m or n as the tile kernel walks them: `outer` one by one, then `block`, then
    `inner`."""

    outer: tuple[Axis, ...]
    block: Axis
    inner: Axis | None
    tiling: Tiling


def side_of(axes: Sequence[Axis], tiling: Tiling) -> Side:
    if tiling.inner:
        return Side(tuple(axes[:-2]), axes[-2], axes[-1], tiling)
    return Side(tuple(axes[:-1]), axes[-1], None, tiling)


@dataclass(frozen=True)
class Column:
    """A vector of a tile: the values of the column axes' variables at its first lane, and its
    lanes."""

    at: dict[str, Dim]
    axis: Axis
    chunk: Chunk
    valid: int | Expr

    def inside(self) -> int | Expr:
        """How many of the lanes lie inside the matrix."""
        return self.chunk.valid if isinstance(self.valid, int) else self.valid

    def mask(self) -> Expr | None:
        return lane_mask(self.inside(), self.chunk.lanes)


Row = dict[str, Dim]
FULL = 8  # accumulators that keep the units busy without unrolling over k
NEAR = range(1, 4)  # steps of k that a loop may take at a time


class Writer(Protocol):
    """Takes the finished accumulators of one tile."""

    def write(
        self, rows: Sequence[Row], columns: Sequence[Column], values: dict[tuple[int, int], Expr]
    ) -> None: ...


class Direct:
    """An operand read in place."""

    def __init__(self, e: Scope, p: Contraction, source: Source, k: Sequence[Axis]):
        self.e, self.p, self.source, self.k = e, p, source, k

    def base(self, width: int) -> Expr:
        return self.e.expr(evaluate(self.source.address, {a.name: 0 for a in self.k}))

    def steps(self, width: int) -> list[Dim]:
        return [stride(self.source.address, a) for a in self.k]

    def offset(self, at: dict[str, Dim], position: int) -> Dim:
        """From the tile's first element to the one where the variables are moved to `at`."""
        zero: dict[str, Dim] = {a.name: 0 for a in self.k}
        return evaluate(evaluate(self.source.address, at), zero) - evaluate(
            self.source.address, zero
        )


class Packed:
    """A packed operand: for each tile of w rows (or columns) a block [k][w], blocks in order.

    `group` is the number of the matrix among all those packed, `start` the tile's first row,
    `skipped` the steps of k before the first, all polynomials.
    """

    def __init__(
        self,
        e: Scope,
        source: Source,
        k: Sequence[Axis],
        depth: Dim,
        group: Dim,
        room: Dim,
        start: Dim,
        skipped: Dim,
    ):
        self.e, self.source, self.k, self.skipped = e, source, k, skipped
        self.address = group * (depth * room) + start * depth

    def base(self, width: int) -> Expr:
        return self.e.expr(self.address + self.skipped * width)

    def steps(self, width: int) -> list[Dim]:
        found: list[Dim] = []
        step: Dim = width
        for a in reversed(self.k):
            found.insert(0, step)
            step = step * a.extent
        return found

    def offset(self, at: dict[str, Dim], position: int) -> Dim:
        return position


TileBody = Callable[..., None]


def emit_tiles(
    e: Scope,
    p: Contraction,
    s: Schedule,
    a: Direct | Packed,
    b: Direct | Packed,
    writer: Writer,
    emit: TileBody,
) -> None:
    """The kernel's body: tasks, sweeps over tiles, and tiles by `emit` (`register_tile`, a dot
    tile)."""
    rows, columns = side_of(p.m, s.rows), side_of(p.n, s.columns)
    spans: dict[str, tuple[Expr, Expr | int]] = {}
    across, down = (_block_level(e, side, spans) for side in (columns, rows))
    above, beside = ([x.loop for x in side.outer] for side in (rows, columns))
    tasks: list[Level] = [*above, *beside, across, down]
    if s.columns_first:
        tasks = [*beside, across, *above, down]
    levels = [*(x.loop for x in p.batch), *tasks]
    lanes = 1 if s.kind == "dot" else s.lanes

    def tile(row_sizes: tuple[int, ...], column_sizes: tuple[int, ...], valid: int | Expr) -> None:
        row_list = tile_rows(rows, row_sizes)
        column_list = tile_columns(columns, column_sizes, valid, lanes)
        emit(e, p, row_list, column_list, a, b, writer)

    def sweep_rows(column_sizes: tuple[int, ...], valid: int | Expr) -> None:
        _sweep_side(e, rows, spans, lambda sizes, _: tile(sizes, column_sizes, valid))

    def sweep_columns(row_sizes: tuple[int, ...], _: int | Expr) -> None:
        _sweep_side(e, columns, spans, lambda sizes, valid: tile(row_sizes, sizes, valid))

    work = extent_of(p.axes())
    if s.kind == "diagonal":  # a multiply-add of it is a load as well, of which none is shared
        work = work * s.lanes
    with e.tasks(levels, s.parallel, work=work):
        if s.kind == "diagonal":  # both operands and the result lie along the columns
            _sweep_side(e, rows, spans, sweep_columns)
        else:
            _sweep_side(e, columns, spans, sweep_rows)


def _block_level(
    e: Scope,
    side: Side,
    spans: dict[str, tuple[Expr, Expr | int]],
) -> Level:
    extent, block = side.block.extent, side.tiling.block
    name = side.block.name
    if not block:
        spans[name] = Const(0), extent if isinstance(extent, int) else e.expr(extent)
        return 1, lambda index: None

    def bind(index: Expr) -> None:
        first = e.b.let(index * block, "first")
        length: Expr | int = block
        if not isinstance(extent, int) or extent % block:
            length = e.b.let(binary("min", Const(block), e.expr(extent) - first), "length")
        spans[name] = first, length

    return (extent + (block - 1)) // block, bind


def _sweep_side(
    e: Scope,
    side: Side,
    spans: dict[str, tuple[Expr, Expr | int]],
    body: Callable[[tuple[int, ...], int | Expr], None],
) -> None:
    first, length = spans[side.block.name]
    if side.inner is None:
        sweep_axis(
            e, side.block, first, length, side.tiling, lambda size, valid: body((size,), valid)
        )
        return
    inner = side.inner
    extent = inner.extent if isinstance(inner.extent, int) else e.expr(inner.extent)
    within = Tiling(side.tiling.inner, ragged=side.tiling.ragged)
    outer = Tiling(side.tiling.sizes)
    sweep_axis(
        e,
        side.block,
        first,
        length,
        outer,
        lambda size, _: sweep_axis(
            e, inner, Const(0), extent, within, lambda size2, valid: body((size, size2), valid)
        ),
    )


@dataclass(frozen=True)
class Span:
    """An axis of a product: how much of it counts, and its tiles."""

    axis: Axis
    count: int | Expr
    tiling: Tiling


def emit_product(
    e: Scope,
    p: Contraction,
    m: Span,
    n: Span,
    writer: Writer,
    lanes: int,
) -> None:
    """Within a task, all sums of `p`, whose operands are read where they lie: register tiles of
    `m`, for one tile of `n` after the other."""
    rows, columns = (Side((), s.axis, None, s.tiling) for s in (m, n))
    a, b = Direct(e, p, p.a, p.k), Direct(e, p, p.b, p.k)

    def below(width: int, _: int | Expr) -> None:
        vectors = tile_columns(columns, (width,), width, lanes)

        def tile(size: int, _: int | Expr) -> None:
            register_tile(e, p, tile_rows(rows, (size,)), vectors, a, b, writer)

        sweep_axis(e, m.axis, Const(0), m.count, m.tiling, tile)

    sweep_axis(e, n.axis, Const(0), n.count, n.tiling, below)


def sweep_axis(
    e: Scope,
    axis: Axis,
    first: Expr,
    length: int | Expr,
    tiling: Tiling,
    body: Callable[[int, int | Expr], None],
) -> None:
    """`body` at each tile of ``first .. first + length``: main tiles, then the smaller sizes."""
    start: int | Expr = 0
    for position, size in enumerate(tiling.sizes):
        if isinstance(length, int) and isinstance(start, int):
            count = (length - start) // size
            if tiling.ragged:
                count = -(-(length - start) // size)
            _static_tiles(e, axis, first, start, size, count, body)
            start += count * size
            continue
        end = length if tiling.ragged else length - (size - 1)
        with e.b.loop(end, name="t", lo=start, step=size) as i:
            e.space.bind(axis.variable, e.b.let(first + i, "at"))
            valid = e.b.let(length - i, "valid") if tiling.ragged else size
            body(size, valid)
        if position + 1 < len(tiling.sizes):
            done = (length - start) // size * size
            start = e.b.let(start + done, "done")


def _static_tiles(
    e: Scope,
    axis: Axis,
    first: Expr,
    start: int,
    size: int,
    count: int,
    body: Callable[[int, int | Expr], None],
) -> None:
    if count == 1:
        e.space.bind(axis.variable, e.b.let(first + start, "at"))
        body(size, size)
    elif count > 1:
        with e.b.loop(start + count * size, name="t", lo=start, step=size) as i:
            e.space.bind(axis.variable, e.b.let(first + i, "at"))
            body(size, size)


def tile_rows(side: Side, sizes: tuple[int, ...]) -> list[Row]:
    """Where each row of a tile stands, relative to the tile's start."""
    outer = side.block
    if side.inner is None:
        return [{outer.name: outer.variable + i} for i in range(sizes[0])]
    inner = side.inner
    return [
        {outer.name: outer.variable + i, inner.name: inner.variable + j}
        for i in range(sizes[0])
        for j in range(sizes[1])
    ]


def tile_columns(side: Side, sizes: tuple[int, ...], valid: int | Expr, lanes: int) -> list[Column]:
    def cut(at: dict[str, Dim], along: Axis, width: int) -> list[Column]:
        found = []
        for c in chunks(width, lanes):
            inside = c.valid if isinstance(valid, int) else valid - c.offset
            found.append(Column({**at, along.name: along.variable + c.offset}, along, c, inside))
        return found

    if side.inner is None:
        return cut({}, side.block, sizes[0])
    return [
        column
        for i in range(sizes[0])
        for column in cut({side.block.name: side.block.variable + i}, side.inner, sizes[1])
    ]


def register_tile(
    e: Scope,
    p: Contraction,
    rows: Sequence[Row],
    columns: Sequence[Column],
    a: Direct | Packed,
    b: Direct | Packed,
    writer: Writer,
) -> None:
    """Accumulate one tile over all of k and hand it to `writer`."""
    accumulators = {
        (i, j): e.b.var(constant(0, KType(p.acc, c.chunk.lanes)), "c")
        for i in range(len(rows))
        for j, c in enumerate(columns)
    }
    width = sum(c.chunk.lanes for c in columns)
    a_offsets = [a.offset(row, i) for i, row in enumerate(rows)]
    b_offsets = [b.offset(c.at, c.chunk.offset) for c in columns]
    a_fixed = [e.b.let(e.expr(o), "row") for o in a_offsets]
    b_fixed = [e.b.let(e.expr(o), "column") for o in b_offsets]
    shared = bool(p.k) and _shares_loads(a_offsets, a.steps(len(rows))[-1])
    step = _Step(e, p, a, b, a_fixed, b_fixed, columns, accumulators, Borders(e, p, rows), shared)
    step.loops(
        0,
        e.b.let(a.base(len(rows)), "a_at"),
        e.b.let(b.base(width), "b_at"),
        a.steps(len(rows)),
        b.steps(width),
    )
    writer.write(rows, columns, dict(accumulators))


def _shares_loads(rows: Sequence[Dim], step: Dim) -> bool:
    """Whether one row of a tile reads at a step of k what another reads a few steps later."""
    known = {r for r in rows if isinstance(r, int)}
    return isinstance(step, int) and any(r + step * i in known for r in known for i in NEAR)


def steps_of(e: Scope, p: Contraction, axis: Axis) -> Expr:
    """The end of a loop over an axis of k: its extent, or what is left of it in the last part of a
    split."""
    end = e.expr(axis.extent)
    if axis.name in p.limits:
        end = e.b.let(binary("min", end, e.expr(p.limits[axis.name])), "end")
    return end


@dataclass
class _Step:
    """The loops over k around the multiply-adds of a tile."""

    e: Scope
    p: Contraction
    a: Direct | Packed
    b: Direct | Packed
    rows: list[Expr]
    offsets: list[Expr]
    columns: Sequence[Column]
    accumulators: dict[tuple[int, int], Name]
    borders: Borders
    shares_loads: bool
    inside: Sequence[Expr] = ()  # of each row, where some lie outside of the image

    def loops(
        self, depth: int, a_at: Expr, b_at: Expr, a_steps: list[Dim], b_steps: list[Dim]
    ) -> None:
        if depth == len(self.p.k):
            self.multiply(a_at, b_at)
            return
        e = self.e
        axis = self.p.k[depth]
        low, high = self.borders.span(axis, steps_of(e, self.p, axis))
        with e.b.loop(high, self.kind, "k", lo=low) as k:
            e.space.bind(axis.variable, k)
            a_next = e.b.let(a_at + k * e.expr(a_steps[depth]), "a_at")
            b_next = e.b.let(b_at + k * e.expr(b_steps[depth]), "b_at")
            border = self.borders.across(axis)
            if border is None:
                self.loops(depth + 1, a_next, b_next, a_steps, b_steps)
                return
            inside = self.borders.inside(border)
            with e.b.when(all_of(inside)):
                self.loops(depth + 1, a_next, b_next, a_steps, b_steps)
            with e.b.otherwise():
                self.outside(inside, a_next).loops(depth + 1, Const(0), b_next, a_steps, b_steps)

    @property
    def kind(self) -> str:
        """Of the loops: one whose sums fill the registers is not written out."""
        if len(self.accumulators) < FULL:
            return "serial"
        return "single" if self.shares_loads else "rolled"

    def outside(self, inside: Sequence[Expr], a_at: Expr) -> _Step:
        """The same where some rows lie outside of the image: these read its beginning, and count as
        0."""
        b = self.e.b
        inside = self.borders.both(self.inside, inside)
        rows = [
            b.let(select(x, a_at + row, Const(0)), "row")
            for x, row in zip(inside, self.rows, strict=True)
        ]
        return replace(self, rows=rows, inside=inside)

    def multiply(self, a_at: Expr, b_at: Expr) -> None:
        b = self.e.b
        vectors = [
            b.let(self._vector(b_at + offset, c), "v")
            for offset, c in zip(self.offsets, self.columns, strict=True)
        ]
        a_buffer = self.e.buffer(self.a.source.slot, hint="a", dtype=self.a.source.dtype)
        for i, row in enumerate(self.rows):
            scalar = b.let(self._cast(load(a_buffer, a_at + row), self.a), "s")
            if self.inside:
                scalar = b.let(select(self.inside[i], scalar, Const(0.0, scalar.type)), "s")
            for j, vector in enumerate(vectors):
                total = self.accumulators[i, j]
                wide = splat(scalar, vector.type.lanes)
                b.assign(total, self.p.multiply_add(wide, vector, total))

    def _vector(self, index: Expr, column: Column) -> Expr:
        buffer = self.e.buffer(self.b.source.slot, hint="b", dtype=self.b.source.dtype)
        lanes = column.chunk.lanes
        mask = None if isinstance(self.b, Packed) else column.mask()
        return self._cast(load(buffer, index, lanes, mask), self.b)

    def _cast(self, value: Expr, feed: Direct | Packed) -> Expr:
        for dtype in feed.source.casts:
            value = cast(value, dtype)
        return cast(value, self.p.factor)


# of a register: shuffles inside these blocks, and of whole ones, are one instruction
BLOCK_BYTES = 16


def transpose(e: Scope, values: Sequence[Expr]) -> list[Expr]:
    """The columns of a square matrix given as row vectors, in log2(n) rounds of shuffles.

    First inside the blocks of a register, then of whole blocks. Shuffles across both LLVM has to
    take apart, which takes it as long as all the rest of a kernel.
    """
    n = len(values)
    block = min(n, BLOCK_BYTES // values[0].type.dtype.itemsize)
    groups = [_unzipped(e, values[i : i + block], 1, block) for i in range(0, n, block)]
    turned = [_unzipped(e, [group[i] for group in groups], block, n) for i in range(block)]
    return [turned[i % block][i // block] for i in range(n)]


def _unzipped(e: Scope, vectors: Sequence[Expr], size: int, span: int) -> list[Expr]:
    """The first piece of `size` lanes of each vector, and so on: in each `span` lanes, one vector a
    piece."""
    if len(vectors) == 1:
        return list(vectors)
    lanes = vectors[0].type.lanes
    even = tuple(
        at + i
        for start in range(0, lanes, span)
        for first in (start, lanes + start)
        for at in range(first, first + span, 2 * size)
        for i in range(size)
    )
    halves = []
    for picked in (even, tuple(lane + size for lane in even)):
        halves.append(
            _unzipped(
                e,
                [
                    e.b.let(Shuffle(a, b, picked, a.type), "z")
                    for a, b in zip(vectors[::2], vectors[1::2], strict=True)
                ],
                size,
                span,
            )
        )
    return [vector for pair in zip(*halves, strict=True) for vector in pair]
