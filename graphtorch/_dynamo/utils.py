"""`counters`, which programs read and clear."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

counters: defaultdict[str, Counter[Any]] = defaultdict(Counter)  # nothing is counted


def compile_times(repr: str = "str", aggregate: bool = False) -> Any:
    """No times: ``GRAPHTORCH_DEBUG=programs`` reports them."""
    return "" if repr == "str" else ([], [])


def is_compile_supported(device_type: str) -> bool:
    """Whether `torch.compile` works for tensors on a device: on the CPU."""
    return device_type == "cpu"


__all__ = ["compile_times", "counters", "is_compile_supported"]
