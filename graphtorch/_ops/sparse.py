"""Sparse tensors in coordinate form (COO): the gradients of look-up tables, and what one does with
them.

A sparse tensor is a pair of dense ones, so every operation on it is recorded like any other:
`indices` i64 [sparse_dim, nnz], one column an entry, and `values` [nnz, *dense dims]. Entries with
equal indices add up.
Semantics: https://docs.pytorch.org/docs/stable/sparse.html
"""

from __future__ import annotations

import copy as _copy
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir.graph import Type

from .._deferred.printing import sparse_text
from .._deferred.storage import Storage, Version
from .._deferred.tensor import Tensor
from .._types import DTYPES, check_device, device, layout, sparse_coo, sparse_csr
from ..autograd.grad_mode import modes, no_grad
from .base import FUNCTIONS, METHODS, SparseOperand, register
from .creation import from_array
from .overriding import disabled

# Functions f with f(0) = 0: applied to the values of a coalesced tensor.
ZERO_PRESERVING = frozenset(
    {
        "abs",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "ceil",
        "erf",
        "erfinv",
        "expm1",
        "floor",
        "isinf",
        "isnan",
        "log1p",
        "neg",
        "relu",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "tanh",
        "trunc",
    }
)


class SparseTensor(Tensor):
    """A sparse COO tensor; made by `sparse_coo_tensor`, ``Tensor.to_sparse`` and sparse
    gradients."""

    is_sparse = True
    __torch_function__ = staticmethod(disabled)
    _pair: tuple[Tensor, Tensor]  # indices, values
    _size: tuple[int, ...]
    _merged: bool  # whether coalesced: indices unique and sorted
    _leaf = False  # made a leaf by requires_grad_

    @staticmethod
    def _combined(name: str, a: Any, b: Any, alpha: Any = 1) -> Any:
        """A binary operation of which at least one operand is sparse."""
        return _COMBINE[name](a, b, alpha)

    # -- what it is ----------------------------------------------------------------------------

    @property
    def _storage(self) -> Storage:  # type: ignore[override]
        raise SparseOperand(self)

    @property
    def _type(self) -> Type:
        return Type(self._pair[1]._type.dtype, self._size)

    @property
    def device(self) -> device:
        return self._pair[1].device

    @property
    def is_meta(self) -> bool:
        return self._pair[1].is_meta

    @property
    def layout(self) -> layout:
        return sparse_coo

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow into the values."""
        return self._pair[1].requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> SparseTensor:
        """Make a leaf accumulate (sparse) gradients, or stop doing so."""
        if not requires_grad and not self.is_leaf:
            raise RuntimeError("you can only change requires_grad flags of leaf variables.")
        if requires_grad != self.requires_grad:
            self._pair = self._pair[0], self._pair[1].detach().requires_grad_(requires_grad)
            self._leaf = requires_grad
        return self

    def _edge(self) -> Any:
        """Where gradients of the values go: of a sparse tensor there is a gradient for each entry
        it has."""
        return self._pair[1]._edge()

    @property
    def grad_fn(self) -> Any:
        return None if self._leaf else self._pair[1].grad_fn

    @property
    def is_leaf(self) -> bool:
        return self._leaf or not self.requires_grad

    @property
    def grad(self) -> Any:
        """The gradient accumulated so far, sparse with the same indices, or None."""
        found = self._pair[1]._grad if self._leaf else None
        return None if found is None else made(self._pair[0], found, self._size, self._merged)

    @grad.setter
    def grad(self, value: Any) -> None:
        self._pair[1]._set_grad(None if value is None else value.coalesce().values())

    def sparse_dim(self) -> int:
        """How many leading dimensions the indices address."""
        return self._pair[0].shape[0]

    def dense_dim(self) -> int:
        """How many trailing dimensions each value has."""
        return self._pair[1].ndim - 1

    def _nnz(self) -> int:
        return self._pair[1].shape[0]

    def is_coalesced(self) -> bool:
        """Whether indices are known to be unique and sorted."""
        return self._merged

    def _indices(self) -> Tensor:
        return self._pair[0]

    def _values(self) -> Tensor:
        return self._pair[1].detach()

    def indices(self) -> Tensor:
        """i64 [sparse_dim, nnz] of a coalesced tensor."""
        self._check_merged("indices")
        return self._pair[0]

    def values(self) -> Tensor:
        """[nnz, *dense dims] of a coalesced tensor, in the autograd graph."""
        self._check_merged("values")
        return self._pair[1]

    def _check_merged(self, what: str) -> None:
        if not self._merged:
            raise RuntimeError(
                f"Cannot get {what} on an uncoalesced tensor, please call .coalesce() first"
            )

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        found = METHODS["type"](self, dtype, non_blocking)
        return found.replace("torch.", "torch.sparse.") if isinstance(found, str) else found

    def stride(self, dim: Any = None) -> Any:
        return (0,) * self.ndim if dim is None else 0

    def is_contiguous(self, memory_format: Any = None) -> bool:
        return False

    def storage_offset(self) -> int:
        return 0

    def __repr__(self, **kwargs: Any) -> str:
        return sparse_text(self)

    __str__ = __repr__

    # -- other forms ---------------------------------------------------------------------------

    def coalesce(self) -> SparseTensor:
        """Indices sorted and unique, values of equal indices added. The size depends on data: not
        for captured functions."""
        if self._merged:
            return self
        if self._nnz() < 2:
            return made(*self._pair, self._size, True)
        values = self._pair[1]
        keys, inverse = np.unique(self._keys(), return_inverse=True)
        columns = np.stack(np.unravel_index(keys, self._size[: self.sparse_dim()]))
        zeros = values.new_zeros((len(keys), *values.shape[1:]))
        at = self._places(inverse.reshape(-1))
        total = FUNCTIONS["index_put"](zeros, (at,), values, accumulate=True)
        return made(self._places(columns), total, self._size, True)

    def _places(self, array: np.ndarray) -> Tensor:
        """Indices beside the values."""
        return from_array(array.astype(np.int64), place=self.device)

    def _keys(self) -> np.ndarray:
        """For each entry its row-major position in the sparse dimensions."""
        sizes = self._size[: self.sparse_dim()]
        return np.ravel_multi_index(tuple(self._pair[0].detach()._array()), sizes)

    def to_dense(self, dtype: Any = None, *, masked_grad: bool | None = None) -> Tensor:
        """The same elements as a dense tensor."""
        zeros = self._pair[1].new_zeros(self._size)
        found = self._added_to(zeros, 1)
        return found if dtype is None else found.to(dtype)

    def _added_to(self, dense: Tensor, alpha: Any) -> Tensor:
        indices, values = self._pair
        values = values if alpha == 1 else values * alpha
        return FUNCTIONS["index_put"](dense, tuple(indices.unbind(0)), values, accumulate=True)

    def to_sparse(self, sparse_dim: int | None = None, **options: Any) -> SparseTensor:
        if sparse_dim in (None, self.sparse_dim()):
            return self
        return to_sparse(self.to_dense(), sparse_dim)

    def sparse_mask(self, mask: SparseTensor) -> SparseTensor:
        """The elements at the indices of `mask`."""
        return METHODS["sparse_mask"](self.to_dense(), mask)

    def _with(self, values: Tensor, indices: Tensor | None = None) -> SparseTensor:
        return made(self._pair[0] if indices is None else indices, values, self._size, self._merged)

    def detach(self) -> SparseTensor:
        return self._with(self._pair[1].detach())

    @property
    def data(self) -> SparseTensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self._taken_over(value)

    def clone(self, *, memory_format: Any = None) -> SparseTensor:
        return self._with(self._pair[1].clone())

    def _like(self, name: str, dtype: Any) -> SparseTensor:
        if name not in ("zeros_like", "empty_like"):
            raise NotImplementedError(_unsupported(name))
        return self.detach().to(self.dtype if dtype is None else dtype).zero_()

    def transpose(self, dim0: int, dim1: int) -> SparseTensor:
        """Two sparse dimensions swapped."""
        order = list(range(self.ndim))
        a, b = (d % self.ndim for d in (dim0, dim1))
        if max(a, b) >= self.sparse_dim():
            raise RuntimeError(
                "transpose of a sparse tensor: only its sparse dimensions can be swapped"
            )
        order[a], order[b] = order[b], order[a]
        rows = self._pair[0][self._places(np.array(order[: self.sparse_dim()]))]
        return made(rows, self._pair[1], tuple(self._size[i] for i in order), False)

    def t(self) -> SparseTensor:
        return self if self.ndim < 2 else self.transpose(0, 1)

    T = property(t)  # type: ignore[assignment]

    def sum(self, dim: Any = None, dtype: Any = None) -> Any:
        """The sum of all elements; of some dimensions through the dense form."""
        if dim is None:
            return self._pair[1].sum(dtype=dtype)
        found = self.to_dense().sum(dim, dtype=dtype)
        return to_sparse(found) if found.ndim else found

    def norm(
        self, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> Tensor:
        """The norm of all elements."""
        if dim is not None:
            raise RuntimeError(
                "norm_sparse currently only supports full reductions, so 'dim' must be empty"
            )
        return self.coalesce().values().norm(p, dtype=dtype)

    def pow(self, exponent: Any) -> SparseTensor:
        """Each element to a positive power."""
        merged = self.coalesce()
        return merged._with(merged.values() ** exponent)

    __pow__ = pow  # type: ignore[assignment]

    # -- in place ------------------------------------------------------------------------------

    def zero_(self) -> SparseTensor:
        """No entry is left."""
        indices, values = self._pair
        self._pair = indices.detach()[:, :0], values.detach()[:0].clone()
        self._merged = True
        return self

    def copy_(self, src: Any, non_blocking: bool = False) -> SparseTensor:
        """Take over indices and values of another sparse tensor."""
        if not isinstance(src, SparseTensor):
            raise RuntimeError(
                "copy_() between dense and sparse Tensors is not implemented! Found self type "
                f"= {self.type()} and src type = {src.type()}"
            )
        return self._taken_over(src.to(self.dtype).clone())

    def _taken_over(self, result: Any) -> SparseTensor:
        """The end of an in-place operation: this tensor becomes `result`."""
        if not isinstance(result, SparseTensor):
            raise RuntimeError(
                "the result of an in-place operation on a sparse tensor must be sparse; use "
                ".to_dense() first"
            )
        if modes.grad and self._leaf:
            raise RuntimeError(
                "a leaf Variable that requires grad is being used in an in-place operation."
            )
        self._pair, self._size, self._merged = result._pair, result._size, result._merged
        return self

    def detach_(self) -> SparseTensor:
        self._pair, self._leaf = (self._pair[0], self._pair[1].detach()), False
        return self

    # -- arithmetic: what the dense operations hand over (see `SparseOperand`) --------------------

    def _unary(self, name: str) -> SparseTensor:
        if name not in ZERO_PRESERVING:
            raise NotImplementedError(_unsupported(name))
        merged = self if name == "neg" else self.coalesce()
        return merged._with(FUNCTIONS[name](merged._pair[1]))

    # -- leaving the library -------------------------------------------------------------------

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert Sparse layout tensor to numpy. Use Tensor.to_dense() first.")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        raise RuntimeError(
            "Cannot access data pointer of Tensor that doesn't have storage: use .to_dense()"
        )

    data_ptr = tolist

    def untyped_storage(self) -> Any:
        raise NotImplementedError("Cannot access storage of SparseTensorImpl")

    storage = untyped_storage

    def reshape(self, *shape: Any) -> Any:
        raise RuntimeError("reshape is not implemented for sparse tensors")

    def contiguous(self, memory_format: Any = None) -> Any:
        raise RuntimeError("unsupported memory format option Contiguous: the tensor is sparse")

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseTensor:
        if id(self) not in memo:
            indices, values = (_copy.deepcopy(t, memo) for t in self._pair)
            memo[id(self)] = found = made(indices, values, self._size, self._merged)
            found._leaf = self._leaf
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (*self._pair, self._size, self._merged)


def _rebuild(indices: Tensor, values: Tensor, size: tuple[int, ...], merged: bool) -> SparseTensor:
    return made(indices, values, size, merged)


def _unsupported(name: str) -> str:
    return (
        f"Could not run 'aten::{name}' with arguments from the 'SparseCPU' backend: sparse tensors "
        "do not have it; call .to_dense() first"
    )


class SparseCsrTensor(SparseTensor):
    """A sparse matrix in compressed rows: a coalesced COO matrix that also tells where each row
    begins."""

    is_sparse_csr = True

    @property
    def layout(self) -> layout:
        return sparse_csr

    def crow_indices(self) -> Tensor:
        """[rows + 1]: for each row how many entries stand before it, then how many there are."""
        rows = self._pair[0]._array()[0]
        return self._places(np.searchsorted(rows, np.arange(self._size[0] + 1)))

    def col_indices(self) -> Tensor:
        """[nnz]: the column of each entry."""
        return self._pair[0][1]

    def values(self) -> Tensor:
        return self._pair[1]

    def indices(self) -> Tensor:
        raise RuntimeError(
            "indices expected sparse coordinate tensor layout but got SparseCsr: use "
            "crow_indices() and col_indices()"
        )

    def to_sparse(
        self, sparse_dim: int | None = None, *, layout: Any = None, **options: Any
    ) -> SparseTensor:
        return self if layout is sparse_csr else made(*self._pair, self._size, True)

    def to_sparse_csr(self, dense_dim: int | None = None) -> SparseCsrTensor:
        return self

    def _with(self, values: Tensor, indices: Tensor | None = None) -> SparseCsrTensor:
        return in_rows(
            made(self._pair[0] if indices is None else indices, values, self._size, True)
        )

    def __repr__(self, **kwargs: Any) -> str:
        return (
            f"tensor(crow_indices={self.crow_indices()},\n       "
            f"col_indices={self.col_indices()},\n       values={self.values()}, size={self._size}, "
            f"nnz={self._nnz()},\n       layout=torch.sparse_csr)"
        )

    __str__ = __repr__


def in_rows(x: SparseTensor) -> SparseCsrTensor:
    """A sparse COO matrix in compressed rows."""
    if x.sparse_dim() != 2 or x.dense_dim():
        raise RuntimeError(
            "to_sparse_csr: only a matrix has compressed rows, but got a tensor of size "
            f"{list(x._size)}"
        )
    x = x.coalesce()
    found = object.__new__(SparseCsrTensor)
    found._pair, found._size, found._merged, found._counter = x._pair, x._size, True, Version()
    return found


@register(function=False)
def to_sparse_csr(self: Tensor, dense_dim: int | None = None) -> SparseCsrTensor:
    """The nonzero elements of a matrix in compressed rows."""
    return in_rows(self if isinstance(self, SparseTensor) else to_sparse(self))


def sparse_csr_tensor(
    crow_indices: Any,
    col_indices: Any,
    values: Any,
    size: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> SparseCsrTensor:
    """The matrix whose row i has `values` crow_indices[i] .. crow_indices[i + 1] - 1 at their
    `col_indices`.

    Raises RuntimeError where the parts do not fit each other.
    """
    starts, columns = (
        np.asarray(FUNCTIONS["as_tensor"](x).detach()._array()) for x in (crow_indices, col_indices)
    )
    if (
        starts.ndim != 1
        or columns.ndim != 1
        or not starts.size
        or starts[0]
        or starts[-1] != columns.size
        or (np.diff(starts) < 0).any()
    ):
        raise RuntimeError(
            "sparse_csr_tensor: crow_indices must begin with 0, never fall, and end with the "
            f"number of col_indices: got {starts.tolist()} for {columns.size}"
        )
    rows = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    width = int(columns.max()) + 1 if columns.size else 0
    values = FUNCTIONS["as_tensor"](values, device=device)
    indices = from_array(np.stack([rows, columns]).astype(np.int64), place=values.device)
    found = sparse_coo_tensor(
        indices,
        values,
        (starts.size - 1, width) if size is None else size,
        dtype=dtype,
        requires_grad=requires_grad,
        check_invariants=True,
    )
    return in_rows(found)


def made(indices: Tensor, values: Tensor, size: Any, merged: bool = False) -> SparseTensor:
    """The sparse tensor of these parts, unchecked."""
    found = object.__new__(SparseTensor)
    found._pair, found._size, found._merged = (indices, values), tuple(size), merged
    found._counter = Version()
    return found


# --------------------------------------------------------------------------------------- arithmetic


def _is_sparse(x: Any) -> bool:
    return isinstance(x, SparseTensor)


def _add(a: Any, b: Any, alpha: Any) -> Any:
    if not _is_sparse(b):
        raise RuntimeError("add(sparse, dense) is not supported. Use add(dense, sparse) instead.")
    if not _is_sparse(a):
        if tuple(a.shape) != b._size:
            raise RuntimeError(
                f"add: expected 'self' and 'other' to have same size, but self has size "
                f"{list(a.shape)} while other has size {list(b._size)} (FYI: "
                "dense-sparse addition does not currently support broadcasting)"
            )
        dtype = FUNCTIONS["promote_types"](a.dtype, b.dtype)
        return b._added_to(a.to(dtype), alpha)
    if a._size != b._size:
        raise RuntimeError(
            "add: expected sizes of 'self' and 'other' to match, but "
            f"{list(a._size)} != {list(b._size)}"
        )
    if a.sparse_dim() != b.sparse_dim():
        raise RuntimeError(
            "add: expected 'self' and 'other' to have same number of sparse dimensions, but "
            f"they have {a.sparse_dim()} and {b.sparse_dim()}"
        )
    right = b._pair[1] if alpha == 1 else b._pair[1] * alpha
    cat = FUNCTIONS["cat"]
    found = made(cat([a._pair[0], b._pair[0]], 1), cat([a._pair[1], right], 0), a._size)
    return found.coalesce() if a._merged and b._merged else found


def _sub(a: Any, b: Any, alpha: Any) -> Any:
    return _add(a, b, -alpha)


def _mul(a: Any, b: Any, alpha: Any) -> Any:
    if not _is_sparse(a):
        a, b = b, a
    if _is_sparse(b):
        return _product_of_two(a.coalesce(), b.coalesce())
    if isinstance(b, Tensor) and b.ndim:
        picked = b.expand(a._size)[tuple(a._pair[0].unbind(0))]
        return a._with(a._pair[1] * picked)
    return a._with(a._pair[1] * b)


def _product_of_two(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """Entries that both have."""
    if a._size != b._size:
        raise RuntimeError("mul operands have incompatible sizes")
    _, left, right = np.intersect1d(a._keys(), b._keys(), return_indices=True)
    first, second = a._places(left), a._places(right)
    return made(a._pair[0][:, first], a._pair[1][first] * b._pair[1][second], a._size, True)


def _div(a: Any, b: Any, alpha: Any) -> Any:
    if not _is_sparse(a) or (isinstance(b, Tensor) and b.ndim):
        raise RuntimeError(
            "Sparse division requires a scalar or zero-dim dense tensor divisor (got shape "
            f"{list(getattr(b, 'shape', ()))} for divisor)"
        )
    return a._with(a._pair[1] / b)


def _matmul(a: Any, b: Any, alpha: Any) -> Any:
    if not _is_sparse(a):
        return _matmul(b.t(), a.t(), 1).t()
    if _is_sparse(b):
        return to_sparse(_matmul(a, b.to_dense(), 1))
    if a.ndim != 2 or a.dense_dim():
        raise RuntimeError(
            "sparse matmul: expected a sparse matrix with scalar values, got size "
            f"{list(a._size)} with {a.dense_dim()} dense dims"
        )
    if a._size[1] != b.shape[0]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({a._size[0]}x{a._size[1]} and "
            f"{'x'.join(map(str, b.shape))})"
        )
    indices, values = a._pair
    rows = b.index_select(0, indices[1]) * (values.unsqueeze(1) if b.ndim == 2 else values)
    zeros = rows.new_zeros((a._size[0], *b.shape[1:]))
    return FUNCTIONS["index_put"](zeros, (indices[0],), rows, accumulate=True)


_COMBINE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "matmul": _matmul,
}


# ------------------------------------------------------------------------------------------ making


def sparse_coo_tensor(
    indices: Any,
    values: Any = None,
    size: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
    check_invariants: bool | None = None,
    is_coalesced: bool | None = None,
) -> SparseTensor:
    """The tensor of `size` with `values` at `indices`, zero elsewhere.

    Args:
        indices: [sparse_dim, nnz], one column an entry; equal columns add up. With nothing else:
            the size of a tensor without entries.
        values: [nnz, *dense dims].
        size: default: just large enough.
        check_invariants: also check that indices are inside `size`.

    Raises: RuntimeError where the parts do not fit each other.
    """
    if values is None:
        return _empty(indices if size is None else size, dtype, check_device(device), requires_grad)
    values = FUNCTIONS["as_tensor"](values, dtype, device)
    where = values.device if device is None and not isinstance(indices, Tensor) else device
    indices = FUNCTIONS["as_tensor"](indices, DTYPES["int64"], where).detach()
    if indices.device is not values.device:
        raise RuntimeError(
            f"device of indices ({indices.device}) must match device of values "
            f"({values.device}): give device=, which moves both"
        )
    if indices.ndim != 2:
        raise RuntimeError(f"indices must be sparse_dim x nnz, but got: {list(indices.shape)}")
    values = values.expand(indices.shape[1]) if values.ndim == 0 else values
    if indices.shape[1] != values.shape[0]:
        raise RuntimeError(
            "indices and values must have same nnz, but got nnz from indices: "
            f"{indices.shape[1]}, nnz from values: {values.shape[0]}"
        )
    size = _fitting_size(indices, values, size)
    if check_invariants:
        _check_indices(indices, size)
    if requires_grad:
        values = values.detach()
    found = made(indices, values, size, bool(is_coalesced))
    return found.requires_grad_() if requires_grad else found


def _empty(size: Any, dtype: Any, place: device, requires_grad: bool) -> SparseTensor:
    size = tuple(int(s) for s in size)
    values = FUNCTIONS["zeros"](0, dtype=dtype, device=place)
    indices = FUNCTIONS["zeros"](len(size), 0, dtype=DTYPES["int64"], device=place)
    found = made(indices, values, size, not len(size))
    return found.requires_grad_() if requires_grad else found


def _fitting_size(indices: Tensor, values: Tensor, size: Any) -> tuple[int, ...]:
    count, dense = indices.shape[0], tuple(values.shape[1:])
    if size is None:
        largest = indices._array().max(axis=1) + 1 if indices.shape[1] else np.zeros(count, int)
        return (*map(int, largest), *dense)
    size = tuple(int(s) for s in size)
    if len(size) != count + len(dense):
        raise RuntimeError(
            f"'len(size) == sparse_dim + dense_dim' is not satisfied: len(size) = {len(size)},"
            f" sparse_dim = {count}, dense_dim = {len(dense)}"
        )
    if size[count:] != dense:
        raise RuntimeError(
            f"values has incorrect size, expected {[values.shape[0], *size[count:]]}, got "
            f"{list(values.shape)}"
        )
    return size


def _check_indices(indices: Tensor, size: tuple[int, ...]) -> None:
    array = indices._array()
    for dim, row in enumerate(array):
        if row.size and row.min() < 0:
            raise RuntimeError(f"found negative index {row.min()} for dim {dim}")
        if row.size and row.max() >= size[dim]:
            raise RuntimeError(
                f"size is inconsistent with indices: for dim {dim}, size is {size[dim]} but "
                f"found index {row.max()}"
            )


@register(function=False)
def to_sparse(
    self: Tensor,
    sparse_dim: int | None = None,
    *,
    layout: Any = None,
    blocksize: Any = None,
    dense_dim: int | None = None,
) -> SparseTensor:
    """The nonzero elements (or, with fewer `sparse_dim`, the slices that are not all zero) as a
    sparse tensor. The size depends on data: not for captured functions."""
    if layout not in (None, sparse_coo):
        raise RuntimeError(f"to_sparse: layout {layout} is not supported, only torch.sparse_coo is")
    count = self.ndim if sparse_dim is None else sparse_dim
    if not (0 < count <= self.ndim or count == self.ndim == 0):
        raise RuntimeError(
            f"sparse_dim argument must be in >0 when self.dim()>0, and at most {self.ndim}, "
            f"got {count}"
        )
    array = self.detach()._array()
    present = (array != 0).any(axis=tuple(range(count, self.ndim)))
    columns = from_array(np.stack(np.nonzero(present)).astype(np.int64), place=self.device)
    return made(columns, self[tuple(columns.unbind(0))], self.shape, True)


@register(function=False)
def sparse_mask(self: Tensor, mask: SparseTensor) -> SparseTensor:
    """The elements at the indices of the sparse tensor `mask`."""
    if not isinstance(mask, SparseTensor):
        raise RuntimeError(
            "sparse_mask: expected mask to have layout torch.sparse_coo, got torch.strided"
        )
    indices = mask._indices()
    return made(indices, self[tuple(indices.unbind(0))], mask._size, mask._merged)


METHODS["to_dense"] = lambda self, dtype=None, *, masked_grad=None: (
    self if dtype is None else self.to(dtype)
)
METHODS["sparse_dim"] = lambda self: 0
METHODS["dense_dim"] = lambda self: self.ndim


def _only_sparse(name: str) -> Callable[[Tensor], Any]:
    def refuse(self: Tensor) -> Any:
        raise RuntimeError(f"{name} expected sparse coordinate tensor layout but got Strided")

    refuse.__name__ = name
    return refuse


for _name in ("coalesce", "indices", "values", "is_coalesced"):
    METHODS[_name] = _only_sparse(_name)


def _no_entries(self: Tensor) -> Any:
    raise NotImplementedError(
        "sparse tensors have this, but the tensor has layout torch.strided: convert it "
        "with .to_sparse() first"
    )


for _name in ("_indices", "_values", "_nnz"):
    METHODS[_name] = _no_entries


def sparse_sum(input: Any, dim: Any = None, dtype: Any = None) -> Any:
    """The sum over all dimensions (a dense number) or some (a sparse tensor)."""
    return input.sum(dim, dtype=dtype)


def row_gradient(values: Tensor, indices: Tensor, size: Any) -> SparseTensor:
    """The gradient of a look-up of rows: `values` [n, *dense] at `indices` [n]."""
    with no_grad():
        return made(indices.reshape(1, -1).to(DTYPES["int64"]), values, size)
