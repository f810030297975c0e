"""Names of TorchScript that programs use. Graphs come from `graphtorch.compile` and
`graphtorch.trace`.

There is no script compiler: `script` and `trace` leave functions and modules what they are, nothing
is ever a `ScriptModule`, and `is_scripting` is False.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from .._deferred.storage import recorder
from .._torch.absent import message
from ..autograd import no_grad
from ..nn import Module

_F = TypeVar("_F", bound=Callable[..., Any])


class ScriptModule(Module):
    """The class of modules that TorchScript compiled, for ``isinstance``.

    Raises: RuntimeError on construction: there are none here.
    """

    def __init__(self) -> None:
        raise RuntimeError(
            "torch.jit.ScriptModule: graphtorch has no TorchScript; derive from nn.Module and "
            "use graphtorch.compile (to run it compiled) or graphtorch.trace (for "
            "its graph)"
        )


class ScriptFunction:
    """The class of functions that TorchScript compiled, for ``isinstance``."""

    def __init__(self) -> None:
        raise RuntimeError(
            "torch.jit.ScriptFunction: graphtorch has no TorchScript; use graphtorch.compile"
        )


def is_scripting() -> bool:
    """Whether TorchScript is compiling this function: never."""
    return False


def is_tracing() -> bool:
    """Whether `compile` or `trace` is recording now."""
    return recorder.capture is not None


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """Tells TorchScript to leave a function in Python; the function itself."""
    return drop if callable(drop) else lambda fn: fn


def unused(fn: _F) -> _F:
    """Tells TorchScript not to compile a function; the function itself."""
    return fn


def export(fn: _F) -> _F:
    """Tells TorchScript to compile a method too; the method itself."""
    return fn


def script(
    obj: _F, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None
) -> _F:
    """Compiles a function or module to TorchScript in PyTorch; here the function, class or module
    itself."""
    if not callable(obj):
        raise RuntimeError(
            f"torch.jit.script: expected a function, class or module, got {type(obj).__name__}"
        )
    return obj


def script_if_tracing(fn: _F) -> _F:
    """As `script`."""
    return fn


script_method = script_if_tracing
_script_if_tracing = script_if_tracing
# further signatures, which only TorchScript looks at
_overload = _overload_method = script_if_tracing


def trace(
    func: _F,
    example_inputs: Any = None,
    optimize: Any = None,
    check_trace: bool = True,
    check_inputs: Any = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    _force_outplace: bool = False,
    _module_class: Any = None,
    _compilation_unit: Any = None,
    example_kwarg_inputs: Any = None,
    _store_inputs: bool = True,
) -> _F:
    """Records a call in PyTorch; here the function or module itself, once it took the inputs.

    Other inputs may take other branches, as they do not in PyTorch. `graphtorch.trace` gives a
    graph.
    """
    given = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    with no_grad():
        func(*given) if example_kwarg_inputs is None else func(**example_kwarg_inputs)
    return func


def freeze(mod: _F, preserved_attrs: Any = None, optimize_numerics: bool = True) -> _F:
    """Makes parameters constants in PyTorch; here the module itself, which must be in eval mode."""
    if getattr(mod, "training", False):
        raise RuntimeError(
            "Freezing is currently only implemented for modules in eval mode. Please call "
            ".eval() on your module before freezing."
        )
    return mod


def optimize_for_inference(mod: _F, other_methods: Any = None) -> _F:
    """The module itself: `graphtorch.compile` is what optimises."""
    return mod


def annotate(the_type: Any, the_value: Any) -> Any:
    """Tells TorchScript the type of a value; the value itself."""
    return the_value


_INSTEAD = {
    "trace_module": "trace",
    "save": "save, graphtorch.aot.compile or graphtorch.onnx.export",
    "load": "load or graphtorch.aot.load",
}


__all__ = [
    "Final",
    "ScriptFunction",
    "ScriptModule",
    "annotate",
    "export",
    "freeze",
    "ignore",
    "is_scripting",
    "is_tracing",
    "optimize_for_inference",
    "script",
    "script_if_tracing",
    "script_method",
    "trace",
    "unused",
]
globals().pop("annotations", None)  # that of `__future__`, in the place of the submodule


def __getattr__(name: str) -> Any:
    if name == "annotations":
        return importlib.import_module(f"{__name__}.annotations")
    hint = (
        f": there is no TorchScript here; use graphtorch.{_INSTEAD[name]}"
        if name in _INSTEAD
        else ""
    )
    raise AttributeError(message(__name__, name) + hint)
