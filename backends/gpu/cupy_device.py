"""A GPU through CuPy: memory from a pool, modules and launches by the driver, one stream, captured
graphs.

The package's other modules import this one when a GPU is asked for, because it imports CuPy. Of
CuPy its bindings of the CUDA runtime and driver are used, its memory pool and its graphs; arrays
and kernels are our own. See https://docs.cupy.dev/en/stable/reference/cuda.html
"""

from __future__ import annotations

import collections
import ctypes
import gc
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import cupy
import numpy as np
from cupy.cuda import driver, runtime

from ..locks import lock_of_object
from ..record import Site
from . import nvrtc
from .arguments import Arguments
from .device import DeviceError, Launch, Piece, Properties
from .machine import HAVE_WARPGROUPS
from .pool import Pool, PooledMemory, Statistics
from .status import Status, Statuses

Result = TypeVar("Result")
SERIES = 8  # of launches, whose kernels a report of a fault names
NAMED = 12  # kernels that it names at most
COMPILERS = 16  # threads that compile at a time
CUDA = 2  # DLPack's name of GPUs: kDLCUDA
LEGACY = 1  # the handle of the legacy default stream
MAX_DYNAMIC_SHARED = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
ATTRIBUTES = {
    "multiprocessors": runtime.cudaDevAttrMultiProcessorCount,
    "shared": runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin,
    "warp": runtime.cudaDevAttrWarpSize,
    "cache": runtime.cudaDevAttrL2CacheSize,
    "threads": runtime.cudaDevAttrMaxThreadsPerMultiProcessor,
}


def _at_first(call: Callable[..., Result], *args: object) -> Result:
    """The result of a call of CUDA's runtime before there are kernels."""
    try:
        return call(*args)
    except runtime.CUDARuntimeError as error:
        raise DeviceError(f"CUDA error: {error}") from error


