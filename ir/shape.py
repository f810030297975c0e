"""Sizes that may be unknown while compiling: integers, symbols and integer expressions over them.

A dimension is a plain ``int`` or a `SymInt`: a polynomial over *atoms*, kept in normal form, so
that ``==`` and ``hash`` are structural and ``2*n - n == n``. An atom is a `Symbol` or a floor
division or remainder that does not simplify.

    dim ::= int | symbol | dim op dim        op in + - * // %

Comparing sizes whose order depends on a symbol raises: the graph would otherwise hold for some
sizes only. `bounds` tells what is known. While a function is recorded a `Judge` decides, and keeps
what it assumed. For rules of ours ``==`` is structural all the same: False says that sizes are not
known to be equal, and rules that need them to be ask `assumed_equal`. The code of a user takes
False for "are not equal", so that its comparison is one to decide, as is whatever it does with a
size as a key or as text.
"""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, Union

from .dataclass import dataclass
from .dtype import BY_NAME
from .judge import Judge, is_users, judge_here

# Words of the text form, which a symbol of that name would make ambiguous.
RESERVED = frozenset(
    ("None", "True", "False", "graph", "return", "into", "in", "inf", "nan", *BY_NAME)
)
SIDE = 224  # what a symbol of an image's height or width is most likely to be
UNBOUNDED = 2**48  # stands for "no upper limit"; an array of more elements does not fit any memory


@dataclass(frozen=True)
class Symbol:
    """A size known only at run time, within ``min..max`` (both included)."""

    name: str
    min: int = 0
    max: int = UNBOUNDED

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in RESERVED:
            raise ValueError(
                f"Dim name {self.name!r} is not a free identifier: use letters, digits and _, "
                f"and none of {' '.join(sorted(RESERVED))}"
            )
        if not 0 <= self.min <= self.max:
            raise ValueError(
                f"Dim {self.name!r}: expected 0 <= min <= max, got {self.min} and {self.max}"
            )

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Quotient:
    """``numerator // denominator`` that does not simplify."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"{_wrap(self.numerator)}//{_wrap(self.denominator)}"


@dataclass(frozen=True)
class Remainder:
    """``numerator % denominator`` that does not simplify."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"{_wrap(self.numerator)}%{_wrap(self.denominator)}"


Atom: TypeAlias = Union[Symbol, Quotient, Remainder]
Monomial: TypeAlias = tuple[Atom, ...]  # sorted by text; () is the constant term


