"""The parser of the text form. `printer` states the grammar; ``parse(print_graph(g)) == g``.

The parser checks spelling, not meaning: it keeps the types that the text states, and `ir.verify`
says whether they are right. Text from elsewhere is parsed, then verified.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from .dtype import BY_NAME, DType
from .graph import Graph, Location, Node, Type, Value
from .literal import Literal
from .op import NO_ATTRS, OPS, Attrs, Op
from .printer import literal_of_words, print_graph, print_node
from .shape import Dim, floordiv, modulo, symbol

__all__ = ["ParseError", "parse", "print_graph", "print_node"]

T = TypeVar("T")


class ParseError(ValueError):
    """Text that is no graph. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int, source: str):
        super().__init__(
            f"line {line}, column {column}: {message}\n    {source}\n    {' ' * (column - 1)}^"
        )
        self.line = line
        self.column = column


class Token(NamedTuple):
    kind: str
    text: str
    start: int


TOKEN = re.compile(
    r"""
    (?P<space>   [ \t\r\n]+ | \#[^\n]* )
  | (?P<string>  "(?:[^"\\\n]|\\.)*" )
  | (?P<range>   \.\. )
  | (?P<float>   \d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+) )
  | (?P<int>     \d+ )
  | (?P<name>    [^\W\d](?:\w|\.(?!\.))* )
  | (?P<mark>    // | [-+*%(){}\[\]<>,:=@] )
    """,
    re.VERBOSE,
)


def parse(text: str) -> Graph:
    """The graph that `text` spells.

    Raises:
        ParseError: it spells none; the message shows the place and what was expected there.
    """
    reader = _Reader(text)
    graph = reader.graph()
    reader.end()
    return graph


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise _error(text, at, f"unexpected character {text[at]!r}")
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup or "", match.group(), at))
        at = match.end()
    found.append(Token("end", "end of text", len(text)))
    return found


def _error(text: str, at: int, message: str) -> ParseError:
    line_start = text.rfind("\n", 0, at) + 1
    line_end = text.find("\n", at)
    source = text[line_start:] if line_end < 0 else text[line_start:line_end]
    return ParseError(message, text.count("\n", 0, at) + 1, at - line_start + 1, source)


