"""A program as a list of nodes, and the Python code that it is."""

from __future__ import annotations

import builtins
import contextlib
import keyword
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from .._torch.dataclass import dataclass, field
from .node import Argument, Node, Target, map_arg

_BINARY = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.matmul: "@",
    operator.and_: "&",
    operator.or_: "|",
    operator.xor: "^",
    operator.lshift: "<<",
    operator.rshift: ">>",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}


@dataclass
class PythonCode:
    """Source text of a function ``forward`` and the objects that it names."""

    src: str
    globals: dict[str, Any] = field(default_factory=dict)


class NodeList(list[Node]):
    """The nodes of a graph in order."""

    def __reversed__(self) -> Iterator[Node]:
        return iter(self[::-1])


class Graph:
    """A list of nodes, each of which reads earlier ones."""

    def __init__(
        self, owning_module: Any = None, tracer_cls: Any = None, tracer_extras: Any = None
    ):
        self._nodes: list[Node] = []
        self._at: int | None = None  # where nodes are inserted; None: at the end
        self._names: dict[str, int] = {}
        self.owning_module, self._tracer_cls = owning_module, tracer_cls
        self._codegen: Any = None

    @property
    def nodes(self) -> NodeList:
        """The nodes in order; a copy, so that one may change the graph while going through it."""
        return NodeList(self._nodes)

    @property
    def output_node_(self) -> Node | None:
        return next((n for n in reversed(self._nodes) if n.op == "output"), None)

    def output_node(self) -> Node:
        """The node of op "output"."""
        found = self.output_node_
        if found is None:
            raise RuntimeError("fx.Graph.output_node: the graph has no output")
        return found

    def find_nodes(self, *, op: str, target: Target | None = None, sort: bool = True) -> list[Node]:
        """The nodes of an op, and of a target where one is given."""
        return [n for n in self._nodes if n.op == op and (target is None or n.target == target)]

    # -- names -------------------------------------------------------------------------------------

    def _name(self, candidate: str) -> str:
        base = re.sub("[^0-9a-zA-Z_]+", "_", candidate) or "node"
        base = f"_{base}" if base[0].isdigit() else base
        numbered = re.fullmatch(r"(.*?)_(\d+)", base)
        stem, number = (numbered[1], int(numbered[2])) if numbered else (base, 0)
        taken = {n.name for n in self._nodes}
        name, number = base, max(number, self._names.get(stem, 0))
        while name in taken or keyword.iskeyword(name) or hasattr(builtins, name):
            number += 1
            name = f"{stem}_{number}"
        self._names[stem] = number
        return name

    def _target_name(self, target: Target) -> str:
        name = target if isinstance(target, str) else getattr(target, "__name__", "function")
        snake = re.sub("([a-z0-9])([A-Z])", r"\1_\2", name.replace(".", "_")).lower()
        return snake.strip("_") or snake

    # -- making nodes ------------------------------------------------------------------------------

    def create_node(
        self,
        op: str,
        target: Target,
        args: tuple[Argument, ...] | None = None,
        kwargs: dict[str, Argument] | None = None,
        name: str | None = None,
        type_expr: Any = None,
    ) -> Node:
        """A new node at the place where nodes are inserted now."""
        made = Node(
            self,
            self._name(name or self._target_name(target)),
            op,
            target,
            args or (),
            kwargs or {},
            type_expr,
        )
        if self._at is None:
            self._nodes.append(made)
        else:
            self._nodes.insert(self._at, made)
            self._at += 1
        return made

    def placeholder(self, name: str, type_expr: Any = None, default_value: Any = ...) -> Node:
        """An argument of the function."""
        args = () if default_value is ... else (default_value,)
        return self.create_node("placeholder", name, args, {}, type_expr=type_expr)

    def get_attr(self, qualified_name: str, type_expr: Any = None) -> Node:
        """A parameter, buffer or other attribute of the module."""
        return self.create_node("get_attr", qualified_name, (), {}, type_expr=type_expr)

    def call_module(
        self, module_name: str, args: Any = (), kwargs: Any = None, type_expr: Any = None
    ) -> Node:
        """A call of a submodule."""
        return self.create_node("call_module", module_name, args, kwargs or {}, type_expr=type_expr)

    def call_method(
        self, method_name: str, args: Any = (), kwargs: Any = None, type_expr: Any = None
    ) -> Node:
        """A call of a method of the first argument."""
        return self.create_node("call_method", method_name, args, kwargs or {}, type_expr=type_expr)

    def call_function(
        self,
        the_function: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        type_expr: Any = None,
        name: str | None = None,
    ) -> Node:
        """A call of a function."""
        return self.create_node("call_function", the_function, args, kwargs or {}, name, type_expr)

    def output(self, result: Argument, type_expr: Any = None) -> Node:
        """What the function returns."""
        return self.create_node("output", "output", (result,), {}, type_expr=type_expr)

    def node_copy(
        self, node: Node, arg_transform: Callable[[Node], Argument] = lambda x: x
    ) -> Node:
        """A copy of a node of another graph; `arg_transform` gives what its operands are here."""
        args, kwargs = map_arg((node.args, node.kwargs), arg_transform)
        made = self.create_node(node.op, node.target, args, kwargs, node.name, node.type)
        made.meta = dict(node.meta)
        return made

    def graph_copy(
        self, g: Graph, val_map: dict[Node, Node], return_output_node: bool = False
    ) -> Any:
        """Copy all nodes of `g`; what its output is here. `val_map` gets their copies."""
        for node in g.nodes:
            if node in val_map:
                continue
            if node.op == "output":
                found = map_arg(node.args[0], lambda n: val_map[n])
                return (found, node) if return_output_node else found
            val_map[node] = self.node_copy(node, lambda n: val_map[n])
        return None

    def __deepcopy__(self, memo: Any = None) -> Graph:
        made = Graph(tracer_cls=self._tracer_cls)
        copies: dict[Node, Node] = {}
        found = made.graph_copy(self, copies)
        if self.output_node_ is not None:
            made.output(found)
        return made

    # -- changing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _inserting(self, at: int | None) -> Iterator[None]:
        before, self._at = self._at, at
        try:
            yield
        finally:
            self._at = before

    def inserting_before(self, n: Node | None = None) -> Any:
        """Nodes made in the ``with`` block stand before `n`, or at the beginning."""
        return self._inserting(0 if n is None else self._nodes.index(n))

    def inserting_after(self, n: Node | None = None) -> Any:
        """Nodes made in the ``with`` block stand after `n`, or at the beginning."""
        return self._inserting(0 if n is None else self._nodes.index(n) + 1)

    def erase_node(self, to_erase: Node) -> None:
        """Take out a node that nobody reads.

        Raises:
            RuntimeError: somebody does.
        """
        if to_erase.users:
            raise RuntimeError(
                f"Tried to erase Node {to_erase} but it still had {len(to_erase.users)} users in "
                f"the graph: {to_erase.users}!"
            )
        to_erase._update((), {})
        self._nodes.remove(to_erase)
        to_erase._erased = True

    def eliminate_dead_code(self, is_impure_node: Callable[[Node], bool] | None = None) -> bool:
        """Take out nodes that nobody reads; whether there were some."""
        impure = is_impure_node or Node.is_impure
        dead = False
        for node in reversed(self.nodes):
            if not impure(node) and not node.users:
                self.erase_node(node)
                dead = True
        return dead

    def _move(self, node: Node, place: Node, after: int) -> None:
        self._nodes.remove(node)
        self._nodes.insert(self._nodes.index(place) + after, node)

    def _beside(self, node: Node, step: int) -> Node:
        at = self._nodes.index(node) + step
        return (
            self._nodes[at]
            if 0 <= at < len(self._nodes)
            else Node(self, "", "root", "root", (), {})
        )

    def lint(self) -> None:
        """Check that nodes read earlier ones and that names differ.

        Raises:
            RuntimeError: they do not.
        """
        seen: set[Node] = set()
        for node in self._nodes:
            for read in node.all_input_nodes:
                if read not in seen:
                    raise RuntimeError(
                        f"Argument '{read}' of Node '{node}' was used before it has been defined! "
                        "Please check that Nodes in the graph are topologically ordered"
                    )
            seen.add(node)
        if len({n.name for n in seen}) != len(seen):
            raise RuntimeError("fx.Graph.lint: two nodes have the same name")

    # -- text --------------------------------------------------------------------------------------

    def __str__(self) -> str:
        shown = ", ".join(f"%{n.name}" for n in self._nodes if n.op == "placeholder")
        lines = [n.format_node() for n in self._nodes]
        return "\n".join([f"graph({shown}):", *[f"    {line}" for line in lines]])

    def print_tabular(self) -> None:
        """Print the nodes as a table."""
        rows = [("opcode", "name", "target", "args", "kwargs")]
        rows += [
            (n.op, n.name, n._pretty_print_target(n.target), str(n.args), str(n.kwargs))
            for n in self._nodes
        ]
        widths = [max(len(r[i]) for r in rows) for i in range(5)]
        for row in rows:
            print("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip())

    def python_code(self, root_module: str = "self", **options: Any) -> PythonCode:
        """The graph as the source of a method ``forward``."""
        return _Writer(self, root_module).code()


class _Writer:
    """Writes one graph as Python."""

    def __init__(self, graph: Graph, root: str):
        self.graph, self.root = graph, root
        self.globals: dict[str, Any] = {}

    def code(self) -> PythonCode:
        arguments, lines = [self.root], []
        for node in self.graph.nodes:
            if node.op == "placeholder":
                arguments.append(self._argument(node))
                plain = str(node.target).lstrip("*")
                lines += [] if plain == node.name else [f"{node.name} = {plain}"]
            else:
                lines.append(self._line(node))
        body = "".join(f"    {line}\n" for line in lines or ["pass"])
        return PythonCode(f"def forward({', '.join(arguments)}):\n{body}", self.globals)

    def _argument(self, node: Node) -> str:
        default = f" = {self._text(node.args[0])}" if node.args else ""
        return f"{node.target}{default}"

    def _line(self, node: Node) -> str:
        if node.op == "output":
            return f"return {self._text(node.args[0])}"
        return f"{node.name} = {self._expression(node)}"

    def _expression(self, node: Node) -> str:
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        given = [self._text(a) for a in node.args]
        listed = ", ".join(given + [f"{k}={self._text(v)}" for k, v in node.kwargs.items()])
        if node.op == "call_method":
            return f"{given[0]}.{node.target}({self._rest(node)})"
        if node.op == "call_module":
            return f"{self._attribute(str(node.target))}({listed})"
        if node.target in _BINARY and len(given) == 2 and not node.kwargs:
            return f"{given[0]} {_BINARY[node.target]} {given[1]}"
        if node.target is operator.getitem:
            return f"{given[0]}[{given[1]}]"
        if node.target is getattr and isinstance(node.args[1], str) and node.args[1].isidentifier():
            return f"{given[0]}.{node.args[1]}"
        return f"{self._object(node.target)}({listed})"

    def _rest(self, node: Node) -> str:
        return ", ".join(
            [self._text(a) for a in node.args[1:]]
            + [f"{k}={self._text(v)}" for k, v in node.kwargs.items()]
        )

    def _attribute(self, qualified: str) -> str:
        text = self.root
        for part in qualified.split("."):
            text = f"{text}.{part}" if part.isidentifier() else f'getattr({text}, "{part}")'
        return text

    def _text(self, x: Any) -> str:
        if isinstance(x, Node):
            return x.name
        if isinstance(x, (tuple, list)):
            inside = ", ".join(map(self._text, x))
            if hasattr(x, "_fields"):
                return f"{self._object(type(x))}({inside})"
            if isinstance(x, list):
                return f"[{inside}]"
            made = f"({inside},)" if len(x) == 1 else f"({inside})"
            return made if type(x) is tuple else f"{self._object(type(x))}({made})"
        if isinstance(x, dict):
            made = "{" + ", ".join(f"{self._text(k)}: {self._text(v)}" for k, v in x.items()) + "}"
            return made if type(x) is dict else f"{self._object(type(x))}({made})"
        if isinstance(x, slice):
            return f"slice({self._text(x.start)}, {self._text(x.stop)}, {self._text(x.step)})"
        plain = (
            x is None
            or x is ...
            or type(x) in (int, bool, str, bytes)
            or (type(x) is float and x == x and abs(x) != float("inf"))
        )
        return repr(x) if plain else self._object(x)

    def _object(self, x: Any) -> str:
        """A name under which the code finds `x`."""
        for name, known in self.globals.items():
            if known is x:
                return name
        base = re.sub(r"\W+", "_", getattr(x, "__name__", type(x).__name__)) or "value"
        if getattr(builtins, base, None) is x:
            return base
        base, number = f"{base}_" if hasattr(builtins, base) else base, 0
        name = base
        taken = {n.name for n in self.graph.nodes}
        while name in self.globals or name in taken:
            number += 1
            name = f"{base}_{number}"
        self.globals[name] = x
        return name