class SymInt:
    """An integer expression over symbols, in normal form: a sum of integer multiples of
    monomials."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]):
        self.terms = terms
        self._hash = hash(terms)

    @staticmethod
    def atom(atom: Atom) -> SymInt:
        return SymInt((((atom,), 1),))

    def __hash__(self) -> int:
        number = _asked_for(self)
        return self._hash if number is None else hash(number)

    def __eq__(self, other: object) -> bool:
        if self is other or (isinstance(other, SymInt) and self.terms == other.terms):
            return True
        judge = judge_here()
        if (
            judge is None
            or not isinstance(other, (int, float, SymInt))
            or not is_users(sys._getframe(1))
        ):
            return False
        return other == math.floor(other) and _is_zero(self - _rounded(other, math.floor), judge)

    def __reduce__(self) -> tuple[object, ...]:
        return SymInt, (self.terms,)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        """`int` for the code of a user that a judge decides for: there ``isinstance(n, int)``
        holds."""
        return int if judge_here() is not None and is_users(sys._getframe(1)) else SymInt

    def __add__(self, other: Dim) -> Dim:
        if type(other) is int:
            return self._plus(other)
        if isinstance(other, float):
            return int(self) + other  # type: ignore[return-value]
        return (
            _sum(_terms(self), _terms(other))
            if isinstance(other, (int, SymInt))
            else NotImplemented
        )

    __radd__ = __add__

    def _plus(self, number: int) -> SymInt:
        """With another constant term, which is the last one."""
        if number == 0:
            return self
        *terms, (monomial, factor) = self.terms
        if monomial != ():
            return SymInt((*self.terms, ((), number)))
        number += factor
        return SymInt((*terms, ((), number)) if number else tuple(terms))

    def _times(self, number: int) -> Dim:
        if number in (0, 1):
            return number and self
        return SymInt(tuple([(monomial, factor * number) for monomial, factor in self.terms]))

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1 if isinstance(other, (int, float, SymInt)) else NotImplemented  # type: ignore[operator]

    def __rsub__(self, other: Dim) -> Dim:
        return self * -1 + other

    def __mul__(self, other: Dim) -> Dim:
        if type(other) is int:
            return self._times(other)
        if isinstance(other, float):
            return int(self) * other  # type: ignore[return-value]
        if not isinstance(other, (int, SymInt)):
            return NotImplemented
        products: dict[Monomial, int] = {}
        for m, c in _terms(self):
            for n, d in _terms(other):
                key = tuple(sorted(m + n, key=str))
                products[key] = products.get(key, 0) + c * d
        return _normal(products)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return modulo(other, self)

    def __lt__(self, other: Dim) -> bool:
        return not _decide(self, other, "<")

    def __ge__(self, other: Dim) -> bool:
        return _decide(self, other, "<")

    def __le__(self, other: Dim) -> bool:
        return _decide(other, self, "<=")

    def __gt__(self, other: Dim) -> bool:
        return not _decide(other, self, "<=")

    def __int__(self) -> int:
        number = _number(self)
        if number is None:
            raise SizeNeeded(self)
        return number

    __index__ = __trunc__ = __int__

    def __float__(self) -> float:
        return float(int(self))

    def __abs__(self) -> Dim:
        return self if self >= 0 else -self

    def __divmod__(self, other: Dim) -> tuple[Dim, Dim]:
        return self // other, self % other

    def __pow__(self, exponent: Any) -> Dim:
        if type(exponent) is not int or exponent < 0:
            return int(self) ** exponent  # type: ignore[no-any-return]
        product: Dim = 1
        for _ in range(exponent):
            product = self * product
        return product

    def __bool__(self) -> bool:
        low, high = bounds(self)
        if low > 0 or high < 0:
            return True
        judge = judge_here()
        if judge is not None:
            return not judge.is_zero(self)
        raise TypeError(f"whether size {self} is zero depends on the run: give its Dim a min of 1")

    def __str__(self) -> str:
        number = _asked_for(self)
        return self._text() if number is None else str(number)

    __repr__ = __str__

    def __format__(self, how: str) -> str:
        number = _asked_for(self)
        return format(self._text() if number is None else number, how)

    def _text(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            body = "*".join(str(a) if isinstance(a, Symbol) else f"({a})" for a in monomial)
            times = "" if abs(factor) == 1 and body else str(abs(factor))
            piece = f"{times}*{body}" if times and body else times + body
            sign = "-" if factor < 0 else "+" if text else ""
            text += sign + piece
        return text


def _through_int(operate: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """A binary operator that no expression of sizes has, and its reflection: it needs the
    number."""
    return (lambda self, other: operate(int(self), other)), (
        lambda self, other: operate(other, int(self))
    )


for _name in ("truediv", "and_", "or_", "xor", "lshift", "rshift"):
    _own, _reflected = _through_int(getattr(operator, _name))
    setattr(SymInt, f"__{_name.strip('_')}__", _own)
    setattr(SymInt, f"__r{_name.strip('_')}__", _reflected)
setattr(SymInt, "__rpow__", _through_int(operator.pow)[1])  # noqa: B010


def _number(size: SymInt) -> int | None:
    """What `size` is in the call that is being recorded, where the judge lets a recording depend on
    that."""
    judge = judge_here()
    return None if judge is None else judge.number(size)


def _asked_for(size: SymInt) -> int | None:
    """`_number`, where a method of `size` that does not need it was called by the user's code."""
    if judge_here() is None or not is_users(sys._getframe(2)):
        return None
    return _number(size)


