"""What graphtorch calls of CuPy, with its signatures, on the host; kernels run as on the emulated
device.

What stands for a cubin is the text of its unit. The null stream is not offered: nothing of ours may
use it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from graphtorch.backends.buffer import Block, size_class
from graphtorch.backends.gpu import emulated

EVERYTHING = (1 << 63) - 1
KERNEL = r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\((.*)\) \{'


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class Machine:
    """The state of the pretended GPU: what is asked of it is noted in `calls`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.handles: dict[int, Any] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.room = 1 << 30  # bytes that malloc may give
        self.fault: str | None = None  # what the next wait raises

    def handle(self, x: Any) -> int:
        self.handles[len(self.handles) + 1000] = x
        return len(self.handles) + 999

    def queue(self, stream: int, name: str, call: Callable[[], None]) -> None:
        assert isinstance(self.handles[stream], Stream)
        self.calls.append(name)
        if self.captured is None:
            call()
        else:
            self.captured.append(call)

    def wait(self) -> None:
        assert self.captured is None, "a wait during a capture"
        if self.fault:
            fault, self.fault = self.fault, None
            raise CUDARuntimeError(fault)


machine = Machine()


# ------------------------------------------------------------------------------------------ runtime


runtime = ModuleType("cupy.cuda.runtime")
runtime.CUDARuntimeError = CUDARuntimeError
runtime.memcpyHostToDevice, runtime.memcpyDeviceToHost, runtime.memcpyDeviceToDevice = 1, 2, 3
runtime.cudaDevAttrMultiProcessorCount = 16
runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
runtime.cudaDevAttrWarpSize = 10
runtime.cudaDevAttrL2CacheSize = 38
runtime.cudaDevAttrMaxThreadsPerMultiProcessor = 39
ATTRIBUTES = {16: 132, 97: 232448, 10: 32, 38: 50 << 20, 39: 2048}


def runtime_call(f: Callable[..., Any]) -> Callable[..., Any]:
    setattr(runtime, f.__name__, f)
    return f


@runtime_call
def getDeviceCount() -> int:
    return 1


@runtime_call
def getDeviceProperties(device: int) -> dict[str, Any]:
    return {"name": b"Pretended GPU", "major": 9, "minor": 0, "totalGlobalMem": 1 << 34}


@runtime_call
def deviceGetAttribute(attrib: int, device: int) -> int:
    return ATTRIBUTES[attrib]


@runtime_call
def setDevice(device: int) -> None:
    assert device == 0


@runtime_call
def free(ptr: int) -> None:
    assert ptr == 0


@runtime_call
def memGetInfo() -> tuple[int, int]:
    return machine.room, 1 << 34


@runtime_call
def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    assert kind in (1, 2, 3)
    machine.queue(stream, "copy", lambda: ctypes.memmove(dst, src, size))


@runtime_call
def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
    machine.queue(stream, "set", lambda: ctypes.memset(ptr, value, size))


@runtime_call
def streamSynchronize(stream: int) -> None:
    machine.wait()


@runtime_call
def eventRecord(event: int, stream: int) -> None:
    assert isinstance(machine.handles[event], Event)
    machine.queue(stream, "event", lambda: None)


@runtime_call
def eventSynchronize(event: int) -> None:
    assert isinstance(machine.handles[event], Event)
    machine.wait()


@runtime_call
def pointerGetAttributes(ptr: int) -> SimpleNamespace:
    return SimpleNamespace(device=0, devicePointer=ptr)


@runtime_call
def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
    assert isinstance(machine.handles[event], Event) and flags == 0
    machine.calls.append(f"stream {stream} waits")


@runtime_call
def eventElapsedTime(start: int, end: int) -> float:
    return 1.5


# ------------------------------------------------------------------------------------------ driver


driver = ModuleType("cupy.cuda.driver")
driver.CUDADriverError = CUDADriverError
driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
driver.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, driver.CU_FUNC_ATTRIBUTE_NUM_REGS = 3, 4


def driver_call(f: Callable[..., Any]) -> Callable[..., Any]:
    setattr(driver, f.__name__, f)
    return f


@driver_call
def moduleGetFunction(module: int, funcname: str) -> int:
    return machine.handle((machine.handles[module], funcname))


