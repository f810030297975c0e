"""Writes that run at once, by NumPy: where the target, what is written and the index are in memory.

Loops that fill a tensor element by element so cost what they cost in PyTorch. Every other write (to
pending elements, of pending ones, captured, with a history) is recorded; see `_write.assign`, which
also says what is wrong with a write that is refused here.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f16, f32, f64, i32, i64, u8
from graphtorch.ir.ops.binary import Cast

from ..autograd.grad_mode import modes
from .storage import Leaf, overlaps, recorder
from .tensor import Tensor

_LARGEST = float(np.finfo(np.float32).max)
_LARGEST_HALF = 65520.0  # from here on numbers round to infinity in float16
NUMBERS = frozenset({bool, int, float, complex})
_EXACT = frozenset({i32, i64, f32, f64})
_ELSEWHERE = object()  # in the place of what is not in memory


def write_item(x: Tensor, key: Any, value: Any) -> bool:
    """``x[key] = value``; whether it could run at once."""
    one = type(value) in NUMBERS
    index = _index(key, one)
    if index is _ELSEWHERE:
        return False
    if isinstance(value, Tensor) and not value.is_sparse and value._storage is x._storage:
        return False
    dtype = x._type.dtype
    memory = _memory(x) if one or _is_at_hand(value, dtype) else None
    if memory is None or 0 in memory.strides:  # the recorded write looks at what repeats
        return False
    try:
        memory[index] = element(value, dtype) if one else _elements(value, dtype)
    except (IndexError, ValueError):  # the recorded write says what is wrong
        return False
    _written(x)
    return True


def fill(x: Tensor, number: Any) -> bool:
    """Every element of a part becomes `number`; whether it could run at once."""
    memory = None if x._view is None or type(number) not in NUMBERS else _memory(x)
    if memory is None:
        return False
    memory[...] = element(number, x._type.dtype)
    _written(x)
    return True


def copy(x: Tensor, value: Leaf) -> bool:
    """A part takes the elements of `value`, of its type; whether it could run at once."""
    memory = None if x._view is None else _memory(x)
    if memory is None:
        return False
    memory[...] = value.buffer.numpy()
    _written(x)
    return True


def update(x: Tensor, operation: np.ufunc, other: Any) -> bool:
    """A part becomes ``operation(part, other)``, as in ``x[i] += 1``; whether it could run at once.

    Args: operation: one that is exact up to one rounding, so that NumPy's bits are those of any
        target.
    """
    view = x._view
    if view is None or view.type.dtype not in _EXACT or overlaps(view.type.shape, view.strides):
        return False
    dtype = view.type.dtype
    if type(other) is int or (type(other) is float and not dtype.is_integer):
        other = element(other, dtype)
    elif (
        _is_at_hand(other, dtype) and other._type is view.type and other._storage is not x._storage
    ):
        other = other._array()
    else:
        return False
    memory = _memory(x)
    if memory is None:
        return False
    with np.errstate(all="ignore"):
        operation(memory, other, memory, dtype=dtype.numpy)
    _written(x)
    return True


def element(number: Any, dtype: DType) -> Any:
    """A Python number as an element of `dtype`.

    Raises:
        RuntimeError: out of its range; complex where `dtype` is not.
        OverflowError: an integer out of every dtype's range.
    """
    kind = type(number)
    if dtype.is_bool:
        return bool(number)
    if kind is complex and not dtype.is_complex:
        if number.imag:
            raise _overflow(dtype)
        number, kind = number.real, float
    if dtype.is_integer:
        if kind is float and not math.isfinite(number):
            raise _overflow(dtype)
        number = int(number)
        check_64_bits(number)
        lowest, largest = _bounds(dtype)
        if not lowest <= number <= largest:
            raise _overflow(dtype)
        return number if dtype.signed else number & largest
    elif dtype is f32 and _LARGEST < abs(number) < math.inf:
        raise _overflow(dtype)
    elif dtype is f16 and abs(number) >= _LARGEST_HALF:
        return math.copysign(math.inf, number)
    return number


def check_64_bits(number: int) -> None:
    """Raise OverflowError for an integer that neither int64 nor uint64 holds."""
    if not -(1 << 63) <= number < 1 << 64:
        raise OverflowError(f"int too big to convert: {number} does not fit 64 bits")


def _overflow(dtype: DType) -> RuntimeError:
    return RuntimeError(f"value cannot be converted to type {dtype.torch_name} without overflow")


@functools.cache
def _bounds(dtype: DType) -> tuple[int, int]:
    info = np.iinfo(dtype.numpy)
    # a negative number wraps in unsigned dtypes
    return info.min if dtype.signed else -info.max, info.max


# ---------------------------------------------------------------------------------- what is at hand


def _memory(x: Tensor) -> np.ndarray | None:
    """The elements of `x` to write to; None where the write has to be recorded, or refused."""
    if modes.grad and (x.requires_grad or (x._base is not None and x._base.requires_grad)):
        return None
    if x._inference is True and not modes.inference:
        return None
    if x.is_sparse:
        return None
    memory = x._storage.memory()
    return memory if memory is None or x._view is None else x._view.over(memory)


def _written(x: Tensor) -> None:
    x._storage.epoch += 1
    x._counter.number += 1


def _is_at_hand(value: Any, dtype: DType) -> bool:
    """Whether `value` is a tensor without history that is in memory and that a tensor of `dtype`
    takes."""
    if recorder.capture is not None or not isinstance(value, Tensor):
        return False
    if value.is_sparse or (modes.grad and value.requires_grad):
        return False
    storage = value._storage
    return (type(storage.value) is Leaf or storage.host is not None) and (
        dtype.is_complex or not value._type.dtype.is_complex
    )


def _elements(value: Tensor, dtype: DType) -> np.ndarray:
    array = value._array()
    return array if value._type.dtype is dtype else ops.cast.reference(Cast(dtype), array)  # type: ignore[no-any-return]


def _index(key: Any, one: bool) -> Any:
    """An index as NumPy takes it; `_ELSEWHERE` where it has to be looked at more closely.

    Args: one: whether a number is written: then it does not matter that NumPy puts the dimension of
        an index tensor elsewhere when an integer stands beside it.
    """
    if type(key) is int:
        return key if one else (key, ...)
    if type(key) is not tuple:
        return _part(key, True)
    parts = []
    for item in key:
        part = item if type(item) is int else _part(item, one)
        if part is _ELSEWHERE:
            return part
        parts.append(part)
    if not one and ... not in key:
        parts.append(...)  # a number's place becomes an array without dimensions
    return tuple(parts)


def _part(item: Any, arrays: bool) -> Any:
    """One entry of an index as NumPy takes it, index tensors where `arrays` are welcome; or
    `_ELSEWHERE`."""
    if type(item) is slice:
        known = _is_bound(item.start) and _is_bound(item.stop) and _is_step(item.step)
        return item if known else _ELSEWHERE
    if item is None or item is ...:
        return item
    if isinstance(item, np.integer):
        return int(item)
    if not isinstance(item, Tensor) or not _is_at_hand(item, i64):
        return _ELSEWHERE
    dtype = item._type.dtype
    if not item._type.shape:
        # bytes are a mask
        return int(item._array()) if dtype.is_integer and dtype is not u8 else _ELSEWHERE
    return item._array() if arrays and (dtype in (i32, i64) or dtype.is_bool) else _ELSEWHERE


def _is_bound(x: Any) -> bool:
    return x is None or type(x) is int


def _is_step(x: Any) -> bool:
    return x is None or (type(x) is int and x > 0)
