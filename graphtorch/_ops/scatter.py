"""Indexing by name: gather, scatter, index_*, take, masked selection, and what depends on data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, i64, promote
from graphtorch.ir.shape import broadcast

from .._deferred.at_once import element
from .._deferred.making import beside, common_place
from .._deferred.tensor import Tensor
from .._deferred.write import assign, cast_tensor
from .._types import DTYPES, iinfo
from ..autograd.grad_mode import modes, no_grad
from ..autograd.keeps import keeps, keeps_as_one, shown_as
from .base import (
    FUNCTIONS,
    OUTSIDE,
    Number,
    axis_of,
    check_places,
    check_tensor,
    checked,
    known_elements,
    register,
    run,
    scalar,
)
from .indexing import (
    Arrays,
    _basic,
    _index,
    _put,
    _sliced,
    _source,
    check_put_dtype,
    full_number,
    getitem,
)
from .orders import order_kept, row_major
from .strides import as_strided, diagonal
from .views import reshape, select, slice_view

BACKWARD = {"scatter": "Scatter", "scatter_add": "ScatterAdd"}
COMBINING = {"prod": "scatter_mul", "amax": "scatter_max", "amin": "scatter_min"}


def _index_list(x: Tensor, indices: Any) -> tuple[Tensor, Arrays]:
    key = tuple(slice(None) if i is None else i for i in indices)
    return _basic(x, key)


@register(inplace=True)
@keeps_as_one("indices")
@order_kept
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` written (or added) at index tensors."""
    part, arrays = _index_list(input, indices)
    if not arrays:
        raise RuntimeError("index_put: expected at least one index tensor")
    check_put_dtype(input, values, indices)
    return _put(part, values, arrays, tuple(a for a, _ in arrays), bool(accumulate))


def check_index_dtype(name: str, index: Any, error: type[Exception] = RuntimeError) -> None:
    """Raise unless `index` is an int64 tensor."""
    if not isinstance(index, Tensor):
        raise TypeError(f"{name}(): argument 'index' must be Tensor, not {type(index).__name__}")
    if index._type.dtype.name not in ("i64", "i32"):
        raise error(f"{name}(): Expected dtype int64 for index, got {index.dtype}")


def _check_long(name: str, index: Tensor, error: type[Exception] = RuntimeError) -> None:
    """Raise for indices of int32, which these functions do not take."""
    if index._type.dtype is not i64:
        given = SCALAR_NAMES[index._type.dtype]
        raise error(f"{name}(): Expected a long tensor for index, but got {given}: use .long()")


@register(out=True)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries `index` along `dim`."""
    axis = axis_of(dim, input.ndim)
    if index.ndim > 1:
        raise IndexError(
            "index_select(): Index is supposed to be a vector, but got dim: " + str(index.ndim)
        )
    check_index_dtype("index_select", index)
    if input.ndim == 0:
        return reshape(index_select(reshape(input, (1,)), 0, index), ())
    _check_entries(input, axis, index)
    flat = reshape(index, (-1,)) if index.ndim == 0 else index
    return run("IndexSelect", lambda v, i: ops.index_select(v, _index(i), dim=axis), input, flat)


def _check_entries(x: Tensor, axis: int, index: Tensor, kind: str = "index") -> None:
    size = x._type.shape[axis]
    check_places(index, size, OUTSIDE % (axis, size), kind)


def _axis(x: Tensor, dim: int) -> int:
    return axis_of(dim, x.ndim)


@register(out=True)
@keeps("Gather", (0, 1))
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Elements at `index` along `dim`; the result has the shape of `index`."""
    axis = _axis(input, dim)
    if index.numel() == 0:  # PyTorch takes an empty index of any dtype
        return reshape(_sliced(reshape(input, (-1,)), 0, slice(0, 0)), index.shape)
    check_index_dtype("gather", index)
    if input.ndim == 0 or index.ndim == 0:
        found = gather(reshape(input, (-1,)), 0, reshape(index, (-1,)))
        return reshape(found, index.shape)
    if input.ndim != index.ndim:
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    _check_fits("gather", input, index, axis, "input")
    _check_entries(input, axis, index, "runtime")
    return run(
        "Gather", lambda v, i: ops.gather(v, _index(i), dim=axis, kind="runtime"), input, index
    )


