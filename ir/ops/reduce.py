"""Reductions, positions of extrema and running (cumulative) reductions; `size` reads a dimension.

`dims` are counted from the front, without repeats; no dims reduce nothing. Sums of f16 and bf16
accumulate in f32. An extremum over no elements is refused where that is known while recording;
where a symbolic size turns out to be 0 it is the lowest (max) or highest (min) value of the dtype,
at position 0.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, i64
from ..graph import Node, Type, Value
from ..op import CORE, Attrs, Kind, NoGradient, Op, Weight
from ..shape import Dim, bounds
from .batching import Mapped, Values, along, behind, whole
from .common import (
    BOOLEAN,
    FLOATING,
    INDEX,
    NUMERIC,
    ORDERED,
    REAL,
    REAL_FLOATING,
    TWICE,
    Domain,
    Expr,
    added,
    algebra,
    algebra_wide,
    cast_to,
    check_dims,
    check_domain,
    count,
    expand_to,
    fn,
    full,
    keep_dims,
    narrow,
    number,
    ops,
    quiet,
    reduced_shape,
    wide,
    wide_dtype,
    zeros_like,
)
from .common import conj as conjugate
from .elementwise import CONDITION

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "logsumexp",
    "max",
    "mean",
    "min",
    "prod",
    "size",
    "sum",
    "var",
]


@dataclass(frozen=True)
class Reduce(Attrs):
    dims: tuple[int, ...]
    keepdim: bool = False


@dataclass(frozen=True)
class Variance(Reduce):
    correction: float = 1.0


@dataclass(frozen=True)
class Position(Attrs):
    dim: int
    keepdim: bool = False


@dataclass(frozen=True)
class Along(Attrs):
    dim: int


# ------------------------------ factory


def check_not_empty(name: str, x: Type, dims: tuple[int, ...]) -> None:
    """Raise IndexError where an extremum has no elements to choose from."""
    for dim in dims:
        if x.rank and x.shape[dim] == 0:
            raise IndexError(
                f"{name}(): Expected reduction dim {dim} to have non-zero size, got {x}; "
                "reduce over another dim or give it elements"
            )


def reduction(
    name: str,
    doc: str,
    numpy: Callable[..., Any],
    rule: Any,
    domain: Domain,
    *,
    weight: Weight = Weight.PLAIN,
    attrs: type[Attrs] = Reduce,
    formula: Callable[..., Expr] | None = None,
    result: Callable[[DType], DType] = lambda dtype: dtype,
    not_empty: bool = False,
) -> Op:
    """A reduction over several dims.

    Args:
        numpy: the result from (attrs, array), with reduced axes kept as size 1; f16 and bf16 come
            as f32.
        rule: gradient from (attrs, g, x, y) on `Expr`s, g and y with reduced axes kept; it is
            broadcast to x afterwards.
        formula: of a composite: the result from (attrs, x) on `Expr`s, with reduced axes kept.
        not_empty: whether there is no result without elements.
    """

    def infer(a: Any, x: Type) -> tuple[Type, ...]:
        check_domain(name, x, domain)
        check_dims(a.dims, x.rank)
        if not_empty:
            check_not_empty(name, x, a.dims)
        return (Type(result(x.dtype), reduced_shape(x.shape, a.dims, a.keepdim)),)

    def vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
        x, a = node.operands[0], node.attrs
        kept = [keep_dims(v, x.shape, a.dims) for v in (g, node.result())]  # type: ignore[attr-defined]
        run = algebra if formula is None else algebra_wide
        return (expand_to(run(partial(rule, a), kept[0], x, kept[1]), x.shape),)

    def decompose(node: Node) -> tuple[Value, ...]:
        x, a = node.operands[0], node.attrs
        assert formula is not None
        kept = algebra(partial(formula, a), cast_to(x, wide_dtype(x.dtype)))
        kept = cast_to(kept, node.types[0].dtype)
        return (kept if a.keepdim else ops.reshape(kept, shape=node.types[0].shape),)  # type: ignore[attr-defined]

    @quiet
    def reference(a: Any, x: np.ndarray) -> np.ndarray:
        kept = narrow(numpy(_for_numpy(a, x), wide(x)), result(DType.of(x.dtype)))
        return kept.reshape(reduced_shape(x.shape, a.dims, a.keepdim))

    def plain(a: Any, x: np.ndarray) -> np.ndarray:
        kept = np.asarray(numpy(a if x.ndim else _for_numpy(a, x), x))
        return kept.reshape(reduced_shape(x.shape, a.dims, a.keepdim))

    stated = isinstance(rule, NoGradient)
    expand = CORE if formula is None else decompose
    return Op(
        name,
        doc,
        ("x",),
        infer,
        rule if stated else vjp,
        reference,
        attrs,
        expand,
        plain,
        kind=Kind.REDUCTION,
        weight=weight,
        batch=along("dims"),
    )


def _for_numpy(attrs: Any, x: np.ndarray) -> Any:
    """A 0-d array has no axis 0, though dim 0 may name it."""
    return attrs if x.ndim else replace(attrs, dims=())


def kept_by(function: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPy reduction on (attrs, x) that keeps reduced axes."""
    return lambda attrs, x: function(x, axis=attrs.dims, keepdims=True)


