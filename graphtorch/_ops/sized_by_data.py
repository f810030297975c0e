"""Operations whose result has a size that depends on data: they run at once, and in no captured
function."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir.shape import broadcast

from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps_as_one, shown_as
from .base import MASK, axis_of, check_tensor, elements_for_size, refuse, register, write_out
from .creation import from_array
from .indexing import getitem
from .views import reshape


@register()
@shown_as("MaskedSelect")
@keeps_as_one("input mask")
def masked_select(input: Tensor, mask: Tensor, *, out: Any = None) -> Tensor:
    """The elements where mask holds, as a vector."""
    check_tensor("masked_select", "input", input)
    check_tensor("masked_select", "mask", mask, 2)
    if not mask._type.dtype.is_bool:
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
    elements_for_size("masked_select", mask, MASK)
    shape = broadcast(input._type.shape, mask._type.shape)
    if not shape:
        found = getitem(reshape(input, (1,)), reshape(mask, (1,)))
    else:
        found = getitem(input.expand(shape), mask.expand(shape))
    return found if out is None else write_out("masked_select", found, out)


@register()
def nonzero(input: Tensor, *, out: Any = None, as_tuple: bool = False) -> Any:
    """The indices of elements that are not zero: one per row, or (`as_tuple`) a vector for each
    dimension."""
    check_tensor("nonzero", "input", input)
    found = np.nonzero(np.atleast_1d(elements_for_size("nonzero", input, MASK)))
    if as_tuple:
        return tuple(from_array(c.astype(np.int64), place=input.device) for c in found)
    rows = np.zeros((len(found[0]), 0)) if input.ndim == 0 else np.stack(found, 1)
    made = from_array(rows.astype(np.int64), place=input.device)
    return made if out is None else write_out("nonzero", made, out)


@register()
def argwhere(input: Tensor) -> Tensor:
    """The indices of elements that are not zero, one per row."""
    return nonzero(input)  # type: ignore[no-any-return]


@register()
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs (or the sum of its weights), up to the largest
    one.

    Raises:
        RuntimeError: `input` is not a vector of non-negative integers, or `weights` has another
            size.
    """
    check_tensor("bincount", "input", input)
    if input._type.dtype.is_floating_point:
        raise NotImplementedError(
            f"\"bincount_cpu\" not implemented for '{input.dtype}': it counts integers"
        )
    if input.ndim != 1 or not input._type.dtype.is_integer:
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError(f"minlength should be >= 0, but got {minlength}")
    numbers = elements_for_size("bincount", input, "use torch.zeros(n).scatter_add(0, x, ones)")
    if numbers.size and numbers.min() < 0:
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is not None and weights.shape != input.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    found = np.bincount(numbers, None if weights is None else weights.detach()._array(), minlength)
    if weights is not None and weights.dtype.is_floating_point:
        found = found.astype(weights._type.dtype.numpy)
    return from_array(found, place=input.device)


@register()
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements in order, or slices along `dim`; where each went, and how often it
    occurs."""
    for name, flag in (
        ("sorted", sorted),
        ("return_inverse", return_inverse),
        ("return_counts", return_counts),
    ):
        if not isinstance(flag, bool):
            bool(flag)  # which tensors and arrays of several elements refuse
            raise TypeError(
                f"_unique2(): argument '{name}' must be bool, not {type(flag).__name__}"
            )
    check_tensor("unique", "input", input)
    refuse("unique", input._type.dtype, "complex")
    dim = None if dim is None else axis_of(dim, input.ndim)
    array = elements_for_size("unique", input, "sort and compare neighbours, which keeps the size")
    values, inverse, counts = np.unique(
        array, return_inverse=True, return_counts=True, axis=dim, equal_nan=False
    )
    places = inverse.astype(np.int64).reshape(input.shape if dim is None else (-1,))
    return _results(
        input, values, places if return_inverse else None, counts if return_counts else None
    )


@register()
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Without repeats of the element (or slice along `dim`) before; where each went, how long runs
    are."""
    check_tensor("unique_consecutive", "input", input)
    dim = None if dim is None else axis_of(dim, input.ndim)
    array = elements_for_size(
        "unique_consecutive", input, "compare x[1:] != x[:-1], which keeps the size"
    )
    lines = array.reshape(-1) if dim is None else np.moveaxis(array, dim, 0)
    flat = lines.reshape(lines.shape[0], -1) if lines.size else np.zeros((lines.shape[0], 1))
    starts = np.ones(len(flat), bool)
    starts[1:] = (flat[1:] != flat[:-1]).any(1)
    places = np.cumsum(starts) - 1
    counts = np.diff(np.append(np.flatnonzero(starts), len(flat)))
    values = lines[starts] if dim is None else np.moveaxis(lines[starts], 0, dim)
    inverse = places.reshape(input.shape) if dim is None else places
    return _results(
        input, values, inverse if return_inverse else None, counts if return_counts else None
    )


def _results(
    input: Tensor, values: np.ndarray, inverse: np.ndarray | None, counts: np.ndarray | None
) -> Any:
    more = [
        from_array(a.astype(np.int64), place=input.device)
        for a in (inverse, counts)
        if a is not None
    ]
    first = from_array(np.ascontiguousarray(values).reshape(values.shape), place=input.device)
    return (first, *more) if more else first
