"""Helpers that layers written for PyTorch import from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """A function that makes a tuple of an iterable, and `n` copies of anything else."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

    parse.__name__ = name
    return parse


_single, _pair = _ntuple(1, "_single"), _ntuple(2, "_pair")
_triple, _quadruple = _ntuple(3, "_triple"), _ntuple(4, "_quadruple")


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Take `prefix` (``"module."`` of DataParallel) off the keys of a state dict, and of its
    metadata."""
    for table in (state_dict, getattr(state_dict, "_metadata", None)):
        for key in list(table or ()):
            if key.startswith(prefix) and table is not None:
                table[key[len(prefix) :]] = table.pop(key)
            elif table is not None and key == prefix.removesuffix("."):
                table[""] = table.pop(key)
