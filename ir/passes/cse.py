"""Common subexpression elimination: nodes with the same op, attributes and operands become one."""

from __future__ import annotations

from ..exact import exact
from ..graph import Graph, Node, Value
from ..rewrite import rewrite


def run(graph: Graph) -> Graph:
    """`graph` with each computation once. Ops are pure functions, random ones included, so the
    first of two equal nodes can stand for both; its location stays."""
    first: dict[object, Node] = {}

    def change(node: Node) -> tuple[Value, ...] | None:
        known = first.setdefault((node.op, node.operands, exact(node.attrs)), node)
        return None if known is node else known.results()

    return rewrite(graph, change)
