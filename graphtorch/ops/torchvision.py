"""``torch.ops.torchvision``: the operators of torchvision's extension, from graphtorch's own operations.

Regions (rois) are rows (image, x1, y1, x2, y2) in the coordinates of the original images; `spatial_scale`
takes
them to those of the feature map. Gradients reach the feature map, not the regions, as torchvision's do.
Semantics: https://docs.pytorch.org/vision/stable/ops.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, elements_for_size, rounded_once
from .._ops.creation import from_array
from .._types import DTYPES
from ..autograd import grad as gradients
from ..autograd.grad_mode import enable_grad
from .operators import Entry

F, INT32 = FUNCTIONS, DTYPES["int32"]


# ------------------------------------------------------------------------------------------ nms


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that stay, best first: each one drops those of lower score that overlap it more.

    Args:
        dets: [N, 4], rows (x1, y1, x2, y2).
        scores: [N].
        iou_threshold: intersection over union beyond which a box is dropped.

    Returns:
        i64, at most N; the number depends on the data, as that of `nonzero`.

    Raises:
        RuntimeError: shapes that do not fit.
    """
    if dets.dim() != 2 or dets.shape[1] != 4:
        raise RuntimeError(f"boxes should be a 2d tensor [N, 4], got {list(dets.shape)}")
    if scores.dim() != 1 or scores.shape[0] != dets.shape[0]:
        raise RuntimeError(
            f"boxes and scores should have same number of elements in dimension 0, got "
            f"{list(dets.shape)} and {list(scores.shape)}"
        )
    instead = "sort by score and mask what overlaps, which keeps the size"
    boxes, rank = elements_for_size("nms", dets, instead), elements_for_size("nms", scores, instead)
    return from_array(_kept(boxes, np.argsort(-rank, kind="stable"), iou_threshold))


