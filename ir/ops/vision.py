"""Ops of detection models, as torchvision has them: pools over regions, deformable convolutions,
suppression.

Regions (rois) are rows (image, x1, y1, x2, y2) in the coordinates of the original images, which
`scale` takes to those of the feature map. Regions have no gradient, as in torchvision. The image of
a region that does not exist is an error of the run. f16 is computed in f32, coordinates too, and
rounded once. https://docs.pytorch.org/vision/stable/ops.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from ..dataclass import dataclass
from ..dtype import boolean, i32, i64
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, NoGradient, Op, Weight
from ..shape import Dim, Shape, numel
from . import timing
from . import vision_reference as reference
from .batching import Mapped, Values, entry_by_entry, folding, leading, merged, parted
from .checks import attrs_of, listed, surely_less
from .common import (
    REAL_FLOATING,
    cast_to,
    check_domain,
    check_same_dtype,
    expand_to,
    fn,
    number,
    ops,
    wide_dtype,
    zeros,
)
from .common import Expr as Algebra

Bins = Callable[..., Any]  # see `reference.align_bins`

__all__ = [
    "deform_conv2d",
    "nms",
    "ps_roi_align",
    "ps_roi_align_grad",
    "ps_roi_pool",
    "ps_roi_pool_grad",
    "roi_align",
    "roi_align_grad",
    "roi_pool",
    "roi_pool_grad",
    "sample_bilinear",
    "sample_bilinear_grad",
]


@dataclass(frozen=True)
class RegionAttrs(Attrs):
    """size: bins of a region, in rows and columns."""

    scale: float
    size: tuple[int, int]


@dataclass(frozen=True)
class SampleAttrs(RegionAttrs):
    """ratio: samples along each side of a bin; 0 or less: about one a pixel, which the data say."""

    ratio: int


@dataclass(frozen=True)
class AlignAttrs(SampleAttrs):
    """aligned: pixels' middles, not their corners, are at whole coordinates."""

    aligned: bool


@dataclass(frozen=True)
class RegionGradAttrs(RegionAttrs):
    """shape: that of the feature map, which the gradient has again."""

    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class SampleGradAttrs(SampleAttrs):
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class AlignGradAttrs(AlignAttrs):
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class ShapeAttrs(Attrs):
    shape: tuple[Dim, ...]


# regions ------------------------------------------------------------------------------------------


def _check_regions(name: str, x: Type, rois: Type) -> None:
    check_domain(name, x, REAL_FLOATING)
    check_same_dtype(name, x, rois)
    if x.rank != 4:
        raise RuntimeError(
            f"{name}: expected an input [N, C, H, W], but got shape {listed(x.shape)}"
        )
    if rois.rank != 2 or rois.shape[1] != 5:
        raise RuntimeError(
            f"{name}: rois should have shape [K, 5], rows (image, x1, y1, x2, y2), but got "
            f"{listed(rois.shape)}"
        )
    if 0 in x.shape[2:]:
        raise RuntimeError(f"{name}: an input {listed(x.shape)} without pixels has no regions")


def _channels(name: str, attrs: RegionAttrs, shape: Shape, sensitive: bool) -> Dim:
    """Channels of the result of an op on a feature map of `shape`."""
    if min(attrs.size) < 1:
        raise RuntimeError(
            f"{name}: expected pooled sizes greater than zero, but got {list(attrs.size)}"
        )
    bins = attrs.size[0] * attrs.size[1]
    if sensitive and shape[1] % bins != 0:
        raise RuntimeError(
            f"{name}: input channels must be a multiple of pooling height * pooling width, but got "
            f"{shape[1]} channels and {attrs.size[0]} * {attrs.size[1]} bins"
        )
    return shape[1] // bins if sensitive else shape[1]


def _pooled(name: str, attrs: RegionAttrs, x: Type, rois: Type, sensitive: bool) -> Type:
    _check_regions(name, x, rois)
    return x.with_shape((rois.shape[0], _channels(name, attrs, x.shape, sensitive), *attrs.size))