class _Reader:
    """Recursive descent; each method reads the rule of the grammar that it is named after."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0
        self.symbols: dict[str, Dim] = {}
        self.values: dict[str, Value] = {}

    # ---- tokens

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        raise _error(self.text, (token or self.tokens[self.at]).start, message)

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def take(self, text: str) -> bool:
        """Whether `text` came next, and if so, step over it."""
        here = self.token
        if here.text != text or here.kind == "string":
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> None:
        if not self.take(text):
            self.fail(f"expected {text!r}, got {self.token.text!r}")

    def expect_kind(self, kind: str) -> str:
        if self.token.kind != kind:
            self.fail(f"expected a {kind}, got {self.token.text!r}")
        return self.next().text

    def listed(self, item: Callable[[], T], close: str) -> list[T]:
        """Items with commas between them (one more at the end is allowed) up to `close`."""
        items: list[T] = []
        while not self.take(close):
            items.append(item())
            if not self.take(","):
                self.expect(close)
                break
        return items

    def items(self, item: Callable[[], T]) -> list[T]:
        items = [item()]
        while self.take(","):
            items.append(item())
        return items

    def end(self) -> None:
        if self.token.kind != "end":
            self.fail(f"expected nothing after the graph, got {self.token.text!r}")

    # ---- graph

    def graph(self) -> Graph:
        outer = self.symbols, self.values
        self.symbols, self.values = {}, {}
        self.expect("graph")
        name = self.name_or_string()
        if self.take("<"):
            self.listed(self.symbol, ">")
        self.expect("(")
        inputs = self.listed(self.input, ")")
        self.expect("{")
        nodes: list[Node] = []
        while not self.take("return"):
            nodes.append(self.node())
        outputs, donates = self.results(inputs)
        self.expect("}")
        self.symbols, self.values = outer
        return Graph(name, inputs, outputs, nodes, donates)

    def name_or_string(self) -> str:
        return self.string() if self.token.kind == "string" else self.expect_kind("name")

    def string(self) -> str:
        token = self.next()
        try:
            return json.loads(token.text)
        except ValueError:
            self.fail("expected a string in JSON's notation", token)

    def symbol(self) -> None:
        name = self.expect_kind("name")
        low, high = 0, None
        if self.take("in"):
            low = int(self.expect_kind("int"))
            self.expect("..")
            high = int(self.next().text) if self.token.kind == "int" else None
        self.symbols[name] = self.checked(lambda: symbol(name, low, high))

    def input(self) -> Value:
        token = self.token
        name = self.value_name()
        self.expect(":")
        value = Value(self.type(), name=name)
        return self.define(f"%{name}", value, token)

    def value_name(self) -> str:
        self.expect("%")
        return self.next().text if self.token.kind == "int" else self.name_or_string()

    def define(self, name: str, value: Value, token: Token) -> Value:
        if name in self.values:
            self.fail(f"{name} is defined twice", token)
        self.values[name] = value
        return value

    def value(self) -> Value:
        token = self.token
        name = f"%{self.value_name()}"
        if name not in self.values:
            self.fail(f"{name} is not defined before its use", token)
        return self.values[name]

    def results(self, inputs: list[Value]) -> tuple[list[Value], list[tuple[int, int]]]:
        outputs: list[Value] = []
        donates: list[tuple[int, int]] = []
        if self.token.text == "}":
            return outputs, donates

        def result() -> None:
            outputs.append(self.value())
            if self.take("into"):
                token = self.token
                target = self.value()
                if target not in inputs:
                    self.fail("expected an input of the graph", token)
                donates.append((len(outputs) - 1, inputs.index(target)))

        self.items(result)
        return outputs, donates

    # ---- node

    def node(self) -> Node:
        token = self.token
        names = self.items(lambda: f"%{self.value_name()}")
        self.expect("=")
        op = self.op()
        self.expect("(")
        operands = tuple(self.listed(self.value, ")"))
        attrs = self.attrs(op)
        self.expect(":")
        types = tuple(self.items(self.type))
        if len(types) != len(names):
            self.fail(
                f"{len(names)} values on the left have {len(types)} types on the right", token
            )
        node = Node(op, operands, attrs, types, self.location())
        for name, value in zip(names, node.results(), strict=True):
            self.define(name, value, token)
        return node

    def op(self) -> Op:
        token = self.token
        name = self.expect_kind("name")
        if name not in OPS:
            self.fail(f"unknown op {name!r}", token)
        return OPS[name]

    def location(self) -> Location | None:
        if not self.take("@"):
            return None
        if self.token.kind != "string":
            self.fail(f"expected a file name in quotes, got {self.token.text!r}")
        file = self.string()
        self.expect(":")
        return Location(file, int(self.expect_kind("int")))

    def type(self) -> Type:
        dtype = self.dtype()
        self.expect("[")
        return Type(dtype, self.listed(self.dim, "]"))

    def dtype(self) -> DType:
        token = self.next()
        if token.text not in BY_NAME:
            self.fail(f"expected a dtype ({' '.join(BY_NAME)}), got {token.text!r}", token)
        return BY_NAME[token.text]

    # ---- dims

    def dim(self) -> Dim:
        """A sum of products, as in Python."""
        total = self.product()
        while self.token.text in ("+", "-"):
            sign = 1 if self.next().text == "+" else -1
            total = total + self.product() * sign
        return total

    def product(self) -> Dim:
        result = self.factor()
        while self.token.text in ("*", "//", "%"):
            operation, right = self.next(), self.factor()
            if operation.text == "*":
                result = result * right
                continue
            divide = floordiv if operation.text == "//" else modulo
            try:
                result = divide(result, right)
            except ZeroDivisionError:
                self.fail("division by zero in a size", operation)
        return result

    def factor(self) -> Dim:
        token = self.next()
        if token.text == "-":
            return self.factor() * -1
        if token.text == "(":
            inner = self.dim()
            self.expect(")")
            return inner
        if token.kind == "int":
            return int(token.text)
        if token.text in self.symbols and token.kind == "name":
            return self.symbols[token.text]
        if token.kind == "name":
            self.fail(f"symbol {token.text!r} is not declared after the graph's name", token)
        self.fail(f"expected a size, got {token.text!r}", token)

    # ---- attributes

    def attrs(self, op: Op) -> Attrs:
        token = self.token
        fields = [f.name for f in dataclasses.fields(op.attrs)]
        found: dict[str, object] = {}

        def attribute() -> None:
            place = self.token
            name = self.expect_kind("name")
            if name not in fields or name in found:
                known = ", ".join(fields) or "none"
                self.fail(
                    f"op {op.name} has attributes {known}; {name!r} is unexpected here", place
                )
            self.expect("=")
            found[name] = self.attr()

        if self.take("{"):
            self.listed(attribute, "}")
        missing = [n for n in fields if n not in found]
        if missing:
            self.fail(f"op {op.name} lacks attribute {', '.join(missing)}", token)
        return self.checked(lambda: op.attrs(**found)) if fields else NO_ATTRS

    def attr(self) -> object:
        token = self.token
        if token.kind == "string":
            return self.string()
        if token.text in ("None", "True", "False"):
            return {"None": None, "True": True, "False": False}[self.next().text]
        if token.text == "graph":
            return self.graph()
        if token.text in BY_NAME:
            dtype = self.dtype()
            return self.literal(dtype) if self.token.text == "[" else dtype
        if token.text == "(":
            return self.group()
        return self.number()

    def group(self) -> object:
        """A tuple, or the dim expression that a parenthesis opens: ``(n)//2``."""
        start = self.at
        self.expect("(")
        items: list[object] = []
        while not self.take(")"):
            items.append(self.attr())
            if self.take(","):
                continue
            self.expect(")")
            if len(items) == 1:  # a tuple of one has a comma, so this was a size in parentheses
                self.at = start
                return self.dim()
            break
        return tuple(items)

    def number(self) -> float | Dim:
        sign = self.token.text == "-"
        following = self.tokens[self.at + sign]
        if following.kind != "float" and following.text not in ("inf", "nan"):
            return self.dim()
        self.at += 1 + sign
        # One NaN object for all: attributes compare by ==, which only identity can make hold for
        # NaN.
        value = math.nan if following.text == "nan" else float(following.text)
        return -value if sign else value

    def literal(self, dtype: DType) -> Literal:
        self.expect("[")
        shape = tuple(self.listed(lambda: int(self.expect_kind("int")), "]"))
        token = self.token
        if token.kind == "string":
            made = self.checked(
                lambda: Literal(dtype, shape, base64.b64decode(self.string(), validate=True))
            )
        else:
            self.expect("(")
            words = self.listed(self.word, ")")
            made = self.checked(lambda: literal_of_words(dtype, shape, words))
        if len(made.data) != math.prod(shape) * dtype.itemsize:
            self.fail(
                f"a literal {dtype}{list(shape)} has {math.prod(shape) * dtype.itemsize} bytes, "
                f"got {len(made.data)}",
                token,
            )
        return made

    def word(self) -> str:
        sign = "-" if self.take("-") else ""
        token = self.next()
        if token.kind not in ("int", "float", "name"):
            self.fail(f"expected a number, got {token.text!r}", token)
        return sign + token.text

    def checked(self, make: Callable[[], T]) -> T:
        """What `make` returns; its complaint gets this place."""
        try:
            return make()
        except (ValueError, TypeError, OverflowError, binascii.Error) as error:
            if isinstance(error, ParseError):
                raise
            self.fail(str(error))
