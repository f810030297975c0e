"""Graphs as text. The grammar, which `ir.text.parse` reads back exactly:

    graph    ::= "graph" name symbols? "(" (value ":" type),* ")" "{" node* return "}"
    symbols  ::= "<" (name ("in" int ".." int?)?),* ">"      ranges; "..": no upper limit
    node     ::= value,* "=" op "(" value,* ")" attrs? ":" type,* ("@" string ":" int)?
    return   ::= "return" (value ("into" value)?),*     "into": may take over that input's buffer
    value    ::= "%" (number | name | string)                numbers are results, the others inputs
    type     ::= dtype "[" dim,* "]"
    attrs    ::= "{" (name "=" attr),* "}"
    attr     ::= "None" | "True" | "False" | string | float | dim | dtype | "(" attr,* ")"
               | literal | graph
    literal  ::= type ( "(" (float | int | "True" | "False"),* ")" | base64 string )

A literal's numbers are row-major; a complex element is two numbers. It is written in decimals where
it is short and reads back to the same bytes (so a NaN with a payload is not), in base64 otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from .dtype import DType
from .literal import Literal
from .shape import RESERVED, UNBOUNDED, Symbol, SymInt, symbols

if TYPE_CHECKING:  # graph.py prints through this file, which only handles what it is given
    from .graph import Graph, Node, Type, Value
    from .op import Attrs

DECIMAL_LIMIT = 16  # a literal with more elements is not read by people
PLAIN_NAME = re.compile(r"[^\W\d](?:\w|\.(?!\.))*\Z")


Placed: TypeAlias = "Callable[[Node], bool]"


def print_graph(graph: Graph, placed: Placed | None = None) -> str:
    """The text of a graph, complete: parsing it gives an equal graph, locations included.

    Args:
        placed: the nodes whose locations are printed; None for all.
    """
    return "\n".join(_graph_lines(graph, placed))


def print_node(node: Node) -> str:
    """One node on its own, for messages: operands by type, since they have no names out of a
    graph."""
    names = {v: f"%{i}: {v.type}" for i, v in enumerate(node.operands)}
    operands = ", ".join(names[v] for v in node.operands)
    return f"{node.op.name}({operands}){_attrs(node.attrs, None)} : {_types(node)}"


def value_names(graph: Graph) -> dict[Value, str]:
    """The name of every value as the text shows it: inputs by name, results by number."""
    names = {v: "%" + quoted(v.name) for v in graph.inputs}
    results = (v for node in graph.nodes for v in node.results())
    names.update((v, f"%{i}") for i, v in enumerate(results))
    return names


def node_line(node: Node, names: dict[Value, str], placed: Placed | None = None) -> str:
    """A node as it stands in its graph's text, without its location."""
    results = ", ".join([names.get(v, "%?") for v in node.results()])
    operands = ", ".join([names.get(v, "%?") for v in node.operands])
    return f"{results} = {node.op.name}({operands}){_attrs(node.attrs, placed)} : {_types(node)}"


def _in_quotes(text: str) -> str:
    import json  # which takes a while, and plain names need none

    return json.dumps(text)


def quoted(name: str) -> str:
    """`name` as an identifier, in quotes where it is none."""
    return name if PLAIN_NAME.match(name) and name not in RESERVED else _in_quotes(name)


def _graph_lines(graph: Graph, placed: Placed | None) -> Iterator[str]:
    names = value_names(graph)
    inputs = ", ".join(f"{names[v]}: {v.type}" for v in graph.inputs)
    yield f"graph {quoted(graph.name)}{_symbols(graph)}({inputs}) {{"
    for node in graph.nodes:
        line = node_line(node, names, placed)
        if node.location and (placed is None or placed(node)):
            line = f"{line} @ {_in_quotes(node.location.file)}:{node.location.line}"
        yield from _indented(line) if "\n" in line else ("  " + line,)
    into = {output: names[graph.inputs[i]] for output, i in graph.donates}
    results = [
        names[v] + (f" into {into[i]}" if i in into else "") for i, v in enumerate(graph.outputs)
    ]
    yield "  return " + ", ".join(results) if results else "  return"
    yield "}"


