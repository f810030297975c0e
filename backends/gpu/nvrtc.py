"""CUDA C to machine code by NVRTC, NVIDIA's compiler as a library: it needs no GPU and no driver.

The library comes with what CuPy's wheels need, with ``pip install nvidia-cuda-nvrtc`` or a CUDA
toolkit. See https://docs.nvidia.com/cuda/nvrtc/index.html
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import cache
from ..dataclass import dataclass
from .device import DeviceError

HERE = Path(__file__).parent
NAMES = ("libnvrtc.so.13", "libnvrtc.so.12")
_USES = re.compile(  # what the assembler says of a kernel when it is asked to be verbose
    r"Function properties for (\w+)\n.*?(\d+) bytes stack frame, (\d+) bytes spill stores, \d+ "
    r"bytes spill loads\n.*?Used (\d+) registers(?:.*?(\d+) bytes smem)?"
)
OPTIONS = ("-std=c++17", "--fmad=true", "--prec-div=true", "--prec-sqrt=true", "--ftz=false")


def _candidates() -> Iterator[str]:
    """Where the library may be: in wheels of NVIDIA's, where the system looks, in a CUDA
    toolkit."""
    found = importlib.util.find_spec("nvidia")
    wheels = [Path(p) for p in (found and found.submodule_search_locations) or ()]
    for name in NAMES:
        yield from (str(p) for folder in wheels for p in sorted(folder.glob(f"*/lib/{name}")))
    yield from NAMES
    toolkits = [os.environ.get(v, "") for v in ("CUDA_PATH", "CUDA_HOME")] + [
        sys.prefix,
        "/usr/local/cuda",
    ]
    for toolkit, folder, name in itertools.product(filter(None, toolkits), ("lib64", "lib"), NAMES):
        yield str(Path(toolkit, folder, name))


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC; None where there is none."""
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


@functools.cache
def prelude() -> str:
    """What every unit begins with."""
    return (HERE / "prelude.cuh").read_text(encoding="utf8")


def architectures() -> list[int]:
    """The architectures that this NVRTC compiles for, as 80 for sm_80."""
    nvrtc = _required()
    count = ctypes.c_int()
    nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    nvrtc.nvrtcGetSupportedArchs(found)
    return list(found)


def cubins(texts: Sequence[str], architecture: str, threads: int = 1) -> list[bytes]:
    """What `compile` makes of each unit, from the disk cache where that was done before."""
    with ThreadPoolExecutor(max(1, min(threads, len(texts)))) as pool:
        return list(pool.map(lambda text: _cached(text, architecture), texts))


def _cached(text: str, architecture: str) -> bytes:
    name = cache.key("nvrtc", prelude(), text, *OPTIONS, architecture, version())
    found = cache.load(name)
    if found is not None:
        return found[1]
    code = compile(text, architecture)
    cache.store(name, {}, code)
    return code


@functools.cache
def version() -> str:
    """NVRTC's version, as 13.0."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _required().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@dataclass(frozen=True)
class Resources:
    """What a kernel takes of a multiprocessor: of each thread, but for `shared`.

    Attributes:
        registers: 32-bit registers.
        spilled: bytes that are stored for want of registers.
        stack: bytes of local memory: what is spilled, and arrays whose indices are not constants.
        shared: bytes that a block declares.
    """

    registers: int
    spilled: int
    stack: int
    shared: int


def resources(text: str, architecture: str) -> dict[str, Resources]:
    """What each kernel of a unit takes, from the disk cache where that is known. Raises: as
    `compile`."""
    name = cache.key("nvrtc resources", prelude(), text, *OPTIONS, architecture, version())
    found = cache.load(name)
    if found is None:
        found = {"log": _compiled(text, architecture, ("--ptxas-options=-v", "-w"))[1]}, b""
        cache.store(name, *found)
    return {
        m[1]: Resources(*(int(m[i] or 0) for i in (4, 3, 2, 5)))
        for m in _USES.finditer(found[0]["log"])
    }


def compile(text: str, architecture: str) -> bytes:
    """The cubin of a unit for an architecture such as ``sm_90``; its PTX for one such as
    ``compute_90``.

    Raises: DeviceError: there is no NVRTC, or it refuses the text, with what it says.
    """
    return _compiled(text, architecture)[0]


def _compiled(text: str, architecture: str, more: Sequence[str] = ()) -> tuple[bytes, str]:
    """The code of a unit, and what NVRTC says of it. Args: more: options."""
    nvrtc = _required()
    program = ctypes.c_void_p()
    source = f'{prelude()}\n#line 1 "unit"\n{text}'.encode()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"unit.cu", 0, None, None)
    try:
        options = [o.encode() for o in (f"-arch={architecture}", *OPTIONS, *more)]
        if nvrtc.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        ):
            raise DeviceError(f"NVRTC refused a unit of kernels:\n{_text(nvrtc, program)[:4000]}")
        ptx = architecture.startswith("compute_")
        size, get = (
            (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
            if ptx
            else (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        )
        return _bytes(size, get, program), _text(nvrtc, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _required() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise DeviceError(
            "kernels for a GPU are compiled by NVRTC, and there is none: "
            "pip install nvidia-cuda-nvrtc"
        )
    return found


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    return (
        _bytes(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        .rstrip(b"\0")
        .decode()
    )


def _bytes(
    size_of: ctypes._NamedFuncPointer, get: ctypes._NamedFuncPointer, program: ctypes.c_void_p
) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    found = ctypes.create_string_buffer(size.value)
    get(program, found)
    return found.raw
