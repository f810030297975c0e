"""`torch.compiler`: what programs say about compiling beside ``torch.compile``.

Where a name chooses between parts of PyTorch's compiler that do not exist here, it is accepted and
changes nothing: a compiled function gives what the plain one gives in any case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ._captured import status as _status
from ._captured.capture import rebuild as _rebuild
from ._captured.compile import compile
from ._captured.status import disable, is_compiling, is_exporting, reset, set_stance
from ._deferred.tensor import Tensor as _Tensor
from ._ops.base import FUNCTIONS as _FUNCTIONS
from ._torch.options import Options as _Options

__all__ = [
    "allow_in_graph",
    "assume_constant_result",
    "compile",
    "config",
    "cudagraph_mark_step_begin",
    "disable",
    "get_default_backend",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "keep_portable_guards_unsafe",
    "keep_tensor_guards_unsafe",
    "list_backends",
    "load_cache_artifacts",
    "nested_compile_region",
    "reset",
    "save_cache_artifacts",
    "set_default_backend",
    "set_enable_guard_collectives",
    "set_stance",
    "skip_all_guards_unsafe",
    "skip_guard_on_all_nn_modules_unsafe",
    "skip_guard_on_globals_unsafe",
    "skip_guard_on_inbuilt_nn_modules_unsafe",
    "substitute_in_graph",
    "wrap_numpy",
]

F = TypeVar("F")
config = _Options(
    job_id=None,
    cache_key_tag="",
    dynamic_sources="",
    unbacked_sources="",
    force_disable_caches=False,
    enable_cpp_symbolic_shape_guards=False,
)
_default_backend: list[Any] = ["inductor"]
_guard_collectives = [False]


def is_dynamo_compiling() -> bool:
    """Whether the code that runs belongs to a compiled function."""
    return is_compiling() and not is_exporting()


def list_backends(exclude_tags: Sequence[str] | None = ("debug", "experimental")) -> list[str]:
    """Names that ``torch.compile(backend=...)`` takes; all of them mean this compiler."""
    return list(_status.LISTED) if exclude_tags else sorted(_status.BACKENDS)


def set_default_backend(backend: Any) -> None:
    """What `get_default_backend` says; None: PyTorch's own default."""
    if isinstance(backend, str) and backend not in _status.BACKENDS:
        raise _status.InvalidBackend(backend)
    _default_backend[0] = "inductor" if backend is None else backend


def get_default_backend() -> Any:
    """The backend that was set last."""
    return _default_backend[0]


def allow_in_graph(fn: F) -> F:
    """`fn`: every function may be part of a graph."""
    return fn


def assume_constant_result(fn: F) -> F:
    """`fn`: its result is looked at in each call, which is right in any case."""
    return fn


def substitute_in_graph(
    original_fn: Any, *, can_constant_fold_through: bool = False, skip_signature_check: bool = False
) -> Callable[[F], F]:
    """A decorator that leaves functions what they are: `original_fn` itself can be recorded."""
    if not callable(original_fn):
        raise TypeError(f"substitute_in_graph expects a function but got {type(original_fn)!r}")
    return lambda fn: fn


def nested_compile_region(
    fn: Any = None, *, options: Any = None, max_reuse_entries: int = 8, reuse_hash_fn: Any = None
) -> Any:
    """`fn`: equal parts of a graph share their kernels without being told."""
    return (lambda f: f) if fn is None else fn


def cudagraph_mark_step_begin() -> None:
    """Nothing: memory of one call's results is never that of another's."""


def set_enable_guard_collectives(enabled: bool) -> bool:
    """What was set before."""
    before, _guard_collectives[0] = _guard_collectives[0], enabled
    return before


def save_cache_artifacts() -> None:
    """None: compiled code is kept on disk by itself."""


def load_cache_artifacts(serialized_artifacts: bytes) -> None:
    """None: compiled code is found on disk by itself."""


def wrap_numpy(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays as one of tensors: `fn` gets arrays, and arrays that it returns become
    tensors.

    It works on elements, so that a compiled function that calls it runs line by line.
    """

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def array(t: _Tensor) -> np.ndarray:
            return t.numpy()  # type: ignore[no-any-return]

        return _to_tensors(fn(*_rebuild(args, array), **_rebuild(kwargs, array)))

    return wrapped


def _to_tensors(found: Any) -> Any:
    if isinstance(found, (np.ndarray, np.generic)):
        return _FUNCTIONS["as_tensor"](np.asarray(found))
    if isinstance(found, (tuple, list)):
        return type(found)([_to_tensors(v) for v in found])
    return {k: _to_tensors(v) for k, v in found.items()} if isinstance(found, dict) else found


def _keep_all(name: str) -> Any:
    def keep(guard_entries: Any, *args: Any, **kwargs: Any) -> list[bool]:
        return [True for _ in guard_entries]

    keep.__name__ = keep.__qualname__ = name
    keep.__doc__ = (
        "Keep each of `guard_entries`: a recording is never used where it might not hold."
    )
    return keep


keep_portable_guards_unsafe = _keep_all("keep_portable_guards_unsafe")
keep_tensor_guards_unsafe = _keep_all("keep_tensor_guards_unsafe")
skip_all_guards_unsafe = _keep_all("skip_all_guards_unsafe")
skip_guard_on_all_nn_modules_unsafe = _keep_all("skip_guard_on_all_nn_modules_unsafe")
skip_guard_on_globals_unsafe = _keep_all("skip_guard_on_globals_unsafe")
skip_guard_on_inbuilt_nn_modules_unsafe = _keep_all("skip_guard_on_inbuilt_nn_modules_unsafe")
