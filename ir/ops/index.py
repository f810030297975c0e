"""Ops whose element positions are data: gather and scatter, advanced indexing, sorting and
searching.

A position outside its dimension is an error of the run, never a read or write elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, i32, i64
from ..graph import Node, Type, Value
from ..op import Attrs, Kind, NoGradient, Op, Weight
from ..shape import Shape, broadcast
from .batching import along
from .checks import attrs_of, check_axis, ints, listed
from .common import (
    ORDERED,
    REAL,
    check_domain,
    number,
    ops,
    sum_to,
    wide,
    zeros,
    zeros_like,
)
from .index_batch import index_batch, index_put_batch, index_select_batch, searchsorted_batch
from .require import FAILURES
from .shape import DimAttrs, slice_dim

__all__ = [
    "gather",
    "index",
    "index_put",
    "index_select",
    "scatter",
    "scatter_add",
    "scatter_max",
    "scatter_min",
    "scatter_mul",
    "searchsorted",
    "sort",
    "topk",
]


def _check_index_dtype(index: Type, what: str) -> None:
    if index.dtype not in (i32, i64):
        raise RuntimeError(
            f"{what}: Expected dtype int32/int64 for index, but got {index.dtype}: cast it to i64"
        )


@dataclass(frozen=True)
class PlacesAttrs(DimAttrs):
    """kind: what a position outside the dimension raises, one of `require.FAILURES`."""

    kind: str = "index"


def _check_range(
    positions: np.ndarray, size: int, dim: int, lowest: int = 0, kind: str = "index"
) -> None:
    """Raise for the first position outside lowest..size-1."""
    bad = (positions < lowest) | (positions >= size)
    if bad.any():
        raise FAILURES[kind](
            f"index {positions[bad].flat[0]} is out of bounds for dimension {dim} with size {size}"
        )


# gather, scatter ----------------------------------------------------------------------------------


def _check_gather(dim: int, x: Type, index: Type, what: str) -> None:
    check_axis(dim, x, what)
    _check_index_dtype(index, what)
    if index.rank != x.rank:
        raise RuntimeError(
            "Index tensor must have the same number of dimensions as input tensor: "
            f"{what} got index {listed(index.shape)} for {listed(x.shape)}"
        )
    for axis, (a, b) in enumerate(zip(index.shape, x.shape, strict=True)):
        if axis != dim and not a <= b:
            raise RuntimeError(
                f"Size does not match at dimension {axis} expected index {listed(index.shape)} to "
                f"be no larger than self {listed(x.shape)} apart from dimension {dim}"
            )


def _gather_infer(attrs: DimAttrs, x: Type, index: Type) -> tuple[Type, ...]:
    _check_gather(attrs.dim, x, index, "gather()")
    return (x.with_shape(index.shape),)


def _gather_vjp(node: Node, g: Value) -> tuple[Value, None]:
    x, index = node.operands
    return ops.scatter_add(zeros_like(x), index, g, dim=attrs_of(node, DimAttrs).dim), None


def _coordinates(index: np.ndarray, dim: int) -> Any:
    """For NumPy indexing: along `dim` the index itself, elsewhere each element's own position."""
    shape = index.shape
    rank = len(shape)
    if rank == 1:
        return (index,)
    grid = [np.arange(n).reshape(-1, *(1,) * (rank - 1 - d)) for d, n in enumerate(shape)]
    grid[dim] = index
    return tuple(grid)


