"""What the op families share: numbers as values, algebra on values, type checks, NumPy precision.

Gradient rules refer to each other in circles (`sum` needs `expand`, `expand` needs `sum`), so
families never import one another. They reach ops through `ops`, which looks a name up when a rule
runs.

Rules are written as algebra: `Expr` wraps a value so that ``g * y * (1 - y)`` makes nodes, and `fn`
applies any op to wrapped values and Python numbers, ``fn.where(x > 0, g, 0)``. A number takes the
dtype of the values beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, Union

import numpy as np

from ..dataclass import dataclass
from ..dtype import SCALAR_NAMES, DType, Kind, boolean, f32, i64
from ..graph import Type, Value, located
from ..literal import Literal
from ..op import OPS, Op
from ..shape import Dim, Shape, normalize_axis, numel

# ------------------------------ ops by name


class OpTable:
    """Every registered op as an attribute: ``ops.mul(a, b)``."""

    def __getattr__(self, name: str) -> Op:
        op = OPS.get(name)
        if op is None:
            raise AttributeError(f"no op is called {name!r}")
        setattr(self, name, op)  # found without __getattr__ from now on
        return op


ops = OpTable()

Number: TypeAlias = Union[bool, int, float, complex]


# ------------------------------ numbers, shapes


def number(value: Number, dtype: DType) -> Value:
    """A 0-d constant; it broadcasts against anything. Equal numbers are the same value."""
    negative_zero = isinstance(value, float) and value == 0 and math.copysign(1, value) < 0
    return _number(value, dtype, negative_zero)


@lru_cache(maxsize=1024, typed=True)
def _number(value: Number, dtype: DType, negative_zero: bool) -> Value:
    with located(None):  # shared by whoever needs this number
        return ops.constant(value=Literal.of(value, dtype))


def full(shape: Shape, value: Number, dtype: DType) -> Value:
    """`value` repeated to `shape`."""
    scalar = number(value, dtype)
    return ops.expand(scalar, shape=tuple(shape)) if shape else scalar


def zeros(type: Type) -> Value:
    """Zeros of a type."""
    return full(type.shape, 0, type.dtype)


def zeros_like(x: Value) -> Value:
    """Zeros of the type of `x`."""
    return zeros(x.type)


def sum_to(value: Value, shape: Shape) -> Value:
    """Undo broadcasting: the sum of `value` over the axes along which `shape` was repeated to its
    shape."""
    if value.shape == tuple(shape):
        return value
    extra = value.rank - len(shape)
    dims = tuple(
        i for i, d in enumerate(value.shape) if i < extra or (shape[i - extra] == 1 and d != 1)
    )
    if dims:
        value = ops.sum(value, dims=dims, keepdim=True)
    return value if value.shape == tuple(shape) else ops.reshape(value, shape=tuple(shape))


def expand_to(value: Value, shape: Shape) -> Value:
    """`value` broadcast to `shape`; itself where it has that shape."""
    return value if value.shape == tuple(shape) else ops.expand(value, shape=tuple(shape))


def cast_to(value: Value, dtype: DType) -> Value:
    """`value` as `dtype`; itself where it is."""
    return value if value.dtype is dtype else ops.cast(value, dtype=dtype)


def kept_shape(shape: Shape, dims: Sequence[int]) -> Shape:
    """`shape` with the sizes at `dims` replaced by 1."""
    return tuple(1 if i in dims else d for i, d in enumerate(shape))


def reduced_shape(shape: Shape, dims: Sequence[int], keepdim: bool) -> Shape:
    """The shape that a reduction of `shape` over `dims` has."""
    return (
        kept_shape(shape, dims)
        if keepdim
        else tuple(d for i, d in enumerate(shape) if i not in dims)
    )


def keep_dims(value: Value, shape: Shape, dims: Sequence[int]) -> Value:
    """The result of a reduction of `shape` over `dims`, with the reduced axes as size 1."""
    kept = kept_shape(shape, dims)
    return value if value.shape == kept else ops.reshape(value, shape=kept)


def count(x: Value, dims: Sequence[int], dtype: DType) -> Value:
    """The number of elements of `x` along `dims`, 0-d, of `dtype`; symbolic sizes are read at run
    time."""
    known: Dim = numel(tuple(d for i, d in enumerate(x.shape) if i in dims and isinstance(d, int)))
    assert isinstance(known, int)
    total = number(known, dtype)
    for dim in dims:
        if not isinstance(x.shape[dim], int):
            size = ops.cast(ops.size(x, dim=dim), dtype=dtype)
            total = ops.mul(total, size)
    return total


def swap_last(value: Value) -> Value:
    """`value` with its last two axes exchanged."""
    rank = value.rank
    return ops.permute(value, dims=(*range(rank - 2), rank - 1, rank - 2))


def conj(value: Value) -> Value:
    """The complex conjugate; a real value is its own."""
    return ops.conj(value) if value.dtype.is_complex else value


# ------------------------------ algebra on values


class Expr:
    """A value with operators. The right-hand side may be a Python number."""

    __slots__ = ("value",)

    def __init__(self, value: Value):
        self.value = value

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @property
    def shape(self) -> Shape:
        return self.value.shape

    @property
    def conj(self) -> Expr:
        """The complex conjugate; a real value is its own."""
        return Expr(conj(self.value))

    def __add__(self, other: Operand) -> Expr:
        return _apply("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return _apply("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return _apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return _apply("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return _apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return _apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return _apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return _apply("div", other, self)

    def __neg__(self) -> Expr:
        return _apply("neg", self)

    def __lt__(self, other: Operand) -> Expr:
        return _apply("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return _apply("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return _apply("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return _apply("ge", self, other)

    def __and__(self, other: Operand) -> Expr:
        return _apply("logical_and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return _apply("logical_or", self, other)

    def __invert__(self) -> Expr:
        return _apply("logical_not", self)


Operand: TypeAlias = Union[Expr, bool, int, float, complex]
Rule: TypeAlias = Callable[..., Any]


def _apply(name: str, *operands: Operand, **attrs: Any) -> Expr:
    values = [o.value for o in operands if isinstance(o, Expr)]
    if len(values) < len(operands):
        dtype = _dtype_beside(values)
        values = [o.value if isinstance(o, Expr) else number(o, dtype) for o in operands]
    return Expr(getattr(ops, name)(*values, **attrs))


def _dtype_beside(values: Sequence[Value]) -> DType:
    """The dtype a number takes: of the first value that is not a condition."""
    return next((v.dtype for v in values if v.dtype is not boolean), boolean)


class Functions:
    """Any op with one result, on `Expr`s and numbers: ``fn.exp(x)``, ``fn.where(x > 0, g, 0)``."""

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        def apply(*operands: Operand, **attrs: Any) -> Expr:
            return _apply(name, *operands, **attrs)

        setattr(self, name, apply)
        return apply


fn = Functions()


def algebra(rule: Rule, *values: Value) -> Any:
    """Run a rule written on `Expr`s: its value, or a tuple of values; None stays None."""
    result = rule(*[Expr(v) for v in values])
    if isinstance(result, tuple):
        return tuple(r.value if isinstance(r, Expr) else r for r in result)
    return result.value


def algebra_wide(rule: Rule, *values: Value) -> Any:
    """`algebra` with f16 and bf16 operands as f32: one rounding at the end, to the first operand's
    dtype.

    A value that the rule passes on is passed on as it was.
    """
    dtype = values[0].dtype
    if wide_dtype(dtype) is dtype:
        return algebra(rule, *values)
    wide_values = [cast_to(v, wide_dtype(v.dtype)) for v in values]
    given = dict(zip(wide_values, values, strict=True))

    def rounded(value: Value | None) -> Value | None:
        return value if value is None else given.get(value) or cast_to(value, dtype)

    result = algebra(rule, *wide_values)
    return tuple([rounded(v) for v in result]) if isinstance(result, tuple) else rounded(result)


# ------------------------------ type checks


@dataclass(frozen=True)
class Domain:
    """A set of dtypes that an op takes, with the words for its error message."""

    words: str
    kinds: frozenset[Kind]

    def __contains__(self, dtype: DType) -> bool:
        return dtype.kind in self.kinds


def _domain(words: str, *kinds: Kind) -> Domain:
    return Domain(words, frozenset(kinds))


ANY = _domain("a", *Kind)
NUMERIC = _domain("an integer, floating-point or complex", Kind.INT, Kind.FLOAT, Kind.COMPLEX)
REAL = _domain("an integer or floating-point", Kind.INT, Kind.FLOAT)
ORDERED = _domain("a bool, integer or floating-point", Kind.BOOL, Kind.INT, Kind.FLOAT)
FLOATING = _domain("a floating-point or complex", Kind.FLOAT, Kind.COMPLEX)
REAL_FLOATING = _domain("a floating-point", Kind.FLOAT)
COMPLEX = _domain("a complex", Kind.COMPLEX)
BITS = _domain("an integer or bool", Kind.BOOL, Kind.INT)
INTEGER = _domain("an integer", Kind.INT)
BOOLEAN = _domain("a bool", Kind.BOOL)


def check_domain(name: str, type: Type, domain: Domain, hint: str = "") -> None:
    """Raise NotImplementedError, as PyTorch does, where `name` does not take the dtype of
    `type`."""
    if type.dtype not in domain:
        raise NotImplementedError(
            f"\"{name}\" not implemented for '{SCALAR_NAMES[type.dtype]}': "
            f"expected {domain.words} tensor, got {type}; {hint or 'convert it with .to(dtype)'}"
        )


def check_same_dtype(name: str, *types: Type) -> DType:
    """The one dtype of `types`; RuntimeError where they differ (the front end promotes before it
    records)."""
    first = types[0].dtype
    for other in types[1:]:
        if other.dtype is not first:
            raise RuntimeError(
                f"{name}: expected operands of the same dtype, got "
                f"{' and '.join(map(str, types))}; convert one of them with .to(dtype)"
            )
    return first


def check_dims(dims: Sequence[int], rank: int) -> None:
    """Axes of a tensor, counted from the front: IndexError out of range, RuntimeError where
    repeated."""
    seen: set[int] = set()
    for dim in dims:
        if normalize_axis(dim, rank) in seen:
            raise RuntimeError(
                f"dim {dim} appears multiple times in the list of dims {tuple(dims)}"
            )
        seen.add(normalize_axis(dim, rank))
        if dim < 0:
            raise IndexError(
                f"dim {dim} is negative: attributes of a recorded op count from the front"
            )


# ------------------------------ NumPy references


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with NumPy's floating-point warnings off: inf and nan are results here.

    Where they are off anyway, `Op` takes the function itself from `plain`.
    """

    def run(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    run.plain = function  # type: ignore[attr-defined]
    return run


def wide(array: np.ndarray) -> np.ndarray:
    """f16 and bf16 as f32; anything else as it is."""
    if array.itemsize != 2:
        return array
    return (
        array.astype(np.float32)
        if DType.of(array.dtype).name in ("f16", "bf16")
        else np.asarray(array)
    )


def narrow(result: Any, dtype: DType) -> np.ndarray:
    """A NumPy result (perhaps a scalar) as an array of `dtype`."""
    return np.asarray(result).astype(dtype.numpy, copy=False)


MANY = 128  # numbers that may be added one after the other
TWICE: dict[np.dtype, Any] = {
    np.dtype(np.float32): np.float64,
    np.dtype(np.complex64): np.complex128,
}


def added(x: np.ndarray, axis: tuple[int, ...], keepdims: bool = False) -> Any:
    """The sum over `axis` in the dtype of `x`. NumPy adds pairs of pairs along neighbours in memory
    only; many numbers that it would add one after the other are added in twice the digits."""
    strides = {abs(s): i for i, s in enumerate(x.strides) if x.shape[i] > 1}
    count = math.prod([x.shape[i] for i in axis])
    dtype = x.dtype
    if count > MANY and dtype in TWICE and strides[min(strides)] not in axis:
        return x.sum(axis=axis, dtype=TWICE[dtype], keepdims=keepdims).astype(dtype)
    return x.sum(axis=axis, dtype=dtype, keepdims=keepdims)


def wide_dtype(dtype: DType) -> DType:
    """The dtype in which f16 and bf16 are computed: f32; any other is its own."""
    return f32 if dtype.is_floating_point and dtype.itemsize == 2 else dtype


INDEX = i64  # dtype of indices and sizes
