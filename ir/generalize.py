"""From recordings of one structure with different sizes to one graph whose sizes are symbols.

The numbers that a structure leaves out (`ir.structure`) form a vector: the sizes of the leaves,
then the numbers of each node's attributes. From a few such vectors `generalize` guesses which
numbers are the same in every recording, which are sizes of their own, and which follow from others:
a size that some value of the graph has, such a size and a constant, a product, a quotient, a
multiple of a symbol. The guess is tested by shape inference on the symbolic graph, and again by
`Variant.match` for every later vector, so that a wrong one is never used, only not found. Where
inference depends on how sizes compare, it is decided as in the recordings and becomes a condition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from .dtype import DType, boolean
from .graph import Graph, Node, Type, Value, located
from .judge import assuming
from .literal import Literal
from .ops.checks import attrs_of
from .ops.shape import ConstantAttrs
from .shape import Condition, Dim, Known, SymInt, evaluate, floordiv, numel, symbol
from .structure import Number, holds_shape, split_attrs, with_numbers

Vector: TypeAlias = tuple[Number, ...]
Column: TypeAlias = tuple[Number, ...]  # one number in each of the recordings

SMALLEST = 2  # sizes of 0 and 1 belong to the structure
# a symbol's range ends at so many times the largest size seen, rounded up to a power of two
ROOM = 8
FACTORS = 64  # multiples of a symbol are looked for up to this factor
DIVISORS = (2, 3, 4, 8, 16, 32)
SYMBOLS_LIMIT = 12


class Variant:
    """A symbolic graph and what binds it to a vector of numbers.

    Attributes:
        graph: its inputs are the leaves, then `scalars`, then a carrier for each of `carried`: a
            bool tensor that is never read, whose size is the number.
        conditions: what inference assumed of the symbols; `match` tests it.
        scalars: positions in the vector whose numbers are 0-d inputs, with their dtypes.
        carried: positions of numbers that are no leaf's size and do not follow from one, and the
            unit in which a symbol counts each.
    """

    def __init__(
        self,
        graph: Graph,
        conditions: tuple[Condition, ...],
        scalars: list[tuple[int, DType]],
        carried: list[tuple[int, int]],
        match: Callable[[Vector], bool],
    ):
        self.graph = graph
        self.conditions = conditions
        self.scalars = scalars
        self.carried = carried
        self.match = match


def generalize(
    nodes: Sequence[Node],
    places: Sequence[Sequence[int]],
    leaves: Sequence[Type],
    outputs: Sequence[int],
    vectors: Sequence[Vector],
    name: str = "main",
    conditions: tuple[Condition, ...] = (),
) -> Variant | None:
    """A symbolic graph that serves recordings with these vectors, the last of them being the given
    one.

    Args:
        nodes, places, leaves, outputs: a recording, operands and outputs given as `evaluate.Plan`
            takes them.
        vectors: of at least two recordings, the last of this one.
        name: of the graph.
        conditions: what holds for the symbols of recordings that have some already; of those only
            constants may differ.

    Returns:
        None where sizes follow no simple rule, or inference cannot decide for all of them.
    """
    for in_units in (False, True):
        hints = Hints({})
        guess = _Guess(vectors, hints, in_units)
        with assuming(Known(conditions) if guess.has_symbols else hints):
            try:
                found = guess.variant(nodes, places, leaves, outputs, name)
                found.conditions += conditions
                return found
            except (
                RuntimeError,
                TypeError,
                ValueError,
                IndexError,
                NotImplementedError,
                AssertionError,
            ):
                continue  # a rule that refuses symbols
    return None


class Hints:
    """Decides how sizes compare as they did in the recording, and notes what that assumes."""

    def __init__(self, sizes: dict[str, Dim]):
        self.sizes = sizes
        self.conditions: dict[Condition, None] = {}

    def at_least(self, difference: SymInt) -> bool:
        """Whether ``difference >= 0``."""
        found = evaluate(difference, self.sizes)
        assert isinstance(found, int)
        condition = difference if found >= 0 else difference * -1 - 1
        assert isinstance(condition, SymInt)
        self.conditions[condition] = None
        return found >= 0

    def is_zero(self, difference: SymInt) -> bool:
        """Whether ``difference == 0``."""
        if evaluate(difference, self.sizes) == 0:
            return self.at_least(difference) and self.at_least(difference * -1)  # type: ignore[arg-type]
        # of a square: one condition for both sides of 0
        self.conditions[difference * difference - 1] = None  # type: ignore[index]
        return False

    def number(self, size: SymInt) -> int | None:
        """None: a graph is to hold for other sizes, too."""
        return None


class _Guess:
    """The state of one `generalize`.

    With `in_units` a size of its own is a multiple of what divides it in all recordings: ``16*s``
    can be reshaped to ``[s, 16]``.
    """

    def __init__(self, vectors: Sequence[Vector], hints: Hints, in_units: bool):
        self.in_units = in_units
        self.vectors = vectors
        self.hints = hints
        self.columns: list[Column] = list(zip(*vectors, strict=True))
        self.has_symbols = any(isinstance(n, SymInt) for n in vectors[-1])
        self.pool: dict[Column, SymInt] = {}  # what is known to be that number in each recording
        # position it is read from, its factor there
        self.symbols: list[tuple[SymInt, Column, int, int]] = []
        self.fixed: list[tuple[int, Number]] = []
        self.derived: list[tuple[int, SymInt]] = []
        self.scalars: list[tuple[int, DType]] = []
        self.carried: list[int] = []
        # of the symbols, in each recording
        self.sizes: list[dict[str, Dim]] = [{} for _ in vectors]

    # -- the graph

    def variant(
        self,
        nodes: Sequence[Node],
        places: Sequence[Sequence[int]],
        leaves: Sequence[Type],
        outputs: Sequence[int],
        name: str,
    ) -> Variant:
        position = sum(
            isinstance(d, SymInt) or d >= SMALLEST for type in leaves for d in type.shape
        )
        # small ones first: a product of two sizes is to be known as that, wherever it comes
        order = list(range(position))
        if not self.has_symbols:
            order.sort(key=lambda p: sum(self.columns[p]))
        sizes = {p: self.size(p) for p in order}
        numbered = iter(range(position))
        inputs: list[Value] = []
        for i, type in enumerate(leaves):
            shape = [
                d if isinstance(d, int) and d < SMALLEST else sizes[next(numbered)]
                for d in type.shape
            ]
            inputs.append(Value(Type(type.dtype, tuple(shape)), name=f"x{i}"))
        extra: list[Value] = []
        made: list[Value] = []

        def at(place: int) -> Value:
            return inputs[-1 - place] if place < 0 else made[place]

        for node, row in zip(nodes, places, strict=True):
            operands = tuple(map(at, row))
            count = len(split_attrs(node.attrs)[1])
            results = self.node(node, operands, range(position, position + count), extra)
            position += count
            for was, now in zip(node.types, results, strict=True):
                if tuple([evaluate(d, self.sizes[-1]) for d in now.shape]) != was.shape:
                    raise ValueError("inference gives other sizes")
                self.learn(now.shape)
            made += results
        carriers = [
            Value(Type(boolean, (s,)), name=f"n{i}")
            for i, (s, _, p, _) in enumerate(self.symbols)
            if p in self.carried
        ]
        units = [(p, factor) for _, _, p, factor in self.symbols if p in self.carried]
        graph = Graph(name, [*inputs, *extra, *carriers], list(map(at, outputs)))
        conditions = tuple(self.hints.conditions)
        return Variant(graph, conditions, self.scalars, units, self.matcher())

    def node(
        self, node: Node, operands: tuple[Value, ...], positions: Sequence[int], extra: list[Value]
    ) -> tuple[Value, ...]:
        if isinstance(node.attrs, ConstantAttrs) and len(positions):
            return (self.constant(node, positions[0], extra),)
        numbers = self.numbers(node, operands, positions)
        attrs = with_numbers(node.attrs, numbers) if numbers else node.attrs
        # not by `Op.node`: types that it remembers would leave out what this inference assumes
        types = node.op.infer(attrs, *[v.type for v in operands])
        return Node(node.op, operands, attrs, types, node.location).results()

    def constant(self, node: Node, position: int, extra: list[Value]) -> Value:
        """A 0-d constant: itself, or an input where it changes."""
        literal: Literal = attrs_of(node, ConstantAttrs).value
        column = self.columns[position]
        if _is_one(column):
            self.fixed.append((position, column[0]))
            with located(None):
                return node.op.node((), node.attrs).result()
        self.scalars.append((position, literal.dtype))
        made = Value(Type(literal.dtype), name=f"c{len(extra)}")
        extra.append(made)
        return made

    # -- numbers

    def size(self, position: int) -> Dim:
        """The size of a leaf."""
        column = self.columns[position]
        if _is_one(column):
            return self.keep(position)
        found = (
            self.pool.get(column)
            or self.multiple(column)
            or self.product(column, self.pool.items())
        )
        return self.new(position, SMALLEST) if found is None else self.derive(position, found)

    def numbers(
        self, node: Node, operands: tuple[Value, ...], positions: Sequence[int]
    ) -> list[Dim]:
        """The numbers of a node's attributes; what the total of a reshape leaves over comes
        last."""
        found: list[Dim | None] = []
        near = [(self.column(d), d) for v in operands for d in v.shape if isinstance(d, SymInt)]
        for p in positions:
            column = self.columns[p]
            found.append(self.keep(p) if _is_one(column) else self.expression(column, near))
        if node.op.name == "reshape" and found.count(None) == 1:
            self.fill_reshape(node, operands[0], positions, found)
        for i, p in enumerate(positions):
            dim = found[i]
            if dim is None:
                dim = self.multiple(self.columns[p])
            if dim is None:
                found[i] = self.new(p, SMALLEST if holds_shape(node.attrs) else 0)
                self.carried.append(p)
            elif isinstance(dim, SymInt):
                found[i] = self.derive(p, dim)
        return found  # type: ignore[return-value]

    def fill_reshape(
        self, node: Node, x: Value, positions: Sequence[int], found: list[Dim | None]
    ) -> None:
        """The one size of a reshape that is not known yet: what is left of the number of
        elements."""
        index = found.index(None)
        rest = floordiv(x.type.numel, numel(tuple([d for d in found if d is not None])))
        if isinstance(rest, SymInt) and self.column(rest) == self.columns[positions[index]]:
            found[index] = rest

    def expression(self, column: Column, near: Sequence[tuple[Column, SymInt]]) -> SymInt | None:
        """What is `column` in each recording, made of sizes that the operands have or others had
        before."""
        for known, dim in near:
            if known == column:
                return dim
        found = self.pool.get(column)
        if found is not None:
            return found
        for known, dim in (*near, *[(c, s) for s, c, *_ in self.symbols]):
            apart = {a - b for a, b in zip(column, known, strict=True)}
            if len(apart) == 1:
                return dim + apart.pop()  # type: ignore[return-value,operator]
            together = {a + b for a, b in zip(column, known, strict=True)}
            if len(together) == 1:
                return together.pop() - dim  # type: ignore[return-value,operator]
        return self.product(column, near) or self.quotient(column, near)

    @staticmethod
    def product(column: Column, known: Iterable[tuple[Column, SymInt]]) -> SymInt | None:
        """`column` as the product of two sizes, perhaps times a constant."""
        for (a, x), (b, y) in combinations(list(known)[:16], 2):
            factors = {c / (p * q) for c, p, q in zip(column, a, b, strict=True) if p * q}
            if len(factors) == 1:
                factor = factors.pop()
                if factor == int(factor) and factor >= 1:
                    return x * y * int(factor)  # type: ignore[return-value]
        return None

    @staticmethod
    def quotient(column: Column, near: Sequence[tuple[Column, SymInt]]) -> SymInt | None:
        """`column` as a quotient by a small constant, rounded down or up."""
        for known, dim in near:
            for divisor in DIVISORS:
                for rounding in (0, divisor - 1):
                    if all(
                        (k + rounding) // divisor == c for k, c in zip(known, column, strict=True)
                    ):
                        found = floordiv(dim + rounding, divisor)
                        return found if isinstance(found, SymInt) else None
        return None

    def multiple(self, column: Column) -> SymInt | None:
        """``p * s + q`` for a symbol s."""
        for dim, known, *_ in self.symbols:
            pairs = sorted(set(zip(known, column, strict=True)))
            if len(pairs) < 3 or len({k for k, _ in pairs}) < len(pairs):
                continue  # two points always lie on a line
            (a, b), (c, d) = pairs[0], pairs[-1]
            factor, rest = divmod(d - b, c - a)
            offset = b - factor * a
            if (
                rest == 0
                and 1 <= factor <= FACTORS
                and all(factor * k + offset == v for k, v in pairs)
            ):
                return dim * int(factor) + int(offset)  # type: ignore[return-value]
        return None

    # -- what was decided

    def keep(self, position: int) -> int:
        self.fixed.append((position, self.columns[position][0]))
        return self.columns[position][0]  # type: ignore[return-value]

    def derive(self, position: int, dim: SymInt) -> SymInt:
        self.derived.append((position, dim))
        return dim

    def new(self, position: int, low: int) -> SymInt:
        """A symbol for a number of its own."""
        if len(self.symbols) >= SYMBOLS_LIMIT:
            raise ValueError("too many sizes that change by themselves")
        column = self.columns[position]
        factor = math.gcd(*column) if self.in_units and low else 1  # type: ignore[arg-type]
        units = tuple([int(n) // factor for n in column])
        name = f"s{len(self.symbols)}"
        dim = symbol(name, min(low, *units), ROOM << max(*units, 8).bit_length())
        self.symbols.append((dim, units, position, factor))
        for sizes, number in zip(self.sizes, units, strict=True):
            sizes[name] = number  # type: ignore[assignment]
        self.hints.sizes = self.sizes[-1]
        self.pool.setdefault(units, dim)
        if factor > 1:
            dim = dim * factor  # type: ignore[assignment]
            self.pool.setdefault(column, dim)
        return dim

    def learn(self, shape: Sequence[Dim]) -> None:
        """Sizes that later numbers may be equal to."""
        for d in shape:
            if isinstance(d, SymInt):
                self.pool.setdefault(self.column(d), d)

    def column(self, dim: SymInt) -> Column:
        return tuple([evaluate(dim, sizes) for sizes in self.sizes])  # type: ignore[misc]

    def matcher(self) -> Callable[[Vector], bool]:
        """Whether the guess holds for a vector: ranges, fixed numbers, derived ones, conditions."""
        lines = [f"    {s} = v[{p}] // {factor}" for s, _, p, factor in self.symbols]
        tests = [_range(s) for s, *_ in self.symbols]
        tests += [f"{s} * {factor} == v[{p}]" for s, _, p, factor in self.symbols if factor > 1]
        tests += [f"v[{p}] == {dim}" for p, dim in self.derived]
        tests += [f"{d} >= 0" for d in self.hints.conditions]
        space: dict[str, Any] = {
            "fixed": itemgetter(*[p for p, _ in self.fixed]) if self.fixed else None
        }
        if self.fixed:
            values = tuple([n for _, n in self.fixed])
            space["expected"] = values if len(values) > 1 else values[0]
            tests.insert(0, "fixed(v) == expected")
        exec(
            f"def match(v):\n{chr(10).join(lines)}\n    return {' and '.join(tests) or 'True'}",
            space,
        )
        return space["match"]  # type: ignore[no-any-return]


def _range(dim: SymInt) -> str:
    ((monomial, _),) = dim.terms
    (found,) = monomial
    return f"{found.min} <= {found} <= {found.max}"  # type: ignore[union-attr]


def _is_one(column: Column) -> bool:
    return all(n == column[0] for n in column)


def scalar_arrays(variant: Variant, vector: Vector) -> list[np.ndarray]:
    """The 0-d inputs of a call with this vector."""
    return [np.array(vector[p], dtype.numpy) for p, dtype in variant.scalars]
