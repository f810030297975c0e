"""Executables of the reference backend: graphs interpreted op by op, buffers in and out."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.graph import Graph
from graphtorch.ir.verify import verify

from ..buffer import Buffer
from . import run


class Interpreted:
    """A graph run by each op's NumPy reference."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def __call__(self, inputs: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
        return [Buffer.of(a) for a in run(self.graph, [b.numpy() for b in (*inputs, *more)])]

    def explain(self) -> str:
        """One line an op: nothing is fused here."""
        return f"{self.graph.name}: {len(self.graph.nodes)} ops, one by one in NumPy\n"


def compile(graph: Graph, stable: Sequence[int] = ()) -> Interpreted:
    """The graph as it is, once it is known to be valid; `stable` makes no difference."""
    verify(graph, "recording")
    return Interpreted(graph)
