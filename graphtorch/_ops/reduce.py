"""Reductions, cumulative operations, order statistics and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, boolean, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import number
from graphtorch.ir.ops.shape import slice_dim

from .._deferred.tensor import Tensor
from .._settings import warn_user
from .._types import DTYPES, Size, to_ir
from ..autograd.keeps import keeps, keeps_as_one, shown_as
from ..return_types import define
from .autocast import single_precision
from .base import (
    FUNCTIONS,
    axis_of,
    cast_value,
    check_tensor,
    dims_of,
    floating,
    refuse,
    register,
    rounded_once,
    run,
    write_out,
)
from .orders import row_major
from .pointwise import maximum, minimum

# ------------------------------------------------------------------------------------------ sums


def _reduction(
    name: str, op: Callable[..., Value], x: Tensor, dim: Any, keepdim: bool, dtype: DType
) -> Tensor:
    kind = x._type
    if keepdim is not False and keepdim is not True:
        check_keepdim(name.partition("Backward")[0].lower(), keepdim)
    dims = dims_of(dim, len(kind.shape))
    if kind.dtype is dtype:
        return run(name, op, x, dims=dims, keepdim=bool(keepdim))
    return run(name, lambda v: op(cast_value(v, dtype), dims=dims, keepdim=bool(keepdim)), x)


def check_keepdim(name: str, keepdim: Any) -> None:
    """Raise for what is no bool: a second axis, as in ``x.sum(0, 1)``, would keep the first."""
    if not isinstance(keepdim, (bool, np.bool_)):
        raise TypeError(
            f"{name}(): argument 'keepdim' must be bool, not {type(keepdim).__name__}: several "
            "dims are a tuple"
        )


def _sum_dtype(x: Tensor, dtype: Any) -> DType:
    if dtype is not None:
        return to_ir(dtype)
    own = x._type.dtype
    return own if own.is_differentiable else i64


@register(out=True)
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over all elements, or over `dim`. Integers and bools add up in int64."""
    check_tensor("sum", "input", input)
    target = _sum_dtype(input, dtype)
    if target.is_bool:
        return any(input.to(dtype), dim, keepdim)
    name = "Sum" if dim is None else "SumBackward1"
    return _reduction(name, ops.sum, input, dim, keepdim, target)


@register(out=True)
@keeps_as_one("input")
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum, NaN counted as 0. Raises RuntimeError for complex elements."""
    if input._type.dtype.is_complex:
        raise RuntimeError("nansum on CPU does not support complex inputs")
    return sum(
        FUNCTIONS["where"](FUNCTIONS["isnan"](input), 0.0, input)
        if input.dtype.is_floating_point
        else input,
        dim,
        keepdim,
        dtype=dtype,
    )


def _mean_dtype(name: str, x: Tensor, dtype: Any) -> DType:
    found = x._type.dtype if dtype is None else to_ir(dtype)
    if not found.is_differentiable:
        raise RuntimeError(
            f"{name}(): could not infer output dtype. Input dtype must be either a floating point "
            f"or complex dtype. Got: {SCALAR_NAMES[found]}"
        )
    return found


@register(out=True)
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean of floating-point or complex elements."""
    check_tensor("mean", "input", input)
    name = "Mean" if dim is None else "MeanBackward1"
    return _reduction(name, ops.mean, input, dim, keepdim, _mean_dtype("mean", input, dtype))


@register(out=True)
@rounded_once
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean of the elements that are not NaN. Raises RuntimeError for integers and bools."""
    kind = input._type.dtype
    if not kind.is_differentiable:
        raise RuntimeError(
            "nanmean(): expected input to have floating point or complex dtype but got "
            f"{SCALAR_NAMES[kind]}: convert it with .to(dtype)"
        )
    known = FUNCTIONS["isnan"](input).logical_not()
    return nansum(input, dim, keepdim, dtype=dtype) / sum(known, dim, keepdim)


@register(out=True)
@keeps("Prod", (0, ~0))
@keeps("ProdBackward1", (0, ~0))
@single_precision
def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over all elements, or over one `dim`."""
    check_tensor("prod", "input", input)
    target = _sum_dtype(input, dtype)
    if target.is_bool:
        return all(input.to(dtype), dim, keepdim)
    name = "Prod" if dim is None else "ProdBackward1"
    return _reduction(name, ops.prod, input, dim, keepdim, target)


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
    input: Tensor,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Tensor:
    """The variance; `correction` is subtracted from the count (1 by default)."""
    return _variance("var", input, dim, unbiased, keepdim, correction)


def _variance(
    name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any
) -> Tensor:
    check_tensor(name, "input", input)
    check_keepdim(name, keepdim)
    dim, ddof = _correction(dim, unbiased, correction)
    dtype = _mean_dtype(name, input, None)
    dims = dims_of(dim, input.ndim)
    shape = input._type.shape
    count = 0 if 0 in shape else math.prod([shape[d] for d in dims])
    if isinstance(count, int) and count <= ddof:
        warn_user(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the "
            "reduction factor (input numel divided by output numel)."
        )
    if dtype.is_complex:
        parts = (FUNCTIONS["real"](input), FUNCTIONS["imag"](input))
        return FUNCTIONS["add"](*[_plain_variance(x, dims, keepdim, ddof) for x in parts])
    return _plain_variance(input, dims, keepdim, ddof)


