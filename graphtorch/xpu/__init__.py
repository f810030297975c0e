"""Queries about Intel's GPUs: there are none in this version."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    """Whether there is one."""
    return False


def device_count() -> int:
    """How many there are."""
    return 0


def is_initialized() -> bool:
    """Whether a program used one."""
    return False


def empty_cache() -> None:
    """Give back memory that waits to be used again: there is none."""


def current_device() -> int:
    """The present one. Raises: RuntimeError."""
    raise RuntimeError("No XPU devices are available: graphtorch runs on 'cpu'")


def synchronize(device: Any = None) -> None:
    """Wait for one. Raises: RuntimeError."""
    current_device()