def _is_zero(difference: Dim, judge: Judge) -> bool:
    """Whether `difference` is 0, by its range or as `judge` decides."""
    if isinstance(difference, int):
        return difference == 0
    low, high = bounds(difference)
    return low <= 0 <= high and judge.is_zero(difference)


class SizeNeeded(TypeError):
    """A symbolic size is needed as a number of Python.

    Attributes:
        names: of its symbols.
    """

    def __init__(self, size: SymInt):
        super().__init__(
            f"size {size} is symbolic here, not an integer: keep it in shape arithmetic"
        )
        self.names = frozenset(s.name for s in symbols([size]))


Dim: TypeAlias = Union[int, SymInt]
Shape: TypeAlias = tuple[Dim, ...]
Condition: TypeAlias = SymInt  # an expression that is at least 0


class Known:
    """Answers from conditions that were tested before: what does not follow from them raises."""

    def __init__(self, conditions: Iterable[Condition]):
        self.conditions = tuple(conditions)

    def at_least(self, difference: SymInt) -> bool:
        """Whether ``difference >= 0``, if some condition says so, or the contrary."""
        for known in self.conditions:
            if bounds(difference - known)[0] >= 0:
                return True
            if bounds(difference * -1 - 1 - known)[0] >= 0:
                return False
        raise TypeError(f"whether {difference} >= 0 depends on the run and was not assumed")

    def is_zero(self, difference: SymInt) -> bool:
        """Whether ``difference == 0``, if conditions say so, or the contrary."""
        return self.at_least(difference) and self.at_least(difference._times(-1))  # type: ignore[arg-type]

    def number(self, size: SymInt) -> int | None:
        """None: what was not assumed is not known."""
        return None


def without_implied(conditions: Iterable[Condition]) -> list[Condition]:
    """Those of `conditions` that do not follow from another one."""
    kept: list[Condition] = []
    for condition in conditions:
        if not any(bounds(condition - other)[0] >= 0 for other in kept):
            kept = [other for other in kept if bounds(other - condition)[0] < 0] + [condition]
    return kept


def unit(dim: Dim) -> int:
    """The greatest number that divides `dim`, whatever its symbols are; 0 for 0."""
    return math.gcd(*(factor for _, factor in _terms(dim)))


def likely(dim: Dim, size: int) -> int:
    """`dim` where each symbol is `size`, or what of its range is nearest; at least 1."""
    if isinstance(dim, int):
        return dim
    near: dict[str, Dim] = {s.name: min(max(size, s.min), s.max) for s in symbols([dim])}
    try:
        return max(1, int(evaluate(dim, near)))
    except ZeroDivisionError:  # by a difference that other symbols would have
        return max(1, size)


def assumed_equal(a: Dim, b: Dim) -> bool:
    """Whether sizes that are other expressions are taken to be equal here, which becomes a
    condition."""
    judge = judge_here()
    if judge is None:
        return False
    try:
        return _is_zero(a - b, judge)
    except TypeError:  # nothing is known of them
        return False


def assumed() -> tuple[Condition, ...]:
    """The conditions that hold here, beyond the ranges of symbols."""
    judge = judge_here()
    return judge.conditions if isinstance(judge, Known) else ()


def symbol(name: str, min: int = 0, max: int | None = None) -> SymInt:
    """A new symbolic size ``name`` within ``min..max``; `max` None means unbounded."""
    return SymInt.atom(Symbol(name, min, UNBOUNDED if max is None else max))


def _wrap(dim: Dim) -> str:
    """`dim` as an operand of // or %: in parentheses unless it is a number or a symbol."""
    if isinstance(dim, int):
        return str(dim) if dim >= 0 else f"({dim})"
    return f"({dim})" if plain_symbol(dim) is None else str(dim)


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, SymInt) else (((), dim),) if dim else ()


