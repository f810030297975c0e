"""DLPack capsules (https://dmlc.github.io/dlpack) to and from arrays, by NumPy's hands.

NumPy makes and consumes them in C, with all that keeps memory alive. It knows neither bfloat16,
whose elements travel as uint16, nor GPUs, whose memory it never looks at: element type and device
are written beside it into the tensor that a capsule holds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphtorch.ir.dtype import bf16

_UINT, _BFLOAT = 1, 4  # DLDataTypeCode
CPU = (1, 0)  # DLDeviceType and number
VERSION = (1, 0)  # of capsules that say whether their memory may be written to
NEW_NUMPY = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)


class _DLTensor(ctypes.Structure):
    """The beginning of a DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    )


# names of capsules that nobody consumed yet, and where the tensor begins in what they hold: a
# DLManagedTensor, or a DLManagedTensorVersioned after version, context, deleter and flags
_PLACES = {b"dltensor": 0, b"dltensor_versioned": 32}

_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    # its own: attributes of `pythonapi` are the whole process's
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)


def is_capsule(x: Any) -> bool:
    """Whether `x` is a capsule, rather than something that gives one."""
    return type(x).__name__ == "PyCapsule"


def _tensor_in(capsule: Any) -> _DLTensor:
    name = _name_of(capsule)
    if name not in _PLACES:
        raise RuntimeError(
            "from_dlpack received an invalid capsule: a capsule is consumed once, and this one is "
            f"named {(name or b'').decode()!r}"
        )
    return _DLTensor.from_address(_pointer_in(capsule, name) + _PLACES[name])


def device_in(capsule: Any) -> tuple[int, int]:
    """The DLDeviceType and the number of the device that a capsule's memory is on."""
    tensor = _tensor_in(capsule)
    return tensor.device_type, tensor.device_id


def capsule_of(array: np.ndarray, max_version: Any = None, device: tuple[int, int] = CPU) -> Any:
    """A capsule over the memory of an array, which its consumer keeps alive.

    Args:
        max_version: the latest version of DLPack that the consumer knows; None: it knows no flags.
        device: what the memory is on.
    """
    is_bf16 = array.dtype == bf16.numpy
    plain = array.view(np.uint16) if is_bf16 else array
    capsule = (
        plain.__dlpack__(max_version=max_version)
        if max_version and NEW_NUMPY
        else plain.__dlpack__()
    )
    tensor = _tensor_in(capsule)
    tensor.device_type, tensor.device_id = device
    if is_bf16:
        tensor.code = _BFLOAT
    return capsule


class _Capsule:
    """A capsule as an object that NumPy takes."""

    def __init__(self, capsule: Any):
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU


@contextmanager
def _for_numpy(tensor: _DLTensor) -> Iterator[None]:
    """Let NumPy take a capsule's tensor for one of its own; whoever made it finds it as it was."""
    before = tensor.device_type, tensor.device_id, tensor.code
    tensor.device_type, tensor.device_id = CPU
    if (tensor.code, tensor.bits) == (_BFLOAT, 16):
        tensor.code = _UINT
    try:
        yield
    finally:
        tensor.device_type, tensor.device_id, tensor.code = before


def array_in(capsule: Any) -> np.ndarray:
    """The memory in a capsule, which is consumed, as an array: that of a GPU is not to be looked
    at. It is writeable unless the capsule says that it must not be written to."""
    tensor, silent = _tensor_in(capsule), _name_of(capsule) == b"dltensor"
    is_bf16 = (tensor.code, tensor.bits) == (_BFLOAT, 16)
    with _for_numpy(tensor):
        array = np.from_dlpack(_Capsule(capsule))
    if silent and not array.flags.writeable and array.size:  # NumPy is careful
        array = np.asarray(_Interface(array))
    return array.view(bf16.numpy) if is_bf16 else array


class _Interface:
    """Keeps `array` alive and offers its memory, to be written to."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def capsule_from(ask: Callable[..., Any], **options: Any) -> Any:
    """A capsule of an object's `__dlpack__`, with flags where it knows them."""
    if NEW_NUMPY:
        try:
            return ask(max_version=VERSION, **options)
        except TypeError:
            pass
    return ask(**options)
