"""Graphs of which some nodes have no native code: those run by their references, the rest is
compiled.

The graph is cut into stages. A stage runs nodes that are `foreign`, then a compiled graph of what
becomes computable with their results.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Node, Value, topological

from .buffer import Buffer
from .reference.steps import one_thread

_NOTHING = Buffer.of(np.zeros(0, np.bool_))  # in the place of what is not computed yet


class Runs(Protocol):
    """What a compiled part is to this module."""

    def __call__(self, inputs: Sequence[Buffer]) -> list[Buffer]: ...

    def explain(self) -> str: ...


class Part(NamedTuple):
    """A piece of a graph, and where its operands and results lie among the values that are kept."""

    run: Callable[[Sequence[Buffer]], list[Buffer]]
    operands: tuple[int, ...]
    results: tuple[int, ...]
    about: Callable[[], str]


class Mixed:
    """A graph in parts, of which the compiled ones are made by `compile`."""

    def __init__(self, graph: Graph, foreign: Sequence[Node], compile: Callable[[Graph], Runs]):
        self.graph = graph
        self._places: dict[Value, int] = {v: i for i, v in enumerate(graph.inputs)}
        self._parts: list[Part] = []
        carried = [v for v in graph.inputs if not v.type.is_static]  # of which sizes are read
        apart = set(foreign)
        for stage in _stages(graph, apart):
            for node in stage:
                if node in apart:
                    self._add(_alone(node, carried), lambda g: _Interpreted(g))
            native = [n for n in stage if n not in apart]
            if native:
                self._add(_closed(graph, native, carried), compile)
        self._outputs = tuple([self._places[v] for v in graph.outputs])

    def _add(
        self, piece: tuple[Graph, list[Value], list[Value]], compile: Callable[[Graph], Runs]
    ) -> None:
        graph, operands, results = piece
        run = compile(graph)
        for value in results:
            self._places.setdefault(value, len(self._places))
        self._parts.append(
            Part(
                run,
                tuple([self._places[v] for v in operands]),
                tuple([self._places[v] for v in results]),
                run.explain,
            )
        )

    def __call__(self, inputs: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
        """The outputs; inputs that could be taken over are left as they are. `more`: see
        `Executable`."""
        inputs = [*inputs, *more]
        kept = [*inputs, *[_NOTHING] * (len(self._places) - len(inputs))]
        for part in self._parts:
            for place, made in zip(
                part.results, part.run([kept[i] for i in part.operands]), strict=True
            ):
                kept[place] = made
        return _apart([kept[i] for i in self._outputs], inputs)

    def explain(self) -> str:
        """What runs, part by part."""
        return "".join(part.about() for part in self._parts)


class _Interpreted:
    """A node by its reference."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def __call__(self, inputs: Sequence[Buffer]) -> list[Buffer]:
        with one_thread():
            return [Buffer.of(a) for a in evaluate(self.graph, [b.numpy() for b in inputs])]

    def explain(self) -> str:
        return "".join(
            f"{node.op.name}: by NumPy, it has no native code\n" for node in self.graph.nodes
        )


def _stages(graph: Graph, foreign: Collection[Node]) -> list[list[Node]]:
    """Nodes by how many foreign ones have to run before them, one after the other."""
    level: dict[Node, int] = {}
    for node in graph.nodes:
        before = max((level[v.node] for v in node.operands if v.node is not None), default=0)
        level[node] = before + (node in foreign)
    return [
        [n for n in graph.nodes if level[n] == i] for i in range(max(level.values(), default=0) + 1)
    ]


def _alone(node: Node, carried: Iterable[Value]) -> tuple[Graph, list[Value], list[Value]]:
    operands = list(dict.fromkeys((*node.operands, *carried)))
    return _graph(node.op.name, operands, list(node.results()), [node])


def _closed(
    graph: Graph, nodes: Sequence[Node], carried: Iterable[Value]
) -> tuple[Graph, list[Value], list[Value]]:
    """`nodes` as a graph: its operands, and the results that others need."""
    inside = set(nodes)
    read = {v for n in graph.nodes if n not in inside for v in n.operands} | set(graph.outputs)
    results = [v for n in nodes for v in n.results() if v in read]
    operands = dict.fromkeys(v for n in nodes for v in n.operands if v.node not in inside)
    return _graph(graph.name, list(dict.fromkeys((*operands, *carried))), results, nodes)


def _graph(
    name: str, operands: list[Value], results: list[Value], nodes: Sequence[Node]
) -> tuple[Graph, list[Value], list[Value]]:
    inputs = [Value(v.type, name=f"x{i}") for i, v in enumerate(operands)]
    found = dict(zip(operands, inputs, strict=True))
    for node in nodes:
        kept = node.with_operands(tuple([found.get(v, v) for v in node.operands]))
        found.update(zip(node.results(), kept.results(), strict=True))
    outputs = [found[v] for v in results]
    return Graph(name, inputs, outputs, topological(outputs)), operands, results


def _apart(outputs: list[Buffer], inputs: Sequence[Buffer]) -> list[Buffer]:
    """Outputs that share no memory: one may be an input, or another output."""
    taken = {b.address for b in inputs}
    found = []
    for buffer in outputs:
        if buffer.address in taken:
            buffer = Buffer.of(buffer.numpy().copy())
        taken.add(buffer.address)
        found.append(buffer)
    return found