def _check_fits(name: str, x: Tensor, index: Tensor, axis: int, what: str) -> None:
    for i, (a, b) in enumerate(zip(index._type.shape, x._type.shape, strict=False)):
        if i != axis and isinstance(a, int) and isinstance(b, int) and a > b:
            raise RuntimeError(
                f"Size does not match at dimension {i} expected index {list(index.shape)} to be no "
                f"larger than {what} {list(x.shape)} apart from dimension {axis}"
            )


def _scatter(
    name: str, input: Tensor, dim: int, index: Tensor, src: Any, kind: str = "runtime"
) -> Tensor:
    """An op of `ir.ops` that writes at places; `kind` is that of the error for a place outside of
    the dimension."""
    check_index_dtype(name, index)
    axis = _axis(input, dim)
    dtype = input._type.dtype
    if not isinstance(src, Tensor):
        src = (
            full_number(index, src)
            if dtype is index._type.dtype
            else _number_like(index, src, dtype)
        )
    elif src._type.dtype is not dtype:
        public = name if name in BACKWARD else "scatter_reduce"
        raise RuntimeError(
            f"{public}(): Expected self.dtype to be equal to src.dtype: {input.dtype} and "
            f"{src.dtype}"
        )
    if input.ndim == 0:
        flat = _scatter(
            name, reshape(input, (1,)), 0, reshape(index, (-1,)), reshape(src, (-1,)), kind
        )
        return reshape(flat, ())
    if index.numel() == 0:
        return input.clone()
    _check_fits(name, input, index, axis, "self")
    if src.ndim != index.ndim:
        raise RuntimeError(
            f"{name}(): Expected index {list(index.shape)} to be no larger than self "
            f"{list(input.shape)} apart from dimension {axis} and to be no larger size than src "
            f"{list(src.shape)}"
        )
    _check_fits(name, src, index, -1, "src")
    _check_entries(input, axis, index, kind)
    shape = index._type.shape
    if src._type.shape != shape:
        src = slice_view(src, (0,) * len(shape), shape, (1,) * len(shape))
    op = getattr(ops, name)
    return run(
        BACKWARD.get(name, "ScatterReduce"),
        lambda v, i, s: op(v, _index(i), s, dim=axis, kind=kind),
        input,
        index,
        src,
    )


def _number_like(index: Tensor, value: Any, dtype: Any) -> Tensor:
    number = scalar(element(value, dtype), dtype)
    shape = index._type.shape
    return beside(index, ops.expand(number, shape=shape) if shape else number)


@register(inplace=True, out=True)
def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy with `src` (a tensor or a number) written at `index` along `dim`."""
    src = value if src is None else src
    if src is None:
        raise TypeError(
            "scatter() received an invalid combination of arguments: it needs src or value"
        )
    if reduce == "add":
        return _scatter("scatter_add", input, dim, index, src)
    if reduce == "multiply":
        return scatter_reduce(
            input,
            dim,
            index,
            src if isinstance(src, Tensor) else _number_like(index, src, input._type.dtype),
            "prod",
        )
    if reduce is not None:
        raise RuntimeError("reduce argument must be either add or multiply.")
    return _scatter("scatter", input, dim, index, src)


@register(inplace=True, out=True)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """A copy with `src` added at `index` along `dim`."""
    check_tensor("scatter_add", "src", src, 3)
    return _scatter("scatter_add", input, dim, index, src)


@register(inplace=True, out=True)
@shown_as("ScatterReduce")
@keeps_as_one("input index src result")
@row_major
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy with `src` combined at `index` along `dim` by sum, mean, prod, amax or amin."""
    return _reduced(input, dim, index, src, reduce, include_self, "runtime")


