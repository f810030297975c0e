"""Reductions, cumulative operations, order statistics and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, boolean, i64
from graphtorch.ir.graph import Value

from .._autocast import single_precision
from .._types import DTYPES, Size, to_ir
from ..return_types import define
from ..tensor import Tensor
from .base import (
    FUNCTIONS,
    axis_of,
    cast_value,
    check_tensor,
    dims_of,
    floating,
    register,
    run,
    scalar,
    write_out,
)
from .pointwise import maximum, minimum

# ------------------------------------------------------------------------------------------ sums


def _reduction(
    name: str, op: Callable[..., Value], x: Tensor, dim: Any, keepdim: bool, dtype: DType
) -> Tensor:
    dims = dims_of(dim, x.ndim)
    return run(name, lambda v: op(cast_value(v, dtype), dims=dims, keepdim=bool(keepdim)), x)


def _sum_dtype(x: Tensor, dtype: Any) -> DType:
    if dtype is not None:
        return to_ir(dtype)
    own = x._type.dtype
    return own if own.is_differentiable else i64


@register(out=True)
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over all elements, or over `dim`. Integers and bools add up in int64."""
    check_tensor("sum", "input", input)
    return _reduction("Sum", ops.sum, input, dim, keepdim, _sum_dtype(input, dtype))


@register(out=True)
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum, NaN counted as 0."""
    return sum(
        FUNCTIONS["where"](FUNCTIONS["isnan"](input), 0.0, input) if input.dtype.is_floating_point else input,
        dim,
        keepdim,
        dtype=dtype,
    )


def _mean_dtype(name: str, x: Tensor, dtype: Any) -> DType:
    found = x._type.dtype if dtype is None else to_ir(dtype)
    if not found.is_differentiable:
        raise RuntimeError(
            f"{name}(): could not infer output dtype. Input dtype must be either a floating point or complex "
            f"dtype. Got: {found.torch_name.capitalize()}"
        )
    return found


@register(out=True)
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean of floating-point or complex elements."""
    check_tensor("mean", "input", input)
    return _reduction("Mean", ops.mean, input, dim, keepdim, _mean_dtype("mean", input, dtype))


@register(out=True)
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean of the elements that are not NaN."""
    known = FUNCTIONS["isnan"](input).logical_not()
    return nansum(input, dim, keepdim, dtype=dtype) / sum(known, dim, keepdim)


@register(out=True)
@single_precision
def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over all elements, or over one `dim`."""
    check_tensor("prod", "input", input)
    return _reduction("Prod", ops.prod, input, dim, keepdim, _sum_dtype(input, dtype))


def _truth(name: str, op: Callable[..., Value]) -> Callable[..., Tensor]:
    def define(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        check_tensor(name, "input", input)
        result = _reduction(name, op, input, dim, keepdim, boolean)
        return result.to(input.dtype) if input._type.dtype.name == "u8" else result

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, out=True)(define)


all = _truth("all", ops.all)
any = _truth("any", ops.any)


@register()
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not zero."""
    return sum(FUNCTIONS["ne"](input, 0), dim)


# ------------------------------------------------------------------------------------------ spread


def _correction(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, float]:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None:
        correction = 1 if unbiased else 0
    return dim, float(1 if correction is None else correction)


@register(out=True)
def var(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """The variance; `correction` is subtracted from the count (1 by default)."""
    check_tensor("var", "input", input)
    dim, ddof = _correction(dim, unbiased, correction)
    dtype = _mean_dtype("var", input, None)
    if dtype.is_complex:
        return var(FUNCTIONS["real"](input), dim, None, keepdim, correction=ddof) + var(
            FUNCTIONS["imag"](input), dim, None, keepdim, correction=ddof
        )
    dims = dims_of(dim, input.ndim)
    return run("Var", ops.var, input, **{"dims": dims, "keepdim": bool(keepdim), "correction": ddof})


@register(out=True)
def std(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """The standard deviation; see `var`."""
    check_tensor("std", "input", input)
    return FUNCTIONS["sqrt"](var(input, dim, unbiased, keepdim, correction=correction))


@register()
def var_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """Variance and mean."""
    found = var(input, dim, unbiased, keepdim, correction=correction)
    return found, mean(input, None if isinstance(dim, bool) else dim, keepdim)


@register()
def std_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """Standard deviation and mean."""
    found = std(input, dim, unbiased, keepdim, correction=correction)
    return found, mean(input, None if isinstance(dim, bool) else dim, keepdim)


@register(out=True)
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, without overflow."""
    check_tensor("logsumexp", "input", input)
    return _reduction("Logsumexp", ops.logsumexp, input, dim, keepdim, floating(input._type.dtype))


