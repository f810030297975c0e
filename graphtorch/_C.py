"""Private names of PyTorch's C extension that Python code written against it was seen to use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ._ops.convert import parse_to


def _log_api_usage_once(event: str) -> None:
    """PyTorch counts uses of its parts here where a user has installed a logger; there is none to install."""


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """(device, dtype, non_blocking, memory_format) that the arguments of ``Module.to`` ask for."""
    asked = parse_to(*args, **kwargs)
    return asked.device, asked.dtype, asked.non_blocking, asked.memory_format


_nn = SimpleNamespace(_parse_to=_parse_to)