def _reduced(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool, kind: str
) -> Tensor:
    """`scatter_reduce`; `kind` is that of the error for a place outside of the dimension."""
    if reduce not in ("sum", "mean", *COMBINING):
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}."
        )
    if input.dtype.is_complex and reduce in ("amax", "amin"):
        raise NotImplementedError(
            f"scatter_reduce {reduce} is not implemented for {input.dtype}: complex numbers have "
            "no order"
        )
    if input.ndim == 0:
        lines = [reshape(t, (-1,)) for t in (input, index, src)]
        return reshape(_reduced(lines[0], 0, lines[1], lines[2], reduce, include_self, kind), ())
    if input._type.dtype.is_bool:
        wide = DTYPES["uint8"]
        logical = {"sum": "amax", "mean": "amin", "prod": "amin"}.get(reduce, reduce)
        found = _reduced(input.to(wide), dim, index, src.to(wide), logical, include_self, kind)
        return found.to(input.dtype)
    base, count = input, None
    if not include_self or reduce == "mean":
        count = _entries_of(input, dim, index, src, kind)
    if count is not None and not include_self:
        neutral = _neutral(reduce, input.dtype)
        base = FUNCTIONS["where"](count > 0, neutral, input).to(input.dtype)
        if reduce in ("amax", "amin") and modes.grad and src.requires_grad:
            with no_grad():
                best = _scatter(COMBINING[reduce], base, dim, index, src, kind)
            # as in PyTorch an element that does not take part keeps its share of a gradient
            shares = (count > 0) & (input.detach() == best)
            base = FUNCTIONS["where"](shares, input.detach(), base)
    if reduce in ("sum", "mean"):
        total = _scatter("scatter_add", base, dim, index, src, kind)
        return total if count is None or reduce == "sum" else _mean(total, count, include_self)
    if input.dtype.is_complex:
        return _product_by_rounds(base, _axis(input, dim), index, src, kind)
    return _scatter(COMBINING[reduce], base, dim, index, src, kind)


def _entries_of(input: Tensor, dim: int, index: Tensor, src: Tensor, kind: str) -> Tensor:
    """How many entries of `src` go to each place."""
    nothing = FUNCTIONS["zeros_like"](input, dtype=DTYPES["int64"])
    ones = FUNCTIONS["ones_like"](src, dtype=DTYPES["int64"])
    return _scatter("scatter_add", nothing, dim, index, ones, kind)


def _mean(total: Tensor, count: Tensor, include_self: bool) -> Tensor:
    """Sums over their numbers of entries; those of integers rounded down."""
    count = count + 1 if include_self else count.clamp(min=1)
    if total.dtype.is_floating_point or total.dtype.is_complex:
        return (total / count).to(total.dtype)
    return FUNCTIONS["div"](total, count, rounding_mode="floor").to(total.dtype)  # type: ignore[no-any-return]


def _neutral(reduce: str, dtype: Any) -> Any:
    """What changes nothing."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    return iinfo(dtype).min if reduce == "amax" else iinfo(dtype).max


def _product_by_rounds(base: Tensor, axis: int, index: Tensor, src: Tensor, kind: str) -> Tensor:
    """Products of complex numbers: each entry along `axis` of `src` in turn."""
    blank = FUNCTIONS["ones_like"](base)
    for at in range(index.shape[axis]):
        i = index.narrow(axis, at, 1)
        base = base * _scatter("scatter", blank, axis, i, src.narrow(axis, at, 1), kind)
    return base


def _along(line: Tensor, axis: int, rank: int) -> Tensor:
    return reshape(line, tuple(-1 if i == axis else 1 for i in range(rank)))


def _check_source(
    name: str,
    x: Tensor,
    axis: int,
    index: Tensor,
    source: Tensor,
    error: type[Exception] = RuntimeError,
) -> None:
    """Raise unless `source` has an entry for each of `index`, of the sizes of those of `x`."""
    if source.ndim == 0 or x.ndim == 0 or not isinstance(index.numel(), int):
        return
    if source.ndim == x.ndim:
        if index.numel() != source.shape[axis]:
            raise error(
                f"{name}(): Number of indices ({index.numel()}) should be equal to "
                f"source.size(dim): ({source.shape[axis]}), for dim: {axis}"
            )
        rest = [[d for i, d in enumerate(t._type.shape) if i != axis] for t in (x, source)]
        if rest[0] == rest[1]:
            return
    raise RuntimeError(
        f"{name}(): source tensor shape must match self tensor shape, excluding the specified "
        f"dimension. Got self.shape = {list(x.shape)} source.shape = {list(source.shape)}"
    )


def _spread_index(x: Tensor, axis: int, index: Tensor, shape: tuple[Any, ...]) -> Tensor:
    return _along(index, axis, x.ndim).expand(shape)


@register(inplace=True, out=True)
@shown_as("IndexAdd")
@keeps_as_one(source="index source")
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with the entries of `source` added at `index` along `dim`."""
    check_index_dtype("index_add", index)
    axis = _axis(input, dim)
    alpha = bool(alpha) if input._type.dtype.is_bool else alpha
    _check_source("index_add_", input, axis, index, source)
    source = source if alpha == 1 else source * alpha
    if input.ndim == 0:
        return input + reshape(source, (-1,)).sum(dtype=input.dtype)
    _check_entries(input, axis, index)
    if source.ndim == 0:
        source = reshape(source, (1,) * input.ndim)
    places = _spread_index(input, axis, index, source._type.shape)
    return _scatter("scatter_add", input, axis, places, source, "index")


