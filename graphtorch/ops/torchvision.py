"""``torch.ops.torchvision``: the operators of torchvision's extension.

What they compute is said by the records of `graphtorch.ir.ops.vision`; here arguments are checked.
Gradients reach the feature map, not the regions, as torchvision's do.
Semantics: https://docs.pytorch.org/vision/stable/ops.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.ops.vision_reference import images

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, check_tensor, elements_for_size, known_elements, run, size_of
from .._ops.creation import from_array
from .._types import DTYPES
from ..autograd import grad as gradients
from ..autograd.grad_mode import enable_grad
from .operators import Entry

F, INT32 = FUNCTIONS, DTYPES["int32"]


# ------------------------------------------------------------------------------------------ nms


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that stay, best first: each one drops those of lower score that overlap
    it more.

    Args:
        dets: [N, 4], rows (x1, y1, x2, y2).
        scores: [N], of the same dtype.
        iou_threshold: intersection over union beyond which a box is dropped.

    Returns:
        i64, at most N; the number depends on the data, as that of `nonzero`.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    check_tensor("nms", "dets", dets)
    check_tensor("nms", "scores", scores, 2)
    if dets.dim() != 2 or dets.shape[1] != 4:
        raise RuntimeError(f"nms: boxes should be a 2d tensor [N, 4], got {list(dets.shape)}")
    if scores.dim() != 1 or scores.shape[0] != dets.shape[0]:
        raise RuntimeError(
            f"nms: boxes and scores should have same number of elements in dimension 0, got "
            f"{list(dets.shape)} and {list(scores.shape)}"
        )
    _check_dtypes("nms", "dets", dets, "scores", scores)
    order = scores.detach().sort(descending=True, stable=True)[1]
    stays = run(
        "Nms", ops.nms, dets.detach().index_select(0, order), threshold=float(iou_threshold)
    )
    found = F["where"](stays, order, -1)  # one tensor, so that one look says all
    places = elements_for_size(
        "nms", found, "sort by score and mask what overlaps, which keeps the size"
    )
    return from_array(places[places >= 0], place=dets.device)


# ------------------------------------------------------------------------------------------ regions


def _check_dtypes(name: str, first: str, a: Tensor, second: str, b: Tensor) -> None:
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"{name}: {first} should have the same type as {second}, but they are {a.dtype} and "
            f"{b.dtype}: convert one of them with .to(dtype)"
        )


def _checked_rois(name: str, what: str, x: Tensor, rois: Tensor, count: Any) -> Tensor:
    """`rois` without a gradient; those in memory are of images that there are (others fail when
    they run)."""
    check_tensor(name, what, x)
    check_tensor(name, "rois", rois, 2)
    _check_dtypes(name, what, x, "rois", rois)
    known = known_elements(rois)
    if known is not None and rois.dim() == 2 and known.shape[1:] == (5,) and isinstance(count, int):
        first = np.trunc(known[:, 0])
        if not ((first >= 0) & (first < count)).all():
            list(images(known, count))
    return rois.detach()


def _pooled(
    name: str, op: Any, x: Tensor, rois: Tensor, scale: float, size: Any, **options: Any
) -> Any:
    rois = _checked_rois(name, "input", x, rois, x.shape[0] if x.dim() else 0)
    bins = tuple(map(int, size))
    label = name.title().replace("_", "")
    return run(label, op, x, rois, scale=float(scale), size=bins, **options)


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
        rois: [K, 5], rows (image, x1, y1, x2, y2), of the same dtype.
        spatial_scale: takes coordinates to those of `input`.
        sampling_ratio: samples along each side of a bin; zero or less: about one a pixel.
        aligned: pixels' middles, not their corners, are at whole coordinates.

    Returns:
        [K, C, pooled_height, pooled_width].

    Raises:
        RuntimeError: shapes or dtypes that do not fit. IndexError: a region of an image that is not
            there.
    """
    size = pooled_height, pooled_width
    options = {"ratio": int(sampling_ratio), "aligned": bool(aligned)}
    return _pooled("roi_align", ops.roi_align, input, rois, spatial_scale, size, **options)  # type: ignore[no-any-return]


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
        [K, C / (pooled_height * pooled_width), pooled_height, pooled_width], and the channels read,
        i32.
    """
    size = pooled_height, pooled_width
    name, op, ratio = "ps_roi_align", ops.ps_roi_align, int(sampling_ratio)
    return _with_channels(_pooled(name, op, input, rois, spatial_scale, size, ratio=ratio))


def roi_pool(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """Maxima of the bins of regions (Girshick 2015, Fast R-CNN); 0 for a bin without pixels.

    Returns:
        [K, C, pooled_height, pooled_width], and where in its channel each was found, i32; -1 for no
        pixel.
    """
    size = pooled_height, pooled_width
    return _pooled("roi_pool", ops.roi_pool, input, rois, spatial_scale, size)  # type: ignore[no-any-return]


def ps_roi_pool(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """Means of bins, each from channels of its own (Dai et al. 2016, R-FCN); 0 for a bin without
    pixels.

    Returns:
        [K, C / (pooled_height * pooled_width), pooled_height, pooled_width], and the channels read,
        i32.
    """
    size = pooled_height, pooled_width
    return _with_channels(_pooled("ps_roi_pool", ops.ps_roi_pool, input, rois, spatial_scale, size))


def _with_channels(found: Tensor) -> tuple[Tensor, Tensor]:
    """With the channel that each element was read from."""
    k, *own = found.shape
    channels = F["arange"](own[0] * own[1] * own[2], dtype=INT32).reshape(1, *own)
    return found, channels.expand(k, *own).contiguous()


# --------------------------------------------------------------------------------------- deformable


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
    """A convolution whose taps are moved by `offset` and weighted by `mask` (Zhu et al. 2018,
    Deformable v2).

    Args:
        input: [N, C, H, W].
        weight: [O, C / groups, KH, KW].
        offset: [N, 2 * offset_groups * KH * KW, OH, OW], pairs (y, x).
        mask: [N, offset_groups * KH * KW, OH, OW], where `use_mask`.
        bias: [O].

    Returns:
        [N, O, OH, OW].

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    tensors = {"input": input, "weight": weight, "offset": offset, "bias": bias, "mask": mask}
    if not use_mask:
        del tensors["mask"]
    for position, (what, x) in enumerate(tensors.items()):
        check_tensor("deform_conv2d", what, x, position + 1)
        _check_dtypes("deform_conv2d", "input", input, what, x)
    return run(  # type: ignore[no-any-return]
        "DeformConv2D",
        ops.deform_conv2d,
        *tensors.values(),
        stride=(int(stride_h), int(stride_w)),
        padding=(int(pad_h), int(pad_w)),
        dilation=(int(dilation_h), int(dilation_w)),
        groups=int(groups),
        offset_groups=int(offset_groups),
    )


