"""Index algebra of a loop nest: loop variables are symbols, indices are `Dim` polynomials over
them.

Because `ir.shape` keeps polynomials in normal form, an index that went through a chain of views
comes out as ``stride * variable + ...``: strides, contiguity and mergeable loops are read off its
terms. Division and remainder (a reshape) vanish where the range of the loop variables proves it.
Whatever is only known at run time (a loaded index) takes part as a symbol of its own, bound to the
expression that computes it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence

from graphtorch.ir.shape import (
    UNBOUNDED,
    Dim,
    Quotient,
    Remainder,
    Shape,
    Symbol,
    SymInt,
    bounds,
    contiguous_strides,
    floordiv,
    modulo,
    symbols,
)

from ..ir import INDEX, Const, Expr, KType, Lanes, binary, splat

# first letter of the symbols that stand for loop variables; no Dim of a user is called so
PREFIX = "ι"


class Space:
    """The loop variables of a kernel: their extents and the expressions they are computed by.

    Attributes:
        extents: for each variable the number of values it takes, from 0 on.
        env: for each symbol (variable or size) its value in the kernel.
        depths: for each symbol the nesting depth of the block that defines it; sizes are at depth
            0.
        vector: the variable that runs over the lanes of a vector, if any, and the number of lanes.
    """

    def __init__(self) -> None:
        self.extents: dict[str, Dim] = {}
        self.env: dict[str, Expr] = {}
        self.depths: dict[str, int] = {}
        self.vector: str | None = None
        self.lanes = 1

    def variable(self, extent: Dim) -> Dim:
        """A new variable with values in ``[0, extent)``; the constant 0 for an extent of 1."""
        if extent == 1:
            return 0
        return self.opaque(extent)

    def opaque(self, extent: Dim) -> SymInt:
        """A new variable with values in ``[0, extent)``, a symbol even where the extent is 1."""
        name = f"{PREFIX}{len(self.extents)}"
        self.extents[name] = extent
        high = bounds(extent)[1] - 1
        return SymInt.atom(Symbol(name, 0, min(max(high, 0), UNBOUNDED)))

    def bind(self, variable: Dim, expr: Expr, depth: int = 0) -> None:
        """Give a variable its expression in the kernel, defined at nesting depth `depth`."""
        if isinstance(variable, SymInt):
            self.env[name_of(variable)] = expr
            self.depths[name_of(variable)] = depth

    def depth(self, dims: Sequence[Dim]) -> int:
        """The outermost nesting depth at which all of `dims` are known."""
        return max((self.depths.get(s.name, 0) for s in symbols(dims)), default=0)

    def upper(self, dim: Dim) -> Dim:
        """An upper bound of `dim` over all values of the loop variables, as a size."""
        if isinstance(dim, int):
            return dim
        total: Dim = 0
        for monomial, factor in dim.terms:
            total = total + self._upper_of(monomial, factor)
        return total

    def _upper_of(self, monomial: tuple[object, ...], factor: int) -> Dim:
        product: Dim = factor
        for atom in monomial:
            if isinstance(atom, Symbol):
                extent = self.extents.get(atom.name)
                product = product * (
                    SymInt.atom(atom) if extent is None else extent - 1 if factor > 0 else 0
                )
            elif isinstance(atom, Remainder):
                product = product * (atom.denominator - 1 if factor > 0 else 0)
            elif isinstance(atom, Quotient):
                product = product * (
                    floordiv(self.upper(atom.numerator), atom.denominator) if factor > 0 else 0
                )
        return product

    def within(self, dim: Dim, limit: Dim) -> bool:
        """Whether ``0 <= dim < limit`` holds for every value of the loop variables."""
        return bounds(dim)[0] >= 0 and bounds(limit - 1 - self.upper(dim))[0] >= 0

    def div(self, dim: Dim, divisor: Dim) -> Dim:
        """``dim // divisor`` of a non-negative index."""
        quotient, rest = split(dim, divisor)
        if self.within(rest, divisor):
            return quotient
        return floordiv(dim, divisor)

    def mod(self, dim: Dim, divisor: Dim) -> Dim:
        """``dim % divisor`` of a non-negative index."""
        _, rest = split(dim, divisor)
        return rest if self.within(rest, divisor) else modulo(dim, divisor)

    def linear(self, index: Sequence[Dim], shape: Shape) -> Dim:
        """The position of `index` in a row-major array of `shape`."""
        total: Dim = 0
        for i, stride in zip(index, contiguous_strides(shape), strict=True):
            total = total + i * stride
        return total

    def delinear(self, position: Dim, shape: Shape) -> tuple[Dim, ...]:
        """The index of a position in a row-major array of `shape`."""
        if 0 in shape:  # it has no elements; nobody comes here
            return (0,) * len(shape)
        index: list[Dim] = []
        for axis, stride in enumerate(contiguous_strides(shape)):
            step = 0 if shape[axis] == 1 else self.div(position, stride)
            index.append(
                step if axis == 0 else 0 if shape[axis] == 1 else self.mod(step, shape[axis])
            )
        return tuple(index)

    def expr(self, dim: Dim) -> Expr:
        """`dim` in the kernel; a vector where it depends on the vector variable."""
        if self.vector is None or not self.depends_on_lanes(dim):
            return self.base(dim)
        return self.where(dim, {self.vector: self._lanes()})

    def depends_on_lanes(self, dim: Dim) -> bool:
        return self.vector is not None and depends(dim, self.vector)

    def _lanes(self) -> Expr:
        """The values of the vector variable."""
        assert self.vector is not None
        base, lanes = self.env[self.vector], Lanes(KType(INDEX.dtype, self.lanes))
        return binary("add", splat(base, self.lanes), lanes)

    def base(self, dim: Dim) -> Expr:
        """`dim` with the vector variable at its first lane: where a contiguous vector load
        starts."""
        return to_expr(dim, self.env)

    def where(self, dim: Dim, values: dict[str, Expr]) -> Expr:
        """`dim` in the kernel where some variables have other values."""
        return to_expr(dim, ChainMap(values, self.env))