def _plain_variance(input: Tensor, dims: tuple[int, ...], keepdim: bool, ddof: Any) -> Tensor:
    return run(
        "Var", ops.var, input, **{"dims": dims, "keepdim": bool(keepdim), "correction": ddof}
    )


@register(out=True)
@shown_as("Std")
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Tensor:
    """The standard deviation; see `var`."""
    return _deviation("std", input, dim, unbiased, keepdim, correction)


@rounded_once
def _deviation(name: str, *arguments: Any) -> Tensor:
    return FUNCTIONS["sqrt"](_variance(name, *arguments))  # type: ignore[no-any-return]


@register()
@shown_as("VarMean")
def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Any:
    """Variance and mean."""
    found = _variance("var_mean", input, dim, unbiased, keepdim, correction)
    return found, mean(input, None if isinstance(dim, bool) else dim, keepdim)


@register()
@shown_as("StdMean")
def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Any:
    """Standard deviation and mean."""
    found = _deviation("std_mean", input, dim, unbiased, keepdim, correction)
    return found, mean(input, None if isinstance(dim, bool) else dim, keepdim)


@register(out=True)
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, without overflow."""
    check_tensor("logsumexp", "input", input)
    if input._type.dtype.is_complex:
        top = _finite(amax(FUNCTIONS["real"](input), dim, True).detach())
        total = sum((input - top).exp(), dim, True).log() + top
        return total if keepdim else total.reshape(sum(top, dim).shape)
    return _reduction("Logsumexp", ops.logsumexp, input, dim, keepdim, floating(input._type.dtype))


# ------------------------------------------------------------------------------------------ extrema

_AMINMAX = define("aminmax", ("min", "max"))
_RESULTS: dict[str, Any] = {
    name: define(name, ("values", "indices"))
    for name in (
        "max",
        "min",
        "sort",
        "topk",
        "cummax",
        "cummin",
        "median",
        "mode",
        "kthvalue",
        "nanmedian",
    )
}


def pair(name: str, values: Tensor, indices: Tensor) -> Any:
    """(values, indices) as PyTorch's named tuple of an operation."""
    return _RESULTS[name](values, indices)


def _check_not_empty(name: str, x: Tensor) -> None:
    if isinstance(x.numel(), int) and x.numel() == 0:
        error = IndexError if name.startswith("arg") else RuntimeError
        raise error(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the "
            "reduction dim with the 'dim' argument."
        )


def _extreme(
    name: str, amount: Callable[..., Value], arg: Callable[..., Value], both: Callable[..., Tensor]
) -> Callable[..., Any]:
    def define(
        input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None
    ) -> Any:
        check_tensor(name, "input", input)
        if isinstance(dim, Tensor) and keepdim is not False:
            raise TypeError(
                f"{name}() received an invalid combination of arguments: after a tensor there is "
                "only 'out'"
            )
        if isinstance(dim, Tensor) or other is not None:
            result: Any = both(input, dim if isinstance(dim, Tensor) else other)
        elif dim is None:
            if keepdim is not False:
                raise TypeError(
                    f"{name}() received an invalid combination of arguments: keepdim without dim"
                )
            _check_not_empty(name, input)
            result = _amount(f"{name.capitalize()}Backward1", amount, input, None, False)
        else:
            axis = axis_of(dim, input.ndim)
            _check_size(name, input, axis)
            index = _arg(name, arg, input, axis, keepdim)
            result = pair(name, _pick(name.capitalize(), input, index, axis, keepdim), index)
        return result if out is None else write_out(name, result, out)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = (
        f"The {name}imum of all elements; with `dim`, (values, indices); with a tensor, "
        "elementwise."
    )
    return register(name)(define)


def _check_size(name: str, x: Tensor, axis: int) -> None:
    if x.ndim and isinstance(x._type.shape[axis], int) and x._type.shape[axis] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")


