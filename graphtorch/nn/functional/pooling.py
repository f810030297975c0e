"""Pooling over windows, in one to three spatial dims; inputs are [N, C, *S] or unbatched [C,
*S]."""

from __future__ import annotations

import math
from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.autocast import single_precision_on_cpus
from ..._ops.base import check_places
from ..._ops.orders import format_kept
from ..._types import DTYPES
from ...autograd.keeps import keeps, shown_as
from ._common import batched, call, floating, tuple_of

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]


@keeps("MaxPoolWithIndices", (0, ~1))
def _max_pool(
    n: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    name = f"max_pool{n}d"
    kernel, steps, pads = _window(name, n, x, kernel_size, stride, padding)
    spread = tuple_of(dilation, n, "dilation")
    for k, p, d in zip(kernel, pads, spread, strict=True):
        if 2 * p > d * (k - 1) + 1:
            raise RuntimeError(
                "pad should be at most half of effective kernel size, but got "
                f"pad={p}, kernel_size={k} and dilation={d}"
            )
    x, unbatch = batched(x, n)
    values, indices = call(
        "max_pool",
        x,
        kernel=kernel,
        stride=steps,
        padding=pads,
        dilation=spread,
        ceil_mode=bool(ceil_mode),
    )
    return (unbatch(values), unbatch(indices)) if return_indices else unbatch(values)


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window; with `return_indices` also its position. `stride` None is the
    kernel size.
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@shown_as("MaxPool2DWithIndices")
@format_kept
def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window; indices count flat in H x W."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@shown_as("MaxPool3DWithIndices")
@format_kept
def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window; indices count flat in D x H x W."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(*args: Any, **kwargs: Any) -> Any:
    """`max_pool1d` with ``return_indices=True``."""
    return max_pool1d(*args, **{**kwargs, "return_indices": True})


def max_pool2d_with_indices(*args: Any, **kwargs: Any) -> Any:
    """`max_pool2d` with ``return_indices=True``."""
    return max_pool2d(*args, **{**kwargs, "return_indices": True})


def max_pool3d_with_indices(*args: Any, **kwargs: Any) -> Any:
    """`max_pool3d` with ``return_indices=True``."""
    return max_pool3d(*args, **{**kwargs, "return_indices": True})


@keeps("AvgPool", (0,))
def _avg_pool(
    n: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    name = f"avg_pool{n}d"
    kernel, steps, pads = _window(name, n, x, kernel_size, stride, padding)
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    for k, p in zip(kernel, pads, strict=True):
        if 2 * p > k:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, "
                f"kernel_size={k}"
            )
    if x.dtype is DTYPES["int64"]:  # integer division of sums: exact below 2**53
        means = _avg_pool(
            n,
            x.to(DTYPES["float64"]),
            kernel_size,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
            divisor,
        )
        return means.to(x.dtype)
    x, unbatch = batched(floating(x, "avg_pool"), n)
    return unbatch(
        call(
            "avg_pool",
            x,
            kernel=kernel,
            stride=steps,
            padding=pads,
            ceil_mode=bool(ceil_mode),
            count_include_pad=bool(count_include_pad),
            divisor=divisor,
        )
    )


def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window; `count_include_pad` False leaves the padding out of the count."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@shown_as("AvgPool2D")
@format_kept
def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window; `divisor_override` replaces the count."""
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@shown_as("AvgPool3D")
@format_kept
@single_precision_on_cpus
def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window; `divisor_override` replaces the count."""
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@keeps("AdaptiveMaxPool", (0, ~1))
@keeps("AdaptiveAvgPool", (0,))
def _adaptive(n: int, kind: str, x: Tensor, output_size: Any) -> tuple[Any, Any]:
    name = f"adaptive_{kind}_pool{n}d"
    _check_rank(name, n, x)
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(sizes) != n:
        raise RuntimeError(f"{name}: output_size must be {n} numbers, got {output_size}")
    target = tuple(x.shape[i - n] if s is None else s for i, s in enumerate(sizes))
    if any(isinstance(s, int) and s < 0 for s in target):
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0, got {target}"
        )
    x, unbatch = batched(floating(x, name), n)
    return call(f"adaptive_{kind}_pool", x, output_size=target), unbatch


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows chosen so that the output has `output_size` positions."""
    out, unbatch = _adaptive(1, "avg", input, output_size)
    return unbatch(out)


@shown_as("AdaptiveAvgPool2D")
@format_kept
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows chosen so that the output has size `output_size`; None keeps a dim."""
    out, unbatch = _adaptive(2, "avg", input, output_size)
    return unbatch(out)


