"""What a graph is.

    graph ::= "graph" name "(" (value ":" type)* ")" "{" node* "return" value* "}"
    node  ::= value ("," value)* "=" op "(" value* ")" attrs? ":" type* ("@" location)?
    type  ::= dtype "[" dim* "]"          f32[batch, 3, 224, 224]
    dim   ::= int | symbol | dim op dim   op in + - * // %   (symbols carry a range)

Values are immutable and the IR is purely functional: no aliasing, no mutation, no hidden state. A
node is made once, by an op record (`ir.op.Op`), which infers its result types; whoever holds one of
its values holds everything that value was computed from. A `Graph` is a set of inputs and outputs
with the nodes between them in an order that respects data flow. Graphs are compared by structure:
names of intermediate values and locations do not count, names of inputs and order of nodes do.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .dtype import DType
from .printer import print_graph
from .shape import Dim, Shape, Symbol, numel, symbols

if TYPE_CHECKING:  # op.py is written on top of this file; only annotations look up
    from .op import Attrs, Op


class Location(NamedTuple):
    """The user's line that recorded a node."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


_location: ContextVar[Location | None] = ContextVar("graphtorch_location", default=None)


def current_location() -> Location | None:
    """The location given to nodes made now."""
    return _location.get()


class located:
    """``with located(location):`` nodes made inside belong to it: passes name the line they work
    for."""

    __slots__ = ("_location", "_token")

    def __init__(self, location: Location | None):
        self._location = location

    def __enter__(self) -> None:
        self._token = _location.set(self._location)

    def __exit__(self, *exc: object) -> None:
        _location.reset(self._token)


BYTES_LIMIT = (1 << 63) - 1  # byte counts and offsets are signed 64-bit numbers


class Type:
    """Element type and shape of a value. Interned: equal types are the same object.

    Raises RuntimeError for more bytes than an address space has.
    """

    __slots__ = ("__weakref__", "dtype", "shape")
    _table: ClassVar[dict[tuple[DType, Shape], Type]] = {}

    dtype: DType
    shape: Shape

    def __new__(cls, dtype: DType, shape: Sequence[Dim] = ()) -> Type:
        key = (dtype, tuple(shape))
        found = cls._table.get(key)
        if found is None:
            made = object.__new__(cls)
            made.dtype, made.shape = key
            _check_bytes(dtype, made.shape)
            found = cls._table.setdefault(key, made)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return Type, (self.dtype, self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> Dim:
        return numel(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    def with_dtype(self, dtype: DType) -> Type:
        return Type(dtype, self.shape)

    def with_shape(self, shape: Sequence[Dim]) -> Type:
        return Type(self.dtype, shape)


def _check_bytes(dtype: DType, shape: Shape) -> None:
    total = dtype.itemsize
    for dim in shape:
        if not isinstance(dim, int):
            return
        total *= max(dim, 1)  # what is empty still has strides
    if total > BYTES_LIMIT:
        raise RuntimeError(
            f"Storage size calculation overflowed with sizes=[{', '.join(map(str, shape))}]: "
            f"{total:,} bytes of {dtype.torch_name} cannot be addressed; make it "
            "smaller"
        )


class Value:
    """One result of a node, or (with `node` None) an input of a graph, which then has a `name`."""

    __slots__ = ("__weakref__", "index", "name", "node", "type")

    def __init__(self, type: Type, node: Node | None = None, index: int = 0, name: str = ""):
        self.type = type
        self.node = node
        self.index = index
        self.name = name

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Value)
            and self.node is not None
            and self.node is other.node
            and self.index == other.index
        )

    def __hash__(self) -> int:
        return id(self) if self.node is None else id(self.node) + self.index

    def __repr__(self) -> str:
        origin = self.name or "input" if self.node is None else self.node.op.name
        return f"<{origin}: {self.type}>"

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.type.shape)


