"""The emulated device: the same CUDA text, compiled by the C++ compiler, a fiber a thread
(emulator.h).

It finds what a GPU would not say: accesses outside of buffers, missing and divergent barriers, with
kernel and line. It is slow, and there so that machines without a GPU can test what is made for one.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import cache
from ..buffer import Block, size_class
from ..locks import lock_across_forks, lock_of_object
from ..record import Site
from .arguments import Arguments
from .device import DeviceError, Launch, Piece, Properties
from .machine import LARGE
from .pool import Pool, PooledMemory, Statistics
from .status import Status, Statuses
from .traces import Access, Counts, counts, race

Made = TypeVar("Made")
HERE = Path(__file__).parent
OPTIONS = (
    "-std=c++17",
    "-O1",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fwrapv",
    "-Wno-unknown-pragmas",
)
# What has the compiler tell of each access before it happens, as it tells ThreadSanitizer: its
# calls are answered by emulator.h, and lines found by what it notes for debuggers.
WATCHED = ("-DGT_WATCHED", "-fsanitize=thread", "-g1")
COMPILERS = 4  # that run side by side, each with up to half a GiB
CAPABILITY = (8, 0)
EXTENSION = 12  # DLPack's name of devices that no other library knows: kDLExtDev
KEPT = 128 << 20  # bytes of memory that nobody holds
MOST_TRACED = 1 << 24  # accesses of a launch
NEEDED = (
    "the emulated CUDA device needs a C++ compiler, and there is none: install g++ or clang++, or "
    "name one in CXX"
)
_MAKING = lock_across_forks()  # held while workplaces are made
ORDERS = 3  # orders in which the threads of a block may run


@functools.cache
def compiler() -> str | None:
    """The C++ compiler; None where there is none."""
    names = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")
    return next(filter(None, map(shutil.which, names)), None)


@functools.cache
def prelude() -> str:
    """What every unit begins with."""
    return "\n".join(
        (HERE / name).read_text(encoding="utf8") for name in ("emulator.h", "prelude.cuh")
    )


class EmulatedDevice:
    """A device in this process.

    What it is asked for it does before it returns; but data-dependent errors are raised where a
    GPU's are.

    Attributes:
        counts: of a traced device, what the launches of each kernel did to memory.
    """

    index = stream = 0
    dlpack = EXTENSION, 0

    def __init__(self, order: int = 0, traced: bool = False, watched: bool = False):
        """Args:
        order: that in which threads and blocks run: 0, 1 or 2.
        traced: note every access that the text marks: what launches do is counted, and races
            between threads are errors.
        watched: look at every access to the memory that a block shares, marked or not, by byte:
            races there are errors. Takes longer to compile.
        """
        if compiler() is None:
            raise DeviceError(NEEDED)
        self.order = order
        self.traced = traced
        self.watched = watched
        self.counts: dict[str, Counts] = {}
        self.properties = Properties("emulated", CAPABILITY, 8 << 30, LARGE.multiprocessors)
        self.lock = lock_of_object()
        self._pool = Pool(self._take, KEPT)
        self._statuses = Statuses(self.pinned)
        self._noted: list[Callable[[], None]] | None = None  # during a capture

    def precede(self, stream: int) -> None:
        pass  # what was asked for has happened

    def follow(self, stream: int) -> None:
        pass  # nothing of other libraries is ever asked for here

    def holder(self, address: int) -> int:
        return 0

    def keep(self, owner: object) -> None:
        pass

    # ---- memory

    def allocate(self, size: int) -> PooledMemory:
        return self._pool.allocate(size)

    def allocate_all(
        self, sizes: Sequence[int], wishes: Sequence[Sequence[int]]
    ) -> list[PooledMemory]:
        return self._pool.allocate_all(sizes, wishes)

    def _take(self, size: int) -> Block:
        limit, held = self.properties.memory, self._pool.statistics.allocated
        if held + size > limit:
            raise MemoryError(
                f"CUDA out of memory. Tried to allocate {size} bytes. The emulated device has "
                f"a total capacity of {limit} bytes; {held} are held"
            )
        return Block(size_class(size))

    def pinned(self, size: int) -> Block:
        return Block(size_class(max(size, 1)))

    def write(
        self, address: int, data: bytes | bytearray | memoryview, held: object = None
    ) -> None:
        ctypes.memmove(address, bytes(data), len(data))

    def read(self, address: int, size: int) -> bytes:
        self.synchronize()
        return ctypes.string_at(address, size)

    def download(self, to: int, address: int, size: int, held: object = None) -> None:
        ctypes.memmove(to, address, size)
        if held is None:
            self.synchronize()

    def copy(self, to: int, address: int, size: int) -> None:
        self.queue(lambda: ctypes.memmove(to, address, size))

    def clear(self, address: int, size: int) -> None:
        self.queue(lambda: ctypes.memset(address, 0, size))

    def memory_info(self) -> tuple[int, int]:
        return self.properties.memory - self._pool.statistics.allocated, self.properties.memory

    def statistics(self) -> Statistics:
        return replace(self._pool.statistics)

    def reset_peaks(self) -> None:
        self._pool.reset_peaks()

    def release(self) -> None:
        self._pool.release()

    # ---- code

    @property
    def compilers(self) -> int:
        return _compilers()

    def load(self, pieces: Sequence[Piece]) -> EmulatedModule:
        load = functools.partial(_library, watched=self.watched)
        return EmulatedModule(self, pieces, side_by_side(load, pieces))

    def begin_capture(self) -> None:
        self.lock.acquire()
        self._noted = []

    def end_capture(self) -> Callable[[], None]:
        noted, self._noted = self._noted or [], None
        self.lock.release()

        def replay() -> None:
            for call in noted:
                self.queue(call)

        return replay

    # ---- the queue

    def queue(self, call: Callable[[], object]) -> None:
        """Do it, or note it during a capture."""
        with self.lock:
            if self._noted is None:
                call()
            else:
                self._noted.append(call)  # type: ignore[arg-type]

    def event(self) -> EmulatedEvent:
        return EmulatedEvent(self)

    def status(self, sites: Sequence[Site]) -> Status:
        return self._statuses.new(sites)

    def expect(self, status: Status) -> None:
        self._statuses.expect(status)

    def synchronize(self) -> None:
        self._statuses.settle(self._statuses.taken())


class EmulatedEvent:
    """An event on the host's clock."""

    def __init__(self, device: EmulatedDevice):
        self._device = device
        self._time = math.nan

    def record(self) -> None:
        def now() -> None:
            self._time = time.perf_counter()

        self._device.queue(now)

    def done(self) -> bool:
        return True

    def synchronize(self) -> None:
        self._device.synchronize()

    def elapsed(self, later: Any) -> float:
        return (later._time - self._time) * 1e3


