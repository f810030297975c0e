"""``x[...]`` and ``x[...] = value``: integers, slices, None, Ellipsis, masks and index tensors, in any mixture."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import Dim, SymInt, broadcast

from ._ops.base import FUNCTIONS, METHODS, cast_value, register, run, scalar
from ._ops.views import reshape, select, slice_view, squeeze, unsqueeze
from .tensor import Tensor, assign

Arrays = list[tuple[int, Tensor]]  # (axis, integer index)


# ------------------------------------------------------------------------------------------ reading


def getitem(self: Tensor, key: Any) -> Tensor:
    """Basic indices give a view; masks and index tensors a copy."""
    if type(key) is int:
        return select(self, 0, key) if self.ndim else _no_dims()
    part, arrays = _basic(self, _as_tuple(key))
    if not arrays:
        return _full_view(self) if part is self else part
    dims = tuple(axis for axis, _ in arrays)
    return run("Index", lambda x, *indices: ops.index(x, *[_index(i) for i in indices], dims=dims), part,
               *[i for _, i in arrays])


def _index(value: Value) -> Value:
    return cast_value(value, i64)


def _no_dims() -> Any:
    raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert "
                     "a 0-dim tensor to a number")


def _full_view(x: Tensor) -> Tensor:
    shape = x._type.shape
    return slice_view(x, (0,) * len(shape), shape, (1,) * len(shape), "AliasBackward0")


def _as_tuple(key: Any) -> tuple[Any, ...]:
    if isinstance(key, tuple):
        return key
    if isinstance(key, list) and any(isinstance(k, (slice, type(None), type(Ellipsis), list, tuple, Tensor)) for k in key) \
            and len(key) < 32 and not all(isinstance(k, (list, tuple)) for k in key):
        return tuple(key)
    return (key,)


def _width(item: Any) -> int:
    """How many dimensions of the tensor an index entry takes."""
    if item is None or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and item._type.dtype.name in ("bool", "u8"):
        return item.ndim
    return 1


def _converted(key: tuple[Any, ...]) -> list[Any]:
    result: list[Any] = []
    for item in key:
        if isinstance(item, (list, tuple, range)):
            item = FUNCTIONS["tensor"](list(item)) if len(item) else FUNCTIONS["empty"](0, dtype=_long())
        elif isinstance(item, np.ndarray):
            item = FUNCTIONS["tensor"](item)
        elif isinstance(item, np.bool_):
            item = bool(item)
        elif not isinstance(item, (int, slice, Tensor, SymInt, type(None), type(Ellipsis))) and hasattr(item, "__index__"):
            item = int(item)
        if isinstance(item, Tensor) and item.ndim == 0 and item._type.dtype.is_integer and item._type.dtype.name != "u8":
            item = _scalar_index(item)
        result.append(item)
    return result


def _scalar_index(item: Tensor) -> Any:
    from .storage import Leaf, Storage
    known = isinstance(item._storage.value, Leaf) and Storage.capture is None
    return int(item.item()) if known else item


def _long() -> Any:
    from ._types import DTYPES
    return DTYPES["int64"]


def _basic(x: Tensor, key: tuple[Any, ...]) -> tuple[Tensor, Arrays]:
    """Apply the basic part of an index as views; the rest as (axis, index tensor)."""
    items = _converted(key)
    if sum(i is Ellipsis for i in items) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    used = sum(_width(i) for i in items if i is not Ellipsis)
    if used > x.ndim:
        if x.ndim == 0 and all(isinstance(i, int) for i in items):
            _no_dims()
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
    axis = 0
    arrays: Arrays = []
    for item in items:
        if item is Ellipsis:
            axis += x.ndim - axis - _remaining(items)
        elif item is None:
            x = unsqueeze(x, axis)
            axis += 1
        elif isinstance(item, bool):
            x = unsqueeze(x, axis)
            arrays.append((axis, FUNCTIONS["zeros"](1 if item else 0, dtype=_long())))
            axis += 1
        elif isinstance(item, slice):
            x = _sliced(x, axis, item)
            axis += 1
        elif isinstance(item, (int, SymInt)):
            x = _selected(x, axis, item)
        elif isinstance(item, Tensor):
            axis = _add_arrays(x, axis, item, arrays)
        else:
            raise IndexError("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid "
                             f"indices (got {type(item).__name__})")
    return x, arrays


def _remaining(items: list[Any]) -> int:
    after = items[next(n for n, i in enumerate(items) if i is Ellipsis) + 1:]
    return sum(_width(i) for i in after)


def _selected(x: Tensor, axis: int, at: Dim) -> Tensor:
    return select(x, axis, at)


def _sliced(x: Tensor, axis: int, part: slice) -> Tensor:
    shape = x._type.shape
    start, stop, step = _bounds(part, shape[axis])
    if step == 1 and start == 0 and stop == shape[axis]:
        return x
    rank = len(shape)
    return slice_view(x, tuple(start if i == axis else 0 for i in range(rank)),
                      tuple(stop if i == axis else d for i, d in enumerate(shape)),
                      tuple(step if i == axis else 1 for i in range(rank)))


def _bounds(part: slice, size: Dim) -> tuple[Any, Any, int]:
    step = 1 if part.step is None else _integer(part.step)
    if step <= 0:
        raise ValueError("step must be greater than zero")
    start = 0 if part.start is None else _clipped(_integer(part.start), size)
    stop = size if part.stop is None else _clipped(_integer(part.stop), size)
    return start, stop if stop >= start else start, step


def _integer(bound: Any) -> Any:
    if isinstance(bound, (int, SymInt)):
        return bound
    if isinstance(bound, Tensor):
        return int(bound.item())
    if hasattr(bound, "__index__"):
        return bound.__index__()
    raise TypeError("slice indices must be integers or None or have an __index__ method")


def _clipped(bound: Any, size: Dim) -> Any:
    if isinstance(bound, int) and isinstance(size, int):
        return min(max(bound + size if bound < 0 else bound, 0), size)
    if isinstance(bound, int) and bound < 0:
        bound = size + bound
        return bound if bound >= 0 else 0
    return bound if bound <= size else size


def _add_arrays(x: Tensor, axis: int, item: Tensor, arrays: Arrays) -> int:
    dtype = item._type.dtype
    if dtype.name in ("bool", "u8"):
        shape = x._type.shape
        for i, size in enumerate(item._type.shape):
            if size != shape[axis + i]:
                raise IndexError(f"The shape of the mask {list(item.shape)} at index {i} does not match the shape of the "
                                 f"indexed tensor {list(shape)} at index {axis + i}")
        for i, column in enumerate(_true_places(item)):
            arrays.append((axis + i, column))
        return axis + item.ndim
    if not dtype.is_integer:
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    arrays.append((axis, item))
    return axis + 1


def _true_places(mask: Tensor) -> tuple[Tensor, ...]:
    from .creation import from_array
    if mask.ndim == 0:
        raise IndexError("a 0-dim mask needs at least one dimension: use masked_fill or torch.where")
    return tuple(from_array(column) for column in np.nonzero(mask.detach()._array()))


# ------------------------------------------------------------------------------------------ writing


def setitem(self: Tensor, key: Any, value: Any) -> None:
    """Write to what an index selects: a number, or a tensor that broadcasts to its shape."""
    key = _as_tuple(key)
    mask = key[0] if len(key) == 1 else None
    if isinstance(mask, Tensor) and mask._type.dtype.is_bool and _scalar_like(value) and mask.ndim <= self.ndim:
        _check_mask(self, mask)
        spread = mask.reshape(mask.shape + (1,) * (self.ndim - mask.ndim))
        assign(self, FUNCTIONS["masked_fill"](self, spread, value))
        return
    part, arrays = _basic(self, key)
    dtype = self._type.dtype
    if not arrays:
        assign(_full_view(self) if part is self and self.ndim else part, _source(value, part), fills=not isinstance(value, Tensor))
        return
    dims = tuple(axis for axis, _ in arrays)
    source = value if isinstance(value, Tensor) else scalar_tensor(value, dtype)
    written = _put(part, source, arrays, dims, accumulate=False)
    assign(part, written)


def _check_mask(x: Tensor, mask: Tensor) -> None:
    for i, size in enumerate(mask._type.shape):
        if size != x._type.shape[i]:
            raise IndexError(f"The shape of the mask {list(mask.shape)} at index {i} does not match the shape of the indexed "
                             f"tensor {list(x.shape)} at index {i}")


def _scalar_like(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex)) or isinstance(value, Tensor) and value.ndim == 0


def _source(value: Any, part: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        if isinstance(value, (bool, int, float, complex, np.generic)):
            return FUNCTIONS["full_number"](part, value)
        value = FUNCTIONS["tensor"](value)
    if value._type.dtype is not part._type.dtype:
        value = value.to(part.dtype)
    while value.ndim > part.ndim and value.shape[0] == 1:
        value = value.squeeze(0)
    if value.shape != part.shape:
        try:
            value = value.expand(part.shape)
        except RuntimeError:
            raise RuntimeError(f"The expanded size of the tensor ({list(part.shape)}) must match the existing size "
                               f"({list(value.shape)}) of the value assigned to it") from None
    return value


def scalar_tensor(value: Any, dtype: Any) -> Tensor:
    """A Python number (or sequence) as a tensor of an IR dtype."""
    from .tensor import from_value
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return from_value(scalar(value, dtype))
    return FUNCTIONS["tensor"](value)


def full_number(part: Tensor, value: Any) -> Tensor:
    """A number repeated to the shape of `part`."""
    from .tensor import from_value
    dtype = part._type.dtype
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, complex) and not dtype.is_complex:
        raise RuntimeError(f"value cannot be converted to type {dtype.torch_name} without overflow")
    if dtype.is_integer and isinstance(value, float):
        value = int(value)
    number = scalar(bool(value) if dtype.is_bool else value, dtype)
    shape = part._type.shape
    return from_value(ops.expand(number, shape=shape) if shape else number)


FUNCTIONS["full_number"] = full_number


def _put(x: Tensor, source: Tensor, arrays: Arrays, dims: tuple[int, ...], accumulate: bool) -> Tensor:
    dtype = x._type.dtype
    shape = _indexed_shape(x, arrays, dims)
    while source.ndim > len(shape) and source.shape[0] == 1:
        source = squeeze(source, 0)
    if broadcast_fails(source._type.shape, shape):
        raise RuntimeError(f"shape mismatch: value tensor of shape {list(source.shape)} cannot be broadcast to indexing result "
                           f"of shape {list(shape)}")

    def apply(v: Value, s: Value, *indices: Value) -> Value:
        return ops.index_put(v, cast_value(s, dtype), *[_index(i) for i in indices], dims=dims, accumulate=accumulate)
    return run("IndexPut", apply, x, source, *[i for _, i in arrays])


def _indexed_shape(x: Tensor, arrays: Arrays, dims: tuple[int, ...]) -> tuple[Any, ...]:
    try:
        block = broadcast(*[i._type.shape for _, i in arrays])
    except RuntimeError:
        shapes = ", ".join(str(list(i.shape)) for _, i in arrays)
        raise IndexError("shape mismatch: indexing tensors could not be broadcast together with shapes " + shapes) from None
    rest = [d for axis, d in enumerate(x._type.shape) if axis not in dims]
    near = dims == tuple(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if near else 0
    return (*rest[:at], *block, *rest[at:])


def broadcast_fails(shape: tuple[Any, ...], target: tuple[Any, ...]) -> bool:
    """Whether `shape` does not broadcast to exactly `target`."""
    try:
        return broadcast(shape, target) != tuple(target)
    except RuntimeError:
        return True


METHODS["__getitem__"] = getitem
METHODS["__setitem__"] = setitem


# ------------------------------------------------------------------------------------------ named forms


def _index_list(x: Tensor, indices: Any) -> tuple[Tensor, Arrays]:
    key = tuple(slice(None) if i is None else i for i in indices)
    return _basic(x, key)


@register(inplace=True)
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` written (or added) at index tensors."""
    part, arrays = _index_list(input, indices)
    if not arrays:
        raise RuntimeError("index_put: expected at least one index tensor")
    return _put(part, values, arrays, tuple(a for a, _ in arrays), bool(accumulate))


