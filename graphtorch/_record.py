"""Running what was recorded: from pending values to buffers.

Nothing runs while a program records. When an element is needed, every pending value that a live storage
holds is computed in one graph. Graphs are keyed by structure, so that the second step of a training
loop finds its program; only names, numbers in memory and user lines may differ.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph, Location, Node, Value, _location
from graphtorch.ir.op import NO_ATTRS
from graphtorch.ir.ops.factor import LinAlgError

from ._memory import Executable, pending_program
from .storage import Leaf, Storage

PENDING_BOUND = 1024  # results recorded since the last run; beyond it the pending graph runs
PROGRAM_BOUND = 1024  # programs remembered
EXPENSIVE = frozenset({
    "matmul", "conv", "conv_transpose", "conv_weight_grad", "max_pool", "scan", "sort", "topk", "svd", "eigh",
    "qr", "cholesky", "lu", "triangular_solve",
})

_lock = threading.RLock()
_pending: list[weakref.ref[Storage]] = []
_programs: dict[object, tuple[Executable, list[Location | None]]] = {}  # and the lines it was recorded at
# Results in memory, by the id of their node; an entry goes with its node, of which it holds a weak reference.
_computed: dict[int, tuple[weakref.ref[Node], dict[int, Leaf]]] = {}
_watched: weakref.WeakKeyDictionary[Node, weakref.ref[Any]] = weakref.WeakKeyDictionary()
compiled_count = 0  # programs made so far in this process


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    _pending.clear()  # the parent computes these; a value that is needed here is computed all the same


os.register_at_fork(after_in_child=_after_fork)

# ------------------------------------------------------------------------------------------ the user's line

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_places: dict[int, tuple[Any, dict[int, Location] | None]] = {}


def locate() -> None:
    """Nodes made from now on belong to the user's line: the first frame outside this package."""
    frame = sys._getframe(2)
    while True:
        code = frame.f_code
        known = _places.get(id(code))
        if known is None or known[0] is not code:
            inside = code.co_filename.startswith(_PACKAGE)
            known = _places[id(code)] = (code, None if inside else {})
        lines = known[1]
        if lines is not None:
            break
        outer = frame.f_back
        if outer is None:
            return
        frame = outer
    place = lines.get(frame.f_lasti)
    if place is None:
        place = lines[frame.f_lasti] = Location(code.co_filename, frame.f_lineno)
    _location.set(place)


def user_line() -> str:
    """The user's line now, for messages."""
    locate()
    place = _location.get()
    return str(place) if place else "the program's start"


# ------------------------------------------------------------------------------------------ pending storages


def pending(storage: Storage) -> None:
    """Remember a storage whose value waits to be computed."""
    if Storage.capture is not None:
        Storage.capture.created.append(weakref.ref(storage))
        return
    _pending.append(weakref.ref(storage))
    if len(_pending) > PENDING_BOUND:
        flush()


def flush() -> None:
    """Compute every pending value that a live storage holds."""
    if Storage.capture is None:
        with _lock:
            _run(())


def settle(storage: Storage) -> None:
    """Make the storage's value a leaf."""
    if not isinstance(storage.value, Leaf):
        _refuse_in_capture()
        with _lock:
            _run((storage,))


def array_of(value: Value) -> np.ndarray:
    """The elements of a value, computed if need be. Not to be written to."""
    if not isinstance(value, Leaf):
        holder = Storage(value)
        settle(holder)
        value = holder.value
        assert isinstance(value, Leaf)
    return value.buffer.numpy()


def watch(node: Node, holder: Any) -> None:
    """While `holder` (a node of the autograd graph) lives, the results of the expensive `node` are kept."""
    _watched[node] = weakref.ref(holder)


def _refuse_in_capture() -> None:
    if Storage.capture is not None:
        raise RuntimeError(
            f"a tensor's value is needed in Python at {user_line()} while the function is being captured by "
            "compile() or trace(): the captured graph cannot depend on it. Keep it a tensor (torch.where "
            "instead of "
            "`if`, tensor arithmetic instead of .item()), or move this line out of the captured function"
        )


# ------------------------------------------------------------------------------------------ running


def _run(wanted: Sequence[Storage]) -> None:
    storages = list(wanted)
    for ref in _pending:
        storage = ref()
        if storage is not None and not isinstance(storage.value, Leaf):
            storages.append(storage)
    _pending.clear()
    outputs = list(dict.fromkeys(s.value for s in storages))
    if not outputs:
        return
    walk = Walk(outputs)
    kept = [
        n.result(i)
        for n in walk.nodes
        if n.op.name in EXPENSIVE and _is_watched(n)
        for i in range(len(n.types))
    ]
    outputs = list(dict.fromkeys((*outputs, *kept)))
    leaves = execute(walk, outputs)
    for value, leaf in zip(outputs, leaves, strict=True):
        if value.node is not None:
            _results_of(value.node)[value.index] = leaf
    found = dict(zip(outputs, leaves, strict=True))
    for storage in storages:
        storage.value = found.get(storage.value, storage.value)


