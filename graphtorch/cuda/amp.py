"""`autocast` and `GradScaler` for GPUs, under their names of old: without a GPU both are
disabled."""

from __future__ import annotations

import functools
from typing import Any

from .._ops.autocast import autocast as _autocast
from .._settings import warn_user
from ..amp import GradScaler as _GradScaler
from ..amp import custom_bwd as _custom_bwd
from ..amp import custom_fwd as _custom_fwd

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


def _warn(name: str, new: str) -> None:
    warn_user(
        f"`torch.cuda.amp.{name}(args...)` is deprecated. Please use `torch.amp.{new}` instead.",
        FutureWarning,
    )


class autocast(_autocast):
    """``torch.amp.autocast("cuda")`` (deprecated)."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True):
        _warn("autocast", "autocast('cuda', args...)")
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(_GradScaler):
    """``torch.amp.GradScaler("cuda")`` (deprecated)."""

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        _warn("GradScaler", "GradScaler('cuda', args...)")
        super().__init__(
            "cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled
        )


custom_fwd = functools.partial(_custom_fwd, device_type="cuda")
custom_bwd = functools.partial(_custom_bwd, device_type="cuda")