# ------------------------------ sums and products


def _sum_numpy(attrs: Reduce, x: np.ndarray) -> np.ndarray:
    return added(x, attrs.dims, keepdims=True)


def _prod_numpy(attrs: Reduce, x: np.ndarray) -> np.ndarray:
    return np.prod(x, axis=attrs.dims, keepdims=True, dtype=x.dtype)


def _shifted(x: Value, dim: int, steps: int, fill: float) -> Value:
    """x moved along `dim`, so that place k holds element k + steps; `fill` where there is none."""
    size, zero = x.shape[dim], (0,) * x.rank
    amount = tuple(builtins.abs(steps) if i == dim else 0 for i in range(x.rank))
    low, high = (zero, amount) if steps > 0 else (amount, zero)
    padded = ops.pad(x, low=low, high=high, value=fill)
    start = tuple(steps if i == dim and steps > 0 else 0 for i in range(x.rank))
    stop = tuple(start[i] + (size if i == dim else d) for i, d in enumerate(x.shape))
    return ops.slice(padded, start=start, stop=stop, step=(1,) * x.rank)


def _product_before(x: Value, dim: int) -> Value:
    """At each place the product of the elements before it."""
    return _shifted(ops.cumprod(x, dim=dim), dim, -1, 1.0)


def _product_of_others(x: Value, dim: int) -> Value:
    """At each place the product of all other elements, without dividing: right where some are
    zero."""
    after = ops.flip(_product_before(ops.flip(x, dims=(dim,)), dim), dims=(dim,))
    return ops.mul(_product_before(x, dim), after)


def _prod_rule(attrs: Reduce, g: Expr, x: Expr, y: Expr) -> Expr:
    value, dims = x.value, attrs.dims if x.value.rank else ()
    if len(dims) <= 1:
        return g * Expr(_product_of_others(value, dims[0])).conj if dims else g
    order = (*(i for i in range(value.rank) if i not in dims), *dims)
    moved = ops.permute(value, dims=order)
    kept = moved.shape[: value.rank - len(dims)]
    size: Dim = math.prod(moved.shape[len(kept) :])  # type: ignore[arg-type]
    others = _product_of_others(ops.reshape(moved, shape=(*kept, size)), len(kept))
    back = tuple(order.index(i) for i in range(value.rank))
    return g * Expr(ops.permute(ops.reshape(others, shape=moved.shape), dims=back)).conj


sum = reduction(
    "sum",
    "Sum over dims; 0 of no elements. Integers wrap.",
    _sum_numpy,
    lambda a, g, x, y: g,
    NUMERIC,
)
prod = reduction(
    "prod", "Product over dims; 1 of no elements. Integers wrap.", _prod_numpy, _prod_rule, NUMERIC
)


