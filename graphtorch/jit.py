"""Names of TorchScript that programs ask about. Graphs come from `graphtorch.compile` and `graphtorch.trace`.

There is no script compiler: nothing is ever a `ScriptModule`, and `is_scripting` is False.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ._absent import message
from .nn import Module
from .storage import Storage

_F = TypeVar("_F", bound=Callable[..., Any])


class ScriptModule(Module):
    """The class of modules that TorchScript compiled, for ``isinstance``.

    Raises: RuntimeError on construction: there are none here.
    """

    def __init__(self) -> None:
        raise RuntimeError("torch.jit.ScriptModule: graphtorch has no TorchScript; derive from nn.Module and "
                           "use graphtorch.compile (to run it compiled) or graphtorch.trace (for its graph)")


class ScriptFunction:
    """The class of functions that TorchScript compiled, for ``isinstance``."""

    def __init__(self) -> None:
        raise RuntimeError("torch.jit.ScriptFunction: graphtorch has no TorchScript; use graphtorch.compile")


def is_scripting() -> bool:
    """Whether TorchScript is compiling this function: never."""
    return False


def is_tracing() -> bool:
    """Whether `compile` or `trace` is recording now."""
    return Storage.capture is not None


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """Tells TorchScript to leave a function in Python; the function itself."""
    return drop if callable(drop) else lambda fn: fn


def unused(fn: _F) -> _F:
    """Tells TorchScript not to compile a function; the function itself."""
    return fn


def export(fn: _F) -> _F:
    """Tells TorchScript to compile a method too; the method itself."""
    return fn


_INSTEAD = {"script": "compile", "freeze": "compile", "trace": "trace or graphtorch.compile",
            "trace_module": "trace", "save": "aot.compile or graphtorch.onnx.export", "load": "aot.load"}


def __getattr__(name: str) -> Any:
    hint = f": there is no TorchScript here; use graphtorch.{_INSTEAD[name]}" if name in _INSTEAD else ""
    raise AttributeError(message(__name__, name) + hint)
