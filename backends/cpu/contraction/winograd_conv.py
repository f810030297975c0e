"""Winograd's filtering as one kernel (`ir.ops.winograd.winograd_conv`).

A task transforms some tiles of the image into memory of its own, multiplies these by a block of
filters after the other, and transforms each block of products back: neither the tiles nor the
products, each more than twice as large as the image, pass through memory that tasks share. What is
read again for each task is the filters.
"""

from __future__ import annotations

from functools import partial

from graphtorch.ir.graph import Node
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.winograd import WinogradConvAttrs, form_of, tiles
from graphtorch.ir.shape import Dim

from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.operands import accumulator, plain_source
from ...kernels.contraction.problem import Axis, Contraction, Source, axis
from ...kernels.ir import Const, Expr, binary
from ...kernels.machine import Machine
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .schedule import TASKS, Tiling, any_row_sizes, chunks, column_sizes, most_rows, row_sizes
from .tile import Span, emit_product
from .winograd import Results, Tiles, along_channels, odd_lines, without_sums
from .writer import PartialWriter, ResultWriter

VECTORS = 2  # of filters, in a tile of sums
FEWEST = 8  # tiles of a task, for which filters are read


def tiles_of_task(machine: Machine, numbers: int, channels: int, count: Dim) -> int:
    """How many tiles a task takes: as many as fit the L2 cache beside their products, and fewer
    where that makes too few tasks."""
    room = machine.caches[1] * 3 // 4 // (4 * numbers)
    most = max(1, room // channels)
    if not isinstance(count, int) or count == 0:
        return min(most, FEWEST)
    wanted = min(most, max(FEWEST, count // TASKS))
    return -(-count // -(-count // wanted))


def lower_winograd_conv(region: Region, lowering: Lowering, node: Node) -> None:
    """Launch the convolution, with the region's epilogue."""
    attrs, (given, filters) = attrs_of(node, WinogradConvAttrs), node.operands
    form, channels = form_of(attrs), int(given.shape[3])
    numbers, blocks, _, width = (int(d) for d in filters.shape)
    images, *size, _ = node.types[0].shape
    space, acc = Space(), accumulator(given.dtype)
    image, y, x, f = (axis(space, d) for d in node.types[0].shape)
    down, across = (axis(space, tiles(s, form.tile)) for s in size)
    source, weights = (plain_source(region, lowering, v) for v in (given, filters))
    problem = without_sums(node, space, (image, y, x), f, source)
    e = Scope(lowering, region.label, space)
    low = attrs.padding[0][0], attrs.padding[1][0]
    x_buffer = e.buffer(source.slot, hint="x")
    cut = Tiles(e, given, x_buffer, form.image, form.tile, low, (image, down, across))
    back = Results(e, form, ResultWriter(e, problem, region), acc, (y, x), f)
    count = images * down.extent * across.extent
    each = tiles_of_task(lowering.machine, numbers, channels + width, count)
    part, block, number = (axis(space, n) for n in (-(-count // each), blocks, numbers))
    lanes = lowering.machine.lanes(acc.itemsize)

    def place(tile: Expr) -> None:
        """Bind what a tile's number says."""
        rest = e.b.let(tile // e.expr(across.extent), "row")
        space.bind(across.variable, e.b.let(tile % e.expr(across.extent), "across"))
        space.bind(down.variable, e.b.let(rest % e.expr(down.extent), "down"))
        space.bind(image.variable, e.b.let(rest // e.expr(down.extent), "image"))
        for pixel, along in ((y, down), (x, across)):
            space.bind(pixel.variable, e.b.let(e.expr(along.variable * form.tile), "pixel"))

    with e.tasks([part.loop]):
        first = e.b.let(e.expr(part.variable * each), "first")
        length: int | Expr = each
        if not isinstance(count, int) or count % each:
            length = e.b.let(binary("min", Const(each), e.expr(count) - first), "length")
        hops = odd_lines(each * channels, acc.itemsize), odd_lines(each * width, acc.itemsize)
        held, sums = (
            e.scratch(acc, numbers * hop, name)
            for hop, name in zip(hops, ("tiles", "sums"), strict=True)
        )
        with e.b.loop(length, name="t") as t:
            place(e.b.let(first + t, "tile"))
            cut.transform(e.buffer(held), e.b.let(t * channels, "to"), hops[0])
        with e.b.loop(blocks, name="block") as which:
            space.bind(block.variable, which)
            with e.b.loop(numbers, name="number") as at:
                space.bind(number.variable, at)
                products(e, problem, (number, block), (held, weights, sums), hops, (length, each))
            with e.b.loop(length, name="t") as t:
                place(e.b.let(first + t, "tile"))
                start = e.b.let(t * width, "at")
                one = partial(
                    back.transform, e.buffer(sums), start, hops[1], block.variable * width
                )
                along_channels(e, width, lanes, one)
    flops = 2 * numbers * count * channels * blocks * width
    values = (given, filters, node.result())
    moved: Dim = 0
    for value in values:
        moved = moved + value.type.numel * value.dtype.itemsize
    e.launch(region.label, flops, moved)


def _row_sizes(count: int | Expr, most: int) -> tuple[int, ...]:
    return row_sizes(count, most) if isinstance(count, int) else any_row_sizes(1, most)


def products(
    e: Scope,
    problem: Contraction,
    at: tuple[Axis, Axis],
    slots: tuple[Slot, Source, Slot],
    hops: tuple[int, int],
    rows: tuple[int | Expr, int],
) -> None:
    """Of all tiles of a task and a block of filters, for one of the numbers of a tile.

    Args:
        at: the number, and the block.
        slots: tiles, filters, and where sums go.
        hops: how far apart the numbers of tiles and sums lie.
        rows: how many tiles there are, and at most.
    """
    space, acc, machine = e.space, problem.acc, e.lowering.machine
    (number, block), (held, weights, sums) = at, slots
    channels, width = (int(problem.node.operands[1].shape[d]) for d in (2, 3))
    count, most = rows
    m, n, k = (axis(space, d) for d in (most, width, channels))
    from_tiles = number.variable * hops[0] + m.variable * channels + k.variable
    from_filters = (number.variable * block.extent + block.variable) * channels + k.variable
    a = Source(held, acc, from_tiles)
    b = Source(weights.slot, weights.dtype, from_filters * width + n.variable)
    p = Contraction(problem.node, space, [], [m], [n], [k], a, b, (), 0, (), acc)
    lanes = machine.lanes(acc.itemsize)
    columns = Tiling(column_sizes(width, VECTORS, lanes))
    vectors = len(chunks(columns.sizes[0], lanes))
    down = Tiling(_row_sizes(count, most_rows(vectors, machine.registers)))
    writer = PartialWriter(e, sums, number.variable * hops[1] + m.variable * width + n.variable)
    emit_product(e, p, Span(m, count, down), Span(n, width, columns), writer, lanes)
