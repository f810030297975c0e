"""``torch.masked``: reductions that leave elements out.
https://docs.pytorch.org/docs/stable/masked.html"""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._torch.absent import attribute_of
from ..autograd.keeps import keeps_as_one
from ..nn import functional


def _kept(input: Tensor, mask: Tensor | None) -> Any:
    if mask is None:
        return FUNCTIONS["ones_like"](input).bool()  # type: ignore[no-any-return]
    return FUNCTIONS["broadcast_to"](mask.bool(), input.shape)  # type: ignore[no-any-return]


@keeps_as_one("mask")
def _filled(x: Tensor, mask: Tensor | None, value: float) -> Tensor:
    """`x` with a number in the place of what is left out."""
    return x.masked_fill(~_kept(x, mask), value)  # type: ignore[no-any-return]


def _dims(input: Tensor, dim: Any) -> Any:
    return tuple(range(input.dim())) if dim is None else dim


def _cast(input: Tensor, dtype: Any) -> Tensor:
    return input if dtype is None else input.to(dtype)  # type: ignore[no-any-return]


def sum(
    input: Tensor,
    dim: Any = None,
    *,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The sum of the elements where `mask`, bool and broadcast to `input`, holds."""
    x = _cast(input, dtype)
    return _filled(x, mask, 0).sum(_dims(x, dim), keepdim)  # type: ignore[no-any-return]


def _count(x: Tensor, dim: Any, mask: Tensor | None) -> Tensor:
    return _kept(x, mask).sum(_dims(x, dim), True).to(x.dtype)  # type: ignore[no-any-return]


def mean(
    input: Tensor,
    dim: Any = None,
    *,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The mean of the elements where `mask` holds; nan where it never does."""
    x = _cast(input, dtype)
    count = _count(x, dim, mask)
    return sum(x, dim, keepdim=keepdim, mask=mask) / (
        count if keepdim else count.reshape(sum(x, dim, mask=mask).shape)
    )


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: int | float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The variance of the elements where `mask` holds."""
    if unbiased is not None and correction is not None:
        raise RuntimeError("masked.var: give unbiased or correction, not both")
    less = correction if correction is not None else int(unbiased is None or unbiased)
    x = _cast(input, dtype)
    away = x - mean(x, dim, keepdim=True, mask=mask)
    total = sum(away * away, dim, keepdim=keepdim, mask=mask)
    return total / (_count(x, dim, mask) - less).clamp(min=0).reshape(total.shape)


def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, **options: Any) -> Tensor:
    """The square root of `var`."""
    return var(input, dim, unbiased, **options).sqrt()


def amax(
    input: Tensor,
    dim: Any = None,
    *,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The largest element where `mask` holds; -inf where it never does."""
    x = _cast(input, dtype)
    return _filled(x, mask, -math.inf).amax(_dims(x, dim), keepdim)  # type: ignore[no-any-return]


def amin(
    input: Tensor,
    dim: Any = None,
    *,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The smallest element where `mask` holds; inf where it never does."""
    x = _cast(input, dtype)
    return _filled(x, mask, math.inf).amin(_dims(x, dim), keepdim)  # type: ignore[no-any-return]


def softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The softmax over the elements where `mask` holds; 0 elsewhere, NaN in rows without any."""
    x = _cast(input, dtype)
    return functional.softmax(_filled(x, mask, -math.inf), dim)


def log_softmax(
    input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None
) -> Tensor:
    """The logarithm of the softmax over the elements where `mask` holds; -inf elsewhere."""
    x = _cast(input, dtype)
    return functional.log_softmax(_filled(x, mask, -math.inf), dim)


__all__ = ["amax", "amin", "log_softmax", "mean", "softmax", "std", "sum", "var"]
__getattr__ = attribute_of(__name__)
