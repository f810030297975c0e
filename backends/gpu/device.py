"""What a device does for programs: memory, code, launches, events, replay. GPUs offer it
(cupy_device.py), and the emulated one (emulated.py).

A device has one queue: all it does happens in the order in which it is asked for, and all but
reading returns before it has happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from ..dataclass import dataclass
from ..record import Site

if TYPE_CHECKING:
    from .pool import Statistics
    from .status import Status


class DeviceError(RuntimeError):
    """A kernel did what it must not do: the device says which, and where."""


@dataclass(frozen=True)
class Properties:
    """What a device is.

    Attributes:
        capability: major and minor version of what it computes.
        memory: bytes in all.
        multiprocessors: how many parts run blocks by themselves.
        shared: bytes of shared memory that a block may ask for.
        warp: threads that run in step.
        cache: bytes of the cache that all multiprocessors share.
        threads: most threads that a multiprocessor has at a time.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    multiprocessors: int
    shared: int = 48 << 10
    warp: int = 32
    cache: int = 4 << 20
    threads: int = 2048


@dataclass(frozen=True)
class Piece:
    """Text of a unit that is compiled by itself, and the names of the kernels in it."""

    text: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """A kernel with its arguments, but for the addresses.

    Attributes:
        buffers: for each the number of the memory that it lies in, and how many bytes after its
            beginning.
        sizes: C type and value of each.
        shared: bytes of shared memory that are asked for beyond what the kernel declares.
    """

    function: str
    blocks: int
    threads: int
    buffers: tuple[tuple[int, int], ...]
    sizes: tuple[tuple[str, int], ...] = ()
    shared: int = 0


class Memory(Protocol):
    """A stretch of memory, given back when nobody holds it."""

    address: int
    size: int


class Series(Protocol):
    """Launches, one after the other, that are made ready once."""

    def __call__(self, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        """Put the launches into the device's queue.

        Args: addresses, sizes: of the memories that the launches number; the last one is the word
            that a data-dependent error is written to.
        """


class Module(Protocol):
    """Compiled kernels, loaded."""

    def series(self, launches: Sequence[Launch]) -> Series:
        """Make launches ready."""


class Event(Protocol):
    """A place in a device's queue."""

    def record(self) -> None:
        """Take the place behind all that was asked for so far."""

    def done(self) -> bool:
        """Whether all that stands before it has happened."""

    def synchronize(self) -> None:
        """Wait for that. Raises: as `Device.synchronize`."""

    def elapsed(self, later: Any) -> float:
        """Milliseconds from this event to a later one; both are done."""


class Replay(Protocol):
    """What was captured."""

    def __call__(self) -> None:
        """Put all of it into the device's queue again, with the same addresses."""


class Device(Protocol):
    """A device."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def properties(self) -> Properties: ...

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held by a thread whose launches must not be mixed with another's."""

    @property
    def stream(self) -> int:
        """The handle of its queue, for other libraries; 0 where it has none."""

    @property
    def dlpack(self) -> tuple[int, int]:
        """What DLPack calls it: DLDeviceType and number. The emulated one is an extension's
        (kDLExtDev), which other libraries refuse: none of them could use its memory."""

    def precede(self, stream: int) -> None:
        """Let a stream of another library wait for what was asked for so far."""

    def follow(self, stream: int) -> None:
        """Let what is asked for from now on wait for what is in a stream of another library."""

    def holder(self, address: int) -> int:
        """The number of the GPU that memory of another library is on."""

    def keep(self, owner: object) -> None:
        """Let an owner of memory go when what was asked for so far has happened. May be called at
        any place, by the collector of garbage."""

    # ---- memory

    def allocate(self, size: int) -> Memory:
        """Memory of at least `size` bytes. Raises: MemoryError."""

    def allocate_all(
        self, sizes: Sequence[int], wishes: Sequence[Sequence[int]]
    ) -> Sequence[Memory]:
        """Memories of these sizes, each at one of the addresses that are wished for it, if one is
        free."""

    def pinned(self, size: int) -> Memory:
        """Memory of the host that the device reaches as well, at the same address."""

    def write(
        self, address: int, data: bytes | bytearray | memoryview, held: object = None
    ) -> None:
        """Copy bytes to the device.

        Args:
            data: it may be changed as soon as this returns, unless it is `pinned` memory: that is
                read later.
            held: who owns pinned memory: is kept until it was read.
        """

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the device, after all that was asked for before. Raises: as `synchronize`."""

    def download(self, to: int, address: int, size: int, held: object = None) -> None:
        """Copy bytes to the host's memory, and return when they are there. Raises: as
        `synchronize`.

        Args: held: who owns `to`, where that is pinned memory: is kept until the bytes are there,
            which this does not wait for then.
        """

    def copy(self, to: int, address: int, size: int) -> None:
        """Copy bytes of the device to another place there."""

    def clear(self, address: int, size: int) -> None:
        """Write zeros."""

    def memory_info(self) -> tuple[int, int]:
        """How many bytes are free, and how many there are, whoever uses the rest."""

    def statistics(self) -> Statistics:
        """A copy of the counters."""

    def reset_peaks(self) -> None:
        """Let the peaks begin anew at what is used now."""

    def release(self) -> None:
        """Give memory that nobody holds back to the system."""

    # ---- code

    @property
    def compilers(self) -> int:
        """How many pieces are compiled at a time."""

    def load(self, pieces: Sequence[Piece]) -> Module:
        """Compile a unit (unit.py) and load it. Raises: DeviceError: the compiler refuses it."""

    def begin_capture(self) -> None:
        """From here on launches and copies on the device are noted, not done; `lock` is held
        meanwhile."""

    def end_capture(self) -> Replay:
        """What was noted since `begin_capture`."""

    # ---- the queue

    def event(self) -> Event:
        """A new event."""

    def status(self, sites: Sequence[Site]) -> Status:
        """A word for the data-dependent errors of a program, for `expect`."""

    def expect(self, status: Status) -> None:
        """Look at `status` when it is known what was launched so far has done."""

    def synchronize(self) -> None:
        """Wait until all has happened that was asked for.

        Raises:
            DeviceError: a kernel did what it must not.
            Exception: the first of the data-dependent errors that were met since the last time.
        """
