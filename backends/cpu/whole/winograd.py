"""The transforms of tiles that begin Winograd's filtering (`ir.ops.winograd`): of an image, and of
a result's gradient."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.graph import Node
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.winograd import (
    Matrix,
    WinogradImageAttrs,
    WinogradResultGradAttrs,
    form_of,
    tiles,
)
from graphtorch.ir.shape import Dim

from ...kernels.body.access import lane_mask, store_lanes
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.operands import accumulator
from ...kernels.contraction.problem import axis
from ...kernels.ir import Const, Expr, binary, cast, load, splat
from ..contraction.schedule import Chunk
from ..contraction.winograd import Stage, along_channels, on_both_sides
from ..loops.places import Places


def lower_winograd_image(places: Places, node: Node) -> None:
    """Launch the transform of the image's tiles."""
    attrs = attrs_of(node, WinogradImageAttrs)
    form = form_of(attrs)
    _lower_tiles(places, node, form.image, form.tile, attrs.padding)


def lower_winograd_result_grad(places: Places, node: Node) -> None:
    """Launch the transform of the tiles of a result's gradient."""
    form = form_of(attrs_of(node, WinogradResultGradAttrs))
    _lower_tiles(places, node, form.result_grad, form.tile, ((0, 0), (0, 0)))


def _lower_tiles(
    places: Places, node: Node, matrix: Matrix, step: int, padding: Sequence[tuple[int, int]]
) -> None:
    """`matrix` on both sides of tiles that are `step` apart, of x [N, H, W, C] in zeros."""
    x, lowering = node.operands[0], places.lowering
    images, height, width, channels = x.shape
    (top, bottom), (left, right) = padding
    space, acc = Space(), accumulator(x.dtype)
    window = len(matrix[0])
    rows = tiles(height + top + bottom - (window - step), step)
    columns = tiles(width + left + right - (window - step), step)
    image, down, across = (axis(space, d) for d in (images, rows, columns))
    e = Scope(lowering, node.op.name, space)
    given = e.buffer(places.materialise(x), hint="x")
    made = e.buffer(places.result_slot(node.result()), "write", "y")
    lanes = lowering.machine.lanes(acc.itemsize)
    first_row, first_column = down.variable * step - top, across.variable * step - left
    row = (image.variable * rows + down.variable) * columns
    count = images * rows * columns

    def vector(at: Expr, c: Expr, chunk: Chunk, i: int, j: int, inside: Expr | None) -> Expr:
        mask = lane_mask(chunk.valid, chunk.lanes)
        if inside is not None:
            mask = inside if mask is None else binary("and", mask, inside)
        where = at + e.expr((i * width + j) * channels) + c
        return e.b.let(cast(load(given, where, chunk.lanes, mask), acc), "d")

    def one(
        c: Expr, chunk: Chunk, at: Expr, to: Expr, inside: Sequence[Sequence[Expr]] | None
    ) -> None:
        square = [
            [
                vector(
                    at,
                    c,
                    chunk,
                    i,
                    j,
                    binary("and", *(splat(x, chunk.lanes) for x in (inside[0][i], inside[1][j])))
                    if inside
                    else None,
                )
                for j in range(window)
            ]
            for i in range(window)
        ]
        for a, numbers in enumerate(on_both_sides(e, matrix, square)):
            for b, value in enumerate(numbers):
                where = to + (a * len(matrix) + b) * stage.hop + c
                store_lanes(e.b, stage.memory, where, cast(value, x.dtype), chunk.valid, e.masks)

    def all_channels(to: Expr) -> None:
        at = e.b.let(
            e.expr(((image.variable * height + first_row) * width + first_column) * channels), "at"
        )
        inside = [
            [e.b.let(_within(e, first + i, size), "inside") for i in range(window)]
            for first, size in ((first_row, height), (first_column, width))
        ]
        ends = [binary("and", side[0], side[-1]) for side in inside]
        with e.b.when(e.b.let(binary("and", *ends), "whole")):
            along_channels(e, int(channels), lanes, lambda c, k: one(c, k, at, to, None))
        with e.b.otherwise():
            along_channels(e, int(channels), lanes, lambda c, k: one(c, k, at, to, inside))

    with e.tasks([image.loop, down.loop]):
        stage = Stage(e, across, len(matrix) ** 2, int(channels), x.dtype)
        with stage.pieces() as (first, length):
            with stage.tiles(first, length) as to:
                all_channels(to)
            stage.move(made, e.expr(row) + first, length, count, out=True)
    moved = (x.type.numel + node.types[0].numel) * x.dtype.itemsize
    e.launch(node.op.name, node.types[0].numel * 6, moved)


def _within(e: Scope, at: Dim, size: Dim) -> Expr:
    place = e.b.let(e.expr(at), "pixel")
    return binary("and", binary("le", Const(0), place), binary("lt", place, e.expr(size)))
