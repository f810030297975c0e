"""Mixed precision: `autocast` and `GradScaler`."""

from __future__ import annotations

from .._types import device
from .autocast_mode import autocast, custom_bwd, custom_fwd
from .grad_scaler import GradScaler


def is_autocast_available(device_type: str) -> bool:
    """Whether PyTorch has autocast for devices of this type."""
    return device(device_type).type in ("cpu", "cuda")


__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
