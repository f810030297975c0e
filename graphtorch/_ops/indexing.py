"""``x[...]`` and ``x[...] = value``: integers, slices, None, Ellipsis, masks and index tensors, in
any mixture."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, i32, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import Dim, SymInt, broadcast

from .._deferred.at_once import NUMBERS, element, write_item
from .._deferred.making import beside, from_value
from .._deferred.storage import Leaf, recorder
from .._deferred.tensor import Tensor
from .._deferred.write import assign, check_overlap
from .._settings import warn_user
from .._types import DTYPES
from .base import (
    FUNCTIONS,
    MASK,
    METHODS,
    OUTSIDE,
    REPEATED,
    cast_value,
    check_places,
    elements_for_size,
    repeats,
    run,
    scalar,
    size_value,
)
from .creation import from_array
from .views import entry, part_view, reshape, select, slice_view, squeeze, unsqueeze

Arrays = list[tuple[int, Tensor]]  # (axis, integer index)


# ------------------------------------------------------------------------------------------ reading


def getitem(self: Tensor, key: Any) -> Tensor:
    """Basic indices give a view; masks and index tensors a copy."""
    if type(key) is int:
        return entry(self, 0, key) if self._type.shape else _no_dims()
    found = _part(self, key if type(key) is tuple else (key,))
    if found is not None:
        return found
    part, arrays = _basic(self, _as_tuple(key))
    if not arrays:
        return _full_view(self) if part is self else part
    dims = tuple(axis for axis, _ in arrays)
    _check_places(part, arrays)
    return run(
        "Index",
        lambda x, *indices: ops.index(x, *[_index(i) for i in indices], dims=dims),
        part,
        *[i for _, i in arrays],
    )


def _check_places(x: Tensor, arrays: Arrays) -> None:
    if any(0 in index._type.shape for _, index in arrays):
        return  # nothing is read
    for axis, index in arrays:
        size = x._type.shape[axis]
        lowest = -size if isinstance(size, int) else 0
        check_places(index, size, OUTSIDE % (axis, size), lowest=lowest)


def _part(x: Tensor, key: tuple[Any, ...]) -> Tensor | None:
    """What integers and slices with known bounds select, as one view; None for any other index."""
    sizes = x._type.shape
    if len(key) > len(sizes):
        return None
    start, stop, step = [0] * len(sizes), [*sizes], [1] * len(sizes)
    name = ""
    dropped = []
    for axis, item in enumerate(key):
        size = sizes[axis]
        if type(size) is not int:
            return None
        if type(item) is int:
            if not -size <= item < size:
                return None
            start[axis] = at = item + size if item < 0 else item
            stop[axis] = at + 1
            dropped.append(axis)
            name = "SelectBackward0"
        elif type(item) is slice and item.step is None:
            low, high = _slice_bound(item.start, size, 0), _slice_bound(item.stop, size, size)
            if low is None or high is None:
                return None
            if low > 0 or high < size:
                start[axis], stop[axis] = low, max(low, high)
                name = "SliceBackward0"
        else:
            return None
    if not name:
        return None
    return part_view(x, tuple(start), tuple(stop), tuple(step), name, dropped)


def _slice_bound(bound: Any, size: int, default: int) -> int | None:
    if bound is None:
        return default
    if type(bound) is not int:
        return None
    return min(max(bound + size if bound < 0 else bound, 0), size)


def _index(value: Value) -> Value:
    return cast_value(value, i64)


def _no_dims() -> Any:
    raise IndexError(
        "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in "
        "C++ to convert a 0-dim tensor to a number"
    )


def _full_view(x: Tensor) -> Tensor:
    shape = x._type.shape
    return slice_view(x, (0,) * len(shape), shape, (1,) * len(shape), "AliasBackward0")


# what makes a list of indices a tuple of them, as NumPy's arrays once did
_INDEX_PARTS = (slice, type(None), type(Ellipsis), list, tuple, range, str, np.ndarray, Tensor)


def _as_tuple(key: Any) -> tuple[Any, ...]:
    if isinstance(key, tuple):
        return key
    if isinstance(key, list) and len(key) < 32 and any(isinstance(k, _INDEX_PARTS) for k in key):
        warn_user(
            "Using a non-tuple sequence for multidimensional indexing is deprecated and will be "
            "changed in pytorch 2.9; use x[tuple(seq)] instead of x[seq]. In pytorch 2.9 this will "
            "be interpreted as tensor index, x[torch.tensor(seq)], which will result either in an "
            "error or a different result"
        )
        return tuple(key)
    return (key,)


def is_mask(item: Tensor) -> bool:
    return item._type.dtype.name in ("bool", "u8")


def _width(item: Any) -> int:
    """How many dimensions of the tensor an index entry takes."""
    if item is None or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and is_mask(item):
        return item.ndim
    return 1


def _converted(key: tuple[Any, ...]) -> list[Any]:
    result: list[Any] = []
    for item in key:
        if isinstance(item, (list, tuple, range)):
            item = (
                FUNCTIONS["tensor"](list(item))
                if len(item)
                else FUNCTIONS["empty"](0, dtype=_long())
            )
        elif isinstance(item, np.ndarray):
            item = FUNCTIONS["tensor"](item)
        elif isinstance(item, np.bool_):
            item = bool(item)
        elif not isinstance(
            item, (int, slice, Tensor, SymInt, type(None), type(Ellipsis))
        ) and hasattr(item, "__index__"):
            item = int(item)
        if (
            isinstance(item, Tensor)
            and item.ndim == 0
            and item._type.dtype.is_integer
            and item._type.dtype.name != "u8"
        ):
            item = _scalar_index(item)
        result.append(item)
    return result


def _scalar_index(item: Tensor) -> Any:
    known = isinstance(item._storage.value, Leaf) and not item.is_meta and recorder.capture is None
    return int(item.item()) if known else item


def _long() -> Any:
    return DTYPES["int64"]


def _basic(x: Tensor, key: tuple[Any, ...]) -> tuple[Tensor, Arrays]:
    """Apply the basic part of an index as views; the rest as (axis, index tensor)."""
    items = _converted(key)
    used = sum(_width(i) for i in items if i is not Ellipsis)
    if used > x.ndim:
        if x.ndim == 0 and all(isinstance(i, int) for i in items):
            _no_dims()
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
    axis, spare = 0, x.ndim - used
    arrays: Arrays = []
    for place, item in enumerate(items):
        if item is Ellipsis:
            axis += spare
        elif item is None:
            x = unsqueeze(x, axis)
            axis += 1
        elif isinstance(item, bool):
            x = unsqueeze(x, axis)
            arrays.append((axis, x.new_zeros(1 if item else 0, dtype=_long())))
            axis += 1
        elif isinstance(item, slice):
            x = _sliced(x, axis, item)
            axis += 1
        elif isinstance(item, (int, SymInt)):
            x = _selected(x, axis, item, place)
        elif isinstance(item, Tensor):
            if item.ndim == 0 and is_mask(item):  # as True and False
                x, item = unsqueeze(x, axis), reshape(item, (1,))
            axis = _add_arrays(x, axis, item, arrays)
        elif isinstance(item, str):  # a sequence to PyTorch
            raise TypeError("new(): invalid data type 'str'")
        else:
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables "
                f"are valid indices (got {type(item).__name__})"
            )
    return x, arrays


def _selected(x: Tensor, axis: int, at: Dim, place: int) -> Tensor:
    """The entry `at` of an axis, of which errors say its `place` among the indices."""
    size = x._type.shape[axis]
    if isinstance(size, int) and isinstance(at, int) and not -size <= at < size:
        raise IndexError(OUTSIDE.format(at) % (place, size))
    return select(x, axis, at)


def _sliced(x: Tensor, axis: int, part: slice) -> Tensor:
    shape = x._type.shape
    start, stop, step = _bounds(part, shape[axis])
    if step == 1 and start == 0 and stop == shape[axis]:
        return x
    rank = len(shape)
    return slice_view(
        x,
        tuple(start if i == axis else 0 for i in range(rank)),
        tuple(stop if i == axis else d for i, d in enumerate(shape)),
        tuple(step if i == axis else 1 for i in range(rank)),
    )


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
    if is_mask(item):
        if not dtype.is_bool:
            warn_user(
                "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool "
                "instead."
            )
        shape = x._type.shape
        for i, size in enumerate(item._type.shape):
            if size != shape[axis + i]:
                raise IndexError(
                    f"The shape of the mask {list(item.shape)} at index {i} does not match the "
                    f"shape of the indexed tensor {list(shape)} at index {axis + i}"
                )
        for i, column in enumerate(_true_places(item)):
            arrays.append((axis + i, column))
        return axis + item.ndim
    if dtype not in (i32, i64):
        raise IndexError(
            "tensors used as indices must be long, int, byte or bool tensors: convert this one, "
            f"of {item.dtype}, with .long()"
        )
    arrays.append((axis, item))
    return axis + 1


def _true_places(mask: Tensor) -> tuple[Tensor, ...]:
    array = elements_for_size("indexing with a mask", mask, MASK)
    return tuple(from_array(column, place=mask.device) for column in np.nonzero(array))


# ------------------------------------------------------------------------------------------ writing


def setitem(self: Tensor, key: Any, value: Any) -> None:
    """Write to what an index selects: a number, or a tensor that broadcasts to its shape.

    Raises: TypeError: `value` is neither, as lists and arrays are.
    """
    value = assignable(self, value)
    if write_item(self, key, value):
        return
    key = _as_tuple(key)
    mask = key[0] if len(key) == 1 else None
    if (
        isinstance(mask, Tensor)
        and mask._type.dtype.is_bool
        and _scalar_like(value)
        and mask.ndim <= self.ndim
    ):
        _check_mask(self, mask)
        spread = mask.reshape(mask.shape + (1,) * (self.ndim - mask.ndim))
        if repeats(self):
            METHODS["masked_fill_"](self, spread, value)
            return
        assign(self, FUNCTIONS["masked_fill"](self, spread, value))
        return
    key = tuple(_converted(key))
    part, arrays = _basic(self, key)
    dtype = self._type.dtype
    tensors = [k for k in key if isinstance(k, Tensor)]
    if len(tensors) == 1 and tensors[0]._type.dtype.name == "u8" and _scalar_like(value):
        raise RuntimeError(
            "masked_fill_ only supports boolean masks, but got mask with dtype unsigned char: "
            "convert it with .bool()"
        )
    if not arrays:
        assign(
            _full_view(self) if part is self and self.ndim and key != (Ellipsis,) else part,
            _source(value, part),
        )
        return
    dims = tuple(axis for axis, _ in arrays)
    source = value if isinstance(value, Tensor) else from_value(_number(value, dtype))
    if isinstance(value, Tensor):
        if all(index.ndim == 0 for _, index in arrays):  # integers not yet computed: a copy casts
            source = value.to(self.dtype)
        check_put_dtype(part, source, key)
    check_overlap(part, source, identical=True)
    if repeats(part):
        REPEATED["index_put_"](part, _places_of(arrays), source)
        return
    written = _put(part, source, arrays, dims, accumulate=False)
    assign(part, written)


def check_put_dtype(x: Tensor, values: Tensor, key: Any) -> None:
    """Raise unless what is written at index tensors has the dtype of where it goes.

    One element that is written where a single mask holds is cast, as `masked_fill` does.
    """
    wanted, given = x._type.dtype, values._type.dtype
    if wanted is not given:
        tensors = [k for k in key if isinstance(k, Tensor)]
        if len(tensors) == 1 and values.numel() == 1 and is_mask(tensors[0]):
            return
        raise RuntimeError(
            "Index put requires the source and destination dtypes match, got "
            f"{SCALAR_NAMES[wanted]} for the destination and {SCALAR_NAMES[given]} for the source."
        )


def _places_of(arrays: Arrays) -> tuple[Any, ...]:
    """A key that has the index tensors where they are, and takes all of the dimensions between."""
    key: list[Any] = [slice(None)] * (1 + max(axis for axis, _ in arrays))
    for axis, index in arrays:
        key[axis] = index
    return tuple(key)


def _check_mask(x: Tensor, mask: Tensor) -> None:
    for i, size in enumerate(mask._type.shape):
        if size != x._type.shape[i]:
            raise IndexError(
                f"The shape of the mask {list(mask.shape)} at index {i} does not match the shape "
                f"of the indexed tensor {list(x.shape)} at index {i}"
            )


def _scalar_like(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex)) or (
        isinstance(value, Tensor) and value.ndim == 0
    )


def assignable(x: Tensor, value: Any) -> Any:
    """What may be written to elements of `x`: a tensor or a number, as Python has it."""
    if type(value) in NUMBERS or isinstance(value, (Tensor, SymInt)):
        return value
    if isinstance(value, (bool, int, float, complex, np.integer)):  # np.float64 is a float
        return value.item() if isinstance(value, np.generic) else value
    kind = type(value)
    home = f"{kind.__module__}." if kind.__module__ == "numpy" else ""
    raise TypeError(
        f"can't assign a {home}{kind.__name__} to a {METHODS['type'](x)}: give a number or a "
        "tensor, such as torch.tensor(value)"
    )


def _source(value: Any, part: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return full_number(part, value)
    if value._type.dtype is not part._type.dtype:
        value = value.to(part.dtype)
    while value.ndim > part.ndim and value.shape[0] == 1:
        value = value.squeeze(0)
    if value.shape != part.shape:
        try:
            value = value.expand(part.shape)
        except RuntimeError:
            raise RuntimeError(
                f"The expanded size of the tensor ({list(part.shape)}) must match the existing "
                f"size ({list(value.shape)}) of the value assigned to it"
            ) from None
    return value


def full_number(part: Tensor, value: Any) -> Tensor:
    """A number repeated to the shape of `part`."""
    number, shape = _number(value, part._type.dtype), part._type.shape
    return beside(part, ops.expand(number, shape=shape) if shape else number)


def _number(value: Any, dtype: DType) -> Value:
    if isinstance(value, SymInt):
        return size_value(value, dtype)
    return scalar(element(value.item() if isinstance(value, np.generic) else value, dtype), dtype)


FUNCTIONS["full_number"] = full_number


def _put(
    x: Tensor, source: Tensor, arrays: Arrays, dims: tuple[int, ...], accumulate: bool
) -> Tensor:
    dtype = x._type.dtype
    shape = _indexed_shape(x, arrays, dims)
    _check_places(x, arrays)
    while source.ndim > len(shape) and source.shape[0] == 1:
        source = squeeze(source, 0)
    if broadcast_fails(source._type.shape, shape):
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(source.shape)} cannot be broadcast to "
            f"indexing result of shape {list(shape)}"
        )

    def apply(v: Value, s: Value, *indices: Value) -> Value:
        return ops.index_put(
            v, cast_value(s, dtype), *[_index(i) for i in indices], dims=dims, accumulate=accumulate
        )

    return run("IndexPut", apply, x, source, *[i for _, i in arrays])


def _indexed_shape(x: Tensor, arrays: Arrays, dims: tuple[int, ...]) -> tuple[Any, ...]:
    try:
        block = broadcast(*[i._type.shape for _, i in arrays])
    except RuntimeError:
        shapes = ", ".join(str(list(i.shape)) for _, i in arrays)
        raise IndexError(
            "shape mismatch: indexing tensors could not be broadcast together with shapes " + shapes
        ) from None
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
