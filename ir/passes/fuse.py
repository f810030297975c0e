"""Divides a graph into regions, each of which a target turns into one kernel (or very few).

    kind         holds
    loop         one loop nest: pointwise ops, the views that feed them, and reductions; all
                 reductions of a region reduce the same axes of the same space, so that softmax or a
                 layer norm is a few passes over a row. Its outputs have the shape of the space, or
                 of its kept axes, or are concatenations of such.
    contraction  one matmul or convolution; the strided views and single casts of its operands; the
                 pointwise epilogue on its result, whose other operands are strided views
    window       one pooling op and its pointwise epilogue
    control      one loop over time or branch; its body is divided into regions as well
    opaque       one op of any other kind; a concatenation of many parts

Every op ends up in just one region, so nothing is computed twice. Excepted are free nodes (views,
scalar constants, iota): each region that reads one has its own copy, and none is stored unless it
is an output or its reader takes only plain memory. Non-scalar constants stay outside of regions,
like inputs.

A region's body lists its nodes in data-flow order; its inputs are read at least once. A loop region
of only reshapes has an output with the bytes of its input.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable

from .. import ops
from ..graph import Graph, Node, Value
from ..op import Kind
from ..ops.checks import attrs_of
from ..ops.control import RegionAttrs
from ..ops.reduce import Position, Reduce
from ..partition import (
    Axes,
    Group,
    Partition,
    Read,
    Space,
    broadcast_axes,
    identity_axes,
    translated,
    translation,
    viewed_axes,
)
from ..shape import bounds, numel
from ..views import STRIDED, strided_view
from . import legalize
from .limits import Limits

# The kind of group that a node begins by itself; nodes of the other kinds are opaque.
GROUPS = {
    Kind.CONTRACTION: "contraction",
    Kind.WINDOW: "window",
    Kind.CONTROL: "control",
    **dict.fromkeys(
        (Kind.POINTWISE, Kind.MOVE, Kind.REDUCTION, Kind.LOOKUP, Kind.VIEW, Kind.DRAW), "loop"
    ),
}
VIEWED = frozenset(
    (Kind.POINTWISE, Kind.MOVE, Kind.REDUCTION, Kind.LOOKUP, Kind.VIEW, Kind.SCATTER)
)

JOINED = frozenset(("loop", "contraction", "window"))  # kinds of groups that producers may join

# parts of a concatenation that whoever computes them stores; of more each is by itself
PIECES_LIMIT = 8


class Division(Partition):
    """A partition into regions that keep to `limits`."""

    def __init__(self, graph: Graph, limits: Limits):
        stored = stored_views(graph, limits)
        super().__init__(graph, lambda n: is_free(n) and n not in stored, is_data)
        self.limits = limits


def run(graph: Graph, limits: Limits) -> Graph:
    """`graph` as regions (and non-scalar constants) in data-flow order; needs a graph without dead
    nodes.

    Regions that it already has are taken apart first.
    """
    if any(n.op is ops.region for n in graph.nodes):
        graph = legalize.run(graph, lambda n: n.op is not ops.region)
    parts = Division(graph, limits)
    for node in parts.owned:
        _join_producers(parts, start(parts, node))
    for group in parts.groups():  # again: by now it is known who reads what
        if parts.owner[group.nodes[0]] is group:
            _join_producers(parts, group)
    return _assemble(parts)


def _join_producers(parts: Division, group: Group) -> None:
    """Merge the groups that feed `group` into it, nearest first, as long as one fits."""
    changed = group.kind in JOINED
    while changed:
        changed = False
        for producer in sorted(
            group.producers, key=lambda g: (-g.level, parts.number[g.nodes[-1]])
        ):
            if try_join(parts, producer, group):
                changed = True
                break


# ------------------------------------------------------------------------------------------ nodes


def is_data(node: Node) -> bool:
    """A constant with dimensions: memory, not computation."""
    return node.op is ops.constant and node.types[0].rank > 0


def is_free(node: Node) -> bool:
    return (
        node.op.kind is Kind.VIEW
        or node.op is ops.iota
        or (node.op is ops.constant and not is_data(node))
    )


def takes_views(node: Node) -> bool:
    """Whether a node's kernel can read its operands through views."""
    return node.op.kind in VIEWED and not in_pieces(node)


