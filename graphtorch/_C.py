"""Private names of PyTorch's C extension that Python code written against it was seen to use."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from ._deferred.tensor import Tensor
from ._ops.convert import parse_to
from ._ops.overriding import DisableTorchFunction, DisableTorchFunctionSubclass
from ._ops.overriding import disabled as _disabled_torch_function_impl  # noqa: F401
from ._ops.overriding import state as _state
from ._torch.absent import attribute_of
from ._types import device as _device
from .ops.operators import AUTOCAST, AUTOGRAD, excluding
from .random import Generator

__all__ = ["DisableTorchFunction", "DisableTorchFunctionSubclass", "Generator"]


def _log_api_usage_once(event: str) -> None:
    """PyTorch counts uses of its parts here where a user has installed a logger; there is none to
    install."""


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """(device, dtype, non_blocking, memory_format) that the arguments of ``Module.to`` ask for."""
    asked = parse_to(*args, **kwargs)
    return asked.device, asked.dtype, asked.non_blocking, asked.memory_format


def _get_tracing_state() -> Any:
    """What records a call by TorchScript: nobody does. See ``torch.compiler.is_compiling``."""


def _get_accelerator(check: bool = False) -> Any:
    """The device of the accelerator, or the CPU where there is none."""
    return _device("cpu")


def _is_torch_function_enabled() -> bool:
    """Whether classes with a ``__torch_function__`` are asked."""
    return _state.subclasses


def _is_torch_function_mode_enabled() -> bool:
    """Whether a `TorchFunctionMode` is on."""
    return bool(_state.modes)


class DispatchKey(enum.Enum):
    """The keys under which operators have implementations."""

    Undefined, CPU, CUDA, Meta, XPU, MPS = range(6)
    AutogradCPU, AutogradCUDA, Autograd, ADInplaceOrView = range(6, 10)
    AutocastCPU, AutocastCUDA, AutocastXPU, AutocastMPS = range(10, 14)
    CompositeExplicitAutograd, CompositeImplicitAutograd = range(14, 16)


class DispatchKeySet:
    """A set of dispatch keys."""

    def __init__(self, keys: DispatchKey | Iterable[DispatchKey]):
        self._keys = frozenset([keys] if isinstance(keys, DispatchKey) else keys)

    def __or__(self, other: DispatchKeySet) -> DispatchKeySet:
        return DispatchKeySet(self._keys | other._keys)

    def __and__(self, other: DispatchKeySet) -> DispatchKeySet:
        return DispatchKeySet(self._keys & other._keys)

    def __sub__(self, other: DispatchKeySet) -> DispatchKeySet:
        return DispatchKeySet(self._keys - other._keys)

    def has(self, key: DispatchKey) -> bool:
        """Whether `key` is one of them."""
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(k.name for k in self._keys))


def _ExcludeDispatchKeyGuard(keys: DispatchKeySet) -> excluding:
    """For ``with``: calls of operators pass over `keys`."""
    return excluding(keys)


def _AutoDispatchBelowAutograd() -> excluding:
    """For ``with``: calls of operators take what comes below autograd."""
    return excluding((*AUTOGRAD, *AUTOCAST))


class _Opaque:
    """A class of PyTorch's of which there are no instances here, for ``isinstance`` and
    annotations."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise RuntimeError(
            f"torch._C.{type(self).__name__}: TorchScript's graphs are not made here; use "
            "graphtorch.trace"
        )


class Graph(_Opaque):
    """TorchScript's graph."""


class Value(_Opaque):
    """A value of TorchScript's graph."""


class Node(_Opaque):
    """A node of TorchScript's graph."""


class ScriptObject(_Opaque):
    """An object of TorchScript's."""


_TensorMeta = type(Tensor)
_nn = SimpleNamespace(_parse_to=_parse_to)
__getattr__ = attribute_of(__name__)
