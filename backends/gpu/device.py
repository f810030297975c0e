"""What a device does for programs: memory, code, launches. The emulated one offers it (emulated.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class DeviceError(RuntimeError):
    """A kernel did what it must not do: the device says which, and where."""


@dataclass(frozen=True)
class Properties:
    """What a device is.

    Attributes:
        capability: major and minor version of what it computes.
        multiprocessors: blocks that run at once, at least.
        shared: bytes of shared memory that a block may have.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    multiprocessors: int
    shared: int = 48 << 10


class Memory(Protocol):
    """A stretch of a device's memory, given back when nobody holds it."""

    address: int
    size: int


class Module(Protocol):
    """Compiled kernels, loaded."""

    def launch(self, function: str, blocks: int, threads: int, buffers: Sequence[tuple[int, int]],
               sizes: Sequence[tuple[str, int]], status: int, shared: int = 0) -> None:
        """Put a kernel into the device's queue.

        Args:
            buffers: address and extent in bytes of each buffer.
            sizes: C type and value of each size.
            status: address of the word that a data-dependent error is written to.
            shared: bytes of shared memory that are asked for beyond what the kernel declares.
        """


class Device(Protocol):
    """A device: all it does happens in the order in which it is asked for."""

    @property
    def properties(self) -> Properties: ...

    def allocate(self, size: int) -> Memory:
        """Memory of at least `size` bytes. Raises: MemoryError."""

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Copy bytes to the device."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the device, after all that was asked for before."""

    def copy(self, to: int, address: int, size: int) -> None:
        """Copy bytes of the device to another place there."""

    def load(self, text: str, kernels: Sequence[str]) -> Module:
        """Compile a unit (unit.py) and load it."""
