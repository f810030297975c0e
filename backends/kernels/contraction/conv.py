"""Convolution and its two gradients as contractions.

All three read one image ``x[n, g, c, o * stride + k * dilation]`` (g: group, o: output position, k: kernel
position), once it is padded, and differ in what they sum over:

    conv             y[n, g, f, o] = sum over c, k     x * w[g, f, c, k]
    conv_weight_grad w[g, f, c, k] = sum over n, o     x * y[n, g, f, o]

A transposed convolution is a convolution of stride 1 with the kernel turned round, of the image with
`stride` - 1 zeros between its elements.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, Shape

from ...cpu.contraction.packing import padded_copy
from ..body.space import Space
from ..program.lowering import Lowering, Region
from .operands import accumulator, plain_source, source_of
from .problem import Axis, Contraction, Source, axis

LONG_LOOP = 16  # channels from which on they make the innermost loop, instead of a kernel's few columns


def conv_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    x, w = node.operands[:2]
    attrs = node.attrs
    low = [p[0] for p in attrs.padding]
    sizes = [s + sum(p) for s, p in zip(x.shape[2:], attrs.padding, strict=True)]
    image, spatial = _image(region, lowering, x, low, [1] * len(low), sizes)
    return _forward(node, region, lowering, image, spatial, w, attrs.stride, attrs.dilation, turned=False)


def conv_transpose_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    x, w = node.operands[:2]
    attrs = node.attrs
    reach = [d * (k - 1) for d, k in zip(attrs.dilation, w.shape[2:], strict=True)]
    low = [r - p[0] for r, p in zip(reach, attrs.padding, strict=True)]
    sizes = [o + r for o, r in zip(node.types[0].shape[2:], reach, strict=True)]
    image, spatial = _image(region, lowering, x, low, attrs.stride, sizes)
    ones = (1,) * len(low)
    return _forward(node, region, lowering, image, spatial, w, ones, attrs.dilation, turned=True)


def _image(region: Region, lowering: Lowering, x: Value, low: Sequence[Dim], spread: Sequence[int],
           sizes: Sequence[Dim]) -> tuple[Source, Shape]:
    """The padded image in memory and its spatial sizes; `x` itself where there is nothing to pad."""
    source = plain_source(region, lowering, x)
    if all(p == 0 for p in low) and all(s == 1 for s in spread) and tuple(sizes) == x.shape[2:]:
        return source, x.shape[2:]
    slot = padded_copy(lowering, Space(), source, x.shape, [int(p) for p in low], spread, sizes)
    return Source(slot, x.dtype, 0), tuple(sizes)


class _Axes:
    """The axes that the three share: batch, group, positions o and k of the output and of the kernel."""

    def __init__(self, space: Space, images: Dim, groups: int, out: Sequence[Dim], kernel: Sequence[Dim]):
        self.space = space
        self.image, self.group = axis(space, images), axis(space, groups)
        self.out = [axis(space, d) for d in out]
        self.kernel = [axis(space, d) for d in kernel]

    def pixels(self, stride: Sequence[int], dilation: Sequence[int]) -> list[Dim]:
        return [o.variable * s + k.variable * d
                for o, s, k, d in zip(self.out, stride, self.kernel, dilation, strict=True)]

    def channel(self, inner: Axis) -> Dim:
        return self.group.variable * inner.extent + inner.variable


def _forward(node: Node, region: Region, lowering: Lowering, image: Source, spatial: Shape, w: Value,
             stride: Sequence[int], dilation: Sequence[int], turned: bool) -> Contraction:
    space, shape, groups = Space(), node.types[0].shape, node.attrs.groups
    x = node.operands[0]
    axes = _Axes(space, shape[0], groups, shape[2:], w.shape[2:])
    f, c = axis(space, shape[1] // groups), axis(space, x.shape[1] // groups)
    where = (axes.image.variable, axes.channel(c), *axes.pixels(stride, dilation))
    right = image.at(space.linear(where, (*x.shape[:2], *spatial)))
    taps = [k.extent - 1 - k.variable if turned else k.variable for k in axes.kernel]
    at = (axes.channel(c), f.variable, *taps) if turned else (axes.channel(f), c.variable, *taps)
    left = source_of(region, lowering, space, w, at)
    index = (axes.image.variable, axes.channel(f), *[o.variable for o in axes.out])
    many = isinstance(c.extent, int) and c.extent >= LONG_LOOP
    k = [*axes.kernel, c] if many else [c, *axes.kernel]
    return Contraction(node, space, [axes.image, axes.group], [f], axes.out, k, left, right, index,
                       space.linear(index, shape), shape, accumulator(x.dtype))


def conv_weight_grad_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    x, g = node.operands
    attrs, shape, space = node.attrs, node.types[0].shape, Space()
    sizes = [s + sum(p) for s, p in zip(x.shape[2:], attrs.padding, strict=True)]
    image, spatial = _image(region, lowering, x, [p[0] for p in attrs.padding], [1] * len(sizes), sizes)
    axes = _Axes(space, x.shape[0], attrs.groups, g.shape[2:], shape[2:])
    f, c = axis(space, g.shape[1] // attrs.groups), axis(space, shape[1])
    where = (axes.image.variable, axes.channel(c), *axes.pixels(attrs.stride, attrs.dilation))
    right = image.at(space.linear(where, (*x.shape[:2], *spatial)))
    outputs = (axes.image.variable, axes.channel(f), *[o.variable for o in axes.out])
    left = source_of(region, lowering, space, g, outputs)
    index = (axes.channel(f), c.variable, *[k.variable for k in axes.kernel])
    k = [axes.image, *axes.out]
    return Contraction(node, space, [axes.group], [f], [c, *axes.kernel], k, left, right, index,
                       space.linear(index, shape), shape, accumulator(x.dtype))
