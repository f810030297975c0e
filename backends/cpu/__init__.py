"""Schedules for CPUs: tasks of a thread pool, vectors in them; and what PyTorch has as
`backends.cpu`."""

from __future__ import annotations

import importlib


def get_cpu_capability() -> str:
    """The vector instructions that code is compiled for: "AVX512", "AVX2" or "DEFAULT"."""
    target = importlib.import_module("graphtorch.backends.llvm.processor")  # loads LLVM
    found = target.host().flags
    return "AVX512" if "avx512f" in found else "AVX2" if "avx2" in found else "DEFAULT"
