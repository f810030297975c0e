"""Resampling and rearranging of images: interpolate, pixel and channel shuffles, unfold and
fold."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i64, u8

from ..._deferred.making import from_value
from ..._deferred.tensor import Tensor
from ..._deferred.write import cast_tensor
from ..._ops.autocast import single_precision_on_gpus
from ..._ops.base import rounded_once, size_of, size_value
from ..._ops.creation import from_array
from ..._ops.orders import format_kept, row_major
from ..._settings import warn_user
from ..._types import device
from ...autograd.keeps import shown_as
from ._common import batched, cat, tuple_of, where
from .padding import pad
from .pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

_RANKS = {
    "nearest": (3, 4, 5),
    "nearest-exact": (3, 4, 5),
    "area": (3, 4, 5),
    "linear": (3,),
    "bilinear": (4,),
    "bicubic": (4,),
    "trilinear": (5,),
}
MANY = 16  # more pixels than these are summed by a product of matrices
_CUBIC = -0.75  # the coefficient a of the cubic convolution kernel that PyTorch uses


@single_precision_on_gpus
@format_kept
@rounded_once
def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resample the spatial dims of [N, C, *S] to `size` or by `scale_factor`.

    Modes: "nearest", "nearest-exact", "area", "linear" (3-D input), "bilinear" and "bicubic" (4-D),
    "trilinear" (5-D). With `antialias` ("bilinear", "bicubic") each output is a mean over all of
    its pixel, as Pillow's are. uint8 is resampled with integer weights, as PyTorch does. Raises
    ValueError for contradicting arguments, NotImplementedError for a mode that does not fit the
    input's rank.
    """
    if not isinstance(mode, str) or mode not in _RANKS or input.dim() not in _RANKS[mode]:
        raise NotImplementedError(
            "Input Error: Only 3D, 4D and 5D input Tensors supported (got "
            f"{input.dim()}D) for the modes: nearest | linear | bilinear | "
            f"bicubic | trilinear | area | nearest-exact (got {mode})"
        )
    smooth = mode in ("linear", "bilinear", "bicubic", "trilinear")
    if not smooth and align_corners is not None:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | "
            "bilinear | bicubic | trilinear"
        )
    if antialias and (mode not in ("bilinear", "bicubic") or input.dim() != 4):
        raise ValueError(
            "Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D "
            "tensor as "
            "input"
        )
    sizes, scales = _target(input, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[len(sizes) - 1](
            input, sizes
        )
    if any(isinstance(s, int) and s <= 0 for s in (*input.shape[2:], *sizes)):
        raise RuntimeError(
            "Input and output sizes should be greater than 0, but got input of size "
            f"{list(input.shape[2:])} and output of size {list(sizes)}"
        )
    if antialias or (smooth and input._type.dtype is u8):
        return _filtered(input, sizes, scales, mode, bool(align_corners), antialias)
    real = _arithmetic(input)
    for dim, out, scale in reversed([*zip(range(2, input.dim()), sizes, scales, strict=True)]):
        known = isinstance(input.shape[dim], int) and isinstance(out, int)
        taps_of = _taps if known else functools.partial(_symbolic_taps, input.device)
        input = _resample(
            input, dim, taps_of(mode, input.shape[dim], out, scale, bool(align_corners), real)
        )
    return input


def _arithmetic(x: Tensor) -> DType:
    """The dtype of positions and weights: of integer weights, and of an f64 image, f64; else
    f32."""
    return f64 if x._type.dtype in (u8, f64) else f32


def _target(
    x: Tensor, size: Any, factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], list[float | None]]:
    """Output sizes, and for each dim the user's scale factor (None: the ratio of the sizes)."""
    spatial = tuple(x.shape[2:])
    if (size is None) == (factor is None):
        raise ValueError(
            "either size or scale_factor should be defined"
            if size is None
            else "only one of size or scale_factor should be defined"
        )
    for given in (size, factor):
        if isinstance(given, (tuple, list)) and len(given) != len(spatial):
            raise ValueError(
                "Input and output must have the same number of spatial dimensions, but got "
                f"input with spatial dimensions of {list(spatial)} and {list(given)}."
            )
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,) * len(spatial)
        return tuple(size_of(s) for s in sizes), [None] * len(spatial)
    factors = [
        float(f)
        for f in (factor if isinstance(factor, (tuple, list)) else (factor,) * len(spatial))
    ]
    sizes = tuple(_scaled(s, f) for s, f in zip(spatial, factors, strict=True))
    return sizes, [None] * len(spatial) if recompute else list(factors)


def _scaled(size: Any, factor: float) -> Any:
    if isinstance(size, int):
        return math.floor(size * factor)
    over = next(
        (d for d in range(1, 1 << 12) if abs(factor * d - round(factor * d)) < 1e-9 * d), None
    )
    if over is None:
        raise NotImplementedError(
            f"scale_factor={factor} is no simple fraction, and the size {size} "
            "may change: give size="
        )
    return size * round(factor * over) // over


