"""Winograd's minimal filtering F(4x4, 3x3) in three steps, images with their channels next to each
other.

A 3 x 3 convolution of stride 1 makes 4 x 4 results from 6 x 6 pixels. Per channel

    Y = A^T [sum over c  (G w G^T) * (B^T d B)] A

takes 36 multiplications where the sum over taps takes 144 (A. Lavin and S. Gray, "Fast Algorithms
for Convolutional Neural Networks", 2015, https://arxiv.org/abs/1509.09308, section 4.3). The sum
over channels is 36 matrix products; `winograd_image` makes B^T d B of all tiles, and
`winograd_result` A^T m A. Sums and differences of numbers of unlike size lose bits: about 1e-5 of
the largest result, ten times what a plain sum loses. Made by the `winograd` pass, after
differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Type, Value
from ..literal import Literal
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..shape import Dim, numel
from .checks import attrs_of, ints
from .common import FLOATING, check_domain, ops, wide
from .timing import transformed_ns

__all__ = ["winograd_image", "winograd_result"]

TILE, WINDOW = 4, 6  # results and pixels of a tile along a dimension
IMAGE = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)  # B^T
FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)  # G
RESULT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))  # A^T


@dataclass(frozen=True)
class WinogradImageAttrs(Attrs):
    """padding: zeros before and after each of the two spatial dimensions."""

    padding: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WinogradResultAttrs(Attrs):
    """shape: of the result, [N, H, W, F]."""

    shape: tuple[Dim, ...]


def tiles(size: Dim) -> Dim:
    """Tiles that cover `size` results."""
    return (size + (TILE - 1)) // TILE


def results(spatial: Sequence[Dim], attrs: WinogradImageAttrs) -> tuple[Dim, ...]:
    """Sizes of the convolution's result."""
    return tuple([s + sum(p) - 2 for s, p in zip(spatial, attrs.padding, strict=True)])


def _image_infer(attrs: WinogradImageAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("winograd_image", x, FLOATING)
    if x.rank != 4 or len(attrs.padding) != 2:
        raise RuntimeError(
            f"winograd_image: expected an image [N, H, W, C] and two paddings, but got shape "
            f"{list(x.shape)} and padding={attrs.padding}"
        )
    images, height, width, channels = x.shape
    down, across = map(tiles, results((height, width), attrs))
    return (x.with_shape((WINDOW * WINDOW, images * down * across, channels)),)


def _result_infer(attrs: WinogradResultAttrs, m: Type) -> tuple[Type, ...]:
    check_domain("winograd_result", m, FLOATING)
    images, height, width, filters = attrs.shape
    expected = (WINDOW * WINDOW, images * tiles(height) * tiles(width), filters)
    if m.shape != expected:
        raise RuntimeError(
            f"winograd_result: a result {list(attrs.shape)} is made of {list(expected)}, but "
            f"got {list(m.shape)}"
        )
    return (m.with_shape(attrs.shape),)


def _by_transform(matrix: Sequence[Sequence[float]], x: Value) -> Value:
    """`matrix` on both sides of each tile x [36, ...], by one product: [rows * rows, ...]."""
    both = np.kron(np.array(matrix), np.array(matrix)).astype(x.dtype.numpy)
    made = ops.matmul(
        ops.constant(value=Literal.of(both, x.dtype)),
        ops.reshape(x, shape=(x.shape[0], numel(x.shape[1:]))),
    )
    return ops.reshape(made, shape=(both.shape[0], *x.shape[1:]))  # type: ignore[no-any-return]


def _image_decompose(node: Node) -> tuple[Value]:
    x, attrs = node.operands[0], attrs_of(node, WinogradImageAttrs)
    images, height, width, channels = x.shape
    counts = [tiles(s) for s in results((height, width), attrs)]
    low = tuple(p[0] for p in attrs.padding)
    high = tuple(p[1] + WINDOW for p in attrs.padding)  # enough for the last tile
    padded = ops.pad(x, low=(0, *low, 0), high=(0, *high, 0), value=0)
    reach = [TILE * (n - 1) + 1 for n in counts]

    def pixels(i: int, j: int) -> Value:
        """Those at i, j of each tile."""
        found = ops.slice(
            padded,
            start=(0, i, j, 0),
            stop=(images, i + reach[0], j + reach[1], channels),
            step=(1, TILE, TILE, 1),
        )
        return ops.reshape(found, shape=(1, images * counts[0] * counts[1], channels))  # type: ignore[no-any-return]

    parts = [pixels(i, j) for i in range(WINDOW) for j in range(WINDOW)]
    return (_by_transform(IMAGE, ops.concat(*parts, dim=0)),)


def _result_decompose(node: Node) -> tuple[Value]:
    images, height, width, filters = attrs_of(node, WinogradResultAttrs).shape
    down, across = tiles(height), tiles(width)
    made = _by_transform(RESULT, node.operands[0])
    parts = ops.permute(
        ops.reshape(made, shape=(TILE, TILE, images, down, across, filters)),
        dims=(2, 3, 0, 4, 1, 5),
    )
    whole = ops.reshape(parts, shape=(images, TILE * down, TILE * across, filters))
    return (
        ops.slice(
            whole, start=(0, 0, 0, 0), stop=(images, height, width, filters), step=(1, 1, 1, 1)
        ),
    )


def _image_reference(attrs: WinogradImageAttrs, x: np.ndarray) -> np.ndarray:
    images, height, width, channels = x.shape
    down, across = (int(tiles(s)) for s in ints(results((height, width), attrs)))
    room = [
        TILE * n + 2 - s - low
        for n, s, (low, _) in zip((down, across), (height, width), attrs.padding, strict=True)
    ]
    around = [(low, max(high, 0)) for (low, _), high in zip(attrs.padding, room, strict=True)]
    padded = np.pad(wide(x), [(0, 0), *around, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW), (1, 2))[
        :, ::TILE, ::TILE
    ]
    windows = windows[:, :down, :across]  # [N, down, across, C, 6, 6]
    transform = np.array(IMAGE, windows.dtype)
    made = np.einsum("ai,nyxcij,bj->abnyxc", transform, windows, transform)
    return made.reshape(WINDOW * WINDOW, images * down * across, channels).astype(x.dtype)


def _result_reference(attrs: WinogradResultAttrs, m: np.ndarray) -> np.ndarray:
    images, height, width, filters = ints(attrs.shape)
    down, across = int(tiles(height)), int(tiles(width))
    parts = wide(m).reshape(WINDOW, WINDOW, images, down, across, filters)
    transform = np.array(RESULT, parts.dtype)
    made = np.einsum("ia,abnyxf,jb->nyixjf", transform, parts, transform)
    made = made.reshape(images, TILE * down, TILE * across, filters)
    return made[:, :height, :width].astype(m.dtype)


winograd_image = Op(
    "winograd_image",
    "B^T d B of each 6 x 6 tile d, 4 apart, of x [N, H, W, C] in zeros: [36, tiles, C].",
    ("x",),
    attrs=WinogradImageAttrs,
    infer=_image_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_image_decompose,
    reference=_image_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)
winograd_result = Op(
    "winograd_result",
    "A^T m A of each tile m of m [36, tiles, F], side by side: [N, H, W, F].",
    ("m",),
    attrs=WinogradResultAttrs,
    infer=_result_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_result_decompose,
    reference=_result_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=transformed_ns,
    batch=BY_DECOMPOSITION,
)
