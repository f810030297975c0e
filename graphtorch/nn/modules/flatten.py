"""Layers that change shape only, and image rearrangement."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from ._thin import thin
from .module import Module

PixelShuffle = thin(
    "PixelShuffle",
    F.pixel_shuffle,
    lambda upscale_factor: None,
    "[*, C r^2, H, W] -> [*, C, H r, W r].",
    shown="upscale_factor={upscale_factor}",
)
PixelUnshuffle = thin(
    "PixelUnshuffle",
    F.pixel_unshuffle,
    lambda downscale_factor: None,
    "[*, C, H r, W r] -> [*, C r^2, H, W].",
    shown="downscale_factor={downscale_factor}",
)
ChannelShuffle = thin(
    "ChannelShuffle",
    F.channel_shuffle,
    lambda groups: None,
    "Interleave groups of channels.",
    shown="groups={groups}",
)
Unfold = thin(
    "Unfold",
    F.unfold,
    lambda kernel_size, dilation=1, padding=0, stride=1: None,
    "Sliding windows of [N, C, H, W] as columns [N, C kh kw, L].",
    shown="kernel_size={kernel_size}, dilation={dilation}, padding={padding}, stride={stride}",
)
Fold = thin(
    "Fold",
    F.fold,
    lambda output_size, kernel_size, dilation=1, padding=0, stride=1: None,
    "Sum columns [N, C kh kw, L] back into images.",
    shown="output_size={output_size}, kernel_size={kernel_size}, dilation={dilation}, "
    "padding={padding}, stride={stride}",
)


class Flatten(Module):
    """Merge the dims start_dim..end_dim into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split the dim `dim` into the sizes `unflattened_size`."""

    def __init__(self, dim: Any, unflattened_size: Any):
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError(
                f"expected an int for dim, got {type(dim).__name__}: named dims are not supported"
            )
        sizes = unflattened_size if isinstance(unflattened_size, (tuple, list)) else None
        if sizes is None:
            raise TypeError(
                "unflattened_size must be a tuple of ints, but found type "
                + type(unflattened_size).__name__
            )
        for i, size in enumerate(sizes):
            if not isinstance(size, int):
                raise TypeError(
                    f"unflattened_size must be tuple of ints, but found element of type "
                    f"{type(size).__name__} at pos {i}"
                )
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Upsample(Module):
    """Resample spatial dims of [N, C, *S] to `size` or by `scale_factor`; see
    `functional.interpolate`."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        self.scale_factor = (
            tuple(map(float, scale_factor))
            if isinstance(scale_factor, tuple)
            else float(scale_factor)
            if scale_factor
            else None
        )
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        what = (
            f"size={self.size}"
            if self.scale_factor is None
            else f"scale_factor={self.scale_factor!r}"
        )
        return f"{what}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` of images with mode "nearest"."""

    def __init__(self, size: Any = None, scale_factor: Any = None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of images with mode "bilinear" and aligned corners."""

    def __init__(self, size: Any = None, scale_factor: Any = None):
        super().__init__(size, scale_factor, "bilinear", align_corners=True)
