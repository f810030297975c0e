"""Factors of low rank of large matrices, by products with a few random vectors.

N. Halko, P.-G. Martinsson, J. Tropp, Finding structure with randomness: probabilistic algorithms
for constructing approximate matrix decompositions (2009): algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .base import FUNCTIONS, check_tensor, register
from .factor import cholesky, eigh, qr, solve_triangular, svd
from .linalg import matmul

RANK = 6  # of which one is found if none is asked for

Factors = tuple[Tensor, Tensor, Tensor]


@register(method=False)
def svd_lowrank(
    A: Any, q: int | None = RANK, niter: int | None = 2, M: Tensor | None = None
) -> Factors:
    """(U, S, V) of rank `q` with A - M = U diag(S) V^H nearly, for A [*, m, n], dense or sparse.

    Args:
        q: rather more than the rank that is hoped for.
        niter: steps of the subspace iteration; each brings U and V nearer.
        M: what to take from A first, broadcast to its shape.

    The random vectors are the generator's: repeat its seed to get the same factors.
    """
    check_tensor("svd_lowrank", "A", A)
    rank = RANK if q is None else q
    if M is not None:
        M = M.broadcast_to(A.shape)
    wide = A.shape[-2] < A.shape[-1]
    if wide:
        A, M = _adjoint(A), None if M is None else M.mH
    basis = _basis(A, rank, 2 if niter is None else niter, M)
    u, s, vh = svd(_adjoint(_product(_adjoint(A), basis, None if M is None else M.mH)), False)
    u, v = matmul(basis, u), vh.mH
    return (v, s, u) if wide else (u, s, v)


def _basis(A: Any, rank: int, count: int, M: Tensor | None) -> Tensor:
    """Orthonormal columns that span nearly what those of A - M span."""
    start = FUNCTIONS["randn"](A.shape[-1], rank, dtype=A.dtype, device=A.device)
    basis = qr(_product(A, start, M)).Q
    turned, less = _adjoint(A), None if M is None else M.mH
    for _ in range(count):
        basis = qr(_product(turned, basis, less)).Q
        basis = qr(_product(A, basis, M)).Q
    return basis  # type: ignore[no-any-return]


def _product(A: Any, x: Tensor, M: Tensor | None) -> Tensor:
    found = matmul(A, x)
    return found if M is None else found - matmul(M, x)


def _adjoint(A: Any) -> Any:
    return A.t() if A.is_sparse else A.mH


@register(method=False)
def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> Factors:
    """The principal components of A [*, m, n], m samples of n features: (U, S, V) of rank `q`.

    The columns of V are the directions, S ** 2 / (m - 1) the variances along them.

    Args:
        q: by default 6, or as many rows or columns as there are.
        center: whether to take the mean of each feature from it first.
        niter: as for `svd_lowrank`.

    Raises:
        ValueError: `q` or `niter` is negative, or `q` above min(m, n); a sparse batch.
    """
    check_tensor("pca_lowrank", "A", A)
    least = min(A.shape[-2:])
    q = min(RANK, least) if q is None else q
    if not 0 <= q <= least:
        raise ValueError(
            f"q(={q}) must be non-negative integer and not greater than min(m, n)={least}"
        )
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    if not center:
        return svd_lowrank(A, q, niter)
    if not A.is_sparse:
        return svd_lowrank(A - A.mean(-2, True), q, niter)
    if A.ndim != 2:
        raise ValueError("pca_lowrank input is expected to be 2-dimensional tensor")
    return svd_lowrank(A, q, niter, A.sum(0).to_dense() / A.shape[0])


@register(method=False)
def lobpcg(
    A: Any,
    k: int | None = None,
    B: Any = None,
    X: Tensor | None = None,
    n: int | None = None,
    iK: Any = None,
    niter: int | None = None,
    tol: float | None = None,
    largest: bool | None = None,
    method: str | None = None,
    tracker: Any = None,
    ortho_iparams: Any = None,
    ortho_fparams: Any = None,
    ortho_bparams: Any = None,
) -> tuple[Tensor, Tensor]:
    """(E [*, k], V [*, m, k]) with A V = B V diag(E) for the `k` largest, or smallest, eigenvalues
    of a symmetric A [*, m, m], dense or sparse; the vectors have length 1 in the norm of B.

    Found by the decomposition of the whole matrix, to the last digits: the further arguments, which
    say how PyTorch iterates, change nothing. Random start vectors are drawn all the same.

    Args:
        k: 1, or as many as `X` has columns.
        B: symmetric and positive definite; the identity unless given.
        X: [*, m, n], what PyTorch starts from; n: how many columns it draws otherwise.
        largest: True unless given.

    Raises:
        ValueError: m is smaller than 3 n. AssertionError: A is not square.
    """
    check_tensor("lobpcg", "A", A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise AssertionError(f"A must be square, got shape {A.shape}")
    size = A.shape[-1]
    count = (1 if X is None else X.shape[-1]) if k is None else k
    columns = (count if n is None else n) if X is None else X.shape[-1]
    if size < 3 * columns:
        raise ValueError(
            f"LOBPCG algorithm is not applicable when the number of A rows (={size}) is smaller "
            f"than 3 x the number of requested eigenpairs (={columns}): use torch.linalg.eigh"
        )
    if X is None:
        FUNCTIONS["randn"](*A.shape[:-1], columns, dtype=A.dtype, device=A.device)
    values, vectors = _pairs(_dense(A), None if B is None else _dense(B))
    if largest is None or largest:
        values, vectors = values.flip(-1), vectors.flip(-1)
    return values[..., :count], vectors[..., :count]


def _dense(A: Any) -> Tensor:
    return A.to_dense() if A.is_sparse else A  # type: ignore[no-any-return]


def _pairs(A: Tensor, B: Tensor | None) -> tuple[Tensor, Tensor]:
    """All eigenvalues of A V = B V diag(E), the smallest first, and the vectors."""
    if B is None:
        return tuple(eigh(A))  # type: ignore[return-value]
    lower = cholesky(B)
    left = solve_triangular(lower, A, upper=False)
    values, turned = eigh(solve_triangular(lower, left.mH, upper=False))
    return values, solve_triangular(lower.mH, turned, upper=True)
