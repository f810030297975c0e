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
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.winograd import Form, WinogradResultAttrs, form_of, tiles
from graphtorch.ir.shape import Dim

from ...kernels.body.access import lane_mask, store_lanes
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.operands import accumulator, plain_source
from ...kernels.contraction.problem import Axis, Contraction, Source, axis
from ...kernels.ir import Buffer, Const, Expr, binary, cast, fma, load, splat
from ...kernels.program.lowering import Lowering, Region
from .borders import all_of
from .schedule import Chunk, chunks
from .tile import Column
from .writer import ResultWriter

Matrix = Sequence[Sequence[float]]
LINE = 64  # bytes of a cache line


def transformed(e: Scope, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
    """``matrix @ values``: of numbers that are 0 nothing is read, by 1 nothing is multiplied; two
    rows that differ in signs are the sum and the difference of two sums, and so are two columns."""
    made: dict[int, Expr] = {}
    for i, row in enumerate(matrix):
        twin = next((j for j in range(i + 1, len(matrix)) if _differ_in_signs(row, matrix[j])), 0)
        if i not in made and twin and twin not in made:
            even, odd, factor = _halves(row, matrix[twin])
            common, other = (e.b.let(_combined(half, values), "half") for half in (even, odd))
            made[i], made[twin] = _sum_and_difference(e, common, other, factor)
    if not made:
        matrix, values = _paired(e, matrix, values)
    return [
        made[i] if i in made else e.b.let(_combined(row, values), "t")
        for i, row in enumerate(matrix)
    ]


def _differ_in_signs(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether some numbers are the same in both, and all others are each other's negatives."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x or y]
    return all(abs(x) == abs(y) for x, y in pairs) and len({x == y for x, y in pairs}) == 2


def _halves(
    row: Sequence[float], twin: Sequence[float]
) -> tuple[Sequence[float], Sequence[float], float]:
    """What two rows have in common, and what one adds that the other subtracts, times a factor."""
    even = [x if x == y else 0 for x, y in zip(row, twin, strict=True)]
    odd = [x if x != y else 0 for x, y in zip(row, twin, strict=True)]
    factor = min(abs(x) for x in odd if x)
    return even, [x / factor for x in odd], factor


def _sum_and_difference(e: Scope, even: Expr, odd: Expr, factor: float) -> tuple[Expr, Expr]:
    if factor == 1:
        found = binary("add", even, odd), binary("sub", even, odd)
    else:
        found = tuple(fma(Const(float(x), odd.type), odd, even) for x in (factor, -factor))  # type: ignore[assignment]
    return e.b.let(found[0], "t"), e.b.let(found[1], "t")


def _paired(
    e: Scope, matrix: Matrix, values: Sequence[Expr]
) -> tuple[list[list[float]], list[Expr]]:
    """The same product of sums and differences of values instead of those whose columns differ in
    signs."""
    rows, found = [list(row) for row in matrix], list(values)
    columns = list(zip(*matrix, strict=True))
    for i in range(len(columns) - 1):
        if _differ_in_signs(columns[i], columns[i + 1]):
            a, b = values[i], values[i + 1]
            found[i] = e.b.let(binary("add", a, b), "both")
            found[i + 1] = e.b.let(binary("sub", a, b), "both")
            for row in rows:
                same = row[i] == row[i + 1]
                row[i], row[i + 1] = (row[i], 0) if same else (0, row[i])
    return rows, found


def _combined(row: Sequence[float], values: Sequence[Expr]) -> Expr:
    total: Expr | None = None
    # what needs no product comes first, what is subtracted last
    for number, value in sorted(
        zip(row, values, strict=True), key=lambda pair: (pair[0] < 0, pair[0] != 1)
    ):
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


def odd_lines(elements: int, itemsize: int) -> int:
    """An odd number of cache lines that hold so many, in elements: what lies so far apart is spread
    over a cache's sets."""
    line = LINE // itemsize
    return (-(-elements // line) | 1) * line


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
        self.hop = odd_lines(self.block * channels, dtype.itemsize)
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


class Tiles:
    """Tiles `step` apart of an image x [N, H, W, C] in zeros, `matrix` on both sides of each.

    Args:
        low: zeros above and left of the image.
        axes: the image, and the tile's place down and across in it; all bound where a tile is
            transformed.
    """

    def __init__(
        self,
        e: Scope,
        x: Value,
        given: Buffer,
        matrix: Matrix,
        step: int,
        low: tuple[int, int],
        axes: tuple[Axis, Axis, Axis],
    ):
        self.e, self.x, self.given, self.matrix = e, x, given, matrix
        self.acc = accumulator(x.dtype)
        self.image, down, across = axes
        self.corner = down.variable * step - low[0], across.variable * step - low[1]

    def transform(self, memory: Buffer, to: Expr, hop: int) -> None:
        """All channels of a tile: its numbers `hop` apart in `memory`, from `to` on."""
        e, (_, height, width, channels) = self.e, self.x.shape
        row, column = self.corner
        place = ((self.image.variable * height + row) * width + column) * channels
        at = e.b.let(e.expr(place), "at")
        window = range(len(self.matrix[0]))
        inside = [
            [e.b.let(_within(e, first + i, size), "inside") for i in window]
            for first, size in ((row, height), (column, width))
        ]
        ends = [binary("and", side[0], side[-1]) for side in inside]
        lanes = e.lowering.machine.lanes(self.acc.itemsize)
        one = partial(self._vectors, memory, to, hop, at)
        with e.b.when(e.b.let(binary("and", *ends), "whole")):
            along_channels(e, int(channels), lanes, partial(one, None))
        with e.b.otherwise():
            along_channels(e, int(channels), lanes, partial(one, inside))

    def _vectors(
        self,
        memory: Buffer,
        to: Expr,
        hop: int,
        at: Expr,
        inside: Sequence[Sequence[Expr]] | None,
        c: Expr,
        chunk: Chunk,
    ) -> None:
        """Those of a few neighbouring channels."""
        window, e = range(len(self.matrix[0])), self.e
        square = [[self._pixels(at, inside, c, chunk, i, j) for j in window] for i in window]
        for a, numbers in enumerate(on_both_sides(e, self.matrix, square)):
            for b, value in enumerate(numbers):
                where = to + (a * len(self.matrix) + b) * hop + c
                store_lanes(e.b, memory, where, cast(value, memory.dtype), chunk.valid, e.masks)

    def _pixels(
        self,
        at: Expr,
        inside: Sequence[Sequence[Expr]] | None,
        c: Expr,
        chunk: Chunk,
        i: int,
        j: int,
    ) -> Expr:
        e, (_, _, width, channels) = self.e, self.x.shape
        mask = lane_mask(chunk.valid, chunk.lanes)
        if inside is not None:
            both = binary("and", *(splat(x, chunk.lanes) for x in (inside[0][i], inside[1][j])))
            mask = both if mask is None else binary("and", mask, both)
        where = at + e.expr((i * width + j) * channels) + c
        return e.b.let(cast(load(self.given, where, chunk.lanes, mask), self.acc), "d")


def _within(e: Scope, at: Dim, size: Dim) -> Expr:
    place = e.b.let(e.expr(at), "pixel")
    return binary("and", binary("le", Const(0), place), binary("lt", place, e.expr(size)))


class Results:
    """Tiles of results, A^T m A of numbers in memory, finished by `writer` where the image has
    them.

    Args:
        pixels: the results' places down and across, bound to those of a tile's first.
        f: the filter.
    """

    def __init__(
        self,
        e: Scope,
        form: Form,
        writer: ResultWriter,
        acc: DType,
        pixels: Sequence[Axis],
        f: Axis,
    ):
        self.e, self.form, self.writer, self.acc = e, form, writer, acc
        self.pixels, self.f = pixels, f

    def transform(
        self, memory: Buffer, at: Expr, hop: int, first: Dim, c: Expr, chunk: Chunk
    ) -> None:
        """Those of a few neighbouring filters, at `first` + c: the numbers `hop` apart from
        `at`."""
        e, f = self.e, self.f
        e.space.bind(f.variable, e.b.let(e.expr(first) + c, "f"))
        mask, window = lane_mask(chunk.valid, chunk.lanes), self.form.window

        def read(i: int, j: int) -> Expr:
            place = at + (i * window + j) * hop + c
            return e.b.let(cast(load(memory, place, chunk.lanes, mask), self.acc), "m")

        square = [[read(i, j) for j in range(window)] for i in range(window)]
        made = list(on_both_sides(e, self.form.result, square))
        column = Column({f.name: f.variable}, f, chunk, chunk.valid)
        y, x = self.pixels
        limits = {a.name: a.extent for a in (y, x) if a.extent % self.form.tile != 0}
        for i, row in enumerate(made):
            for j, value in enumerate(row):
                pixel = {y.name: y.variable + i, x.name: x.variable + j}
                with e.b.when(_inside(e, pixel, limits)) if limits else e.b.loop(1) as _:
                    self.writer.write([pixel], [column], {(0, 0): value})


def lower_winograd_result(region: Region, lowering: Lowering, node: Node) -> None:
    """Launch the transform back, with the region's epilogue."""
    m, form = node.operands[0], form_of(attrs_of(node, WinogradResultAttrs))
    size, window = form.tile, form.window
    images, height, width, filters = node.types[0].shape
    space, acc = Space(), accumulator(m.dtype)
    image, y, x, f = (axis(space, d) for d in (images, height, width, filters))
    down, across = axis(space, tiles(height, size)), axis(space, tiles(width, size))
    source = plain_source(region, lowering, m)
    p = without_sums(node, space, (image, y, x), f, Source(source.slot, source.dtype, 0))
    e = Scope(lowering, region.label, space)
    back = Results(e, form, ResultWriter(e, p, region), acc, (y, x), f)
    given = e.buffer(source.slot, hint="m")
    lanes = lowering.machine.lanes(acc.itemsize)
    count = images * down.extent * across.extent
    row = (image.variable * down.extent + down.variable) * across.extent

    with e.tasks([image.loop, down.loop]):
        stage = Stage(e, across, window**2, int(filters), m.dtype)
        e.space.bind(y.variable, e.b.let(e.expr(down.variable * size), "y"))
        with stage.pieces() as (first, length):
            stage.move(given, e.expr(row) + first, length, count, out=False)
            with stage.tiles(first, length) as at:
                e.space.bind(x.variable, e.b.let(e.expr(across.variable * size), "x"))
                along_channels(
                    e, int(filters), lanes, partial(back.transform, stage.memory, at, stage.hop, 0)
                )
    e.launch(
        region.label, m.type.numel * 4, (m.type.numel + node.types[0].numel) * m.dtype.itemsize
    )


def without_sums(
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
