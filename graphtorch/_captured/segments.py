"""Values that Python reads in the middle of a call, on which the rest of the call depends.

A recording goes on after a read, on the path that the value led to, and serves the calls whose
reads give the same. Each read is made by a program of its own, the *segment*, from what the call
starts from: what is written in place is data flow in a graph, so nothing outside changes before the
whole path is known, and a call that turns out to be another can be recorded, or run line by line,
from its start. Costly values that a segment comes by on its way are results of it as well, and what
follows starts from them. Recordings that begin alike share their segments: together they are a
tree, and a call goes down from its root.
"""

from __future__ import annotations

import dis
import operator
from collections.abc import MutableMapping, Sequence
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir.graph import Graph, Node, Value, topological
from graphtorch.ir.op import Weight

from .._deferred.door import Buffer
from .._deferred.programs import Serving, graph_key, recorded_program
from .._deferred.storage import RuntimeScalar
from .._types import CPU, device

FEW = 16  # elements that may be read at once
READS = 16  # in one call
LEAVES = 8  # paths of one kind of call; with more it runs line by line
LARGE = 1 << 12  # elements from which on more than a cheap operation is not done twice

Comparison = tuple[Any, Any]  # an operator and its right side
_OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Unreplayable(Exception):
    """The call did something that a replay could not do again, which may be the message."""


class Unobserved(Unreplayable):
    """The gradient cannot be recorded before backward passes of the user's own have run once.

    Args: functions: subclasses of `Function` that they belong to.
    """

    def __init__(self, functions: frozenset[type]):
        names = ", ".join(sorted(f.__name__ for f in functions))
        super().__init__(
            f"what the backward pass of {names} does in Python is seen at its first run"
        )
        self.functions = functions


class Restart(BaseException):
    """A call whose sizes are symbols has to be made again, without them.

    It is raised before something happens that must not happen twice, and is no `Exception`: the
    function is not to handle it.
    """


class Read(NamedTuple):
    """A value that Python asked for during a recording: what it was, or how it compared."""

    value: Value
    compared: Comparison | None
    key: Any


def key_of(buffer: Buffer, compared: Comparison | None) -> Any:
    """What a read decided by: its bytes, or how its number compares."""
    array = buffer.numpy()
    return array.tobytes() if compared is None else compared[0](array.item(), compared[1])


class Segment:
    """A program that makes one value to read, then the costly ones that it came by.

    Attributes:
        kept: where those stand: numbers of nodes of the read's graph, and of their results.
    """

    __slots__ = ("__weakref__", "kept", "program")

    def __init__(
        self,
        graph: Graph,
        kept: Sequence[tuple[int, int]],
        stable: Sequence[int],
        serving: Serving,
        place: device = CPU,
    ):
        self.kept = tuple(kept)
        # without nodes an input is read
        self.program = (
            recorded_program(graph, stable, serving, places=[place] * len(graph.outputs))
            if graph.nodes
            else None
        )


def number_now(scalar: RuntimeScalar) -> Buffer:
    """What a number that is read anew at each call is by now."""
    return Buffer.of(np.array(scalar.getter(), scalar.dtype.numpy))


class Step(NamedTuple):
    """One read of a recording: the segment that makes it, and its inputs."""

    segment: Segment
    fed: tuple[int, ...]  # which of the inputs of the whole call
    taken: tuple[int, ...]  # which of the values that segments before it kept
    scalars: tuple[RuntimeScalar, ...]
    compared: Comparison | None
    key: Any

    def run(self, inputs: Sequence[Buffer], kept: Sequence[Buffer]) -> list[Buffer]:
        """The value, and what is kept."""
        given = [inputs[i] for i in self.fed] + [kept[i] for i in self.taken]
        given += [number_now(s) for s in self.scalars]
        return given[:1] if self.segment.program is None else self.segment.program(given)


Known = dict[Segment, list[Buffer]]  # what segments made in a call


def follow(steps: Sequence[Step], inputs: Sequence[Buffer], known: Known) -> list[Buffer] | None:
    """What the segments of a path keep in this call; None where a read gives something else."""
    kept: list[Buffer] = []
    for step in steps:
        results = known.get(step.segment)
        if results is None:
            results = known[step.segment] = step.run(inputs, kept)
        if key_of(results[0], step.compared) != step.key:
            return None
        kept += results[1:]
    return kept


def is_refuted(steps: Sequence[Step], known: Known) -> bool:
    """Whether what is known of this call already tells that its path is another."""
    for step in steps:
        results = known.get(step.segment)
        if results is None:
            return False
        if key_of(results[0], step.compared) != step.key:
            return True
    return False


