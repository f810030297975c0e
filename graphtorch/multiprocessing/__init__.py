"""``torch.multiprocessing``: Python's `multiprocessing`; tensors travel between processes as
copies.

https://docs.pytorch.org/docs/stable/multiprocessing.html
"""

from __future__ import annotations

import multiprocessing as _python
from multiprocessing import *  # noqa: F403

from .._torch.absent import attribute_of
from .spawn import (
    ProcessContext,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
    spawn,
    start_processes,
)

_strategy = ["file_descriptor"]


def get_all_sharing_strategies() -> set[str]:
    """The names of PyTorch's ways to share memory."""
    return {"file_descriptor", "file_system"}


def get_sharing_strategy() -> str:
    """What was set last. Tensors are copied in any case."""
    return _strategy[0]


def set_sharing_strategy(new_strategy: str) -> None:
    """Set what `get_sharing_strategy` says. Raises AssertionError: an unknown one."""
    if new_strategy not in get_all_sharing_strategies():
        raise AssertionError(f"set_sharing_strategy: unknown strategy {new_strategy!r}")
    _strategy[0] = new_strategy


__all__ = [
    *_python.__all__,
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "get_all_sharing_strategies",
    "get_sharing_strategy",
    "set_sharing_strategy",
    "spawn",
    "start_processes",
]
__getattr__ = attribute_of(__name__)