# -------------------------------------------------------------------------------- gradients by name


def _spread(
    name: str, op: Any, grad: Tensor, rois: Tensor, shape: Any, *more: Tensor, **options: Any
) -> Any:
    """The gradient of a feature map of `shape`."""
    sizes = tuple(map(size_of, shape))
    rois = _checked_rois(name, "grad", grad, rois, sizes[0])
    return run(name.title().replace("_", ""), op, grad, rois, *more, shape=sizes, **options)


def _roi_align_backward(
    grad: Tensor, rois: Tensor, scale: float, ph: int, pw: int, *sizes_and_sampling: Any
) -> Tensor:
    *shape, ratio, aligned = sizes_and_sampling
    return _spread(  # type: ignore[no-any-return]
        "roi_align_backward",
        ops.roi_align_grad,
        grad,
        rois,
        shape,
        scale=float(scale),
        size=(int(ph), int(pw)),
        ratio=int(ratio),
        aligned=bool(aligned),
    )


def _ps_roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    mapping: Tensor,
    scale: float,
    ph: int,
    pw: int,
    ratio: int,
    *shape: Any,
) -> Tensor:
    return _spread(  # type: ignore[no-any-return]
        "ps_roi_align_backward",
        ops.ps_roi_align_grad,
        grad,
        rois,
        shape,
        scale=float(scale),
        size=(int(ph), int(pw)),
        ratio=int(ratio),
    )


def _ps_roi_pool_backward(
    grad: Tensor, rois: Tensor, mapping: Tensor, scale: float, ph: int, pw: int, *shape: Any
) -> Tensor:
    return _spread(  # type: ignore[no-any-return]
        "ps_roi_pool_backward",
        ops.ps_roi_pool_grad,
        grad,
        rois,
        shape,
        scale=float(scale),
        size=(int(ph), int(pw)),
    )


def _roi_pool_backward(
    grad: Tensor, rois: Tensor, argmax: Tensor, scale: float, ph: int, pw: int, *shape: Any
) -> Tensor:
    return _spread("roi_pool_backward", ops.roi_pool_grad, grad, rois, shape, argmax)  # type: ignore[no-any-return]


def _deform_conv2d_backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    *options: Any,
) -> tuple[Tensor, ...]:
    with enable_grad():
        leaves: list[Any] = [
            t.detach().requires_grad_() for t in (input, weight, offset, mask, bias)
        ]
        found = gradients(deform_conv2d(*leaves, *options), leaves, grad, allow_unused=True)
    return tuple(F["zeros_like"](t) if g is None else g for g, t in zip(found, leaves, strict=True))


def _cuda_version() -> int:
    """-1: built without CUDA."""
    return -1


OWN: dict[str, Callable[..., Any]] = {
    "_cuda_version": _cuda_version,
    "_deform_conv2d_backward": _deform_conv2d_backward,
    "_ps_roi_align_backward": _ps_roi_align_backward,
    "_ps_roi_pool_backward": _ps_roi_pool_backward,
    "_roi_align_backward": _roi_align_backward,
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