def _region_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """A feature map's entries are further channels, those of regions further regions."""
    x, rois = values
    if not mapped[1]:
        return _in_channels(node, node.attrs, values, size)
    if mapped[0]:
        return entry_by_entry(node, values, mapped, size)
    made = node.op.node((x, merged(rois, 0)), node.attrs).results()
    return tuple([parted(y, 0, size, t.shape) for y, t in zip(made, node.types, strict=True)])


def _region_grad_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """As above, but regions that differ from entry to entry add to feature maps of their own."""
    if mapped[1]:
        return entry_by_entry(node, values, mapped, size)
    attrs: Any = node.attrs
    shape = (attrs.shape[0], size * attrs.shape[1], *attrs.shape[2:])
    return _in_channels(node, replace(attrs, shape=shape), values, size)


def _in_channels(node: Node, attrs: Attrs, values: Values, size: Dim) -> Values:
    x, rois = values
    made = node.op.node((merged(x, 1), rois), attrs).results()
    return tuple([parted(y, 1, size, t.shape) for y, t in zip(made, node.types, strict=True)])


# means over regions -------------------------------------------------------------------------------


def _of(node: Node, *without: str) -> dict[str, Any]:
    """The attributes of a node, without some of them."""
    return {
        f.name: getattr(node.attrs, f.name) for f in fields(node.attrs) if f.name not in without
    }


def _means(
    name: str,
    doc: str,
    attrs: type[RegionAttrs],
    grad_attrs: type[RegionAttrs],
    bins: Bins,
    sensitive: bool,
) -> tuple[Op, Op]:
    """An op that is linear in the feature map, and its gradient, which is its transpose."""

    def infer(attrs: RegionAttrs, x: Type, rois: Type) -> tuple[Type, ...]:
        return (_pooled(name, attrs, x, rois, sensitive),)

    def infer_grad(attrs: Any, g: Type, rois: Type) -> tuple[Type, ...]:
        x = g.with_shape(attrs.shape)
        if g != _pooled(f"{name}_grad", attrs, x, rois, sensitive):
            raise RuntimeError(
                f"{name}_grad: regions {rois} of {listed(x.shape)} do not have the gradient {g}"
            )
        return (x,)

    def vjp(node: Node, g: Value) -> tuple[Value, None]:
        x, rois = node.operands
        return ops_grad(g, rois, shape=x.shape, **_of(node)), None

    def vjp_grad(node: Node, g: Value) -> tuple[Value, None]:
        return forward(g, node.operands[1], **_of(node, "shape")), None

    forward = Op(
        name,
        doc,
        ("x", "rois"),
        attrs=attrs,
        infer=infer,
        vjp=vjp,
        reference=partial(reference.means, bins, sensitive),
        kind=Kind.WHOLE,
        weight=Weight.COSTLY,
        reference_ns=timing.regions_ns,
        raises=True,
        batch=_region_batch,
    )
    ops_grad = Op(
        f"{name}_grad",
        f"The transpose of {name}: g [K, *, *size] added to the pixels of a feature map.",
        ("g", "rois"),
        attrs=grad_attrs,
        infer=infer_grad,
        vjp=vjp_grad,
        reference=partial(reference.means_grad, bins, sensitive),
        kind=Kind.WHOLE,
        weight=Weight.COSTLY,
        reference_ns=timing.regions_grad_ns,
        raises=True,
        batch=_region_grad_batch,
    )
    return forward, ops_grad


roi_align, roi_align_grad = _means(
    "roi_align",
    "Means of bilinear samples in the bins of regions: x [N, C, H, W], rois [K, 5] to [K, C, "
    "*size] (He et al. 2017, Mask R-CNN).",
    AlignAttrs,
    AlignGradAttrs,
    reference.align_bins,
    sensitive=False,
)
ps_roi_align, ps_roi_align_grad = _means(
    "ps_roi_align",
    "As an aligned roi_align, bin (i, j) of result c from channel (c * rows + i) * columns + j "
    "(Li et al. 2017, Light-Head R-CNN).",
    SampleAttrs,
    SampleGradAttrs,
    reference.align_bins,
    sensitive=True,
)
ps_roi_pool, ps_roi_pool_grad = _means(
    "ps_roi_pool",
    "Means of the pixels in bins, each from channels of its own, as ps_roi_align's; 0 for a bin "
    "without pixels (Dai et al. 2016, R-FCN).",
    RegionAttrs,
    RegionGradAttrs,
    reference.pool_bins,
    sensitive=True,
)