@register(inplace=True, out=True)
@shown_as("IndexReduce")
@keeps_as_one("input index source result")
@row_major
def index_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """A copy with the entries of `source` combined at `index` along `dim` by prod, mean, amax or
    amin."""
    check_index_dtype("index_reduce", index)
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(
            "index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got "
            f"{reduce}."
        )
    axis = _axis(input, dim)
    if input.ndim == 0:
        input, source = reshape(input, (1,)), reshape(source, (-1,))
        return reshape(index_reduce(input, 0, index, source, reduce, include_self=include_self), ())
    _check_entries(input, axis, index)
    spread = _spread_index(input, axis, index, source._type.shape)
    return _reduced(input, axis, spread, source, reduce, include_self, "index")


@register(inplace=True, out=True)
@keeps_as_one("index", source="source")
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with the entries of `source` written at `index` along `dim`."""
    check_index_dtype("index_copy", index)
    _check_long("index_copy_", index)
    axis = _axis(input, dim)
    if input.ndim == 0:
        return reshape(index_copy(reshape(input, (1,)), 0, index, reshape(source, (1,))), ())
    _check_source("index_copy_", input, axis, index, source, IndexError)
    _check_entries(input, axis, index)
    if source.ndim == 0:
        source = reshape(source, (1,) * input.ndim)
    places = _spread_index(input, axis, index, source._type.shape)
    return _scatter("scatter", input, axis, places, source, "index")


@register(inplace=True)
@keeps_as_one(input="index")
@order_kept
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with `value` written at `index` along `dim`."""
    check_index_dtype("index_fill", index, IndexError)
    _check_long("index_fill_", index, IndexError)
    axis = _axis(input, dim)
    if isinstance(value, Tensor) and value.ndim:
        raise RuntimeError(
            "index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.ndim} dimension(s)."
        )
    if input.ndim == 0:
        return input.clone().fill_(value)
    size = input._type.shape[axis]
    check_places(index, size, OUTSIDE % (axis, size), lowest=-size if isinstance(size, int) else 0)
    index = FUNCTIONS["where"](index < 0, index + size, index)  # it alone counts from the end
    hit = input.new_zeros(input._type.shape[axis], dtype=DTYPES["bool"])
    hit = _scatter("scatter", hit, 0, reshape(index, (-1,)), True, "index")
    return FUNCTIONS["masked_fill"](input, _along(hit, axis, input.ndim), value)