class EmulatedModule:
    """Kernels in shared libraries."""

    def __init__(
        self, device: EmulatedDevice, pieces: Sequence[Piece], libraries: Sequence[ctypes.CDLL]
    ):
        self.device = device
        self.pieces = {name: piece for piece in pieces for name in piece.kernels}
        self.libraries = {
            name: library
            for piece, library in zip(pieces, libraries, strict=True)
            for name in piece.kernels
        }

    def line_of(self, kernel: str, place: int) -> str:
        """The line of a watched kernel's text that a place in its library belongs to."""
        return _line_of(_code(exporting(self.pieces[kernel]), watched=True), place)

    def series(self, launches: Sequence[Launch]) -> EmulatedSeries:
        return EmulatedSeries(self, launches)


class EmulatedSeries:
    """Launches that are run on the host, with the memory that they were given in bounds."""

    def __init__(self, module: EmulatedModule, launches: Sequence[Launch]):
        self._device = module.device
        self._module = module
        self._launches = list(launches)
        self._arguments = Arguments(launches)
        self._libraries = [module.libraries[launch.function] for launch in launches]
        self._functions = [
            getattr(library, f"{launch.function}_emulated")
            for library, launch in zip(self._libraries, launches, strict=True)
        ]
        for function in self._functions:
            function.restype = ctypes.c_char_p

    def __call__(self, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        given = tuple(addresses), tuple(sizes)
        self._device.queue(lambda: self._run(*given))

    def _run(self, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        self._arguments.fill(addresses)
        extents = self._arguments.extents(sizes)
        for i in range(len(self._launches)):
            self._give_ranges(i, extents)
            self._one(i)

    def _give_ranges(self, i: int, extents: np.ndarray) -> None:
        first, buffers = self._arguments.firsts[i], len(self._launches[i].buffers)
        words = [*range(first, first + buffers), first + buffers + len(self._launches[i].sizes)]
        self._libraries[i].gt_ranges(
            len(words),
            (ctypes.c_void_p * len(words))(*[self._arguments.word(w) for w in words]),
            (ctypes.c_size_t * len(words))(*[max(0, int(extents[w])) for w in words]),
        )

    def _one(self, i: int) -> None:
        launch, library = self._launches[i], self._libraries[i]
        trace = np.empty(MOST_TRACED if self._device.traced else 0, Access)
        library.gt_trace(ctypes.c_void_p(trace.ctypes.data if len(trace) else None), len(trace))
        found = self._functions[i](
            ctypes.c_void_p(self._arguments.starts[i]),
            (ctypes.c_uint * 3)(launch.blocks, 1, 1),
            (ctypes.c_uint * 3)(launch.threads, 1, 1),
            ctypes.c_size_t(launch.shared),
            self._device.order,
        )
        if found:
            raise DeviceError(self._told(launch.function, library, found.decode()))
        if self._device.traced:
            barriers = library.gt_barriers()
            self._look_at(launch.function, trace, library.gt_trace(None, 0), barriers)

    def _told(self, kernel: str, library: ctypes.CDLL, message: str) -> str:
        """A message with the line of what was found by watching, which knows places in code."""
        place = library.gt_wrong_place() if self._device.watched else 0
        if not place:
            return message
        return message.replace("line 0:", f"line {self._module.line_of(kernel, place)}:", 1)

    def _look_at(self, function: str, trace: np.ndarray, count: int, barriers: int) -> None:
        """Count what a launch did. Raises: DeviceError: a race, or more accesses than are noted."""
        if count > len(trace):
            raise DeviceError(
                f"kernel {function}: {count:,} accesses are too many for a trace: use fewer "
                "blocks, or smaller arrays"
            )
        trace = trace[:count]
        found = race(trace)
        if found is not None:
            raise DeviceError(f"kernel {function}, line {found[0]}: {found[1]}")
        self._device.counts.setdefault(function, Counts()).add(counts(trace, barriers))


@functools.lru_cache(maxsize=1024)
def _library(text: str, watched: bool = False) -> ctypes.CDLL:
    """A unit as a library of this process."""
    code = _code(text, watched)
    handle, path = tempfile.mkstemp(suffix=".so")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(code)
        return ctypes.CDLL(path)
    finally:
        os.unlink(path)  # what is loaded stays


def _line_of(code: bytes, place: int) -> str:
    """The line of a unit's text whose code ends at a place in its library; ? if none is known."""
    if shutil.which("addr2line") is None:  # a part of what g++ needs
        return "?"
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(code)
        file.flush()
        command = ["addr2line", "-i", "-e", file.name, hex(place - 1)]
        told = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    lines = [x.rpartition(":") for x in told.split("\n")]  # of inlined functions first
    return next((line.split()[0] for path, _, line in lines if path.endswith("unit")), "?")


def exporting(piece: Piece) -> str:
    """The text of a piece with a function for each kernel that hosts call."""
    return "\n".join([piece.text, *(f"GT_EXPORT({k})" for k in piece.kernels)])


def codes(pieces: Sequence[Piece]) -> list[bytes]:
    """Pieces as shared libraries: what libraries ahead of time have as images for this device.

    Raises: DeviceError: there is no C++ compiler.
    """
    if compiler() is None:
        raise DeviceError(NEEDED)
    return side_by_side(_code, pieces)


def side_by_side(call: Callable[[str], Made], pieces: Sequence[Piece]) -> list[Made]:
    """What `call` makes of the text of each piece."""
    with ThreadPoolExecutor(max(1, min(_compilers(), len(pieces)))) as pool:
        return list(pool.map(call, map(exporting, pieces)))


def _compilers() -> int:
    return min(os.cpu_count() or 1, COMPILERS)


def _code(text: str, watched: bool = False) -> bytes:
    """A unit compiled, from the cache where that was done before."""
    source = '#line 1 "unit"\n' + text
    more = WATCHED if watched else ()
    name = cache.key("emulated", prelude(), source, *OPTIONS, *more, version())
    found = cache.load(name)
    code = _compiled(source, more) if found is None else found[1]
    if found is None:
        cache.store(name, {}, code)
    return code


def driver(folder: Path) -> Path:
    """Write ``libcuda.so.1``, which stands in for NVIDIA's driver (emulated_driver.cpp), into a
    folder.

    Raises: DeviceError: there is no C++ compiler.
    """
    if compiler() is None:
        raise DeviceError(NEEDED)
    source = (HERE / "emulated_driver.cpp").read_text(encoding="utf8")
    options = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall")
    name = cache.key("emulated driver", source, *options, version())
    found = cache.load(name)
    path = folder / "libcuda.so.1"
    if found is not None:
        path.write_bytes(found[1])
        return path
    _call([*options, "-Wl,-soname,libcuda.so.1", "-x", "c++", "-", "-o", str(path), "-ldl"], source)
    cache.store(name, {}, path.read_bytes())
    return path


@functools.cache
def version() -> str:
    """What the C++ compiler says of itself."""
    return subprocess.run(
        [compiler() or "", "--version"], text=True, capture_output=True, check=True
    ).stdout


@functools.cache
def _workplace(more: Sequence[str] = ()) -> tempfile.TemporaryDirectory[str]:
    """A folder with the prelude, compiled for the units of this process, with more options."""
    folder = tempfile.TemporaryDirectory(prefix="graphtorch-")
    header = Path(folder.name) / "prelude.h"
    header.write_text(prelude(), encoding="utf8")
    options = [o for o in OPTIONS if o != "-shared"]
    _call([*options, *more, "-x", "c++-header", str(header), "-o", f"{header}.gch"], "")
    return folder


def _compiled(source: str, more: Sequence[str]) -> bytes:
    with _MAKING:
        folder = Path(_workplace(more).name)
    made = folder / f"{threading.get_ident()}.so"
    text = ["-include", str(folder / "prelude.h"), "-x", "c++", "-"]
    if more:  # linked apart: what ThreadSanitizer's option calls for is not
        part = made.with_suffix(".o")
        _call([*OPTIONS, *more, "-c", *text, "-o", str(part)], source)
        _call([*OPTIONS, str(part), "-o", str(made)], "")
        part.unlink()
    else:
        _call([*OPTIONS, *text, "-o", str(made)], source)
    code = made.read_bytes()
    made.unlink()
    return code


def _call(options: Sequence[str], source: str) -> None:
    command = [compiler() or "", *options]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    if done.returncode:
        raise DeviceError(f"the C++ compiler refused a unit of kernels:\n{done.stderr[:4000]}")
