"""What the memory of GPUs is used for: ``torch.cuda.memory``.

See https://docs.pytorch.org/docs/stable/cuda.html#memory-management
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .._deferred import running
from .._deferred.door import gpus
from .._settings import warn_user
from ._gpu import runner_of

__all__ = [
    "empty_cache",
    "max_memory_allocated",
    "max_memory_cached",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_cached",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_max_memory_allocated",
    "reset_max_memory_cached",
    "reset_peak_memory_stats",
]


def empty_cache() -> None:
    """Give memory that no tensor holds back to the system."""
    for index in range(gpus()):
        runner_of(index, "empty_cache").release()


def _counted(name: str, of: str, doc: str) -> Any:
    def count(device: Any = None) -> int:
        if not gpus():
            return 0
        running.flush()
        return getattr(runner_of(device, name).statistics(), of)  # type: ignore[no-any-return]

    count.__name__ = count.__qualname__ = name
    count.__doc__ = doc
    return count


memory_allocated = _counted("memory_allocated", "allocated", "Bytes of GPU memory held by tensors.")
max_memory_allocated = _counted(
    "max_memory_allocated", "peak_allocated", "The most bytes held by tensors since the last reset."
)
memory_reserved = _counted(
    "memory_reserved", "reserved", "Bytes of GPU memory taken from the system."
)
max_memory_reserved = _counted(
    "max_memory_reserved",
    "peak_reserved",
    "The most bytes taken from the system since the last reset.",
)


def memory_cached(device: Any = None) -> int:
    """As `memory_reserved` (deprecated)."""
    warn_user(
        "`torch.cuda.memory_cached` has been renamed to `torch.cuda.memory_reserved`",
        FutureWarning,
    )
    return memory_reserved(device)  # type: ignore[no-any-return]


def max_memory_cached(device: Any = None) -> int:
    """As `max_memory_reserved` (deprecated)."""
    warn_user(
        "`torch.cuda.max_memory_cached` has been renamed to `torch.cuda.max_memory_reserved`",
        FutureWarning,
    )
    return max_memory_reserved(device)  # type: ignore[no-any-return]


def memory_stats(device: Any = None) -> OrderedDict[str, Any]:
    """The counters by PyTorch's names, as far as they are counted; none without a GPU."""
    if not gpus():
        return OrderedDict()
    found = runner_of(device, "memory_stats").statistics()
    return OrderedDict(
        {
            "allocated_bytes.all.current": found.allocated,
            "allocated_bytes.all.peak": found.peak_allocated,
            "allocation.all.allocated": found.allocations,
            "reserved_bytes.all.current": found.reserved,
            "reserved_bytes.all.peak": found.peak_reserved,
        }
    )


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The counters as a table."""
    lines = [f"{name:<32} {value:>20,}" for name, value in memory_stats(device).items()]
    return "\n".join(["memory of the GPU, in bytes", *lines])


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let the peaks begin anew at what is held now."""
    if gpus():
        runner_of(device, "reset_peak_memory_stats").reset_peaks()


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """How many bytes are free, and how many there are. Raises AssertionError: there is no
    device."""
    return runner_of(device, "mem_get_info").memory_info()