def _order(monomial: Monomial) -> tuple[int, tuple[str, ...]]:
    """Terms stand by degree, the highest first, then by text."""
    return -len(monomial), tuple(map(str, monomial))


def _normal(terms: Mapping[Monomial, int]) -> Dim:
    kept = [(m, c) for m, c in terms.items() if c]
    if len(kept) > 1:
        kept.sort(key=lambda term: _order(term[0]))
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return SymInt(tuple(kept))


def _sum(*parts: tuple[tuple[Monomial, int], ...]) -> Dim:
    total: dict[Monomial, int] = {}
    for part in parts:
        for monomial, factor in part:
            total[monomial] = total.get(monomial, 0) + factor
    return _normal(total)


def _split(dim: Dim, divisor: Dim) -> tuple[Dim, Dim]:
    """`dim` as ``quotient * divisor + rest`` with as much as possible in the quotient."""
    divisor_terms = _terms(divisor)
    if len(divisor_terms) != 1:
        return (1, 0) if dim == divisor else (0, dim)
    ((monomial, factor),) = divisor_terms
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for term, coefficient in _terms(dim):
        left = list(term)
        divides = True
        for atom in monomial:
            if atom in left:
                left.remove(atom)
            else:
                divides = False
        whole = coefficient // factor if divides else 0
        quotient[tuple(left)] = quotient.get(tuple(left), 0) + whole
        rest[term] = rest.get(term, 0) + coefficient - whole * factor
    return _normal(quotient), _normal(rest)


