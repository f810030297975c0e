"""Run a graph op by op through each op's NumPy reference: the meaning that every backend is held
to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from .dtype import DType
from .graph import Graph, Node, Type, Value
from .op import Attrs
from .ops.require import RAISED
from .shape import Dim, Symbol, SymInt
from .shape import evaluate as evaluate_dim

A = TypeVar("A", bound=Attrs)
Sizes = Mapping[str, Dim]


def evaluate(graph: Graph, arrays: Sequence[Any]) -> list[np.ndarray]:
    """The graph's outputs for these inputs.

    Args:
        graph: any graph; symbols take their sizes from the shapes of `arrays`.
        arrays: one NumPy array for each input, of its dtype and rank.

    Raises:
        TypeError: wrong number of arrays, or wrong dtype.
        RuntimeError: a shape that does not fit the input's type, or a negative size that follows
            from it.
        IndexError: a data-dependent index out of range.
    """
    if len(arrays) != len(graph.inputs):
        names = ", ".join(v.name or "?" for v in graph.inputs)
        raise TypeError(
            f"graph {graph.name} takes {len(graph.inputs)} inputs ({names}), but {len(arrays)} "
            "were given"
        )
    inputs = [np.asarray(a) for a in arrays]
    sizes = bind_sizes(graph.inputs, [a.shape for a in inputs])
    for symbol in graph.symbols():
        if symbol.name not in sizes:
            raise RuntimeError(
                f"graph {graph.name}: the size of Dim {symbol.name!r} cannot be read off the "
                f"inputs ({', '.join(str(v.type) for v in graph.inputs)}): give it a dimension of "
                "its own"
            )
    for value, array in zip(graph.inputs, inputs, strict=True):
        _check_input(value, array, sizes)
    plan = _plan(graph)
    with np.errstate(all="ignore"):
        found = plan.run(graph.nodes, inputs, sizes)
    return [np.ascontiguousarray(a).reshape(a.shape) for a in found]


@lru_cache(maxsize=512)
def _plan(graph: Graph) -> Plan:
    places, outputs = places_of(graph)
    return Plan(places, sum(len(node.types) for node in graph.nodes), outputs)


def places_of(graph: Graph) -> tuple[list[tuple[int, ...]], list[int]]:
    """Where each node finds its operands, and where the outputs are, as `Plan` takes it."""
    place = {v: -1 - i for i, v in enumerate(graph.inputs)}
    places = []
    slot = 0
    for node in graph.nodes:
        places.append(tuple([place[v] for v in node.operands]))
        for v in node.results():
            place[v] = slot
            slot += 1
    return places, [place[v] for v in graph.outputs]


Step = tuple[int, Any, tuple[int, ...]]


class Plan:
    """How nodes run one by one: from which slots of a list each takes its arguments, and which
    slots nobody reads any more after it.

    Results take the slots from 0 on, in the order of the nodes. What comes from outside, the
    leaves, takes those at the end: leaf i is at ``-1 - i``.

    Args:
        places: for each node the slots of its operands.
        count: of all results.
        outputs: slots of the arrays to return.
    """

    __slots__ = ("count", "outputs", "steps")

    def __init__(self, places: Sequence[tuple[int, ...]], count: int, outputs: Sequence[int]):
        self.count = count
        self.outputs = outputs
        wanted = set(outputs)  # what is read later on
        steps: list[Step] = []
        for row in reversed(places):
            done = []
            for p in row:
                if p >= 0 and p not in wanted:
                    wanted.add(p)
                    done.append(p)
            steps.append((len(row), itemgetter(*row) if row else None, tuple(done)))
        steps.reverse()
        self.steps = steps

    def run(
        self, nodes: Sequence[Node], leaves: Sequence[np.ndarray], sizes: Sizes | None = None
    ) -> list[np.ndarray]:
        """The outputs, which may share memory with leaves and with each other. NumPy's warnings
        should be off.

        Args:
            nodes: for which the plan was made, or others of the same structure.
            sizes: of the symbols in types and attributes, if there are any.

        Raises:
            IndexError, RuntimeError, ValueError: a data-dependent failure, naming the op and the
                user's line.
        """
        slots: list[Any] = [None] * self.count
        slots += reversed(leaves)
        out = 0
        for node, (arity, take, done) in zip(nodes, self.steps, strict=True):
            op, attrs, types = node.op, node.attrs, node.types
            if sizes:
                types = tuple([Type(t.dtype, resolve_shape(t.shape, sizes, node)) for t in types])
                attrs = resolve_attrs(attrs, sizes)
            run = None
            try:
                if arity == 1:
                    x = take(slots)
                    if x.itemsize > 2:
                        run = op.plain
                    found = op.reference(attrs, x) if run is None else run(attrs, x)
                elif arity:
                    arguments = take(slots)
                    if arguments[0].itemsize > 2:
                        run = op.plain
                    found = (
                        op.reference(attrs, *arguments) if run is None else run(attrs, *arguments)
                    )
                else:
                    found = op.reference(attrs)
            except RAISED as error:
                if type(error) not in RAISED:
                    raise
                place = f" at {node.location}" if node.location else ""
                raise type(error)(f"{error} ({op.name}{place})") from None
            if len(types) > 1:
                for t, array in zip(types, found, strict=True):
                    slots[out] = _checked(node, t, array, False)
                    out += 1
            else:
                if type(found) is tuple or type(found) is list:
                    (found,) = found
                t = types[0]
                if (
                    type(found) is np.ndarray
                    and found.dtype is t.dtype.numpy
                    and found.shape == t.shape
                ):
                    slots[out] = found
                else:
                    slots[out] = _checked(node, t, found, run is not None)
                out += 1
            for s in done:
                slots[s] = None
        return [slots[s] for s in self.outputs]


def _checked(node: Node, expected: Type, found: Any, cast: bool) -> np.ndarray:
    array = found if type(found) is np.ndarray else np.asarray(found)
    dtype = expected.dtype.numpy
    if array.dtype != dtype and cast:
        array = array.astype(dtype)
    if array.dtype != dtype or array.shape != expected.shape:
        raise RuntimeError(
            f"reference of op {node.op.name} made {array.dtype}{list(array.shape)}, but infer says "
            f"{expected}" + (f" (recorded at {node.location})" if node.location else "")
        )
    return array


def _check_input(value: Value, array: np.ndarray, sizes: Sizes) -> None:
    if DType.of(array.dtype) is not value.dtype:
        raise TypeError(
            f"input {value.name!r} has type {value.type}, but got an array of dtype {array.dtype}: "
            "convert it first"
        )
    expected = tuple(evaluate_dim(d, sizes) for d in value.shape)
    if array.shape != expected:
        raise RuntimeError(
            f"input {value.name!r} has type {value.type}, but got an array of shape "
            f"{list(array.shape)} where {list(expected)} is expected"
        )


def bind_sizes(inputs: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The size of each symbol, read off the given shapes where a dimension is `n` or `a*n + b`.

    Raises:
        RuntimeError: a rank differs, two dimensions of one symbol differ, or a size leaves its
            range.
    """
    sizes: dict[str, int] = {}
    for value, shape in zip(inputs, shapes, strict=True):
        if len(shape) != value.rank:
            raise RuntimeError(
                f"input {value.name!r} has type {value.type}, but got an array of {len(shape)} "
                f"dimensions, shape {list(shape)}"
            )
        for axis, (dim, size) in enumerate(zip(value.shape, shape, strict=True)):
            _bind(sizes, dim, size, f"dimension {axis} of input {value.name!r}")
    return sizes


