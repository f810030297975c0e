"""Exchange of memory by DLPack (https://dmlc.github.io/dlpack), through NumPy.

NumPy has no bfloat16: its elements travel as uint16, and the capsule's element type is set beside
it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from graphtorch.ir.dtype import bf16

from .._deferred import running
from .._deferred.tensor import Tensor
from .._ops.base import METHODS, register
from .._ops.creation import from_array, from_numpy
from .._types import CPU, check_device

_UINT, _BFLOAT = 1, 4  # DLDataTypeCode
_CPU, _GPU = (1, 0), 2  # DLDeviceType and number


class _DLTensor(ctypes.Structure):
    """The beginning of a DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    )


_pointer_in = ctypes.PYFUNCTYPE(ctypes.POINTER(_DLTensor), ctypes.py_object, ctypes.c_char_p)(
    # its own: attributes of `pythonapi` are the whole process's
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _retype(capsule: Any, before: int, after: int) -> Any:
    """The capsule with 16-bit elements of type `before` called `after`."""
    tensor = _pointer_in(capsule, b"dltensor").contents
    if (tensor.code, tensor.bits) == (before, 16):
        tensor.code = after
    return capsule


class _Capsule:
    """A capsule as an object that NumPy takes."""

    def __init__(self, capsule: Any):
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU


def _dlpack(
    self: Tensor,
    *,
    stream: Any = None,
    max_version: Any = None,
    dl_device: Any = None,
    copy: bool | None = None,
) -> Any:
    """A DLPack capsule over this tensor's memory, for ``from_dlpack`` of other libraries.

    Raises: BufferError for a tensor that requires a gradient.
    """
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if stream is not None and stream != -1:
        raise AssertionError("stream should be None on cpu.")
    if dl_device is not None and tuple(dl_device) != _CPU:
        raise BufferError(f"a tensor on the CPU cannot be exported to device {tuple(dl_device)}")
    if not self.is_cpu:
        raise BufferError(f"a tensor on {self.device} cannot be exported: call .cpu() on it first")
    running._refuse_in_capture()
    source = self.clone() if copy else self
    if self._type.dtype is bf16:
        running.share(source._storage)
        return _retype(source._array().view(np.uint16).__dlpack__(), _UINT, _BFLOAT)
    array = source.numpy()
    return (
        array.__dlpack__(max_version=max_version)
        if max_version and _NEW_NUMPY
        else array.__dlpack__()
    )


_NEW_NUMPY = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)
METHODS["__dlpack__"] = _dlpack
METHODS["__dlpack_device__"] = lambda self: (_GPU, self.device.index) if self.is_cuda else _CPU


@register("from_dlpack", method=False)
def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of any DLPack object, or capsule, on the CPU; `copy` gives it its
    own memory.

    Raises: RuntimeError for what is neither, BufferError for memory elsewhere.
    """
    if device is not None and check_device(device) is not getattr(ext_tensor, "device", CPU):
        raise BufferError(f"only memory on {device} can be shared")
    if isinstance(ext_tensor, Tensor) and ext_tensor.is_cuda:
        return ext_tensor.detach().clone() if copy else ext_tensor.detach()
    if isinstance(ext_tensor, Tensor) and not ext_tensor.is_cpu:
        raise ValueError(f"Unknown device type {ext_tensor.device.type} for Dlpack")
    if type(ext_tensor).__name__ == "PyCapsule":
        array = _from_capsule(ext_tensor)
    elif hasattr(ext_tensor, "__dlpack__"):
        array = _array_of(ext_tensor)
    else:
        raise RuntimeError(
            "from_dlpack received an invalid capsule: expected an object with __dlpack__ or a "
            f"DLPack capsule, got {type(ext_tensor).__name__}"
        )
    return from_array(array.copy()) if copy or not array.flags.writeable else from_numpy(array)


def _array_of(source: Any) -> np.ndarray:
    try:
        return np.from_dlpack(source)
    except (RuntimeError, BufferError, TypeError):
        if tuple(map(int, source.__dlpack_device__())) != _CPU:
            raise
        return _from_capsule(source.__dlpack__())  # bfloat16, or it raises again


def _from_capsule(capsule: Any) -> np.ndarray:
    """The memory in a capsule of the version without flags; that of bfloat16 as such."""
    before = _pointer_in(capsule, b"dltensor").contents
    is_bf16 = (before.code, before.bits) == (_BFLOAT, 16)
    array = np.from_dlpack(_Capsule(_retype(capsule, _BFLOAT, _UINT)))
    return _writeable(array).view(bf16.numpy) if is_bf16 else _writeable(array)


def _writeable(array: np.ndarray) -> np.ndarray:
    """The same memory, to be written to: NumPy is careful with capsules that do not say."""
    if array.flags.writeable or array.size == 0:
        return array
    return np.asarray(_Interface(array))


class _Interface:
    """Keeps `array` alive and offers its memory."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}
