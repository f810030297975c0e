"""Automatic differentiation, laid out as PyTorch's module of this name."""

from __future__ import annotations

from typing import Any

from .._grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .engine import backward, grad
from .function import Function, FunctionCtx, once_differentiable


def Variable(data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
    """A tensor over the memory of `data` (deprecated: tensors are differentiable themselves)."""
    made = data.detach()
    return made.requires_grad_() if requires_grad else made


__all__ = [
    "Function", "FunctionCtx", "Variable", "backward", "enable_grad", "grad", "inference_mode",
    "is_grad_enabled", "is_inference_mode_enabled", "no_grad", "once_differentiable", "set_grad_enabled",
]
