"""Objects that are made at once with all that is in them, by one native call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Given(NamedTuple):
    """In the place of a value: that argument of the call that makes the object."""

    number: int


class New:
    """An object of a class without running its constructor, and the attributes that it gets.

    Their values are `New` and `Given`, of which each stands in one place, or objects that all calls
    share. Attributes that slots hold are written there; others are set.
    """

    __slots__ = ("kind", "parts")

    def __init__(self, kind: type, /, **parts: Any):
        self.kind = kind
        self.parts = parts


def maker(count: int, new: New) -> Callable[..., Any]:
    """What makes a `new` of `count` arguments that `Given` stands for."""
    # imported at first use, as targets are
    made = importlib.import_module(".llvm.builtin", __package__).maker(count, new)
    return made  # type: ignore[no-any-return]


def is_quick() -> bool:
    """Whether there is native code already, which `maker` else loads, or even compiles."""
    return f"{__package__}.llvm.builtin" in sys.modules
