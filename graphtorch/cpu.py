"""The CPU as a device, with the queries that `torch.cuda` has."""

from __future__ import annotations

from typing import Any

from ._deferred.running import flush


def is_available() -> bool:
    """Whether there is a CPU."""
    return True


def device_count() -> int:
    """All cores together are one device."""
    return 1


def current_device() -> str:
    return "cpu"


def set_device(device: Any) -> None:
    """Nothing: there is one."""


def synchronize(device: Any = None) -> None:
    """Compute everything that waits to be computed."""
    flush()