@shown_as("AdaptiveAvgPool3D")
@format_kept
@single_precision_on_cpus
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows chosen so that the output has size `output_size`; None keeps a dim."""
    out, unbatch = _adaptive(3, "avg", input, output_size)
    return unbatch(out)


def _adaptive_max(n: int, x: Tensor, output_size: Any, return_indices: bool) -> Any:
    (values, indices), unbatch = _adaptive(n, "max", x, output_size)
    return (unbatch(values), unbatch(indices)) if return_indices else unbatch(values)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows chosen so that the output has `output_size` positions."""
    return _adaptive_max(1, input, output_size, return_indices)


@shown_as("AdaptiveMaxPool2D")
@format_kept
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows chosen so that the output has size `output_size`; None keeps a dim."""
    return _adaptive_max(2, input, output_size, return_indices)


@format_kept
@single_precision_on_cpus
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows chosen so that the output has size `output_size`; None keeps a dim."""
    return _adaptive_max(3, input, output_size, return_indices)


def _lp_pool(
    n: int, x: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Tensor:
    kernel = tuple_of(kernel_size, n, "kernel_size")
    mean = _avg_pool(n, x.pow(norm_type), kernel, stride, 0, ceil_mode, True, None)
    return (mean.sign() * mean.abs().relu() * math.prod(kernel)).pow(1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x^p)^(1/p) of each window, p = `norm_type`."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x^p)^(1/p) of each window, p = `norm_type`."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x^p)^(1/p) of each window, p = `norm_type`."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_unpool(
    n: int,
    x: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
) -> Tensor:
    _check_rank(f"max_unpool{n}d", n, x)
    if tuple(x.shape) != tuple(indices.shape):
        raise RuntimeError(
            "Expected shape of indices to be same as that of the input tensor "
            f"({list(x.shape)}) but got indices tensor with shape: "
            f"{list(indices.shape)}"
        )
    kernel, steps, pads = _window(f"max_unpool{n}d", n, x, kernel_size, stride, padding)
    default = tuple(
        (s - 1) * t + k - 2 * p
        for s, t, k, p in zip(x.shape[-n:], steps, kernel, pads, strict=True)
    )
    sizes = default if output_size is None else tuple(output_size)[-n:]
    for size, usual, step in zip(sizes, default, steps, strict=True):
        if not usual - step < size < usual + step:
            raise ValueError(
                f"invalid output_size {list(sizes)} (each dim must be within the stride {steps} "
                f"of {list(default)})"
            )
    lead = tuple(x.shape[:-n])
    flat = x.new_zeros((*lead, math.prod(sizes)))
    check_places(
        indices,
        math.prod(sizes),
        f"Found an invalid max index: {{}} (output volumes are of size "
        f"{'x'.join(map(str, sizes))})",
        "runtime",
    )
    filled = flat.scatter(-1, indices.reshape((*lead, -1)), x.reshape((*lead, -1)))
    return filled.reshape((*lead, *sizes))


@single_precision_on_cpus
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Put each value back where `max_pool1d` found it; zero elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


@format_kept
@single_precision_on_cpus
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Put each value back where `max_pool2d` found it; zero elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


@format_kept
@single_precision_on_cpus
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Put each value back where `max_pool3d` found it; zero elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _window(
    name: str, n: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    _check_rank(name, n, x)
    kernel = tuple_of(kernel_size, n, "kernel_size")
    steps = (
        kernel if stride is None or stride == [] or stride == () else tuple_of(stride, n, "stride")
    )
    pads = tuple_of(padding, n, "padding")
    if any(k < 1 for k in kernel):
        raise RuntimeError(f"kernel size should be greater than zero, but got {kernel}")
    if any(s < 1 for s in steps):
        raise RuntimeError(f"stride should be greater than zero, but got {steps}")
    if any(p < 0 for p in pads):
        raise RuntimeError(f"pad must be non-negative, but got pad: {pads}")
    return kernel, steps, pads


def _check_rank(name: str, n: int, x: Tensor) -> None:
    if x.dim() not in (n + 1, n + 2):
        raise RuntimeError(
            f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {list(x.shape)}"
        )
