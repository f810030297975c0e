"""Dead code elimination: only what the outputs depend on stays."""

from __future__ import annotations

from ..graph import Graph, topological


def run(graph: Graph) -> Graph:
    """`graph` without the nodes that no output depends on; order of the rest kept."""
    needed = set(topological(graph.outputs))
    kept = tuple(n for n in graph.nodes if n in needed)
    return graph if len(kept) == len(graph.nodes) else graph.with_outputs(graph.outputs, kept)