# ------------------------------------------------------------------------------------------ extrema

_AMINMAX = define("aminmax", ("min", "max"))
_RESULTS: dict[str, Any] = {
    name: define(name, ("values", "indices"))
    for name in ("max", "min", "sort", "topk", "cummax", "cummin", "median", "mode", "kthvalue", "nanmedian")
}


def pair(name: str, values: Tensor, indices: Tensor) -> Any:
    """(values, indices) as PyTorch's named tuple of an operation."""
    return _RESULTS[name](values, indices)


def _check_not_empty(name: str, x: Tensor) -> None:
    if isinstance(x.numel(), int) and x.numel() == 0:
        error = IndexError if name.startswith("arg") else RuntimeError
        raise error(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction "
            "dim with the 'dim' argument."
        )


def _extreme(
    name: str, amount: Callable[..., Value], arg: Callable[..., Value], both: Callable[..., Tensor]
) -> Callable[..., Any]:
    def define(
        input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None
    ) -> Any:
        check_tensor(name, "input", input)
        if isinstance(dim, Tensor) or other is not None:
            result: Any = both(input, dim if isinstance(dim, Tensor) else other)
        elif dim is None:
            _check_not_empty(name, input)
            result = _amount(name.capitalize(), amount, input, None, False)
        else:
            axis = axis_of(dim, input.ndim)
            _check_size(name, input, axis)
            index = _arg(name, arg, input, axis, keepdim)
            result = pair(name, _pick(name.capitalize(), input, index, axis, keepdim), index)
        return result if out is None else write_out(name, result, out)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = (
        f"The {name}imum of all elements; with `dim`, (values, indices); with a tensor, elementwise."
    )
    return register(name)(define)


def _check_size(name: str, x: Tensor, axis: int) -> None:
    if x.ndim and isinstance(x._type.shape[axis], int) and x._type.shape[axis] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")


def _amount(node: str, op: Callable[..., Value], x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    dtype = x._type.dtype
    if dtype.is_complex:
        raise RuntimeError(f"{node.lower()}(): does not support complex inputs")
    if dtype.is_bool:
        return _reduction(node, ops.any if op is ops.max else ops.all, x, dim, keepdim, boolean)
    return _reduction(node, op, x, dim, keepdim, dtype)


def _arg(name: str, op: Callable[..., Value], x: Tensor, axis: int, keepdim: bool) -> Tensor:
    if x.ndim == 0:
        return FUNCTIONS["zeros_like"](x, dtype=_long())
    dtype = x._type.dtype
    wide = i64 if dtype.is_bool else dtype
    return run(name, lambda v: op(cast_value(v, wide), dim=axis, keepdim=bool(keepdim)), x)


def _long() -> Any:
    return DTYPES["int64"]


def _pick(node: str, x: Tensor, index: Tensor, axis: int, keepdim: bool) -> Tensor:
    """The elements of `x` at an index along one axis that a reduction returned."""
    if x.ndim == 0:
        return run(node, lambda v: ops.reshape(v, shape=()), x)
    shape = x._type.shape
    kept = tuple(1 if i == axis else d for i, d in enumerate(shape))
    final = kept if keepdim else tuple(d for i, d in enumerate(shape) if i != axis)

    def apply(v: Value, i: Value) -> Value:
        return ops.reshape(ops.gather(v, ops.reshape(i, shape=kept), dim=axis), shape=final)

    return run(node, apply, x, index)


max = _extreme("max", ops.max, ops.argmax, maximum)
min = _extreme("min", ops.min, ops.argmin, minimum)


def _multi_extreme(name: str, op: Callable[..., Value]) -> Callable[..., Tensor]:
    def define(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        check_tensor(name, "input", input)
        if dim == () or dim is None:
            _check_not_empty(name, input)
        for axis in dims_of(dim, input.ndim):
            _check_size(name, input, axis)
        return _amount(name.capitalize(), op, input, dim, keepdim)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, out=True)(define)


amax, amin = _multi_extreme("amax", ops.max), _multi_extreme("amin", ops.min)


@register()
def aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest and the largest element."""
    kind = _AMINMAX
    if dim is None:
        low, high = amin(input), amax(input)
        kept = (1,) * input.ndim
        return kind(low.reshape(kept), high.reshape(kept)) if keepdim else kind(low, high)
    return kind(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _arg_extreme(name: str, op: Callable[..., Value]) -> Callable[..., Tensor]:
    def define(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        check_tensor(name, "input", input)
        if dim is None:
            _check_not_empty(name, input)
            found = _arg(name, op, input.reshape(-1), 0, False)
            return found.reshape((1,) * input.ndim) if keepdim else found
        axis = axis_of(dim, input.ndim)
        _check_size(name, input, axis)
        return _arg(name, op, input, axis, keepdim)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, out=True)(define)


argmax, argmin = _arg_extreme("argmax", ops.argmax), _arg_extreme("argmin", ops.argmin)


# ------------------------------------------------------------------------------------------ order


@register()
def sort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None
) -> Any:
    """(values, indices) in ascending or descending order along `dim`; stable."""
    check_tensor("sort", "input", input)
    axis = axis_of(dim, input.ndim)
    if input.ndim == 0:
        result = pair("sort", input.clone(), FUNCTIONS["zeros_like"](input, dtype=_long()))
    else:
        dtype = input._type.dtype
        wide = DType.named("u8") if dtype.is_bool else dtype
        values, indices = run(
            "Sort", lambda v: ops.sort(cast_value(v, wide), dim=axis, descending=bool(descending)), input
        )
        result = pair("sort", values.to(input.dtype), indices)
    return result if out is None else write_out("sort", result, out)


@register()
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort `input` along `dim`."""
    return sort(input, dim, descending, stable)[1]


@register()
def msort(input: Tensor) -> Tensor:
    """Sorted along the first dimension."""
    return sort(input, 0)[0]


@register()
def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, out: Any = None
) -> Any:
    """(values, indices) of the k largest (or smallest) elements along `dim`."""
    check_tensor("topk", "input", input)
    axis = axis_of(dim, input.ndim)
    size = input._type.shape[axis] if input.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(f"selected index k out of range: k is {k}, dimension {dim} has size {size}")
    if input.ndim == 0:
        result = pair("topk", input.clone(), FUNCTIONS["zeros_like"](input, dtype=_long()))
    else:
        result = pair(
            "topk", *run("Topk", ops.topk, input, **{"k": k, "dim": axis, "largest": bool(largest)})
        )
    return result if out is None else write_out("topk", result, out)


