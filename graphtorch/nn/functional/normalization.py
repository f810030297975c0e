"""Normalisation over batches, layers, groups and instances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.autocast import single_precision_on_gpus
from ..._ops.base import rounded_once
from ..._ops.orders import format_kept
from ...autograd import no_grad
from ...autograd.keeps import keeps
from ._common import call, floating
from .pooling import avg_pool2d, avg_pool3d


@format_kept
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (dim 1) of [N, C, *]: (x - mean) / sqrt(var + eps) * weight + bias.

    In training the statistics are the batch's, and the running ones, where given, move towards them
    in place by `momentum` (the variance unbiased); otherwise the running ones are used.
    Raises ValueError for a single value per channel, or an `eps` that is not positive, in training.
    """
    if not isinstance(training, bool):
        bool(training)  # which arrays refuse
        raise TypeError(
            "batch_norm(): argument 'training' (position 6) must be bool, not "
            f"{type(training).__name__}"
        )
    if eps < 0 or (training and eps == 0):
        rule = "positive during training" if training else "non-negative"
        raise ValueError(f"batch_norm eps must be {rule}, but got {eps}")
    x = floating(input, "batch_norm")
    if x.dim() == 1 and x.numel() == 0:  # nothing to normalise: PyTorch looks no further
        return x.clone()
    _check_channels(x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    scale = _affine(weight, bias)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                "Expected running_mean and running_var to be defined when training=False"
            )
        return call(
            "batch_norm",
            x,
            _like(running_mean, x),
            _like(running_var, x),
            *_all_like(scale, x),
            eps=float(eps),
        )
    count = _values_per_channel(x)
    out, mean, var = call("batch_norm_train", x, *_all_like(scale, x), eps=float(eps))
    if not isinstance(count, int) or count:  # no values leave the running statistics as they are
        _update_running(running_mean, running_var, mean, var, count, momentum)
    return out


def _update_running(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: Any,
    momentum: float,
) -> None:
    with no_grad():
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean.detach().to(running_mean.dtype) * momentum)
        if running_var is not None:
            unbiased = var.detach().to(running_var.dtype) * count / (count - 1)
            running_var.mul_(1 - momentum).add_(unbiased * momentum)


def _values_per_channel(x: Tensor) -> Any:
    count: Any = x.shape[0]
    for size in x.shape[2:]:
        count = count * size
    if isinstance(count, int) and count == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {x.shape}"
        )
    return count


@rounded_once
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample of [N, C, *] by its own statistics (or the running
    ones).

    Raises ValueError for a single spatial element where the input's statistics are wanted.
    """
    x = floating(input, "instance_norm")
    _check_channels(x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    count: Any = math.prod(x.shape[2:])
    if isinstance(count, int) and count == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {x.shape}"
        )
    n, c = x.shape[:2]
    flat, mean, var = call("batch_norm_train", x.reshape((1, n * c, *x.shape[2:])), eps=float(eps))
    if running_mean is not None or running_var is not None:
        _update_running(
            running_mean,
            running_var,
            mean.reshape(n, c).mean(0),
            var.reshape(n, c).mean(0),
            count,
            momentum,
        )
    out = flat.reshape(x.shape)
    spread = (1, c, *[1] * (x.dim() - 2))
    # a copy: as in PyTorch, which repeats it, the weight may be written to before the backward pass
    out = out if weight is None else out * weight.clone().reshape(spread)
    return out if bias is None else out + bias.reshape(spread)


@keeps("NativeLayerNorm", (0, 1, 2))
@single_precision_on_gpus
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the trailing dims `normalized_shape`; weight and bias have that shape."""
    x, shape = _normalized(input, normalized_shape, "layer_norm", weight=weight, bias=bias)
    return call(
        "layer_norm", x, *_all_like(_affine(weight, bias), x), axes=len(shape), eps=float(eps)
    )


