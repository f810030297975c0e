"""Ahead-of-time compilation: models as native libraries with a C interface, no Python where they
run."""

from __future__ import annotations

from pathlib import Path

from graphtorch.backends.gpu import emulated

from .compile import Compiled, compile
from .loader import Library, load


def emulated_driver(folder: str | Path) -> Path:
    """Write ``libcuda.so.1`` into `folder`: it stands in for NVIDIA's driver where there is no GPU.

    A program that finds it (``LD_LIBRARY_PATH``) runs CUDA libraries that were compiled for
    ``"emulated"``, slowly, with every access checked. Raises: RuntimeError: there is no C++
    compiler.
    """
    return emulated.driver(Path(folder))


__all__ = ["Compiled", "Library", "compile", "emulated_driver", "load"]
