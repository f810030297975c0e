"""Sampling at coordinates: `affine_grid` makes them, `grid_sample` reads an image there.

Spatial transformer networks (Jaderberg et al. 2015): coordinates are normalised, -1 and 1 are the
image's ends: the middles of its outer pixels with `align_corners`, their outer edges without.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from graphtorch.ir.shape import SymInt

from ..._deferred.tensor import Tensor
from ..._ops.autocast import promoted_on_gpus, single_precision_on_cpus
from ..._ops.base import FUNCTIONS, check_tensor, rounded_once
from ..._ops.orders import row_major
from ..._settings import warn_user
from ...autograd.keeps import keeps_as_one, shown_as
from ._common import where

_CUBIC = -0.75  # the coefficient a of Keys' cubic kernel (1981) that PyTorch uses
PADDINGS = ("zeros", "border", "reflection")


@rounded_once
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Coordinates of an affine map: [N, H, W, 2] for theta [N, 2, 3], [N, D, H, W, 3] for [N, 3,
    4].

    Args:
        theta: a matrix for each image of the batch.
        size: of the output image, (N, C, H, W) or (N, C, D, H, W).

    Raises:
        ValueError: theta is not floating-point or does not fit `size`.
    """
    check_tensor("affine_grid", "theta", theta)
    align_corners = _aligned(align_corners)
    if not theta.dtype.is_floating_point:
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    dims = len(size) - 2
    if dims not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine "
            f"transforms, respectively. Got size {tuple(size)}"
        )
    if tuple(theta.shape[1:]) != (dims, dims + 1) or theta.dim() != 3:
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size "
            f"{tuple(size)}. Got {list(theta.shape)}."
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {tuple(size)}")
    axes = [_ticks(s, align_corners, theta) for s in size[2:]]
    grids = FUNCTIONS["meshgrid"](*axes, indexing="ij")
    points = FUNCTIONS["stack"]([*reversed(grids), FUNCTIONS["ones_like"](grids[0])], -1)
    flat = points.reshape(1, -1, dims + 1).expand(size[0], -1, -1)
    return flat.matmul(theta.transpose(1, 2)).reshape(size[0], *size[2:], dims)


def _ticks(size: Any, align_corners: bool, theta: Tensor) -> Tensor:
    if size <= 1:
        return theta.new_zeros(size)
    ticks = FUNCTIONS["linspace"](-1, 1, size, dtype=theta.dtype, device=theta.device)
    size = _number(size)
    return ticks if align_corners else ticks * ((size - 1) / size)


def _number(size: Any) -> Any:
    """A size for arithmetic: a symbolic one as a tensor of its value."""
    return FUNCTIONS["tensor"](size) if isinstance(size, SymInt) else size


def _aligned(given: bool | None) -> bool:
    if given is None:
        warn_user(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since "
            "1.3.0. Please specify align_corners=True if the old behavior is desired. "
            "See the documentation of grid_sample for "
            "details.",
        )
    return bool(given)


@shown_as("GridSampler2D")
@keeps_as_one("input grid")
@row_major
@promoted_on_gpus
@single_precision_on_cpus
@rounded_once
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """`input` [N, C, *S] at the coordinates `grid` [N, *T, len(S)], whose last dim is (x, y) or (x,
    y, z).

    Args:
        mode: "bilinear" (trilinear in 3-D), "nearest" or, for images, "bicubic".
        padding_mode: what lies outside: "zeros", the "border" pixel, or the image mirrored
            ("reflection").
        align_corners: see the module's text; None warns and means False.

    Returns:
        [N, C, *T].
    """
    check_tensor("grid_sampler", "input", input)
    check_tensor("grid_sampler", "grid", grid, 2)
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or "
            f"'bicubic', but got: '{mode}'"
        )
    if padding_mode not in PADDINGS:
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    aligned = _aligned(align_corners)
    _check(input, grid, mode)
    return _Sampler(input, grid, padding_mode, aligned).sample(mode)


def _check(x: Tensor, grid: Tensor, mode: str) -> None:
    given = (
        f"but got input of {x.dtype} and size {list(x.shape)}, grid of {grid.dtype} and size "
        f"{list(grid.shape)}"
    )
    if x.dim() not in (4, 5) or grid.dim() != x.dim():
        raise RuntimeError(
            "grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, "
            f"{given}"
        )
    if x.dtype is not grid.dtype:
        raise RuntimeError(f"grid_sampler(): expected input and grid to have same dtype, {given}")
    if x.shape[0] != grid.shape[0]:
        raise RuntimeError(
            f"grid_sampler(): expected grid and input to have same batch size, {given}"
        )
    if grid.shape[-1] != x.dim() - 2:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {x.dim() - 2} in last dimension, {given}"
        )
    if 0 in x.shape[2:]:
        raise RuntimeError(
            f"grid_sampler(): expected input to have non-empty spatial dimensions, {given}"
        )
    if mode == "bicubic" and x.dim() == 5:
        raise RuntimeError(f"grid_sampler(): bicubic interpolation only supports 4D input, {given}")