@single_precision_on_gpus
def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the trailing dims; `eps` None: 2^-23, 2^-52 of
    doubles."""
    x, shape = _normalized(input, normalized_shape, "rms_norm", weight=weight)
    if eps is None:
        eps = 2.0**-52 if x.dtype.itemsize == (16 if x.dtype.is_complex else 8) else 2.0**-23
    if x.dtype.is_complex:
        axes = tuple(range(x.dim() - len(shape), x.dim()))
        out = x * (x.square().mean(axes, True) + eps).rsqrt()
        return out if weight is None else out * weight
    return call(
        "rms_norm", x, *_all_like(_affine(weight, None), x), axes=len(shape), eps=float(eps)
    )


@single_precision_on_gpus
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over each of `num_groups` groups of channels of [N, C, *]."""
    x = floating(input, "group_norm")
    if x.dim() < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {x.dim()}"
        )
    if num_groups < 1 or x.shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got "
            f"input of shape {list(x.shape)} and num_groups={num_groups}"
        )
    values = math.prod(x.shape[2:]) * (x.shape[1] // num_groups)
    if isinstance(values, int) and isinstance(x.shape[0], int) and x.shape[0] * values == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {list(x.shape)}"
        )
    _check_channels(x, weight=weight, bias=bias)
    scale = _affine(weight, bias)
    if len(scale) == 1:
        scale = (scale[0], scale[0].detach() * 0)
    return call("group_norm", x, *_all_like(scale, x), groups=num_groups, eps=float(eps))


@rounded_once
def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta."""
    if input.dim() < 3:
        raise ValueError(
            f"Expected 3D or higher dimensionality input (got {input.dim()} dimensions)"
        )
    if input.numel() == 0:
        return input
    squared = (input * input).unsqueeze(1)
    low, high = size // 2, (size - 1) // 2
    if input.dim() == 3:
        mean = avg_pool2d(_pad_channels(squared, low, high), (size, 1), stride=1).squeeze(1)
    else:
        n, c, h = input.shape[:3]
        cube = _pad_channels(squared.reshape(n, 1, c, h, -1), low, high)
        mean = avg_pool3d(cube, (size, 1, 1), stride=1).squeeze(1).reshape(input.shape)
    return input / (mean * alpha + k).pow(beta)


def _pad_channels(x: Tensor, low: int, high: int) -> Tensor:
    rest = (0,) * (x.dim() - 3)
    return call("pad", x, low=(0, 0, low, *rest), high=(0, 0, high, *rest), value=0.0)


def _normalized(
    x: Tensor, shape: Sequence[int], name: str, **params: Tensor | None
) -> tuple[Tensor, tuple[int, ...]]:
    shape = tuple(shape)
    if not shape:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at "
            f"least one element, but got normalized_shape = {list(shape)}"
        )
    for which, param in params.items():
        if param is not None and tuple(param.shape) != shape:
            raise RuntimeError(
                f"Expected {which} to be of same shape as normalized_shape, but got {which} "
                f"of shape {list(param.shape)} and normalized_shape = {list(shape)}"
            )
    if tuple(x.shape[max(x.dim() - len(shape), 0) :]) != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of "
            f"size{list(x.shape)}"
        )
    return floating(x, name), shape


def _check_channels(x: Tensor, **params: Tensor | None) -> None:
    if x.dim() < 2:
        raise RuntimeError(
            f"expected at least 2 dimensions [N, C, *], got an input of shape {list(x.shape)}"
        )
    for name, param in params.items():
        if param is not None and param.numel() != x.shape[1]:
            raise RuntimeError(f"{name} should contain {x.shape[1]} elements not {param.numel()}")


def _affine(weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    """The optional operands (w?, b?): a bias alone comes with a weight of ones."""
    if bias is None:
        return () if weight is None else (weight,)
    return (bias.detach() * 0 + 1 if weight is None else weight, bias)


def _all_like(params: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
    return tuple(_like(p, x) for p in params)


def _like(param: Tensor, x: Tensor) -> Tensor:
    return param if param.dtype == x.dtype else param.to(x.dtype)
