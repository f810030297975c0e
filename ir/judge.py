"""Who decides how sizes compare where the ranges of their symbols leave it open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from .shape import SymInt


class Judge(Protocol):
    """Decides comparisons of sizes that the ranges of their symbols leave open.

    Each answer is an assumption, which the judge keeps.
    """

    def at_least(self, difference: SymInt) -> bool:
        """Whether ``difference >= 0``."""

    def is_zero(self, difference: SymInt) -> bool:
        """Whether ``difference == 0``."""

    def number(self, size: SymInt) -> int | None:
        """What a size is that is needed as a number; None where the graph must hold for others as
        well."""


J = TypeVar("J", bound=Judge)
_judge: ContextVar[Judge | None] = ContextVar("graphtorch_judge_of_sizes", default=None)
judge_here = _judge.get  # the judge in whose scope the code runs, or None


@contextmanager
def assuming(judge: J) -> Iterator[J]:
    """Inside, `judge` decides what would raise otherwise."""
    token = _judge.set(judge)
    try:
        yield judge
    finally:
        _judge.reset(token)


def is_users(frame: FrameType) -> bool:
    """Whether the code that a frame runs is none of this package's."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] != _PACKAGE


_PACKAGE = __name__.partition(".")[0]
