"""Says whether a graph is one: run after every pass under tests, and at the ends of the pipeline.

Each rule has a name, which the message shows; `RULES` lists them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TypeAlias

from .dtype import ALL, DType
from .graph import Graph, Location, Node, Type, Value
from .literal import Literal
from .op import OPS, Attrs, Op
from .printer import field_names, node_line, value_names
from .shape import Symbol, SymInt, bounds, symbols

Legal: TypeAlias = Callable[[Node], bool]

RULES = {
    "name": "the graph and its inputs have names that are strings, and no two inputs share one",
    "input": "inputs are values without a node",
    "order": "every operand is an input of the graph or a result of an earlier node",
    "once": "a node stands in the list once",
    "op": "the op is the registered one of its name",
    "arity": "the number of operands is one that the op takes",
    "attrs": "the attributes are the op's record, and hold only what the text form can print",
    "infer": "the op's inference accepts the operands and attributes",
    "types": "the result types are those that inference gives",
    "value": "a value has the type and an index of its node's results",
    "legal": "the op is legal at this stage",
    "outputs": "every output is an input or a result of a node of the graph",
    "symbols": "a symbol has one range in the whole graph",
    "sizes": "a size is not negative for all values of its symbols",
    "donates": "a donation names an output and an input that exist, each at most once, of equal "
    "types",
}


class VerifyError(RuntimeError):
    """A graph that breaks a rule: a defect of the pass (or file) it came from, not of the user's
    code.

    Attributes:
        rule: a key of `RULES`.
    """

    def __init__(
        self,
        rule: str,
        stage: str,
        graph: Graph,
        detail: str,
        at: str = "",
        location: Location | None = None,
    ):
        lines = [
            f"after {stage}, graph {graph.name} breaks the rule '{rule}' ({RULES[rule]}): {detail}"
        ]
        if at:
            lines.append(f"  at  {at}")
        if location:
            lines.append(f"  recorded at {location}")
        super().__init__("\n".join(lines))
        self.rule = rule


def verify(graph: Graph, stage: str = "recording", legal: Legal | None = None) -> None:
    """Check `graph` and the graphs nested in it.

    Args:
        stage: what made the graph, for the message.
        legal: which nodes may occur at this stage; None allows all.

    Raises:
        VerifyError: a rule is broken; names the stage, the node as printed and the user's line.
    """
    _Verifier(graph, stage, legal).run()


class _Verifier:
    def __init__(self, graph: Graph, stage: str, legal: Legal | None):
        self.graph = graph
        self.stage = stage
        self.legal = legal
        self.known: set[Value] = set()
        self.types: set[Type] = set()  # that were looked at
        self.symbols: dict[str, Symbol] = {}

    def run(self) -> None:
        self.inputs()
        seen: set[Node] = set()
        for node in self.graph.nodes:
            if node in seen:
                self.fail("once", "the node occurs twice", node)
            seen.add(node)
            self.node(node)
        for i, value in enumerate(self.graph.outputs):
            if value not in self.known:
                self.fail("outputs", f"output {i} {value!r} is none of the graph's values")
            self.value(value, None)
        self.donations()

    def fail(self, rule: str, detail: str, node: Node | None = None) -> None:
        at = node_line(node, value_names(self.graph)) if node else ""
        raise VerifyError(rule, self.stage, self.graph, detail, at, node.location if node else None)

    def inputs(self) -> None:
        names: set[str] = set()
        if not isinstance(self.graph.name, str) or not self.graph.name:
            self.fail("name", f"the graph's name is {self.graph.name!r}")
        for i, value in enumerate(self.graph.inputs):
            if value.node is not None:
                self.fail("input", f"input {i} is a result of op {value.node.op.name}")
            if not isinstance(value.name, str) or not value.name or value.name in names:
                self.fail("name", f"input {i} is called {value.name!r}")
            names.add(value.name)
            self.type(value.type, None)
            self.known.add(value)

    def node(self, node: Node) -> None:
        for i, operand in enumerate(node.operands):
            if operand not in self.known:
                self.fail("order", f"operand {i} {operand!r} is not defined before its use", node)
            self.value(operand, node)
        self.op(node)
        self.attrs(node)
        bodies = list(_bodies(node.attrs))
        self.inference(node, not bodies)
        if self.legal is not None and not self.legal(node):
            self.fail("legal", f"op {node.op.name} is not legal here", node)
        for body in bodies:
            self.body(node, body)
        self.known.update(node.results())

    def op(self, node: Node) -> None:
        if not isinstance(node.op, Op) or OPS.get(node.op.name) is not node.op:
            self.fail(
                "op", f"op {getattr(node.op, 'name', node.op)} is not the registered one", node
            )
        fewest, most = _arity(node.op)
        if len(node.operands) < fewest or (most is not None and len(node.operands) > most):
            takes = f"{fewest}" if fewest == most else f"{fewest} to {most or 'any number of'}"
            self.fail(
                "arity",
                f"op {node.op.name} takes {takes} operands ({', '.join(node.op.operands)}), "
                f"got {len(node.operands)}",
                node,
            )

    def attrs(self, node: Node) -> None:
        if type(node.attrs) is not node.op.attrs:
            self.fail(
                "attrs",
                f"op {node.op.name} takes a {node.op.attrs.__name__}, "
                f"got a {type(node.attrs).__name__}",
                node,
            )
        for name in field_names(type(node.attrs)):
            value = getattr(node.attrs, name)
            if not _printable(value):
                self.fail("attrs", f"attribute {name} is a {type(value).__name__}", node)
            if isinstance(value, (tuple, SymInt)):
                for dim in _sizes(value):
                    self.declare(dim, node)

    def inference(self, node: Node, plain: bool) -> None:
        """`plain`: without a body, whose structure would be looked up before it is known to have
        one."""
        try:
            types = (
                node.op.types(node.attrs, node.operands)
                if plain
                else node.op.infer(node.attrs, *[v.type for v in node.operands])
            )
        except Exception as error:  # whatever inference does with attributes that make no sense
            self.fail("infer", f"{type(error).__name__}: {error}", node)
        if tuple(types) != node.types:
            self.fail("types", f"inference gives {', '.join(map(repr, types))}", node)
        for result in node.types:
            self.type(result, node)

    def value(self, value: Value, node: Node | None) -> None:
        """A `Value` is a handle that anyone can make; it has to agree with its node."""
        if value.node is None:
            return
        if (
            not 0 <= value.index < len(value.node.types)
            or value.type is not value.node.types[value.index]
        ):
            self.fail(
                "value",
                f"{value!r} claims to be result {value.index} of a node with results "
                f"{value.node.types}",
                node,
            )

    def type(self, type: Type, node: Node | None) -> None:
        if type in self.types:
            return
        if not isinstance(type, Type) or type.dtype not in ALL:
            self.fail("types", f"{type!r} is no type", node)
        for dim in type.shape:
            if not isinstance(dim, (int, SymInt)) or bounds(dim)[1] < 0:
                self.fail("sizes", f"size {dim!r} in {type}", node)
            self.declare(dim, node)
        self.types.add(type)

    def declare(self, dim: object, node: Node | None) -> None:
        if isinstance(dim, SymInt):
            for symbol in symbols([dim]):
                known = self.symbols.setdefault(symbol.name, symbol)
                if known != symbol:
                    self.fail(
                        "symbols",
                        f"symbol {symbol.name} has the ranges {known.min}..{known.max} "
                        f"and {symbol.min}..{symbol.max}",
                        node,
                    )

    def body(self, node: Node, body: Graph) -> None:
        inner = _Verifier(body, f"{self.stage}, in {node.op.name}", self.legal)
        inner.symbols, inner.types = self.symbols, self.types
        inner.run()

    def donations(self) -> None:
        for i, pair in enumerate(self.graph.donates):
            output, source = pair
            if not 0 <= output < len(self.graph.outputs) or not 0 <= source < len(
                self.graph.inputs
            ):
                self.fail("donates", f"pair {pair} is out of range")
            earlier = self.graph.donates[:i]
            if any(output == o or source == s for o, s in earlier):
                self.fail("donates", f"pair {pair} uses an output or an input a second time")
            given, taken = self.graph.inputs[source], self.graph.outputs[output]
            if given.type is not taken.type:
                self.fail(
                    "donates",
                    f"output {output} {taken.type} takes over input {given.name} {given.type}",
                )


_arity = functools.cache(Op.arity)


def _bodies(attrs: Attrs) -> Iterator[Graph]:
    for name in field_names(type(attrs)):
        value = getattr(attrs, name)
        if isinstance(value, Graph):
            yield value
        elif isinstance(value, tuple):
            yield from (v for v in value if isinstance(v, Graph))


def _sizes(value: object) -> Iterator[SymInt]:
    if isinstance(value, SymInt):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _sizes(item)


def _printable(value: object) -> bool:
    if type(value) is int:
        return True
    if isinstance(value, tuple):
        return all(map(_printable, value))
    return value is None or isinstance(
        value, (bool, int, float, str, SymInt, DType, Literal, Graph)
    )