def stored_views(graph: Graph, limits: Limits) -> set[Node]:
    """The free nodes whose results have to lie in memory: outputs, and operands of ops that take no
    views."""
    stored = {v.node for v in graph.outputs if v.node is not None and is_free(v.node)}
    for node in graph.nodes:
        for value in node.operands:
            if value.node is None or not is_free(value.node) or takes_views(node):
                continue
            if node.op.weight not in limits.strided:
                stored.add(value.node)
            elif not is_absorbed(value, stored):
                stored.add(_deepest(value.node))
    return stored


def _deepest(node: Node) -> Node:
    """What to store of a chain of views for one that reads through strides: its order of memory
    is that of the chain's beginning, which makes it the quicker copy."""
    below = node.operands[0].node
    if node.op is not ops.permute or below is None or not is_free(below):
        return node
    return _deepest(below)


def is_absorbed(value: Value, stored: Container[Node]) -> bool:
    """Whether a contraction's kernel can read `value` where it lies: strides over something in
    memory."""
    view = strided_view(value, lambda v: v.node in stored)
    below = value
    while below.node is not None and below.node not in stored and below.node.op.name in STRIDED:
        if below.node.op is ops.flip:
            return False
        below = below.node.operands[0]
    in_memory = below.node is None or below.node in stored or not is_free(below.node)
    return view is not None and in_memory


def start(parts: Partition, node: Node) -> Group:
    """A node on its own."""
    result = node.types[0]
    if node.op.kind is Kind.REDUCTION:
        dims, keepdim = reduced_dims(node)
        operand = node.operands[0].shape
        space = Space(operand, frozenset(d for d in dims if operand[d] != 1))
        own = identity_axes(operand)
        kept = tuple(None if i in dims else a for i, a in enumerate(own))
        axes = kept if keepdim else tuple(a for i, a in enumerate(kept) if i not in dims)
        return parts.start(node, "loop", space, axes, reduces=own)
    kind = "opaque" if in_pieces(node) else GROUPS.get(node.op.kind, "opaque")
    return parts.start(node, kind, Space(result.shape), identity_axes(result.shape))


def in_pieces(node: Node) -> bool:
    """Whether a node joins so many parts that each is stored by itself, equal ones by the same
    kernel."""
    return node.op is ops.concat and len(node.operands) > PIECES_LIMIT


def reduced_dims(node: Node) -> tuple[tuple[int, ...], bool]:
    """The axes a reduction removes (none of a scalar), and whether it keeps them as size 1."""
    if isinstance(node.attrs, Reduce):
        return node.attrs.dims if node.operands[0].rank else (), node.attrs.keepdim
    attrs = attrs_of(node, Position)
    return (attrs.dim,), attrs.keepdim


def operand_axes(group: Group, read: Read) -> Axes | None:
    """The axes of the group's space along which a node reads an operand; None where it reads
    elsewhere."""
    if read.node in group.reduces:
        return group.reduces[read.node]
    if read.node.op.kind is Kind.POINTWISE:
        return broadcast_axes(group.axes[read.node], read.node.operands[read.position].shape)
    if read.node.op is ops.gather and read.position == 1:
        return group.axes[read.node]
    return viewed_axes(read.node, group.axes[read.node])


def needs_memory(read: Read) -> bool:
    """Whether the operand is read at positions that only the run decides, so that it has to be
    stored."""
    op = read.node.op
    return op.kind is Kind.DRAW or (
        op.kind is Kind.LOOKUP and not (op is ops.gather and read.position == 1)
    )


# ------------------------------------------------------------------------------------------ joining


def try_join(parts: Division, producer: Group, consumer: Group) -> bool:
    """Merge `producer` into `consumer` if they make a region together."""
    nodes = len(producer.nodes) + len(consumer.nodes)
    if nodes > parts.limits.nodes or parts.would_cycle(producer, consumer):
        return False
    if producer.kind not in JOINED or not _few_buffers(parts, producer, consumer):
        return False
    reads = consumer.reads_from(producer)
    if any(map(needs_memory, reads)):
        return False
    kinds = producer.kind, consumer.kind
    if kinds == ("loop", "loop"):
        return (
            _join_aligned(parts, producer, consumer, reads)
            or _join_inlined(parts, producer, consumer, reads)
            or _join_pieces(parts, producer, consumer, reads)
        )
    if kinds in (("contraction", "loop"), ("window", "loop")):
        return _join_epilogue(parts, producer, consumer, reads)
    if kinds in (("loop", "contraction"), ("loop", "window")):
        return _join_prologue(parts, producer, consumer, reads) or _join_residual(
            parts, producer, consumer, reads
        )
    return False


