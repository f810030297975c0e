"""Winograd's filtering (`ir.ops.winograd`): transforms of tiles, and the one after its matrix
products.

Vectors run along channels. A tile is transformed along columns, then along rows: sums of at most
four numbers each. Tiles at the border of an image read, or write, under a condition a row and
pixel. What is made of some neighbouring tiles, or read for them, goes by way of a `Stage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Node
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.winograd import WinogradResultAttrs, form_of, tiles
from graphtorch.ir.shape import Dim

from ...kernels.body.access import lane_mask
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.operands import accumulator, plain_source
from ...kernels.contraction.problem import Axis, Contraction, Source, axis
from ...kernels.ir import Buffer, Const, Expr, binary, cast, fma, load
from ...kernels.program.lowering import Lowering, Region
from .borders import all_of
from .schedule import Chunk, chunks
from .tile import Column
from .writer import ResultWriter

Matrix = Sequence[Sequence[float]]
LINE = 64  # bytes of a cache line


def transformed(e: Scope, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
    """``matrix @ values``: of numbers that are 0 nothing is read, by 1 nothing is multiplied."""
    return [e.b.let(_combined(row, values), "t") for row in matrix]


def _combined(row: Sequence[float], values: Sequence[Expr]) -> Expr:
    total: Expr | None = None
    for number, value in sorted(zip(row, values, strict=True), key=lambda pair: pair[0] < 0):
        if number == 0:
            continue
        if total is None:
            total = value if number == 1 else binary("mul", value, Const(float(number), value.type))
        elif number == 1:
            total = binary("add", total, value)
        elif number == -1:
            total = binary("sub", total, value)
        else:
            total = fma(Const(float(number), value.type), value, total)
    assert total is not None, "a row of zeros"
    return total


def on_both_sides(
    e: Scope, matrix: Matrix, square: Sequence[Sequence[Expr]]
) -> Iterator[list[Expr]]:
    """``matrix @ square @ matrix^T``, row by row: what is stored at once needs no register."""
    columns = [transformed(e, matrix, [row[j] for row in square]) for j in range(len(square[0]))]
    for i in range(len(matrix)):
        yield transformed(e, matrix, [column[i] for column in columns])


def along_channels(
    e: Scope, channels: int, lanes: int, body: Callable[[Expr, Chunk], None]
) -> None:
    """`body` at the first channel of each vector."""
    *_, last = chunks(channels, lanes)
    whole = channels // lanes
    if whole:
        with e.b.loop(whole * lanes, name="c", step=lanes) as c:
            body(c, Chunk(0, lanes, lanes))
    if channels % lanes:
        body(Const(whole * lanes), last)


class Stage:
    """The numbers of some neighbouring tiles of a row, of which each row of a tensor
    [`numbers`, tiles, channels] has one piece.

    The numbers of a tile are as far apart there as all tiles need, often a multiple of what a
    cache's sets span: one set then has to hold all of them, and cannot. In here they are an odd
    number of lines apart; the pieces move as a whole.

    Args: across: the tiles of a row.
    """

    def __init__(self, e: Scope, across: Axis, numbers: int, channels: int, dtype: DType):
        self.e, self.across, self.numbers, self.channels = e, across, numbers, channels
        room = e.lowering.machine.caches[1] // 4 // dtype.itemsize // numbers
        self.block = max(1, room // channels)
        if isinstance(across.extent, int):  # as many pieces, of about as many tiles each
            self.block = -(-across.extent // -(-across.extent // self.block))
        line = LINE // dtype.itemsize
        self.hop = (-(-self.block * channels // line) | 1) * line
        self.memory = e.b.scratch(dtype, numbers * self.hop, "stage")

    @contextmanager
    def pieces(self) -> Iterator[tuple[Expr, Expr | int]]:
        """The first tile of each piece, and how many it has."""
        extent, block = self.across.extent, self.block
        with self.e.b.loop(self.e.expr(extent), name="piece", step=block) as first:
            length: Expr | int = block
            if not isinstance(extent, int) or extent % block:
                rest = self.e.expr(extent) - first
                length = self.e.b.let(binary("min", Const(block), rest), "length")
            yield first, length

    @contextmanager
    def tiles(self, first: Expr, length: Expr | int) -> Iterator[Expr]:
        """Each tile of a piece: the place of its first number, of which others are `hop` apart."""
        with self.e.b.loop(length, name="t") as t:
            self.e.space.bind(self.across.variable, self.e.b.let(first + t, "across"))
            yield self.e.b.let(t * self.channels, "at")

    def move(self, tensor: Buffer, tile: Expr, length: Expr | int, count: Dim, out: bool) -> None:
        """Copy a piece, `out` to the tensor or in from it, where its first `tile` is one of
        `count`."""
        b = self.e.b
        far = self.e.expr(count * self.channels)
        with b.loop(self.numbers, name="number") as number:
            here = b.let(number * self.hop, "here")
            there = b.let(number * far + tile * self.channels, "there")
            with b.loop(length * self.channels, "vector") as i:
                if out:
                    b.store(tensor, there + i, load(self.memory, here + i))
                else:
                    b.store(self.memory, here + i, load(tensor, there + i))


def lower_winograd_result(region: Region, lowering: Lowering, node: Node) -> None:
    """Launch the transform back, with the region's epilogue."""
    m, form = node.operands[0], form_of(attrs_of(node, WinogradResultAttrs))
    size, window = form.tile, form.window
    images, height, width, filters = node.types[0].shape
    space, acc = Space(), accumulator(m.dtype)
    image, y, x, f = (axis(space, d) for d in (images, height, width, filters))
    down, across = axis(space, tiles(height, size)), axis(space, tiles(width, size))
    source = plain_source(region, lowering, m)
    p = _without_sums(node, space, (image, y, x), f, Source(source.slot, source.dtype, 0))
    e = Scope(lowering, region.label, space)
    writer = ResultWriter(e, p, region)
    given = e.buffer(source.slot, hint="m")
    lanes = lowering.machine.lanes(acc.itemsize)
    count = images * down.extent * across.extent
    row = (image.variable * down.extent + down.variable) * across.extent

    def one(at: Expr, c: Expr, chunk: Chunk) -> None:
        space.bind(f.variable, c)
        mask = lane_mask(chunk.valid, chunk.lanes)

        def read(i: int, j: int) -> Expr:
            place = at + (i * window + j) * stage.hop + c
            return e.b.let(cast(load(stage.memory, place, chunk.lanes, mask), acc), "m")

        square = [[read(i, j) for j in range(window)] for i in range(window)]
        made = list(on_both_sides(e, form.result, square))
        column = Column({f.name: f.variable}, f, chunk, chunk.valid)
        for i in range(size):
            for j in range(size):
                pixel = {y.name: y.variable + i, x.name: x.variable + j}
                limits = {a.name: a.extent for a in (y, x) if a.extent % size != 0}
                with e.b.when(_inside(e, pixel, limits)) if limits else e.b.loop(1) as _:
                    writer.write([pixel], [column], {(0, 0): made[i][j]})

    with e.tasks([image.loop, down.loop]):
        stage = Stage(e, across, window**2, int(filters), m.dtype)
        e.space.bind(y.variable, e.b.let(e.expr(down.variable * size), "y"))
        with stage.pieces() as (first, length):
            stage.move(given, e.expr(row) + first, length, count, out=False)
            with stage.tiles(first, length) as at:
                e.space.bind(x.variable, e.b.let(e.expr(across.variable * size), "x"))
                along_channels(e, int(filters), lanes, partial(one, at))
    e.launch(
        region.label, m.type.numel * 4, (m.type.numel + node.types[0].numel) * m.dtype.itemsize
    )


def _without_sums(
    node: Node, space: Space, pixels: Sequence[Axis], f: Axis, nothing: Source
) -> Contraction:
    """What a writer has to know of the results: where they are, and that a bias runs along `f`."""
    index, shape = tuple(x.variable for x in (*pixels, f)), node.types[0].shape
    place, acc = space.linear(index, shape), accumulator(node.types[0].dtype)
    return Contraction(
        node,
        space,
        [],
        list(pixels),
        [f],
        [],
        nothing,
        nothing,
        index,
        place,
        shape,
        acc,
        channel=3,
    )


def _inside(e: Scope, row: dict[str, Dim], sizes: dict[str, Dim]) -> Expr:
    """Whether a result of a tile is one of the image."""
    return all_of([binary("lt", e.expr(row[name]), e.expr(size)) for name, size in sizes.items()])
