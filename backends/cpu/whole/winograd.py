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

from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.problem import axis
from ..contraction.winograd import Stage, Tiles
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
    space = Space()
    window = len(matrix[0])
    rows = tiles(height + top + bottom - (window - step), step)
    columns = tiles(width + left + right - (window - step), step)
    image, down, across = (axis(space, d) for d in (images, rows, columns))
    e = Scope(lowering, node.op.name, space)
    given = e.buffer(places.materialise(x), hint="x")
    made = e.buffer(places.result_slot(node.result()), "write", "y")
    row = (image.variable * rows + down.variable) * columns
    count = images * rows * columns

    cut = Tiles(e, x, given, matrix, step, (top, left), (image, down, across))
    with e.tasks([image.loop, down.loop]):
        stage = Stage(e, across, len(matrix) ** 2, int(channels), x.dtype)
        with stage.pieces() as (first, length):
            with stage.tiles(first, length) as to:
                cut.transform(stage.memory, to, stage.hop)
            stage.move(made, e.expr(row) + first, length, count, out=True)
    moved_bytes = (x.type.numel + node.types[0].numel) * x.dtype.itemsize
    e.launch(node.op.name, node.types[0].numel * 6, moved_bytes)
