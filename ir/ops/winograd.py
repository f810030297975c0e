"""Winograd's minimal filtering F(t x t, 3 x 3) in steps, images with their channels next to each
other, for t = 2 and 4.

A 3 x 3 convolution of stride 1 makes t x t results from w x w pixels, w = t + 2. Per channel

    Y = A^T [sum over c  (G w G^T) * (B^T d B)] A

takes w^2 multiplications where the sum over taps takes 9 t^2: 16 for 36, or 36 for 144 (A. Lavin
and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015,
https://arxiv.org/abs/1509.09308, sections 4.1 and 4.3). The sum over channels is w^2 matrix
products; `winograd_image` makes B^T d B of all tiles, `winograd_result` A^T m A, and for the
gradient of the filters `winograd_result_grad` A g A^T; `winograd_conv` is the three steps in one.
Sums and differences of numbers of unlike size lose bits: with t = 4 up to 2e-5 of the largest
result, and 3e-5 of filters' gradients, where plain sums lose 3e-6 and 4e-7; with t = 2 about as
much as these (seen with 64 to 512 channels).
Made by the `winograd` pass, after differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ..dataclass import dataclass
from ..graph import Node, Type, Value
from ..literal import Literal
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..shape import Dim, numel
from .checks import attrs_of, ints
from .common import FLOATING, check_domain, ops, wide
from .timing import tiled_ns, transformed_ns

__all__ = ["winograd_conv", "winograd_image", "winograd_result", "winograd_result_grad"]

Matrix: TypeAlias = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Form:
    """The matrices for t x t results: `image` B^T [w, w], `filter` G [w, 3], `result` A^T [t,
    w]."""

    image: Matrix
    filter: Matrix
    result: Matrix

    @property
    def tile(self) -> int:
        """t: results of a tile along a dimension."""
        return len(self.result)

    @property
    def window(self) -> int:
        """w: pixels of a tile along a dimension."""
        return len(self.image)

    @property
    def result_grad(self) -> Matrix:
        """A."""
        return tuple(zip(*self.result, strict=True))


FORMS = {
    form.tile: form
    for form in (
        Form(
            image=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
            filter=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
            result=((1, 1, 1, 0), (0, 1, -1, -1)),
        ),
        Form(
            image=(
                (4, 0, -5, 0, 1, 0),
                (0, -4, -4, 1, 1, 0),
                (0, 4, -4, -1, 1, 0),
                (0, -2, -1, 2, 1, 0),
                (0, 2, -1, -2, 1, 0),
                (0, 4, 0, -5, 0, 1),
            ),
            filter=(
                (1 / 4, 0, 0),
                (-1 / 6, -1 / 6, -1 / 6),
                (-1 / 6, 1 / 6, -1 / 6),
                (1 / 24, 1 / 12, 1 / 6),
                (1 / 24, -1 / 12, 1 / 6),
                (0, 0, 1),
            ),
            result=(
                (1, 1, 1, 1, 1, 0),
                (0, 1, -1, 2, -2, 0),
                (0, 1, 1, 4, 4, 0),
                (0, 1, -1, 8, -8, 1),
            ),
        ),
    )
}


@dataclass(frozen=True)
class WinogradImageAttrs(Attrs):
    """padding: zeros before and after each of the two spatial dimensions. tile: t, 2 or 4.
    again: made anew for a gradient; the same tiles as before, which nobody has to keep until then.
    """

    padding: tuple[tuple[int, int], ...]
    tile: int
    again: bool = False


@dataclass(frozen=True)
class WinogradResultAttrs(Attrs):
    """shape: of the result, [N, H, W, F]. tile: t, 2 or 4."""

    shape: tuple[Dim, ...]
    tile: int


@dataclass(frozen=True)
class WinogradResultGradAttrs(Attrs):
    """tile: t, 2 or 4."""

    tile: int


@dataclass(frozen=True)
class WinogradConvAttrs(Attrs):
    """padding: zeros before and after each of the two spatial dimensions. tile: t, 2 or 4."""

    padding: tuple[tuple[int, int], ...]
    tile: int


AnyAttrs: TypeAlias = (
    WinogradImageAttrs | WinogradResultAttrs | WinogradResultGradAttrs | WinogradConvAttrs
)


def form_of(attrs: AnyAttrs) -> Form:
    """The matrices of a node's form.

    Raises:
        RuntimeError: there is none of that size.
    """
    if attrs.tile not in FORMS:
        raise RuntimeError(
            f"winograd: tiles are of {' or '.join(map(str, FORMS))}, not {attrs.tile}"
        )
    return FORMS[attrs.tile]


def tiles(size: Dim, tile: int) -> Dim:
    """Tiles that cover `size` results."""
    return (size + (tile - 1)) // tile


def results(spatial: Sequence[Dim], padding: Sequence[tuple[int, int]]) -> tuple[Dim, ...]:
    """Sizes of the convolution's result."""
    return tuple([s + sum(p) - 2 for s, p in zip(spatial, padding, strict=True)])