def _few_buffers(parts: Division, producer: Group, consumer: Group) -> bool:
    """Whether the two together read and write so few values that they can be one body."""
    if sum(len(g.nodes) + len(g.reads) for g in (producer, consumer)) <= parts.limits.buffers:
        return True
    nodes = {*producer.nodes, *consumer.nodes}
    read = {
        root for group in (producer, consumer) for root in group.reads if root.node not in nodes
    }
    if len(read) + len(nodes) <= parts.limits.buffers:
        return True
    written = sum(
        v in parts.escaping or not parts.readers.get(v, set()) <= nodes
        for node in nodes
        for v in node.results()
    )
    return len(read) + written <= parts.limits.buffers


def _join_aligned(parts: Division, producer: Group, consumer: Group, reads: list[Read]) -> bool:
    """One loop nest: every read finds its element at the position where it was computed."""
    table = translation(producer, reads, consumer, operand_axes)
    if table is None or (consumer.space.reduced and _stores_pieces(parts, producer, consumer)):
        return False
    space = _common_space(producer.space, consumer.space, table)
    if space is None or not _rows_fit(parts, producer, consumer, table, space):
        return False
    consumer.axes = {n: translated(a, table) for n, a in consumer.axes.items()}
    consumer.reduces = {n: translated(a, table) or () for n, a in consumer.reduces.items()}
    parts.merge(producer, consumer)
    consumer.space = space
    return True


def _stores_pieces(parts: Division, producer: Group, consumer: Group) -> bool:
    """Whether the producer joins reshaped parts for others than the consumer as well: by itself it
    copies each part as it lies, in a reduction it would look for the place of every element."""
    inside = {*producer.nodes, *consumer.nodes}
    return any(
        n.op is ops.concat
        and any(v.op is ops.reshape for read in parts.operands[n] for v in read.chain)
        and (n.result() in parts.escaping or not parts.readers.get(n.result(), set()) <= inside)
        for n in producer.nodes
    )


def _common_space(producer: Space, consumer: Space, table: dict[int, int]) -> Space | None:
    """The producer's space with the reduction of either. None where they reduce different axes, or
    where the consumer runs neither through the whole space nor through its kept axes."""
    covered = tuple(table[a] for a in consumer.axes)
    if consumer.reduced is None:
        whole = covered == producer.axes or (
            producer.reduced is not None and covered == producer.kept
        )
        return producer if whole else None
    reduced = frozenset(table[a] for a in consumer.reduced)
    same = producer.reduced is None or producer.reduced == reduced
    return Space(producer.dims, reduced) if covered == producer.axes and same else None


def _rows_fit(
    parts: Division, producer: Group, consumer: Group, table: dict[int, int], space: Space
) -> bool:
    """Whether the region goes through each row once, or the row stays in cache between the
    passes."""
    if space.reduced is None or fits_cache(space, parts.limits):
        return True
    after: set[Node] = set()  # nodes that depend on a reduction of this region
    axes = {**producer.axes, **{n: translated(a, table) for n, a in consumer.axes.items()}}
    for node in sorted(axes, key=parts.number.__getitem__):
        is_reduction = node in producer.reduces or node in consumer.reduces
        if any(r.root.node in after for r in parts.operands[node]):
            whole = [a for a in axes[node] or () if a is not None]
            if is_reduction or any(a in space.reduced for a in whole):
                return False
            after.add(node)
        elif is_reduction:
            after.add(node)
    return True


def fits_cache(space: Space, limits: Limits) -> bool:
    row = numel(tuple(d for i, d in enumerate(space.dims) if space.reduced and i in space.reduced))
    rows = numel(tuple(space.dims[i] for i in space.kept))
    limit = limits.lone_row if isinstance(rows, int) and rows < limits.few_rows else limits.row
    return bounds(row)[1] <= limit


