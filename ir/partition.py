"""The mechanics of dividing a graph into groups of nodes: data flow, alignment of loops, no cycles.

What should be together is the fuse pass's business; here is what can be.

A group of kind "loop" is one loop nest over a *space*, the sizes of its axes, some of which it may
reduce. A value of the group that is *aligned* has, for each of its dimensions, the axis it runs
along (None: constant along it), so that one position of the nest determines one element. Values
that are not aligned are computed inside the element that needs them, at whatever index a view asks
for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from .dataclass import dataclass
from .graph import Graph, Node, Value
from .ops.checks import attrs_of
from .ops.shape import DimsAttrs
from .shape import Shape

Axes: TypeAlias = tuple["int | None", ...]


class Read(NamedTuple):
    """An operand of a node: `chain` of view nodes, the last being the operand itself, over
    `root`."""

    node: Node
    position: int
    chain: tuple[Node, ...]
    root: Value


@dataclass(frozen=True)
class Space:
    """Sizes of the axes of a loop nest; `reduced` is None where it has no reduction."""

    dims: Shape
    reduced: frozenset[int] | None = None

    @functools.cached_property
    def axes(self) -> tuple[int, ...]:
        """The axes that are loops: those whose size is not 1."""
        return tuple([i for i, d in enumerate(self.dims) if d != 1])

    @functools.cached_property
    def kept(self) -> tuple[int, ...]:
        """The loops that are not reduced."""
        return tuple([i for i in self.axes if not self.reduced or i not in self.reduced])


def identity_axes(shape: Shape) -> Axes:
    """A value that runs through the whole of its own space."""
    return tuple([None if d == 1 else i for i, d in enumerate(shape)])


class Group:
    """Nodes that will be one region."""

    def __init__(self, kind: str, nodes: list[Node], space: Space):
        self.kind = kind
        self.nodes = nodes
        self.space = space
        # of each node's result in the space; None: not aligned
        self.axes: dict[Node, Axes | None] = {}
        self.reduces: dict[Node, Axes] = {}  # of each reduction's operand
        self.reads: dict[Value, list[Read]] = {}  # by root outside the group
        self.producers: set[Group] = set()
        self.consumers: set[Group] = set()
        self.level = 0  # above that of every producer
        self.members = 0  # bit set of nodes
        self.ancestors = 0  # bit set of nodes that the members depend on, themselves included

    def __repr__(self) -> str:
        return f"<{self.kind}: {' '.join(n.op.name for n in self.nodes)}>"

    def reads_from(self, producer: Group) -> list[Read]:
        return [
            r for root, reads in self.reads.items() if root.node in producer.axes for r in reads
        ]


class Partition:
    """Groups over the nodes of a graph, merged step by step; they never depend on each other in a
    circle.

    Args:
        is_free: nodes that no group owns: each group that reads one (a view, a scalar constant)
            gets a copy.
        is_leaf: nodes that no group owns or copies: their results are like inputs.
    """

    def __init__(
        self, graph: Graph, is_free: Callable[[Node], bool], is_leaf: Callable[[Node], bool]
    ):
        self.graph = graph
        self.free = {n for n in graph.nodes if is_free(n)}
        self.owned = [n for n in graph.nodes if n not in self.free and not is_leaf(n)]
        self.number = {n: i for i, n in enumerate(self.owned)}
        self.operands = {n: [self._read(n, i) for i in range(len(n.operands))] for n in self.owned}
        self.readers = self._readers()
        self.escaping = set(graph.outputs)
        self.owner: dict[Node, Group] = {}

    def _read(self, node: Node, position: int) -> Read:
        value = node.operands[position]
        chain: list[Node] = []
        while value.node is not None and value.node in self.free and value.node.operands:
            chain.append(value.node)
            value = value.node.operands[0]
        return Read(node, position, tuple(reversed(chain)), value)

    def _readers(self) -> dict[Value, set[Node]]:
        table: dict[Value, set[Node]] = {}
        for reads in self.operands.values():
            for read in reads:
                table.setdefault(read.root, set()).add(read.node)
        return table

    def groups(self) -> list[Group]:
        return list(dict.fromkeys(self.owner[n] for n in self.owned))

    def start(
        self, node: Node, kind: str, space: Space, axes: Axes | None, reduces: Axes | None = None
    ) -> Group:
        """A group of one node, whose producers all have groups."""
        group = Group(kind, [node], space)
        group.axes[node] = axes
        if reduces is not None:
            group.reduces[node] = reduces
        self.owner[node] = group
        group.members = group.ancestors = 1 << self.number[node]
        for read in self.operands[node]:
            group.reads.setdefault(read.root, []).append(read)
            source = self.owner.get(read.root.node) if read.root.node is not None else None
            if source is not None:
                group.producers.add(source)
                source.consumers.add(group)
                group.level = max(group.level, source.level + 1)
                group.ancestors |= source.ancestors
        return group

    def read_only_by(self, producer: Group, consumer: Group) -> bool:
        """Whether nothing but `consumer` needs what `producer` computes."""
        for node in producer.nodes:
            for value in node.results():
                readers = self.readers.get(value, ())
                outside = any(self.owner.get(n) not in (producer, consumer) for n in readers)
                if outside or value in self.escaping:
                    return False
        return True

    def would_cycle(self, producer: Group, consumer: Group) -> bool:
        """Whether `consumer` also depends on `producer` through a third group."""
        return any(
            group is not producer and group.ancestors & producer.members
            for group in consumer.producers
        )

    def merge(self, producer: Group, consumer: Group) -> None:
        """Move all of `producer` into `consumer`; the caller sets kind, space and alignment."""
        consumer.nodes = sorted(producer.nodes + consumer.nodes, key=self.number.__getitem__)
        consumer.members |= producer.members
        consumer.ancestors |= producer.ancestors
        for node in producer.nodes:
            self.owner[node] = consumer
        consumer.axes = {**producer.axes, **consumer.axes}
        consumer.reduces = {**producer.reduces, **consumer.reduces}
        self._join_reads(producer, consumer)
        for group in producer.producers:
            group.consumers.discard(producer)
            group.consumers.add(consumer)
        for group in producer.consumers - {consumer}:
            group.producers.discard(producer)
            group.producers.add(consumer)
        consumer.producers = (consumer.producers | producer.producers) - {producer, consumer}
        consumer.consumers = (consumer.consumers | producer.consumers) - {producer, consumer}
        self._tell_consumers(consumer)

    def _join_reads(self, producer: Group, consumer: Group) -> None:
        joined: dict[Value, list[Read]] = {}
        for reads in (producer.reads, consumer.reads):
            for root, items in reads.items():
                if root.node not in consumer.axes:
                    joined.setdefault(root, []).extend(items)
        consumer.reads = joined

    def _tell_consumers(self, group: Group) -> None:
        """What was merged into `group` is among the ancestors of all that depend on it, and these
        are above it."""
        stack = [group]
        while stack:
            above = stack.pop()
            for below in above.consumers:
                known = below.level, below.ancestors
                below.level = max(below.level, above.level + 1)
                below.ancestors |= above.ancestors
                if (below.level, below.ancestors) != known:
                    stack.append(below)


# ---------------------------------------------------------------------------------------- alignment


def through(axes: Axes | None, chain: Sequence[Node]) -> Axes | None:
    """The axes of a view of an aligned value; None where it is no longer aligned."""
    for node in chain:
        rule = VIEW_AXES.get(node.op.name)
        if axes is None or rule is None:
            return None
        axes = rule(node, axes)
    return axes


def _reshape_axes(node: Node, axes: Axes) -> Axes | None:
    return _matched(node.operands[0].shape, axes, node.types[0].shape)


def _matched(shape: Shape, axes: Axes, target: Shape) -> Axes | None:
    """`axes` of `shape` for a reshape of it, if only sizes of 1 come and go."""
    if [d for d in shape if d != 1] != [d for d in target if d != 1]:
        return None
    left = iter([a for a, d in zip(axes, shape, strict=True) if d != 1])
    return tuple(None if d == 1 else next(left) for d in target)


def _slice_axes(node: Node, axes: Axes) -> Axes | None:
    whole = node.operands[0].shape == node.types[0].shape
    return axes if whole else None


VIEW_AXES: dict[str, Callable[[Node, Axes], Axes | None]] = {
    "permute": lambda node, axes: tuple(axes[d] for d in attrs_of(node, DimsAttrs).dims),
    "expand": lambda node, axes: (None,) * (node.types[0].rank - len(axes)) + axes,
    "reshape": _reshape_axes,
    "slice": _slice_axes,
    "detach": lambda node, axes: axes,
}


def viewed_axes(node: Node, axes: Axes | None) -> Axes | None:
    """The opposite of `through` for one view: for each dimension of the operand the axis of the
    result."""
    operand = node.operands[0].shape if node.operands else ()
    match node.op.name:
        case "permute" if axes is not None:
            return tuple(axes[attrs_of(node, DimsAttrs).dims.index(d)] for d in range(len(axes)))
        case "reshape" if axes is not None:
            return _matched(node.types[0].shape, axes, operand)
        case "expand" | "detach":
            return broadcast_axes(axes, operand)
        case _:
            return None


def broadcast_axes(axes: Axes | None, operand: Shape) -> Axes | None:
    """For each dimension of an operand the axis of the pointwise result that it is aligned with."""
    if axes is None:
        return None
    lead = len(axes) - len(operand)
    return tuple([None if d == 1 else axes[lead + i] for i, d in enumerate(operand)])


def translation(
    producer: Group,
    reads: Sequence[Read],
    consumer: Group,
    operand_axes: Callable[[Group, Read], Axes | None],
) -> dict[int, int] | None:
    """Which axis of the producer's space each axis of the consumer's is, so that every read finds
    its element at the position where it was computed. None where there is no such assignment that
    keeps the order."""
    found: dict[int, int] = {}
    for read in reads:
        assert read.root.node is not None, "the producer computes it"
        theirs, own = (
            through(producer.axes[read.root.node], read.chain),
            operand_axes(consumer, read),
        )
        if theirs is None or own is None:
            return None
        for axis, source in zip(own, theirs, strict=True):
            if axis is not None and source is not None and found.setdefault(axis, source) != source:
                return None
    if not _complete(found, producer.space, consumer.space):
        return None
    order = [found[a] for a in consumer.space.axes]
    sizes = all(
        consumer.space.dims[a] == producer.space.dims[found[a]] for a in consumer.space.axes
    )
    return found if sizes and all(a < b for a, b in itertools.pairwise(order)) else None


def _complete(found: dict[int, int], source: Space, target: Space) -> bool:
    """Axes that no read mentions (the values read are constant along them) go by position."""
    for axis in target.axes:
        if axis not in found:
            same_place = len(source.dims) == len(target.dims) and axis not in found.values()
            if not same_place or source.dims[axis] != target.dims[axis]:
                return False
            found[axis] = axis
    return True


def translated(axes: Axes | None, table: dict[int, int]) -> Axes | None:
    return None if axes is None else tuple(None if a is None else table[a] for a in axes)
