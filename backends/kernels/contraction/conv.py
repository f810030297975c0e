"""Convolution and its two gradients as contractions.

All three read one image ``x[n, g, c, o * stride + k * dilation]`` (g: group, o: output position, k: kernel
position), padded with zeros, and differ in what they sum over:

    conv             y[n, g, f, o] = sum over c, k     x * w[g, f, c, k]
    conv_weight_grad w[g, f, c, k] = sum over n, o     x * y[n, g, f, o]

A transposed convolution is a convolution of stride 1 with the kernel turned round, of the image with
`stride` - 1 zeros between its elements. Blocks of threads see where zeros are as they read the image; for
others it is copied once with zeros in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, Shape, contiguous_strides

from ...cpu.contraction.packing import padded_copy
from ..body.space import Space
from ..program.lowering import Lowering, Region
from .operands import accumulator, plain_source, source_of
from .problem import Axis, Contraction, Gate, Source, axis

LONG_LOOP = 16  # channels from which on they make the innermost loop, instead of a kernel's few columns


def conv_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    x, w = node.operands[:2]
    attrs = node.attrs
    low = [p[0] for p in attrs.padding]
    sizes = [s + sum(p) for s, p in zip(x.shape[2:], attrs.padding, strict=True)]
    image = _image(region, lowering, x, low, [1] * len(low), sizes)
    return _forward(node, region, lowering, image, w, attrs.stride, attrs.dilation, turned=False)


def conv_transpose_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    x, w = node.operands[:2]
    attrs = node.attrs
    reach = [d * (k - 1) for d, k in zip(attrs.dilation, w.shape[2:], strict=True)]
    low = [r - p[0] for r, p in zip(reach, attrs.padding, strict=True)]
    sizes = [o + r for o, r in zip(node.types[0].shape[2:], reach, strict=True)]
    image = _image(region, lowering, x, low, attrs.stride, sizes)
    return _forward(node, region, lowering, image, w, (1,) * len(low), attrs.dilation, turned=True)


@dataclass(frozen=True)
class _Image:
    """An image in memory of `shape`, which begins at `low` of the one that is read, of spatial `sizes`.

    Between its elements are `spread` - 1 zeros, and others around it.
    """

    source: Source
    shape: Shape
    low: Sequence[Dim]
    spread: Sequence[int]
    sizes: Sequence[Dim]

    def at(self, space: Space, image: Dim, channel: Dim, pixels: Sequence[Dim]) -> Source:
        """The element there."""
        index, gates = [image, channel], []
        strides = contiguous_strides(self.shape)[2:]
        for pixel, low, step, size, extent, hop in zip(pixels, self.low, self.spread, self.sizes,
                                                       self.shape[2:], strides, strict=True):
            place = pixel - low
            index.append(place if step == 1 else 0)
            inside = (low == 0 and size == extent) or space.within(place, extent)
            if step != 1 or not inside:
                gates.append(Gate(place, extent, step, 0 if step == 1 else hop))
        return replace(self.source.at(space.linear(index, self.shape)), gates=tuple(gates))


def _image(region: Region, lowering: Lowering, x: Value, low: Sequence[Dim], spread: Sequence[int],
           sizes: Sequence[Dim]) -> _Image:
    """The image with its zeros: as it is for blocks of threads, or where it has none; else copied."""
    source = plain_source(region, lowering, x)
    none = all(p == 0 for p in low) and all(s == 1 for s in spread) and tuple(sizes) == x.shape[2:]
    if none or lowering.machine.tasks_are_threads:
        return _Image(source, x.shape, low, spread, sizes)
    slot = padded_copy(lowering, Space(), source, x.shape, [int(p) for p in low], spread, sizes)
    ones = [1] * len(sizes)
    return _Image(Source(slot, x.dtype, 0), (*x.shape[:2], *sizes), [0] * len(sizes), ones, sizes)


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


def _forward(node: Node, region: Region, lowering: Lowering, image: _Image, w: Value,
             stride: Sequence[int], dilation: Sequence[int], turned: bool) -> Contraction:
    space, shape, groups = Space(), node.types[0].shape, node.attrs.groups
    x = node.operands[0]
    axes = _Axes(space, shape[0], groups, shape[2:], w.shape[2:])
    f, c = axis(space, shape[1] // groups), axis(space, x.shape[1] // groups)
    right = image.at(space, axes.image.variable, axes.channel(c), axes.pixels(stride, dilation))
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
    image = _image(region, lowering, x, [p[0] for p in attrs.padding], [1] * len(sizes), sizes)
    axes = _Axes(space, x.shape[0], attrs.groups, g.shape[2:], shape[2:])
    f, c = axis(space, g.shape[1] // attrs.groups), axis(space, shape[1])
    right = image.at(space, axes.image.variable, axes.channel(c), axes.pixels(attrs.stride, attrs.dilation))
    outputs = (axes.image.variable, axes.channel(f), *[o.variable for o in axes.out])
    left = source_of(region, lowering, space, g, outputs)
    index = (axes.channel(f), c.variable, *[k.variable for k in axes.kernel])
    k = [axes.image, *axes.out]
    return Contraction(node, space, [axes.group], [f], [c, *axes.kernel], k, left, right, index,
                       space.linear(index, shape), shape, accumulator(x.dtype))
