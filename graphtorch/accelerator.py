"""Queries about whatever accelerator there is: none in this version."""

from __future__ import annotations

from typing import Any

from ._deferred.running import flush


def is_available() -> bool:
    """Whether tensors can live elsewhere than on the CPU."""
    return False


def current_accelerator(check_available: bool = False) -> Any:
    """The accelerator's device: None."""


def device_count() -> int:
    return 0


def synchronize(device: Any = None) -> None:
    """Compute everything that waits to be computed."""
    flush()
