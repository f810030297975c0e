"""Batching: what a graph computes of one entry, for several at once (`vmap`). Ordinary nodes in and
out.

The rules are the ops' own (`Op.batch`); this file only applies them in order. A value that depends
on no mapped input is the same for all entries and stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph import Graph, Node, Value, located, topological
from ..op import ByDecomposition, Core, NoBatch
from ..ops.batching import Values, whole
from ..shape import Dim


def batched(node: Node, values: Values, mapped: Sequence[bool], size: Dim) -> Values:
    """The results of a node of one entry, for `size` entries along their first dimension.

    Args:
        values: the operands; those `mapped` have entries along a new first dimension.

    Raises:
        TypeError: the rule of the op gives results of other types.
    """
    rule = node.op.batch
    with located(node.location):
        if isinstance(rule, NoBatch):
            raise TypeError(f"op {node.op.name} never has a batch: it {rule.reason}")
        if isinstance(rule, ByDecomposition):
            found = through_decomposition(node, values, mapped, size)
        else:
            found = tuple(rule(node, values, mapped, size))
    wanted = [t.with_shape((size, *t.shape)) for t in node.types]
    if [v.type for v in found] != wanted:
        raise TypeError(
            f"batch of op {node.op.name} made {[v.type for v in found]}: expected {wanted}"
            + (f" (recorded at {node.location})" if node.location else "")
        )
    return found


def through_decomposition(node: Node, values: Values, mapped: Sequence[bool], size: Dim) -> Values:
    """The rule of a composite: that of the ops which it decomposes into."""
    if isinstance(node.op.decompose, Core):
        raise TypeError(
            f"op {node.op.name} is core, so its batch cannot follow from a decomposition"
        )
    # values of their own stand for the operands, of which two may be one value
    stands = tuple([Value(v.type) for v in node.operands])
    outputs = node.op.decompose(Node(node.op, stands, node.attrs, node.types, node.location))
    batch = Batch(size, {s: v for s, v, m in zip(stands, values, mapped, strict=True) if m})
    for stand, value, m in zip(stands, values, mapped, strict=True):
        if not m:
            batch.same(stand, value)
    return tuple([whole(batch.of(v), batch.maps(v), size) for v in outputs])


class Batch:
    """Values of one entry, and what stands for them where there are `size` entries.

    Args:
        given: values, and the same with entries along a new first dimension.
    """

    def __init__(self, size: Dim, given: Mapping[Value, Value]):
        self.size = size
        self._found: dict[Value, Value] = dict(given)
        self._mapped: set[Value] = set(given)

    def __contains__(self, value: object) -> bool:
        return value in self._found

    def map(self, value: Value, entries: Value) -> None:
        """From now on `entries` stand for `value`."""
        self._found[value] = entries
        self._mapped.add(value)

    def same(self, value: Value, instead: Value) -> None:
        """From now on `instead` stands for `value` in all entries."""
        self._found[value] = instead

    def of(self, value: Value) -> Value:
        """What stands for `value`."""
        for node in topological((value,), self):
            self._pass(node)
        return self._found.get(value, value)

    def maps(self, value: Value) -> bool:
        """Whether what stands for `value` has entries along a new first dimension."""
        self.of(value)
        return value in self._mapped

    def _pass(self, node: Node) -> None:
        mapped = [v in self._mapped for v in node.operands]
        values = tuple([self._found.get(v, v) for v in node.operands])
        several = any(mapped)
        made = (
            batched(node, values, mapped, self.size)
            if several
            else node.with_operands(values).results()
        )
        for before, after in zip(node.results(), made, strict=True):
            if several:
                self.map(before, after)
            else:
                self.same(before, after)


def batch(
    graph: Graph, mapped: Sequence[bool], size: Dim, wanted: Sequence[bool] = ()
) -> tuple[Graph, list[bool]]:
    """A graph for `size` entries, and which of its outputs have entries along a new first
    dimension.

    Args:
        mapped: for each input whether it has entries.
        wanted: for each output whether it has to have them, though it be the same for all; empty
            for none.
    """
    inputs = [
        Value(v.type.with_shape((size, *v.shape)) if m else v.type, name=v.name)
        for v, m in zip(graph.inputs, mapped, strict=True)
    ]
    pairs = list(zip(graph.inputs, inputs, mapped, strict=True))
    table = Batch(size, {v: i for v, i, m in pairs if m})
    for value, instead, m in pairs:
        if not m:
            table.same(value, instead)
    outputs, flags = [], []
    for value, needed in zip(graph.outputs, wanted or [False] * len(graph.outputs), strict=True):
        found, has = table.of(value), table.maps(value)
        outputs.append(whole(found, has, size) if needed else found)
        flags.append(has or needed)
    return Graph(graph.name, inputs, outputs), flags