def check_index_dtype(name: str, index: Any) -> None:
    """Raise unless `index` is an int64 tensor."""
    if not isinstance(index, Tensor):
        raise TypeError(f"{name}(): argument 'index' must be Tensor, not {type(index).__name__}")
    if index._type.dtype.name not in ("i64", "i32"):
        raise RuntimeError(f"{name}(): Expected dtype int64 for index, got {index.dtype}")


@register(out=True)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries `index` along `dim`."""
    from ._ops.base import axis_of
    check_index_dtype("index_select", index)
    if index.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector, but got dim: " + str(index.ndim))
    axis = axis_of(dim, input.ndim)
    if input.ndim == 0:
        return reshape(index_select(reshape(input, (1,)), 0, index), ())
    flat = reshape(index, (-1,)) if index.ndim == 0 else index
    return run("IndexSelect", lambda v, i: ops.index_select(v, _index(i), dim=axis), input, flat)


def _axis(x: Tensor, dim: int) -> int:
    from ._ops.base import axis_of
    return axis_of(dim, x.ndim)


@register(out=True)
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
    return run("Gather", lambda v, i: ops.gather(v, _index(i), dim=axis), input, index)


def _check_fits(name: str, x: Tensor, index: Tensor, axis: int, what: str) -> None:
    for i, (a, b) in enumerate(zip(index._type.shape, x._type.shape, strict=False)):
        if i != axis and isinstance(a, int) and isinstance(b, int) and a > b:
            raise RuntimeError(f"Size does not match at dimension {i} expected index {list(index.shape)} to be no larger than "
                               f"{what} {list(x.shape)} apart from dimension {axis}")


def _scatter(name: str, input: Tensor, dim: int, index: Tensor, src: Any, apply: Any) -> Tensor:
    check_index_dtype(name, index)
    axis = _axis(input, dim)
    dtype = input._type.dtype
    if not isinstance(src, Tensor):
        src = full_number(index, src) if dtype is index._type.dtype else _number_like(index, src, dtype)
    elif src._type.dtype is not dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype: {input.dtype} and {src.dtype}")
    if input.ndim == 0:
        flat = _scatter(name, reshape(input, (1,)), 0, reshape(index, (-1,)), reshape(src, (-1,)), apply)
        return reshape(flat, ())
    if index.numel() == 0:
        return input.clone()
    _check_fits(name, input, index, axis, "self")
    _check_fits(name, src, index, -1, "src")
    shape = index._type.shape
    if src._type.shape != shape:
        src = slice_view(src, (0,) * len(shape), shape, (1,) * len(shape))
    return run(name.capitalize(), lambda v, i, s: apply(v, _index(i), s, axis), input, index, src)


def _number_like(index: Tensor, value: Any, dtype: Any) -> Tensor:
    from .tensor import from_value
    number = scalar(value, dtype)
    shape = index._type.shape
    return from_value(ops.expand(number, shape=shape) if shape else number)


@register(inplace=True, out=True)
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """A copy with `src` (a tensor or a number) written at `index` along `dim`."""
    src = value if src is None else src
    if reduce == "add":
        return scatter_add(input, dim, index, src)
    if reduce == "multiply":
        return scatter_reduce(input, dim, index, src if isinstance(src, Tensor) else _number_like(index, src, input._type.dtype),
                              "prod")
    if reduce is not None:
        raise RuntimeError("reduce argument must be either add or multiply.")
    return _scatter("scatter", input, dim, index, src, lambda v, i, s, axis: ops.scatter(v, i, s, dim=axis))


@register(inplace=True, out=True)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """A copy with `src` added at `index` along `dim`."""
    return _scatter("scatter_add", input, dim, index, src, lambda v, i, s, axis: ops.scatter_add(v, i, s, dim=axis))


@register(inplace=True, out=True)
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """A copy with `src` combined at `index` along `dim` by sum, mean, prod, amax or amin."""
    start = {"sum": 0, "mean": 0, "prod": 1, "amax": None, "amin": None}
    if reduce not in start:
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}.")
    touched = scatter_add(FUNCTIONS["zeros_like"](input), dim, index, FUNCTIONS["ones_like"](src))
    base = input if include_self else FUNCTIONS["where"](touched > 0, start[reduce] or 0, input).to(input.dtype)
    if reduce in ("sum", "mean"):
        total = scatter_add(base, dim, index, src)
        if reduce == "sum":
            return total
        count = (touched + 1 if include_self else touched.clamp(min=1))
        return total / count if input.dtype.is_floating_point else FUNCTIONS["div"](total, count, rounding_mode="floor")
    return _reduce_by_rounds(input, _axis(input, dim), index, src, reduce, include_self, touched)


def _reduce_by_rounds(x: Tensor, axis: int, index: Tensor, src: Tensor, reduce: str, include_self: bool,
                      touched: Tensor) -> Tensor:
    """prod, amax and amin: each entry along `axis` of `src` in turn."""
    combine = {"prod": FUNCTIONS["mul"], "amax": FUNCTIONS["maximum"], "amin": FUNCTIONS["minimum"]}[reduce]
    info = x.dtype
    neutral = {"prod": 1.0, "amax": -float("inf"), "amin": float("inf")}[reduce]
    if not info.is_floating_point:
        from ._types import iinfo
        limits = iinfo(info)
        neutral = {"prod": 1, "amax": limits.min, "amin": limits.max}[reduce]
    result = x if include_self else FUNCTIONS["where"](touched > 0, neutral, x).to(x.dtype)
    blank = FUNCTIONS["full_like"](x, neutral)
    for at in range(index.shape[axis]):
        i = index.narrow(axis, at, 1)
        result = combine(result, scatter(blank, axis, i, src.narrow(axis, at, 1)))
    return result


def _spread_index(x: Tensor, axis: int, index: Tensor, shape: tuple[Any, ...]) -> Tensor:
    return reshape(index, tuple(-1 if i == axis else 1 for i in range(x.ndim))).expand(shape)


@register(inplace=True, out=True)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with the entries of `source` added at `index` along `dim`."""
    check_index_dtype("index_add", index)
    axis = _axis(input, dim)
    source = source if alpha == 1 else source * alpha
    if input.ndim == 0:
        return input + reshape(source, (-1,)).sum()
    if source.ndim == 0:
        source = reshape(source, (1,) * input.ndim)
    return scatter_add(input, axis, _spread_index(input, axis, index, source._type.shape), source)


