"""QR factorisations in the form of LAPACK: reflectors below the diagonal, and their factors.

A reflector is I - tau v v^H, with v 0 above its diagonal element, 1 there, and an entry of the
packed matrix's column below. Formulas: LAPACK's geqrf, larfg and ormqr.
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from ..return_types import define
from .base import FUNCTIONS, check_tensor, refuse, register, write_out
from .matrix_functions import through_reflectors
from .shape import constant_pad

GEQRF = define("geqrf", ("a", "tau"))


@register()
def geqrf(input: Tensor, *, out: Any = None) -> Any:
    """(a, tau): R on and above the diagonal of `a`, reflectors below, for matrices [*, m, n].

    Raises: RuntimeError: fewer than two dimensions. NotImplementedError: integers.
    """
    check_tensor("geqrf", "input", input)
    if input.ndim < 2:
        raise RuntimeError(f"torch.geqrf: input must have at least 2 dimensions, got {input.ndim}")
    refuse("geqrf_cpu", input._type.dtype, "bool", "integer")
    rest, columns, rows, taus = input, [], [], []
    for _ in range(min(input.shape[-2:])):
        column, tau, rest = _reflected(rest)
        columns.append(column)  # a column from its diagonal element on
        rows.append(rest.narrow(-2, 0, 1))
        taus.append(tau)
        rest = rest.narrow(-2, 1, rest.shape[-2] - 1)
    found = GEQRF(_packed(input, columns, rows), _joined(input, taus))
    return found if out is None else write_out("geqrf", found, out)


def _reflected(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first column's element of R and reflector, its tau, and the other columns reflected."""
    alpha, below = x[..., :1, :1], x[..., 1:, :1]
    square = (below.abs() ** 2).sum(-2, keepdim=True)
    idle = square == 0  # there is nothing to reflect, nor to turn
    if alpha.is_complex():
        idle = idle.logical_and(FUNCTIONS["imag"](alpha) == 0)
    size = FUNCTIONS["where"](idle, 1.0, alpha.abs() ** 2 + square).sqrt()
    real = FUNCTIONS["real"](alpha)
    beta = FUNCTIONS["where"](idle, real, FUNCTIONS["where"](real < 0, size, -size))
    tau = FUNCTIONS["where"](idle, 0.0, (beta - alpha) / FUNCTIONS["where"](idle, 1.0, beta))
    below = below / FUNCTIONS["where"](idle, 1.0, alpha - beta)
    reflector = FUNCTIONS["cat"]([FUNCTIONS["ones_like"](alpha), below], -2)
    others = x.narrow(-1, 1, x.shape[-1] - 1)
    others = others - tau.conj() * reflector @ (reflector.mH @ others)
    return FUNCTIONS["cat"]([beta.to(x.dtype), below], -2), tau[..., 0, 0].to(x.dtype), others


def _packed(x: Tensor, columns: list[Tensor], rows: list[Tensor]) -> Tensor:
    made = FUNCTIONS["zeros_like"](x)
    height, width = x.shape[-2:]
    for i, (column, row) in enumerate(zip(columns, rows, strict=True)):
        made = made + constant_pad(column, (i, width - i - 1, i, 0))
        made = made + constant_pad(row, (i + 1, 0, i, height - i - 1))
    return made


def _joined(x: Tensor, taus: list[Tensor]) -> Tensor:
    return FUNCTIONS["stack"](taus, -1) if taus else x.new_zeros((*x.shape[:-2], 0))


def _check_reflectors(name: str, input: Tensor, tau: Tensor, other: Tensor, left: bool) -> None:
    for key, x in (("input", input), ("other", other)):
        if x.ndim < 2:
            raise RuntimeError(f"{name}: {key} must have at least 2 dimensions.")
    side = -2 if left else -1
    if other.shape[side] < tau.shape[-1]:
        raise RuntimeError(
            f"{name}: other.shape[{side}] must be greater than or equal to tau.shape[-1]"
        )
    if input.shape[-2] != other.shape[side]:
        raise RuntimeError(
            f"{name}: other.shape[{side}] must be equal to input.shape[-2], but got "
            f"{other.shape[side]} and {input.shape[-2]}"
        )
    if input.shape[-1] < tau.shape[-1]:
        raise RuntimeError(
            f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]"
        )
    for key, x in (("tau", tau), ("other", other)):
        if x.dtype is not input.dtype:
            raise RuntimeError(
                f"{name}: Expected input and {key} to have the same dtype, but input has dtype "
                f"{input.dtype} and {key} has dtype {x.dtype}"
            )


@register()
def ormqr(
    input: Tensor,
    tau: Tensor,
    other: Tensor,
    left: bool = True,
    transpose: bool = False,
    *,
    out: Any = None,
) -> Tensor:
    """Q @ other (other @ Q without `left`; Q^H with `transpose`) for the square Q = H_1 ... H_k of
    the reflectors in `input` [*, m, k] and `tau` [*, k].

    Raises: RuntimeError: sizes or dtypes that do not fit.
    """
    for i, (key, x) in enumerate((("input", input), ("tau", tau), ("other", other)), 1):
        check_tensor("ormqr", key, x, i)
    _check_reflectors("torch.ormqr", input, tau, other, left)
    rows, columns = input.shape[-2:]
    unit = FUNCTIONS["eye"](rows, columns, dtype=input.dtype, device=input.device)
    vectors = input.tril(-1) + unit
    found = other if left else other.mH
    found = through_reflectors(vectors, tau, found, back=transpose == left)
    found = found if left else found.mH
    return found if out is None else write_out("ormqr", found, out)
