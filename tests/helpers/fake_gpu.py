"""A GPU through what stands for CuPy (fake_cupy.py) as the GPU of a test: DLPack's kDLCUDA."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import fake_cupy
from graphtorch import _types
from graphtorch._deferred import programs
from graphtorch._random import generator
from graphtorch.backends.gpu import devices, nvrtc

CUPY_DEVICE = "graphtorch.backends.gpu.cupy_device"


@contextmanager
def fake_gpu() -> Iterator[fake_cupy.Machine]:
    """It is there inside."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fake_cupy.modules().items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(nvrtc, "cubins", lambda texts, name, threads: [t.encode() for t in texts])
        patch.setattr(devices, "_has_cupy", lambda: True)
        patch.setattr(devices, "_gpus", lambda: 1)
        patch.setattr(fake_cupy.machine, "calls", [])
        patch.delenv(devices.VARIABLE, raising=False)
        patch.delenv("CUDA_LAUNCH_BLOCKING", raising=False)
        programs.clear()  # those of another device that tests had
        yield fake_cupy.machine
        devices._gpu.cache_clear()
    sys.modules.pop(CUPY_DEVICE, None)
    programs.clear()
    generator._of_gpus.clear()
    _types._gpus.clear()
