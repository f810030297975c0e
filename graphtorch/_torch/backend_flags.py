"""`torch.backends.cudnn` and its like: switches of libraries that graphtorch does not use.

Programs set them before they train. They hold what is assigned and change nothing; the queries say
that the library is not there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from graphtorch import backends


class Switches(ModuleType):
    """The switches of one library, as a module."""

    def __init__(self, name: str, **switches: Any):
        super().__init__(
            f"{backends.__name__}.{name}", f"Switches of {name}, which graphtorch does not use."
        )
        self.__dict__.update(switches)

    def is_available(self) -> bool:
        """Whether graphtorch uses the library: no."""
        return False

    is_built = is_available

    def version(self) -> None:
        """None: there is no such library here."""

    @contextlib.contextmanager
    def flags(self, **switches: Any) -> Iterator[None]:
        """Other settings of the switches within a ``with`` block."""
        before = dict(self.__dict__)
        self.__dict__.update(switches)
        try:
            yield
        finally:
            self.__dict__.clear()
            self.__dict__.update(before)


def install() -> None:
    """Put the switches where PyTorch has them, under ``backends``."""
    libraries: dict[str, dict[str, Any]] = {
        "cudnn": {
            "enabled": True,
            "benchmark": False,
            "benchmark_limit": 10,
            "deterministic": False,
            "allow_tf32": True,
        },
        "cuda": {
            "matmul": SimpleNamespace(
                allow_tf32=False,
                allow_fp16_reduced_precision_reduction=True,
                allow_bf16_reduced_precision_reduction=True,
            )
        },
        "mkl": {},
        "mkldnn": {"enabled": True},
        "mps": {},
        "openmp": {},
        "quantized": {"engine": "none", "supported_engines": ["none"]},
    }
    for name, switches in libraries.items():
        if not hasattr(backends, name):
            made = Switches(name, **switches)
            setattr(backends, name, made)
            sys.modules[made.__name__] = made
