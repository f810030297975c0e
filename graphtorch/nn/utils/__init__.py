"""Helpers around parameters and gradients."""

from __future__ import annotations

from ..._torch.absent import attribute_of
from . import rnn
from .clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from .convert_parameters import parameters_to_vector, vector_to_parameters
from .spectral_norm import remove_spectral_norm, spectral_norm
from .weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "prune",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "spectral_norm",
    "stateless",
    "vector_to_parameters",
    "weight_norm",
]

LATER = {"fusion", "parametrizations", "parametrize", "prune", "stateless"}
__getattr__ = attribute_of(
    __name__,
    LATER,
    {
        "skip_init": ".init",
        "fuse_conv_bn_eval": ".fusion",
        "fuse_conv_bn_weights": ".fusion",
        "fuse_linear_bn_eval": ".fusion",
        "fuse_linear_bn_weights": ".fusion",
    },
)
