"""Names of PyTorch's ``torch._inductor`` that programs touch."""

from __future__ import annotations

from typing import Any

from .._captured.status import MODES
from . import config

__all__ = ["config", "list_mode_options", "list_options"]


def list_mode_options(mode: str | None = None, dynamic: bool | None = None) -> dict[str, Any]:
    """The options that each mode, or `mode`, stands for in PyTorch.

    Raises:
        RuntimeError: no such mode.
    """
    if mode is None:
        return MODES
    if mode not in MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}")
    return MODES[mode]


def list_options() -> list[str]:
    """The names of the options, those of groups with a dot."""
    found = []
    for name, value in vars(config).items():
        if name.startswith("_") or callable(value) or name == "annotations":
            continue
        found += (
            [f"{name}.{n}" for n in vars(value)] if isinstance(value, config.Options) else [name]
        )
    return found
