"""Factorizations of matrices, and what is solved with them. Leading dimensions are a batch."""

from __future__ import annotations

from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import i32
from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import number
from graphtorch.ir.shape import broadcast

from .._deferred.tensor import Tensor
from .._settings import warn_once
from .._types import DTYPES, finfo
from ..autograd.keeps import keeps, keeps_as_one, shown_as
from ..return_types import define
from .base import FUNCTIONS, check_tensor, failing_now, register, run, write_out
from .linalg import matmul

SVD = define("linalg_svd", ("U", "S", "Vh"))
OLD_SVD = define("svd", ("U", "S", "V"))
QR = define("linalg_qr", ("Q", "R"))
EIG = define("linalg_eig", ("eigenvalues", "eigenvectors"))
EIGH = define("linalg_eigh", ("eigenvalues", "eigenvectors"))
CHOLESKY_EX = define("linalg_cholesky_ex", ("L", "info"))
INV_EX = define("linalg_inv_ex", ("inverse", "info"))
SOLVE_EX = define("linalg_solve_ex", ("result", "info"))
SLOGDET = define("linalg_slogdet", ("sign", "logabsdet"))
LU_FACTOR = define("linalg_lu_factor", ("LU", "pivots"))
LU_FACTOR_EX = define("linalg_lu_factor_ex", ("LU", "pivots", "info"))
LU = define("linalg_lu", ("P", "L", "U"))
OLD_TRIANGULAR = define("triangular_solve", ("solution", "cloned_coefficient"))
LSTSQ = define("linalg_lstsq", ("solution", "residuals", "rank", "singular_values"))
NOT_FINITE = (
    "{}: The algorithm failed to converge because the input matrix contained non-finite values."
)
NOT_FINITE_EIG = "torch.linalg.eig: input tensor should not contain infs or NaNs."


def _given(name: str, out: Any, found: Any) -> Any:
    return found if out is None else write_out(name, found, out)


# ---------------------------------------------------------------------------------- singular values


def svd(
    A: Tensor, full_matrices: bool = True, *, driver: str | None = None, out: Any = None
) -> Any:
    """A = U diag(S) Vh for A [*, m, n], S in descending order; reduced to min(m, n) without
    `full_matrices`.

    The gradient is not defined where singular values coincide, nor for the columns that only
    `full_matrices` adds. The largest component of a row of Vh (a column of U where m < n) is
    positive. Raises RuntimeError for integers and fewer than two dimensions, LinAlgError for a
    matrix with a NaN.
    """
    check_tensor("linalg.svd", "A", A)
    u, s, vh = failing_now(run("LinalgSvd", _svd, A), A)
    if full_matrices:
        u, vh = _completed(u), _completed(vh.mH).mH
    return _given("linalg.svd", out, SVD(u, s, vh))


def _svd(x: Value) -> tuple[Value, ...]:
    return ops.svd(_finite("linalg.svd", x))  # type: ignore[no-any-return]


def _finite(name: str, x: Value, lower: bool = False) -> Value:
    """Matrices, once it is known that there is no NaN in them, or in their `lower` triangles."""
    if x.rank < 2:
        return x
    read = ops.tril(x, diagonal=0) if lower else x
    missing = ops.any(ops.isnan(read), dims=(x.rank - 2, x.rank - 1), keepdim=False)
    message = NOT_FINITE.format(name)
    return ops.require(x, ops.cast(missing, dtype=i32), message=message)  # type: ignore[no-any-return]


def _completed(u: Tensor) -> Tensor:
    """Orthonormal columns [*, m, k], with m - k more."""
    rows, columns = u.shape[-2:]
    if rows == columns:
        return u
    q = run("LinalgQr", lambda v: ops.qr(v, complete=True)[0], u.detach())
    return FUNCTIONS["cat"]([u, q.narrow(-1, columns, rows - columns)], -1)


def svdvals(A: Tensor, *, driver: str | None = None, out: Any = None) -> Tensor:
    """The singular values of A [*, m, n] in descending order."""
    check_tensor("linalg.svdvals", "A", A)
    values = failing_now(run("LinalgSvd", lambda v: _svd(v)[1], A), A)
    return _given("linalg.svdvals", out, values)