# ------------------------------ extrema, any, all


def _lowest(dtype: np.dtype) -> Any:
    return False if dtype.kind == "b" else -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _highest(dtype: np.dtype) -> Any:
    return True if dtype.kind == "b" else np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _extremum_rule(attrs: Reduce, g: Expr, x: Expr, y: Expr) -> Expr:
    """All elements equal to the result share the gradient, as torch.amax does."""
    ties = fn.cast(fn.eq(x, y), dtype=x.dtype)
    return ties * (g / fn.sum(ties, dims=attrs.dims, keepdim=True))


max = reduction(
    "max",
    "Largest element over dims; nan where there is one. Ties share the gradient.",
    lambda a, x: np.maximum.reduce(x, axis=a.dims, keepdims=True, initial=_lowest(x.dtype)),
    _extremum_rule,
    ORDERED,
    not_empty=True,
)
min = reduction(
    "min",
    "Smallest element over dims; nan where there is one. Ties share the gradient.",
    lambda a, x: np.minimum.reduce(x, axis=a.dims, keepdims=True, initial=_highest(x.dtype)),
    _extremum_rule,
    ORDERED,
    not_empty=True,
)
any = reduction(
    "any", "Whether one of the bools is true; false of none.", kept_by(np.any), CONDITION, BOOLEAN
)
all = reduction(
    "all", "Whether all bools are true; true of none.", kept_by(np.all), CONDITION, BOOLEAN
)


# ------------------------------ statistics


def _reduced(name: str, attrs: Any, x: Expr) -> Expr:
    return getattr(fn, name)(x, dims=attrs.dims, keepdim=True)


def _count(attrs: Any, x: Expr) -> Expr:
    return Expr(count(x.value, attrs.dims if x.value.rank else (), x.dtype))


def _freedom(attrs: Variance, x: Expr) -> Expr:
    """Number of elements less the correction, at least 0, in the real dtype of x."""
    dims, dtype = attrs.dims if x.value.rank else (), x.dtype.real
    known = [s for d in dims if isinstance(s := x.shape[d], int)]
    if len(known) == len(dims):
        return Expr(number(float(builtins.max(math.prod(known) - attrs.correction, 0)), dtype))
    return fn.maximum(Expr(count(x.value, dims, dtype)) - attrs.correction, 0.0)


def _var_numpy(attrs: Variance, x: np.ndarray) -> np.ndarray:
    apart = np.abs(x - _mean_numpy(attrs, x)) ** 2
    total = added(apart, attrs.dims, keepdims=True)
    size = math.prod(x.shape[d] for d in attrs.dims)
    return total / total.dtype.type(builtins.max(size - attrs.correction, 0))


def _var_formula(attrs: Variance, x: Expr) -> Expr:
    apart = x - _reduced("mean", attrs, x)
    squares = fn.real(apart * apart.conj) if x.dtype.is_complex else apart * apart
    return _reduced("sum", attrs, squares) / _freedom(attrs, x)


def _var_rule(attrs: Variance, g: Expr, x: Expr, y: Expr) -> Expr:
    scale = 2 * g / _freedom(attrs, x)
    return (fn.cast(scale, dtype=x.dtype) if x.dtype.is_complex else scale) * (
        x - _reduced("mean", attrs, x)
    )


def _mean_numpy(attrs: Reduce, x: np.ndarray) -> np.ndarray:
    return _sum_numpy(attrs, x) / x.dtype.type(math.prod(x.shape[d] for d in attrs.dims))


def _logsumexp_numpy(attrs: Reduce, x: np.ndarray) -> np.ndarray:
    peak = np.asarray(np.maximum.reduce(x, axis=attrs.dims, keepdims=True, initial=-np.inf))
    peak[np.isinf(peak)] = 0
    return np.log(np.add.reduce(np.exp(x - peak), axis=attrs.dims, keepdims=True)) + peak