def _join_inlined(parts: Partition, producer: Group, consumer: Group, reads: list[Read]) -> bool:
    """Compute the producer's elements inside the consumer's, wherever its views look for them."""
    if producer.space.reduced is not None or not parts.read_only_by(producer, consumer):
        return False
    if not _may_repeat(producer) and (len(reads) > 1 or any(_repeats(consumer, r) for r in reads)):
        return False
    parts.merge(producer, consumer)
    consumer.axes.update((n, None) for n in producer.nodes)
    return True


def _join_pieces(parts: Partition, producer: Group, consumer: Group, reads: list[Read]) -> bool:
    """Concatenations of what the producer computes: it stores each piece where it belongs."""
    everything = sum(map(len, consumer.reads.values()))
    if (
        any(n.op is not ops.concat for n in consumer.nodes)
        or len(reads) < everything
        or producer.space.reduced is not None
        or any(r.chain for r in reads)
    ):
        return False
    own = producer.space.dims
    if any(r.root.shape != own or producer.axes[_node_of(r)] != identity_axes(own) for r in reads):
        return False
    space = producer.space
    parts.merge(producer, consumer)
    consumer.axes.update((r.node, None) for r in reads)
    consumer.space = space
    return True


def _node_of(read: Read) -> Node:
    assert read.root.node is not None, "a producer computes it"
    return read.root.node


def _may_repeat(producer: Group) -> bool:
    return all(n.op.is_cheap for n in producer.nodes)


def _repeats(consumer: Group, read: Read) -> bool:
    """Whether a read asks for an element again and again in the innermost loop, or that cannot be
    told."""
    looped = read.node.operands[0] if read.node in consumer.reduces else read.node.result()
    pointwise = read.node in consumer.reduces or read.node.op.kind is Kind.POINTWISE
    grows = pointwise and read.node.operands[read.position].shape != looped.shape
    if not grows and all(n.op is not ops.expand for n in (*read.chain, read.node)):
        return False
    axes = operand_axes(consumer, read)
    for view in reversed(read.chain):
        axes = viewed_axes(view, axes)
    return axes is None or any(a in axes for a in consumer.space.axes[-1:])


def _join_epilogue(parts: Partition, producer: Group, consumer: Group, reads: list[Read]) -> bool:
    """Pointwise work on the result of a contraction or window, done before it is stored."""
    if not (_is_epilogue(producer, consumer) and _reads_elementwise(reads)):
        return False
    if producer.kind == "contraction" and any(_is_updating(parts, consumer, r.root) for r in reads):
        return False
    kind, space = producer.kind, producer.space
    parts.merge(producer, consumer)
    consumer.kind, consumer.space = kind, space
    return True


def _is_updating(parts: Partition, consumer: Group, result: Value) -> bool:
    """Whether `consumer` is part of an update by a contraction's `result`, the gradient of a
    weight.

    The gradient leaves the graph itself, so that an epilogue would save one load at most, and it
    would repeat a long update in each variant of the register tile.
    """
    if result not in parts.escaping:
        return False
    others = (r.root for reads in consumer.reads.values() for r in reads if r.root != result)
    return len(parts.readers[result]) > 1 or any(v.shape == result.shape for v in others)


def _join_residual(parts: Partition, producer: Group, consumer: Group, reads: list[Read]) -> bool:
    """A pointwise operand of an epilogue, computed there."""
    core = next(n for n in consumer.nodes if n.op.kind in (Kind.CONTRACTION, Kind.WINDOW))
    if any(r.node is core for r in reads):
        return False
    if not (_is_epilogue(consumer, producer) and _reads_elementwise(reads)):
        return False
    parts.merge(producer, consumer)
    return True


def _is_epilogue(core: Group, group: Group) -> bool:
    """Whether the nodes of `group` are pointwise in the result of `core`, and read strided operands
    only."""
    shape = core.space.dims
    return (
        group.space == Space(shape)
        and all(n.op.kind is Kind.POINTWISE and n.types[0].shape == shape for n in group.nodes)
        and all(is_strided(r) for reads in group.reads.values() for r in reads)
    )