def _gather_reference(attrs: PlacesAttrs, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    _check_range(index, x.shape[attrs.dim], attrs.dim, kind=attrs.kind)
    return x[_coordinates(index, attrs.dim)]


gather = Op(
    "gather",
    "Along dim the element at index, elsewhere at the result's own position.",
    ("x", "index"),
    attrs=PlacesAttrs,
    infer=_gather_infer,
    vjp=_gather_vjp,
    reference=_gather_reference,
    kind=Kind.LOOKUP,
    weight=Weight.PLAIN,
    raises=True,
    batch=along("dim"),
)


def _scatter_infer(attrs: DimAttrs, x: Type, index: Type, src: Type) -> tuple[Type, ...]:
    _check_gather(attrs.dim, x, index, "scatter()")
    if src.dtype is not x.dtype:
        raise RuntimeError(
            f"scatter(): Expected self.dtype to be equal to src.dtype, got {x.dtype} and "
            f"{src.dtype}"
        )
    if src.rank != index.rank or not all(
        a <= b for a, b in zip(index.shape, src.shape, strict=True)
    ):
        raise RuntimeError(
            f"Expected index {listed(index.shape)} to be no larger size than src "
            f"{listed(src.shape)} in every dimension"
        )
    return (x,)


def _source_gradient(node: Node, g: Value) -> Value:
    """What arrives at src: elements that no index reads get zero."""
    return _padded(node, ops.gather(g, node.operands[1], dim=attrs_of(node, DimAttrs).dim))


def _scatter_vjp(node: Node, g: Value) -> tuple[Value, None, Value]:
    _, index, src = node.operands
    hole = zeros(src.type.with_shape(index.shape))
    kept = ops.scatter(g, index, hole, dim=attrs_of(node, DimAttrs).dim)
    return kept, None, _source_gradient(node, g)


def _used_source(index: np.ndarray, src: np.ndarray) -> np.ndarray:
    return src[tuple(slice(n) for n in index.shape)]


def _scatter_reference(
    attrs: PlacesAttrs, x: np.ndarray, index: np.ndarray, src: np.ndarray
) -> np.ndarray:
    _check_range(index, x.shape[attrs.dim], attrs.dim, kind=attrs.kind)
    result = x.copy()
    result[_coordinates(index, attrs.dim)] = _used_source(index, src)
    return result


scatter = Op(
    "scatter",
    "x with the element at index along dim replaced by src; the last of several writes stays.",
    ("x", "index", "src"),
    attrs=PlacesAttrs,
    infer=_scatter_infer,
    vjp=_scatter_vjp,
    reference=_scatter_reference,
    kind=Kind.SCATTER,
    weight=Weight.PLAIN,
    raises=True,
    batch=along("dim"),
)


def _accumulate(
    x: np.ndarray, where: Any, src: np.ndarray, combine: np.ufunc = np.add
) -> np.ndarray:
    """x with src combined at `where`, 16-bit floats in f32."""
    total = wide(x).copy()
    combine.at(total, where, src.astype(total.dtype))
    return total.astype(x.dtype)


def _used(node: Node) -> tuple[Value, Value, Value, int]:
    """x, the index, what of src it reads, and the dimension."""
    x, index, src = node.operands
    if src.shape != index.shape:
        src = ops.slice(src, start=(0,) * src.rank, stop=index.shape, step=(1,) * src.rank)
    return x, index, src, attrs_of(node, DimAttrs).dim


def _padded(node: Node, gradient: Value) -> Value:
    """The gradient of the part of src that is read as one of src."""
    _, index, src = node.operands
    if index.shape == src.shape:
        return gradient
    high = tuple(b - a for a, b in zip(index.shape, src.shape, strict=True))
    return ops.pad(gradient, low=(0,) * src.rank, high=high, value=0)


def _extreme_vjp(node: Node, g: Value) -> tuple[Value, None, Value]:
    """Those that are the extreme of a place share its gradient."""
    x, index, src, dim = _used(node)
    result, dtype = node.result(), g.dtype
    stays = ops.cast(ops.eq(x, result), dtype=dtype)
    comes = ops.cast(ops.eq(src, ops.gather(result, index, dim=dim)), dtype=dtype)
    share = ops.div(g, ops.scatter_add(stays, index, comes, dim=dim))
    taken = ops.mul(comes, ops.gather(share, index, dim=dim))
    return ops.mul(stays, share), None, _padded(node, taken)


def _product_vjp(node: Node, g: Value) -> tuple[Value, None, Value]:
    """The product of the others: a quotient, but for a place's only zero."""
    x, index, src, dim = _used(node)
    one, zero = number(1, x.dtype), number(0, x.dtype)
    vanishes = ops.eq(src, zero)
    nothing = zeros_like(x)
    zeros_there = ops.scatter_add(nothing, index, ops.cast(vanishes, dtype=x.dtype), dim=dim)
    lone = ops.logical_and(vanishes, ops.eq(ops.gather(zeros_there, index, dim=dim), one))
    others = ops.scatter_mul(x, index, ops.where(lone, one, src), dim=dim)
    quotient = ops.div(
        ops.gather(ops.mul(g, node.result()), index, dim=dim), ops.where(vanishes, one, src)
    )
    taken = ops.where(lone, ops.gather(ops.mul(g, others), index, dim=dim), quotient)
    factors = ops.scatter_mul(ops.add(nothing, one), index, src, dim=dim)
    return ops.mul(g, factors), None, _padded(node, taken)


def _combining(
    name: str, doc: str, combine: np.ufunc, vjp: Callable[..., Any], domain: Any = None
) -> Op:
    """A scatter that combines each element with all that src has for its place."""

    def infer(attrs: DimAttrs, x: Type, index: Type, src: Type) -> tuple[Type, ...]:
        if domain is not None:
            check_domain(name, x, domain)
        return _scatter_infer(attrs, x, index, src)

    def reference(
        attrs: PlacesAttrs, x: np.ndarray, index: np.ndarray, src: np.ndarray
    ) -> np.ndarray:
        _check_range(index, x.shape[attrs.dim], attrs.dim, kind=attrs.kind)
        where = _coordinates(index, attrs.dim)
        return _accumulate(x, where, _used_source(index, src), combine)

    return Op(
        name,
        f"x with {doc}.",
        ("x", "index", "src"),
        attrs=PlacesAttrs,
        infer=infer,
        vjp=vjp,
        reference=reference,
        kind=Kind.SCATTER,
        weight=Weight.PLAIN,
        raises=True,
        batch=along("dim"),
    )


scatter_add = _combining(
    "scatter_add",
    "src added to the elements at index along dim",
    np.add,
    lambda node, g: (g, None, _source_gradient(node, g)),
)
scatter_max = _combining(
    "scatter_max",
    "the elements at index along dim as the largest of themselves and what src has for them",
    np.maximum,
    _extreme_vjp,
    ORDERED,
)
scatter_min = _combining(
    "scatter_min",
    "the elements at index along dim as the smallest of themselves and what src has for them",
    np.minimum,
    _extreme_vjp,
    ORDERED,
)
scatter_mul = _combining(
    "scatter_mul",
    "the elements at index along dim multiplied by all that src has for them",
    np.multiply,
    _product_vjp,
    REAL,
)


def _index_select_infer(attrs: DimAttrs, x: Type, index: Type) -> tuple[Type, ...]:
    check_axis(attrs.dim, x, "index_select()")
    _check_index_dtype(index, "index_select()")
    if index.rank != 1:
        raise IndexError(
            f"index_select(): Index is supposed to be a vector, but got shape {listed(index.shape)}"
        )
    shape = list(x.shape)
    shape[attrs.dim] = index.shape[0]
    return (x.with_shape(shape),)


def _index_select_vjp(node: Node, g: Value) -> tuple[Value, None]:
    x, index = node.operands
    dims = (attrs_of(node, DimAttrs).dim,)
    return ops.index_put(zeros_like(x), g, index, dims=dims, accumulate=True), None


def _index_select_reference(attrs: DimAttrs, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    _check_range(index, x.shape[attrs.dim], attrs.dim)
    return np.take(x, index, axis=attrs.dim)


index_select = Op(
    "index_select",
    "The slices of x along dim that a vector of positions names.",
    ("x", "index"),
    attrs=DimAttrs,
    infer=_index_select_infer,
    vjp=_index_select_vjp,
    reference=_index_select_reference,
    kind=Kind.LOOKUP,
    weight=Weight.PLAIN,
    raises=True,
    batch=index_select_batch,
)


# advanced indexing --------------------------------------------------------------------------------


@dataclass(frozen=True)
class IndexAttrs(Attrs):
    """dims: the increasing dimensions of x that the index operands address, one each."""

    dims: tuple[int, ...]


@dataclass(frozen=True)
class IndexPutAttrs(Attrs):
    dims: tuple[int, ...]
    accumulate: bool = False


def _indexed_shape(dims: tuple[int, ...], x: Type, indices: tuple[Type, ...]) -> Shape:
    if len(indices) != len(dims) or not dims:
        raise IndexError(
            f"index: {len(indices)} index tensors for the {len(dims)} dimensions {list(dims)}; "
            "expected one each and at least one"
        )
    if len(dims) > x.rank:
        raise IndexError(f"too many indices for tensor of dimension {x.rank}")
    if list(dims) != sorted(set(dims)):
        raise IndexError(f"index: dims {list(dims)} must increase")
    for dim, positions in zip(dims, indices, strict=True):
        check_axis(dim, x, "index")
        if positions.dtype not in (i32, i64):
            raise IndexError(
                "tensors used as indices must be long, int, byte or bool tensors: "
                f"the IR takes i32 and i64, but got {positions.dtype}"
            )
    try:
        common = broadcast(*(p.shape for p in indices))
    except RuntimeError:
        shapes = ", ".join(listed(p.shape) for p in indices)
        raise IndexError(
            "shape mismatch: indexing tensors could not be broadcast together with shapes " + shapes
        ) from None
    rest = [size for d, size in enumerate(x.shape) if d not in dims]
    at = dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0
    return (*rest[:at], *common, *rest[at:])


def _index_infer(attrs: IndexAttrs, x: Type, *indices: Type) -> tuple[Type, ...]:
    return (x.with_shape(_indexed_shape(attrs.dims, x, indices)),)


def _index_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    x, *indices = node.operands
    dims = attrs_of(node, IndexAttrs).dims
    gx = ops.index_put(zeros_like(x), g, *indices, dims=dims, accumulate=True)
    return (gx, *[None] * len(indices))


def _subscript(dims: tuple[int, ...], x: np.ndarray, indices: tuple[np.ndarray, ...]) -> Any:
    for dim, positions in zip(dims, indices, strict=True):
        _check_range(positions, x.shape[dim], dim, lowest=-x.shape[dim])
    where: list[Any] = [slice(None)] * x.ndim
    for dim, positions in zip(dims, indices, strict=True):
        where[dim] = np.asarray(positions)
    return tuple(where)


def _selects_nothing(dims: tuple[int, ...], x: np.ndarray, indices: tuple[np.ndarray, ...]) -> bool:
    """Whether no element is addressed: then no position is out of range, as in PyTorch (positions
    in a dimension without elements always are)."""
    block = np.broadcast_shapes(*(i.shape for i in indices))
    rest = [size for dim, size in enumerate(x.shape) if dim not in dims]
    return 0 in block or (0 in rest and all(x.shape[dim] for dim in dims))


def _index_reference(attrs: IndexAttrs, x: np.ndarray, *indices: np.ndarray) -> np.ndarray:
    if _selects_nothing(attrs.dims, x, indices):
        types = tuple(Type(i64, i.shape) for i in indices)
        return np.zeros(
            ints(_indexed_shape(attrs.dims, Type(DType.of(x.dtype), x.shape), types)), x.dtype
        )
    return np.asarray(x[_subscript(attrs.dims, x, indices)])


index = Op(
    "index",
    "NumPy's advanced indexing by integer tensors that broadcast; negatives count from the end.",
    ("x", "*indices"),
    attrs=IndexAttrs,
    infer=_index_infer,
    vjp=_index_vjp,
    reference=_index_reference,
    kind=Kind.LOOKUP,
    weight=Weight.PLAIN,
    raises=True,
    batch=index_batch,
)


def _index_put_infer(attrs: IndexPutAttrs, x: Type, src: Type, *indices: Type) -> tuple[Type, ...]:
    expected = _indexed_shape(attrs.dims, x, indices)
    if src.dtype is not x.dtype:
        raise RuntimeError(
            "Index put requires the source and destination dtypes match, got "
            f"{x.dtype} for the destination and {src.dtype} for the source."
        )
    aligned = src.rank <= len(expected) and all(
        a in (1, b) for a, b in zip(reversed(src.shape), reversed(expected), strict=False)
    )
    if not aligned:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {listed(src.shape)} cannot be broadcast to "
            f"indexing result of shape {listed(expected)}"
        )
    return (x,)


def _index_put_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    _, src, *indices = node.operands
    attrs = attrs_of(node, IndexPutAttrs)
    dims = attrs.dims
    gsrc = sum_to(ops.index(g, *indices, dims=dims), src.shape)
    if not attrs.accumulate:
        g = ops.index_put(g, number(0, src.dtype), *indices, dims=dims, accumulate=False)
    return (g, gsrc, *[None] * len(indices))


def _index_put_reference(
    attrs: IndexPutAttrs, x: np.ndarray, src: np.ndarray, *indices: np.ndarray
) -> np.ndarray:
    if _selects_nothing(attrs.dims, x, indices):
        return x.copy()
    where = _subscript(attrs.dims, x, indices)
    if attrs.accumulate:
        return _accumulate(x, where, src)
    result = x.copy()
    result[where] = src
    return result


index_put = Op(
    "index_put",
    "x with the elements that `index` would read replaced by src, or (accumulate) added to.",
    ("x", "src", "*indices"),
    attrs=IndexPutAttrs,
    infer=_index_put_infer,
    vjp=_index_put_vjp,
    reference=_index_put_reference,
    kind=Kind.SCATTER,
    weight=Weight.PLAIN,
    raises=True,
    batch=index_put_batch,
)


# sort, topk, searchsorted -------------------------------------------------------------------------


@dataclass(frozen=True)
class SortAttrs(Attrs):
    dim: int
    descending: bool = False


@dataclass(frozen=True)
class TopkAttrs(Attrs):
    k: int
    dim: int
    largest: bool = True


def _sort_infer(attrs: SortAttrs, x: Type) -> tuple[Type, ...]:
    check_axis(attrs.dim, x, "sort")
    if x.dtype.is_complex:
        raise RuntimeError(
            f"Sort does not support complex dtypes, got {x.dtype}: sort the real part or the abs"
        )
    return x, x.with_dtype(i64)


def _sort_vjp(node: Node, g: Value | None, _: Value | None = None) -> tuple[Value | None]:
    if g is None:
        return (None,)
    x, order = node.operands[0], node.result(1)
    return (ops.scatter_add(zeros_like(x), order, g, dim=node.attrs.dim),)  # type: ignore[attr-defined]


def _order(x: np.ndarray, dim: int, descending: bool) -> np.ndarray:
    """Stable sorting positions with NaN as the greatest value."""
    x = wide(x)
    if not descending:
        return np.argsort(x, axis=dim, kind="stable")
    # Sorting the reversed line and reversing the result keeps equal elements in their order.
    backward = np.flip(np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
    return x.shape[dim] - 1 - backward


def _sort_reference(attrs: SortAttrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = _order(x, attrs.dim, attrs.descending)
    return np.take_along_axis(x, order, attrs.dim), order.astype(np.int64)


sort = Op(
    "sort",
    "Elements in order along dim, and where they stood; stable, NaN counts as the greatest.",
    ("x",),
    attrs=SortAttrs,
    infer=_sort_infer,
    vjp=_sort_vjp,
    reference=_sort_reference,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=along("dim"),
)


def _topk_infer(attrs: TopkAttrs, x: Type) -> tuple[Type, ...]:
    values, indices = _sort_infer(SortAttrs(attrs.dim), x)
    if not 0 <= attrs.k <= x.shape[attrs.dim]:
        raise RuntimeError(
            f"selected index k out of range: k is {attrs.k}, dimension {attrs.dim} of shape "
            f"{listed(x.shape)} has {x.shape[attrs.dim]}"
        )
    shape = tuple(attrs.k if d == attrs.dim else size for d, size in enumerate(x.shape))
    return values.with_shape(shape), indices.with_shape(shape)


def _topk_decompose(node: Node) -> tuple[Value, Value]:
    attrs = attrs_of(node, TopkAttrs)
    values, indices = ops.sort(node.operands[0], dim=attrs.dim, descending=attrs.largest)
    return slice_dim(values, attrs.dim, 0, attrs.k), slice_dim(indices, attrs.dim, 0, attrs.k)


def _topk_reference(attrs: TopkAttrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.take(_order(x, attrs.dim, attrs.largest), np.arange(attrs.k), axis=attrs.dim)
    return np.take_along_axis(x, order, attrs.dim), order.astype(np.int64)


topk = Op(
    "topk",
    "The k greatest (or least) elements along dim, in order, and where they stood.",
    ("x",),
    attrs=TopkAttrs,
    infer=_topk_infer,
    vjp=_sort_vjp,
    decompose=_topk_decompose,
    reference=_topk_reference,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=along("dim"),
)


@dataclass(frozen=True)
class SearchAttrs(Attrs):
    right: bool = False


def _searchsorted_infer(attrs: SearchAttrs, sequence: Type, x: Type) -> tuple[Type, ...]:
    if sequence.dtype is not x.dtype:
        raise RuntimeError(
            f"searchsorted: boundaries are {sequence.dtype} but values {x.dtype}: cast to one dtype"
        )
    if x.dtype.is_complex:
        raise RuntimeError(f"searchsorted does not support complex dtypes, got {x.dtype}")
    if sequence.rank == 0 or (sequence.rank > 1 and sequence.shape[:-1] != x.shape[:-1]):
        raise RuntimeError(
            "searchsorted: boundaries tensor should be 1 dimension or the first N-1 dimensions of "
            "boundaries tensor and input value tensor must match, but we got boundaries tensor "
            f"{listed(sequence.shape)} and input value tensor {listed(x.shape)}"
        )
    return (Type(i64, x.shape),)


FEW_SEARCHED = 16  # so many are found faster one by one than by calls of NumPy


def _bisect(line: np.ndarray, value: Any, right: bool) -> int:
    low, high = 0, len(line)
    while low < high:
        middle = (low + high) // 2
        if not (line[middle] > value if right else line[middle] >= value):
            low = middle + 1
        else:
            high = middle
    return low


def _searchsorted_reference(attrs: SearchAttrs, sequence: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bisection, as PyTorch does it: so boundaries out of order (as NaN is) lead every path to one
    place."""
    line, x = wide(sequence), wide(x)
    if x.size <= FEW_SEARCHED:
        size = line.shape[-1]
        rows = line.reshape(-1, size) if size else np.empty((1, 0), line.dtype)
        each = max(1, x.size // max(1, len(rows)))  # values for one row
        positions = [
            _bisect(rows[i // each % len(rows)], v, attrs.right)
            for i, v in enumerate(x.reshape(-1).tolist())
        ]
        return np.array(positions, np.int64).reshape(x.shape)
    low, high = np.zeros(x.shape, np.int64), np.full(x.shape, line.shape[-1], np.int64)
    while np.any(low < high):
        middle, searching = (low + high) // 2, low < high
        place = np.minimum(middle, line.shape[-1] - 1)
        found = line[place] if line.ndim == 1 else np.take_along_axis(line, place, -1)
        passed = ~(found > x) if attrs.right else ~(found >= x)
        low = np.where(searching & passed, middle + 1, low)
        high = np.where(searching & ~passed, middle, high)
    return low


searchsorted = Op(
    "searchsorted",
    "Where each value would go into sorted boundaries: before (or, right, after) equal ones; NaN "
    "to the end.",
    ("sorted", "x"),
    attrs=SearchAttrs,
    infer=_searchsorted_infer,
    vjp=NoGradient("a position is constant almost everywhere"),
    reference=_searchsorted_reference,
    kind=Kind.WHOLE,
    weight=Weight.SLOW,
    batch=searchsorted_batch,
)