# maxima of regions --------------------------------------------------------------------------------


def _roi_pool_infer(attrs: RegionAttrs, x: Type, rois: Type) -> tuple[Type, ...]:
    found = _pooled("roi_pool", attrs, x, rois, False)
    return found, found.with_dtype(i32)


def _roi_pool_vjp(node: Node, g: Value | None, _: Value | None = None) -> tuple[Value | None, None]:
    x, rois = node.operands
    return None if g is None else ops.roi_pool_grad(g, rois, node.result(1), shape=x.shape), None


roi_pool = Op(
    "roi_pool",
    "The greatest pixel in each bin of regions, and its place in the flat plane; 0 and -1 for a "
    "bin without pixels (Girshick 2015, Fast R-CNN).",
    ("x", "rois"),
    attrs=RegionAttrs,
    infer=_roi_pool_infer,
    vjp=_roi_pool_vjp,
    reference=reference.maxima,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    reference_ns=timing.maxima_ns,
    raises=True,
    batch=_region_batch,
)


def _roi_pool_grad_infer(attrs: ShapeAttrs, g: Type, rois: Type, places: Type) -> tuple[Type, ...]:
    _check_regions("roi_pool_grad", g.with_shape(attrs.shape), rois)
    if g.rank != 4 or places != g.with_dtype(i32) or g.shape[:2] != (rois.shape[0], attrs.shape[1]):
        raise RuntimeError(
            "roi_pool_grad: expected g and i32 places [K, C, rows, columns] for rois "
            f"{listed(rois.shape)} and an input {listed(attrs.shape)}, but got {g} and {places}"
        )
    return (g.with_shape(attrs.shape),)


def _pooled_places(node: Node) -> tuple[Value, tuple[Value, Value, Value]]:
    """Where a maximum was found at all, and its image, channel and place."""
    g, rois, places = node.operands
    images = ops.slice(rois, start=(0, 0), stop=(rois.shape[0], 1), step=(1, 1))
    channels = ops.iota(shape=(g.shape[1],), dim=0, dtype=i64)
    at = ops.cast(places, dtype=i64)
    zero = number(0, i64)
    return ops.ge(at, zero), (
        ops.reshape(ops.cast(images, dtype=i64), shape=(rois.shape[0], 1, 1, 1)),
        ops.reshape(channels, shape=(g.shape[1], 1, 1)),
        ops.maximum(at, zero),
    )


def _flat(shape: Shape) -> Shape:
    return (*shape[:2], numel(shape[2:]))


def _roi_pool_grad_decompose(node: Node) -> tuple[Value]:
    found, where = _pooled_places(node)
    g, (result,) = node.operands[0], node.types
    parts = ops.where(found, g, number(0, g.dtype))
    empty = zeros(result.with_shape(_flat(result.shape)))
    total = ops.index_put(empty, parts, *where, dims=(0, 1, 2), accumulate=True)
    return (ops.reshape(total, shape=result.shape),)


def _roi_pool_grad_vjp(node: Node, g: Value) -> tuple[Value, None, None]:
    found, where = _pooled_places(node)
    read = ops.index(ops.reshape(g, shape=_flat(g.shape)), *where, dims=(0, 1, 2))
    return ops.where(found, read, number(0, g.dtype)), None, None


roi_pool_grad = Op(
    "roi_pool_grad",
    "Adds each g [K, C, *size] at its place, where it has one, in the plane of its channel and "
    "image.",
    ("g", "rois", "places"),
    attrs=ShapeAttrs,
    infer=_roi_pool_grad_infer,
    vjp=_roi_pool_grad_vjp,
    decompose=_roi_pool_grad_decompose,
    reference=reference.maxima_grad,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    reference_ns=timing.maxima_grad_ns,
    raises=True,
    batch=BY_DECOMPOSITION,
)


# samples at coordinates ---------------------------------------------------------------------------


