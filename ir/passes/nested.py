"""Passes inside of loops and branches: the graphs that control-flow nodes hold are passed as
well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from ..graph import Graph, Node, Value
from ..op import Kind
from ..rewrite import rewrite

Pass: TypeAlias = Callable[[Graph], Graph]


def everywhere(run: Pass) -> Pass:
    """`run` on a graph after it was run on the graphs nested in it."""

    def apply(graph: Graph) -> Graph:
        if any(node.op.kind is Kind.CONTROL for node in graph.nodes):
            graph = rewrite(graph, lambda node: _inside(node, apply))
        return run(graph)

    return apply


def _inside(node: Node, run: Pass) -> tuple[Value, ...] | None:
    if node.op.kind is not Kind.CONTROL:
        return None
    before = {f.name: getattr(node.attrs, f.name) for f in dataclasses.fields(node.attrs)}
    after = {k: run(v) for k, v in before.items() if isinstance(v, Graph)}
    if all(after[k] is before[k] for k in after):
        return None
    attrs = dataclasses.replace(node.attrs, **after)
    return node.op.node(node.operands, attrs, node.location).results()
