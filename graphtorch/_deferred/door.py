"""Where elements of tensors live, and how graphs become programs: the front end's one door to
backends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.backends import Buffer, Executable
from graphtorch.backends import compile as _compile
from graphtorch.backends.buffer import Block, Exposed, Held, MappedFile, address_of
from graphtorch.backends.gpu import devices
from graphtorch.backends.gpu.buffer import DeviceBuffer, Foreign
from graphtorch.backends.gpu.device import Device
from graphtorch.backends.identity import (
    ITEM,
    LENGTH,
    LIST_ITEM,
    LIST_LENGTH,
    PART,
    PART_LENGTH,
    PART_VALUES,
    Row,
    identities,
)
from graphtorch.backends.objects import Given, New, is_quick, maker
from graphtorch.backends.packed_only import keep
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type
from graphtorch.ir.passes.limits import Exactness
from graphtorch.ir.shape import Condition

from .. import _settings
from .._types import CPU, device, gpu
from .failures import OutOfMemoryError, out_of_memory

ALWAYS_FITS = 1 << 24  # elements: nothing is asked about fewer

CHOSEN = os.environ.get("GRAPHTORCH_TARGET")  # how every graph runs; None: as it pays


def pending_program(
    graph: Graph, conditions: Sequence[Condition] = (), place: device = CPU
) -> Executable:
    """What runs a graph that was recorded line by line; `conditions` hold for its symbols."""
    return captured_program(graph, (), conditions, place, Exactness.ALGORITHM)


def captured_program(
    graph: Graph,
    stable: Sequence[int] = (),
    conditions: Sequence[Condition] = (),
    place: device = CPU,
    exact: Exactness = Exactness.NONE,
    tune: float = 0.0,
) -> Executable:
    """What runs a graph that the user asked to compile; `stable` inputs seldom change.

    Args: tune: seconds for measuring schedules of kernels; 0: none are.
    """
    exact = Exactness.BITS if _settings.deterministic() else exact
    if place is CPU:
        return _compile(graph, CHOSEN or "llvm", stable, conditions, exact=exact, tune=tune)
    number, tf32 = place.index or 0, _settings.tf32()
    return _compile(graph, "cuda", stable, conditions, device=number, exact=exact, tf32=tf32)


def on_gpu(place: device, key: object) -> object:
    """The key of a structure for a GPU: it is compiled for that one, and for what is asked of
    results."""
    return place, _settings.deterministic(), _settings.tf32(), key


def device_of(place: device) -> Device:
    """What runs programs and holds memory for `place`, a GPU."""
    return devices.device(place.index or 0)


def check_room(made: Type, place: device) -> None:
    """Whether a GPU could hold a tensor that is made on it, though nobody may ever store its
    elements.

    Raises: OutOfMemoryError.
    """
    size = made.numel
    if place.type == "cuda" and isinstance(size, int) and size > ALWAYS_FITS:
        total, wanted = device_of(place).properties.memory, size * made.dtype.itemsize
        if wanted > total:
            raise OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {wanted:,} bytes. GPU "
                f"{place.index or 0} has a total capacity of {total:,} bytes"
            )


def gpus() -> int:
    """How many GPUs there are."""
    return devices.count()


def place_of(buffer: Buffer | DeviceBuffer) -> device:
    """The device that a buffer is on."""
    return CPU if isinstance(buffer, Buffer) else gpu(buffer.device.index)


def uploaded(array: np.ndarray, place: device) -> DeviceBuffer:
    """A copy of an array on a GPU. Raises: OutOfMemoryError."""
    with out_of_memory():
        return DeviceBuffer.of(array, device_of(place))


class Pinned:
    """Owns memory of the host that GPUs read by themselves, while the program goes on."""

    __slots__ = ("memory",)

    def __init__(self, memory: Any):
        self.memory = memory


def pinned(array: np.ndarray) -> Buffer:
    """A copy of an array in memory that the present GPU reads by itself. Raises: AssertionError: no
    GPU."""
    memory = device_of(gpu()).pinned(array.nbytes)
    made = Buffer(memory.address, DType.of(array.dtype), array.shape, Pinned(memory))
    np.copyto(made.numpy(), array)
    return made


def copied_to(buffer: Buffer | DeviceBuffer, place: device) -> Buffer | DeviceBuffer:
    """A copy of a buffer on another device. Raises: OutOfMemoryError."""
    if not isinstance(buffer, Buffer):
        return buffer.host() if place is CPU else uploaded(buffer.numpy(), place)
    with out_of_memory():
        held = buffer.owner if type(buffer.owner) is Pinned else None
        return DeviceBuffer.of(buffer.numpy(), device_of(place), held)


__all__ = [
    "CHOSEN",
    "ITEM",
    "LENGTH",
    "LIST_ITEM",
    "LIST_LENGTH",
    "PART",
    "PART_LENGTH",
    "PART_VALUES",
    "Block",
    "Buffer",
    "Device",
    "DeviceBuffer",
    "Executable",
    "Exposed",
    "Foreign",
    "Given",
    "Held",
    "MappedFile",
    "New",
    "Pinned",
    "Row",
    "address_of",
    "captured_program",
    "copied_to",
    "device_of",
    "gpus",
    "identities",
    "is_quick",
    "keep",
    "maker",
    "pending_program",
    "pinned",
    "place_of",
    "uploaded",
]