def _check_samples(name: str, x: Type, rows: Type, columns: Type) -> None:
    check_domain(name, x, REAL_FLOATING)
    check_same_dtype(name, x, rows, columns)
    if x.rank != 4 or 0 in x.shape[2:]:
        raise RuntimeError(
            f"{name}: expected an input [N, C, H, W] with pixels, but got {listed(x.shape)}"
        )
    if rows.shape != columns.shape or rows.shape[:1] != x.shape[:1]:
        raise RuntimeError(
            f"{name}: expected rows and columns [N, *S] for an input {listed(x.shape)}, but got "
            f"{listed(rows.shape)} and {listed(columns.shape)}"
        )


def _sample_infer(attrs: Attrs, x: Type, rows: Type, columns: Type) -> tuple[Type, ...]:
    _check_samples("sample_bilinear", x, rows, columns)
    return (x.with_shape((*x.shape[:2], *rows.shape[1:])),)


def _sample_grad_infer(
    attrs: Attrs, g: Type, x: Type, rows: Type, columns: Type
) -> tuple[Type, ...]:
    if (g,) != _sample_infer(attrs, x, rows, columns):
        raise RuntimeError(
            f"sample_bilinear_grad: samples of {x} at {rows} do not have the gradient {g}"
        )
    return x, rows, columns


@dataclass(frozen=True)
class Side:
    """The pixels on one side of coordinates: their places as i64, weights, and how these grow."""

    place: Algebra
    weight: Algebra
    slope: Algebra


def _sides(at: Algebra, size: Algebra) -> list[Side]:
    """The two pixels beside coordinates; weights of those outside the image are zero."""
    low = fn.floor(at)
    found = []
    for pixel, weight, slope in ((low, 1 - (at - low), -1), (low + 1, at - low, 1)):
        inside = (pixel >= 0) & (pixel <= size - 1)
        near = fn.cast(fn.minimum(fn.maximum(pixel, 0), size - 1), dtype=i64)
        found.append(
            Side(near, fn.where(inside, weight, 0), fn.cast(inside, dtype=at.dtype) * slope)
        )
    return found


class _Samples:
    """Samples as sums over four corners: operands in their wide dtype, with S as one dimension."""

    def __init__(self, x: Value, rows: Value, columns: Value):
        dtype = wide_dtype(x.dtype)
        self.shape = (*x.shape[:2], numel(rows.shape[1:]))
        self.flat = ops.reshape(cast_to(x, dtype), shape=_flat(x.shape))
        line = (rows.shape[0], 1, self.shape[2])
        row, column = [Algebra(ops.reshape(cast_to(v, dtype), shape=line)) for v in (rows, columns)]
        height, self.width = [Algebra(ops.size(x, dim=d)) for d in (2, 3)]
        tall, broad = [fn.cast(size, dtype=dtype) for size in (height, self.width)]
        self.corners = [(y, z) for y in _sides(row, tall) for z in _sides(column, broad)]

    def place(self, y: Side, x: Side) -> Value:
        """Where a corner is in the flat planes, for each channel."""
        return expand_to((y.place * self.width + x.place).value, self.shape)

    def read(self, y: Side, x: Side) -> Algebra:
        return Algebra(ops.gather(self.flat, self.place(y, x), dim=2))


def _total(parts: Sequence[Algebra]) -> Value:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.value


def _sample_decompose(node: Node) -> tuple[Value]:
    samples, (result,) = _Samples(*node.operands), node.types
    total = _total([samples.read(y, x) * (y.weight * x.weight) for y, x in samples.corners])
    return (cast_to(ops.reshape(total, shape=result.shape), result.dtype),)


def _sample_grad_decompose(node: Node) -> tuple[Value, Value, Value]:
    g, x, rows, columns = node.operands
    samples = _Samples(x, rows, columns)
    given = Algebra(ops.reshape(cast_to(g, samples.flat.dtype), shape=samples.shape))
    image = zeros(samples.flat.type)
    along_rows, along_columns = [], []
    for y, z in samples.corners:
        image = ops.scatter_add(
            image, samples.place(y, z), (given * (y.weight * z.weight)).value, dim=2
        )
        moved = Algebra(ops.sum((given * samples.read(y, z)).value, dims=(1,), keepdim=True))
        along_rows.append(moved * (y.slope * z.weight))
        along_columns.append(moved * (y.weight * z.slope))
    found = image, _total(along_rows), _total(along_columns)
    return tuple(  # type: ignore[return-value]
        [
            cast_to(ops.reshape(v, shape=t.shape), t.dtype)
            for v, t in zip(found, node.types, strict=True)
        ]
    )