@register()
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(value, index) of the k-th smallest element along `dim`; k counts from 1."""
    axis = axis_of(dim, input.ndim)
    size = input._type.shape[axis] if input.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}")
    index = argsort(input, axis)
    chosen = index.select(axis, k - 1) if input.ndim else index
    if keepdim and input.ndim:
        chosen = chosen.unsqueeze(axis)
    return pair("kthvalue", _pick("Kthvalue", input, chosen, axis, keepdim), chosen)


@register()
def median(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along `dim`; NaN if there is one."""
    if dim is None:
        flat = input.reshape(-1)
        return (
            _median(flat, 0, False)[0]
            if input.numel()
            else FUNCTIONS["full"]((), float("nan"), dtype=input.dtype)
        )
    return pair("median", *_median(input, axis_of(dim, input.ndim), keepdim))


def _median(x: Tensor, axis: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    index = argsort(x, axis)
    if x.ndim == 0:
        return x.clone(), index
    size = x._type.shape[axis]
    middle = index.select(axis, (size - 1) // 2)
    if x._type.dtype.is_floating_point:  # NaN sorts last: the median of data with NaN is NaN
        last = index.select(axis, size - 1)
        is_nan = FUNCTIONS["isnan"](x.gather(axis, last.unsqueeze(axis)).squeeze(axis))
        middle = FUNCTIONS["where"](is_nan, last, middle)
    middle = middle.unsqueeze(axis) if keepdim else middle
    return _pick("Median", x, middle, axis, keepdim), middle


@register(out=True)
@single_precision
def quantile(
    input: Tensor, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """Quantiles `q` in 0..1 by interpolation between neighbours."""
    shape = input.ndim
    x, axis = (input.reshape(-1), 0) if dim is None else (input, axis_of(dim, input.ndim))
    ordered = sort(x, axis)[0]
    size = ordered._type.shape[axis]
    results = [
        _quantile(ordered, axis, size, one, interpolation)
        for one in (q.tolist() if isinstance(q, Tensor) and q.ndim else [float(q)])
    ]
    if keepdim:
        results = [r.reshape((1,) * shape) if dim is None else r.unsqueeze(axis) for r in results]
    return FUNCTIONS["stack"](results) if isinstance(q, Tensor) and q.ndim else results[0]


def _quantile(ordered: Tensor, axis: int, size: int, q: float, interpolation: str) -> Tensor:
    if not 0 <= q <= 1:
        raise RuntimeError("quantile() q values must be in the range [0, 1]")
    place = q * (size - 1)
    low, high = ordered.select(axis, math.floor(place)), ordered.select(axis, math.ceil(place))
    weight = {
        "linear": place - math.floor(place),
        "lower": 0.0,
        "higher": 1.0,
        "midpoint": 0.5,
        "nearest": float(round(place) - math.floor(place)),
    }[interpolation]
    return FUNCTIONS["lerp"](low, high, weight)


# ------------------------------------------------------------------------------------------ cumulative


def _cumulative(name: str, op: Callable[..., Value]) -> Callable[..., Tensor]:
    def define(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        check_tensor(name, "input", input)
        axis = axis_of(dim, input.ndim)
        target = _sum_dtype(input, dtype)
        if input.ndim == 0:
            return run(name.capitalize(), lambda v: ops.reshape(cast_value(v, target), shape=()), input)
        return run(name.capitalize(), lambda v: op(cast_value(v, target), dim=axis), input)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, inplace=True, out=True)(define)


cumsum, cumprod = _cumulative("cumsum", ops.cumsum), _cumulative("cumprod", ops.cumprod)


def _cumulative_extreme(name: str, op: Callable[..., Any]) -> None:
    def define(input: Tensor, dim: int) -> Any:
        axis = axis_of(dim, input.ndim)
        if input.ndim == 0:
            return pair(name, input.clone(), FUNCTIONS["zeros_like"](input, dtype=_long()))
        return pair(name, *run(name.capitalize(), op, input, **{"dim": axis}))

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    register(name, out=True)(define)


_cumulative_extreme("cummax", ops.cummax)
_cumulative_extreme("cummin", ops.cummin)


@register(out=True)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input))) along `dim`."""
    axis = axis_of(dim, input.ndim)
    top = amax(input, axis, True).detach()
    top = FUNCTIONS["where"](FUNCTIONS["isfinite"](top), top, 0.0)
    return cumsum((input - top).exp(), axis).log() + top


@register(out=True)
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """Differences of neighbours along `dim`, n times."""
    axis = axis_of(dim, input.ndim)
    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    parts = [p for p in (prepend, input, append) if p is not None]
    x = FUNCTIONS["cat"](parts, axis) if len(parts) > 1 else input
    for _ in range(n):
        size = x._type.shape[axis]
        if size == 0:
            return x
        a, b = x.narrow(axis, 1, size - 1), x.narrow(axis, 0, size - 1)
        x = a.logical_xor(b) if x._type.dtype.is_bool else a - b
    return x


# ------------------------------------------------------------------------------------------ norms


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The p-norm over `dim` (all by default); `ord` may be inf, -inf and 0."""
    target = _mean_dtype("linalg.vector_norm", x, dtype)
    x = x if x._type.dtype is target else x.to(dtype)
    dims = dims_of(dim, x.ndim)
    keep = {"dims": dims, "keepdim": bool(keepdim)}
    order = float(ord)

    def apply(v: Value) -> Value:
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
        return ops.pow(
            ops.sum(ops.pow(size, scalar(order, size.dtype)), **keep), scalar(1 / order, size.dtype)
        )

    return run("LinalgVectorNorm", apply, x)


