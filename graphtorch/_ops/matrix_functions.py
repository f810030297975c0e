"""Functions of matrices: the exponential, and products of Householder reflections."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps_as_one
from .base import FUNCTIONS, check_tensor, register
from .linalg import matmul

__all__ = ["householder_product", "matrix_exp"]

TERMS = 18  # of the series: 1 / 19! is below a unit of the last place of 1
MOST_SQUARINGS = 24  # for norms up to 2 ** 24


@register(out=True)
@keeps_as_one("input")
def matrix_exp(input: Tensor) -> Tensor:
    """exp(A) of square matrices [*, n, n], by scaling and squaring.

    N. Higham, The scaling and squaring method for the matrix exponential revisited (2005): A is
    divided by a power of two that brings its norm below 1, and the series' result is squared as
    often.

    Raises RuntimeError for integers and for matrices that are not square.
    """
    check_tensor("linalg.matrix_exp", "A", input)
    if not (input.dtype.is_floating_point or input.dtype.is_complex):
        raise RuntimeError(
            "linalg.matrix_exp: Expected a floating point or complex tensor as input. Got "
            f"{input.dtype}"
        )
    if input.ndim < 2 or input.shape[-1] != input.shape[-2]:
        raise RuntimeError(
            "linalg.matrix_exp: A must be batches of square matrices, but they are "
            f"{list(input.shape)} matrices"
        )
    if input.numel() == 0:
        return input.clone()
    short = input.dtype.itemsize == 2
    a = input.float() if short else input
    size = a.detach().abs().sum(-2, True).amax(-1, True)
    count = size.clamp(min=1e-30).log2().ceil().clamp(min=0, max=MOST_SQUARINGS)
    a = a * (-count).exp2().to(a.dtype)
    unit = FUNCTIONS["eye"](a.shape[-1], dtype=a.dtype, device=a.device)
    found = unit + a / TERMS
    for k in range(TERMS - 1, 0, -1):
        found = unit + matmul(a, found) / k
    for k in range(MOST_SQUARINGS):
        found = FUNCTIONS["where"](count > k, matmul(found, found), found)
    found = FUNCTIONS["where"](size < math.inf, found, math.nan)
    return found.to(input.dtype) if short else found  # type: ignore[no-any-return]


@register("orgqr", out=True)
@keeps_as_one("input tau result")
def householder_product(input: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of I - tau_i v_i v_i^H, for input [*, m, n] and tau [*,
    k].

    v_i is 0 above the diagonal of `input`, 1 on it and the column i below it.
    Raises RuntimeError for m < n or n < k.
    """
    check_tensor("linalg.householder_product", "input", input)
    name = "torch.linalg.householder_product"
    if input.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions.")
    rows, columns = input.shape[-2:]
    if rows < columns:
        raise RuntimeError(
            f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1]"
        )
    if columns < tau.shape[-1]:
        raise RuntimeError(
            f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]"
        )
    unit = FUNCTIONS["eye"](rows, columns, dtype=input.dtype, device=input.device)
    vectors = input.tril(-1) + unit
    found: Any = unit.expand(input.shape)
    if tau.shape[-1] == 0:  # a constant, whose gradient is 0
        return FUNCTIONS["where"](found == found, found, input)  # type: ignore[no-any-return]
    return through_reflectors(vectors, tau, found)


def through_reflectors(vectors: Tensor, tau: Tensor, x: Tensor, back: bool = False) -> Tensor:
    """H_1 ... H_k x for H_i = I - tau_i v_i v_i^H with v_i a column of `vectors` [*, m, k]; `back`
    for H_k^H ... H_1^H x."""
    steps = range(tau.shape[-1])
    for i in steps if back else reversed(steps):
        v, factor = vectors[..., i : i + 1], tau[..., i, None, None]
        x = x - (factor.conj() if back else factor) * matmul(v, matmul(v.mH, x))
    return x
