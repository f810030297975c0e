"""Small draws that come again run at once: recording one costs more than its numbers.

A kind of draw (what is drawn, its shape and dtype) gets a program of its own where one that differs
from it in its shape at most has come before: from a generator's state to the numbers and the next
state. It is called where the state is in memory and no capture goes on; else the draw is recorded
as any other operation, with the same numbers. Shapes do not count, so that a loop over changing
sizes is recorded alike from its second turn on.
"""

from __future__ import annotations

from typing import Any

from graphtorch.ir.graph import Value, located
from graphtorch.ir.shape import numel

from .. import _settings
from .._deferred.door import CHOSEN
from .._deferred.programs import Repeated
from .._deferred.storage import Leaf
from .streams import Stream

SMALL = 1 << 16  # elements of a draw that is not worth recording
KINDS = 256  # that are remembered

Kind = tuple[Stream, str, tuple[Any, ...]]  # stream, method, arguments
programs: dict[Kind, Repeated] = {}
families: set[tuple[Any, ...]] = set()  # kinds that came, without their shapes


class _Recorded:
    """A generator of which only the state's value is known, before and after a draw."""

    def __init__(self, state: Value):
        self.after = state

    def advance(self, step: Any) -> Value:
        drawn, self.after = step(self.after)
        return drawn  # type: ignore[no-any-return]


def _program(stream: Stream, method: str, arguments: tuple[Any, ...]) -> Repeated:
    state = Leaf.of(stream.begin(0))
    source = _Recorded(state)
    with located(None):
        drawn = getattr(stream, method)(source, *arguments)
    return Repeated((drawn, source.after), state)


def met(kind: Kind, shape: tuple[Any, ...]) -> Repeated | None:
    """The program of a kind of draw that has none yet, if it came before.

    Args:
        shape: how many elements are drawn.
    """
    # the way of running is not to depend on what came
    if CHOSEN is not None or _settings.deterministic():
        return None
    count = numel(shape)
    if type(count) is not int or not 0 < count <= SMALL:
        return None
    stream, method, arguments = kind
    # by identity: a NumPy number compares with a shape element by element
    others = [a for a in arguments if a is not shape and (type(a) is not int or (a,) != shape)]
    family = stream, method, *others
    if family not in families:
        if len(families) >= KINDS:
            families.clear()
        families.add(family)
        return None
    if len(programs) >= KINDS:
        programs.pop(next(iter(programs)))
    program = programs[kind] = _program(*kind)
    return program
