"""Functions around gamma, and a Bessel function: those that stand in ``torch`` itself."""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir import ops

from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps_as_one
from .base import (
    FUNCTIONS,
    METHODS,
    check_tensor,
    common_dtype,
    elementwise,
    floating,
    in_place,
    register,
    rounded_once,
)
from .orders import row_major

__all__ = ["i0", "igamma", "igammac", "mvlgamma", "polygamma"]


def _incomplete(name: str, input: Any, other: Any) -> Tensor:
    check_tensor(name, "input", input)
    check_tensor(name, "other", other, 2)
    dtype = floating(common_dtype(input, other))
    return elementwise(name.capitalize(), getattr(ops, name), input, other, dtype=dtype)


@register(inplace=True, out=True)
def igamma(input: Tensor, other: Tensor) -> Tensor:
    """The regularised lower incomplete gamma function P(input, other), elementwise."""
    return _incomplete("igamma", input, other)


@register(inplace=True, out=True)
def igammac(input: Tensor, other: Tensor) -> Tensor:
    """The regularised upper incomplete gamma function Q(input, other), elementwise."""
    return _incomplete("igammac", input, other)


@register(inplace=True, out=True)
def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 0."""
    check_tensor("i0", "input", input)
    return elementwise("I0", ops.i0, input, dtype=floating(input._type.dtype))


def _derivative(n: int, input: Tensor) -> Tensor:
    if not isinstance(n, int):
        raise TypeError(
            f"polygamma(): argument 'n' (position 1) must be int, not {type(n).__name__}"
        )
    check_tensor("polygamma", "input", input, 2)
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    if n == 0:
        return FUNCTIONS["digamma"](input)  # type: ignore[no-any-return]
    return elementwise("Polygamma", ops.polygamma, input, dtype=floating(input._type.dtype), n=n)


@register(method=False, out=True)
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of the digamma function."""
    return _derivative(n, input)


@register("polygamma", function=False)
def _polygamma_method(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of the digamma function."""
    return _derivative(n, self)


METHODS["polygamma_"] = in_place("polygamma_", _polygamma_method)


@register(inplace=True, out=True)
@keeps_as_one("input")
@row_major
@rounded_once
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the gamma function of dimension `p`, for elements greater than (p - 1) /
    2."""
    check_tensor("mvlgamma", "input", input)
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    parts = [FUNCTIONS["lgamma"](input - i / 2) for i in range(p)]
    return sum(parts[1:], parts[0]) + p * (p - 1) / 4 * math.log(math.pi)  # type: ignore[no-any-return]
