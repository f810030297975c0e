"""Small draws that come again and again run at once: recording one costs more than its numbers.

A kind of draw (what is drawn, its shape and dtype) that has come `OFTEN` times gets a program of its own,
from a generator's state to the numbers and the next state. It is called where the state is in memory and no
capture goes on; else the draw is recorded as any other operation, with the same numbers.
"""

from __future__ import annotations

from typing import Any

from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Graph, Type, Value, located

from .._deferred.programs import recorded_program
from .._deferred.storage import Leaf, Storage
from .streams import Stream

OFTEN = 48  # draws of a kind before it is worth a program
SMALL = 1 << 16  # elements of a draw that is not worth recording
KINDS = 256  # that are counted at a time

_counts: dict[Any, int] = {}
_programs: dict[Any, Any] = {}


class _Recorded:
    """A generator of which only the state's value is known, before and after a draw."""

    def __init__(self, state: Value):
        self.before = self.after = state

    def advance(self, step: Any) -> Value:
        drawn, self.after = step(self.after)
        return drawn  # type: ignore[no-any-return]


def _program(stream: Stream, method: str, arguments: tuple[Any, ...]) -> Any:
    with located(None):
        state = Value(Type(i64, (stream.size,)), name="state")
        source = _Recorded(state)
        drawn = getattr(stream, method)(source, *arguments)
        return recorded_program(Graph("draw", [state], [drawn, source.after]), (), False)


def draw(stream: Stream, cell: Storage, method: str, arguments: tuple[Any, ...], count: Any) -> Value | None:
    """What ``stream.method(generator, *arguments)`` gives, if it runs at once; the state in `cell` moves on.

    Args:
        count: how many elements that are.
    """
    state = cell.value
    if type(state) is not Leaf or cell.host is not None:
        return None
    key = stream.name, method, arguments
    program = _programs.get(key)
    if program is None:
        if type(count) is not int or not 0 < count <= SMALL or not _often(key):
            return None
        program = _programs[key] = _program(stream, method, arguments)
    numbers, after = program([state.buffer])
    cell.put(Leaf(after))
    return Leaf(numbers)


def _often(key: Any) -> bool:
    if len(_counts) >= KINDS:
        _counts.clear()
    times = _counts[key] = _counts.get(key, 0) + 1
    if times < OFTEN:
        return False
    del _counts[key]
    if len(_programs) >= KINDS:
        _programs.pop(next(iter(_programs)))
    return True
