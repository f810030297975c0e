"""Whatever accelerator there is, as ``torch.accelerator``: a GPU, or none."""

from __future__ import annotations

from typing import Any

from ._deferred.door import gpus
from ._deferred.running import flush
from ._types import device as _device
from .cuda import current_device, set_device
from .cuda._gpu import place_of
from .cuda.streams import wait_for

__all__ = [
    "current_accelerator",
    "current_device_index",
    "device_count",
    "is_available",
    "set_device_index",
    "synchronize",
]


def is_available() -> bool:
    """Whether tensors can live elsewhere than on the CPU."""
    return gpus() > 0


def current_accelerator(check_available: bool = False) -> Any:
    """The accelerator's device, ``device("cuda")``, or None."""
    return _device("cuda") if gpus() else None


def device_count() -> int:
    """How many GPUs there are."""
    return gpus()


def current_device_index() -> int:
    """The number of the present GPU. Raises AssertionError: there is none."""
    return current_device()


def set_device_index(device: Any) -> None:
    """Make another GPU the present one. Raises AssertionError: there is none."""
    set_device(device)


def synchronize(device: Any = None) -> None:
    """Compute everything that waits to be computed, and wait for it."""
    flush()
    if gpus():
        wait_for(place_of(device, "synchronize"))
