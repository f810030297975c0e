"""Memory of GPUs that is exchanged with other libraries, by DLPack or
``__cuda_array_interface__``.

See https://data-apis.org/array-api/latest/design_topics/data_interchange.html for streams, and
https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir.dtype import BY_NUMPY, DType, bf16

from .._deferred import running
from .._deferred.door import DeviceBuffer, Exposed, Foreign, device_of
from .._deferred.making import from_value
from .._deferred.storage import Leaf
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, METHODS
from .._types import CPU, device, gpu
from .capsules import capsule_of

CUDA, MANAGED, EXTENSION = 2, 13, 12  # DLDeviceType
UNKNOWN = -1  # of streams: whoever asks waits by itself
LEGACY = 1  # the legacy default stream


def is_gpu(name: tuple[int, int]) -> bool:
    """Whether DLPack means the memory of a GPU, or of what stands for one here."""
    return name[0] in (CUDA, MANAGED, EXTENSION)


def name_of(place: device) -> tuple[int, int]:
    """The DLDeviceType and the number of a GPU."""
    return device_of(place).dlpack


def place_of(name: tuple[int, int]) -> device:
    """The GPU that DLPack names so. Raises BufferError: there is no such here."""
    kind = CUDA if name[0] == MANAGED else name[0]
    try:
        place = gpu(name[1])
        found = name_of(place)
    except (AssertionError, RuntimeError) as error:
        raise BufferError(f"memory on device {name} cannot be shared: {error}") from None
    if found != (kind, name[1]):
        raise BufferError(
            f"memory on device {name} cannot be shared: {place} is the emulated GPU, whose memory "
            "is the host's"
            if found[0] == EXTENSION
            else f"memory on device {name} cannot be shared: it is no memory of {place}"
        )
    return place


def stream_of(place: device) -> int | None:
    """The stream that memory of other libraries is used in here; None where there is no such."""
    return device_of(place).stream or None


# ------------------------------------------------------------------------------------------- export


def capsule(x: Tensor, stream: int | None, max_version: Any) -> Any:
    """A capsule over the memory of a tensor on a GPU, which may be used in `stream` at once.

    Raises: AssertionError: there is no such stream.
    """
    if stream == 0:
        raise AssertionError(f"unsupported stream on CUDA: {stream}.")
    runner = device_of(x.device)
    array = _array_over(running.share(x._storage))
    if stream != UNKNOWN:
        runner.precede(LEGACY if stream is None else stream)
    shown = array if x._view is None else x._view.over(array)
    return capsule_of(shown, max_version, runner.dlpack)


def _array_over(buffer: DeviceBuffer) -> np.ndarray:
    """Keeps `buffer` alive and says where its elements are, which NumPy is never to look at."""
    if 0 in buffer.shape:
        return np.empty(buffer.shape, buffer.dtype.numpy)
    exposed: Any = Exposed.from_address(buffer.address)
    exposed.buffer = buffer
    return np.ndarray(buffer.shape, buffer.dtype.numpy, exposed)


def _interface(self: Tensor) -> dict[str, Any]:
    """Where the elements of a tensor on a GPU are, for CuPy, Numba and others: version 2 of
    ``__cuda_array_interface__``. From now on writes land in that memory.

    Raises: AttributeError: it is not on a GPU, or sparse. RuntimeError: it requires grad.
    """
    if not self.is_cuda or name_of(self.device)[0] != CUDA:
        raise AttributeError(
            f"Can't get __cuda_array_interface__ on non-CUDA tensor type: {self.type()} "  # type: ignore[attr-defined]
            "If CUDA data is required use tensor.cuda() to copy tensor to device memory."
        )
    if self.is_sparse:
        raise AttributeError(
            f"Can't get __cuda_array_interface__ on sparse type: {self.type()} "  # type: ignore[attr-defined]
            "Use Tensor.to_dense() to convert to a dense tensor first."
        )
    if self.requires_grad:
        raise RuntimeError(
            "Can't get __cuda_array_interface__ on Variable that requires grad. If gradients "
            "aren't required, use var.detach() to get Variable that doesn't require grad."
        )
    running._refuse_in_capture()
    running.share(self._storage)
    self._storage.lend()  # type: ignore[attr-defined]
    contiguous = METHODS["is_contiguous"](self)
    dtype = self._type.dtype
    return {
        "typestr": "<V2" if dtype is bf16 else dtype.numpy.str,
        "shape": tuple(self.shape),
        "strides": None if contiguous else tuple(s * dtype.itemsize for s in self._strides),
        "data": (METHODS["data_ptr"](self) if self.numel() else 0, False),
        "version": 2,
    }


METHODS["__cuda_array_interface__"] = property(_interface)  # type: ignore[assignment]

# ------------------------------------------------------------------------------------------- import


def over(array: np.ndarray, place: device) -> Tensor:
    """A tensor on a GPU over memory of another library there: writes on either side show on the
    other.

    Args: array: says where it is, and keeps it alive; it is not looked at.
    Raises: BufferError: elements are not aligned, or their order is that of no tensor.
    """
    size = array.itemsize
    if not array.size:
        nothing = np.empty(array.shape, array.dtype)
        return from_value(Leaf(DeviceBuffer.of(nothing, device_of(place))), place)
    if array.ctypes.data % size or any(s % size or s < 0 for s in array.strides):
        raise BufferError(
            "memory whose elements are not aligned to their size, or lie backwards, cannot be "
            "shared: copy it"
        )
    if array.flags.c_contiguous:
        return _whole(array, array.shape, place)
    strides = [s // size for s in array.strides]
    last = sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True))
    return FUNCTIONS["as_strided"](_whole(array, (last + 1,), place), array.shape, strides)  # type: ignore[no-any-return]


INTERFACE = "__cuda_array_interface__"


def of_interface(source: Any) -> Tensor:
    """A tensor over the memory that an object's ``__cuda_array_interface__`` tells of, on its GPU.

    Raises: TypeError: it may not be written to, or PyTorch has no such dtype. ValueError: its
        strides are not whole numbers of elements, or negative. RuntimeError: there is no GPU here,
        or it is the emulated one, which has no such memory.
    """
    told = getattr(source, INTERFACE)
    place = gpu(None)
    if name_of(place)[0] != CUDA:
        raise RuntimeError(
            f"memory that a {type(source).__name__} tells of by {INTERFACE} cannot be shared: "
            f"{place} is the emulated GPU, whose memory is the host's"
        )
    address, read_only = told["data"]
    if read_only:
        raise TypeError("the read only flag is not supported, should always be False")
    dtype, shape = np.dtype(told["typestr"]), tuple(told["shape"])
    _check_elements(dtype, told.get("strides"))
    if 0 in shape:
        return over(np.empty(shape, dtype), place)
    place = gpu(device_of(place).holder(address))
    if told.get("stream") is not None:
        device_of(place).follow(told["stream"])
    exposed: Any = Exposed.from_address(address)
    exposed.buffer = source
    return over(np.ndarray(shape, dtype, exposed, strides=told.get("strides")), place)


def _check_elements(dtype: np.dtype[Any], strides: tuple[int, ...] | None) -> None:
    """Raise where no tensor has such elements, or lies so."""
    if not dtype.isnative or dtype not in BY_NUMPY:
        raise TypeError(f"memory of elements {dtype.str!r} cannot be shared: no tensor has such")
    if any(s % dtype.itemsize for s in strides or ()):
        raise ValueError(
            "given array strides not a multiple of the element byte size. Make a copy of the array "
            "to reallocate the memory."
        )
    if any(s < 0 for s in strides or ()):
        raise ValueError("negative strides cannot be shared: make a copy of the array")


def _whole(array: np.ndarray, shape: tuple[int, ...], place: device) -> Tensor:
    """The memory from an array's first element on, row-major."""
    runner, dtype = device_of(place), DType.of(array.dtype)
    count = int(np.prod(shape, dtype=np.int64))
    memory = Foreign(runner, array.ctypes.data, count * dtype.itemsize, array)
    buffer = DeviceBuffer(runner, dtype, shape, memory, memory.address)
    made = from_value(Leaf(buffer), place)
    made._storage.host = buffer  # type: ignore[assignment]
    return made


__all__ = [
    "CPU",
    "INTERFACE",
    "capsule",
    "is_gpu",
    "name_of",
    "of_interface",
    "over",
    "place_of",
    "stream_of",
]