class Node:
    """An op applied to values. Made by calling an `Op`; its results are `result(i)`.

    Attributes:
        memory: what its maker keeps of results that were computed, by index; no part of the graph.
    """

    __slots__ = ("__weakref__", "attrs", "location", "memory", "op", "operands", "types")

    def __init__(
        self,
        op: Op,
        operands: tuple[Value, ...],
        attrs: Attrs,
        types: tuple[Type, ...],
        location: Location | None = None,
    ):
        self.op = op
        self.operands = operands
        self.attrs = attrs
        self.types = types
        self.location = location
        self.memory: dict[int, Any] | None = None

    def result(self, index: int = 0) -> Value:
        return Value(self.types[index], self, index)

    def results(self) -> tuple[Value, ...]:
        types = self.types
        if len(types) == 1:
            return (Value(types[0], self),)
        return tuple([Value(t, self, i) for i, t in enumerate(types)])

    def with_operands(self, operands: tuple[Value, ...]) -> Node:
        """The same op on other values, its types inferred anew; itself where nothing changes."""
        for a, b in zip(self.operands, operands, strict=True):
            if a is not b and a != b:
                return self.op.node(operands, self.attrs, self.location)
        return self

    def __repr__(self) -> str:
        operands = ", ".join(repr(v.type) for v in self.operands)
        return f"<{self.op.name}({operands}) -> {self.types}>"


class Graph:
    """A function from inputs to outputs.

    Attributes:
        name: an identifier.
        inputs: values without a node; their names are unique.
        nodes: every node between inputs and outputs, producers first.
        outputs: values; one may occur twice, and may be an input.
        donates: pairs (output, input): that output may take over that input's buffer, which the
            caller then no longer reads (an updated parameter).
    """

    __slots__ = ("_hash", "_structure", "donates", "inputs", "name", "nodes", "outputs")

    def __init__(
        self,
        name: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        nodes: Sequence[Node] | None = None,
        donates: Sequence[tuple[int, int]] = (),
    ):
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.nodes = topological(self.outputs) if nodes is None else tuple(nodes)
        self.donates = tuple(sorted(donates))
        self._structure: tuple[object, ...] | None = None
        self._hash = 0

    def with_outputs(self, outputs: Sequence[Value], nodes: Sequence[Node] | None = None) -> Graph:
        """The same inputs and donations with other outputs, in the same order."""
        return Graph(self.name, self.inputs, outputs, nodes, self.donates)

    def values(self) -> Iterator[Value]:
        """Inputs, then every result in order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.results()

    def users(self) -> dict[Value, list[Node]]:
        """For each value the nodes that read it, once per operand position."""
        table: dict[Value, list[Node]] = {v: [] for v in self.values()}
        for node in self.nodes:
            for operand in node.operands:
                table[operand].append(node)
        return table

    def symbols(self) -> tuple[Symbol, ...]:
        """Symbols of all types, sorted by name."""
        dims = [d for v in self.values() for d in v.type.shape]
        return tuple(sorted(symbols(dims), key=lambda s: s.name))

    def structure(self) -> tuple[object, ...]:
        """What two equal graphs have in common, as a hashable value."""
        if self._structure is None:
            number = {v: i for i, v in enumerate(self.values())}
            rows = [
                (n.op.name, n.attrs, n.types, *(number[v] for v in n.operands)) for n in self.nodes
            ]
            inputs = tuple((v.name, v.type) for v in self.inputs)
            outputs = tuple(number[v] for v in self.outputs)
            self._structure = (self.name, inputs, tuple(rows), outputs, self.donates)
            self._hash = hash(self._structure)
        return self._structure

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Graph) and self.structure() == other.structure())

    def __hash__(self) -> int:
        self.structure()
        return self._hash

    def __repr__(self) -> str:
        return (
            f"<graph {self.name}: {len(self.inputs)} inputs, {len(self.nodes)} nodes, "
            f"{len(self.outputs)} outputs>"
        )

    def __str__(self) -> str:
        return print_graph(self)

    def print(self) -> None:
        """Print the graph in its text form, which `ir.text.parse` reads back."""
        print(self)


def topological(outputs: Iterable[Value], border: Container[Value] = ()) -> tuple[Node, ...]:
    """The nodes that `outputs` depend on, producers first, in the order a depth-first walk meets
    them.

    The walk does not look behind the values of `border`.
    """
    order: list[Node] = []
    done: set[Node] = set()
    for output in outputs:
        if output.node is None or output.node in done or output in border:
            continue
        stack = [output.node]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            missing = [
                v.node
                for v in node.operands
                if v.node is not None and v.node not in done and v not in border
            ]
            if missing:
                stack.extend(reversed(missing))
            else:
                done.add(node)
                order.append(node)
                stack.pop()
    return tuple(order)
