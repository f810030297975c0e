"""Functions of matrices: the exponential, QR factorizations in LAPACK's form, and names from before
``torch.linalg``.

Reflectors of that form are I - tau v v^H, with v 0 above its diagonal element, 1 there, and an
entry of the packed matrix's column below (geqrf, larfg, orgqr and ormqr of LAPACK).
"""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._settings import warn_once
from ..autograd.keeps import keeps_as_one
from ..return_types import define
from .base import FUNCTIONS, METHODS, check_tensor, refuse, register, write_out
from .factor import lu_factor, lu_factor_ex
from .linalg import matmul
from .shape import constant_pad

__all__ = ["geqrf", "householder_product", "matrix_exp", "ormqr"]

GEQRF = define("geqrf", ("a", "tau"))

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


# ------------------------------------------------------------- names from before ``torch.linalg``

_GONE = "This function was deprecated since version 1.9 and is now removed."
# https://docs.pytorch.org/docs/stable/linalg.html
REMOVED = {
    "eig": (
        " `torch.linalg.eig` returns complex tensors of dtype `cfloat` or `cdouble` rather than "
        "real tensors mimicking complex tensors.\n\n"
        "L, _ = torch.eig(A) should be replaced with:\nL_complex = torch.linalg.eigvals(A)\n\n"
        "and\n\nL, V = torch.eig(A, eigenvectors=True) should be replaced with:\n"
        "L_complex, V_complex = torch.linalg.eig(A)"
    ),
    "symeig": (
        " The default behavior has changed from using the upper triangular portion of the matrix "
        "by default to using the lower triangular portion.\n\n"
        "L, _ = torch.symeig(A, upper=upper) should be replaced with:\n"
        "L = torch.linalg.eigvalsh(A, UPLO='U' if upper else 'L')\n\n"
        "and\n\nL, V = torch.symeig(A, eigenvectors=True) should be replaced with:\n"
        "L, V = torch.linalg.eigh(A, UPLO='U' if upper else 'L')"
    ),
    "lstsq": (
        " `torch.lstsq` is deprecated in favor of `torch.linalg.lstsq`.\n"
        "`torch.linalg.lstsq` has reversed arguments and does not return the QR decomposition in "
        "the returned tuple (although it returns other information about the problem).\n\n"
        "X, _ = torch.lstsq(B, A).solution[:A.size(1)]\nshould be replaced with:\n"
        "X = torch.linalg.lstsq(A, B).solution"
    ),
    "solve": (
        " `torch.solve` is deprecated in favor of `torch.linalg.solve`. `torch.linalg.solve` has "
        "its arguments reversed and does not return the LU factorization.\n\n"
        "To get the LU factorization see `torch.lu`, which can be used with `torch.lu_solve` or "
        "`torch.lu_unpack`.\nX = torch.solve(B, A).solution should be replaced with:\n"
        "X = torch.linalg.solve(A, B)"
    ),
    "matrix_rank": (
        "\nPlease use the `torch.linalg.matrix_rank` function instead. The parameter 'symmetric' "
        "was renamed in `torch.linalg.matrix_rank()` to 'hermitian'."
    ),
}


def _remove(name: str, instead: str) -> None:
    def gone(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(_GONE + instead)

    gone.__name__ = gone.__qualname__ = name
    gone.__doc__ = f"Raises RuntimeError: use torch.linalg ({name} was removed)."
    FUNCTIONS[name] = gone
    if name != "matrix_rank":  # never was a method
        METHODS[name] = gone


for _name, _instead in REMOVED.items():
    _remove(_name, _instead)


@register()
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, *, out: Any = None) -> Any:
    """(LU, pivots), and info where `get_infos` asks for it (deprecated in favour of
    torch.linalg.lu_factor and lu_factor_ex)."""
    warn_once(
        "torch.lu is deprecated in favor of torch.linalg.lu_factor / torch.linalg.lu_factor_ex and "
        "will be removed in a future PyTorch release."
    )
    factorize = lu_factor_ex if get_infos else lu_factor
    found = factorize(A, pivot=pivot, out=out)
    return found if get_infos else tuple(found)
