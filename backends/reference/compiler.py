"""The reference target: `compile` gives an executable that interprets the graph as it was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphtorch.ir.graph import Graph
from graphtorch.ir.verify import verify

from ..buffer import Buffer
from . import run

__all__ = ["Interpreter", "compile"]


class Interpreter:
    """An executable that runs each op's NumPy reference. No pass changes the graph: it is the oracle."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def __call__(self, inputs: Sequence[Buffer]) -> list[Buffer]:
        """The outputs, in memory of their own; donated inputs stay valid here."""
        found = run(self.graph, [b.numpy() for b in inputs])
        return [Buffer.of(array.copy()) for array in found]

    def explain(self) -> str:
        counts = Counter(n.op.name for n in self.graph.nodes)
        lines = [f"{count:6d}  {name}" for name, count in counts.most_common()]
        return "\n".join([f"graph {self.graph.name}, interpreted op by op in NumPy:", *lines])


def compile(graph: Graph, stable: Sequence[int] = ()) -> Interpreter:
    """An interpreter of `graph`; `stable` means nothing to it."""
    verify(graph, "recording")
    return Interpreter(graph)