def name_of(variable: Dim) -> str:
    """The name of the symbol that `variable` consists of."""
    assert isinstance(variable, SymInt)
    atom = variable.terms[0][0][0]
    assert isinstance(atom, Symbol)
    return atom.name


def split(dim: Dim, divisor: Dim) -> tuple[Dim, Dim]:
    """``(q, r)`` with ``dim == q * divisor + r`` and as many terms as possible in `q`."""
    if isinstance(dim, int) and isinstance(divisor, int):
        return (dim // divisor, dim % divisor) if divisor else (0, dim)
    if dim == divisor:
        return 1, 0
    if isinstance(divisor, int):
        return _split_by(dim, (), divisor) if divisor else (0, dim)
    if len(divisor.terms) != 1:
        return 0, dim
    ((monomial, factor),) = divisor.terms
    return _split_by(dim, monomial, factor)


def _split_by(dim: Dim, monomial: tuple[object, ...], factor: int) -> tuple[Dim, Dim]:
    quotient: Dim = 0
    rest: Dim = 0
    for term, coefficient in terms_of(dim):
        left = list(term)
        divides = coefficient % factor == 0
        for atom in monomial:
            if atom in left:
                left.remove(atom)
            else:
                divides = False
        if divides:
            quotient = quotient + product_of(left, coefficient // factor)
        else:
            rest = rest + product_of(term, coefficient)
    return quotient, rest


def terms_of(dim: Dim) -> Sequence[tuple[tuple[object, ...], int]]:
    return dim.terms if isinstance(dim, SymInt) else (((), dim),) if dim else ()


def product_of(atoms: Sequence[object], factor: int) -> Dim:
    return SymInt(((tuple(atoms), factor),)) if atoms and factor else factor  # type: ignore[arg-type]


def depends(dim: Dim, name: str) -> bool:
    """Whether the symbol `name` occurs in `dim`."""
    if isinstance(dim, int):
        return False
    for monomial, _ in dim.terms:
        for atom in monomial:
            if isinstance(atom, Symbol):
                if atom.name == name:
                    return True
            elif depends(atom.numerator, name) or depends(atom.denominator, name):
                return True
    return False


def coefficient(dim: Dim, name: str) -> Dim | None:
    """The stride of `dim` in the symbol `name`; None where it is not affine in it."""
    total: Dim = 0
    for monomial, factor in terms_of(dim):
        others = []
        for a in monomial:
            if isinstance(a, (Quotient, Remainder)) and (
                depends(a.numerator, name) or depends(a.denominator, name)
            ):
                return None
            if not isinstance(a, Symbol) or a.name != name:
                others.append(a)
        if len(monomial) - len(others) > 1:
            return None
        if len(others) < len(monomial):
            total = total + product_of(others, factor)
    return total


def to_expr(dim: Dim, env: Mapping[str, Expr]) -> Expr:
    """`dim` as kernel arithmetic on the values `env` gives its symbols."""
    if isinstance(dim, int):
        return Const(dim)
    negative = [t for t in dim.terms if t[1] < 0]
    total: Expr | None = None
    for monomial, factor in [t for t in dim.terms if t[1] > 0]:
        term = _monomial_expr(monomial, factor, env)
        total = term if total is None else binary("add", total, term)
    for monomial, factor in negative:
        total = binary(
            "sub", Const(0) if total is None else total, _monomial_expr(monomial, -factor, env)
        )
    assert total is not None
    return total


def _division_expr(atom: Quotient | Remainder, env: Mapping[str, Expr]) -> Expr:
    """A quotient or remainder rounded down, by the kernel's operations, which round towards
    zero."""
    a, b = to_expr(atom.numerator, env), to_expr(atom.denominator, env)
    if bounds(atom.numerator)[0] >= 0:
        return binary("div" if isinstance(atom, Quotient) else "rem", a, b)
    rest = binary("rem", binary("add", binary("rem", a, b), b), b)
    return rest if isinstance(atom, Remainder) else binary("div", binary("sub", a, rest), b)


def _monomial_expr(monomial: Sequence[object], factor: int, env: Mapping[str, Expr]) -> Expr:
    product: Expr = Const(factor)
    for atom in monomial:
        if isinstance(atom, Symbol):
            value = env[atom.name]
        else:
            assert isinstance(atom, (Quotient, Remainder))
            value = _division_expr(atom, env)
        product = (
            value
            if isinstance(product, Const) and product.value == 1
            else binary("mul", product, value)
        )
    return product