def _indented(text: str) -> Iterator[str]:
    return ("  " + line for line in text.split("\n"))


def _symbols(graph: Graph) -> str:
    found = set(graph.symbols())
    for node in graph.nodes:
        found |= symbols(
            _dims([getattr(node.attrs, name) for name in field_names(type(node.attrs))])
        )
    if not found:
        return ""
    return "<" + ", ".join(map(_symbol, sorted(found, key=lambda s: s.name))) + ">"


def _dims(attributes: Iterable[object]) -> Iterator[SymInt]:
    for attribute in attributes:
        if isinstance(attribute, SymInt):
            yield attribute
        elif isinstance(attribute, tuple):
            yield from _dims(attribute)


def _symbol(symbol: Symbol) -> str:
    if (symbol.min, symbol.max) == (0, UNBOUNDED):
        return symbol.name
    return f"{symbol.name} in {symbol.min}..{'' if symbol.max == UNBOUNDED else symbol.max}"


def _types(node: Node) -> str:
    return ", ".join([_type(t) for t in node.types])


@functools.lru_cache(1024)
def _type(type: Type) -> str:
    return repr(type)


_fields: dict[type, tuple[str, ...]] = {}


def field_names(kind: type[Attrs]) -> tuple[str, ...]:
    """The names of a record's fields."""
    found = _fields.get(kind)
    if found is None:
        found = _fields[kind] = tuple([f.name for f in dataclasses.fields(kind)])
    return found


def _attrs(attrs: Attrs, placed: Placed | None) -> str:
    names = field_names(type(attrs))
    if not names:
        return ""
    return (
        " {" + ", ".join([f"{name}={_attr(getattr(attrs, name), placed)}" for name in names]) + "}"
    )


def _attr(value: object, placed: Placed | None) -> str:
    if type(value) is int:
        return str(value)
    if value is None or isinstance(value, (bool, np.bool_)):
        return str(value)
    if isinstance(value, (int, np.integer, SymInt, DType)):
        return str(value)
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, str):
        return _in_quotes(value)
    if isinstance(value, tuple):
        return (
            "("
            + ", ".join([_attr(v, placed) for v in value])
            + ("," if len(value) == 1 else "")
            + ")"
        )
    if isinstance(value, Literal):
        return _literal(value)
    if hasattr(value, "nodes"):
        return "\n".join(_graph_lines(cast("Graph", value), placed))
    return f"<{type(value).__name__} {value!r}>"  # an invalid graph: shown, but not read back


def _literal(literal: Literal) -> str:
    head = f"{literal.dtype}[{', '.join(map(str, literal.shape))}]"
    decimal = _decimal(literal)
    if decimal is None:
        import base64  # few constants are printed

        return f'{head}"{base64.b64encode(literal.data).decode("ascii")}"'
    return f"{head}({decimal})"


def _decimal(literal: Literal) -> str | None:
    """The elements in decimals, shortest first; None where that loses bits or is long."""
    numbers = components(literal)
    if numbers.size > DECIMAL_LIMIT:
        return None
    # str of a NumPy scalar is the shortest of its type
    for spell in (str, lambda x: repr(x.item())):
        words = [spell(x) for x in numbers]
        if literal_of_words(literal.dtype, literal.shape, words) == literal:
            return ", ".join(words)
    return None


def components(literal: Literal) -> np.ndarray:
    """The elements in one dimension, a complex one as its real and imaginary parts."""
    return np.frombuffer(literal.data, literal.dtype.real.numpy)


def literal_of_words(dtype: DType, shape: tuple[int, ...], words: list[str]) -> Literal:
    """The literal that a list of numbers (or True and False) in text stands for.

    Raises:
        ValueError: a word is no number of that dtype.
        OverflowError: it does not fit.
    """
    read = (
        {"True": True, "False": False}.__getitem__
        if dtype.is_bool
        else int
        if dtype.is_integer
        else float
    )
    try:
        array = np.array([read(w) for w in words], dtype.real.numpy)
    except KeyError as e:
        raise ValueError(f"expected True or False, got {e.args[0]}") from None
    return Literal(dtype, shape, array.tobytes())
