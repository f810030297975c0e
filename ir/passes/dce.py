"""Dead code elimination: only what the outputs depend on stays, inside of loops and branches
too."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .. import ops
from ..graph import Graph, Node, Value, topological
from ..ops.checks import attrs_of
from ..ops.control import CondAttrs
from ..ops.scan_grad import ScanAttrs
from ..rewrite import rewrite


def run(graph: Graph) -> Graph:
    """`graph` without the nodes that no output depends on; order of the rest kept.

    Results of loops and branches that nobody reads go too, and with them what only they need.
    """
    graph = _without_dead_nodes(graph)
    while any(node.op in SHORTENED for node in graph.nodes):
        before, graph = graph, _without_dead_nodes(_shortened(graph))
        if graph is before:
            break
    return graph


def _without_dead_nodes(graph: Graph) -> Graph:
    needed = set(topological(graph.outputs))
    kept = tuple(n for n in graph.nodes if n in needed)
    return graph if len(kept) == len(graph.nodes) else graph.with_outputs(graph.outputs, kept)


def _shortened(graph: Graph) -> Graph:
    read = {v for node in graph.nodes for v in node.operands} | set(graph.outputs)
    originals = iter(graph.nodes)

    def change(node: Node) -> Sequence[Value] | None:
        original = next(originals)
        if node.op not in SHORTENED:
            return None
        return SHORTENED[node.op](node, {v.index for v in original.results() if v in read})

    return rewrite(graph, change)


def _scan(node: Node, read: Collection[int]) -> Sequence[Value] | None:
    """A scan without the results that nobody reads, the carries that only they need, and idle
    operands.

    A result that stands twice is computed once, and a slice that is handed through is not stacked
    again.
    """
    attrs = attrs_of(node, ScanAttrs)
    body, n, last = attrs.body, attrs.carries, attrs.carries + attrs.stacked
    through = {
        i: body.inputs.index(v)
        for i, v in enumerate(body.outputs)
        if i >= n and i in read and v in body.inputs[n:last]
    }
    first = {body.outputs[i]: i for i in sorted(read, reverse=True) if i >= n and i not in through}
    stacked = sorted(first.values())
    carries = _live_carries(attrs, [i for i in read if i < n], stacked)
    outputs = [body.outputs[i] for i in (*carries, *stacked)]
    needed = {v for inner in topological(outputs) for v in inner.operands} | set(outputs)
    slices = [i for i in range(n, last) if body.inputs[i] in needed]
    kept = [
        *carries,
        *slices,
        *(i for i in range(last, len(body.inputs)) if body.inputs[i] in needed),
    ]
    if len(kept) == len(body.inputs) and len(outputs) == len(body.outputs):
        return None
    shorter = Graph(body.name, [body.inputs[i] for i in kept], outputs)
    made = ops.scan.node(
        tuple(node.operands[i] for i in kept),
        ScanAttrs(shorter, len(carries), len(slices), attrs.length, attrs.reverse),
    ).results()
    places = {i: made[k] for k, i in enumerate((*carries, *stacked))}
    places.update(
        (i, made[len(carries) + stacked.index(first[body.outputs[i]])])
        for i in read
        if i >= n and i not in through
    )
    places.update((i, node.operands[k]) for i, k in through.items())
    return [places.get(i, v) for i, v in enumerate(node.results())]


def _live_carries(attrs: ScanAttrs, read: Sequence[int], stacked: Sequence[int]) -> list[int]:
    """The carries that are read afterwards or that something live reads in the next step."""
    body, live = attrs.body, set(read)
    while True:
        outputs = [body.outputs[i] for i in (*live, *stacked)]
        needed = {v for inner in topological(outputs) for v in inner.operands} | set(outputs)
        more = {i for i in range(attrs.carries) if body.inputs[i] in needed} - live
        if not more:
            return sorted(live)
        live |= more


def _cond(node: Node, read: Collection[int]) -> Sequence[Value] | None:
    """A branch without the results that nobody reads and the operands that neither side needs."""
    attrs = attrs_of(node, CondAttrs)
    sides = attrs.then, attrs.orelse
    results = sorted(read)
    needed = [
        {v for inner in topological(outputs) for v in inner.operands} | set(outputs)
        for outputs in ([g.outputs[i] for i in results] for g in sides)
    ]
    kept = [
        i
        for i in range(len(node.operands) - 1)
        if any(g.inputs[i] in n for g, n in zip(sides, needed, strict=True))
    ]
    if len(kept) == len(node.operands) - 1 and len(results) == len(node.types):
        return None
    shorter = [
        Graph(g.name, [g.inputs[i] for i in kept], [g.outputs[i] for i in results]) for g in sides
    ]
    operands = node.operands[0], *(node.operands[i + 1] for i in kept)
    made = ops.cond.node(operands, CondAttrs(*shorter)).results()
    found = list(node.results())
    for i, value in zip(results, made, strict=True):
        found[i] = value
    return found


SHORTENED = {ops.scan: _scan, ops.cond: _cond}