def _linear(dim: Dim) -> tuple[Symbol, int, int] | None:
    """n, a and b where `dim` is ``a*n + b``."""
    terms = dict(dim.terms) if isinstance(dim, SymInt) else {}
    offset = terms.pop((), 0)
    if len(terms) != 1:
        return None
    ((monomial, factor),) = terms.items()
    symbol = monomial[0] if len(monomial) == 1 else None
    return (symbol, factor, offset) if isinstance(symbol, Symbol) else None


def _bind(sizes: dict[str, int], dim: Dim, size: int, where: str) -> None:
    found = _linear(dim)
    if found is None:
        return
    symbol, factor, offset = found
    value, rest = divmod(size - offset, factor)
    if rest:
        raise RuntimeError(
            f"{where} is {size}, but a size {dim} is expected, for a whole {symbol.name}"
        )
    if not symbol.min <= value <= symbol.max:
        raise RuntimeError(
            f"{where} is {size}, so Dim {symbol.name!r} is {value}, but it was given the range "
            f"{symbol.min}..{symbol.max}"
        )
    if sizes.setdefault(symbol.name, value) != value:
        raise RuntimeError(
            f"{where} is {size}, so Dim {symbol.name!r} is {value}, but it is {sizes[symbol.name]} "
            "elsewhere"
        )


def resolve_shape(shape: Sequence[Dim], sizes: Sizes, node: Node) -> tuple[Dim, ...]:
    """`shape` with symbols replaced. RuntimeError where a size becomes negative: the inputs are too
    small."""
    found = tuple(evaluate_dim(d, sizes) for d in shape)
    for dim, size in zip(shape, found, strict=True):
        if isinstance(size, int) and size < 0:
            raise RuntimeError(
                f"op {node.op.name}: size {dim} is {size} for these inputs: they are too small"
                + (f" (recorded at {node.location})" if node.location else "")
            )
    return found


def resolve_attrs(attrs: A, sizes: Sizes) -> A:
    """`attrs` with the symbols of its sizes, and of graphs inside it, replaced by `sizes`."""
    changes = {}
    for field in dataclasses.fields(attrs):
        before = getattr(attrs, field.name)
        after = resolve(before, sizes)
        if after is not before:
            changes[field.name] = after
    return dataclasses.replace(attrs, **changes) if changes else attrs


def resolve(field: Any, sizes: Sizes) -> Any:
    """A size, a graph, or nested tuples of such, with symbols replaced by `sizes`."""
    if isinstance(field, SymInt):
        return evaluate_dim(field, sizes)
    if isinstance(field, tuple):
        parts = tuple(resolve(part, sizes) for part in field)
        return parts if any(a is not b for a, b in zip(parts, field, strict=True)) else field
    return specialize(field, sizes) if isinstance(field, Graph) else field


def specialize(graph: Graph, sizes: Sizes) -> Graph:
    """The graph with the symbols in `sizes` replaced everywhere, and types inferred anew."""
    if not any(symbol.name in sizes for symbol in graph.symbols()):
        return graph
    table: dict[Value, Value] = {}
    for value in graph.inputs:
        shape = tuple(evaluate_dim(d, sizes) for d in value.shape)
        table[value] = Value(value.type.with_shape(shape), name=value.name)
    nodes = []
    for node in graph.nodes:
        operands = tuple(table[v] for v in node.operands)
        made = node.op.node(operands, resolve_attrs(node.attrs, sizes), node.location)
        nodes.append(made)
        table.update(zip(node.results(), made.results(), strict=True))
    inputs, outputs = ([table[v] for v in values] for values in (graph.inputs, graph.outputs))
    return Graph(graph.name, inputs, outputs, nodes, graph.donates)