# --------------------------------------------------------------------------------- from a recording


class Path:
    """The reads of a recording as steps.

    Attributes:
        steps: one for each read.
        kept: the values that the segments keep.
    """

    def __init__(
        self,
        reads: Sequence[Read],
        places: Sequence[Value],
        sources: Sequence[Any],
        wanted: Sequence[Value],
        closed: Any,
        known: MutableMapping[Any, Segment],
        stable: Sequence[int],
        serving: Serving,
        place: device = CPU,
    ):
        """Args:
        places: the values that the call starts from; `sources`: where each comes from; `stable`:
            which of them seldom change.
        wanted: what is made after the last read.
        closed: `capture.Closed`.
        place: where segments run.
        known: segments of other recordings, by what they do.
        """
        self.steps: list[Step] = []
        self.kept: list[Value] = []
        self._places = {v: i for i, v in enumerate(places)}
        self._sources = sources
        self._closed = closed
        self._device = place
        self._stable = frozenset(stable)
        before: Any = None
        for i, read in enumerate(reads):
            rest = [*[r.value for r in reads[i + 1 :]], *wanted]
            before = self._add(read, rest, before, known, serving)

    def _add(
        self,
        read: Read,
        rest: Sequence[Value],
        before: Any,
        known: MutableMapping[Any, Segment],
        serving: Serving,
    ) -> Any:
        done = frozenset((*self._places, *self.kept))
        nodes = topological([read.value], done)
        used = dict.fromkeys(v for n in nodes for v in n.operands) if nodes else {read.value: None}
        fed = [v for v in self._places if v in used]
        taken = [v for v in self.kept if v in used and v not in self._places]
        closed = self._closed("segment", [*fed, *taken], [read.value])
        if closed.constants:
            raise Unreplayable  # elements of a tensor whose reading was not seen
        places = tuple([self._places[v] for v in fed])
        stable = tuple([n for n, i in enumerate(places) if i in self._stable])
        sources = tuple([self._sources[i] for i in places])
        same = before, sources, stable, len(taken), self._device, graph_key(closed.graph)
        segment = None if closed.scalars else known.get(same)
        if segment is None:
            kept = _worth_keeping(nodes, rest, done)
            values = [
                n.result(i) for n in nodes for i in range(len(n.types)) if n.result(i) in kept
            ]
            whole = self._closed("segment", [*fed, *taken], [read.value, *values])
            numbers = {n: i for i, n in enumerate(nodes)}
            segment = Segment(
                whole.graph,
                [(numbers[v.node], v.index) for v in values],
                stable,
                serving,
                self._device,
            )
            if not closed.scalars:
                known[same] = segment
        at = {v: i for i, v in enumerate(self.kept)}
        self.steps.append(
            Step(
                segment,
                places,
                tuple([at[v] for v in taken]),
                tuple(closed.scalars),
                read.compared,
                read.key,
            )
        )
        self.kept += [nodes[n].result(i) for n, i in segment.kept]
        return same


def _worth_keeping(
    nodes: Sequence[Node], rest: Sequence[Value], done: frozenset[Value]
) -> set[Value]:
    """Which results of `nodes` are needed for `rest`, and cost more to make than to keep."""
    own = set(nodes)
    costly: set[Node] = set()
    for node in nodes:
        if _is_costly(node) or any(v.node in costly for v in node.operands if v not in done):
            costly.add(node)
    needed = dict.fromkeys(v for n in topological(rest, done) if n not in own for v in n.operands)
    needed.update(dict.fromkeys(rest))
    kept = {v for v in needed if v.node in costly and v not in done}
    for value in list(kept):
        node = value.node
        if (
            node is not None
            and node.op.is_cheap
            and all(v in kept or v in done for v in node.operands)
        ):
            kept.discard(value)
    return kept


def _is_costly(node: Node) -> bool:
    if node.op.weight >= Weight.COSTLY:
        return True
    sizes = [v.type.numel for v in node.operands]
    large = any(not isinstance(n, int) or n >= LARGE for n in sizes)
    return large and node.op.weight > Weight.CHEAP


# -------------------------------------------------------------------------------------- comparisons


_comparisons: dict[tuple[CodeType, int], tuple[str, str, Any] | None] = {}


def comparison(frame: Any) -> Comparison | None:
    """How a frame whose call ``x.item()`` is under way compares the result, if that is all it does
    with it.

    The right side is a number, or a name that holds one: it is the same whenever this path is
    taken.
    """
    frame = _caller(frame)
    place = frame.f_code, frame.f_lasti
    if place not in _comparisons:
        _comparisons[place] = _compares(*place)
    found = _comparisons[place]
    if found is None:
        return None
    sign, kind, right = found
    if kind == "local":
        right = frame.f_locals.get(right)
    elif kind == "global":
        right = frame.f_globals.get(right)
    return (_OPERATORS[sign], right) if type(right) in _NUMBERS else None