@driver_call
def funcSetAttribute(f: int, attribute: int, value: int) -> None:
    machine.calls.append(f"attribute {attribute} {value}")


@driver_call
def funcGetAttribute(attribute: int, f: int) -> int:
    assert f in machine.handles
    return {3: 0, 4: 32}[attribute]


@driver_call
def launchKernel(
    f: int,
    grid_dim_x: int,
    grid_dim_y: int,
    grid_dim_z: int,
    block_dim_x: int,
    block_dim_y: int,
    block_dim_z: int,
    shared_mem_bytes: int,
    stream: int,
    kernel_params: int,
    extra: int,
) -> None:
    library, name = machine.handles[f]
    call = getattr(library, f"{name}_emulated")
    call.restype = ctypes.c_char_p
    count = library.arguments[name]
    pointers = (ctypes.c_uint64 * count).from_address(kernel_params)
    words = (ctypes.c_uint64 * count)(*[ctypes.c_uint64.from_address(p).value for p in pointers])
    grid, block = (grid_dim_x, grid_dim_y, grid_dim_z), (block_dim_x, block_dim_y, block_dim_z)

    def run() -> None:
        library.gt_ranges(1, (ctypes.c_void_p * 1)(0), (ctypes.c_size_t * 1)(EVERYTHING))
        given = (ctypes.c_void_p * count)(*[ctypes.addressof(words) + 8 * i for i in range(count)])
        found = call(
            given,
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_size_t(shared_mem_bytes),
            0,
        )
        assert not found, found

    machine.queue(stream, f"launch {name}", run)


# ---------------------------------------------------------------------------------------- cupy.cuda


class Module:
    def load(self, cubin: bytes) -> None:
        text = cubin.decode()
        kernels = dict(re.findall(KERNEL, text))
        library = emulated._library("\n".join([text, *(f"GT_EXPORT({k})" for k in kernels)]))
        library.arguments = {k: parameters.count(",") + 1 for k, parameters in kernels.items()}
        self.ptr = machine.handle(library)


class MemoryPointer:
    def __init__(self, size: int):
        self._block = Block(size_class(size))
        self.ptr = self._block.address
        self.mem = self._block


class PinnedMemoryPointer(MemoryPointer):
    pass


class MemoryPool:
    def __init__(self, allocator: Any = None):
        pass

    def malloc(self, size: int) -> MemoryPointer:
        assert size
        if size > machine.room:
            raise MemoryError("Out of memory allocating")
        return MemoryPointer(size)

    def free_all_blocks(self, stream: Any = None) -> None:
        machine.calls.append("free_all_blocks")

    def total_bytes(self) -> int:
        return 1 << 20


class Stream:
    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: Any = None,
    ):
        assert not null and not ptds
        self.ptr = machine.handle(self)

    def begin_capture(self, mode: Any = None) -> None:
        assert machine.captured is None
        machine.captured = []

    def is_capturing(self) -> bool:
        return machine.captured is not None

    def end_capture(self) -> Graph:
        found, machine.captured = machine.captured, None
        assert found is not None
        return Graph(found)


class Graph:
    def __init__(self, calls: list[Callable[[], None]]):
        self._calls = calls

    def launch(self, stream: Stream) -> None:
        machine.queue(stream.ptr, "graph", lambda: [call() for call in self._calls] and None)


class Event:
    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ):
        self.ptr = machine.handle(self)

    @property
    def done(self) -> bool:
        return True


def modules() -> dict[str, ModuleType]:
    """What stands for CuPy in `sys.modules`."""
    cupy, cuda, function = (
        ModuleType("cupy"),
        ModuleType("cupy.cuda"),
        ModuleType("cupy.cuda.function"),
    )
    function.Module = Module
    cupy.cuda = cuda
    for name, x in {
        "runtime": runtime,
        "driver": driver,
        "function": function,
        "MemoryPool": MemoryPool,
        "Stream": Stream,
        "Event": Event,
        "MemoryPointer": MemoryPointer,
        "PinnedMemoryPointer": PinnedMemoryPointer,
        "alloc_pinned_memory": PinnedMemoryPointer,
    }.items():
        setattr(cuda, name, x)
    return {"cupy": cupy, "cupy.cuda": cuda}
