"""Order statistics: sorting, the largest elements, medians, quantiles, modes."""

from __future__ import annotations

from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType

from .._deferred.tensor import Tensor
from .._types import DTYPES
from ..autograd.keeps import keeps_as_one
from .autocast import single_precision_on_cpus
from .base import (
    FUNCTIONS,
    axis_of,
    cast_value,
    check_tensor,
    checked,
    refuse,
    register,
    run,
    write_out,
)
from .orders import order_kept
from .reduce import _check_size, _long, _pick, pair


@register()
@order_kept
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
            "Sort",
            lambda v: ops.sort(cast_value(v, wide), dim=axis, descending=bool(descending)),
            input,
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
    input: Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
    *,
    out: Any = None,
) -> Any:
    """(values, indices) of the k largest (or smallest) elements along `dim`."""
    check_tensor("topk", "input", input)
    if input._type.dtype.is_bool:
        raise RuntimeError("topk does not support bool dtypes on CPU: convert the input first")
    if isinstance(k, float):
        raise TypeError("topk(): argument 'k' (position 2) must be int, not float")
    axis = axis_of(dim, input.ndim)
    size = input._type.shape[axis] if input.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(
            f"selected index k out of range: k is {k}, dimension {dim} has size {size}"
        )
    if input.ndim == 0:
        result = pair("topk", input.clone(), FUNCTIONS["zeros_like"](input, dtype=_long()))
    else:
        result = pair(
            "topk", *run("Topk", ops.topk, input, **{"k": k, "dim": axis, "largest": bool(largest)})
        )
    return result if out is None else write_out("topk", result, out)


@register(out=True)
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(value, index) of the k-th smallest element along `dim`; k counts from 1."""
    axis = axis_of(dim, input.ndim)
    size = input._type.shape[axis] if input.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}")
    index = argsort(input, axis)
    chosen = index.select(axis, k - 1).contiguous() if input.ndim else index
    if keepdim and input.ndim:
        chosen = chosen.unsqueeze(axis)
    return pair("kthvalue", _pick("Kthvalue", input, chosen, axis, keepdim), chosen)


@register(out=True)
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices) of the most frequent element along `dim`: the smallest of several, where it
    last stands. NaN, which equals nothing, is the mode (at index 0) only where there is nothing
    else."""
    check_tensor("mode", "input", input)
    axis = axis_of(dim, input.ndim)
    _check_size("mode", input, axis)
    if input.ndim == 0:
        return pair("mode", input.clone(), FUNCTIONS["zeros_like"](input, dtype=_long()))
    line = input.movedim(axis, -1)
    counts = FUNCTIONS["eq"](line.unsqueeze(-1), line.unsqueeze(-2)).sum(-1)
    frequent = counts == counts.amax(-1, True)
    ordered, place = sort(line.detach())
    first = frequent.gather(-1, place).to(DTYPES["int64"]).argmax(-1, True)
    value = ordered.gather(-1, first)
    where = FUNCTIONS["arange"](line.shape[-1], device=line.device).expand(line.shape)
    index = FUNCTIONS["where"](line.detach() == value, where, 0).amax(-1)
    index = index.unsqueeze(axis) if keepdim else index
    return pair("mode", _pick("Mode", input, index, axis, keepdim), index)


# ------------------------------------------------------------------------------------------ medians


