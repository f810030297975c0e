"""Common subexpression elimination: nodes with the same op, attributes and operands become one."""

from __future__ import annotations

import dataclasses

from ..graph import Graph, Node, Value
from ..op import Attrs
from ..rewrite import rewrite


def run(graph: Graph) -> Graph:
    """`graph` with each computation once. Ops are pure functions, random ones included, so the first
    of two equal nodes can stand for both; its location stays."""
    first: dict[object, Node] = {}

    def change(node: Node) -> tuple[Value, ...] | None:
        known = first.setdefault((node.op, node.operands, _exact(node.attrs)), node)
        return None if known is node else known.results()

    return rewrite(graph, change)


def _exact(attrs: Attrs) -> object:
    """`attrs` as a key that keeps ``0.0``, ``-0.0``, ``0`` and ``False`` apart, which ``==`` does not."""
    values = tuple(getattr(attrs, f.name) for f in dataclasses.fields(attrs))
    return attrs, tuple(repr(v) for v in values if isinstance(v, (float, int)))
