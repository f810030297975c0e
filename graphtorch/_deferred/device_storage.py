"""The cell of a tensor on a GPU, and what it shares with other libraries.

What is exchanged by DLPack is memory: from then on an operation that reads it takes a copy of the
bytes, in the device's queue, and a write runs at once and lands in that memory. All of it happens
in the order of the queue, so nothing waits.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

import numpy as np

from graphtorch.ir.graph import Value

from .._types import CPU, device
from .door import Buffer, DeviceBuffer, Foreign, copied_to
from .storage import _HELD_ONCE, Leaf, Storage, View, copied, is_contiguous, recorder


class DeviceStorage(Storage):
    """The cell of a tensor on a GPU.

    Attributes:
        host: the memory that this storage shares with code outside, which holds this object as
            long as it uses it; None where there is none.
    """

    __slots__ = ("place",)
    host: DeviceBuffer | None  # type: ignore[assignment]
    place: device
    used = False  # whether there ever was one: programs without pay for nothing else

    def __init__(self, value: Value, place: device):
        DeviceStorage.used = True
        super().__init__(_there(value, place))
        self.place = place

    def put(self, value: Value) -> None:
        """Replace the value."""
        super().put(_there(value, self.place))

    def read(self) -> Value:
        """The value now. Memory that is shared is copied: later writes there must not be seen."""
        if recorder.capture is not None:
            return recorder.capture.read(self)
        if self.host is None or self._holds_host_alone():
            self.host = None
            return self.value
        return Leaf(self.host.copy())

    def read_part(self, view: View) -> Leaf | None:
        """A part of shared memory without gaps, copied; None where `read` copies nothing, or no
        more."""
        if self.host is None or recorder.capture is not None or self._holds_host_alone():
            return None
        if view.type.dtype is not self.host.dtype or view.type.numel >= self.value.type.numel:
            return None
        if not is_contiguous(view.type.shape, view.strides):
            return None
        return Leaf(self.host.part(view.offset, view.type.shape).copy())  # type: ignore[arg-type]

    def land(self, leaf: Leaf) -> None:
        """Put elements of this type into the memory that is shared."""
        host = self.host
        assert host is not None
        there: Any = _there(leaf, self.place)
        host.device.copy(host.address, there.buffer.address, host.nbytes)
        self.epoch += 1

    def look(self) -> np.ndarray:
        """A copy of the elements of memory that is shared."""
        assert self.host is not None
        return self.host.numpy()

    def expose(self) -> DeviceBuffer:  # type: ignore[override]
        """Elements in memory for code outside, which is to hold what this returns; from now on
        writes land in them."""
        if self.host is None:
            if not self._is_sole_reader():
                self.value = Leaf(copied(self.value.buffer))  # type: ignore[attr-defined]
            self.host = self.value.buffer.again()  # type: ignore[attr-defined]
        return self.host

    def lend(self) -> None:
        """Let code outside look at memory that is shared as long as this storage lives, without
        holding anything."""
        assert self.host is not None
        if type(self.host.memory) is not Foreign:
            self.host = self.host.lent()

    def __deepcopy__(self, memo: Any) -> Storage:
        made = DeviceStorage(self.read(), self.place)
        if type(made.value) is Value:
            recorder.adopt(made)
        return made

    def memory(self) -> np.ndarray | None:
        """None: writes to a GPU are recorded."""
        return None

    def _holds_host_alone(self) -> bool:
        """As a `Storage`'s; memory of another library may be looked at there at any time."""
        if type(self.host.memory) is Foreign:  # type: ignore[union-attr]
            return False
        return getrefcount(self.host) <= _HELD_ONCE

    def _is_sole_reader(self: Any) -> bool:
        """As a `Storage`'s: whether writes to the memory of the leaf would be unseen."""
        return (
            getrefcount(self.value) <= _HELD_ONCE
            and getrefcount(self.value.buffer) <= _HELD_ONCE
            and not getweakrefcount(self.value.buffer)
            and getrefcount(self.value.buffer.memory) <= _HELD_ONCE
        )


def _there(value: Value, place: device) -> Value:
    """`value`, if it is in memory, in that of the GPU `place`."""
    if type(value) is Leaf and isinstance(value.buffer, Buffer):
        return Leaf(copied_to(value.buffer, place))
    return value


def stored(value: Value, place: device) -> Storage:
    """A new cell on a device."""
    return Storage(value) if place is CPU else DeviceStorage(value, place)