def _warn_of(old: str, new: str) -> None:
    warn_once(
        f"torch.{old} is deprecated in favor of torch.linalg.{new} and will be removed in a future "
        "PyTorch release."
    )


@register("svd")
def old_svd(input: Tensor, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    """(U, S, V) with input = U diag(S) V^H (deprecated in favour of torch.linalg.svd)."""
    u, s, vh = svd(input, not some)
    if not compute_uv:
        u, vh = FUNCTIONS["zeros_like"](u), FUNCTIONS["zeros_like"](vh)
    return _given("svd", out, OLD_SVD(u, s, vh.mH))


def _tolerance(S: Tensor, shape: Any, atol: Any, rtol: Any) -> Tensor:
    """Below which a singular value counts as zero: max(atol, rtol * the largest), with PyTorch's
    defaults."""
    largest = S.amax(-1, True)
    if rtol is None:
        some = FUNCTIONS["as_tensor"](0.0 if atol is None else atol).to(S)
        rtol = FUNCTIONS["where"](some > 0, 0.0, finfo(S.dtype).eps * max(shape[-2:]))
    limits = [FUNCTIONS["as_tensor"](0.0 if t is None else t).to(S) for t in (atol, rtol)]
    absolute, relative = (t.unsqueeze(-1) if t.ndim else t for t in limits)
    return FUNCTIONS["maximum"](absolute + largest * 0, relative * largest)


@keeps("LinalgPinv", (0, ~0))
def pinv(
    A: Tensor,
    rcond: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
    out: Any = None,
) -> Tensor:
    """The Moore-Penrose inverse of A [*, m, n]; singular values within the tolerance count as zero.

    The gradient is that of matrices of the same rank: it is defined where singular values coincide.
    """
    check_tensor("linalg.pinv", "A", A)
    rtol = rcond if rtol is None else rtol
    if A.numel() == 0:
        return _given("linalg.pinv", out, FUNCTIONS["clone"](A.mH))
    source = A.detach()
    if hermitian:
        w, v = eigh(source)
        size, left, right = w.abs(), v, v.mH
        inverse = 1 / FUNCTIONS["where"](w == 0, 1.0, w)
    else:
        u, size, vh = svd(source, False)
        left, right = vh.mH, u.mH
        inverse = 1 / FUNCTIONS["where"](size == 0, 1.0, size)
    keep = size > _tolerance(size, A.shape, atol, rtol)
    inverse = FUNCTIONS["where"](keep, inverse, 0.0).to(A.dtype)
    found = run("LinalgPinv", ops.pinv_of, A, matmul(left * inverse.unsqueeze(-2), right))
    return _given("linalg.pinv", out, found)


@register(method=True)
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The Moore-Penrose inverse; see `torch.linalg.pinv`."""
    return pinv(input, rcond)


def matrix_rank(
    A: Tensor,
    tol: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
    out: Any = None,
) -> Tensor:
    """How many singular values of A [*, m, n] are larger than the tolerance."""
    check_tensor("linalg.matrix_rank", "A", A)
    A = A.detach()
    if A.numel() == 0:
        return _given("linalg.matrix_rank", out, A.new_zeros(A.shape[:-2], dtype=DTYPES["int64"]))
    size = eigvalsh(A).abs() if hermitian else svdvals(A)
    if tol is not None:
        atol, rtol = tol, 0.0
    return _given("linalg.matrix_rank", out, (size > _tolerance(size, A.shape, atol, rtol)).sum(-1))


@keeps_as_one("A B result.0")
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """The X of least norm that minimises |A X - B| for A [*, m, n], B [*, m, k].

    Args:
        driver: "gelsy" (the default), "gelsd", "gelss" or "gels". It decides, as in LAPACK, which
            results are empty: residuals (m > n and full rank) are of all but gelsy, ranks of all
            but gels, singular values of gelsd and gelss.
    """
    check_tensor("linalg.lstsq", "A", A)
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(
            "torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), "
            f"not {driver!r}"
        )
    driver = driver or "gelsy"
    vector = B.ndim == 1 or (B.ndim + 1 == A.ndim and B.shape == A.shape[:-1])
    right = B.unsqueeze(-1) if vector else B
    rows, columns = A.shape[-2:]
    solution = matmul(pinv(A, rtol=rcond), right)
    rank = matrix_rank(A, rtol=rcond)
    if rows > columns and driver != "gelsy" and bool((rank == columns).all()):
        missing = (matmul(A, solution) - right).abs().square().sum(-2)
    else:  # empty, and with a gradient as PyTorch's
        missing = solution.real.reshape(-1).narrow(0, 0, 0).clone()
    values = svdvals(A.detach()) if driver in ("gelsd", "gelss") else A.new_empty(0)
    rank = rank if driver != "gels" else A.new_empty(0, dtype=DTYPES["int64"])
    return LSTSQ(solution.squeeze(-1) if vector else solution, missing, rank, values)


# --------------------------------------------------------------------------------- q r, eigenvalues


def qr(A: Tensor, mode: str = "reduced", *, out: Any = None) -> Any:
    """A = Q R with orthonormal columns of Q; `mode` is reduced, complete, or r (no Q)."""
    check_tensor("linalg.qr", "A", A)
    if A.ndim < 2:
        raise RuntimeError("linalg.qr: The input tensor A must have at least 2 dimensions.")
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', "
            "or 'complete'"
        )
    rows, columns = A.shape[-2:]
    if mode != "complete" and rows < columns:  # the first columns decide Q: so there is a gradient
        q, first = run("LinalgQr", ops.qr, A.narrow(-1, 0, rows))
        r = FUNCTIONS["cat"]([first, matmul(q.mH, A.narrow(-1, rows, columns - rows))], -1)
    else:
        q, r = run("LinalgQr", lambda v: ops.qr(v, complete=mode == "complete"), A)
    q = A.new_empty(0) if mode == "r" else q
    return _given("linalg.qr", out, QR(q, r))


@register("qr")
def old_qr(input: Tensor, some: bool = True, *, out: Any = None) -> Any:
    """(Q, R) with input = Q R (deprecated in favour of torch.linalg.qr)."""
    _warn_of("qr", "qr")
    return _given("qr", out, QR(*qr(input, "reduced" if some else "complete")))


def eigh(A: Tensor, UPLO: str = "L", *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors) of symmetric or Hermitian A [*, n, n]; reads the triangle `UPLO`.

    The largest component of a vector (the first of such) is positive. Raises LinAlgError for a NaN
    in it.
    """
    check_tensor("linalg.eigh", "A", A)
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    found = run("LinalgEigh", _eigh, A if UPLO.upper() == "L" else A.mH)
    return _given("linalg.eigh", out, EIGH(*failing_now(found, A)))


def _eigh(x: Value) -> tuple[Value, ...]:
    if x.rank < 2 or x.shape[-1] != x.shape[-2]:
        return ops.eigh(x)  # type: ignore[no-any-return]  # which refuses it
    return ops.eigh(_finite("linalg.eigh", x, lower=True))  # type: ignore[no-any-return]


@keeps_as_one("result")
def eigvalsh(A: Tensor, UPLO: str = "L", *, out: Any = None) -> Tensor:
    """The eigenvalues of symmetric or Hermitian A [*, n, n], ascending."""
    return _given("linalg.eigvalsh", out, eigh(A, UPLO)[0])


def eig(A: Tensor, *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors) of A [*, n, n], complex: A V = V diag(L).

    The vectors, columns of V, have length 1. The gradient is defined where all eigenvalues differ,
    for what does not change when a vector is multiplied by e^(i phi); else it raises RuntimeError
    when it is computed. Raises RuntimeError for integers, for matrices that are not square, and for
    an inf or NaN in one.
    """
    check_tensor("linalg.eig", "A", A)
    return _given("linalg.eig", out, EIG(*failing_now(run("LinalgEig", _eig, A), A)))


def _eig(x: Value) -> tuple[Value, ...]:
    if x.rank < 2 or not (x.dtype.is_floating_point or x.dtype.is_complex):
        return ops.eig(x)  # type: ignore[no-any-return]  # which refuses it
    size = ops.abs(x)
    good = ops.lt(size, number(float("inf"), size.dtype))
    missing = ops.any(ops.logical_not(good), dims=(x.rank - 2, x.rank - 1), keepdim=False)
    finite = ops.require(x, ops.cast(missing, dtype=i32), message=NOT_FINITE_EIG, kind="runtime")
    return ops.eig(finite)  # type: ignore[no-any-return]


@keeps_as_one("result")
def eigvals(A: Tensor, *, out: Any = None) -> Tensor:
    """The eigenvalues of A [*, n, n], complex, in no particular order."""
    return _given("linalg.eigvals", out, eig(A)[0])


# ----------------------------------------------------------------------------------------- Cholesky


def cholesky_ex(
    A: Tensor, *, upper: bool = False, check_errors: bool = False, out: Any = None
) -> Any:
    """(L, info) with A = L L^H (or U^H U); info is the order of the first minor that is not
    positive."""
    check_tensor("linalg.cholesky_ex", "A", A)
    if check_errors:
        return CHOLESKY_EX(
            cholesky(A, upper=upper), A.new_zeros(A.shape[:-2], dtype=DTYPES["int32"])
        )
    factor, info = run("LinalgCholeskyEx", ops.cholesky, A.mH if upper else A)
    return _given("linalg.cholesky_ex", out, CHOLESKY_EX(factor.mH if upper else factor, info))


def cholesky(A: Tensor, *, upper: bool = False, out: Any = None) -> Tensor:
    """The lower (or upper) triangular L with A = L L^H for positive-definite A [*, n, n].

    Raises LinAlgError where a matrix is not positive-definite.
    """
    check_tensor("linalg.cholesky", "A", A)

    def apply(v: Value) -> Value:
        return ops.require(  # type: ignore[no-any-return]
            *ops.cholesky(v),
            message="linalg.cholesky: The factorization could not be completed because the input "
            "is not positive-definite",
        )

    factor = failing_now(run("LinalgCholeskyEx", apply, A.mH if upper else A), A)
    return _given("linalg.cholesky", out, factor.mH if upper else factor)


@register("cholesky")
def old_cholesky(input: Tensor, upper: bool = False, *, out: Any = None) -> Tensor:
    """The Cholesky factor (deprecated in favour of torch.linalg.cholesky)."""
    _warn_of("cholesky", "cholesky")
    return cholesky(input, upper=upper, out=out)


@register(out=True)
@keeps_as_one("input L result")
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The X with A X = input, for the Cholesky factor `L` of A."""
    lower = L.mH if upper else L
    return solve_triangular(lower.mH, solve_triangular(lower, input, upper=False), upper=True)


@register(out=True)
@keeps_as_one("input result")
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of the matrix whose Cholesky factor `input` is."""
    info = (input.diagonal(0, -2, -1) == 0).any(-1).to(DTYPES["int32"])
    factor = run("CholeskyInverse", lambda v, i: ops.require(v, i, message=NO_FACTOR), input, info)
    factor = failing_now(factor, input)
    unit = FUNCTIONS["eye"](input.shape[-1], dtype=input.dtype, device=input.device).expand(
        input.shape
    )
    return cholesky_solve(unit, factor, upper)


# ------------------------------------------------------------------------------------- L U, solving


def lu_factor_ex(
    A: Tensor, *, pivot: bool = True, check_errors: bool = False, out: Any = None
) -> Any:
    """(LU, pivots, info): both factors in one matrix; info is the position of the first zero
    pivot."""
    return _given(
        "linalg.lu_factor_ex", out, _lu_factor("torch.linalg.lu_factor_ex", A, pivot, check_errors)
    )


@keeps_as_one("result.0 result.1")
def _lu_factor(name: str, A: Tensor, pivot: bool, check_errors: bool) -> Any:
    check_tensor("linalg.lu_factor_ex", "A", A)
    if not pivot:
        raise RuntimeError("linalg.lu_factor: LU without pivoting is not implemented on the CPU")
    packed, _, pivots, info = run("LinalgLuFactorEx", ops.lu, A)
    if check_errors:

        def apply(v: Value, i: Value) -> Value:
            return ops.require(v, i, message=SINGULAR.format(name), kind="runtime")  # type: ignore[no-any-return]

        packed = failing_now(run("LinalgLuFactorEx", apply, packed, info), A)
    return LU_FACTOR_EX(packed, (pivots + 1).to(DTYPES["int32"]), info)  # LAPACK counts rows from 1


def lu_factor(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """(LU, pivots) of A [*, m, n] for `lu_solve`. Raises RuntimeError where a diagonal element of U
    is 0."""
    found = _lu_factor("torch.linalg.lu_factor", A, pivot, True)
    return _given("linalg.lu_factor", out, LU_FACTOR(found.LU, found.pivots))


@keeps_as_one("result")
def lu(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """(P, L, U) with A = P L U for A [*, m, n]."""
    check_tensor("linalg.lu", "A", A)
    packed, order, _, _ = run("LinalgLuFactorEx", ops.lu, A)
    return _given("linalg.lu", out, LU(_permutation(order, A.dtype), *_factors(packed)))


def _factors(packed: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = packed.shape[-2:]
    k = min(rows, columns)
    unit = FUNCTIONS["eye"](rows, k, dtype=packed.dtype, device=packed.device)
    lower = packed.narrow(-1, 0, k).tril(-1) + unit
    return lower, packed.narrow(-2, 0, k).triu()


def _permutation(order: Tensor, dtype: Any) -> Tensor:
    """P [*, m, m] with P[order[i], i] = 1."""
    rows = FUNCTIONS["arange"](order.shape[-1], device=order.device)
    return (order.unsqueeze(-2) == rows.unsqueeze(-1)).to(dtype)


def _order(pivots: Tensor, rows: int) -> Tensor:
    """The order of rows that exchanges, counted from 1, lead to."""
    order = FUNCTIONS["arange"](rows, device=pivots.device)
    order = order.expand((*pivots.shape[:-1], rows)).contiguous()
    for i in range(pivots.shape[-1]):
        at = (pivots.select(-1, i).to(DTYPES["int64"]) - 1).unsqueeze(-1)
        here, there = order.narrow(-1, i, 1), order.gather(-1, at)
        order = order.scatter(-1, at, here).slice_scatter(there, -1, i, i + 1)
    return order


@register(method=False, function=True)
def lu_unpack(
    LU_data: Tensor,
    LU_pivots: Tensor,
    unpack_data: bool = True,
    unpack_pivots: bool = True,
    *,
    out: Any = None,
) -> Any:
    """(P, L, U) of what `torch.linalg.lu_factor` returned."""
    nothing = LU_data.new_empty(0)
    factors = _factors(LU_data) if unpack_data else (nothing, nothing)
    P = (
        _permutation(_order(LU_pivots, LU_data.shape[-2]), LU_data.dtype)
        if unpack_pivots
        else nothing
    )
    return _given("lu_unpack", out, LU(P, *factors))


@keeps_as_one("LU pivots", LU="result")
def lu_solve(
    LU: Tensor,
    pivots: Tensor,
    B: Tensor,
    *,
    left: bool = True,
    adjoint: bool = False,
    out: Any = None,
) -> Tensor:
    """The X with A X = B (X A = B without `left`), for what `lu_factor` made of A."""
    check_tensor("linalg.lu_solve", "LU", LU)
    if not left:
        turned = lu_solve(LU, pivots, B.mH, adjoint=not adjoint).mH
        return _given("linalg.lu_solve", out, turned)
    order, (lower, upper) = _order(pivots, LU.shape[-2]), _factors(LU)
    P = _permutation(order, LU.dtype)
    if adjoint:
        inner = solve_triangular(upper.mH, B, upper=False)
        found = matmul(P, solve_triangular(lower.mH, inner, upper=True, unitriangular=True))
    else:
        inner = solve_triangular(lower, matmul(P.mT, B), upper=False, unitriangular=True)
        found = solve_triangular(upper, inner, upper=True)
    return _given("linalg.lu_solve", out, found)


@register("lu_solve")
def old_lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor, *, out: Any = None) -> Tensor:
    """The X with A X = b (deprecated in favour of torch.linalg.lu_solve)."""
    _warn_of("lu_solve", "lu_solve")
    return lu_solve(LU_data, LU_pivots, b, out=out)


def solve_triangular(
    A: Tensor,
    B: Tensor,
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
    out: Any = None,
) -> Tensor:
    """The X with A X = B (X A = B without `left`) for triangular A [*, n, n]; batches broadcast."""
    check_tensor("linalg.solve_triangular", "A", A)
    if not left:
        found = solve_triangular(A.mT, B.mT, upper=not upper, unitriangular=unitriangular).mT
        return _given("linalg.solve_triangular", out, found)
    _check_solve("linalg.solve_triangular", A, B)
    a, b = _broadcast(A, B)
    attrs = {"upper": bool(upper), "unit": bool(unitriangular)}
    found = run("LinalgSolveTriangular", ops.triangular_solve, a, b, **attrs)
    return _given("linalg.solve_triangular", out, found)


def _check_solve(name: str, A: Tensor, B: Tensor) -> None:
    check_tensor(name, "B", B, 2)
    if A.ndim < 2 or B.ndim < 2:
        raise RuntimeError(
            f"{name}: The input tensor A must have at least 2 dimensions."
            if A.ndim < 2
            else f"{name}: The input tensor B must have at least 2 dimensions."
        )
    if A.shape[-1] != A.shape[-2]:
        raise RuntimeError(
            f"{name}: A must be batches of square matrices, but they are {A.shape[-2]} by "
            f"{A.shape[-1]} matrices"
        )
    if A.shape[-1] != B.shape[-2]:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation AX = B "
            f"({A.shape[-2]}x{A.shape[-1]} and {B.shape[-2]}x{B.shape[-1]})"
        )
    if A.dtype is not B.dtype:
        raise RuntimeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type {A.dtype} and "
            f"B of type {B.dtype} instead"
        )


def _broadcast(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    batch = broadcast(a._type.shape[:-2], b._type.shape[:-2])
    return a.expand((*batch, *a.shape[-2:])), b.expand((*batch, *b.shape[-2:]))


@register("triangular_solve")
@keeps_as_one("b A result.0")
def old_triangular_solve(
    b: Tensor,
    A: Tensor,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
    *,
    out: Any = None,
) -> Any:
    """(X, A) with A X = b (deprecated in favour of torch.linalg.solve_triangular)."""
    _warn_of("triangular_solve", "solve_triangular")
    a, upper = (A.mT, not upper) if transpose else (A, upper)
    found = OLD_TRIANGULAR(
        solve_triangular(a, b, upper=upper, unitriangular=unitriangular), A.clone()
    )
    return _given("triangular_solve", out, found)


SINGULAR = (
    "{}: a diagonal element of U is zero and using it on lu_solve would result in a division by "
    "zero. If you still want to perform the factorization, consider calling linalg.lu_factor_ex(A, "
    "pivot)"
)
UNSOLVABLE = "torch.linalg.solve: The solver failed because the input matrix is singular."
NO_FACTOR = (
    "cholesky_inverse: A diagonal element is zero, the inversion could not be completed because "
    "the input matrix is singular."
)
NO_INVERSE = (
    "linalg.inv: A diagonal element is zero, the inversion could not be completed because the "
    "input matrix is singular."
)


def _solution(A: Tensor, B: Tensor, message: str | None, name: str) -> tuple[Tensor, Tensor]:
    """X and info; with `message` the run fails where A is singular."""
    a, b = _broadcast(A, B)

    def apply(x: Value, y: Value) -> tuple[Value, Value]:
        packed, order, _, info = ops.lu(x)
        if message is not None:
            packed = ops.require(packed, info, message=message)
        place = ops.expand(ops.reshape(order, shape=(*order.shape, 1)), shape=y.shape)
        moved = ops.gather(y, place, dim=y.rank - 2)
        inner = ops.triangular_solve(packed, moved, upper=False, unit=True)
        return ops.triangular_solve(packed, inner, upper=True), info

    found = run(name, apply, a, b)
    return found if message is None else failing_now(found, A, B)  # type: ignore[no-any-return]


def _is_vector(A: Tensor, B: Tensor) -> bool:
    return B.ndim == 1 or (B.ndim + 1 == A.ndim and tuple(B.shape) == tuple(A.shape[:-1]))


def _solve(
    name: str, A: Tensor, B: Tensor, left: bool, message: str | None
) -> tuple[Tensor, Tensor]:
    check_tensor(name, "A", A)
    check_tensor(name, "B", B, 2)
    vector = _is_vector(A, B)
    right = B.unsqueeze(-1) if vector else B
    if not left and not vector:
        found, info = _solve(name, A.mT, right.mT, True, message)
        return found.mT, info
    _check_solve(name, A, right)
    found, info = _solution(A, right, message, "LinalgSolveEx")
    return (found.squeeze(-1) if vector else found), info


@keeps("LinalgSolveEx", (0, ~0))
def solve(A: Tensor, B: Tensor, *, left: bool = True, out: Any = None) -> Tensor:
    """The X with A X = B (X A = B without `left`) for A [*, n, n]. Raises LinAlgError where A is
    singular."""
    return _given("linalg.solve", out, _solve("linalg.solve", A, B, left, UNSOLVABLE)[0])


def solve_ex(
    A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False, out: Any = None
) -> Any:
    """(X, info): as `solve`, with info in the place of an error."""
    found = _solve("linalg.solve", A, B, left, UNSOLVABLE if check_errors else None)
    return _given("linalg.solve_ex", out, SOLVE_EX(*found))


@keeps("LinalgInvEx", (~0,))
def inv_ex(A: Tensor, *, check_errors: bool = False, out: Any = None) -> Any:
    """(inverse, info): as `inv`, with info in the place of an error."""
    check_tensor("linalg.inv", "A", A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(
            f"linalg.inv: A must be batches of square matrices, but got shape {list(A.shape)}"
        )
    unit = FUNCTIONS["eye"](A.shape[-1], dtype=A.dtype, device=A.device).expand(A.shape)
    found = INV_EX(*_solution(A, unit, NO_INVERSE if check_errors else None, "LinalgInvEx"))
    return _given("linalg.inv_ex", out, found)


def inv(A: Tensor, *, out: Any = None) -> Tensor:
    """The inverse of A [*, n, n]. Raises LinAlgError where a matrix is singular."""
    return _given("linalg.inv", out, inv_ex(A, check_errors=True)[0])


@register(out=True)
def inverse(input: Tensor) -> Tensor:
    """The inverse of square matrices; see `torch.linalg.inv`."""
    return inv(input)


# ------------------------------------------------------------------------------------- determinants


def _diagonal_and_sign(A: Tensor) -> tuple[Tensor, Tensor]:
    """The diagonal of U, and the sign of the permutation."""
    check_tensor("linalg.det", "A", A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(
            f"linalg.det: A must be batches of square matrices, but got shape {list(A.shape)}"
        )
    packed, _, pivots, _ = run("LinalgLuFactorEx", ops.lu, A)
    moved = pivots != FUNCTIONS["arange"](A.shape[-1], device=A.device)
    sign = 1 - 2 * (moved.sum(-1) % 2)
    return packed.diagonal(0, -2, -1), sign


@register()
@shown_as("LinalgDet")
@keeps_as_one("input result")
def det(input: Tensor, *, out: Any = None) -> Tensor:
    """The determinant of square matrices [*, n, n]."""
    diagonal, sign = _diagonal_and_sign(input)
    return _given("linalg.det", out, diagonal.prod(-1) * sign.to(input.dtype))


@register()
@keeps_as_one("input result.0")
def slogdet(input: Tensor, *, out: Any = None) -> Any:
    """(sign, log |determinant|) of square matrices [*, n, n]."""
    diagonal, sign = _diagonal_and_sign(input)
    size = diagonal.abs()
    signs = (diagonal / size if input.dtype.is_complex else diagonal.sign()).prod(-1)
    return _given("linalg.slogdet", out, SLOGDET(signs * sign.to(input.dtype), size.log().sum(-1)))


@register()
@keeps_as_one("input")
def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant: -inf for singular matrices, nan where it is negative."""
    if input.dtype.is_complex:
        return det(input).log()
    sign, size = slogdet(input)
    return FUNCTIONS["where"](sign < 0, float("nan"), size)