# types --------------------------------------------------------------------------------------------


def _image_infer(attrs: WinogradImageAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("winograd_image", x, FLOATING)
    if x.rank != 4 or len(attrs.padding) != 2:
        raise RuntimeError(
            f"winograd_image: expected an image [N, H, W, C] and two paddings, but got shape "
            f"{list(x.shape)} and padding={attrs.padding}"
        )
    images, height, width, channels = x.shape
    return (_tiled(x, form_of(attrs), images, *results((height, width), attrs.padding), channels),)


def _result_infer(attrs: WinogradResultAttrs, m: Type) -> tuple[Type, ...]:
    check_domain("winograd_result", m, FLOATING)
    expected = _tiled(m, form_of(attrs), *attrs.shape)
    if m.shape != expected.shape:
        raise RuntimeError(
            f"winograd_result: a result {list(attrs.shape)} is made of {list(expected.shape)}, but "
            f"got {list(m.shape)}"
        )
    return (m.with_shape(attrs.shape),)


def _conv_infer(attrs: WinogradConvAttrs, x: Type, w: Type) -> tuple[Type, ...]:
    (tiled,) = _image_infer(WinogradImageAttrs(attrs.padding, attrs.tile), x)
    numbers, _, channels = tiled.shape
    if w.rank != 4 or w.shape[0] != numbers or w.shape[2] != channels or w.dtype is not x.dtype:
        raise RuntimeError(
            f"winograd_conv: an image {list(x.shape)} takes filters [{numbers}, F / b, {channels}, "
            f"b] of its dtype, but got {w}"
        )
    size = results(x.shape[1:3], attrs.padding)
    return (x.with_shape((x.shape[0], *size, w.shape[1] * w.shape[3])),)


def _result_grad_infer(attrs: WinogradResultGradAttrs, g: Type) -> tuple[Type, ...]:
    check_domain("winograd_result_grad", g, FLOATING)
    if g.rank != 4:
        raise RuntimeError(
            f"winograd_result_grad: expected results [N, H, W, F], but got shape {list(g.shape)}"
        )
    return (_tiled(g, form_of(attrs), *g.shape),)


def _tiled(x: Type, form: Form, *shape: Dim) -> Type:
    """w^2 numbers of each tile and channel of a result [N, H, W, C]."""
    images, height, width, channels = shape
    count = images * tiles(height, form.tile) * tiles(width, form.tile)
    return x.with_shape((form.window**2, count, channels))


# algebra ------------------------------------------------------------------------------------------


def _by_transform(matrix: Matrix, x: Value) -> Value:
    """`matrix` on both sides of each tile x [columns * columns, ...], by one product: [rows * rows,
    ...]."""
    both = np.kron(np.array(matrix), np.array(matrix)).astype(x.dtype.numpy)
    made = ops.matmul(
        ops.constant(value=Literal.of(both, x.dtype)),
        ops.reshape(x, shape=(x.shape[0], numel(x.shape[1:]))),
    )
    return ops.reshape(made, shape=(both.shape[0], *x.shape[1:]))  # type: ignore[no-any-return]


def _cut(x: Value, padding: Sequence[tuple[int, int]], form: Form, window: int) -> Value:
    """The `window` x `window` pixels of each tile, t apart, of x in zeros: [window^2, tiles, C]."""
    images, height, width, channels = x.shape
    spatial = [s + sum(p) for s, p in zip((height, width), padding, strict=True)]
    counts = [tiles(s - (window - form.tile), form.tile) for s in spatial]
    low = tuple(p[0] for p in padding)
    high = tuple(p[1] + window for p in padding)  # enough for the last tile
    padded = ops.pad(x, low=(0, *low, 0), high=(0, *high, 0), value=0)
    reach = [form.tile * (n - 1) + 1 for n in counts]

    def pixels(i: int, j: int) -> Value:
        """Those at i, j of each tile."""
        found = ops.slice(
            padded,
            start=(0, i, j, 0),
            stop=(images, i + reach[0], j + reach[1], channels),
            step=(1, form.tile, form.tile, 1),
        )
        return ops.reshape(found, shape=(1, images * counts[0] * counts[1], channels))  # type: ignore[no-any-return]

    return ops.concat(*[pixels(i, j) for i in range(window) for j in range(window)], dim=0)  # type: ignore[no-any-return]


def _image_decompose(node: Node) -> tuple[Value]:
    attrs = attrs_of(node, WinogradImageAttrs)
    form = form_of(attrs)
    return (_by_transform(form.image, _cut(node.operands[0], attrs.padding, form, form.window)),)


def _conv_decompose(node: Node) -> tuple[Value]:
    attrs, (x, w) = attrs_of(node, WinogradConvAttrs), node.operands
    tiled = winograd_image(x, padding=attrs.padding, tile=attrs.tile)
    numbers, blocks, channels, width = w.shape
    turned = ops.permute(w, dims=(0, 2, 1, 3))
    product = ops.matmul(tiled, ops.reshape(turned, shape=(numbers, channels, blocks * width)))
    return (winograd_result(product, shape=node.types[0].shape, tile=attrs.tile),)


def _result_grad_decompose(node: Node) -> tuple[Value]:
    form = form_of(attrs_of(node, WinogradResultGradAttrs))
    cut = _cut(node.operands[0], ((0, 0), (0, 0)), form, form.tile)
    return (_by_transform(form.result_grad, cut),)


def _result_decompose(node: Node) -> tuple[Value]:
    attrs = attrs_of(node, WinogradResultAttrs)
    images, height, width, filters = attrs.shape
    form = form_of(attrs)
    size = form.tile
    down, across = tiles(height, size), tiles(width, size)
    made = _by_transform(form.result, node.operands[0])
    parts = ops.permute(
        ops.reshape(made, shape=(size, size, images, down, across, filters)),
        dims=(2, 3, 0, 4, 1, 5),
    )
    whole = ops.reshape(parts, shape=(images, size * down, size * across, filters))
    return (
        ops.slice(
            whole, start=(0, 0, 0, 0), stop=(images, height, width, filters), step=(1, 1, 1, 1)
        ),
    )


# NumPy --------------------------------------------------------------------------------------------


def _windows(
    x: np.ndarray, padding: Sequence[tuple[int, int]], form: Form, window: int
) -> np.ndarray:
    """The pixels of each tile of x in zeros: [N, down, across, C, window, window]."""
    spatial = [s + sum(p) for s, p in zip(x.shape[1:3], padding, strict=True)]
    counts = [int(tiles(s - (window - form.tile), form.tile)) for s in spatial]
    reach = [form.tile * (n - 1) + window for n in counts]
    around = [
        (low, max(r - size - low, 0))
        for r, size, (low, _) in zip(reach, x.shape[1:3], padding, strict=True)
    ]
    padded = np.pad(wide(x), [(0, 0), *around, (0, 0)])
    found = np.lib.stride_tricks.sliding_window_view(padded, (window, window), (1, 2))
    return found[:, :: form.tile, :: form.tile][:, : counts[0], : counts[1]]


def _transformed(matrix: Matrix, windows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    transform = np.array(matrix, windows.dtype)
    made = np.einsum("ai,nyxcij,bj->abnyxc", transform, windows, transform)
    return made.reshape(len(matrix) ** 2, -1, windows.shape[3]).astype(dtype)


def _image_reference(attrs: WinogradImageAttrs, x: np.ndarray) -> np.ndarray:
    form = form_of(attrs)
    return _transformed(form.image, _windows(x, attrs.padding, form, form.window), x.dtype)


def _result_grad_reference(attrs: WinogradResultGradAttrs, g: np.ndarray) -> np.ndarray:
    form = form_of(attrs)
    return _transformed(form.result_grad, _windows(g, ((0, 0), (0, 0)), form, form.tile), g.dtype)


def _result_reference(attrs: WinogradResultAttrs, m: np.ndarray) -> np.ndarray:
    images, height, width, filters = ints(attrs.shape)
    form = form_of(attrs)
    size, window = form.tile, form.window
    down, across = int(tiles(height, size)), int(tiles(width, size))
    parts = wide(m).reshape(window, window, images, down, across, filters)
    transform = np.array(form.result, parts.dtype)
    made = np.einsum("ia,abnyxf,jb->nyixjf", transform, parts, transform)
    made = made.reshape(images, size * down, size * across, filters)
    return made[:, :height, :width].astype(m.dtype)


def _conv_reference(attrs: WinogradConvAttrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    tiled = _image_reference(WinogradImageAttrs(attrs.padding, attrs.tile), wide(x))
    made = np.einsum("itc,ibcf->itbf", tiled, wide(w))
    shape = (x.shape[0], *results(x.shape[1:3], attrs.padding), w.shape[1] * w.shape[3])
    made = made.reshape(*made.shape[:2], shape[3])
    return _result_reference(WinogradResultAttrs(shape, attrs.tile), made).astype(x.dtype)


winograd_image = Op(
    "winograd_image",
    "B^T d B of each w x w tile d, t apart, of x [N, H, W, C] in zeros: [w * w, tiles, C].",
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
    "A^T m A of each tile m of m [w * w, tiles, F], side by side: [N, H, W, F].",
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
winograd_result_grad = Op(
    "winograd_result_grad",
    "A g A^T of each t x t tile g of g [N, H, W, F] in zeros: [w * w, tiles, F].",
    ("g",),
    attrs=WinogradResultGradAttrs,
    infer=_result_grad_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_result_grad_decompose,
    reference=_result_grad_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)
winograd_conv = Op(
    "winograd_conv",
    "The 3 x 3 convolution of x [N, H, W, C] by filters w = G w G^T [w * w, F / b, C, b].",
    ("x", "w"),
    attrs=WinogradConvAttrs,
    infer=_conv_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_conv_decompose,
    reference=_conv_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=tiled_ns,
    batch=BY_DECOMPOSITION,
)
