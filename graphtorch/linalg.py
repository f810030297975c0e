"""Norms and products of vectors and matrices, laid out as PyTorch's module of this name."""

from __future__ import annotations

import math
from typing import Any

from ._autocast import lower_precision
from ._ops.base import FUNCTIONS, axis_of, write_out
from ._ops.linalg import matmul, matrix_power
from ._ops.reduce import vector_norm as _vector_norm
from .tensor import Tensor


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Tensor:
    """The p-norm over `dim`, or of all elements; `ord` may be inf, -inf and 0."""
    found = _vector_norm(x, ord, dim, keepdim, dtype=dtype)
    return found if out is None else write_out("linalg.vector_norm", found, out)


def matrix_norm(
    A: Tensor,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: Any = None,
    out: Any = None,
) -> Tensor:
    """A norm of matrices in two dimensions: 'fro', 1, -1, inf or -inf.

    Raises:
        RuntimeError: fewer than two dimensions, an unknown `ord`, or one that needs singular values.
    """
    if A.ndim < 2:
        raise RuntimeError(
            f"linalg.matrix_norm: The input tensor A must have at least 2 dimensions, but got {A.ndim}."
        )
    row, column = (axis_of(d, A.ndim) for d in dim)
    if row == column:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord == "fro":
        found = _vector_norm(A, 2, (row, column), keepdim, dtype=dtype)
    elif isinstance(ord, (int, float)) and (abs(ord) == 1 or math.isinf(ord)):
        found = _line_norm(A if dtype is None else A.to(dtype), ord, row, column, keepdim)
    else:
        raise RuntimeError(
            f"linalg.matrix_norm: ord {ord!r} is not available: expected 'fro', 1, -1, inf or -inf"
        )
    return found if out is None else write_out("linalg.matrix_norm", found, out)


def _line_norm(A: Tensor, ord: float, row: int, column: int, keepdim: bool) -> Tensor:
    along, across = (column, row) if math.isinf(ord) else (row, column)
    sums = A.abs().sum(along, keepdim=True)
    found = FUNCTIONS["amax" if ord > 0 else "amin"](sums, across, True)
    if keepdim:
        return found
    low, high = sorted((row, column))
    return found.squeeze(high).squeeze(low)


def norm(
    A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, out: Any = None, dtype: Any = None
) -> Tensor:
    """A vector norm, or a matrix norm where `ord` is given for two dimensions."""
    pair = isinstance(dim, (tuple, list)) and len(dim) == 2
    if ord is not None and (pair or (dim is None and A.ndim == 2)):
        return matrix_norm(A, ord, dim if pair else (-2, -1), keepdim, dtype=dtype, out=out)
    if isinstance(ord, str):
        raise RuntimeError(
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D."
        )
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype, out=out)


def multi_dot(tensors: Any, *, out: Any = None) -> Tensor:
    """The product of several matrices; the first and last may be vectors."""
    found = tensors[0]
    for t in tensors[1:]:
        found = matmul(found, t)
    return found if out is None else write_out("linalg.multi_dot", found, out)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of three elements."""
    return FUNCTIONS["cross"](input, other, dim)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, as a view."""
    return FUNCTIONS["diagonal"](A, offset, dim1, dim2)


@lower_precision
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Sums of products along `dim`, the first operand conjugated."""
    return (x.conj() * y).sum(dim)


__all__ = [
    "cross", "diagonal", "matmul", "matrix_norm", "matrix_power", "multi_dot", "norm", "vecdot",
    "vector_norm",
]
