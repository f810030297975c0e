"""Which CUDA devices there are: GPUs through CuPy, or the emulated one where
GRAPHTORCH_CUDA=emulated.

Counting asks NVIDIA's driver alone; CuPy is imported for the first device that is asked for, and so
is what emulates one.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
from typing import Any

from .device import Device

VARIABLE = "GRAPHTORCH_CUDA"
HELP = (
    'pip install "graphtorch[cuda13]" (or cuda12) where there is an NVIDIA GPU; elsewhere '
    f"{VARIABLE}=emulated offers a device that runs the same kernels on the CPU, to test "
    "programs"
)


def count() -> int:
    """How many devices there are. Raises: RuntimeError: GRAPHTORCH_CUDA is neither empty nor
    ``emulated``."""
    if emulates():
        return 1 if _module("emulated").compiler() else 0
    return _gpus() if _has_cupy() else 0


def available() -> bool:
    """Whether there is any device."""
    return count() > 0


def device(index: int = 0) -> Device:
    """The device of that number, the same object at each call.

    Raises: RuntimeError: there is none of that number; the message says what helps.
    """
    if emulates():
        _check(index, 1)
        return _emulated()
    if not _has_cupy():
        raise RuntimeError(
            "No CUDA GPUs are available: CuPy, which gives access to them, is not installed. "
            + HELP
        )
    found = _gpus()
    if not found:
        raise RuntimeError(
            "No CUDA GPUs are available: found no NVIDIA driver on your system that answers, "
            f"or no GPU. {HELP}"
        )
    _check(index, found)
    return _gpu(index)


def _check(index: int, found: int) -> None:
    if not 0 <= index < found:
        raise RuntimeError(
            f"CUDA error: invalid device ordinal: there is no cuda:{index}, but {found} "
            f"device{'s' if found > 1 else ''}, from cuda:0 on"
        )


def emulates() -> bool:
    """Whether GRAPHTORCH_CUDA asks for the emulated device. Raises: RuntimeError: as `count`."""
    setting = os.environ.get(VARIABLE, "")
    if setting not in ("", "emulated"):
        raise RuntimeError(
            f"{VARIABLE} is {setting!r}: expected 'emulated', or nothing for the machine's GPUs"
        )
    return bool(setting)


@functools.cache
def _emulated() -> Device:
    made: Device = _module("emulated").EmulatedDevice()
    return made


@functools.cache
def _gpu(index: int) -> Device:
    made: Device = _module("cupy_device").CupyDevice(index)
    return made


def _module(name: str) -> Any:
    """One of ours that takes a while to import, as CuPy does."""
    return importlib.import_module(f".{name}", __package__)


@functools.cache
def _has_cupy() -> bool:
    return importlib.util.find_spec("cupy") is not None


@functools.cache
def _gpus() -> int:
    """How many GPUs NVIDIA's driver offers; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    found = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(found)):
        return 0
    return found.value


__all__ = ["available", "count", "device", "emulates"]
