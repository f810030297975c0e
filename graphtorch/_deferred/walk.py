"""The pending nodes behind some values, in the form in which programs are found and run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.op import NO_ATTRS
from graphtorch.ir.structure import Number, split_attrs, split_type

from .storage import Leaf

# Elements of values that stood for inputs of a capture that was called off, by id; entries go with
# values.
standing: dict[int, tuple[weakref.ref[Value], Leaf]] = {}


def stand_for(value: Value, leaf: Leaf) -> None:
    """From now on `value`, the input of a graph, has the elements of `leaf`."""
    key = id(value)
    standing[key] = weakref.ref(value, lambda _: standing.pop(key, None)), leaf


class Spare(NamedTuple):
    """The elements of a value that was made while a graph ran op by op, which a program would not
    have kept.

    Graphs that need the value are recorded as if it were not there, so that their structure does
    not depend on how the graphs before them ran; run op by op they take it.
    """

    leaf: Leaf


class Walk:
    """The pending nodes behind some values, producers first, and the leaves they start from.

    Args:
        spares: whether what was kept as a `Spare` counts as a leaf.

    Attributes:
        passed_spares: whether there was some that did not.
    """

    __slots__ = (
        "_inputs",
        "count",
        "leaves",
        "nodes",
        "numbers",
        "passed_spares",
        "places",
        "rows",
        "sizes",
        "spares",
        "taken",
    )

    def __init__(self, outputs: Iterable[Value], spares: bool = False):
        self.spares = spares
        self.passed_spares = False
        self.nodes: list[Node] = []
        self.leaves: list[Leaf] = []
        self.taken: list[Value] = []  # for each leaf the value that it is the elements of
        # of each node: op, skeleton of its attributes, places of operands
        self.rows: list[tuple[Any, ...]] = []
        self.sizes: list[Number] = []  # the numbers that the skeletons leave out
        self.numbers: dict[Node, int] = {}  # of the first result of each node
        self.count = 0  # results
        # results taken from memory: -1 - position among the leaves
        self.places: dict[Value, int] = {}
        self._inputs: dict[int, int] = {}  # the same for values without a node, by their ids
        for value in outputs:
            node = value.node
            if (node is None or node.memory is not None) and self._place(value) is not None:
                continue
            if node not in self.numbers:
                self._visit(node)  # type: ignore[arg-type]  # what has no node has a place

    @classmethod
    def visited_by(cls, visit: Callable[..., None]) -> None:
        """From now on `visit` does what `_visit` does."""
        cls._visit = visit  # type: ignore[method-assign]

    def _visit(self, node: Node) -> None:
        """Append a node after those that it needs. (See quick/walk.py.)"""
        numbers, inputs = self.numbers, self._inputs
        row: list[Any] = [node.op, 0]
        rest = iter(node.operands)
        waiting: list[tuple[Node, list[Any], Any, int]] = []  # and which result they wait for
        while True:
            for v in rest:  # each operand is looked at once: this loop is most of a walk
                inner = v.node
                if inner is None:
                    place = inputs.get(id(v))
                    row.append(self._leaf(v) if place is None else place)
                    continue
                if inner.memory is not None:  # another result may be computed again
                    place = self._place(v)
                    if place is not None:
                        row.append(place)
                        continue
                number = numbers.get(inner)
                if number is None:
                    waiting.append((node, row, rest, v.index))
                    node, row, rest = inner, [inner.op, 0], iter(inner.operands)
                    break
                row.append(number + v.index)
            else:
                attrs = node.attrs
                if attrs is not NO_ATTRS:
                    row[1], sizes = attrs._split or split_attrs(attrs)
                    if sizes:
                        self.sizes += sizes
                number = numbers[node] = self.count
                self.count = number + len(node.types)
                self.nodes.append(node)
                self.rows.append(tuple(row))
                if not waiting:
                    return
                node, row, rest, index = waiting.pop()
                row.append(number + index)

    def _place(self, value: Value) -> int | None:
        """The place of a value that is in memory; None for one to compute."""
        node = value.node
        if node is None:
            place = self._inputs.get(id(value))
            return self._leaf(value) if place is None else place
        leaf = None if node.memory is None else node.memory.get(value.index)
        if type(leaf) is Spare:
            if not self.spares:
                self.passed_spares = True
                return None
            leaf = leaf.leaf
        if leaf is None:
            return None
        place = self.places.get(value)
        if place is None:
            self.leaves.append(leaf)
            self.taken.append(value)
            place = self.places[value] = -len(self.leaves)
        return place

    def _leaf(self, value: Value) -> int:
        """The place of a leaf that is met for the first time."""
        if isinstance(value, Leaf):
            leaf = value
        elif (stood := standing.get(id(value))) is not None:
            leaf = stood[1]
        else:
            raise RuntimeError(
                f"{value} belongs to a graph being traced and has no elements: a tensor made "
                "inside trace(), compile() or vmap() was kept and used outside; return it from the "
                "function"
            )
        self.leaves.append(leaf)
        self.taken.append(value)
        place = self._inputs[id(value)] = -len(self.leaves)
        return place

    def key(self, outputs: Sequence[Value]) -> tuple[object, tuple[Number, ...]]:
        """What recordings that differ in sizes only have in common, and those sizes."""
        kinds, sizes = [], []
        for leaf in self.leaves:
            kind, own = split_type(leaf.type)
            kinds.append(kind)
            sizes += own
        key = tuple(kinds), tuple(self.rows), tuple([self.reference(v) for v in outputs])
        return key, (*sizes, *self.sizes)

    def reference(self, value: Value) -> int:
        """The value's place, as in `ir.evaluate.Plan`: -1 - i for leaf i, else the number of the
        result."""
        node = value.node
        if node is None:
            return self._inputs[id(value)]
        if node.memory is not None and (place := self.places.get(value)) is not None:
            return place
        return self.numbers[node] + value.index

    def graph(self, outputs: Sequence[Value], names: Sequence[str] = ()) -> Graph:
        """The walk as a closed graph, its leaves as inputs."""
        inputs = [
            Value(leaf.type, name=names[i] if names else f"x{i}")
            for i, leaf in enumerate(self.leaves)
        ]
        table = dict(zip(self.taken, inputs, strict=True))
        nodes = []
        for node in self.nodes:
            operands = tuple([table[v] for v in node.operands])
            made = Node(node.op, operands, node.attrs, node.types, node.location)
            nodes.append(made)
            for i, result in enumerate(made.results()):
                table.setdefault(Value(node.types[i], node, i), result)
        return Graph("main", inputs, [table[v] for v in outputs], nodes)
