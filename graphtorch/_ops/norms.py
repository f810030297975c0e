"""Norms of vectors, and what is built on them."""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import wide_dtype

from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps, keeps_as_one, shown_as
from .base import (
    FUNCTIONS,
    axis_of,
    cast_value,
    check_tensor,
    dims_of,
    register,
    rounded_once,
    run,
    scalar,
    write_out,
)
from .factor import svdvals
from .orders import row_major
from .reduce import _mean_dtype, check_keepdim


@keeps("LinalgVectorNorm", (0, ~0))
def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The p-norm over `dim` (all by default); `ord` may be inf, -inf and 0."""
    check_keepdim("linalg_vector_norm", keepdim)
    target = _mean_dtype("linalg.vector_norm", x, dtype)
    x = x if x._type.dtype is target else x.to(dtype)
    dims = dims_of(dim, x.ndim)
    keep = {"dims": dims, "keepdim": bool(keepdim)}
    if isinstance(ord, str):
        raise TypeError("linalg_vector_norm(): argument 'ord' must be Number, not str")
    order = float(ord)
    if (order < 0 or math.isinf(order)) and 0 in [x._type.shape[d] for d in dims]:
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {order:g} norm on an empty tensor because the "
            "operation does not have an identity"
        )

    def apply(v: Value) -> Value:  # of 16 bits the squares and sums would overflow
        found = of(cast_value(v, wide_dtype(target)))
        return found if target.is_complex else cast_value(found, target)

    def of(v: Value) -> Value:
        if order == 2:
            size = ops.square(v) if not v.dtype.is_complex else ops.square(ops.abs(v))
            return _safe_sqrt(ops.sum(size, **keep))
        size = ops.abs(v)
        if math.isinf(order):
            return (ops.max if order > 0 else ops.min)(size, **keep)
        if order == 0:
            zero = scalar(0, size.dtype)
            return ops.sum(ops.cast(ops.ne(size, zero), dtype=size.dtype), **keep)
        if order == 1:
            return ops.sum(size, **keep)
        return _power_norm(size, order, keep)

    return run("LinalgVectorNorm", apply, x)


def _power_norm(size: Value, order: float, keep: dict[str, Any]) -> Value:
    """sum(size ** order) ** (1 / order), with gradient 0 where the norm is 0 and for elements that
    are 0."""
    zero, one = scalar(0, size.dtype), scalar(1, size.dtype)
    exponent, inverse = scalar(order, size.dtype), scalar(1 / order, size.dtype)
    if order < 1:
        nothing = ops.eq(size, zero)
        powers = ops.pow(ops.where(nothing, one, size), exponent)
        powers = ops.where(nothing, zero if order > 0 else scalar(math.inf, size.dtype), powers)
    else:
        powers = ops.pow(size, exponent)
    total = ops.sum(powers, **keep)
    vanishes = ops.eq(total, zero if order > 0 else scalar(math.inf, size.dtype))
    return ops.where(vanishes, zero, ops.pow(ops.where(vanishes, one, total), inverse))  # type: ignore[no-any-return]


def _safe_sqrt(v: Value) -> Value:
    """The square root, with gradient 0 at 0: the norm of a zero vector has subgradient 0."""
    zero, one = scalar(0, v.dtype), scalar(1, v.dtype)
    nothing = ops.eq(v, zero)
    return ops.where(nothing, zero, ops.sqrt(ops.where(nothing, one, v)))


@register()
def norm(
    input: Tensor,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    out: Any = None,
    dtype: Any = None,
) -> Tensor:
    """The p-norm of all elements or over `dim` (deprecated in favour of torch.linalg)."""
    check_tensor("norm", "input", input)
    if p == "nuc":
        result = _nuclear(input if dtype is None else input.to(dtype), dim, keepdim)
    elif isinstance(p, str) and p != "fro":
        raise RuntimeError(f"only valid for 'fro' and 'nuc', not {p!r}")
    else:
        result = vector_norm(input, 2 if p == "fro" or p is None else p, dim, keepdim, dtype=dtype)
    return result if out is None else write_out("norm", result, out)


def _nuclear(x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """The sum of the singular values of the matrices in two dimensions."""
    if dim is None and x.ndim != 2:
        raise RuntimeError(
            f"norm: p='nuc' is of matrices: give two dims for a tensor of shape {list(x.shape)}"
        )
    row, column = (axis_of(d, x.ndim) for d in ((0, 1) if dim is None else dim))
    found = svdvals(x.movedim((row, column), (-2, -1))).sum(-1)
    low, high = sorted((row, column))
    return found.unsqueeze(low).unsqueeze(high) if keepdim else found


@register()
@keeps_as_one("input other result")
@rounded_once
def dist(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The p-norm of the difference."""
    return norm(input - other, p)


@register(inplace=True)
@shown_as("Renorm")
@row_major
@rounded_once
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Each slice along `dim` scaled so that its p-norm is at most `maxnorm`."""
    if not p > 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input.ndim < 2:
        raise RuntimeError(
            f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions"
        )
    axis = axis_of(dim, input.ndim)
    rest = [i for i in range(input.ndim) if i != axis]
    size = vector_norm(input, p, rest, True)
    factor = FUNCTIONS["where"](size > maxnorm, maxnorm / (size + 1e-7), 1.0)
    return input * factor
