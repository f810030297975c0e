"""`Variable`, the name tensors had of old."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor


class _Variables(type):
    """Every tensor is a Variable, and calling the class makes a tensor."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor)

    def __call__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        made = data.detach()
        return made.requires_grad_() if requires_grad else made


class Variable(metaclass=_Variables):
    """A tensor over the memory of `data` (deprecated: tensors are differentiable themselves)."""
