"""Arrays in a device's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphtorch.ir.dtype import DType

from ..buffer import Buffer
from .device import Device, Memory


class Foreign:
    """Memory of a device that code of other libraries may read and write at any time.

    Its owner is kept until nobody here holds it and what was asked for so far has happened.
    """

    __slots__ = ("_device", "_owner", "address", "size")

    def __init__(self, device: Device, address: int, size: int, owner: object):
        self._device = device
        self._owner = owner
        self.address = address
        self.size = size

    def __del__(self) -> None:
        self._device.keep(self._owner)


class DeviceBuffer:
    """A row-major array on a device: as `backends.Buffer`, whose place it takes there.

    `memory` keeps the bytes alive. Buffers are values: only a donated one is ever written again, by
    the call that takes it over.
    """

    __slots__ = ("__weakref__", "address", "device", "dtype", "memory", "shape")

    def __init__(
        self, device: Device, dtype: DType, shape: tuple[int, ...], memory: Memory, address: int
    ):
        self.device = device
        self.dtype = dtype
        self.shape = shape
        self.memory = memory
        self.address = address

    @staticmethod
    def empty(device: Device, dtype: DType, shape: Sequence[int]) -> DeviceBuffer:
        """New memory, not initialised. Raises: MemoryError."""
        memory = device.allocate(math.prod(shape) * dtype.itemsize)
        return DeviceBuffer(device, dtype, tuple(shape), memory, memory.address)

    @staticmethod
    def of(array: np.ndarray, device: Device, held: object = None) -> DeviceBuffer:
        """A copy of an array.

        Args: held: who owns the array's memory, where that is pinned (see `Device.write`).
        """
        made = DeviceBuffer.empty(device, DType.of(array.dtype), array.shape)
        if array.size:
            device.write(
                made.address, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, held
            )
        return made

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> np.ndarray:
        """A copy of the elements, read only: what is written to it would be lost."""
        data = self.device.read(self.address, self.nbytes)
        return np.frombuffer(data, self.dtype.numpy).reshape(self.shape)

    def host(self) -> Buffer:
        """A copy in the host's memory."""
        made = Buffer.empty(self.dtype, self.shape)
        self.device.download(made.address, self.address, self.nbytes)
        return made

    def copy(self) -> DeviceBuffer:
        """The same elements in other memory of the device."""
        made = DeviceBuffer.empty(self.device, self.dtype, self.shape)
        self.device.copy(made.address, self.address, self.nbytes)
        return made

    def part(self, offset: int, shape: Sequence[int]) -> DeviceBuffer:
        """The elements from `offset` on, as a buffer of `shape` over the same memory."""
        shape = tuple(shape)
        if 0 in shape:
            offset = 0  # no elements: a slice of an empty array may claim to start behind its end
        if offset < 0 or offset + math.prod(shape) > math.prod(self.shape):
            raise IndexError(
                f"elements {offset} to {offset + math.prod(shape)} of a buffer of shape "
                f"{self.shape}"
            )
        return DeviceBuffer(
            self.device, self.dtype, shape, self.memory, self.address + offset * self.dtype.itemsize
        )

    def again(self) -> DeviceBuffer:
        """The same memory as another buffer, for which nothing stands that was made of this one."""
        return DeviceBuffer(self.device, self.dtype, self.shape, self.memory, self.address)

    def lent(self) -> DeviceBuffer:
        """The same memory for code that will not say when it is done with it."""
        memory = Foreign(self.device, self.address, self.nbytes, self.memory)
        return DeviceBuffer(self.device, self.dtype, self.shape, memory, self.address)

    def __repr__(self) -> str:
        return (
            f"<device buffer {self.dtype}[{', '.join(map(str, self.shape))}] at {self.address:#x}>"
        )