def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b``, simplified: ``(6*n + 3) // 3 -> 2*n + 1``."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    quotient, rest = _split(a, b)
    if rest == 0:
        return quotient
    low, high = bounds(rest)
    divisor_low, _ = bounds(b)
    if low >= 0 and high < divisor_low:
        return quotient
    if isinstance(b, int):
        # (k*r + c) // (k*b) == (r + c//k) // b: one form for equal quotients, whatever their
        # constant
        common = math.gcd(b, *(c for monomial, c in _terms(rest) if monomial))
        if common > 1:
            parts = [_terms(floordiv(part, common)) for part in _parts(rest)]
            return quotient + floordiv(_sum(*parts), b // common)
    return quotient + SymInt.atom(Quotient(rest, b))


def _parts(dim: Dim) -> list[Dim]:
    return [_normal({monomial: factor}) for monomial, factor in _terms(dim)]


def modulo(a: Dim, b: Dim) -> Dim:
    """``a % b``, simplified: ``(6*n + 1) % 3 -> 1``."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    _, rest = _split(a, b)
    low, high = bounds(rest)
    divisor_low, _ = bounds(b)
    if rest == 0 or (low >= 0 and high < divisor_low):
        return rest
    return SymInt.atom(Remainder(rest, b))


def bounds(dim: Dim) -> tuple[int, int]:
    """The smallest and the largest value `dim` can take, by interval arithmetic (never too
    narrow)."""
    if isinstance(dim, int):
        return dim, dim
    low = high = 0
    for monomial, factor in dim.terms:
        ends = [factor]
        for atom in monomial:
            ends = [e * v for e in (min(ends), max(ends)) for v in _atom_bounds(atom)]
        low, high = low + min(ends), high + max(ends)
    return max(low, -UNBOUNDED), min(high, UNBOUNDED)


def _atom_bounds(atom: Atom) -> tuple[int, int]:
    if isinstance(atom, Symbol):
        return atom.min, atom.max
    low, high = bounds(atom.numerator)
    divisor_low, divisor_high = bounds(atom.denominator)
    if divisor_low <= 0:
        return -UNBOUNDED, UNBOUNDED
    if isinstance(atom, Remainder):
        return 0, min(divisor_high - 1, high) if low >= 0 else divisor_high - 1
    ends = [e // d for e in (low, high) for d in (divisor_low, divisor_high)]
    return min(ends), max(ends)


def _decide(a: Dim, b: Dim, relation: str) -> bool:
    """Whether ``a >= b``; raises where it depends on the run."""
    if isinstance(a, float) or isinstance(b, float):
        a, b = _rounded(a, math.floor), _rounded(b, math.ceil)
    low, high = bounds(a - b)
    if low >= 0:
        return True
    if high < 0:
        return False
    judge = judge_here()
    if judge is not None:
        return judge.at_least(a - b)  # type: ignore[arg-type]
    raise TypeError(
        f"comparing sizes {a} {relation} {b} depends on the run: narrow the range of the Dim "
        "with min= and max="
    )


def _rounded(number: Any, to: Callable[[float], int]) -> Dim:
    """The integer that compares with sizes as a float does; an infinite one is beyond all of
    them."""
    if not isinstance(number, float):
        return number  # type: ignore[no-any-return]
    return to(min(max(number, -2.0 * UNBOUNDED), 2.0 * UNBOUNDED))


def plain_symbol(dim: Dim) -> Symbol | None:
    """The symbol that `dim` consists of, if it is just that."""
    if isinstance(dim, SymInt) and len(dim.terms) == 1:
        ((monomial, factor),) = dim.terms
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0]
    return None


def symbols(dims: Iterable[Dim]) -> set[Symbol]:
    """Every symbol that occurs in `dims`."""
    found: set[Symbol] = set()
    for dim in dims:
        for monomial, _ in _terms(dim):
            for atom in monomial:
                if isinstance(atom, Symbol):
                    found.add(atom)
                else:
                    found |= symbols((atom.numerator, atom.denominator))
    return found


def evaluate(dim: Dim, sizes: Mapping[str, Dim]) -> Dim:
    """`dim` with each symbol replaced by ``sizes[name]``; symbols not named there stay."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, factor in dim.terms:
        product: Dim = factor
        for atom in monomial:
            product = _evaluate_atom(atom, sizes) * product
        total = total + product
    return total


def _evaluate_atom(atom: Atom, sizes: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Symbol):
        return sizes.get(atom.name, SymInt.atom(atom))
    a, b = evaluate(atom.numerator, sizes), evaluate(atom.denominator, sizes)
    return floordiv(a, b) if isinstance(atom, Quotient) else modulo(a, b)


def numel(shape: Shape) -> Dim:
    """Number of elements of `shape`."""
    total: Dim = 1
    for dim in shape:
        total = total * dim
    return total


def broadcast(*shapes: Shape) -> Shape:
    """The common shape by NumPy's rule: align right; sizes are equal or one of them is 1.

    Raises:
        RuntimeError: two sizes differ, or cannot be shown to be equal.
    """
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for axis in range(-1, -rank - 1, -1):  # from the right: an error names the last that differs
        size: Dim = 1
        for shape in shapes:
            if -axis <= len(shape) and shape[axis] != 1 and shape[axis] != size:
                if size != 1:
                    raise RuntimeError(
                        f"The size of tensor a ({size}) must match the size of tensor b "
                        f"({shape[axis]}) at non-singleton dimension {axis + rank}: shapes "
                        + " and ".join(str(list(s)) for s in shapes)
                        + " broadcast only where sizes are equal or 1"
                    )
                size = shape[axis]
        result.append(size)
    return tuple(reversed(result))


@functools.lru_cache(maxsize=4096)
def contiguous_strides(shape: Shape) -> Shape:
    """Strides, in elements, of a row-major array of `shape`."""
    strides: list[Dim] = []
    step: Dim = 1
    for dim in reversed(shape):
        strides.append(step)
        step = step * dim
    return tuple(reversed(strides))


def normalize_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front; a 0-d tensor accepts -1 and 0, as in PyTorch.

    Raises:
        IndexError: out of range, with PyTorch's message.
    """
    limit = max(rank, 1)
    if not -limit <= axis < limit:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got "
            f"{axis})"
        )
    return axis % limit
