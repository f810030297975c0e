"""``torch.types``: names for annotations.

https://docs.pytorch.org/docs/stable/type_info.html
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

from . import _types
from ._deferred.storage import Storage
from ._deferred.tensor import Tensor
from ._ops.storages import UntypedStorage
from ._torch.absent import attribute_of
from ._torch.symbols import SymBool, SymFloat, SymInt

_int, _float, _bool, _complex = builtins.int, builtins.float, builtins.bool, builtins.complex
_dtype, _device, _layout = _types.dtype, _types.device, _types.layout
_size: TypeAlias = _types.Size | list[int] | tuple[int, ...]
_symsize: TypeAlias = _types.Size | Sequence[int | SymInt]
_dispatchkey: TypeAlias = str
_TensorOrTensors: TypeAlias = Tensor | Sequence[Tensor]
_TensorOrTensorsOrGradEdge: TypeAlias = Tensor | Sequence[Tensor] | Any
Number: TypeAlias = int | float | bool
_Number = (int, float, bool)
IntLikeType: TypeAlias = int | SymInt
FloatLikeType: TypeAlias = float | SymFloat
BoolLikeType: TypeAlias = bool | SymBool
py_sym_types = (SymInt, SymFloat, SymBool)
PySymType: TypeAlias = SymInt | SymFloat | SymBool
FileLike: TypeAlias = str | os.PathLike[str] | Any
Device: TypeAlias = _types.device | str | int | None

__all__ = [
    "BoolLikeType",
    "Device",
    "FileLike",
    "FloatLikeType",
    "IntLikeType",
    "Number",
    "PySymType",
    "Storage",
    "Tensor",
    "UntypedStorage",
    "py_sym_types",
]
__getattr__ = attribute_of(__name__)