def _amount(node: str, op: Callable[..., Value], x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    dtype = x._type.dtype
    if dtype.is_complex:
        raise RuntimeError(
            f"{node.partition('Backward')[0].lower()}(): does not support complex inputs"
        )
    if dtype.is_bool:
        return _reduction(node, ops.any if op is ops.max else ops.all, x, dim, keepdim, boolean)
    return _reduction(node, op, x, dim, keepdim, dtype)


def _arg(name: str, op: Callable[..., Value], x: Tensor, axis: int, keepdim: bool) -> Tensor:
    check_keepdim(name, keepdim)
    if x.ndim == 0:
        return FUNCTIONS["zeros_like"](x, dtype=_long())
    dtype = x._type.dtype
    wide = i64 if dtype.is_bool else dtype
    return run(name, lambda v: op(cast_value(v, wide), dim=axis, keepdim=bool(keepdim)), x)


def _long() -> Any:
    return DTYPES["int64"]


def _pick(node: str, x: Tensor, index: Tensor, axis: int, keepdim: bool) -> Tensor:
    """The elements of `x` at an index along one axis that a reduction returned."""
    check_keepdim(node.lower(), keepdim)
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
    refuse("aminmax_cpu", input._type.dtype, "complex")
    if dim is None:
        low, high = amin(input), amax(input)
        kept = (1,) * input.ndim
        return kind(low.reshape(kept), high.reshape(kept)) if keepdim else kind(low, high)
    return kind(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _arg_extreme(name: str, op: Callable[..., Value]) -> Callable[..., Tensor]:
    def define(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        check_tensor(name, "input", input)
        dtype = input._type.dtype
        if dtype.is_bool or dtype.is_complex:
            raise RuntimeError(
                f"{name}(): does not support {'bool' if dtype.is_bool else 'complex'} input"
            )
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


# --------------------------------------------------------------------------------------- cumulative


def _cumulative(name: str, op: Callable[..., Value]) -> Callable[..., Tensor]:
    def define(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        check_tensor(name, "input", input)
        axis = axis_of(dim, input.ndim)
        target = _sum_dtype(input, dtype)
        if input.ndim == 0:
            return run(
                name.capitalize(), lambda v: ops.reshape(cast_value(v, target), shape=()), input
            )
        return run(name.capitalize(), lambda v: op(cast_value(v, target), dim=axis), input)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, inplace=True, out=True)(define)


cumsum, cumprod = _cumulative("cumsum", ops.cumsum), _cumulative("cumprod", ops.cumprod)
keeps("Cumprod", (0, ~0))


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
keeps("Cummax", (0, ~1))
keeps("Cummin", (0, ~1))


def _finite(top: Tensor) -> Tensor:
    return FUNCTIONS["where"](FUNCTIONS["isfinite"](top), top, 0.0)  # type: ignore[no-any-return]


@register(out=True)
@keeps("Logcumsumexp", (0, ~0))
@row_major
@rounded_once
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input))) along `dim`. Raises NotImplementedError for integers and bools."""
    axis = axis_of(dim, input.ndim)
    refuse("logcumsumexp_out_cpu", input._type.dtype, "bool", "integer")
    if input.ndim == 0:
        return FUNCTIONS["clone"](input)  # type: ignore[no-any-return]
    if input._type.dtype.is_complex:
        top = _finite(amax(FUNCTIONS["real"](input), axis, True).detach())
        return cumsum((input - top).exp(), axis).log() + top
    size = input._type.shape[axis]
    if not isinstance(size, int):
        raise NotImplementedError(
            f"logcumsumexp along dimension {axis}, of size {size}: it may change; "
            "use logsumexp of masked rows instead"
        )
    return run("Logcumsumexp", lambda v: _log_cumulative_sums(v, axis, size), input)


def _log_cumulative_sums(x: Value, axis: int, size: int) -> Value:
    """Sums of 1, 2, 4, ... neighbours (Hillis and Steele 1986): no common shift suits all of a
    line, whose first sums may be smaller than its largest element by any factor."""
    # -inf - -inf would make gradients NaN
    lowest = number(float(np.finfo(x.dtype.numpy).min), x.dtype)
    nothing = number(-math.inf, x.dtype)
    total, reach = ops.where(ops.eq(x, nothing), lowest, x), 1
    while reach < size:
        first, rest = slice_dim(total, axis, 0, reach), slice_dim(total, axis, reach, size)
        sums = ops.logaddexp(rest, slice_dim(total, axis, 0, size - reach))
        total, reach = ops.concat(first, sums, dim=axis), 2 * reach
    return ops.where(ops.eq(total, lowest), nothing, total)  # type: ignore[no-any-return]


@register(out=True)
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Tensor:
    """Differences of neighbours along `dim`, n times."""
    axis = axis_of(dim, input.ndim)
    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n == 0:
        return input
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    parts = [p for p in (prepend, input, append) if p is not None]
    x = FUNCTIONS["cat"](parts, axis) if len(parts) > 1 else input
    for _ in range(n):
        size = x._type.shape[axis]
        if size == 0:
            return x
        a, b = x.narrow(axis, 1, size - 1), x.narrow(axis, 0, size - 1)
        x = a.logical_xor(b) if x._type.dtype.is_bool else a - b
    return x


@register(function=False)
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions along which it would be repeated to its present shape.

    Raises RuntimeError for a size that cannot be expanded to that shape.
    """
    target = Size(size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size)
    lead = self.ndim - len(target)
    kept = zip(target, self.shape[lead:], strict=True) if lead >= 0 else ()
    if target != tuple([1 if wanted == 1 else size for wanted, size in kept]):
        raise RuntimeError(
            f"size {{{list(target)}}} is not expandable to size {{{list(self.shape)}}}."
        )
    dims = [
        i for i in range(self.ndim) if i < lead or (target[i - lead] == 1 and self.shape[i] != 1)
    ]
    if dims:
        return sum(self, dims, True).reshape(target)
    return self if self._type.dtype.is_differentiable or self.ndim else self.to(DTYPES["int64"])
