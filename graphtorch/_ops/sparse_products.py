"""Products of sparse and dense matrices: those of ``torch.sparse``, and old names for them."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._types import DTYPES
from ..autograd.grad_mode import no_grad
from .base import FUNCTIONS, check_tensor, register
from .sparse import SparseCsrTensor, SparseTensor, made

REDUCTIONS = ("sum", "mean", "amax", "amin")


def mm(mat1: Any, mat2: Any, reduce: str | None = None) -> Any:
    """The product of a sparse and a dense matrix, with gradients for both.

    Args:
        mat1, mat2: [n, m] and [m, p], of which one is sparse.
        reduce: what to make of the products mat1[i, k] * mat2[k, j] of the entries of a row i:
            "sum", "mean", "amax" or "amin", for a `mat1` in compressed rows. A row without entries
            gives zeros. The gradient of an extreme goes to the first product that is it.

    Raises:
        RuntimeError: the shapes do not fit; another reduction, or one of another layout.
    """
    check_tensor("mm", "mat1", mat1)
    if reduce is not None:
        return _reduced(mat1, mat2, reduce)
    sparse = isinstance(mat1, SparseTensor) or isinstance(mat2, SparseTensor)
    return SparseTensor._combined("matmul", mat1, mat2) if sparse else mat1.mm(mat2)


def _reduced(mat1: Any, mat2: Tensor, reduce: str) -> Tensor:
    if reduce == "prod":
        raise RuntimeError("sparse_mm_reduce: reduce type of prod has not been enabled.")
    if reduce not in REDUCTIONS:
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        )
    if not isinstance(mat1, SparseCsrTensor):
        raise RuntimeError(
            f"sparse_mm_reduce: expect self to be SparseCsr, got {mat1.layout}; call "
            ".to_sparse_csr() on it first"
        )
    if reduce == "sum":
        return SparseTensor._combined("matmul", mat1, mat2)  # type: ignore[no-any-return]
    check_tensor("mm", "mat2", mat2, 2)
    if mat2.ndim != 2 or mat1._size[1] != mat2.shape[0]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({mat1._size[0]}x{mat1._size[1]} and "
            f"{'x'.join(map(str, mat2.shape))})"
        )
    (rows, columns), values = mat1._pair
    products = mat2.index_select(0, columns) * values.unsqueeze(1)
    shape = (mat1._size[0], mat2.shape[1])
    if reduce == "mean":
        total = products.new_zeros(shape).index_add(0, rows, products)
        ones = products.new_ones(rows.shape)
        count = products.new_zeros(shape[0]).index_add(0, rows, ones)
        return total / count.clamp(min=1).unsqueeze(1)
    return _extremes(products, rows, shape, reduce)


def _extremes(products: Tensor, rows: Tensor, shape: tuple[Any, Any], reduce: str) -> Tensor:
    """For each row and column the largest or smallest of the products [entries, columns]."""
    count = products.shape[0]
    if not count:
        return products.new_zeros(shape)
    with no_grad():
        where = rows.unsqueeze(1).expand(products.shape)
        found = products.new_zeros(shape).scatter_reduce(
            0, where, products, reduce, include_self=False
        )
        best = found.gather(0, where)
        is_best = (products == best) | (products.isnan() & best.isnan())
        number = FUNCTIONS["arange"](count, device=products.device).unsqueeze(1)
        number = FUNCTIONS["where"](is_best, number, count)
        first = FUNCTIONS["full"](shape, count, dtype=DTYPES["int64"], device=products.device)
        first = first.scatter_reduce(0, where, number, "amin")
        empty = first == count
    chosen = products.gather(0, first.clamp(max=count - 1))
    return FUNCTIONS["where"](empty, FUNCTIONS["zeros_like"](chosen), chosen)  # type: ignore[no-any-return]


def addmm(mat: Tensor, mat1: Any, mat2: Any, *, beta: Any = 1.0, alpha: Any = 1.0) -> Tensor:
    """beta * mat + alpha * (mat1 @ mat2), with `mat1` sparse."""
    return mat * beta + mm(mat1, mat2) * alpha


@register(method=False)
def hspmm(mat1: Any, mat2: Tensor) -> SparseTensor:
    """The product of a sparse matrix [n, m] and a dense one [m, p], of which the rows that `mat1`
    has entries in are kept: one sparse and one dense dimension.

    Raises:
        RuntimeError: `mat1` is not sparse, or the shapes do not fit.
    """
    rows = _check_sparse("hspmm", mat1).coalesce().indices()[0].unique()
    found = mm(mat1, mat2)
    return made(rows.unsqueeze(0), found.index_select(0, rows), found.shape, merged=True)


@register()
def smm(input: Any, mat: Tensor) -> SparseTensor:
    """The product of a sparse matrix [n, m] and a dense one [m, p] as a sparse matrix, whose
    entries are whole rows: those that `input` has entries in.

    Raises:
        RuntimeError: `input` is not sparse, or the shapes do not fit.
    """
    kept = hspmm(input, mat)
    rows, width = kept.indices()[0], mat.shape[1]
    columns = FUNCTIONS["arange"](width, device=mat.device).repeat(rows.shape[0])
    indices = FUNCTIONS["stack"]([rows.repeat_interleave(width), columns])
    return made(indices, kept.values().reshape(-1), kept.shape, merged=True)


@register("sspaddmm", "saddmm")
def sspaddmm(
    input: Any, mat1: Any, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> SparseTensor:
    """beta * input + alpha * (mat1 @ mat2) for sparse `input` and `mat1`, as a sparse matrix.

    Raises:
        RuntimeError: `input` or `mat1` is not sparse, or the shapes do not fit.
    """
    _check_sparse("sspaddmm", input)
    product = smm(mat1, mat2)
    if input.shape != product.shape:
        raise RuntimeError(
            f"sspaddmm: Argument #1: Expected the size {list(product.shape)} of the product, but "
            f"got {list(input.shape)}"
        )
    (first, a), (second, b) = input._pair, product._pair
    join = FUNCTIONS["cat"]
    return made(join([first, second], 1), join([a * beta, b * alpha]), input.shape)


def _check_sparse(name: str, x: Any) -> SparseTensor:
    check_tensor(name, "mat1", x)
    if not isinstance(x, SparseTensor):
        raise RuntimeError(
            f"{name}: expected a sparse matrix, but got a tensor of layout {x.layout}"
        )
    return x