def _results_of(node: Node) -> dict[int, Leaf]:
    key = id(node)
    entry = _computed.get(key)
    if entry is None:
        gone = weakref.ref(node, lambda _: _computed.pop(key, None))
        entry = _computed[key] = gone, {}
    return entry[1]


def _is_watched(node: Node) -> bool:
    ref = _watched.get(node)
    holder = None if ref is None else ref()
    return holder is not None and not holder.freed


def execute(walk: Walk, outputs: Sequence[Value]) -> list[Leaf]:
    """Run the graph from the walk's leaves to `outputs`."""
    executable, lines = program_for(walk, outputs)
    try:
        results = executable([leaf.buffer for leaf in walk.leaves])
    except (IndexError, LinAlgError) as error:
        raise type(error)(_with_own_line(str(error), walk, lines)) from None
    return [Leaf(b) for b in results]


def _with_own_line(message: str, walk: Walk, lines: Sequence[Location | None]) -> str:
    """`message` with the line of this recording in the place of the first recording of its structure."""
    for node, line in zip(walk.nodes, lines, strict=True):
        end = f" at {line})"
        if line != node.location and message.endswith(end):
            return f"{message.removesuffix(end)} at {node.location})"
    return message


def program_for(walk: Walk, outputs: Sequence[Value]) -> tuple[Executable, list[Location | None]]:
    """The program of a pending graph, compiled at the first meeting with its structure, and its lines."""
    global compiled_count
    key = (
        tuple([v.type for v in walk.leaves]),
        tuple(walk.rows),
        tuple([walk.reference(v) for v in outputs]),
    )
    found = _programs.get(key)
    if found is None:
        if len(_programs) >= PROGRAM_BOUND:
            _programs.pop(next(iter(_programs)))
        found = _programs[key] = pending_program(walk.graph(outputs)), [n.location for n in walk.nodes]
        compiled_count += 1
    return found


class Walk:
    """The pending nodes behind some values, producers first, and the leaves they start from."""

    __slots__ = ("_inputs", "leaves", "nodes", "numbers", "places", "rows")

    def __init__(self, outputs: Iterable[Value]):
        self.nodes: list[Node] = []
        self.leaves: list[Leaf] = []
        self.rows: list[tuple[object, ...]] = []
        self.numbers: dict[Node, int] = {}
        self.places: dict[Value, int] = {}  # values taken from memory: -1 - position among the leaves
        self._inputs: dict[int, int] = {}  # the same for values without a node, by their ids
        for value in outputs:
            self._visit(value)

    def _visit(self, value: Value) -> None:
        if self._place(value) is not None or value.node in self.numbers:
            return
        numbers, stack = self.numbers, [value.node]
        while stack:
            node = stack[-1]
            if node in numbers:
                stack.pop()
                continue
            row: list[object] = [node.op, None if node.attrs is NO_ATTRS else node.attrs]
            missing: list[Node] = []
            for v in node.operands:
                number = numbers.get(v.node)
                place = None
                if number is None or id(v.node) in _computed:  # another result may be computed again
                    place = self._place(v)
                if place is not None:
                    row.append(place)
                elif number is not None:
                    row.append(number << 10 | v.index)
                else:
                    missing.append(v.node)
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            numbers[node] = len(self.nodes)
            self.nodes.append(node)
            self.rows.append(tuple(row))

    def _place(self, value: Value) -> int | None:
        """The number of a value that is in memory; None for one to compute."""
        if value.node is None:
            place = self._inputs.get(id(value))
            if place is not None:
                return place
            if not isinstance(value, Leaf):
                raise RuntimeError(
                    f"{value} belongs to a graph being traced and has no elements: a tensor made inside "
                    "trace() or compile() was kept and used outside; return it from the function"
                )
            place = self._inputs[id(value)] = self.places[value] = -1 - len(self.leaves)
            self.leaves.append(value)
            return place
        entry = _computed.get(id(value.node))
        leaf = None if entry is None else entry[1].get(value.index)
        if leaf is None:
            return None
        place = self.places.get(value)
        if place is None:
            place = self.places[value] = -1 - len(self.leaves)
            self.leaves.append(leaf)
        return place

    def reference(self, value: Value) -> int:
        """The value's number: negative for leaves, else node number and result index in one."""
        place = self.places.get(value)
        return place if place is not None else self.numbers[value.node] << 10 | value.index

    def graph(self, outputs: Sequence[Value], names: Sequence[str] = ()) -> Graph:
        """The walk as a closed graph, its leaves as inputs."""
        table: dict[Value, Value] = {}
        inputs = [Value(leaf.type, name=names[i] if names else f"x{i}") for i, leaf in enumerate(self.leaves)]
        for value, place in self.places.items():
            table[value] = inputs[-1 - place]
        nodes = []
        for node in self.nodes:
            operands = tuple([table[v] for v in node.operands])
            made = Node(node.op, operands, node.attrs, node.types, node.location)
            nodes.append(made)
            for i, result in enumerate(made.results()):
                table.setdefault(Value(node.types[i], node, i), result)
        return Graph("main", inputs, [table[v] for v in outputs], nodes)


Storage.settle = staticmethod(settle)
Storage.elements = staticmethod(array_of)
