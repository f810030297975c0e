"""Exchange of memory by DLPack (https://dmlc.github.io/dlpack)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._deferred import running
from .._deferred.tensor import Tensor
from .._ops.base import METHODS, register
from .._ops.creation import from_array, from_numpy
from .._types import check_device, device, gpu
from . import capsules, gpu_memory
from .capsules import CPU, array_in, capsule_from, capsule_of, is_capsule


def _dlpack(
    self: Tensor,
    *,
    stream: Any = -1,
    max_version: Any = None,
    dl_device: Any = None,
    copy: bool | None = None,
) -> Any:
    """A DLPack capsule over this tensor's memory, for ``from_dlpack`` of other libraries.

    Args:
        stream: of a tensor on a GPU, the stream that its memory will be used in: the handle of one,
            1 or None for the legacy default one, 2 for the thread's own, -1 for one that waits
            by itself.
        max_version: the latest version of DLPack that the consumer knows.
        dl_device: where the memory is to be, as `__dlpack_device__` says it; a copy if need be.
        copy: whether it is to be a copy; None: if need be.

    Raises: BufferError for a tensor that requires a gradient, or without memory of its own.
        ValueError: there is no such device, or it would have to be a copy.
    """
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if self.is_sparse:
        raise BufferError("Can't export tensors with layout other than torch.strided")
    own = _dlpack_device(self)
    if stream is not None and type(stream) is not int:
        raise TypeError("stream must be ``int`` or ``none``")
    wanted = own if dl_device is None else _named(dl_device)
    if wanted != own:
        place = _place(wanted)
        if copy is False:
            raise ValueError(f"cannot move a tensor from {self.device} to {place} without copying")
        return _dlpack(METHODS["to"](self, place), stream=stream, max_version=max_version)
    running._refuse_in_capture()
    source = METHODS["clone"](self) if copy else self
    if self.is_cuda:
        return gpu_memory.capsule(source, stream, max_version)
    if stream is not None and stream != -1:
        raise AssertionError("stream should be None on cpu.")
    array = running.share(source._storage)
    return capsule_of(array if source._view is None else source._view.over(array), max_version)


def _dlpack_device(self: Tensor) -> tuple[int, int]:
    """The DLDeviceType and the number of the device that this tensor is on.

    The emulated GPU is an extension's device (kDLExtDev), which other libraries refuse, since they
    could not use its memory.
    """
    if self.is_meta:
        raise ValueError(f"Unknown device type {self.device.type} for Dlpack")
    return gpu_memory.name_of(self.device) if self.is_cuda else CPU


METHODS["__dlpack__"], METHODS["__dlpack_device__"] = _dlpack, _dlpack_device


def _named(device: Any) -> tuple[int, int]:
    kind, number = device
    return int(kind), int(number)


def _place(name: tuple[int, int]) -> device:
    """The device that DLPack names so. Raises ValueError: there is none here."""
    if name == CPU:
        return check_device("cpu")
    try:
        found = gpu(name[1])
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"there is no device {name} here: {error}") from None
    if gpu_memory.name_of(found) != name:
        raise ValueError(
            f"there is no device {name} here: {found} is {gpu_memory.name_of(found)} to DLPack"
        )
    return found


@register("from_dlpack", method=False)
def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of any DLPack object, or capsule, on the CPU or a GPU.

    Args:
        device: where the tensor is to be; a copy if need be.
        copy: whether it is to have its own memory; None: if need be.

    Raises: RuntimeError for what is neither, BufferError for memory elsewhere, or that may not be
        written to. ValueError: it would have to be a copy, and `copy` is False.
    """
    made = _shared(ext_tensor, copy)
    place = made.device if device is None else check_device(device)
    if made.device is not place:
        if copy is False:
            raise ValueError(
                f"cannot move DLPack tensor from device {made.device} to {place} without copying. "
                "Set copy=None or copy=True."
            )
        return METHODS["to"](made, place)  # type: ignore[no-any-return]
    return METHODS["clone"](made) if copy else made  # type: ignore[no-any-return]


def _shared(source: Any, copy: bool | None) -> Tensor:
    if isinstance(source, Tensor) and source.is_cuda:
        if source.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return source.detach()
    if is_capsule(source):
        return _consumed(source, copy)
    if not hasattr(source, "__dlpack__"):
        raise RuntimeError(
            "from_dlpack received an invalid capsule: expected an object with __dlpack__ or a "
            f"DLPack capsule, got {type(source).__name__}"
        )
    name = _named(source.__dlpack_device__())
    if gpu_memory.is_gpu(name):
        stream = gpu_memory.stream_of(gpu_memory.place_of(name))
        return _consumed(capsule_from(source.__dlpack__, stream=stream), copy)
    if name == CPU:
        return _consumed(capsule_from(source.__dlpack__), copy)
    return _of_array(np.from_dlpack(source), copy)  # pinned memory; NumPy refuses what is elsewhere


def _consumed(capsule: Any, copy: bool | None) -> Tensor:
    name, array = capsules.device_in(capsule), array_in(capsule)
    if not gpu_memory.is_gpu(name):
        return _of_array(array, copy)
    made = gpu_memory.over(array, gpu_memory.place_of(name))
    return made if _may_share(array, copy) else METHODS["clone"](made)  # type: ignore[no-any-return]


def _of_array(array: np.ndarray, copy: bool | None) -> Tensor:
    return from_numpy(array) if _may_share(array, copy) else from_array(array.copy())


def _may_share(array: np.ndarray, copy: bool | None) -> bool:
    """Whether a tensor may lie over that memory. Raises BufferError: it may not, and must."""
    if not array.flags.writeable and array.size and copy is False:
        raise BufferError("memory that must not be written to cannot be shared: leave out copy")
    return array.flags.writeable or not array.size
