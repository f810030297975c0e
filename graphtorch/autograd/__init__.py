"""Automatic differentiation, laid out as PyTorch's module of this name.

The tensor is built on the modes and nodes of this package, and what else is here on the tensor:
that part is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .._torch.absent import attribute_of
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

_HOME = {
    "Function": "function",
    "FunctionCtx": "function",
    "Variable": "variable",
    "backward": "engine",
    "detect_anomaly": "anomaly_mode",
    "grad": "engine",
    "gradcheck": "gradcheck",
    "gradgradcheck": "gradcheck",
    "once_differentiable": "function",
    "set_detect_anomaly": "anomaly_mode",
}
_MODULES = frozenset(
    {"anomaly_mode", "engine", "function", "functional", "graph", "nodes", "variable"}
)
_other = attribute_of(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        return _other(name)
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return found


def load() -> None:
    """Import what is on `__all__`: a function of that name is then not hidden by the module that
    holds it."""
    for name in _HOME:
        __getattr__(name)


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
