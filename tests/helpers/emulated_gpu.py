"""The emulated device as the GPU of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphtorch import _types
from graphtorch._random import generator


@contextmanager
def emulated_gpu() -> Iterator[pytest.MonkeyPatch]:
    """It is there inside; the global stream of random numbers that it has goes with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHTORCH_CUDA", "emulated")
        yield patch
    generator._of_gpus.clear()
    _types._gpus.clear()
