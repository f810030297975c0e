"""PyTorch's choice between implementations of attention. Here there is one, which every choice
means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any


class SDPBackend(Enum):
    """The implementations that PyTorch has, under its names and numbers."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4

    def __repr__(self) -> str:
        return f"<{self}: {self.value}>"


@contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """A ``with`` block, or a decorator, in which PyTorch uses only `backends` (one or a list of
    them).

    It changes nothing here: results are the same whichever is named.

    Raises:
        AssertionError: `backends` is not an `SDPBackend` or a list of them.
    """
    given = backends if isinstance(backends, (list, tuple)) else [backends]
    for backend in given:
        if not isinstance(backend, SDPBackend):
            raise AssertionError(
                "Backend must be an instance of SDPBackend or a list of SDPBackend "
                f"instances, got {type(backend).__name__}"
            )
    yield


__all__ = ["SDPBackend", "sdpa_kernel"]
