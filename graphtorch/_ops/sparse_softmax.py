"""Of ``torch.sparse``: softmax over the elements that are there, and matrices of diagonals."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir.dtype import SCALAR_NAMES, i64

from .._deferred.tensor import Tensor
from .._types import layout, sparse_coo, sparse_csr
from ..autograd.keeps import shown_as
from .base import FUNCTIONS, axis_of, elements_for_size, refuse
from .sparse import SparseTensor, made


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> SparseTensor:
    """exp(x) over its sum along `dim`, of the elements that are there: others count as minus
    infinity. With a gradient.

    Raises: NotImplementedError: a dense tensor, or integers. IndexError: no such dimension.
    """
    return _along("softmax", "SparseSoftmax", input, dim, dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> SparseTensor:
    """The logarithm of `softmax`, without overflow."""
    return _along("log_softmax", "SparseLogSoftmax", input, dim, dtype)


def _along(name: str, node: str, input: Tensor, dim: int, dtype: Any) -> SparseTensor:
    if not isinstance(input, SparseTensor):
        raise NotImplementedError(
            f"torch.sparse.{name} needs a sparse tensor: call .to_sparse() on this one, or use "
            f"torch.{name}"
        )
    axis = axis_of(dim, input.ndim)
    x = (input if dtype is None else input.to(dtype)).coalesce()
    indices, values = x._pair
    refuse(name, values._type.dtype, "bool", "integer")
    if axis >= x.sparse_dim():
        found = getattr(values, name)(axis - x.sparse_dim() + 1)
    else:
        found = shown_as(node)(_of_groups)(values, *_groups(indices, axis), name)
    return x._with(found)


def _groups(indices: Tensor, axis: int) -> tuple[Tensor, int]:
    """For each entry the number of the line along `axis` that it is in, and how many there are."""
    rest = np.delete(elements_for_size("sparse softmax", indices, "use a dense one"), axis, 0)
    lines, inverse = np.unique(rest, axis=1, return_inverse=True)
    return FUNCTIONS["tensor"](inverse.reshape(-1).astype(np.int64), device=indices.device), max(
        lines.shape[1], 1
    )


def _of_groups(values: Tensor, at: Tensor, count: int, name: str) -> Tensor:
    zeros = values.new_zeros((count, *values.shape[1:]))
    top = zeros.index_reduce(0, at, values.detach(), "amax", include_self=False)
    shifted = values - top.index_select(0, at)
    powers = shifted.exp()
    total = zeros.index_add(0, at, powers).index_select(0, at)
    return shifted - total.log() if name == "log_softmax" else powers / total


def spdiags(diagonals: Tensor, offsets: Tensor, shape: Any, layout: layout | None = None) -> Any:
    """The sparse matrix of `shape` with the rows of `diagonals` [k, n] (or [n]) on the diagonals
    `offsets` [k]: the element of column j is that of column j of the row.

    Raises: RuntimeError: an offset twice, or not int64; sizes that do not fit; another layout.
    """
    rows = diagonals if diagonals.ndim == 2 else diagonals.unsqueeze(0)
    where = offsets if offsets.ndim else offsets.unsqueeze(0)
    _check_diagonals(rows, where, shape, layout)
    places: list[np.ndarray] = []
    numbers = elements_for_size("spdiags", where, "torch.diagonal_scatter keeps the size")
    for row, offset in enumerate(numbers.tolist()):
        columns = np.arange(max(offset, 0), min(rows.shape[1], shape[0] + offset, shape[1]))
        places.append(np.stack([columns - offset, columns, np.full_like(columns, row)]))
    i, j, row = (
        FUNCTIONS["tensor"](line.astype(np.int64), device=rows.device)
        for line in np.concatenate(places, 1)
    )
    found = made(FUNCTIONS["stack"]([i, j]), rows[row, j], tuple(shape), i.shape[0] < 2)
    return found.to_sparse_csr() if layout is sparse_csr else found


def _check_diagonals(rows: Tensor, offsets: Tensor, shape: Any, wanted: Any) -> None:
    if len(shape) != 2:
        raise RuntimeError(f"Output shape must be 2d, but got {len(shape)} sizes")
    if rows.ndim != 2:
        raise RuntimeError(f"Diagonals must be vector or matrix, but got {rows.ndim} dimensions")
    if offsets.ndim != 1:
        raise RuntimeError("Offsets must be scalar or vector")
    if rows.shape[0] != offsets.shape[0]:
        raise RuntimeError(
            f"Number of diagonals ({rows.shape[0]}) does not match the number of offsets "
            f"({offsets.shape[0]})"
        )
    if offsets._type.dtype is not i64:
        raise RuntimeError(
            f"Offset Tensor must have dtype Long but got {SCALAR_NAMES[offsets._type.dtype]}"
        )
    if len(set(offsets.tolist())) != offsets.shape[0]:
        raise RuntimeError("Offset tensor contains duplicate values")
    if wanted not in (None, sparse_coo, sparse_csr):
        raise RuntimeError(f"Only output layouts (Sparse, SparseCsr) are supported, got {wanted}")