def _safe_sqrt(v: Value) -> Value:
    """The square root, with gradient 0 at 0: the norm of a zero vector has subgradient 0."""
    zero, one = scalar(0, v.dtype), scalar(1, v.dtype)
    nothing = ops.eq(v, zero)
    return ops.where(nothing, zero, ops.sqrt(ops.where(nothing, one, v)))


@register()
def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Tensor:
    """The p-norm of all elements or over `dim` (deprecated in favour of torch.linalg)."""
    check_tensor("norm", "input", input)
    if p == "nuc":
        raise RuntimeError("norm: p='nuc' needs singular values: expected 'fro' or a number")
    else:
        if isinstance(p, str) and p != "fro":
            raise RuntimeError(f"only valid for 'fro' and 'nuc', not {p!r}")
        result = vector_norm(input, 2 if p == "fro" or p is None else p, dim, keepdim, dtype=dtype)
    return result if out is None else write_out("norm", result, out)


@register()
def dist(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The p-norm of the difference."""
    return norm(input - other, p)


@register(inplace=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Each slice along `dim` scaled so that its p-norm is at most `maxnorm`."""
    axis = axis_of(dim, input.ndim)
    rest = [i for i in range(input.ndim) if i != axis]
    size = vector_norm(input, p, rest, True)
    factor = FUNCTIONS["where"](size > maxnorm, maxnorm / (size + 1e-7), 1.0)
    return input * factor


@register(function=False)
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions along which it would be repeated to its present shape."""
    target = Size(size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size)
    lead = self.ndim - len(target)
    dims = [i for i in range(self.ndim) if i < lead or (target[i - lead] == 1 and self.shape[i] != 1)]
    return sum(self, dims, True).reshape(target) if dims else self