def _symbolic_taps(
    on: device,
    mode: str,
    size: Any,
    out: Any,
    factor: float | None,
    align_corners: bool,
    real: DType,
) -> list[tuple[Tensor, Tensor | None]]:
    """`_taps` where a size may change: the same numbers, computed in the graph."""
    position: Any = from_value(ops.iota(shape=(out,), dim=0, dtype=i64), on)
    last: Any = from_value(size_value(size - 1, i64), on)
    if mode == "nearest" and factor is not None and factor == int(factor):
        return [((position // int(factor)).minimum(last), None)]
    real = f32 if mode.startswith("nearest") else real
    length, place = from_value(size_value(size, real), on), cast_tensor(position, real)
    scale = (
        float(real.numpy.type(1 / factor))
        if factor is not None
        else length / from_value(size_value(out, real), on)
    )
    if mode.startswith("nearest"):
        shift = 0.5 if mode == "nearest-exact" else 0.0
        return [(((place + shift) * scale).floor().long().minimum(last), None)]
    if align_corners:
        steps = from_value(size_value(out - 1, real), on).clamp(min=1.0)
        source = place * ((length - 1) / steps)
    else:
        wide = scale.double() if isinstance(scale, Tensor) else scale
        source = cast_tensor((place + 0.5).double() * wide - 0.5, real)
        source = source if mode == "bicubic" else source.clamp(min=0.0)
    floor = source.floor()
    t, low = source - floor, floor.long()
    if mode == "bicubic":
        return [((low + k).clamp(min=0).minimum(last), _cubic(t, k)) for k in (-1, 0, 1, 2)]
    low = low.minimum(last)
    return [(low, 1 - t), ((low + 1).minimum(last), t)]


def _taps(
    mode: str, size: int, out: int, factor: float | None, align_corners: bool, real: DType
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """For one dim: pairs (source index, weight) whose weighted sum is the output; weight None is 1.

    Positions are computed in `real`, PyTorch's for the dtype of the image ("nearest": always f32):
    which pixel is the nearest one of two depends on it.
    """
    one = np.float32 if mode.startswith("nearest") else real.numpy.type
    position = np.arange(out).astype(one)
    scale = _scale(size, out, factor, align_corners, one)
    if mode.startswith("nearest"):
        shift = one(0.5 if mode == "nearest-exact" else 0)
        return [(np.minimum(np.floor((position + shift) * scale).astype(np.int64), size - 1), None)]
    if align_corners:
        source = position * scale
    else:
        # rounded once, as by an fma
        source = ((position + 0.5) * np.float64(scale) - 0.5).astype(one)
        source = source if mode == "bicubic" else np.maximum(source, 0)
    floor = np.floor(source)
    t = source - floor
    low = floor.astype(np.int64)
    if mode == "bicubic":
        return [(np.clip(low + k, 0, size - 1), _cubic(t, k)) for k in (-1, 0, 1, 2)]
    low = np.minimum(low, size - 1)
    return [(low, 1 - t), (np.minimum(low + 1, size - 1), t)]


def _scale(size: int, out: int, factor: float | None, align_corners: bool, one: Any) -> Any:
    """How many pixels of the input one of the output stands for, in the type `one`."""
    if align_corners:
        return one(size - 1) / one(out - 1) if out > 1 else one(0)
    return one(size) / one(out) if factor is None else one(1 / factor)


def _cubic(t: Any, k: int) -> Any:
    """Weight of the neighbour at offset `k` (Keys 1981) for the fractional position t."""
    return _keys(abs(t - k), _CUBIC)


def _keys(d: Any, a: float) -> Any:
    """Keys' kernel with the coefficient `a` at a distance `d` of at most 2 (0 at 2 and beyond)."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    if isinstance(d, Tensor):
        return where(d <= 1, near, far)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _resample(x: Tensor, dim: int, taps: list[tuple[Any, Any]]) -> Tensor:
    spread = (-1, *[1] * (x.dim() - dim - 1))
    total = None
    for index, weight in taps:
        term = x.index_select(dim, _tensor(index, x))
        factor = None if weight is None else _tensor(weight, x).to(x).reshape(spread)
        if factor is None or total is None:
            total = term if factor is None else term * factor
        else:
            total = total.addcmul(term, factor)
    assert total is not None
    return total


def _filtered(
    x: Tensor, sizes: Any, scales: Any, mode: str, align_corners: bool, antialias: bool
) -> Tensor:
    """Resample by a matrix of weights a dim, the last one first."""
    if not all(isinstance(s, int) for s in (*x.shape[2:], *sizes)):
        raise NotImplementedError(
            "interpolate: antialias=True, and images of uint8, need sizes that do "
            "not change, "
            f"got {list(x.shape[2:])} to {list(sizes)}"
        )
    whole = x._type.dtype is u8
    for i in reversed(range(len(sizes))):
        size, out = x.shape[i + 2], sizes[i]
        if whole and size == out:
            continue
        weights = (_area if antialias else _dense)(
            mode, size, out, scales[i], align_corners, _arithmetic(x)
        )
        taps = [] if whole else _as_taps(weights)
        if whole:
            x = _by_integers(x, i + 2, weights)
        elif len(taps) <= MANY:
            x = _resample(x, i + 2, taps)
        else:
            x = _by_matrix(x, i + 2, weights)
    return x


def _as_taps(weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The entries of a matrix [out, size] that count, as `_taps` has them."""
    used = weights != 0
    low, last = used.argmax(1), used.shape[1] - 1 - used[:, ::-1].argmax(1)
    row = np.arange(len(weights))
    places = [(low + j, np.minimum(low + j, last)) for j in range(int((last - low).max()) + 1)]
    return [(kept, np.where(at == kept, weights[row, kept], 0)) for at, kept in places]


def _by_matrix(x: Tensor, dim: int, weights: np.ndarray) -> Tensor:
    moved = x.transpose(dim, -1)
    return (moved @ from_array(weights.T.copy(), place=x.device).to(x)).transpose(dim, -1)


def _by_integers(x: Tensor, dim: int, weights: np.ndarray) -> Tensor:
    """uint8 by weights of 15 bits and a shift; products and sums of such integers are exact in
    f32."""
    bits = 0
    while bits < 22 and 0.5 + weights.max() * (1 << (bits + 1)) < 1 << 15:
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights))
    total = _by_matrix(cast_tensor(x, f32), dim, whole)
    return cast_tensor(((total + (1 << (bits - 1))) * 2.0**-bits).floor().clamp(0, 255), u8)


def _dense(
    mode: str, size: int, out: int, factor: float | None, align_corners: bool, real: DType
) -> np.ndarray:
    """`_taps` as a matrix [out, size]."""
    weights = np.zeros((out, size), real.numpy)
    for index, weight in _taps(mode, size, out, factor, align_corners, real):
        np.add.at(weights, (np.arange(out), index), 1.0 if weight is None else weight)
    return weights


def _area(
    mode: str, size: int, out: int, factor: float | None, align_corners: bool, real: DType
) -> np.ndarray:
    """Weights [out, size] of the triangle or the cubic kernel, as wide as an output pixel is in the
    input."""
    one = real.numpy.type
    scale = _scale(size, out, factor, align_corners, one)
    wide = max(scale, one(1))
    support = (2 if mode == "bicubic" else 1) * wide
    middle = (scale * (np.arange(out).astype(one) + one(0.5)))[:, None]
    low = np.maximum(np.trunc(middle - support + one(0.5)), 0)
    high = np.minimum(np.trunc(middle + support + one(0.5)), size)
    pixel = np.arange(size).astype(one)[None]
    distance = np.abs((pixel - middle + one(0.5)) * (1 / wide))
    weights = _keys(distance, -0.5) if mode == "bicubic" else np.maximum(1 - distance, 0)
    weights = np.where((pixel >= low) & (pixel < high), weights, 0)
    return weights / np.cumsum(weights, 1)[:, -1:]  # one after the other, in `real`


def _tensor(numbers: Any, x: Tensor) -> Tensor:
    return numbers if isinstance(numbers, Tensor) else from_array(numbers, place=x.device)


def upsample(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Older name of `interpolate`."""
    warn_user("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest"."""
    warn_user(
        "`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead."
    )
    return interpolate(input, size, scale_factor)


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and aligned corners."""
    warn_user(
        "`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead."
    )
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


@shown_as("PixelShuffle")
@row_major
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[*, C r^2, H, W] -> [*, C, H r, W r]."""
    r = upscale_factor
    _at_least_3d("pixel_shuffle", input)
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    *lead, c, h, w = input.shape
    if c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the "
            f"square of upscale_factor, but input.size(-3)={c} is not divisible by "
            f"{r * r}"
        )
    n = len(lead)
    grid = input.reshape((*lead, c // (r * r), r, r, h, w))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return grid.permute(order).reshape((*lead, c // (r * r), h * r, w * r))


@row_major
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[*, C, H r, W r] -> [*, C r^2, H, W]."""
    r = downscale_factor
    _at_least_3d("pixel_unshuffle", input)
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *lead, c, h, w = input.shape
    if h % r or w % r:
        raise RuntimeError(
            "pixel_unshuffle expects height and width to be divisible by downscale_factor, "
            f"but got {h} x {w} and {r}"
        )
    n = len(lead)
    grid = input.reshape((*lead, c, h // r, r, w // r, r))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return grid.permute(order).reshape((*lead, c * r * r, h // r, w // r))


def _at_least_3d(name: str, x: Tensor) -> None:
    if x.dim() < 3:
        raise RuntimeError(
            f"{name} expects input to have at least 3 dimensions, but got input with "
            f"{x.dim()} dimension(s)"
        )


@format_kept
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Interleave the `groups` groups of channels (dim 1)."""
    if input.dim() < 3:
        raise RuntimeError(
            "channel_shuffle expects input with > 2 dims, but got input with sizes "
            f"{list(input.shape)}"
        )
    if groups < 1 or input.shape[1] % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {input.shape[1]} channels "
            f"and {groups} groups."
        )
    n, c, *rest = input.shape
    return input.reshape((n, groups, c // groups, *rest)).transpose(1, 2).reshape(input.shape)


@shown_as("Im2Col")
def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Sliding windows as columns: [N, C, H, W] -> [N, C kh kw, L]."""
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Expected 3D or 4D (batch mode) tensor for input, but got {list(input.shape)}"
        )
    x, unbatch = batched(input, 2)
    kernel, spread, pads, steps = _pairs(kernel_size, dilation, padding, stride)
    x = pad(x, (pads[1], pads[1], pads[0], pads[0])) if any(pads) else x
    counts = _window_counts(tuple(x.shape[2:]), (0, 0), kernel, spread, steps)
    n, c = x.shape[:2]
    windows = counts[0] * counts[1]
    patches = [
        _shifted(x, i, j, counts, spread, steps).reshape(n, c, 1, windows)
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return unbatch(cat(patches, 2).reshape(n, c * kernel[0] * kernel[1], windows))


@shown_as("Col2Im")
def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Sum columns [N, C kh kw, L] back into images [N, C, H, W]; the adjoint of `unfold`."""
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"Expected 2D or 3D (batch mode) tensor for input, but got {list(input.shape)}"
        )
    kernel, spread, pads, steps = _pairs(kernel_size, dilation, padding, stride)
    height, width = tuple_of(output_size, 2, "output_size")
    x = input.unsqueeze(0) if input.dim() == 2 else input
    area = kernel[0] * kernel[1]
    if x.shape[1] % area:
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of "
            f"kernel_size, but got input.size(1)={x.shape[1]} and "
            f"kernel_size={kernel}."
        )
    counts = _window_counts((height, width), pads, kernel, spread, steps)
    if x.shape[2] != counts[0] * counts[1]:
        raise RuntimeError(
            f"Given output_size={(height, width)}, kernel_size={kernel}, dilation={spread}, "
            f"padding={pads}, stride={steps}, expected size of input's dimension 2 "
            f"to match the calculated number of sliding blocks {counts[0]} * "
            f"{counts[1]} = {counts[0] * counts[1]}, but got "
            f"input.size(2)={x.shape[2]}."
        )
    n, c = x.shape[0], x.shape[1] // area
    columns = x.reshape(n, c, area, *counts)
    image = x.new_zeros((n, c, height + 2 * pads[0], width + 2 * pads[1]))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            _shifted(image, i, j, counts, spread, steps).add_(columns[:, :, i * kernel[1] + j])
    image = image[:, :, pads[0] : pads[0] + height, pads[1] : pads[1] + width]
    return image.squeeze(0) if input.dim() == 2 else image


def _pairs(*given: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple_of(g, 2, w)
        for g, w in zip(given, ("kernel_size", "dilation", "padding", "stride"), strict=True)
    )


def _window_counts(
    size: Sequence[int],
    pads: Sequence[int],
    kernel: Sequence[int],
    spread: Sequence[int],
    steps: Sequence[int],
) -> tuple[int, int]:
    counts = tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, k, d, t in zip(size, pads, kernel, spread, steps, strict=True)
    )
    if any(count < 1 for count in counts):
        raise RuntimeError(
            f"Given input with spatial size {tuple(size)}, kernel_size={tuple(kernel)}, "
            f"dilation={tuple(spread)}, padding={tuple(pads)}, calculated shape of "
            f"the array of sliding blocks as {counts}, but its components must be "
            "at least one."
        )
    return counts[0], counts[1]


def _shifted(
    x: Tensor, i: int, j: int, counts: tuple[int, int], spread: Sequence[int], steps: Sequence[int]
) -> Tensor:
    """The element (i, j) of every window, a strided view [N, C, rows, columns]."""
    top, left = i * spread[0], j * spread[1]
    return x[
        :,
        :,
        top : top + (counts[0] - 1) * steps[0] + 1 : steps[0],
        left : left + (counts[1] - 1) * steps[1] + 1 : steps[1],
    ]
