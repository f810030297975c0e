"""Winograd's filtering (`ir.ops.winograd`): transforms of tiles, and the one after its matrix
products.

Vectors run along channels. A tile is transformed along columns, then along rows: sums of at most
four numbers each. Tiles at the border of an image read, or write, under a condition a row and
pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphtorch.ir.graph import Node
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.winograd import WinogradResultAttrs, form_of, tiles
from graphtorch.ir.shape import Dim

from ...kernels.body.access import lane_mask
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.operands import accumulator, plain_source
from ...kernels.contraction.problem import Axis, Contraction, Source, axis
from ...kernels.ir import Const, Expr, binary, cast, fma, load
from ...kernels.program.lowering import Lowering, Region
from .borders import all_of
from .schedule import Chunk, chunks
from .tile import Column
from .writer import ResultWriter

Matrix = Sequence[Sequence[float]]


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
    tile = (image.variable * down.extent + down.variable) * across.extent + across.variable

    def one(c: Expr, chunk: Chunk, at: Expr) -> None:
        space.bind(f.variable, c)
        mask = lane_mask(chunk.valid, chunk.lanes)

        def read(i: int, j: int) -> Expr:
            place = at + e.expr((i * window + j) * count * filters) + c
            return e.b.let(cast(load(given, place, chunk.lanes, mask), acc), "m")

        square = [[read(i, j) for j in range(window)] for i in range(window)]
        made = list(on_both_sides(e, form.result, square))
        column = Column({f.name: f.variable}, f, chunk, chunk.valid)
        for i in range(size):
            for j in range(size):
                row = {y.name: y.variable + i, x.name: x.variable + j}
                limits = {a.name: a.extent for a in (y, x) if a.extent % size != 0}
                with e.b.when(_inside(e, row, limits)) if limits else e.b.loop(1) as _:
                    writer.write([row], [column], {(0, 0): made[i][j]})

    with e.tasks([image.loop, down.loop]), e.nested([across.loop]):
        e.space.bind(y.variable, e.b.let(e.expr(down.variable * size), "y"))
        e.space.bind(x.variable, e.b.let(e.expr(across.variable * size), "x"))
        at = e.b.let(e.expr(tile * filters), "at")
        along_channels(e, int(filters), lanes, lambda c, k: one(c, k, at))
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
