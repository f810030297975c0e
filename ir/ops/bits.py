"""The bytes of tensors under another dtype."""

from __future__ import annotations

import functools

import numpy as np

from ..dtype import DType, i8, i16, i32, i64
from ..graph import Node, Type, Value
from ..literal import Literal
from ..op import Kind, NoGradient, Op, Weight
from .batching import unchanged
from .binary import Cast
from .common import number, ops
from .shape import slice_dim

__all__ = ["bitcast"]

SIGNED = {d.itemsize: d for d in (i8, i16, i32, i64)}  # whole numbers that hold bits


def _bitcast_infer(attrs: Cast, x: Type) -> tuple[Type, ...]:
    before, after = x.dtype.itemsize, attrs.dtype.itemsize
    if before == after:
        return (x.with_dtype(attrs.dtype),)
    if not x.shape:
        raise RuntimeError(
            f"bitcast: a 0-d {x} cannot be seen as {attrs.dtype}: its elements have another size"
        )
    size = x.shape[-1] * before
    if size % after != 0:
        raise RuntimeError(
            f"bitcast: the last size of {x} makes no whole number of {attrs.dtype} elements"
        )
    return (Type(attrs.dtype, (*x.shape[:-1], size // after)),)


def _bitcast_reference(attrs: Cast, x: np.ndarray) -> np.ndarray:
    target = np.dtype(np.uint8) if attrs.dtype.is_bool else attrs.dtype.numpy
    found = np.ascontiguousarray(x).reshape(x.shape).view(target)
    return found != 0 if attrs.dtype.is_bool else found


def _shifts(bits: DType, width: int, count: int) -> Value:
    """How far each of the `count` parts of a number lies from its lowest bit."""
    return ops.constant(value=Literal.of(np.arange(count) * width, bits))


def _bitcast_parts(node: Node) -> tuple[Value]:
    """By shifts, through whole numbers; bytes are little-endian."""
    (x,), target = node.operands, node.types[0]
    before, after = x.dtype.itemsize, target.dtype.itemsize
    if before == after and x.dtype.is_integer and target.dtype.is_integer:
        return (ops.cast(x, dtype=target.dtype),)
    if before == after > 1:
        raise NotImplementedError(f"bitcast of {x.dtype} to {target.dtype}: the target has none")
    if x.dtype.is_bool:
        x = ops.cast(x, dtype=i8)
    elif x.dtype is not SIGNED[before]:
        x = ops.cast(x, dtype=i8) if before == 1 else ops.bitcast(x, dtype=SIGNED[before])
    if after < before:
        parts = ops.reshape(x, shape=(*x.shape, 1))
        parts = ops.shift_right(parts, _shifts(x.dtype, 8 * after, before // after))
        x = ops.reshape(ops.cast(parts, dtype=SIGNED[after]), shape=target.shape)
    elif after > before:
        x = _joined(x, before, after)
    if target.dtype is x.dtype:
        return (x,)
    return (ops.cast(x, dtype=target.dtype) if after == 1 else ops.bitcast(x, dtype=target.dtype),)


def _joined(x: Value, before: int, after: int) -> Value:
    """Numbers of `after` bytes from their parts."""
    count, whole = after // before, SIGNED[after]
    mask = number((1 << 8 * before) - 1, whole)
    parts = ops.bitwise_and(ops.cast(x, dtype=whole), mask)
    parts = ops.reshape(parts, shape=(*x.shape[:-1], x.shape[-1] // count, count))
    parts = ops.shift_left(parts, _shifts(whole, 8 * before, count))
    pieces = [
        ops.reshape(slice_dim(parts, parts.rank - 1, i, i + 1), shape=parts.shape[:-1])
        for i in range(count)
    ]
    return functools.reduce(ops.bitwise_or, pieces)


bitcast = Op(
    "bitcast",
    "The bytes of x as another dtype; where its elements have another size, the last dimension "
    "changes.",
    ("x",),
    _bitcast_infer,
    NoGradient("bits are no numbers"),
    _bitcast_reference,
    Cast,
    _bitcast_parts,
    kind=Kind.POINTWISE,
    weight=Weight.CHEAP,
    batch=unchanged,
)
