"""Dropout. Masks come from the global generator, and are drawn in the order of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.ir.dtype import f32, f64
from graphtorch.ir.graph import Value

from ..._deferred.making import beside
from ..._deferred.memory_order import own_order
from ..._deferred.tensor import Tensor
from ..._random import draw
from ..._settings import warn_user
from ._common import floating, in_place

ALPHA = -1.7580993408473766  # -scale * alpha of SELU: the value that dropped units take


def _check(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability `p` and scale the others by 1 / (1 - p); the identity
    outside training.
    """
    _check(p)
    return _dropped(input, tuple(input.shape), p, training, inplace)


def _drawn(x: Tensor, shape: tuple[Any, ...], p: float, make: Callable[..., Value]) -> Tensor:
    """What `make` draws with probability 1 - p, one for each element of `x` in the order of its
    memory."""
    dtype = x._type.dtype
    order = own_order(x) if shape == x._type.shape else None
    generator = draw.source_beside(x, None)
    return beside(
        x, draw.drawn_in_order(shape, order, lambda sizes: make(sizes, dtype, generator, 1 - p))
    )


def _noise(x: Tensor, shape: tuple[Any, ...], p: float) -> Tensor:
    """1 / (1 - p) with probability 1 - p, else 0."""
    if x._type.dtype in (f32, f64):
        return _drawn(x, shape, p, draw.noise)
    return _drawn(x, shape, p, draw.below) / (1 - p)  # type: ignore[no-any-return]


def _dropped(
    x: Tensor, mask_shape: tuple[Any, ...], p: float, training: bool, inplace: bool
) -> Tensor:
    if not training or p == 0.0 or 0 in x.shape:
        return x
    x = floating(x, "dropout")
    if p == 1.0:
        return in_place(x, x * 0.0, inplace)
    return in_place(x, x * _noise(x, mask_shape, p), inplace)


def _channels(x: Tensor, kept: int) -> tuple[int, ...]:
    return (*x.shape[:kept], *[1] * (x.dim() - kept))


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`dropout` of whole channels of [N, C, L] or [C, L]."""
    _check(p)
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input. Note "
            "that dropout1d exists to provide channel-wise dropout on inputs with 1 "
            "spatial dimension, a channel dimension, and an optional batch "
            "dimension (i.e. 2D or 3D inputs)."
        )
    return _dropped(input, _channels(input, input.dim() - 1), p, training, inplace)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`dropout` of whole channels of [N, C, H, W] or [C, H, W]."""
    _check(p)
    if input.dim() not in (3, 4):
        warn_user(
            f"dropout2d: Received a {input.dim()}-D input to dropout2d, which is deprecated and "
            "will result in an error in a future release.",
        )
    if input.dim() < 2:
        raise RuntimeError(
            f"Feature dropout requires at least 2 dimensions in the input, but got {input.dim()}"
        )
    return _dropped(input, _channels(input, 2), p, training, inplace)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`dropout` of whole channels of [N, C, D, H, W] or [C, D, H, W]."""
    _check(p)
    if input.dim() not in (4, 5):
        warn_user(
            f"dropout3d: Received a {input.dim()}-D input to dropout3d, which is deprecated and "
            "will result in an error in a future release.",
        )
    kept = 1 if input.dim() == 4 else 2
    return _dropped(input, _channels(input, kept), p, training, inplace)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean and variance of SELU activations
    (https://arxiv.org/abs/1706.02515)."""
    _check(p)
    return _alpha(input, tuple(input.shape), p, training, inplace)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels of [N, C, *]."""
    _check(p)
    return _alpha(input, _channels(input, min(2, input.dim())), p, training, inplace)


def _alpha(
    x: Tensor, mask_shape: tuple[Any, ...], p: float, training: bool, inplace: bool
) -> Tensor:
    if not training or p == 0.0 or 0 in x.shape:
        return x
    if p == 1.0:
        return in_place(x, x * 0.0, inplace)
    scale = ((1 - p) * (1 + p * ALPHA**2)) ** -0.5
    mask = _drawn(x, mask_shape, p, draw.below)
    shift = (mask - 1) * (-ALPHA * scale) + -ALPHA * scale * p
    return in_place(x, x * (mask * scale) + shift, inplace)
