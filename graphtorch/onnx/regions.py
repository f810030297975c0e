"""Regions of images (torchvision's ``roi_align``, ``roi_pool``, ``ps_roi_align``, ``ps_roi_pool``)
in ONNX.

ONNX has RoiAlign and MaxRoiPool. Bins with channels of their own are the diagonal of what RoiAlign
gives for all channels; means of whole pixels are products with the pixels of each row and column of
bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir import dtype as dt
from graphtorch.ir.graph import Node

from .builder import ModelBuilder
from .pointwise import cast, unsupported

ARGMAX = (
    "onnx.export: roi_pool: ONNX's MaxRoiPool does not say where maxima are: leave the second "
    "result of torch.ops.torchvision.roi_pool unused, or export with torchvision.ops.roi_align"
)


def _column(b: ModelBuilder, rois: str, first: int, last: int) -> str:
    return b.op("Slice", [rois, b.ints([first]), b.ints([last]), b.ints([1])])


def _images(b: ModelBuilder, rois: str) -> str:
    """The image of each region, as a vector."""
    return cast(b, b.op("Reshape", [_column(b, rois, 0, 1), b.ints([-1])]), dt.i64)


def roi_align(b: ModelBuilder, node: Node, x: list[str]) -> str:
    """As RoiAlign: without half_pixel that, too, makes regions at least one pixel large."""
    return _aligned(b, node, x, "half_pixel" if _attrs(node).aligned else "output_half_pixel")


def _attrs(node: Node) -> Any:
    return node.attrs


def _aligned(b: ModelBuilder, node: Node, x: list[str], mode: str) -> str:
    a = _attrs(node)
    return b.op(
        "RoiAlign",
        [x[0], _column(b, x[1], 1, 5), _images(b, x[1])],
        spatial_scale=a.scale,
        output_height=a.size[0],
        output_width=a.size[1],
        sampling_ratio=max(a.ratio, 0),
        coordinate_transformation_mode=mode,
    )


def ps_roi_align(b: ModelBuilder, node: Node, x: list[str]) -> str:
    """The bins of all channels, of which each keeps its own; NaN where the data leave a bin no
    sample."""
    found, a = _own(b, node, _aligned(b, node, x, "half_pixel")), _attrs(node)
    if a.ratio > 0:
        return found
    dtype = node.types[0].dtype
    scaled = b.op("Mul", [x[1], b.scalar(a.scale, dtype)])
    lengths = b.op("Sub", [_column(b, scaled, 3, 5), _column(b, scaled, 1, 3)])
    samples = b.op("Ceil", [b.op("Div", [lengths, b.constant(a.size[::-1], dtype)])])
    product = b.op("Mul", [_column(b, samples, 0, 1), _column(b, samples, 1, 2)])
    none = b.op("Equal", [product, b.scalar(0, dtype)])
    return b.op(
        "Where", [b.op("Reshape", [none, b.ints([-1, 1, 1, 1])]), b.scalar(np.nan, dtype), found]
    )


def _own(b: ModelBuilder, node: Node, bins: str) -> str:
    """[K, C, h, w] of [K, C h w, h, w]: bin (i, j) of channel (c h + i) w + j."""
    _, channels, height, width = node.types[0].shape
    if not isinstance(channels, int):
        raise unsupported(node, "the number of channels must be static")
    area = height * width
    places = np.arange(area) * (area + 1) + np.arange(channels)[:, None] * area**2
    flat = b.op("Reshape", [bins, b.ints([0, -1])])
    picked = b.op("Gather", [flat, b.ints(places.reshape(-1).tolist())], axis=1)
    return b.op("Reshape", [picked, b.ints([0, channels, height, width])])


def roi_pool(b: ModelBuilder, node: Node, x: list[str]) -> list[str]:
    """MaxRoiPool, which does not say where it found the maxima."""
    a = _attrs(node)
    found = b.op("MaxRoiPool", x, pooled_shape=list(a.size), spatial_scale=a.scale)
    return [found, b.absent(ARGMAX)]


def ps_roi_pool(b: ModelBuilder, node: Node, x: list[str]) -> str:
    """Sums of the pixels in each row and column of bins, divided by their number; 0 where there are
    none."""
    a, image = _attrs(node), node.operands[0]
    if not all(isinstance(size, int) for size in image.shape[2:]):
        raise unsupported(
            node, "height and width of the image must be static: leave their Dims out"
        )
    dtype = image.dtype
    rows, count_y = _within(b, x[1], dtype, a, 1, int(image.shape[2]))  # [K, h, H], [K, h, 1]
    columns, count_x = _within(b, x[1], dtype, a, 0, int(image.shape[3]))
    planes = b.op("Gather", [x[0], _images(b, x[1])], axis=0)
    across = b.op(
        "MatMul", [planes, b.op("Transpose", [_unsqueezed(b, columns)], perm=[0, 1, 3, 2])]
    )
    sums = _own(b, node, b.op("MatMul", [_unsqueezed(b, rows), across]))
    counts = b.op("MatMul", [count_y, b.op("Transpose", [count_x], perm=[0, 2, 1])])
    least = b.op("Max", [counts, b.scalar(1, dtype)])
    return b.op("Div", [sums, _unsqueezed(b, least)])


def _unsqueezed(b: ModelBuilder, x: str, axis: int = 1) -> str:
    return b.op("Unsqueeze", [x, b.ints([axis])])


def _within(
    b: ModelBuilder, rois: str, dtype: dt.DType, a: Any, axis: int, size: int
) -> tuple[str, str]:
    """Which pixels along an axis are in which bin, as ones [K, bins, size], and how many [K, bins,
    1]."""
    bins = a.size[1 - axis]
    low, high = [
        _rounded(b, b.op("Mul", [_column(b, rois, at, at + 1), b.scalar(a.scale, dtype)]), dtype)
        for at in (1 + axis, 3 + axis)
    ]
    length = b.op("Max", [b.op("Sub", [high, low]), b.scalar(1, dtype)])
    step = b.op("Div", [length, b.scalar(bins, dtype)])
    first, last = [
        _unsqueezed(
            b,
            b.op(
                "Clip",
                [
                    b.op(
                        "Add",
                        [
                            b.op(
                                kind,
                                [b.op("Mul", [step, b.constant(np.arange(bins) + more, dtype)])],
                            ),
                            low,
                        ],
                    ),
                    b.scalar(0, dtype),
                    b.scalar(size - 1, dtype),
                ],
            ),
            2,
        )
        for kind, more in (("Floor", 0), ("Ceil", 1))
    ]
    pixels = b.constant(np.arange(size), dtype)
    inside = b.op("And", [b.op("GreaterOrEqual", [pixels, first]), b.op("Less", [pixels, last])])
    ones = cast(b, inside, dtype)
    return ones, b.op("ReduceSum", [ones, b.ints([2])], keepdims=1)


def _rounded(b: ModelBuilder, x: str, dtype: dt.DType) -> str:
    """The nearest integer, halves away from zero (ONNX's Round takes the even one)."""
    away = b.op("Floor", [b.op("Add", [b.op("Abs", [x]), b.scalar(0.5, dtype)])])
    return b.op("Mul", [b.op("Sign", [x]), away])


REGIONS = {f.__name__: f for f in (roi_align, roi_pool, ps_roi_align, ps_roi_pool)}
