"""Limiting gradients, recorded in the graph: nothing runs until a value is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._settings import warn_user
from ...autograd import no_grad

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Tensors) -> list[Tensor]:
    if not isinstance(parameters, Tensor) and not isinstance(parameters, Iterable):
        raise TypeError(
            f"expected a Tensor or an iterable of Tensors, got {type(parameters).__name__}"
        )
    return [p.grad for p in _listed(parameters) if p.grad is not None]


def get_total_norm(
    tensors: Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all `tensors` seen as one vector, 0-d."""
    listed = _listed(tensors)
    if not listed:
        return FUNCTIONS["tensor"](0.0)
    order = float(norm_type)
    with no_grad():
        norms = FUNCTIONS["stack"]([t.detach().norm(order).to(listed[0].device) for t in listed])
        total = norms.max() if order == math.inf else norms.norm(order)
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is "
            "non-finite, so it cannot be clipped. To disable this error and scale "
            "the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Multiply the gradients by min(max_norm / (total_norm + 1e-6), 1), in place."""
    with no_grad():
        factor = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for grad in _gradients(parameters):
            grad.mul_(factor.to(grad.device))


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients, in place, so that their common norm is at most `max_norm`; the norm
    before."""
    parameters = _listed(parameters) if isinstance(parameters, Iterable) else parameters
    grads = _gradients(parameters)
    total = get_total_norm(grads, norm_type, error_if_nonfinite, foreach)
    if grads:
        clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def clip_grad_norm(*args: Any, **kwargs: Any) -> Tensor:
    """Deprecated name of `clip_grad_norm_`."""
    warn_user(
        "`torch.nn.utils.clip_grad_norm` is now deprecated in favor of "
        "`torch.nn.utils.clip_grad_norm_`.",
        FutureWarning,
    )
    return clip_grad_norm_(*args, **kwargs)


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Cut every gradient to [-clip_value, clip_value], in place."""
    limit = float(clip_value)
    with no_grad():
        for grad in _gradients(parameters):
            grad.clamp_(-limit, limit)
