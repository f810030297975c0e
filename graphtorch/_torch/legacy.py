"""The typed tensor classes of old, such as ``torch.FloatTensor``, and their default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir.dtype import DType

from .. import _types
from .._deferred.tensor import Tensor
from .._ops.base import METHODS
from .._ops.creation import empty, tensor
from .._ops.devices import set_default_device
from .._settings import warn_user
from .._types import CPU, check_device, device


def legacy_tensor(
    dtype: DType, args: tuple[Any, ...], options: dict[str, Any], place: device = CPU
) -> Tensor:
    """What ``torch.FloatTensor(...)`` makes: sizes give uninitialised memory, a sequence or array
    gives data.

    Raises: RuntimeError: `options` name a device of another kind than `place`.
    """
    given = options.get("device")
    if given is not None and check_device(given).type != place.type:
        raise RuntimeError(
            f"legacy constructor expects device type: {place.type} but device type: "
            f"{given} was passed: use torch.empty(sizes, device=...)"
        )
    front = _types.dtype._of[dtype]
    if "dtype" in options:
        raise TypeError(
            "new() received an invalid combination of arguments - got a dtype: use torch.tensor or "
            "torch.empty"
        )
    if len(args) == 1 and isinstance(args[0], Tensor):
        same = args[0].dtype is front and args[0].device is place
        return args[0].detach() if same else _wrong_legacy(args[0], front)
    if len(args) == 1 and isinstance(args[0], _types.Size):
        return empty(args[0], dtype=front, device=place)
    if len(args) == 1 and isinstance(args[0], str):
        raise TypeError("new(): invalid data type 'str'")
    if len(args) == 1 and not isinstance(args[0], (Sequence, np.ndarray, int)):
        raise TypeError(f"new(): data must be a sequence (got {type(args[0]).__name__})")
    if len(args) == 1 and not isinstance(args[0], int):
        return tensor(args[0], dtype=front, device=place)
    if any(not isinstance(a, int) or isinstance(a, bool) for a in args):
        raise TypeError(f"new(): expected sizes (ints) or one sequence of data, got {args!r}")
    return empty(args or (0,), dtype=front, device=place)


def new(self: Tensor, *args: Any, **options: Any) -> Tensor:
    """``Tensor.new``: what the legacy class of this tensor's dtype makes, on the same device."""
    return legacy_tensor(self._type.dtype, args, options, self.device)


def _wrong_legacy(given: Tensor, front: _types.dtype) -> Tensor:
    raise TypeError(
        f"expected a tensor of {front} (got {given.dtype} on {given.device}): convert it with "
        f".to({front})"
    )


class _LegacyType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor) and instance.is_cpu and instance.dtype is cls.dtype

    def __call__(cls, *args: Any, **options: Any) -> Tensor:
        return legacy_tensor(cls._dtype, args, options)  # type: ignore[attr-defined]

    @property
    def dtype(cls) -> Any:
        return _types.dtype._of[cls._dtype]  # type: ignore[attr-defined]


LEGACY = {
    "FloatTensor": "float32",
    "DoubleTensor": "float64",
    "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16",
    "ByteTensor": "uint8",
    "CharTensor": "int8",
    "ShortTensor": "int16",
    "IntTensor": "int32",
    "LongTensor": "int64",
    "BoolTensor": "bool",
}
LEGACY_TYPES = {
    name: _LegacyType(
        name,
        (),
        {
            "_dtype": _types.DTYPES[d].ir,
            "__module__": "torch",
            "__doc__": f"Legacy constructor of {d} tensors.",
        },
    )
    for name, d in LEGACY.items()
}


class _CudaType(type):
    """A class of tensors on a GPU: a dtype and a device, as a name for `isinstance` and for
    conversions."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor) and instance.is_cuda and instance.dtype is cls.dtype

    def __call__(cls, *args: Any, **options: Any) -> Tensor:
        try:
            place = _types.gpu()
        except AssertionError as error:
            raise TypeError(f"type torch.cuda.{cls.__name__} not available. {error}") from None
        return legacy_tensor(cls.dtype.ir, args, options, place)

    @property
    def dtype(cls) -> Any:
        return _types.DTYPES[LEGACY[cls.__name__]]


CUDA_TYPES = {
    name: _CudaType(name, (), {"__module__": "torch.cuda", "__doc__": f"{d} tensors on a GPU."})
    for name, d in LEGACY.items()
}
TYPE_NAMES = {
    **LEGACY,
    "ComplexFloatTensor": "complex64",
    "ComplexDoubleTensor": "complex128",
    "UInt16Tensor": "uint16",
    "UInt32Tensor": "uint32",
    "UInt64Tensor": "uint64",
}
# what ``tensor.type()`` says
TYPE_NAME_OF = {_types.DTYPES[d].ir: name for name, d in TYPE_NAMES.items()}


def place_of_type(t: Any) -> Any:
    """The device of tensors of a legacy type, or of its name; None for a dtype, which has none.

    Raises: RuntimeError: `t` is one of GPUs, and there is no GPU.
    """
    if not (isinstance(t, _CudaType) or (isinstance(t, str) and t.startswith("torch.cuda."))):
        return CPU if isinstance(t, (_LegacyType, str)) else None
    try:
        return _types.gpu()
    except AssertionError as error:
        raise RuntimeError(f"Cannot initialize CUDA: {t} needs a GPU: {error}") from None


def set_default_tensor_type(t: Any) -> None:
    """Set the default dtype by a legacy tensor class or its name (deprecated)."""
    warn_user(
        "torch.set_default_tensor_type() is deprecated as of PyTorch 2.1, please use "
        "torch.set_default_dtype() and torch.set_default_device() as alternatives.",
        FutureWarning,
    )
    name = t.rsplit(".", 1)[-1] if isinstance(t, str) else t.__name__
    place = place_of_type(t)
    if name not in LEGACY:
        raise TypeError(f"invalid type object: {t!r}; expected one of {', '.join(LEGACY)}")
    _types.set_default_dtype(_types.DTYPES[LEGACY[name]])
    set_default_device(place)


METHODS["new"] = new
METHODS["_construct"] = staticmethod(legacy_tensor)
