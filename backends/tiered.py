"""Target of programs that are not compiled explicitly: small graphs are interpreted before being compiled.

Compiling a graph takes tens of milliseconds or more, interpreting a small one well under one. So a small
graph runs op by op until it comes back often enough to be worth code, and a large one is compiled at once.
The choice depends on the graph and on how often it ran, never on time, so that a program gives the same
bits each time it runs. Graphs on types that have no native code (complex numbers) stay interpreted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from graphtorch.ir.graph import Graph
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.scan_grad import ScanAttrs

from .buffer import Buffer
from .kernels.cost import guess
from .kernels.supports import has_native_types
from .llvm import compiler as llvm
from .llvm.executable import Executable
from .reference import compiler as reference

INTERPRETED_CALLS = 2  # a graph that comes a third time is a loop
STEP_WORK = 64  # what an op in a loop counts as at least: interpreting it takes microseconds
SMALL = 1 << 18  # multiply-adds or elements: about a millisecond of NumPy


class Tiered:
    """A graph that is interpreted at first and compiled when it keeps coming."""

    def __init__(self, graph: Graph, stable: Sequence[int]):
        self.graph = graph
        self._stable = stable
        self._interpreted = reference.compile(graph)
        self._native: Executable | None = None
        self._remaining = INTERPRETED_CALLS if work(graph) <= SMALL else 0
        self._compilable = has_native_types(graph)
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[Buffer]) -> list[Buffer]:
        if self._native is not None:
            return self._native(inputs)
        if self._remaining > 0 or not self._compilable:
            self._remaining -= 1
            return self._interpreted(inputs)
        return self.native()(inputs)

    def native(self) -> Executable:
        """The compiled graph."""
        with self._lock:
            if self._native is None:
                self._native = llvm.compile(self.graph, self._stable)
        return self._native

    def explain(self) -> str:
        """What the compiled graph runs; compiles it if need be."""
        return self.native().explain() if self._compilable else self._interpreted.explain()


def compile(graph: Graph, stable: Sequence[int] = ()) -> Tiered:
    """`graph`, not yet compiled."""
    return Tiered(graph, stable)


def work(graph: Graph) -> int:
    """Roughly the multiply-adds and elements that running `graph` op by op takes."""
    total = 0
    for node in graph.nodes:
        total += max((guess(t.numel) for t in (*node.types, *(v.type for v in node.operands))), default=0)
        if node.op.name == "scan":
            attrs = attrs_of(node, ScanAttrs)
            total += guess(attrs.length) * (work(attrs.body) + STEP_WORK * len(attrs.body.nodes))
        elif node.op.name == "matmul":
            total += guess(node.types[0].numel * node.operands[0].shape[-1])
        elif node.op.name in ("conv", "conv_transpose", "conv_weight_grad"):
            sizes = sorted(guess(t.numel) for t in (*node.types, *(v.type for v in node.operands)))
            total += sizes[-1] * sizes[-2] // max(1, guess(node.operands[0].shape[0]))
    return total