class _Sampler:
    """One call: coordinates in pixels, one [N, *T] tensor for each spatial dim of the image."""

    def __init__(self, image: Tensor, grid: Tensor, padding: str, aligned: bool):
        self.image, self.padding, self.aligned = image, padding, aligned
        self.sizes = tuple(map(_number, image.shape[2:]))
        self.flat = image.reshape(*image.shape[:2], -1)
        self.target = tuple(grid.shape[1:-1])
        parts = grid.unbind(-1)[::-1]  # x comes first in the grid and last in the image
        self.at = [self._pixels(c, s) for c, s in zip(parts, self.sizes, strict=True)]

    def sample(self, mode: str) -> Tensor:
        if mode == "bicubic":
            return self._bicubic()
        at = [self._padded(c, s) for c, s in zip(self.at, self.sizes, strict=True)]
        if mode == "nearest":
            return self._read([c.round() for c in at])
        low = [c.floor() for c in at]
        total: Any = 0
        for corner in itertools.product((0, 1), repeat=len(at)):
            weight: Any = 1
            for c, b, side in zip(at, low, corner, strict=True):
                weight = weight * ((c - b) if side else 1 - (c - b))
            pixels = self._read([b + side for b, side in zip(low, corner, strict=True)])
            total = total + pixels * weight.unsqueeze(1)
        return total

    def _bicubic(self) -> Tensor:
        low = [c.floor() for c in self.at]
        weights = [
            [_keys(c - b - k) for k in (-1, 0, 1, 2)] for c, b in zip(self.at, low, strict=True)
        ]
        total: Any = 0
        for i, j in itertools.product(range(4), repeat=2):
            taps = [
                self._padded(b + k - 1, s) for b, k, s in zip(low, (i, j), self.sizes, strict=True)
            ]
            weight = (weights[0][i] * weights[1][j]).unsqueeze(1)
            total = total + self._read([t.round() for t in taps]) * weight
        return total

    def _pixels(self, c: Tensor, size: Any) -> Tensor:
        """Rounded once, as by an fma: a last digit of a coordinate among hundreds of pixels is seen
        in the result, and the choice of the nearest pixel may hang on it."""
        if self.aligned:
            return (c + 1) * ((size - 1) / 2)
        low = FUNCTIONS["full"]((), -0.5, dtype=c.dtype, device=c.device)
        if isinstance(size, Tensor):
            return FUNCTIONS["addcmul"](low, c + 1, (size / 2).to(c.dtype))
        return FUNCTIONS["add"](low, c + 1, alpha=size / 2)

    def _padded(self, c: Tensor, size: Any) -> Tensor:
        """Coordinates after what `padding_mode` does to those outside; their gradient is 0 at the
        border."""
        if self.padding == "zeros":
            return c
        if self.padding == "reflection":
            c = (
                _reflected(c, 0, 2 * (size - 1))
                if self.aligned
                else _reflected(c, -1, 2 * size - 1)
            )
        low = where(c > 0, c, 0.0)
        high = (size - 1).to(low.dtype) if isinstance(size, Tensor) else float(size - 1)
        return where(low < size - 1, low, high)

    def _read(self, index: Sequence[Tensor]) -> Tensor:
        """The pixels [N, C, *T] at whole coordinates, 0 outside."""
        inside: Any = None
        place: Any = 0
        for i, size in zip(index, self.sizes, strict=True):
            here = (i >= 0) & (i <= size - 1)
            inside = here if inside is None else inside & here
            place = place * size + i.detach().clamp(0, size - 1).to(
                FUNCTIONS["zeros"]((), dtype=int).dtype
            )
        n, channels = self.image.shape[:2]
        spread = place.reshape(n, 1, -1).expand(n, channels, -1)
        found = self.flat.gather(2, spread).reshape(n, channels, *self.target)
        return where(inside.unsqueeze(1), found, 0.0)


def _reflected(c: Tensor, low: int, high: Any) -> Tensor:
    """Coordinates mirrored into low/2 .. high/2 as often as it takes."""
    if not isinstance(high, Tensor) and low == high:
        return c * 0
    start, span = low / 2, (high - low) / 2
    distance = (c - start).abs()
    flips = (distance.detach() / span).floor()
    rest = distance - flips * span
    return where(flips % 2 == 0, rest + start, span - rest + start)


def _keys(d: Tensor) -> Tensor:
    """Keys' cubic convolution kernel."""
    a, d = _CUBIC, d.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return where(d <= 1, near, far)


__all__ = ["affine_grid", "grid_sample"]
