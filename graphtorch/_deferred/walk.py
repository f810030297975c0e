"""The pending nodes behind some values, in the form in which programs are found and run."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

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


class Walk:
    """The pending nodes behind some values, producers first, and the leaves they start from."""

    __slots__ = ("_inputs", "count", "leaves", "nodes", "numbers", "places", "rows", "sizes")

    def __init__(self, outputs: Iterable[Value]):
        self.nodes: list[Node] = []
        self.leaves: list[Leaf] = []
        # of each node: op, skeleton of its attributes, places of operands
        self.rows: list[tuple[Any, ...]] = []
        self.sizes: list[Number] = []  # the numbers that the skeletons leave out
        self.numbers: dict[Node, int] = {}  # of the first result of each node
        self.count = 0  # results
        # values taken from memory: -1 - position among the leaves
        self.places: dict[Value, int] = {}
        self._inputs: dict[int, int] = {}  # the same for values without a node, by their ids
        for value in outputs:
            self._visit(value)

    def _visit(self, value: Value) -> None:
        if self._place(value) is not None or value.node in self.numbers:
            return
        numbers = self.numbers
        stack = [(value.node, iter(value.node.operands))]
        while stack:
            node, rest = stack[-1]
            for v in rest:
                inner = v.node
                if inner is None or inner in numbers:
                    continue
                if inner.memory is not None and v.index in inner.memory:
                    continue
                stack.append((inner, iter(inner.operands)))
                break
            else:
                stack.pop()
                self._append(node)

    def _append(self, node: Node) -> None:
        """The next node; its operands are in memory or have numbers."""
        numbers, inputs = self.numbers, self._inputs
        row: list[Any] = [node.op, 0]
        attrs = node.attrs
        if attrs is not NO_ATTRS:
            row[1], sizes = attrs._split or split_attrs(attrs)
            if sizes:
                self.sizes += sizes
        for v in node.operands:
            inner = v.node
            if inner is None:
                place = inputs.get(id(v))
                row.append(self._leaf(v) if place is None else place)
            elif inner.memory is None:
                row.append(numbers[inner] + v.index)
            else:  # another result may be computed again
                place = self._place(v)
                row.append(numbers[inner] + v.index if place is None else place)
        numbers[node] = self.count
        self.count += len(node.types)
        self.nodes.append(node)
        self.rows.append(tuple(row))

    def _place(self, value: Value) -> int | None:
        """The place of a value that is in memory; None for one to compute."""
        node = value.node
        if node is None:
            place = self._inputs.get(id(value))
            return self._leaf(value) if place is None else place
        leaf = None if node.memory is None else node.memory.get(value.index)
        if leaf is None:
            return None
        place = self.places.get(value)
        if place is None:
            place = self.places[value] = -1 - len(self.leaves)
            self.leaves.append(leaf)
        return place

    def _leaf(self, value: Value) -> int:
        """The place of a leaf that is met for the first time."""
        stood = None if isinstance(value, Leaf) else standing.get(id(value))
        if stood is not None:
            leaf = stood[1]
        elif isinstance(value, Leaf):
            leaf = value
        else:
            raise RuntimeError(
                f"{value} belongs to a graph being traced and has no elements: a tensor made "
                "inside trace(), compile() or vmap() was kept and used outside; return it from the "
                "function"
            )
        place = self._inputs[id(value)] = self.places[value] = -1 - len(self.leaves)
        self.leaves.append(leaf)
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
        place = self.places.get(value)
        return place if place is not None else self.numbers[value.node] + value.index

    def graph(self, outputs: Sequence[Value], names: Sequence[str] = ()) -> Graph:
        """The walk as a closed graph, its leaves as inputs."""
        table: dict[Value, Value] = {}
        inputs = [
            Value(leaf.type, name=names[i] if names else f"x{i}")
            for i, leaf in enumerate(self.leaves)
        ]
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
