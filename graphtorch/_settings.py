"""Settings of the process: threads, determinism, warnings."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

# a frame of a file below it is not the user's
FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep

_state: dict[str, Any] = {"threads": None, "deterministic": False, "warn_always": False}


def get_num_threads() -> int:
    """How many threads a compiled graph uses."""
    if _state["threads"] is None:
        _state["threads"] = importlib.import_module(
            "graphtorch.backends.llvm.processor"
        ).available_cpus()
    return _state["threads"]


def set_num_threads(count: int) -> None:
    """Set how many threads a compiled graph uses; at least 1."""
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"set_num_threads expects an int, but got {type(count).__name__}")
    if count < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, but got {count}")
    _state["threads"] = count
    importlib.import_module("graphtorch.backends.llvm.runtime").set_num_threads(count)


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for the same bits from the same call, however often it came and whatever the number of
    threads.

    Without it two runs of a call may differ by rounding, since the first ones may be interpreted;
    signs, the order of equal elements and failures are the same in any case.
    """
    _state["deterministic"] = bool(mode)


def deterministic() -> bool:
    """Whether a pending graph has to run as native code from its first call on.

    Native code gives the same bits for any number of threads: work is cut by sizes alone, and
    partial results are combined in a fixed order.
    """
    return _state["deterministic"]


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms` is on."""
    return deterministic()


def set_warn_always(b: bool) -> None:
    """Whether warnings that are shown once per process are shown each time."""
    _state["warn_always"] = bool(b)
    warnings.simplefilter("always" if b else "default", UserWarning)


def is_warn_always_enabled() -> bool:
    """Whether `set_warn_always` is on."""
    return _state["warn_always"]


def set_float32_matmul_precision(precision: str) -> None:
    """'highest', 'high' or 'medium': float32 products are always exact here."""
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"unknown precision {precision!r}: expected highest, high or medium")
    _precision[0] = precision


_precision = ["highest"]


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` said."""
    return _precision[0]


PUBLIC = {
    f.__name__: f
    for f in (
        get_num_threads,
        set_num_threads,
        use_deterministic_algorithms,
        are_deterministic_algorithms_enabled,
        set_warn_always,
        is_warn_always_enabled,
        set_float32_matmul_precision,
        get_float32_matmul_precision,
    )
}