def _logsumexp_formula(attrs: Reduce, x: Expr) -> Expr:
    """With the largest element taken out, so that exp cannot overflow; an infinite one stays in."""
    if builtins.any(d == 0 for i, d in enumerate(x.shape) if i in attrs.dims):
        return Expr(full(reduced_shape(x.shape, attrs.dims, True), -math.inf, x.dtype))
    peak = _reduced("max", attrs, x)
    peak = fn.where(fn.isinf(peak), 0, peak)
    return fn.log(_reduced("sum", attrs, fn.exp(x - peak))) + peak


mean = reduction(
    "mean",
    "Arithmetic mean over dims; nan of no elements.",
    _mean_numpy,
    lambda a, g, x, y: g / _count(a, x),
    FLOATING,
    formula=lambda a, x: _reduced("sum", a, x) / _count(a, x),
)
var = reduction(
    "var",
    "Sum of |x - mean| squared over dims, divided by max(0, count - correction).",
    _var_numpy,
    _var_rule,
    FLOATING,
    attrs=Variance,
    formula=_var_formula,
    result=lambda dtype: dtype.real,
)
logsumexp = reduction(
    "logsumexp",
    "log(sum(exp(x))) over dims without overflow; -inf of no elements.",
    _logsumexp_numpy,
    lambda a, g, x, y: g * fn.exp(x - y),
    REAL_FLOATING,
    formula=_logsumexp_formula,
    weight=Weight.SLOW,
)


# ------------------------------ positions

INTEGER_RESULT = NoGradient("the result is an integer")


def _position(name: str, doc: str, numpy: Callable[..., Any]) -> Op:
    """argmax or argmin: i64 position of the first extremum along one dim; nan counts as the
    extremum."""

    def infer(attrs: Position, x: Type) -> tuple[Type, ...]:
        check_domain(name, x, REAL)
        check_dims((attrs.dim,), x.rank)
        check_not_empty(name, x, (attrs.dim,))
        return (Type(INDEX, reduced_shape(x.shape, (attrs.dim,), attrs.keepdim)),)

    def reference(attrs: Position, x: np.ndarray) -> np.ndarray:
        shape = reduced_shape(x.shape, (attrs.dim,), attrs.keepdim)
        if x.size == 0 or x.ndim == 0:
            return np.zeros(shape, np.int64)
        return np.asarray(numpy(wide(x), axis=attrs.dim)).astype(np.int64).reshape(shape)

    return Op(
        name,
        doc,
        ("x",),
        infer,
        INTEGER_RESULT,
        reference,
        Position,
        kind=Kind.REDUCTION,
        weight=Weight.PLAIN,
        batch=along("dim"),
    )


argmax = _position(
    "argmax",
    "Position of the first largest element along dim, as i64; of the first nan if any.",
    np.argmax,
)
argmin = _position(
    "argmin",
    "Position of the first smallest element along dim, as i64; of the first nan if any.",
    np.argmin,
)


# ------------------------------ running reductions


def _along_infer(name: str, domain: Domain, attrs: Along, x: Type) -> None:
    check_domain(name, x, domain)
    check_dims((attrs.dim,), x.rank)


def _running(name: str, doc: str, numpy: Callable[..., Any], vjp: Callable[..., Any]) -> Op:
    """cumsum or cumprod; of f32, in twice the digits (as PyTorch on CPUs)."""

    def infer(attrs: Along, x: Type) -> tuple[Type, ...]:
        _along_infer(name, NUMERIC, attrs, x)
        return (x,)

    @quiet
    def reference(attrs: Along, x: np.ndarray) -> np.ndarray:
        w = wide(x)
        if not x.ndim:
            return x
        found = numpy(w, axis=attrs.dim, dtype=TWICE.get(w.dtype, w.dtype)).astype(w.dtype)
        return narrow(found, DType.of(x.dtype))

    return Op(
        name,
        doc,
        ("x",),
        infer,
        vjp,
        reference,
        Along,
        kind=Kind.WHOLE,
        weight=Weight.PLAIN,
        batch=along("dim"),
    )


