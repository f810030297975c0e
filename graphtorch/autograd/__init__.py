"""Automatic differentiation, laid out as PyTorch's module of this name.

The tensor is built on the modes and nodes of this package, and what else is here on the tensor:
that part is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._torch.absent import attribute_of, homes_of
from .grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)

if TYPE_CHECKING:
    from . import functional
    from .anomaly_mode import detect_anomaly, set_detect_anomaly
    from .engine import backward, grad
    from .function import Function, FunctionCtx, once_differentiable
    from .gradcheck import gradcheck, gradgradcheck
    from .variable import Variable

_MODULES = frozenset(
    {"anomaly_mode", "engine", "function", "functional", "graph", "nodes", "profiler", "variable"}
)
__getattr__ = attribute_of(
    __name__,
    _MODULES,
    homes_of(
        {
            ".anomaly_mode": ("detect_anomaly", "set_detect_anomaly"),
            ".engine": ("backward", "grad"),
            ".function": ("Function", "FunctionCtx", "once_differentiable"),
            ".gradcheck": ("gradcheck", "gradgradcheck"),
            ".variable": ("Variable",),
        }
    ),
)


def load() -> None:
    """Import the one function with the name of its module, which would else hide it."""
    __getattr__("gradcheck")


__all__ = [
    "Function",
    "FunctionCtx",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "once_differentiable",
    "set_detect_anomaly",
    "set_grad_enabled",
]