sample_bilinear = Op(
    "sample_bilinear",
    "Bilinear samples of x [N, C, H, W] at coordinates rows, columns [N, *S]: [N, C, *S]; what "
    "lies outside the image is 0.",
    ("x", "rows", "columns"),
    infer=_sample_infer,
    vjp=lambda node, g: ops.sample_bilinear_grad(g, *node.operands),
    decompose=_sample_decompose,
    reference=lambda attrs, x, rows, columns: reference.samples(x, rows, columns),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    reference_ns=timing.samples_ns,
    batch=folding(0),
)
sample_bilinear_grad = Op(
    "sample_bilinear_grad",
    "The gradients of sample_bilinear with respect to x, rows and columns, for the cotangent g.",
    ("g", "x", "rows", "columns"),
    infer=_sample_grad_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_sample_grad_decompose,
    reference=lambda attrs, g, x, rows, columns: reference.samples_grad(g, x, rows, columns),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    reference_ns=timing.samples_ns,
    batch=folding(0),
)


# deformable convolution ---------------------------------------------------------------------------


@dataclass(frozen=True)
class DeformAttrs(Attrs):
    """Pairs are of rows and columns; offset_groups: parts of the channels that have taps of their
    own."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int


def _check_deform(attrs: DeformAttrs, x: Type, w: Type) -> None:
    check_domain("deform_conv2d", x, REAL_FLOATING)
    if x.rank != 4 or w.rank != 4:
        raise RuntimeError(
            "deform_conv2d: expected an input [N, C, H, W] and a weight [O, C / groups, KH, KW], "
            f"but got {listed(x.shape)} and {listed(w.shape)}"
        )
    low = min(*attrs.stride, *attrs.dilation, attrs.groups, attrs.offset_groups)
    if low < 1 or min(attrs.padding) < 0 or any(surely_less(k, 1) for k in w.shape[2:]):
        raise RuntimeError(
            "deform_conv2d: expected kernel sizes, strides, dilations and groups greater than "
            f"zero and paddings of zero or more, but got a weight {listed(w.shape)} and {attrs}"
        )
    channels = x.shape[1]
    if channels != w.shape[1] * attrs.groups or w.shape[0] % attrs.groups != 0:
        raise RuntimeError(
            f"deform_conv2d: with groups={attrs.groups}, an input {listed(x.shape)} does not fit a "
            f"weight {listed(w.shape)}"
        )
    if channels % attrs.offset_groups != 0:
        raise RuntimeError(
            f"deform_conv2d: {channels} channels do not divide into {attrs.offset_groups} offset "
            "groups"
        )


def _deform_infer(
    attrs: DeformAttrs, x: Type, w: Type, offset: Type, bias: Type, mask: Type | None = None
) -> tuple[Type, ...]:
    _check_deform(attrs, x, w)
    check_same_dtype("deform_conv2d", x, w, offset, bias, *([mask] if mask else []))
    spatial = tuple(
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, pad, dilation, kernel, stride in zip(
            x.shape[2:], attrs.padding, attrs.dilation, w.shape[2:], attrs.stride, strict=True
        )
    )
    if any(surely_less(size, 1) for size in spatial):
        raise RuntimeError(
            f"deform_conv2d: the output of an input {listed(x.shape)} and a weight "
            f"{listed(w.shape)} would be too small: {listed(spatial)}"
        )
    taps = attrs.offset_groups * numel(w.shape[2:])
    for what, given, channels in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        wanted = (x.shape[0], channels, *spatial)
        if given is not None and given.shape != wanted:
            raise RuntimeError(
                f"deform_conv2d: {what} must have shape {listed(wanted)}, but got "
                f"{listed(given.shape)}"
            )
    if bias.shape != w.shape[:1]:
        raise RuntimeError(
            f"deform_conv2d: expected a bias of shape {listed(w.shape[:1])}, but got "
            f"{listed(bias.shape)}"
        )
    return (x.with_shape((x.shape[0], w.shape[0], *spatial)),)


def _taps(node: Node, axis: int) -> Value:
    """Where taps are before they move, along rows (0) or columns (1): [1, KH * KW, OH, OW],
    wide."""
    attrs = attrs_of(node, DeformAttrs)
    dtype = wide_dtype(node.types[0].dtype)
    shape = (*node.operands[1].shape[2:], *node.types[0].shape[2:])
    kernel, out = [ops.iota(shape=shape, dim=d, dtype=i64) for d in (axis, axis + 2)]
    step, reach = number(attrs.stride[axis], i64), number(attrs.dilation[axis], i64)
    places = ops.add(ops.mul(out, step), ops.mul(kernel, reach))
    places = ops.sub(places, number(attrs.padding[axis], i64))
    return ops.cast(ops.reshape(places, shape=(1, numel(shape[:2]), *shape[2:])), dtype=dtype)


def _deform_decompose(node: Node) -> tuple[Value]:
    """Samples of each tap as columns, which the weight multiplies."""
    attrs, (result,) = attrs_of(node, DeformAttrs), node.types
    dtype = wide_dtype(result.dtype)
    x, w, offset, bias, *masks = [cast_to(v, dtype) for v in node.operands]
    n, outs, oh, ow = result.shape
    parts, each, taps = (
        n * attrs.offset_groups,
        x.shape[1] // attrs.offset_groups,
        numel(w.shape[2:]),
    )
    pairs = ops.reshape(offset, shape=(parts, taps, 2, oh, ow))
    moved = [
        ops.slice(pairs, start=(0, 0, a, 0, 0), stop=(parts, taps, a + 1, oh, ow), step=(1,) * 5)
        for a in (0, 1)
    ]
    at = [
        ops.add(ops.reshape(m, shape=(parts, taps, oh, ow)), _taps(node, a))
        for a, m in enumerate(moved)
    ]
    columns = ops.sample_bilinear(ops.reshape(x, shape=(parts, each, *x.shape[2:])), *at)
    for mask in masks:
        columns = ops.mul(columns, ops.reshape(mask, shape=(parts, 1, taps, oh, ow)))
    depth = w.shape[1] * taps
    columns = ops.reshape(columns, shape=(n, attrs.groups, depth, oh * ow))
    filters = ops.reshape(w, shape=(1, attrs.groups, outs // attrs.groups, depth))
    found = ops.reshape(ops.matmul(filters, columns), shape=result.shape)
    return (cast_to(ops.add(found, ops.reshape(bias, shape=(outs, 1, 1))), result.dtype),)


deform_conv2d = Op(
    "deform_conv2d",
    "A convolution of x [N, C, H, W] by weight [O, C / groups, KH, KW] whose taps are moved by "
    "offset [N, 2 * offset_groups * KH * KW, OH, OW] (pairs of row and column) and weighted by "
    "mask (Zhu et al. 2018, Deformable ConvNets v2).",
    ("x", "weight", "offset", "bias", "mask?"),
    attrs=DeformAttrs,
    infer=_deform_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_deform_decompose,
    reference=reference.deformed,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    reference_ns=timing.deformed_ns,
    batch=BY_DECOMPOSITION,
)


# suppression --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverlapAttrs(Attrs):
    """threshold: intersection over union beyond which a box is dropped."""

    threshold: float


def _nms_infer(attrs: OverlapAttrs, boxes: Type) -> tuple[Type, ...]:
    check_domain("nms", boxes, REAL_FLOATING)
    if boxes.rank < 2 or boxes.shape[-1] != 4:
        raise RuntimeError(
            f"nms: expected boxes [*, N, 4], rows (x1, y1, x2, y2), but got {listed(boxes.shape)}"
        )
    return (Type(boolean, boxes.shape[:-1]),)


nms = Op(
    "nms",
    "Which of boxes [*, N, 4], the best first, stay: each that stays drops those behind it that "
    "overlap it.",
    ("boxes",),
    attrs=OverlapAttrs,
    infer=_nms_infer,
    vjp=NoGradient("a choice is constant almost everywhere"),
    reference=lambda attrs, boxes: reference.kept(attrs.threshold, boxes),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    reference_ns=timing.suppression_ns,
    batch=leading,
)
