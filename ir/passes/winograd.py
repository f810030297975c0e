"""3 x 3 convolutions and their gradients with fewer multiplications (`ops.winograd`), where that
pays.

What is saved has to be more than moving tiles to and fro takes, and than reading the transformed
filters takes, several times as many numbers, where they do not stay in a cache. These are computed
from the filters by one product; where the filters seldom change that is done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import TypeAlias

import numpy as np

from .. import ops
from ..dataclass import dataclass
from ..graph import Graph, Node, Value
from ..literal import Literal
from ..op import Op
from ..ops.checks import attrs_of
from ..ops.conv import AnyConvAttrs, ConvAttrs, ConvTransposeAttrs, ConvWeightGradAttrs
from ..ops.winograd import FORMS, Form, results, tiles
from ..rewrite import rewrite
from ..shape import SIDE, Dim, likely
from . import affine
from .limits import Limits

CHANNELS = 32  # from which on the products are worth the transforms around them
# What is saved has to be worth the digits that are lost: larger tiles, or any, from so much less
# time
GAIN = 0.8
# Of the peak, what convolutions and products of such sizes reach (measured on AVX2).
EFFICIENCY = 0.7
NEAR_BYTES = 1 << 20  # of filters that stay in the cache next to a core
# In times that reading a number from beyond that cache takes:
TILED = 2.0  # transforming an image's tiles, for each number made
RESULT = 1.0  # transforming tiles back, for each number read
JOINED = 0.5  # of both, where one kernel takes all steps

# Bytes of transformed filters that may be read again for every few tiles: all of them, in steps for
# these few alone, so that neither tiles nor products are moved to memory.
JOINED_BYTES = 3 << 20
BLOCK = 32  # filters that lie together then

# What the symbol of a batch counts as: few images where filters are kept, for which reading larger
# ones has to pay; a batch of training where they change.
FEW, BATCH = 2, 16

Paddings: TypeAlias = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Layer:
    """A 3 x 3 convolution of stride 1, or a gradient of one.

    Attributes:
        pixels: images, height and width of the results; of unknown ones what is likely.
        channels, filters: of the image, and of the results.
        kept: the filters seldom change.
        gradient: what is made are the gradients of filters.
    """

    pixels: tuple[int, int, int]
    channels: int
    filters: int
    kept: bool
    reading: float
    gradient: bool = False

    def plain(self) -> float:
        """Time of the convolution as it is."""
        multiplications = math.prod(self.pixels) * 9 * self.channels * self.filters
        return max(multiplications / EFFICIENCY, self._filters(9))

    def filtered(self, form: Form) -> float:
        """Time by way of tiles."""
        images, *size = self.pixels
        square = form.window**2
        count = images * math.prod(int(tiles(s, form.tile)) for s in size)
        numbers = square * self.channels * self.filters
        back = TILED if self.gradient else RESULT
        moved = square * count * (TILED * self.channels + back * self.filters)
        if self.is_joined(form):
            moved *= JOINED
        made = 0.0 if self.kept else numbers * (9 + self.reading)
        return (
            max(numbers * count / EFFICIENCY, self._filters(square)) + self.reading * moved + made
        )

    def is_joined(self, form: Form) -> bool:
        """Whether one kernel takes all steps, for a few tiles at a time: where their numbers would
        not stay near, and all filters may be read again for each few tiles."""
        images, *size = self.pixels
        square = form.window**2
        count = images * math.prod(int(tiles(s, form.tile)) for s in size)
        return (
            not self.gradient
            and self.filters % BLOCK == 0
            and 4 * square * self.channels * self.filters <= JOINED_BYTES
            and 4 * square * count * (self.channels + self.filters) > 2 * NEAR_BYTES
        )

    def _filters(self, each: int) -> float:
        """Time of reading them, so many numbers each."""
        numbers = each * self.channels * self.filters
        return self.reading * numbers if not self.gradient and 4 * numbers > NEAR_BYTES else 0.0


@dataclass(frozen=True)
class Choice:
    """What decides: values that seldom change, and the limits of the target."""

    seldom: Container[Value]
    limits: Limits

    def form(
        self, node: Node, y: Value, channels: Dim, filters: Dim, w: Value | None
    ) -> Form | None:
        """The form of a node for results y and filters w, None for a gradient of these; None where
        the convolution stays as it is."""
        layer = self.layer(y, channels, filters, w)
        best, time = 0, layer.plain()
        for form in FORMS.values():
            if layer.filtered(form) < GAIN * time:
                best, time = form.tile, layer.filtered(form)
        return FORMS.get(self.limits.tile(node, layer.kept, best))

    def layer(self, y: Value, channels: Dim, filters: Dim, w: Value | None) -> Layer:
        kept, gradient = w is not None and w in self.seldom, w is None
        pixels, reading = _pixels(y, FEW if kept else BATCH), self.limits.reading
        return Layer(pixels, int(channels), int(filters), kept, reading, gradient)  # type: ignore[arg-type]


def _pixels(y: Value, count: int) -> tuple[int, int, int]:
    images, height, width = y.shape[:3]
    return likely(images, count), likely(height, SIDE), likely(width, SIDE)


def run(graph: Graph, stable: Container[Value], limits: Limits) -> Graph:
    """`graph` with those convolutions replaced for which that pays; the filters among `stable`, and
    constants, seldom change."""
    if not limits.winograd:
        return graph
    choice = Choice(affine.seldom_changed(graph, stable), limits)
    return rewrite(graph, lambda node: _replaced(node, choice), REPLACED)


def _replaced(node: Node, choice: Choice) -> Value | None:
    attrs: AnyConvAttrs = node.attrs  # type: ignore[assignment]
    return REPLACED[node.op](node, choice) if _is_plain(node, attrs) else None


def _is_plain(node: Node, attrs: AnyConvAttrs) -> bool:
    """Whether it is a 3 x 3 convolution of stride 1 in f32, or a gradient of one, of known
    channels."""
    taps = node.result() if isinstance(attrs, ConvWeightGradAttrs) else node.operands[1]
    return (
        taps.shape[2:] == (3, 3)
        and all(isinstance(d, int) for d in taps.shape)
        and {*attrs.stride, *attrs.dilation, attrs.groups} == {1}
        and node.result().dtype.itemsize == 4
        and min(taps.shape[:2]) >= CHANNELS  # type: ignore[type-var,operator]
    )


def _conv(node: Node, choice: Choice) -> Value | None:
    padding = attrs_of(node, ConvAttrs).padding
    return _by_tiles(node, padding, (1, 0), 1, choice)


def _conv_transpose(node: Node, choice: Choice) -> Value | None:
    """A convolution with the taps in reverse, and of all that the results reached."""
    attrs = attrs_of(node, ConvTransposeAttrs)
    padding = tuple((2 - low, 2 - high) for low, high in attrs.padding)
    if any(attrs.output_padding):
        return None
    return _by_tiles(node, padding, (0, 1), -1, choice)


def _by_tiles(
    node: Node, padding: Paddings, dims: tuple[int, int], order: int, choice: Choice
) -> Value | None:
    """The convolution of a node's image. `dims`: of the filters, channels and results; `order`: -1
    for taps in reverse."""
    (x, w, *bias), y = node.operands, node.result()
    channels, filters = (w.shape[d] for d in dims)
    if not _is_covered(x, padding, y):
        return None
    form = choice.form(node, y, channels, filters, w)
    if form is None:
        return None
    if choice.layer(y, channels, filters, w).is_joined(form):
        blocks = _filters(w, dims, form, order, BLOCK)
        made = ops.winograd_conv(x, blocks, padding=padding, tile=form.tile)
    else:
        tiled = ops.winograd_image(x, padding=padding, tile=form.tile)
        product = ops.matmul(tiled, _filters(w, dims, form, order))
        made = ops.winograd_result(product, shape=y.shape, tile=form.tile)
    return ops.add(made, bias[0]) if bias else made  # type: ignore[no-any-return]


def _is_covered(x: Value, padding: Paddings, y: Value) -> bool:
    """Whether tiles of x make all of y; sizes may be unknown."""
    return min(min(p) for p in padding) >= 0 and results(x.shape[1:3], padding) == y.shape[1:3]


def _filters(w: Value, dims: tuple[int, int], form: Form, order: int = 1, block: int = 0) -> Value:
    """G w G^T of each filter of w: [w * w, channels, filters], or in blocks of so many filters
    [w * w, filters / block, channels, block]."""
    channels, filters = (w.shape[d] for d in dims)
    taps = ops.permute(ops.reshape(w, shape=(*w.shape[:2], 9)), dims=(2, *dims))
    shape: tuple[Dim, ...] = (channels, filters)
    if block:
        parted = ops.reshape(taps, shape=(9, channels, filters // block, block))
        taps, shape = ops.permute(parted, dims=(0, 2, 1, 3)), (filters // block, channels, block)
    flat = ops.reshape(taps, shape=(9, channels * filters))
    made = ops.matmul(_both_sides(form, w)[order], flat)
    return ops.reshape(made, shape=(form.window**2, *shape))  # type: ignore[no-any-return]


def _both_sides(form: Form, like: Value) -> dict[int, Value]:
    """G on both sides of the taps of a filter in a row, [w * w, 9]; by -1, of taps in reverse."""
    both = np.kron(np.array(form.filter), np.array(form.filter)).astype(like.dtype.numpy)
    return {
        order: ops.constant(value=Literal.of(np.ascontiguousarray(both[:, ::order]), like.dtype))
        for order in (1, -1)
    }


def _weight_grad(node: Node, choice: Choice) -> Value | None:
    """What the sum over channels was, transposed: a sum over tiles; then G^T m G of each filter."""
    (x, g), w, attrs = node.operands, node.result(), attrs_of(node, ConvWeightGradAttrs)
    filters, channels = w.shape[:2]
    if not _is_covered(x, attrs.padding, g):
        return None
    form = choice.form(node, g, channels, filters, None)
    if form is None:
        return None
    tiled = ops.winograd_image(x, padding=attrs.padding, tile=form.tile, again=True)
    given = ops.winograd_result_grad(g, tile=form.tile)
    product = ops.matmul(ops.permute(given, dims=(0, 2, 1)), tiled)  # [w * w, filters, channels]
    back = ops.permute(_both_sides(form, x)[1], dims=(1, 0))
    taps = ops.matmul(back, ops.reshape(product, shape=(form.window**2, filters * channels)))
    turned = ops.permute(ops.reshape(taps, shape=(9, filters, channels)), dims=(1, 2, 0))
    return ops.reshape(turned, shape=w.shape)  # type: ignore[no-any-return]


REPLACED: dict[Op, Callable[[Node, Choice], Value | None]] = {
    ops.channels_last_conv: _conv,
    ops.channels_last_conv_transpose: _conv_transpose,
    ops.channels_last_conv_weight_grad: _weight_grad,
}
