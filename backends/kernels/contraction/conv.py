"""Convolution and its two gradients as contractions.

All three read one image ``x[n, g, c, o * stride + k * dilation]`` (g: group, o: output position, k:
kernel position), padded with zeros, and differ in what they sum over:

    conv             y[n, g, f, o] = sum over c, k     x * w[g, f, c, k]
    conv_weight_grad w[g, f, c, k] = sum over n, o     x * y[n, g, f, o]

A transposed convolution is a convolution of stride 1 with the kernel turned round, of the image
with `stride` - 1 zeros between its elements; of these none is read where results are made residue
by residue of the stride (`residues`). Blocks of threads, and kernels of images whose channels are
neighbours, see where zeros are as they read the image; for others it is copied once with zeros in
it.

Images lie as [N, C, *S], or as [N, *S, C] where the op says so (`is_channels_last`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, Shape, contiguous_strides

from ...dataclass import dataclass
from ..body.space import Space, depends
from ..program.lowering import Lowering, Region
from ..program.program import Slot
from .operands import accumulator, plain_source, source_of
from .padding import padded_copy
from .problem import Axis, Contraction, Gate, Source, axis
from .residues import dense

# channels from which on they make the innermost loop, instead of a kernel's few columns
LONG_LOOP = 16
LINE = 64  # bytes of a cache's line
CROWDED = 4  # so many lines, and multiples of them, are too regular a distance


def conv_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    x, w = node.operands[:2]
    attrs = node.attrs
    low = [p[0] for p in attrs.padding]
    pixels = first(x.shape, is_channels_last(node))[2:]
    sizes = [s + sum(p) for s, p in zip(pixels, attrs.padding, strict=True)]
    gated = sees_zeros(node, w.shape[2:], w.shape[1], lowering)
    image = _image(node, region, lowering, low, [1] * len(low), sizes, gated)
    return _forward(node, region, lowering, image, w, attrs.stride, attrs.dilation, turned=False)


def conv_transpose_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    w, attrs = node.operands[1], node.attrs
    gated = sees_zeros(node, w.shape[2:], w.shape[0] // attrs.groups, lowering) and (
        max(attrs.stride) == 1 or lowering.machine.tasks_are_threads
    )
    return _transposed(node, region, lowering, gated)


def _transposed(node: Node, region: Region, lowering: Lowering, gated: bool) -> Contraction:
    w, attrs = node.operands[1], node.attrs
    out = first(node.types[0].shape, is_channels_last(node))[2:]
    reach = [d * (k - 1) for d, k in zip(attrs.dilation, w.shape[2:], strict=True)]
    low = [r - p[0] for r, p in zip(reach, attrs.padding, strict=True)]
    sizes = [o + r for o, r in zip(out, reach, strict=True)]
    image = _image(node, region, lowering, low, attrs.stride, sizes, gated)
    return _forward(node, region, lowering, image, w, (1,) * len(low), attrs.dilation, turned=True)


def conv_transpose_problems(
    node: Node, region: Region, lowering: Lowering
) -> Iterable[Contraction]:
    """The contractions that together are a transposed convolution: on CPUs one a residue of the
    stride, where tiles can see where the image ends; else one of the image with zeros in it."""
    stepped = max(node.attrs.stride) > 1 and not lowering.machine.tasks_are_threads
    w = node.operands[1]
    if stepped and sees_zeros(node, w.shape[2:], w.shape[0] // node.attrs.groups, lowering):
        parts = dense(_transposed(node, region, lowering, gated=True))
        seen = [_seen(part) for part in parts]
        if len(parts) > 1 and all(seen):
            return [part for part in seen if part is not None]
    return [conv_transpose_problem(node, region, lowering)]


def _seen(p: Contraction) -> Contraction | None:
    """The contraction without gates that let everything, or nothing, pass; None where one of the
    others moves with no axis of k, by which tiles would know."""
    gates = tuple(g for g in p.b.gates if not p.space.within(g.coordinate, g.extent))
    moving = [x for x in p.k if x.extent != 1]
    if not all(any(depends(g.coordinate, x.name) for x in moving) for g in gates):
        return None
    return replace(p, b=replace(p.b, gates=gates))


def is_channels_last(node: Node) -> bool:
    """Whether the images of a convolution lie as [N, *S, C]."""
    return node.op.name.startswith("channels_last")


def first(shape: Shape, last: bool) -> Shape:
    """The sizes [N, C, *S] of an image."""
    return (shape[0], shape[-1], *shape[1:-1]) if last else shape


def _lying(index: Sequence[Dim], last: bool) -> tuple[Dim, ...]:
    """Sizes or places along N, C and *S, in the order of memory."""
    return (index[0], *index[2:], index[1]) if last else tuple(index)


Read = Callable[[Space, Sequence[Dim]], Source]


@dataclass(frozen=True)
class _Image:
    """An image of `shape` [N, C, *S], which begins at `low` of the one that is read, of spatial
    `sizes`.

    Between its elements are `spread` - 1 zeros, and others around it. `read` gives what lies at an
    index, in the order of memory, in which channels are `last` or not.
    """

    read: Read
    shape: Shape
    low: Sequence[Dim]
    spread: Sequence[int]
    sizes: Sequence[Dim]
    last: bool

    def at(self, space: Space, image: Dim, channel: Dim, pixels: Sequence[Dim]) -> Source:
        """The element there."""
        index, gates = [image, channel], []
        lying = contiguous_strides(_lying(self.shape, self.last))
        strides = first(lying, self.last)[2:]
        for pixel, low, step, size, extent, hop in zip(
            pixels, self.low, self.spread, self.sizes, self.shape[2:], strides, strict=True
        ):
            place = pixel - low
            index.append(place if step == 1 else 0)
            inside = (low == 0 and size == extent) or space.within(place, extent)
            if step != 1 or not inside:
                gates.append(Gate(place, extent, step, 0 if step == 1 else hop))
        return replace(self.read(space, _lying(index, self.last)), gates=tuple(gates))


def sees_zeros(node: Node, kernel: Shape, channels: Dim, lowering: Lowering) -> bool:
    """Whether kernels leave out what lies beyond the image instead of reading zeros.

    Tiles do so along axes of the kernel, and not where they would ask for each few of the
    `channels` that a result reads; channels by themselves (depthwise) ask once for a vector of
    them.
    """
    if lowering.machine.tasks_are_threads:
        return True
    alone = channels == 1 and node.attrs.groups > 1
    many = alone or (isinstance(channels, int) and channels >= LONG_LOOP)
    return (
        is_channels_last(node)
        and many
        and node.types[0].dtype.is_floating_point
        and all(k != 1 or not any(p) for k, p in zip(kernel, node.attrs.padding, strict=True))
    )


def _image(
    node: Node,
    region: Region,
    lowering: Lowering,
    low: Sequence[Dim],
    spread: Sequence[int],
    sizes: Sequence[Dim],
    gated: bool,
) -> _Image:
    """The node's first operand with its zeros: as it is where it has none or `gated`; else
    copied."""
    x, last = node.operands[0], is_channels_last(node)
    shape = first(x.shape, last)
    none = all(p == 0 for p in low) and all(s == 1 for s in spread) and tuple(sizes) == shape[2:]
    if none and last:  # channels may be strided: tiles read them one by one

        def strided(space: Space, index: Sequence[Dim]) -> Source:
            return source_of(region, lowering, space, x, index)

        return _Image(strided, shape, low, spread, sizes, last)
    source = plain_source(region, lowering, x)
    if none or gated:
        return _Image(_in_memory(source, x.shape), shape, low, spread, sizes, last)
    before, ones = [int(p) for p in low], [1] * len(sizes)
    room = shape[1]
    if last:
        room = _room(room, x.dtype.itemsize)
        slot = _padded_last(lowering, source, x.shape, before, spread, sizes, room)
    else:
        slot = padded_copy(lowering, source, x.shape, before, spread, sizes)
    read = _in_memory(Source(slot, x.dtype, 0), _lying((shape[0], room, *sizes), last))
    return _Image(read, (*shape[:2], *sizes), [0] * len(sizes), ones, sizes, last)


def _room(channels: Dim, itemsize: int) -> Dim:
    """How far apart the pixels of a copy are: where that is a multiple of few lines of a cache,
    kernels that go from pixel to pixel would find few places there for all that they read."""
    line = LINE // itemsize
    lines = channels // line if isinstance(channels, int) and channels % line == 0 else 1
    return channels + line if isinstance(lines, int) and lines % CROWDED == 0 else channels


def _in_memory(source: Source, shape: Shape) -> Read:
    return lambda space, index: source.at(space.linear(index, shape))


def _padded_last(
    lowering: Lowering,
    source: Source,
    shape: Shape,
    low: Sequence[int],
    spread: Sequence[int],
    sizes: Sequence[Dim],
    room: Dim,
) -> Slot:
    """The padded copy of [N, *S, C], as an image of one channel: where pixels of a row stay
    neighbours, these are one long row; else channels are a last spatial dimension, of `room`."""
    channels = shape[-1]
    if spread[-1] == 1 and isinstance(channels, int) and room == channels:
        rows = [*shape[1:-2], shape[-2] * channels]
        before, out = [*low[:-1], low[-1] * channels], [*sizes[:-1], sizes[-1] * channels]
        return padded_copy(lowering, source, (shape[0], 1, *rows), before, spread, out)
    return padded_copy(
        lowering,
        source,
        (shape[0], 1, *shape[1:]),
        [*low, 0],
        [*spread, 1],
        [*sizes, room],
    )


class _Axes:
    """The axes that the three share: batch, group, positions o and k of the output and of the
    kernel."""

    def __init__(
        self, space: Space, images: Dim, groups: int, out: Sequence[Dim], kernel: Sequence[Dim]
    ):
        self.space = space
        self.image, self.group = axis(space, images), axis(space, groups)
        self.out = [axis(space, d) for d in out]
        self.kernel = [axis(space, d) for d in kernel]

    def pixels(self, stride: Sequence[int], dilation: Sequence[int]) -> list[Dim]:
        return [
            o.variable * s + k.variable * d
            for o, s, k, d in zip(self.out, stride, self.kernel, dilation, strict=True)
        ]

    def channel(self, inner: Axis) -> Dim:
        return self.group.variable * inner.extent + inner.variable


def _forward(
    node: Node,
    region: Region,
    lowering: Lowering,
    image: _Image,
    w: Value,
    stride: Sequence[int],
    dilation: Sequence[int],
    turned: bool,
) -> Contraction:
    last, groups, space = image.last, node.attrs.groups, Space()
    stored = node.types[0].shape
    shape = first(stored, last)
    axes = _Axes(space, shape[0], groups, shape[2:], w.shape[2:])
    f, c = axis(space, shape[1] // groups), axis(space, image.shape[1] // groups)
    right = image.at(space, axes.image.variable, axes.channel(c), axes.pixels(stride, dilation))
    taps = [k.extent - 1 - k.variable if turned else k.variable for k in axes.kernel]
    at = (axes.channel(c), f.variable, *taps) if turned else (axes.channel(f), c.variable, *taps)
    left = source_of(region, lowering, space, w, at)
    index = _lying((axes.image.variable, axes.channel(f), *[o.variable for o in axes.out]), last)
    many = last or (isinstance(c.extent, int) and c.extent >= LONG_LOOP)
    k = [*axes.kernel, c] if many else [c, *axes.kernel]
    batch, out = (
        ([axes.group], [axes.image, *axes.out]) if last else ([axes.image, axes.group], axes.out)
    )
    return Contraction(
        node,
        space,
        batch,
        [f],
        out,
        k,
        left,
        right,
        index,
        space.linear(index, stored),
        stored,
        accumulator(node.types[0].dtype),
        channel=len(index) - 1 if last else 1,
    )


def conv_weight_grad_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    g, last = node.operands[1], is_channels_last(node)
    attrs, shape, space = node.attrs, node.types[0].shape, Space()
    pixels = first(node.operands[0].shape, last)[2:]
    sizes = [s + sum(p) for s, p in zip(pixels, attrs.padding, strict=True)]
    image = _image(
        node,
        region,
        lowering,
        [p[0] for p in attrs.padding],
        [1] * len(sizes),
        sizes,
        lowering.machine.tasks_are_threads,
    )
    given = first(g.shape, last)
    axes = _Axes(space, given[0], attrs.groups, given[2:], shape[2:])
    f, c = axis(space, given[1] // attrs.groups), axis(space, shape[1])
    right = image.at(
        space, axes.image.variable, axes.channel(c), axes.pixels(attrs.stride, attrs.dilation)
    )
    outputs = (axes.image.variable, axes.channel(f), *[o.variable for o in axes.out])
    left = source_of(region, lowering, space, g, _lying(outputs, last))
    index = (axes.channel(f), c.variable, *[k.variable for k in axes.kernel])
    n = [*axes.kernel, c] if last else [c, *axes.kernel]
    k = [axes.image, *axes.out]
    return Contraction(
        node,
        space,
        [axes.group],
        [f],
        n,
        k,
        left,
        right,
        index,
        space.linear(index, shape),
        shape,
        accumulator(node.operands[0].dtype),
    )
