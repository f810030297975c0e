"""Names of PyTorch's ``torch._dynamo`` that programs touch."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from graphtorch.ir.shape import normalize_axis

from .._captured.compile import OptimizedModule, compile
from .._captured.sizes import SMALLEST, Mark
from .._captured.status import (
    BACKENDS,
    InvalidBackend,
    disable,
    graph_break,
    is_compiling,
    reset,
    set_stance,
)
from .._deferred.tensor import Tensor
from ..compiler import allow_in_graph, assume_constant_result, list_backends, substitute_in_graph
from . import config, eval_frame, exc, utils
from .explanation import ExplainOutput, explain

__all__ = [
    "ExplainOutput",
    "OptimizedModule",
    "allow_in_graph",
    "assume_constant_result",
    "config",
    "disable",
    "disallow_in_graph",
    "eval_frame",
    "exc",
    "explain",
    "forbid_in_graph",
    "graph_break",
    "is_compiling",
    "list_backends",
    "lookup_backend",
    "mark_dynamic",
    "mark_static",
    "mark_static_address",
    "maybe_mark_dynamic",
    "nonstrict_trace",
    "optimize",
    "optimize_assert",
    "register_backend",
    "reset",
    "run",
    "set_stance",
    "substitute_in_graph",
    "utils",
]

disallow_in_graph = forbid_in_graph = nonstrict_trace = allow_in_graph


def optimize(
    backend: Any = "inductor",
    *,
    nopython: bool = False,
    disable: bool = False,
    dynamic: Any = None,
    **others: Any,
) -> Callable[[Any], Any]:
    """A decorator that compiles: the older form of ``torch.compile``."""
    return compile(None, backend=backend, fullgraph=nopython, disable=disable, dynamic=dynamic)  # type: ignore[no-any-return]


def optimize_assert(backend: Any = "inductor", **others: Any) -> Callable[[Any], Any]:
    """`optimize` with ``nopython=True``."""
    return optimize(backend, nopython=True, **others)


def run(fn: Any = None) -> Any:
    """`fn`, whose recordings serve as long as they hold."""
    return run if fn is None else fn


def lookup_backend(compiler_fn: Any) -> Any:
    """A backend by its name.

    Raises:
        InvalidBackend: there is none of this name.
    """
    if isinstance(compiler_fn, str) and compiler_fn not in BACKENDS:
        raise InvalidBackend(compiler_fn)
    return compiler_fn


def register_backend(compiler_fn: Any = None, name: str | None = None, tags: Any = ()) -> Any:
    """Let ``torch.compile`` take the name of `compiler_fn`, which is not called."""
    if compiler_fn is None:
        return lambda fn: register_backend(fn, name, tags)
    BACKENDS.add(name or compiler_fn.__name__)
    return compiler_fn


def mark_dynamic(
    t: Any,
    index: Any,
    *,
    hint_override: Any = None,
    min: int | None = None,
    max: int | None = None,
    specialize_on: Any = None,
) -> None:
    """Let sizes of a tensor be symbols where it is an argument of compiled functions, from the
    first call on.

    A function that was given a marked tensor takes later ones at its place for marked as well.
    Sizes of 0 and 1, and those outside ``min..max``, have recordings of their own.

    Args:
        index: an axis, or several.
        min, max: the smallest and the largest size to expect.

    Raises:
        TypeError: `t` is no tensor.
        ConstraintViolationError: (a RuntimeError, by the compiled function) it needs the size as a
            number.
    """
    _mark(t, index, Mark(True, True, builtins.max(min or 0, SMALLEST), max))


def maybe_mark_dynamic(t: Any, index: Any) -> None:
    """As `mark_dynamic`, but where a function needs the size as a number it is recorded for
    each."""
    _mark(t, index, Mark(True))


def mark_static(t: Any, index: Any = None) -> None:
    """Let sizes of a tensor (`index` None: all of them) be no symbols, even under
    ``dynamic=True``."""
    if not isinstance(t, (Tensor, type)) and not hasattr(t, "parameters"):
        raise TypeError(f"mark_static expects a tensor/nn.Module class but received {type(t)}")
    if isinstance(t, Tensor):
        _mark(t, range(t.dim()) if index is None else index, Mark(False))


def _mark(t: Any, index: Any, mark: Mark) -> None:
    _check(t)
    for axis in [index] if isinstance(index, int) else index:
        t._marks = {**(t._marks or {}), normalize_axis(axis, t.dim()): mark}


def mark_static_address(t: Any, guard: bool = False) -> None:
    """Nothing: what is packed of a weight is kept while it stays."""
    _check(t)


def _check(t: Any) -> None:
    if not isinstance(t, Tensor):
        raise TypeError(f"expected a tensor but received {type(t)}")