def _kept(boxes: np.ndarray, order: np.ndarray, threshold: float) -> np.ndarray:
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = np.prod(high - low, 1)
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[order]) - np.maximum(low[best], low[order])
        common = np.prod(np.maximum(sides, 0), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap = common / (areas[best] + areas[order] - common)
        order = order[~(overlap > threshold)]
    return np.array(kept, np.int64)


# ---------------------------------------------------------------------------------- reading between pixels


def _rows(x: Tensor) -> Tensor:
    """An image batch [N, C, H, W] as rows [N*H*W, C], one a pixel."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _corners(at: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels beside each coordinate, with their weights; none beyond one pixel outside the image."""
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor()
    high = (low + 1).clamp(max=size - 1)
    rest = at - low
    zero = F["zeros_like"](at)
    return [(low.long(), F["where"](inside, 1 - rest, zero)), (high.long(), F["where"](inside, rest, zero))]


def _bilinear(rows: Tensor, first: Tensor, width: int, ys: Any, xs: Any) -> Tensor:
    """Weighted sums of four rows for each sample.

    Args:
        first: the row where the image of each sample begins, which broadcasts with the coordinates.
        ys, xs: what `_corners` gives; they broadcast with each other.

    Returns:
        [*samples, C].
    """
    total: Any = 0
    for y, wy in ys:
        for x, wx in xs:
            place = first + y * width + x
            found = rows.index_select(0, place.reshape(-1)).reshape(*place.shape, rows.shape[1])
            total = total + found * (wy * wx).unsqueeze(-1)
    return total  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------ regions


def _check_regions(name: str, x: Tensor, rois: Tensor) -> None:
    if x.dim() != 4:
        raise RuntimeError(f"{name}: expected an input [N, C, H, W], got {list(x.shape)}")
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise RuntimeError(f"{name}: rois must have shape as Tensor[K, 5], got {list(rois.shape)}")
    if x.dtype is not rois.dtype:
        raise RuntimeError(
            f"{name}: Expected tensor for input to have the same type as tensor for rois; but type "
            f"{x.dtype} does not equal {rois.dtype}"
        )


class _Grid:
    """Sample coordinates of regions: `n` samples along one axis in each of `bins` bins.

    Attributes:
        at: [K, bins, n].
        count: samples that count, [K]; the others have a mask of zero. A number where they are the same.
    """

    def __init__(self, start: Tensor, length: Tensor, bins: int, ratio: int):
        step = length / bins
        self.count: Any = ratio
        n = ratio
        if ratio <= 0:  # as many as there are pixels, which the data say
            self.count = step.ceil().clamp(min=1)
            widest = elements_for_size(
                "roi_align", self.count.detach(), "pass a sampling_ratio greater than zero"
            )
            n = int(widest.max()) if widest.size else 1
        sample = F["arange"](n, dtype=start.dtype)
        within = (sample + 0.5) * (step / self.count).unsqueeze(-1)
        begin = start.unsqueeze(-1) + F["arange"](bins, dtype=start.dtype) * step.unsqueeze(-1)
        self.at = begin.unsqueeze(-1) + within.unsqueeze(1)
        self.mask = None if ratio > 0 else (sample < self.count.unsqueeze(-1)).to(start.dtype).unsqueeze(1)

    def corners(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """See `_corners`: the weights of samples that do not count are zero."""
        found = _corners(self.at, size)
        return found if self.mask is None else [(i, w * self.mask) for i, w in found]


def _grids(
    rois: Tensor, scale: float, bins: tuple[int, int], ratio: int, shift: float, least: float | None
) -> tuple[_Grid, _Grid]:
    x1, y1, x2, y2 = [rois[:, i] * scale - shift for i in range(1, 5)]
    height, width = y2 - y1, x2 - x1
    if least is not None:
        height, width = height.clamp(min=least), width.clamp(min=least)
    return _Grid(y1, height, bins[0], ratio), _Grid(x1, width, bins[1], ratio)


def _averaged(x: Tensor, rois: Tensor, ys: _Grid, xs: _Grid) -> Tensor:
    """Means of the samples of each bin: [K, bins of y, bins of x, C]."""
    _, _, height, width = x.shape
    first = (rois[:, 0].long() * (height * width)).reshape(-1, 1, 1, 1, 1)
    rows = [(i.unsqueeze(3).unsqueeze(4), w.unsqueeze(3).unsqueeze(4)) for i, w in ys.corners(height)]
    columns = [(i.unsqueeze(1).unsqueeze(2), w.unsqueeze(1).unsqueeze(2)) for i, w in xs.corners(width)]
    total = _bilinear(_rows(x), first, width, rows, columns).sum((2, 4))
    count = ys.count * xs.count
    return total / (count.reshape(-1, 1, 1, 1) if isinstance(count, Tensor) else count)


@rounded_once
def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool = False,
) -> Tensor:
    """Means of bilinear samples in the bins of regions (He et al. 2017, Mask R-CNN).

    Args:
        input: [N, C, H, W].
        rois: [K, 5], of the same dtype.
        sampling_ratio: samples along each side of a bin; zero or less: one a pixel, which the data say.
        aligned: pixels' middles, not their corners, are at whole coordinates.

    Returns:
        [K, C, pooled_height, pooled_width].
    """
    _check_regions("roi_align", input, rois)
    rois = rois.detach()
    shift, least = (0.5, None) if aligned else (0.0, 1.0)
    ys, xs = _grids(rois, spatial_scale, (pooled_height, pooled_width), sampling_ratio, shift, least)
    return _averaged(input, rois, ys, xs).permute(0, 3, 1, 2)


def _own_channels(found: Tensor, height: int, width: int) -> Tensor:
    """Of [K, height, width, C*height*width]: for each bin the channels that belong to it, [K, C, height,
    width]."""
    k, _, _, channels = found.shape
    parts = found.reshape(k, height, width, channels // (height * width), height, width)
    own = parts.permute(0, 3, 1, 4, 2, 5).diagonal(dim1=2, dim2=3).diagonal(dim1=2, dim2=3)
    return own


def _check_sensitive(name: str, x: Tensor, height: int, width: int) -> None:
    if x.shape[1] % (height * width):
        raise RuntimeError(
            f"{name}: input channels must be a multiple of pooling height * pooling width, got "
            f"{x.shape[1]} and {height} * {width}"
        )


def _mapping(rois: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Which channel each result was read from: i32 [K, C, height, width]."""
    own = F["arange"](channels, dtype=INT32).reshape(1, channels // (height * width), height, width)
    return own.expand(rois.shape[0], *own.shape[1:]).contiguous()


def ps_roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> tuple[Tensor, Tensor]:
    """As `roi_align`, each bin from channels of its own (Li et al. 2017, Light-Head R-CNN).

    Returns:
        [K, C / (pooled_height * pooled_width), pooled_height, pooled_width], and the channels read, i32.
    """
    _check_regions("ps_roi_align", input, rois)
    _check_sensitive("ps_roi_align", input, pooled_height, pooled_width)
    return (
        _ps_roi_align(input, rois.detach(), spatial_scale, pooled_height, pooled_width, sampling_ratio),
        _mapping(rois, input.shape[1], pooled_height, pooled_width),
    )


@rounded_once
def _ps_roi_align(x: Tensor, rois: Tensor, scale: float, height: int, width: int, ratio: int) -> Tensor:
    ys, xs = _grids(rois, scale, (height, width), ratio, 0.5, None)
    return _own_channels(_averaged(x, rois, ys, xs), height, width)


# ------------------------------------------------------------------------------------------ whole pixels


def _rounded(x: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero, as C's `round` does."""
    return (x.abs() + 0.5).floor() * x.sign()


def _spans(start: Tensor, length: Tensor, bins: int, size: int) -> Tensor:
    """Whether a pixel belongs to a bin: bool [K, bins, size]."""
    step = (length / bins).unsqueeze(-1)
    number = F["arange"](bins, dtype=start.dtype)
    low = (number * step).floor() + start.unsqueeze(-1)
    high = ((number + 1) * step).ceil() + start.unsqueeze(-1)
    pixel = F["arange"](size, dtype=start.dtype)
    return (pixel >= low.clamp(0, size).unsqueeze(-1)) & (pixel < high.clamp(0, size).unsqueeze(-1))


def roi_pool(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """Maxima of the bins of regions (Girshick 2015, Fast R-CNN); 0 for a bin without pixels.

    Returns:
        [K, C, pooled_height, pooled_width], and where in its channel each was found, i32; -1 for no pixel.
    """
    _check_regions("roi_pool", input, rois)
    _, _, height, width = input.shape
    x1, y1, x2, y2 = [_rounded(rois.detach()[:, i] * spatial_scale) for i in range(1, 5)]
    rows = _spans(y1, (y2 - y1 + 1).clamp(min=1), pooled_height, height)
    columns = _spans(x1, (x2 - x1 + 1).clamp(min=1), pooled_width, width)
    own = input.index_select(0, rois[:, 0].long())  # [K, C, H, W]
    place = _first_maxima(own.detach(), rows, columns)
    empty = (~(rows.any(-1).unsqueeze(-1) & columns.any(-1).unsqueeze(1))).unsqueeze(1)
    flat = place.reshape(*place.shape[:2], -1)
    found = own.reshape(*own.shape[:2], -1).gather(2, flat).reshape(place.shape)
    return found.masked_fill(empty, 0), place.masked_fill(empty, -1).to(INT32)


def _first_maxima(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Positions in the flat channel of the first maximum in each bin: along a row, then over rows."""
    low = -float("inf")
    in_row = x.unsqueeze(3).masked_fill(~columns.unsqueeze(1).unsqueeze(2), low)  # [K, C, H, pw, W]
    best, at = in_row.amax(-1), in_row.argmax(-1)
    over = best.unsqueeze(2).masked_fill(~rows.unsqueeze(1).unsqueeze(-1), low)  # [K, C, ph, H, pw]
    row = over.argmax(3)
    column = at.gather(2, row)
    return row * x.shape[3] + column


def ps_roi_pool(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """Means of bins, each from channels of its own (Dai et al. 2016, R-FCN); 0 for a bin without pixels.

    Returns:
        [K, C / (pooled_height * pooled_width), pooled_height, pooled_width], and the channels read, i32.
    """
    _check_regions("ps_roi_pool", input, rois)
    _check_sensitive("ps_roi_pool", input, pooled_height, pooled_width)
    return (
        _ps_roi_pool(input, rois.detach(), spatial_scale, pooled_height, pooled_width),
        _mapping(rois, input.shape[1], pooled_height, pooled_width),
    )


@rounded_once
def _ps_roi_pool(x: Tensor, rois: Tensor, scale: float, ph: int, pw: int) -> Tensor:
    _, channels, height, width = x.shape
    x1, y1 = [_rounded(rois[:, i]) * scale for i in (1, 2)]
    rows = _open_spans(y1, ((_rounded(rois[:, 4]) + 1) * scale - y1).clamp(min=0.1), ph, height).to(x.dtype)
    columns = _open_spans(x1, ((_rounded(rois[:, 3]) + 1) * scale - x1).clamp(min=0.1), pw, width).to(x.dtype)
    own = x.index_select(0, rois[:, 0].long()).reshape(-1, channels // (ph * pw), ph, pw, height, width)
    total = F["einsum"]("kcijhw,kih,kjw->kcij", own, rows, columns)
    area = rows.sum(-1).unsqueeze(-1) * columns.sum(-1).unsqueeze(1)
    return total / area.clamp(min=1).unsqueeze(1)


def _open_spans(start: Tensor, length: Tensor, bins: int, size: int) -> Tensor:
    """As `_spans`, of bins that begin between pixels."""
    step = (length / bins).unsqueeze(-1)
    number = F["arange"](bins, dtype=start.dtype)
    low = (number * step + start.unsqueeze(-1)).floor()
    high = ((number + 1) * step + start.unsqueeze(-1)).ceil()
    pixel = F["arange"](size, dtype=start.dtype)
    return (pixel >= low.clamp(0, size).unsqueeze(-1)) & (pixel < high.clamp(0, size).unsqueeze(-1))


# ------------------------------------------------------------------------------------------ deformable


@rounded_once
def deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """A convolution whose taps are moved by `offset` and weighted by `mask` (Zhu et al. 2018, Deformable v2).

    Args:
        input: [N, C, H, W].
        weight: [O, C / groups, KH, KW].
        offset: [N, 2 * offset_groups * KH * KW, OH, OW], pairs (y, x).
        mask: [N, offset_groups * KH * KW, OH, OW], where `use_mask`.
        bias: [O].

    Returns:
        [N, O, OH, OW].

    Raises:
        RuntimeError: shapes that do not fit.
    """
    n, channels, height, width = input.shape
    out, per_group, kh, kw = weight.shape
    oh = (height + 2 * pad_h - dilation_h * (kh - 1) - 1) // stride_h + 1
    ow = (width + 2 * pad_w - dilation_w * (kw - 1) - 1) // stride_w + 1
    for what, given, wanted in (
        ("offset", offset, (n, 2 * offset_groups * kh * kw, oh, ow)),
        ("mask", mask, (n, offset_groups * kh * kw, oh, ow)),
    ):
        if tuple(given.shape) != wanted and (use_mask or what == "offset"):
            raise RuntimeError(
                f"deform_conv2d: {what} must have shape {list(wanted)}, got {list(given.shape)}"
            )
    moved = offset.reshape(n, offset_groups, kh, kw, 2, oh, ow)
    ys = moved[:, :, :, :, 0] + _taps(oh, kh, stride_h, pad_h, dilation_h, input).unsqueeze(-1)
    xs = moved[:, :, :, :, 1] + _taps(ow, kw, stride_w, pad_w, dilation_w, input)
    images = input.reshape(n * offset_groups, channels // offset_groups, height, width)
    first = (F["arange"](n * offset_groups) * (height * width)).reshape(n, offset_groups, 1, 1, 1, 1)
    found = _bilinear(_rows(images), first, width, _open_corners(ys, height), _open_corners(xs, width))
    if use_mask:
        found = found * mask.reshape(n, offset_groups, kh, kw, oh, ow).unsqueeze(-1)
    columns = found.permute(0, 1, 6, 2, 3, 4, 5).reshape(n, groups, per_group * kh * kw, oh * ow)
    filters = weight.reshape(1, groups, out // groups, per_group * kh * kw)
    return filters.matmul(columns).reshape(n, out, oh, ow) + bias.reshape(1, -1, 1, 1)


def _taps(out: int, kernel: int, stride: int, pad: int, dilation: int, like: Tensor) -> Tensor:
    """Where the taps are before they move: [kernel, 1, out] of `like`'s dtype."""
    places = F["arange"](out, dtype=like.dtype) * stride - pad
    return (F["arange"](kernel, dtype=like.dtype) * dilation).reshape(-1, 1, 1) + places


def _open_corners(at: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels beside each coordinate, with their weights; those outside the image count as zeros."""
    low = at.detach().floor()
    rest = at - low
    found = []
    for pixel, weight in ((low, 1 - rest), (low + 1, rest)):
        inside = (pixel >= 0) & (pixel <= size - 1)
        found.append((pixel.clamp(0, size - 1).long(), F["where"](inside, weight, F["zeros_like"](weight))))
    return found


# ------------------------------------------------------------------------------------------ gradients by name


def _backward_of(forward: Callable[..., Any], sizes: int) -> Callable[..., Tensor]:
    """The operator ``_<forward>_backward(grad, rois, ..., batch, channels, height, width, ...)``."""

    def backward(grad: Tensor, rois: Tensor, *options: Any) -> Tensor:
        options = (
            options[1:] if forward in (roi_pool, ps_roi_align, ps_roi_pool) else options
        )  # what was read
        with enable_grad():
            shape = options[sizes : sizes + 4]
            x = F["zeros"](*shape, dtype=grad.dtype, requires_grad=True)
            found = forward(x, rois, *options[:sizes], *options[sizes + 4 :])
            found = found[0] if isinstance(found, tuple) else found
            return gradients(found, x, grad)[0]

    return backward


def _ps_align_backward(
    grad: Tensor, rois: Tensor, mapping: Tensor, scale: float, ph: int, pw: int, ratio: int, *shape: Any
) -> Tensor:
    return _backward_of(ps_roi_align, 3)(grad, rois, mapping, scale, ph, pw, *shape, ratio)


def _roi_pool_backward(
    grad: Tensor,
    rois: Tensor,
    argmax: Tensor,
    scale: float,
    ph: int,
    pw: int,
    n: int,
    channels: int,
    height: int,
    width: int,
) -> Tensor:
    own = F["zeros"](
        rois.shape[0], channels, height * width + 1, dtype=grad.dtype
    )  # the last for bins without pixels
    place = argmax.long().masked_fill(argmax < 0, height * width).reshape(*own.shape[:2], -1)
    own = own.scatter_add(2, place, grad.reshape(*own.shape[:2], -1))[:, :, :-1]
    total = F["zeros"](n, channels, height * width, dtype=grad.dtype)
    return total.index_add(0, rois[:, 0].long(), own).reshape(n, channels, height, width)


def _deform_conv2d_backward(
    grad: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    with enable_grad():
        leaves = [t.detach().requires_grad_() for t in (input, weight, offset, mask, bias)]
        found = gradients(deform_conv2d(*leaves, *options), leaves, grad, allow_unused=True)
    return tuple(F["zeros_like"](t) if g is None else g for g, t in zip(found, leaves, strict=True))


def _cuda_version() -> int:
    """-1: built without CUDA."""
    return -1


OWN: dict[str, Callable[..., Any]] = {
    "_cuda_version": _cuda_version,
    "_deform_conv2d_backward": _deform_conv2d_backward,
    "_ps_roi_align_backward": _ps_align_backward,
    "_ps_roi_pool_backward": _backward_of(ps_roi_pool, 3),
    "_roi_align_backward": _backward_of(roi_align, 3),
    "_roi_pool_backward": _roi_pool_backward,
    "deform_conv2d": deform_conv2d,
    "nms": nms,
    "ps_roi_align": ps_roi_align,
    "ps_roi_pool": ps_roi_pool,
    "roi_align": roi_align,
    "roi_pool": roi_pool,
}


DECLARED = ("box_iou_rotated", "qnms", "qroi_align")  # there, but calling them is an error


def find(name: str) -> Entry | None:
    """The operator ``torchvision::name``; None where there is none."""
    if name not in OWN and name not in DECLARED:
        return None
    made = Entry(f"torchvision::{name}", differentiable=True)
    if name in OWN:
        made.implementations["CPU"] = OWN[name]
    return made