@register(inplace=True, out=True)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with the entries of `source` written at `index` along `dim`."""
    check_index_dtype("index_copy", index)
    axis = _axis(input, dim)
    if input.ndim == 0:
        return reshape(source, ()).clone()
    if source.ndim == 0:
        source = reshape(source, (1,) * input.ndim)
    return scatter(input, axis, _spread_index(input, axis, index, source._type.shape), source)


@register(inplace=True)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with `value` written at `index` along `dim`."""
    check_index_dtype("index_fill", index)
    axis = _axis(input, dim)
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError("index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                               f"{value.ndim} dimension(s).")
    if input.ndim == 0:
        return input.clone().fill_(value)
    shape = tuple(index.numel() if i == axis else d for i, d in enumerate(input._type.shape))
    spread = _spread_index(input, axis, index, shape)
    source = value.to(input.dtype).expand(shape) if isinstance(value, Tensor) else _number_like(spread, value, input._type.dtype)
    return scatter(input, axis, spread, source)


@register(out=True)
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened input."""
    flat = reshape(input, (-1,))
    return getitem(flat, index)


@register(out=True)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As `gather`, with broadcasting; without `dim` on the flattened tensors."""
    if dim is None:
        return gather(reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    axis = _axis(input, dim)
    one = lambda s: tuple(1 if i == axis else d for i, d in enumerate(s))  # noqa: E731
    shape = broadcast(one(input._type.shape), one(indices._type.shape))
    with_size = lambda n: tuple(n if i == axis else d for i, d in enumerate(shape))  # noqa: E731
    return gather(input.expand(with_size(input.shape[axis])), axis, indices.expand(with_size(indices.shape[axis])))


@register(inplace=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `source` written (or added) at flat places."""
    flat = reshape(input, (-1,))
    made = _put(flat, reshape(source, (-1,)), [(0, reshape(index, (-1,)))], (0,), bool(accumulate))
    return reshape(made, input.shape)


@register()
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where mask holds, as a vector. Its size depends on data: not for captured functions."""
    if not mask._type.dtype.is_bool:
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
    shape = broadcast(input._type.shape, mask._type.shape)
    if not shape:
        return getitem(reshape(input, (1,)), reshape(mask, (1,)))
    return getitem(input.expand(shape), mask.expand(shape))


@register(inplace=True)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements of `source`, in order, where mask holds."""
    shape = broadcast(input._type.shape, mask._type.shape)
    x, m = input.expand(shape), mask.expand(shape)
    rank = FUNCTIONS["cumsum"](reshape(m, (-1,)), 0) - 1
    count = source.numel()
    chosen = reshape(getitem(reshape(source, (-1,)), rank.clamp(0, max(count - 1, 0))), shape)
    return FUNCTIONS["where"](m, chosen, x)


@register()
def nonzero(input: Tensor, *, as_tuple: bool = False, out: Any = None) -> Any:
    """The indices of elements that are not zero. Its size depends on data: not for captured functions."""
    from .creation import from_array
    found = np.nonzero(np.atleast_1d(input.detach()._array()))
    if as_tuple:
        return tuple(from_array(c.astype(np.int64)) for c in found)
    if input.ndim == 0:
        return from_array(np.zeros((len(found[0]), 0), np.int64))
    return from_array(np.stack(found, 1).astype(np.int64))


@register()
def argwhere(input: Tensor) -> Tensor:
    """The indices of elements that are not zero, one per row."""
    return nonzero(input)


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
_scatter_view("diagonal_scatter", FUNCTIONS["diagonal"])
_scatter_view("as_strided_scatter", FUNCTIONS["as_strided"])


@register(out=True)
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None,
                 sorter: Tensor | None = None) -> Tensor:
    """Where values would be inserted into the sorted last dimension: before equal ones, or after (`right`)."""
    from ._types import DTYPES
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True")
    right = right or side == "right"
    if sorter is not None:
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    number = not isinstance(input, Tensor)
    values = FUNCTIONS["tensor"](input, dtype=sorted_sequence.dtype) if number else input
    flat = values.ndim == 0
    values = reshape(values, (1,)) if flat else values
    if values._type.dtype is not sorted_sequence._type.dtype:
        raise RuntimeError("torch.searchsorted(): input value tensor and boundaries tensor should have same dtype, but got "
                           f"{values.dtype} and {sorted_sequence.dtype}")
    found = run("searchsorted", ops.searchsorted, sorted_sequence.detach(), values.detach(), **{"right": bool(right)})
    found = reshape(found, ()) if flat else found
    return found.to(DTYPES["int32"]) if out_int32 else found


@register(method=False, out=True)
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The bucket of each element between sorted boundaries."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@register(inplace=False)
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs. Its size depends on data: not for captured functions."""
    from .creation import from_array
    found = np.bincount(input._array(), None if weights is None else weights.detach()._array(), minlength)
    if weights is not None and weights.dtype.is_floating_point:
        found = found.astype(weights._type.dtype.numpy)
    return from_array(found)


@register()
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """The distinct elements. Its size depends on data: not for captured functions."""
    from .creation import from_array
    found = np.unique(input.detach()._array(), return_inverse=True, return_counts=True, axis=dim)
    values, inverse, counts = found
    result = [from_array(np.ascontiguousarray(values))]
    if return_inverse:
        result.append(from_array(np.ascontiguousarray(inverse.reshape(input.shape if dim is None else (-1,)), np.int64)))
    if return_counts:
        result.append(from_array(np.ascontiguousarray(counts, np.int64)))
    return tuple(result) if len(result) > 1 else result[0]


