"""Norms and products of vectors and matrices, laid out as PyTorch's module of this name."""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir.ops.require import LinAlgError

from ._deferred.tensor import Tensor
from ._ops.accept import accepting
from ._ops.autocast import lower_precision, single_precision_on_gpus
from ._ops.base import FUNCTIONS, axis_of, check_tensor, write_out
from ._ops.factor import (
    cholesky,
    cholesky_ex,
    det,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    inv,
    inv_ex,
    lstsq,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    matrix_rank,
    pinv,
    qr,
    slogdet,
    solve,
    solve_ex,
    solve_triangular,
    svd,
    svdvals,
)
from ._ops.linalg import matmul, matrix_power
from ._ops.matrix_functions import householder_product, matrix_exp
from ._ops.norms import vector_norm as _vector_norm


@single_precision_on_gpus
def vector_norm(
    x: Tensor,
    ord: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    out: Any = None,
) -> Tensor:
    """The p-norm over `dim`, or of all elements; `ord` may be inf, -inf and 0."""
    found = _vector_norm(x, ord, dim, keepdim, dtype=dtype)
    return found if out is None else write_out("linalg.vector_norm", found, out)


@single_precision_on_gpus
def matrix_norm(
    A: Tensor,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: Any = None,
    out: Any = None,
) -> Tensor:
    """A norm of the matrices in two dimensions: 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2.

    Raises:
        RuntimeError: fewer than two dimensions, integers, or an unknown `ord`.
    """
    check_tensor("linalg.matrix_norm", "A", A)
    if A.ndim < 2:
        raise RuntimeError(
            "linalg.matrix_norm: The input tensor A must have at least 2 dimensions, but got "
            f"{A.ndim}."
        )
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {dim}")
    row, column = (axis_of(d, A.ndim) for d in dim)
    if row == column:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({dim[0]}, {dim[1]})")
    A = A if dtype is None else A.to(dtype)
    if ord == "fro":
        found = _vector_norm(A, 2, (row, column), keepdim)
    elif ord == "nuc" or (_is_number(ord) and abs(ord) == 2):
        found = _spectral_norm(A, ord, row, column, keepdim)
    elif _is_number(ord) and (abs(ord) == 1 or math.isinf(ord)):
        found = _line_norm(A, ord, row, column, keepdim)
    else:
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    return found if out is None else write_out("linalg.matrix_norm", found, out)


def _is_number(ord: Any) -> bool:
    return isinstance(ord, (int, float)) and not isinstance(ord, bool)


def _spectral_norm(A: Tensor, ord: Any, row: int, column: int, keepdim: bool) -> Tensor:
    """The sum, the largest or the smallest of the singular values."""
    values = svdvals(A.movedim((row, column), (-2, -1)))
    found = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
    low, high = sorted((row, column))
    return found.unsqueeze(low).unsqueeze(high) if keepdim else found


def _line_norm(A: Tensor, ord: float, row: int, column: int, keepdim: bool) -> Tensor:
    along, across = (column, row) if math.isinf(ord) else (row, column)
    sums = A.abs().sum(along, keepdim=True)
    found = FUNCTIONS["amax" if ord > 0 else "amin"](sums, across, True)
    if keepdim:
        return found
    low, high = sorted((row, column))
    return found.squeeze(high).squeeze(low)


def norm(
    A: Tensor,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    *,
    out: Any = None,
    dtype: Any = None,
) -> Tensor:
    """A vector norm, or a matrix norm where `ord` is given for two dimensions."""
    pair = isinstance(dim, (tuple, list)) and len(dim) == 2
    if ord is not None and (pair or (dim is None and A.ndim == 2)):
        return matrix_norm(A, ord, dim if pair else (-2, -1), keepdim, dtype=dtype, out=out)
    if isinstance(ord, str) or (ord is not None and dim is None and A.ndim > 2):
        raise RuntimeError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
            f"{A.ndim}D."
        )
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype, out=out)


def cond(A: Tensor, p: Any = None, *, out: Any = None) -> Tensor:
    """The condition number of A [*, m, n] in a matrix norm: the norm times that of the inverse."""
    if p is None or (_is_number(p) and abs(p) == 2):
        values = svdvals(A)
        found = values[..., -1] / values[..., 0] if p == -2 else values[..., 0] / values[..., -1]
    else:
        inverse, info = inv_ex(A)
        found = matrix_norm(A, p) * matrix_norm(inverse, p)
        found = FUNCTIONS["where"](info == 0, found, math.inf)
    return found if out is None else write_out("linalg.cond", found, out)


def tensorinv(A: Tensor, ind: int = 2, *, out: Any = None) -> Tensor:
    """The inverse of the map from the last dimensions to the first `ind`, as a tensor."""
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    rows, columns = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if math.prod(rows) != math.prod(columns):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {math.prod(columns)} != {math.prod(rows)}"
        )
    found = inv(A.reshape(math.prod(rows), -1)).reshape((*columns, *rows))
    return found if out is None else write_out("linalg.tensorinv", found, out)


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None, *, out: Any = None) -> Tensor:
    """The X with tensordot(A, X, X.ndim) = B; `dims` are moved to the end of A first."""
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = tuple(A.shape[B.ndim :])
    found = solve(A.reshape(B.numel(), -1), B.reshape(-1)).reshape(shape)
    return found if out is None else write_out("linalg.tensorsolve", found, out)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers 0, 1, ..., N - 1 of vectors [*, n], as a new last dimension; numbers are vectors
    [1]."""
    x = x if x.ndim else x.unsqueeze(0)
    count = x.shape[-1] if N is None else N
    if count <= 1:
        raise RuntimeError("N must be greater than 1.")
    ones = FUNCTIONS["ones_like"](x).unsqueeze(-1)
    return FUNCTIONS["cat"]([ones, x.unsqueeze(-1).expand((*x.shape, count - 1)).cumprod(-1)], -1)


def multi_dot(tensors: Any, *, out: Any = None) -> Tensor:
    """The product of several matrices; the first and last may be vectors."""
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    found = tensors[0]
    for t in tensors[1:]:
        found = matmul(found, t)
    return found if out is None else write_out("linalg.multi_dot", found, out)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of three elements."""
    if input.ndim != other.ndim:
        raise RuntimeError(
            "linalg.cross: inputs must have the same number of dimensions, but got "
            f"{input.ndim} and {other.ndim}."
        )
    return FUNCTIONS["cross"](input, other, dim)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, as a view."""
    return FUNCTIONS["diagonal"](A, offset, dim1, dim2)


@lower_precision
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Sums of products along `dim`, the first operand conjugated."""
    return (x.conj() * y).sum(dim)


__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]

for _name in __all__:
    globals()[_name] = accepting(_name, globals()[_name], __name__)
