"""The emulated device: the same CUDA text, compiled by the C++ compiler, a fiber a thread (emulator.h).

It finds what a GPU would not say: accesses outside of buffers, missing and divergent barriers, with kernel
and line. It is slow, and there so that machines without a GPU can test what is made for one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import cache
from ..buffer import Block, size_class
from .device import DeviceError, Properties

HERE = Path(__file__).parent
OPTIONS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing",
           "-ffp-contract=off", "-fwrapv", "-Wno-unknown-pragmas")
ORDERS = 3  # orders in which the threads of a block may run


@functools.cache
def compiler() -> str | None:
    """The C++ compiler; None where there is none."""
    names = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")
    return next(filter(None, map(shutil.which, names)), None)


@functools.cache
def prelude() -> str:
    """What every unit begins with."""
    return "\n".join((HERE / name).read_text(encoding="utf8") for name in ("emulator.h", "prelude.cuh"))


class EmulatedDevice:
    """A device in this process. `order` is that in which threads and blocks run: 0, 1 or 2."""

    def __init__(self, order: int = 0):
        if compiler() is None:
            raise DeviceError("the emulated CUDA device needs a C++ compiler, and there is none: install g++ "
                              "or clang++, or name one in CXX")
        self.order = order
        self.properties = Properties("emulated", (8, 0), 8 << 30, 2)

    def allocate(self, size: int) -> Block:
        return Block(size_class(max(size, 1)))

    def write(self, address: int, data: bytes | memoryview) -> None:
        ctypes.memmove(address, bytes(data), len(data))

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(address, size)

    def copy(self, to: int, address: int, size: int) -> None:
        ctypes.memmove(to, address, size)

    def load(self, text: str, kernels: Sequence[str]) -> EmulatedModule:
        return EmulatedModule(_library(text + "\n" + "\n".join(f"GT_EXPORT({k})" for k in kernels)), self)


class EmulatedModule:
    """Kernels in a shared library."""

    def __init__(self, library: ctypes.CDLL, device: EmulatedDevice):
        self._library = library
        self._device = device

    def launch(self, function: str, blocks: int, threads: int, buffers: Sequence[tuple[int, int]],
               sizes: Sequence[tuple[str, int]], status: int, shared: int = 0) -> None:
        every = [*buffers, (status, 4)]
        count = len(every)
        self._library.gt_ranges(count, (ctypes.c_void_p * count)(*[a for a, _ in every]),
                                (ctypes.c_size_t * count)(*[n for _, n in every]))
        words: list[Any] = [ctypes.c_void_p(a) for a, _ in buffers]
        words += [_C_TYPES[t](n) for t, n in sizes]
        words.append(ctypes.c_void_p(status))
        pointers = (ctypes.c_void_p * len(words))(*[ctypes.addressof(w) for w in words])
        call = getattr(self._library, f"{function}_emulated")
        call.restype = ctypes.c_char_p
        found = call(pointers, (ctypes.c_uint * 3)(blocks, 1, 1), (ctypes.c_uint * 3)(threads, 1, 1),
                     ctypes.c_size_t(shared), self._device.order)
        if found:
            raise DeviceError(found.decode())


_C_TYPES = {"gt_i64": ctypes.c_int64, "gt_i32": ctypes.c_int32}


@functools.lru_cache(maxsize=1024)
def _library(text: str) -> ctypes.CDLL:
    """A unit as a library of this process, from the cache where it was compiled before."""
    source = '#line 1 "unit"\n' + text
    name = cache.key("emulated", prelude(), source, *OPTIONS, version())
    found = cache.load(name)
    code = _compiled(source) if found is None else found[1]
    if found is None:
        cache.store(name, {}, code)
    handle, path = tempfile.mkstemp(suffix=".so")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(code)
        return ctypes.CDLL(path)
    finally:
        os.unlink(path)  # what is loaded stays


@functools.cache
def version() -> str:
    """What the C++ compiler says of itself."""
    return subprocess.run([compiler() or "", "--version"], text=True, capture_output=True, check=True).stdout


@functools.cache
def _workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder with the prelude, compiled for the units of this process."""
    folder = tempfile.TemporaryDirectory(prefix="graphtorch-")
    header = Path(folder.name) / "prelude.h"
    header.write_text(prelude(), encoding="utf8")
    options = [o for o in OPTIONS if o != "-shared"]
    _call([*options, "-x", "c++-header", str(header), "-o", f"{header}.gch"], "")
    return folder


def _compiled(source: str) -> bytes:
    folder = Path(_workplace().name)
    made = folder / f"{threading.get_ident()}.so"
    _call([*OPTIONS, "-include", str(folder / "prelude.h"), "-x", "c++", "-", "-o", str(made)], source)
    code = made.read_bytes()
    made.unlink()
    return code


def _call(options: Sequence[str], source: str) -> None:
    command = [compiler() or "", *options]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    if done.returncode:
        raise DeviceError(f"the C++ compiler refused a unit of kernels:\n{done.stderr[:4000]}")