@register(out=True)
@shown_as("Take")
@keeps_as_one("input index")
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened input. Raises RuntimeError for an index that is not of int64."""
    _check_long("take", index)
    common_place("Take", (input, index))
    flat = reshape(input, (-1,))
    return getitem(flat, index)


@register(out=True)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As `gather`, with broadcasting; without `dim` on the flattened tensors."""
    if dim is None:
        return take_along_dim(reshape(input, (-1,)), reshape(indices, (-1,)), 0)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    _check_long("torch.take_along_dim", indices)
    axis = _axis(input, dim)
    if input.shape[axis]:  # all are taken modulo the size
        indices = indices % input.shape[axis]
    one = lambda s: tuple(1 if i == axis else d for i, d in enumerate(s))  # noqa: E731
    shape = broadcast(one(input._type.shape), one(indices._type.shape))
    with_size = lambda n: tuple(n if i == axis else d for i, d in enumerate(shape))  # noqa: E731
    return gather(
        input.expand(with_size(input.shape[axis])),
        axis,
        indices.expand(with_size(indices.shape[axis])),
    )


@register(inplace=True)
@keeps_as_one("index", input="source")
@order_kept
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `source` written (or added) at flat places."""
    _check_long("put_", index)
    if source.numel() != index.numel():
        raise IndexError(
            "put_(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {source.numel()}, index.numel() = {index.numel()}"
        )
    flat = reshape(input, (-1,))
    made = _put(flat, reshape(source, (-1,)), [(0, reshape(index, (-1,)))], (0,), bool(accumulate))
    return reshape(made, input.shape)


TOO_FEW = "Number of elements of source < number of ones in mask"


@register(inplace=True)
@row_major
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements of `source`, in order, where mask holds."""
    if input._type.dtype is not source._type.dtype:
        raise RuntimeError(
            "masked_scatter: expected self and source to have same dtypes but got "
            f"{SCALAR_NAMES[input._type.dtype]} and {SCALAR_NAMES[source._type.dtype]}"
        )
    shape = broadcast(input._type.shape, mask._type.shape)
    x, m = input.expand(shape), mask.expand(shape)
    count = source.numel()
    taken = FUNCTIONS["cumsum"](reshape(m, (-1,)), 0)
    known = known_elements(mask)
    if known is not None and np.broadcast_to(known, tuple(shape)).sum() > count:
        raise RuntimeError(TOO_FEW)
    left = checked(count - taken, "not negative", TOO_FEW)
    rank = count - left - 1
    chosen = reshape(getitem(reshape(source, (-1,)), rank.clamp(0, max(count - 1, 0))), shape)
    return FUNCTIONS["where"](m, chosen, x)


def _scatter_view(name: str, define: Any) -> None:
    def call(input: Tensor, src: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        made = input.clone()
        assign(define(made, *args, **kwargs), _source(src, define(made, *args, **kwargs)))
        return made

    call.__name__ = name
    call.__doc__ = "A copy of `input` with `src` written to a view of it."
    register(name)(call)


def _slice_of(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    return _sliced(x, _axis(x, dim), slice(start, end, step))


_scatter_view("select_scatter", select)
_scatter_view("slice_scatter", _slice_of)
_scatter_view("diagonal_scatter", diagonal)
_scatter_view("as_strided_scatter", as_strided)


@register(out=True)
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where values would be inserted into the sorted last dimension: before equal ones, or after
    (`right`)."""
    if side not in (None, "left", "right"):
        raise RuntimeError(
            f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}"
        )
    if side == "left" and right:
        raise RuntimeError(
            "torch.searchsorted(): side and right can't be set to opposites, got side of left "
            "while right was True"
        )
    right = right or side == "right"
    if sorter is not None:
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    number = not isinstance(input, Tensor)
    if number and not isinstance(input, Number):
        raise TypeError(
            "searchsorted(): argument 'input' (position 2) must be Tensor or Number, not "
            f"{type(input).__name__}"
        )
    values = sorted_sequence.new_tensor(input) if number else input
    flat = values.ndim == 0
    values = reshape(values, (1,)) if flat else values
    common = promote(sorted_sequence._type.dtype, values._type.dtype)
    found = run(
        "searchsorted",
        ops.searchsorted,
        cast_tensor(sorted_sequence.detach(), common),
        cast_tensor(values.detach(), common),
        **{"right": bool(right)},
    )
    found = reshape(found, ()) if flat else found
    return found.to(DTYPES["int32"]) if out_int32 else found


@register(method=False, out=True)
def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The bucket of each element between sorted boundaries."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
