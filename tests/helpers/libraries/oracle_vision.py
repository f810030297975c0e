"""The operators of torchvision's extension for PyTorch's CPU build, where that extension does not
load."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

import numpy as np

ROI = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
DEFORM = (
    "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt "
    "stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask"
)
SCHEMAS = (
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"qroi_align({ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, float scale, SymInt ph, SymInt pw, {SIZES}, "
    "int n, bool a) "
    "-> Tensor",
    f"roi_pool({ROI}) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float scale, SymInt ph, SymInt "
    f"pw, {SIZES}) "
    "-> Tensor",
    f"ps_roi_align({ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor m, float scale, SymInt ph, SymInt "
    f"pw, int n, {SIZES})"
    " -> Tensor",
    f"ps_roi_pool({ROI}) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor m, float scale, SymInt ph, SymInt pw, "
    f"{SIZES}) -> Tensor",
    f"deform_conv2d({DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_kept: list[Any] = []  # a library whose object goes takes its operators with it


def declare_schemas(torch: Any) -> Any:
    """What torchvision needs to be imported: its operators by name. Returns their library."""
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _kept.append(library)
    return library


def declare(torch: Any) -> None:
    """Declare the operators; `nms` and `roi_align`, which models call, also work."""
    if importlib.util.find_spec("torchvision") is None:
        return
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    library = declare_schemas(torch)
    importlib.import_module("torchvision")
    align = importlib.import_module("torchvision.ops.roi_align")._roi_align
    library.impl(
        "nms", lambda d, s, t: torch.tensor(nms(d.numpy(), s.numpy(), t), dtype=torch.int64), "CPU"
    )
    library.impl("roi_align", align, "CompositeImplicitAutograd")
    for name, module in list(sys.modules.items()):
        if name.startswith("torchvision") and hasattr(module, "_assert_has_ops"):
            module._assert_has_ops = lambda: None  # type: ignore[attr-defined]


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """The definition: go through the boxes by score, drop those that overlap one that stays."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    dropped = np.zeros(len(boxes), bool)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if dropped[i]:
            continue
        kept.append(int(i))
        sides = np.minimum(boxes[i, 2:], boxes[:, 2:]) - np.maximum(boxes[i, :2], boxes[:, :2])
        common = np.maximum(sides, 0).prod(1)
        dropped |= common / (areas[i] + areas - common) > threshold
    return kept