_NUMBERS = (int, float, bool)


def _caller(frame: Any) -> Any:
    """The frame that called a method, without ours that looks at the arguments and hands on the
    result."""
    return frame.f_back if frame.f_globals.get("__name__") == "graphtorch._ops.accept" else frame


def _compares(code: CodeType, at: int) -> tuple[str, str, Any] | None:
    """What follows a call of ``item``: an operator, the kind of its right side, and this number or
    name."""
    lines, here = _lines(code), _call_of_item(code, at)
    if not here or here + 2 >= len(lines):
        return None
    right, then = lines[here + 1], lines[here + 2]
    if then.opname != "COMPARE_OP" or then.argval not in _OPERATORS:
        return None
    if any(i.is_jump_target for i in (lines[here + 1], lines[here + 2])):
        return None
    if right.opname == "LOAD_CONST":
        return then.argval, "number", right.argval
    if right.opname in ("LOAD_FAST", "LOAD_FAST_CHECK"):
        return then.argval, "local", right.argval
    if right.opname == "LOAD_GLOBAL":
        return then.argval, "global", right.argval
    return None


def _lines(code: CodeType) -> list[dis.Instruction]:
    return [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "PRECALL", "NOP")]


def _call_of_item(code: CodeType, at: int) -> int:
    """Which of the `_lines` is the call that is under way, if it is one of a method ``item``; else
    0."""
    lines = _lines(code)
    # `at` may be in its cache
    here = max([n for n, i in enumerate(lines) if i.offset <= at], default=0)
    if here < 1 or not lines[here].opname.startswith("CALL") or lines[here].arg != 0:
        return 0
    method = lines[here - 1]
    return here if method.opname in ("LOAD_METHOD", "LOAD_ATTR") and method.argval == "item" else 0


# ------------------------------------------------------------------------------------------ results


_results: dict[tuple[CodeType, int], bool] = {}


def goes_out(frame: Any, root: CodeType) -> bool:
    """Whether what a call ``x.item()`` gives goes nowhere but into the result of the compiled
    function.

    Args:
        root: the code that calls this function.
    """
    frame = _caller(frame)
    if frame.f_back is None or frame.f_back.f_code is not root:
        return False
    place = frame.f_code, frame.f_lasti
    if place not in _results:
        _results[place] = _is_returned(*place)
    return _results[place]


def _is_returned(code: CodeType, at: int) -> bool:
    lines, here = _lines(code), _call_of_item(code, at)
    if not here or code.co_flags & (_GENERATOR | _COROUTINE) or "locals" in code.co_names:
        return False
    then = lines[here + 1]
    if then.opname != "STORE_FAST":
        return _leads_out(lines, here + 1)
    named = [n for n, i in enumerate(lines) if "FAST" in i.opname and _names(i, then.argval)]
    loads = [n for n in named if lines[n] is not then]
    return all(lines[n].opname in _LOADS and _leads_out(lines, n + 1) for n in loads)


def _names(line: dis.Instruction, name: str) -> bool:
    return name in line.argval if isinstance(line.argval, tuple) else line.argval == name


def _leads_out(lines: list[dis.Instruction], start: int) -> bool:
    """Whether the value on top of the stack is put into tuples, lists and dicts, and returned."""
    above = 0  # values on the stack above it
    for line in lines[start:]:
        name = line.opname
        if name == "RETURN_VALUE":
            return above == 0
        if name in _BUILDS:
            taken = line.arg or 0
            taken = taken * 2 if name == "BUILD_MAP" else taken + (name == "BUILD_CONST_KEY_MAP")
            above = 0 if taken > above else above - taken + 1
        elif name in _LOADS or name in ("LOAD_CONST", "LOAD_GLOBAL", "LOAD_DEREF"):
            if name == "LOAD_GLOBAL" and line.arg is not None and line.arg & 1:
                return False  # a call
            above += 1
        elif name != "COPY_FREE_VARS":
            return False
        if line.is_jump_target:
            return False
    return False


_LOADS = ("LOAD_FAST", "LOAD_FAST_CHECK")
_BUILDS = ("BUILD_TUPLE", "BUILD_LIST", "BUILD_MAP", "BUILD_CONST_KEY_MAP")
_GENERATOR, _COROUTINE = 0x20, 0x80