def _reads_elementwise(reads: Iterable[Read]) -> bool:
    return all(
        not r.chain
        and r.root.index == 0
        and r.node.operands[r.position].shape == r.node.types[0].shape
        for r in reads
    )


def is_strided(read: Read) -> bool:
    top, root = read.node.operands[read.position], read.root.node
    scalar = root is not None and root.op is ops.constant and not is_data(root)
    return scalar or is_absorbed(top, () if root is None else (root,))


def _join_prologue(parts: Partition, producer: Group, consumer: Group, reads: list[Read]) -> bool:
    """A cast that only this contraction reads, done while its operand is packed."""
    lone = len(producer.nodes) == 1 and producer.nodes[0].op is ops.cast
    if not lone or consumer.kind != "contraction" or not parts.read_only_by(producer, consumer):
        return False
    if any(r.node.op is ops.narrow_linear for r in reads):
        return False  # it takes rows by words, as they lie in memory
    if any(r.node.op.kind is not Kind.CONTRACTION for r in reads) or not all(
        is_strided(r) for rs in producer.reads.values() for r in rs
    ):
        return False
    parts.merge(producer, consumer)
    consumer.axes.update((n, None) for n in producer.nodes)
    return True


# ------------------------------------------------------------------------------------------ regions


def _assemble(parts: Partition) -> Graph:
    """The graph of regions; a region comes as soon as what it reads is there, in the order of the
    graph."""
    groups = parts.groups()
    waiting = {g: len(g.producers) for g in groups}
    ready = [(parts.number[g.nodes[-1]], g) for g in groups if not g.producers]
    heapq.heapify(ready)
    outside: dict[Value, Value] = {}
    nodes = [n for n in parts.graph.nodes if is_data(n)]
    while ready:
        _, group = heapq.heappop(ready)
        made = _region(parts, group, outside)
        if made is not None:
            nodes.append(made)
        for consumer in group.consumers:
            waiting[consumer] -= 1
            if not waiting[consumer]:
                heapq.heappush(ready, (parts.number[consumer.nodes[-1]], consumer))
    return parts.graph.with_outputs([outside.get(v, v) for v in parts.graph.outputs], nodes)


def _region(parts: Partition, group: Group, outside: dict[Value, Value]) -> Node | None:
    """The node of a group; adds its results to `outside`, by the values of the graph that they
    stand for."""
    inner: dict[Value, Value] = {}
    inputs: dict[Value, Value] = {}
    body: list[Node] = []
    for node in group.nodes:
        _copy(parts, group, node, inner, inputs, body)
    results = [
        v
        for n in group.nodes
        for v in n.results()
        if v in parts.escaping or any(parts.owner[r] is not group for r in parts.readers.get(v, ()))
    ]
    if not results:
        return None
    graph = Graph("body", list(inputs.values()), [inner[v] for v in results], body)
    attrs = RegionAttrs(kind=final_kind(group), body=graph)
    operands = tuple(outside.get(v, v) for v in inputs)
    made = Node(
        ops.region, operands, attrs, tuple([v.type for v in results]), group.nodes[-1].location
    )
    outside.update(zip(results, made.results(), strict=True))
    return made


def final_kind(group: Group) -> str:
    """A lookup or draw that nothing joined is an op of its own."""
    alone = len(group.nodes) == 1 and group.nodes[0].op.kind in (Kind.LOOKUP, Kind.DRAW)
    return "opaque" if alone else group.kind


def _copy(
    parts: Partition,
    group: Group,
    node: Node,
    inner: dict[Value, Value],
    inputs: dict[Value, Value],
    body: list[Node],
) -> None:
    """Put a copy of `node` into the body, after the free nodes it reads."""
    for value in node.operands:
        if value in inner:
            continue
        if value.node is not None and value.node in parts.free:
            _copy(parts, group, value.node, inner, inputs, body)
        else:
            inner[value] = inputs[value] = Value(value.type, name=f"x{len(inputs)}")
    made = Node(
        node.op, tuple([inner[v] for v in node.operands]), node.attrs, node.types, node.location
    )
    body.append(made)
    inner.update(zip(node.results(), made.results(), strict=True))