def _cumsum_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    """Element k adds to every sum from k on: the running sum from the end."""
    if g.rank == 0:
        return (g,)
    dims = (node.attrs.dim,)  # type: ignore[attr-defined]
    return (ops.flip(ops.cumsum(ops.flip(g, dims=dims), dim=dims[0]), dims=dims),)


def _cumprod_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    """Gradient k is p[k] * s[k], p the product before k and s[k] = g[k] + x[k + 1] * s[k + 1].

    The recurrence is solved in log2(n) doublings, s[k] = b[k] + a[k] * s[k + d]: no division, so
    zeros are right in every derivative (dividing by x, as usual, is not).
    """
    x, dim = conjugate(node.operands[0]), node.attrs.dim  # type: ignore[attr-defined]
    if x.rank == 0:
        return (g,)
    a, b, step = _shifted(x, dim, 1, 0.0), g, 1
    while step < bounds(x.shape[dim])[1]:
        b = ops.add(b, ops.mul(a, _shifted(b, dim, step, 0.0)))
        a, step = ops.mul(a, _shifted(a, dim, step, 0.0)), step * 2
    return (ops.mul(_product_before(x, dim), b),)


def _running_extremum(name: str, doc: str, beats: Callable[..., Any]) -> Op:
    """cummax or cummin: values and their i64 positions."""

    def infer(attrs: Along, x: Type) -> tuple[Type, ...]:
        _along_infer(name, ORDERED, attrs, x)
        return (x, x.with_dtype(i64))

    def vjp(node: Node, g: Value | None, unused: Value | None) -> tuple[Value | None, ...]:
        (x,) = node.operands
        if g is None or x.rank == 0:
            return (g,)
        dim = node.attrs.dim  # type: ignore[attr-defined]
        return (ops.scatter_add(zeros_like(x), node.result(1), g, dim=dim),)

    @quiet
    def reference(attrs: Along, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, places = np.array(x), np.zeros(x.shape, np.int64)
        if x.ndim == 0:
            return values, places
        row, place = np.moveaxis(values, attrs.dim, 0), np.moveaxis(places, attrs.dim, 0)
        for k in range(1, len(row)):
            wins = np.isnan(wide(row[k])) | (
                ~np.isnan(wide(row[k - 1])) & beats(row[k], row[k - 1])
            )
            row[k], place[k] = np.where(wins, row[k], row[k - 1]), np.where(wins, k, place[k - 1])
        return values, places

    return Op(
        name,
        doc,
        ("x",),
        infer,
        vjp,
        reference,
        Along,
        kind=Kind.WHOLE,
        weight=Weight.PLAIN,
        batch=along("dim"),
    )


cumsum = _running("cumsum", "Sums of the elements along dim up to each.", np.cumsum, _cumsum_vjp)
cumprod = _running(
    "cumprod", "Products of the elements along dim up to each.", np.cumprod, _cumprod_vjp
)
cummax = _running_extremum(
    "cummax",
    "Largest element along dim up to each, and its position (the last of ties).",
    np.greater_equal,
)
cummin = _running_extremum(
    "cummin",
    "Smallest element along dim up to each, and its position (the last of ties).",
    np.less_equal,
)


# ------------------------------ sizes


def _size_infer(attrs: Along, x: Type) -> tuple[Type, ...]:
    check_dims((attrs.dim,), x.rank)
    if x.rank == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return (Type(i64),)


def _size_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    return (whole(ops.size.node(values, behind(node.attrs, "dim")).result(), False, size),)


size = Op(
    "size",
    "The size of x along dim, as i64[]: a symbolic size as a value.",
    ("x",),
    _size_infer,
    NoGradient("depends on the shape, not on the elements"),
    lambda attrs, x: np.asarray(x.shape[attrs.dim], np.int64),
    Along,
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=_size_batch,
)