@register(out=True)
def median(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along `dim`; NaN if there is one."""
    return _any_median("median", input, dim, keepdim)


@register(out=True)
def nanmedian(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """As `median`, of the elements that are not NaN; NaN where all are."""
    return _any_median("nanmedian", input, dim, keepdim)


def _any_median(name: str, input: Tensor, dim: Any, keepdim: bool) -> Any:
    check_tensor(name, "input", input)
    refuse("median_cpu", input._type.dtype, "bool", "complex")
    if dim is not None:
        axis = axis_of(dim, input.ndim)
        _check_size(name, input, axis)
        return _median_of_lines(name, input, axis, keepdim)
    if input.numel():
        return _median_of_all(name, input)
    floats = input._type.dtype.is_differentiable
    return input.new_full((), float("nan") if floats else -(1 << 63))


@keeps_as_one("result.1")
def _median_of_lines(name: str, x: Tensor, axis: int, keepdim: bool) -> Any:
    return pair(name, *_median(name, x, axis, keepdim))


@keeps_as_one("x result")
def _median_of_all(name: str, x: Tensor) -> Tensor:
    return _median(name, x.reshape(-1), 0, False)[0]


def _median(name: str, x: Tensor, axis: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    index = argsort(x, axis)
    if x.ndim == 0:
        return x.clone(), index
    size = x._type.shape[axis]
    middle = index.select(axis, (size - 1) // 2)
    if x._type.dtype.is_floating_point:  # NaN sorts last
        missing = FUNCTIONS["isnan"](x.detach())
        if name == "nanmedian":
            known = missing.logical_not().sum(axis, True)
            at = ((known - 1).clamp(min=0)).div(2, rounding_mode="floor")
            middle = index.gather(axis, at).squeeze(axis)
        else:  # the median of data with NaN is the first NaN
            first = index.gather(axis, missing.logical_not().sum(axis, True).clamp(max=size - 1))
            middle = FUNCTIONS["where"](missing.any(axis), first.squeeze(axis), middle)
    middle = middle.unsqueeze(axis) if keepdim else middle
    return _pick(name.capitalize(), x, middle, axis, keepdim), middle


# ---------------------------------------------------------------------------------------- quantiles

INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


@register(out=True)
@single_precision_on_cpus
def quantile(
    input: Tensor, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """Quantiles `q` (a number or a vector) in 0..1 by interpolation between neighbours; NaN if
    there is one.

    Raises:
        RuntimeError: `input` is not of floats, `q` is of another dtype or not within [0, 1].
        ValueError: an unknown interpolation.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation)


@register(out=True)
@single_precision_on_cpus
def nanquantile(
    input: Tensor, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """As `quantile`, of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation)


def _quantile(
    name: str, input: Tensor, q: Any, dim: Any, keepdim: bool, interpolation: str
) -> Tensor:
    points = _points(name, input, q, interpolation)
    line = input.reshape(-1) if dim is None else input
    if line.ndim == 0:
        line = line.reshape(1)
    axis = 0 if dim is None else axis_of(dim, input.ndim)
    ordered = sort(line.movedim(axis, -1))[0]
    missing = FUNCTIONS["isnan"](ordered.detach())
    last = ordered._type.shape[-1] - 1
    flat = points.reshape(-1)
    if name == "nanquantile":
        known = missing.logical_not().sum(-1, True)
        place = (known - 1).clamp(min=0).to(input.dtype) * flat
    else:
        place = FUNCTIONS["where"](missing.any(-1, True), float(last), flat * last)
    found = _interpolated(ordered, place, interpolation)
    return _arranged(found, points.ndim, input.ndim, None if dim is None else axis, keepdim)


def _points(name: str, input: Tensor, q: Any, interpolation: str) -> Tensor:
    check_tensor(name, "input", input)
    if input.dtype not in (DTYPES["float32"], DTYPES["float64"]):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if interpolation not in INTERPOLATIONS:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, "
            f"but got {interpolation}"
        )
    if input.numel() == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
        return FUNCTIONS["tensor"](q, dtype=input.dtype, device=input.device)
    if q.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
    if q.dtype is not input.dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
    return checked(q, "probability", f"{name}() q values must be in the range [0, 1]")


def _interpolated(ordered: Tensor, place: Tensor, interpolation: str) -> Tensor:
    """Elements of the sorted last dimension at fractional positions ``place``, as a new last
    dimension."""
    if interpolation == "nearest":
        place = place.round()
    low = place.floor()
    high = place.ceil()
    place = place.expand((*ordered.shape[:-1], place.shape[-1]))

    def at(position: Tensor) -> Tensor:
        return ordered.gather(-1, position.detach().to(DTYPES["int64"]).expand(place.shape))

    if interpolation in ("lower", "nearest"):
        return at(low)
    if interpolation == "higher":
        return at(high)
    weight = 0.5 if interpolation == "midpoint" else place - low
    return FUNCTIONS["lerp"](at(low), at(high), weight)


def _arranged(found: Tensor, points: int, rank: int, axis: int | None, keepdim: bool) -> Tensor:
    """The quantiles in front (none for a single one), then the dimensions of the input."""
    if keepdim:
        found = found.reshape((1,) * rank + (-1,)) if axis is None else found.unsqueeze(axis)
        if rank == 0:
            found = found.reshape(-1)
    elif axis is not None and rank == 0:
        found = found.reshape(-1)
    return found.movedim(-1, 0) if points else found.squeeze(-1)