class CupyDevice:
    """The GPU of that number."""

    def __init__(self, index: int = 0):
        """Raises: DeviceError: CUDA cannot use it."""
        self.index = index
        self.lock = lock_of_object()
        self._entered = threading.local()
        self._alone = _at_first(runtime.getDeviceCount) == 1
        self._blocking = os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")
        self._recent: collections.deque[tuple[str, ...]] = collections.deque(maxlen=SERIES)
        self._in_flight: collections.deque[tuple[CupyEvent, object]] = collections.deque()
        self._leaving: collections.deque[object] = collections.deque()  # to be put in flight
        self.enter()
        self.properties = _at_first(_properties, index)
        # waits for the null stream, which others use
        self._stream = cupy.cuda.Stream(non_blocking=False)
        self.stream: int = self._stream.ptr
        self._system = cupy.cuda.MemoryPool()
        self._pool = Pool(self._take)
        self._statuses = Statuses(self.pinned)

    def enter(self) -> None:
        """Make the GPU the calling thread's, as CUDA's calls ask for."""
        if not self._alone:
            runtime.setDevice(self.index)
        elif not getattr(self._entered, "yes", False):
            _at_first(runtime.setDevice, self.index)
            _at_first(runtime.free, 0)  # makes the context where there was none
            self._entered.yes = True

    # ---- memory

    def allocate(self, size: int) -> PooledMemory:
        return self._pool.allocate(size)

    def allocate_all(
        self, sizes: Sequence[int], wishes: Sequence[Sequence[int]]
    ) -> list[PooledMemory]:
        return self._pool.allocate_all(sizes, wishes)

    def _take(self, size: int) -> CupyBlock:
        """New memory; where there is none, after all that nobody holds was given back."""
        self.enter()
        try:
            return CupyBlock(self._system.malloc(size))
        except MemoryError:
            gc.collect()  # circles of objects may hold memory
            self.release()
        try:
            return CupyBlock(self._system.malloc(size))
        except MemoryError:
            free, total = self.memory_info()
            held, reserved = self._pool.statistics.allocated, self._pool.statistics.reserved
            raise MemoryError(
                f"CUDA out of memory. Tried to allocate {_readable(size)}. GPU {self.index} has a "
                f"total capacity of {_readable(total)} of which {_readable(free)} is free. Of the "
                f"memory in use, {_readable(held)} is held by tensors of this program, and "
                f"{_readable(reserved - held)} is reserved by it but unallocated."
            ) from None

    def pinned(self, size: int) -> PinnedMemory:
        self.enter()
        return PinnedMemory(_at_first(cupy.cuda.alloc_pinned_memory, max(size, 1)), size)

    def write(
        self, address: int, data: bytes | bytearray | memoryview, held: object = None
    ) -> None:
        if len(data):
            place = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
            self._copy(address, place, len(data), runtime.memcpyHostToDevice)
            self._hold(held)

    def read(self, address: int, size: int) -> bytes:
        found = bytearray(size)
        if size:
            self.download(ctypes.addressof(ctypes.c_char.from_buffer(found)), address, size)
        return bytes(found)

    def download(self, to: int, address: int, size: int, held: object = None) -> None:
        self._copy(to, address, size, runtime.memcpyDeviceToHost)
        if held is None:
            self.synchronize()
        self._hold(held)

    def _hold(self, held: object) -> None:
        """Keep an owner of pinned memory, and those of foreign memory that was let go, until what
        was asked for so far has happened."""
        with self.lock:
            while self._in_flight and self._in_flight[0][0].done():
                self._in_flight.popleft()
            owners = self._left()
            if held is not None or owners:
                event = self.event()
                event.record()
                self._in_flight.append((event, (held, owners)))

    def _left(self) -> list[object]:
        """The owners of memory that nobody holds any more since the last time."""
        return [self._leaving.popleft() for _ in range(len(self._leaving))]

    @property
    def dlpack(self) -> tuple[int, int]:
        return CUDA, self.index

    def precede(self, stream: int) -> None:
        """Streams that block for the legacy default one, as ours does, need nothing from it."""
        self._hold(None)
        if stream not in (LEGACY, self.stream):
            event = self.event()
            event.record()
            self.asked(runtime.streamWaitEvent, stream, event.handle)

    def follow(self, stream: int) -> None:
        """Ours blocks for the legacy default stream by itself."""
        if stream not in (LEGACY, self.stream):
            event = self.event()
            self.asked(runtime.eventRecord, event.handle, stream)
            self.asked(runtime.streamWaitEvent, self.stream, event.handle)

    def holder(self, address: int) -> int:
        return int(self.asked(runtime.pointerGetAttributes, address).device)

    def keep(self, owner: object) -> None:
        self._leaving.append(owner)

    def copy(self, to: int, address: int, size: int) -> None:
        self._copy(to, address, size, runtime.memcpyDeviceToDevice)

    def _copy(self, to: int, address: int, size: int, kind: int) -> None:
        if size:
            self.queue(runtime.memcpyAsync, to, address, size, kind, self.stream)

    def clear(self, address: int, size: int) -> None:
        if size:
            self.queue(runtime.memsetAsync, address, 0, size, self.stream)

    def memory_info(self) -> tuple[int, int]:
        self.enter()
        free, total = self.asked(runtime.memGetInfo)
        return free, total

    def statistics(self) -> Statistics:
        return replace(self._pool.statistics)

    def reset_peaks(self) -> None:
        self._pool.reset_peaks()

    def release(self) -> None:
        self._pool.release()
        self.enter()
        self._system.free_all_blocks()

    # ---- code

    @property
    def compilers(self) -> int:
        return min(os.cpu_count() or 1, COMPILERS)

    def load(self, pieces: Sequence[Piece]) -> CupyModule:
        major, minor = self.properties.capability
        own = "a" if major == HAVE_WARPGROUPS else ""  # with instructions of this GPU alone
        name = f"sm_{major}{minor}{own}"
        cubins = nvrtc.cubins([p.text for p in pieces], name, self.compilers)
        return CupyModule(self, [(c, p.kernels) for c, p in zip(cubins, pieces, strict=True)])

    def begin_capture(self) -> None:
        self.enter()
        self.lock.acquire()
        try:
            self.asked(self._stream.begin_capture)
        except BaseException:
            self.lock.release()
            raise

    def end_capture(self) -> Callable[[], None]:
        try:
            graph = self.asked(self._stream.end_capture)
        finally:
            self.lock.release()
        names = tuple(dict.fromkeys(name for series in self._recent for name in series))

        def replay() -> None:
            self._recent.append(names)
            self.queue(graph.launch, self._stream)

        return replay

    # ---- the queue

    def event(self) -> CupyEvent:
        self.enter()
        return CupyEvent(self)

    def status(self, sites: Sequence[Site]) -> Status:
        return self._statuses.new(sites)

    def expect(self, status: Status) -> None:
        self._statuses.expect(status)

    def synchronize(self) -> None:
        event = CupyEvent(self)
        with self.lock:
            left = self._left()
            event.record()
            expected, recent = self._statuses.taken(), len(self._recent)
        self.asked(runtime.eventSynchronize, event.handle)
        del left
        for _ in range(min(recent, len(self._recent))):
            self._recent.popleft()
        self._statuses.settle(expected)

    def settle(self) -> None:
        """Raise a data-dependent error that is known already."""
        self._statuses.settle()

    def queue(self, call: Callable[..., object], *args: object) -> None:
        """Put something into the stream, when no other thread captures what comes there."""
        self.enter()
        with self.lock:
            if self._leaving and not self._stream.is_capturing():
                self._hold(None)
            self.asked(call, *args)

    def launch(self, functions: tuple[str, ...], calls: Sequence[tuple[int, ...]]) -> None:
        """Launch kernels with the arguments of `cuLaunchKernel`; whoever calls holds the lock."""
        self._recent.append(functions)
        if self._leaving and not self._stream.is_capturing():
            self._hold(None)
        if self._blocking and not self._stream.is_capturing():
            self._one_by_one(functions, calls)
        else:
            self.asked(_launch, calls)

    def _one_by_one(self, functions: tuple[str, ...], calls: Sequence[tuple[int, ...]]) -> None:
        """Wait after each, so that an error names its kernel."""
        for name, call in zip(functions, calls, strict=True):
            self._recent = collections.deque([(name,)], SERIES)
            self.asked(driver.launchKernel, *call)
            self.asked(runtime.streamSynchronize, self.stream)

    def asked(self, call: Callable[..., Result], *args: object) -> Result:
        """The result of a call of CUDA. Raises: DeviceError: with the kernels that it may be
        about."""
        try:
            return call(*args)
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
            names = dict.fromkeys(name for series in self._recent for name in series)
            raise DeviceError(_report(error, list(names), self._blocking)) from error


