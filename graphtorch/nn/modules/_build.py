"""How layers make their parameters and buffers."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._ops.devices import chosen
from ..parameter import Parameter


def parameter(shape: tuple[int, ...], device: Any = None, dtype: Any = None) -> Parameter:
    """A parameter to be initialised."""
    return Parameter(buffer("empty", shape, device, dtype))


def buffer(kind: str, shape: tuple[int, ...], device: Any = None, dtype: Any = None) -> Tensor:
    """A tensor of `kind` "empty", "zeros" or "ones"."""
    return FUNCTIONS[kind](shape, device=chosen(device), dtype=dtype)
