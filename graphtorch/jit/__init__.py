"""Names of TorchScript that programs use. Graphs come from `graphtorch.compile` and
`graphtorch.trace`.

There is no script compiler: `script` leaves functions and modules what they are, `trace` gives a
module or function of the same code that can be saved, and `is_scripting` is False.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from .._deferred.storage import recorder
from .._torch.absent import message
from ..autograd import no_grad
from ..nn import Module

_F = TypeVar("_F", bound=Callable[..., Any])


class _Saved:
    """What was traced, and can be saved."""

    _example: Any = None  # (args, kwargs, what trains)

    def save(self, f: Any, _extra_files: Any = None) -> None:
        """Write the graph that a call computes, and the tensors, to a path or binary file that
        `load` reads; not a file that PyTorch reads.

        Sizes of the inputs that the code takes as they come may be others in later calls. Modules
        compute as in the mode (training or not) in which they were traced.

        Raises: RuntimeError: the module draws random numbers, or needs a tensor's value in Python.
        """
        _archive().write(self._members(), f)

    @property
    def graph(self) -> Any:
        """The graph of a call with the example inputs."""
        return _archive().parse(self.code)

    @property
    def code(self) -> str:
        """The text of `graph`."""
        return str(self._members()["graph.ir"].decode())

    def _members(self) -> dict[str, bytes]:
        args, kwargs, training = self._example
        modules = self.modules() if isinstance(self, Module) else ()
        before = {m: m.training for m in modules}
        try:
            for m in before:
                m.training = training.get(m, m.training)
            return _archive().content_of(self, args, kwargs)  # type: ignore[no-any-return]
        finally:
            for m, mode in before.items():
                m.training = mode


def _archive() -> Any:
    return importlib.import_module(f"{__name__}.archive")  # not before something is saved


class ScriptModule(_Saved, Module):
    """The class of modules that were traced or loaded.

    Raises: RuntimeError on construction.
    """

    def __init__(self) -> None:
        raise RuntimeError(
            "torch.jit.ScriptModule: graphtorch has no TorchScript; derive from nn.Module and "
            "use graphtorch.compile (to run it compiled) or graphtorch.trace (for "
            "its graph)"
        )


class ScriptFunction(_Saved):
    """The class of functions that were traced.

    Raises: RuntimeError on construction.
    """

    __wrapped__: Any

    def __init__(self) -> None:
        raise RuntimeError(
            "torch.jit.ScriptFunction: graphtorch has no TorchScript; use graphtorch.compile"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


class RecursiveScriptModule(ScriptModule):
    """The class of modules that `load` makes. They compute the graph of the file; gradients go to
    inputs and parameters, and `train` and `eval` change nothing of it."""

    _file: dict[str, bytes]

    def _members(self) -> dict[str, bytes]:
        return _archive().with_tensors(self._file, self)  # type: ignore[no-any-return]


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
    """Records a call in PyTorch; here a module (of the same tensors and code) or function that can
    be saved, once it took the inputs.

    Other inputs may take other branches, as they do not in PyTorch, until it is saved.
    `graphtorch.trace` gives a graph.
    """
    given = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    args, kwargs = (given, {}) if example_kwarg_inputs is None else ((), example_kwarg_inputs)
    with no_grad():
        func(*args, **kwargs)
    modes = {}
    if isinstance(func, Module):
        kind = type(func)
        if not isinstance(func, ScriptModule):
            kind = type(kind.__name__, (ScriptModule, kind), {"__module__": kind.__module__})
        made: Any = object.__new__(kind)
        made.__dict__.update(func.__dict__)
        modes = {made: func.training, **{m: m.training for m in func.modules() if m is not func}}
    else:
        made = object.__new__(ScriptFunction)
        functools.update_wrapper(made, func)
    made.__dict__["_example"] = (args, kwargs, modes)
    return made  # type: ignore[no-any-return]


def save(m: Any, f: Any, _extra_files: Any = None) -> None:
    """As ``m.save(f)``, for what `trace` or `load` gave.

    Raises: RuntimeError: `m` is anything else, such as what `script` gave.
    """
    if not isinstance(m, _Saved):
        raise RuntimeError(
            f"torch.jit.save: {type(m).__name__} was not traced, and there is no script compiler: "
            "use torch.jit.save(torch.jit.trace(module, example_inputs), f)"
        )
    m.save(f)


def load(
    f: Any, map_location: Any = None, _extra_files: Any = None, _restore_shapes: bool = False
) -> RecursiveScriptModule:
    """The module in a file that `save` wrote: callable, with its parameters and buffers. Loading
    executes nothing of the file.

    Args: map_location: the device of its tensors.

    Raises: RuntimeError: the file holds something else, such as TorchScript. FileNotFoundError.
    """
    members = _archive().read(f)
    made = object.__new__(RecursiveScriptModule)
    Module.__init__(made)
    made.__dict__["forward"] = _archive().fill(made, members)
    made.__dict__["_file"] = members
    return made if map_location is None else made.to(map_location)


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


_INSTEAD = {"trace_module": "trace"}


__all__ = [
    "Final",
    "RecursiveScriptModule",
    "ScriptFunction",
    "ScriptModule",
    "annotate",
    "export",
    "freeze",
    "ignore",
    "is_scripting",
    "is_tracing",
    "load",
    "optimize_for_inference",
    "save",
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