def _launch(
    calls: Sequence[tuple[int, ...]], launch: Callable[..., None] = driver.launchKernel
) -> None:
    for call in calls:
        launch(*call)


def _properties(index: int) -> Properties:
    known = runtime.getDeviceProperties(index)
    found = {name: runtime.deviceGetAttribute(number, index) for name, number in ATTRIBUTES.items()}
    capability = known["major"], known["minor"]
    return Properties(known["name"].decode(), capability, known["totalGlobalMem"], **found)


def _report(error: Exception, kernels: Sequence[str], exact: bool) -> str:
    text = f"CUDA error: {error}"
    if not kernels:
        return text
    if exact:
        return f"{text}; in kernel {kernels[-1]}"
    listed = ", ".join(kernels[:NAMED])
    if len(kernels) > NAMED:
        listed += f" and {len(kernels) - NAMED} more"
    return (
        f"{text}; in one of the kernels launched since the last synchronisation: {listed}. With "
        "CUDA_LAUNCH_BLOCKING=1 the error names one"
    )


def _readable(size: int) -> str:
    """A size as PyTorch writes it."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} bytes"


class CupyBlock:
    """Memory of CuPy's pool."""

    __slots__ = ("_held", "address")

    def __init__(self, held: cupy.cuda.MemoryPointer):
        self._held = held
        self.address: int = held.ptr


class PinnedMemory:
    """Memory of the host that does not move."""

    __slots__ = ("_held", "address", "size")

    def __init__(self, held: cupy.cuda.PinnedMemoryPointer, size: int):
        self._held = held
        self.address: int = held.ptr
        self.size = size


class CupyEvent:
    """An event of CUDA's, which knows the time."""

    def __init__(self, device: CupyDevice):
        device.enter()
        self._device = device
        self._event = device.asked(cupy.cuda.Event)  # kept: its handle goes with it
        self.handle: int = self._event.ptr

    def record(self) -> None:
        self._device.queue(runtime.eventRecord, self.handle, self._device.stream)

    def done(self) -> bool:
        self._device.enter()
        return bool(self._device.asked(lambda: self._event.done))

    def synchronize(self) -> None:
        self._device.enter()
        self._device.asked(runtime.eventSynchronize, self.handle)
        self._device.settle()

    def elapsed(self, later: Any) -> float:
        self._device.enter()
        return float(self._device.asked(runtime.eventElapsedTime, self.handle, later.handle))


class CupyModule:
    """Kernels in cubins."""

    def __init__(self, device: CupyDevice, cubins: Sequence[tuple[bytes, Sequence[str]]]):
        device.enter()
        self.device = device
        self._modules = []  # kept: they are unloaded when they go
        self._functions: dict[str, int] = {}
        for cubin, names in cubins:
            module = cupy.cuda.function.Module()
            device.asked(module.load, cubin)
            self._modules.append(module)
            for name in names:
                self._functions[name] = device.asked(driver.moduleGetFunction, module.ptr, name)
        self._shared: dict[str, int] = {}

    def function(self, name: str, shared: int = 0) -> int:
        """The handle of a kernel that may ask for that many bytes of shared memory."""
        handle = self._functions[name]
        if shared > self._shared.get(name, 0):
            self.device.asked(driver.funcSetAttribute, handle, MAX_DYNAMIC_SHARED, shared)
            self._shared[name] = shared
        return handle

    def resources(self) -> dict[str, tuple[int, int]]:
        """For each kernel a thread's registers, and bytes of local memory: scratch and what is
        spilled."""
        self.device.enter()
        ask = self.device.asked
        return {
            name: (
                ask(driver.funcGetAttribute, driver.CU_FUNC_ATTRIBUTE_NUM_REGS, handle),
                ask(driver.funcGetAttribute, driver.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, handle),
            )
            for name, handle in self._functions.items()
        }

    def series(self, launches: Sequence[Launch]) -> CupySeries:
        return CupySeries(self, launches)


class CupySeries:
    """Launches whose arguments are in one array, each a call of the driver."""

    def __init__(self, module: CupyModule, launches: Sequence[Launch]):
        self._module = module
        self._device = device = module.device
        device.enter()
        self._arguments = Arguments(launches)
        self._names = tuple(launch.function for launch in launches)
        self._calls = [
            (
                module.function(launch.function, launch.shared),
                launch.blocks,
                1,
                1,
                launch.threads,
                1,
                1,
                launch.shared,
                device.stream,
                start,
                0,
            )
            for launch, start in zip(launches, self._arguments.starts, strict=True)
        ]

    def __call__(self, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        device = self._device
        device.enter()
        with device.lock:
            self._arguments.fill(addresses)
            device.launch(self._names, self._calls)
