"""Exchange of tensors by DLPack (https://dmlc.github.io/dlpack): `from_dlpack`, `to_dlpack`."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS

__all__ = ["from_dlpack", "to_dlpack"]

from_dlpack = FUNCTIONS["from_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule over the memory of `tensor`."""
    return tensor.__dlpack__()
