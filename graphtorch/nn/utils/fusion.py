"""Batch normalisation folded into the layer before it, for inference
(``torch.nn.utils.fusion``)."""

from __future__ import annotations

import copy
import functools
from typing import Any

from ..._ops.base import FUNCTIONS
from ..parameter import Parameter


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of the convolution that does what it and the normalisation after it do; both in eval
    mode."""
    return _fused(conv, bn, functools.partial(fuse_conv_bn_weights, transpose=transpose))


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """As `fuse_conv_bn_eval`, of a linear layer."""
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1"
        )
    return _fused(linear, bn, fuse_linear_bn_weights)


def _fused(layer: Any, bn: Any, fuse: Any) -> Any:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    made = copy.deepcopy(layer)
    statistics = bn.running_mean, bn.running_var, bn.eps
    made.weight, made.bias = fuse(layer.weight, layer.bias, *statistics, bn.weight, bn.bias)
    return made


def fuse_conv_bn_weights(
    conv_w: Any,
    conv_b: Any,
    bn_rm: Any,
    bn_rv: Any,
    bn_eps: float,
    bn_w: Any,
    bn_b: Any,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the fused convolution; a transposed one has its output channels in dim
    1."""
    shape = [1] * conv_w.dim()
    shape[1 if transpose else 0] = -1
    return _folded(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, tuple(shape))


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the fused linear layer."""
    return _folded(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, (-1, 1))


def _folded(
    w: Any, b: Any, mean: Any, var: Any, eps: float, scale: Any, shift: Any, shape: tuple[int, ...]
) -> tuple[Parameter, Parameter]:
    b = FUNCTIONS["zeros_like"](mean) if b is None else b
    scale = FUNCTIONS["ones_like"](mean) if scale is None else scale
    shift = FUNCTIONS["zeros_like"](mean) if shift is None else shift
    factor = scale * FUNCTIONS["rsqrt"](var + eps)
    weight = (w * factor.reshape(shape)).to(w.dtype)
    bias = ((b - mean) * factor + shift).to(b.dtype)
    return (Parameter(weight.detach(), w.requires_grad), Parameter(bias.detach(), b.requires_grad))


__all__ = [
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
]
