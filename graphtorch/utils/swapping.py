"""``torch.utils.swap_tensors``: two tensor objects exchange all that they are."""

from __future__ import annotations

import weakref
from typing import Any

from .._deferred.storage import recorder
from .._deferred.tensor import Tensor

_SWAPPED = (
    "Trying to execute AccumulateGrad node that was poisoned by swap_tensors this can happen when "
    "you try to run backward on a tensor that was swapped: swap before the forward pass, or after "
    "the backward pass."
)


def _refuse(gradients: Any) -> None:
    raise RuntimeError(_SWAPPED)


def _set_free(tensor: Tensor) -> bool:
    """Prepare one of the two; whether its node keeps its gradient for it."""
    if recorder.capture is not None:
        recorder.capture.rebound(tensor)
    waiting = None if tensor._accumulator is None else tensor._accumulator()
    if waiting is not None:
        waiting.register_prehook(_refuse)
    return tensor.retains_grad


def swap_tensors(t1: Tensor, t2: Tensor) -> None:
    """Exchange the contents of two tensors: elements, history, gradient, attributes and class.

    A backward pass through what was computed of a leaf before raises RuntimeError.
    """
    kept = [(t, other) for t, other in ((t1, t2), (t2, t1)) if _set_free(t)]
    t1.__class__, t2.__class__ = t2.__class__, t1.__class__
    t1.__dict__, t2.__dict__ = t2.__dict__, t1.__dict__
    for _, now in kept:
        assert now._fn is not None and now._fn.retained is not None
        now._fn.retained[now._nr] = weakref.ref(now)
