"""Ops that move, view or create elements without arithmetic."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, boolean, i64
from ..graph import Node, Type, Value
from ..literal import Literal
from ..op import Attrs, Kind, NoBatch, NoGradient, Op, Weight
from ..shape import Dim, Shape, assumed_equal, bounds, numel
from .batching import Mapped, Values, along, lifted, unchanged, wholes
from .checks import attrs_of, check_axes, check_axis, ints, listed
from .common import number, ops, sum_to, zeros_like

__all__ = [
    "concat",
    "constant",
    "detach",
    "expand",
    "flip",
    "iota",
    "pad",
    "permute",
    "reshape",
    "slice",
    "slice_update",
    "tril",
    "triu",
]


def _check_sizes(shape: Shape, what: str) -> None:
    for dim in shape:
        if bounds(dim)[1] < 0:
            raise RuntimeError(
                f"{what}: negative size {dim} in {listed(shape)}; sizes are 0 or more"
            )


def _check_rank(given: tuple[object, ...], x: Type, what: str) -> None:
    if len(given) != x.rank:
        raise RuntimeError(
            f"{what} has {len(given)} entries for a tensor of {x.rank} dimensions, "
            f"shape {listed(x.shape)}: give one per dimension"
        )


# reshape, permute, expand -------------------------------------------------------------------------


NO_OPERANDS = NoBatch("has no operands")


@dataclass(frozen=True)
class ReshapeAttrs(Attrs):
    shape: tuple[Dim, ...]


def _reshape_infer(attrs: ReshapeAttrs, x: Type) -> tuple[Type, ...]:
    _check_sizes(attrs.shape, "reshape")
    if numel(attrs.shape) != x.numel and not assumed_equal(numel(attrs.shape), x.numel):
        static = all(isinstance(d, int) for d in (*attrs.shape, *x.shape))
        hint = (
            ""
            if static
            else " for every value of its symbols: both products must be the same expression"
        )
        raise RuntimeError(
            f"shape '{listed(attrs.shape)}' is invalid for input of size {x.numel}{hint} "
            f"(input shape {listed(x.shape)})"
        )
    return (x.with_shape(attrs.shape),)


def _reshape_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    return (ops.reshape(values[0], shape=(size, *node.types[0].shape)),)


reshape = Op(
    "reshape",
    "The same elements in row-major order under another shape.",
    ("x",),
    attrs=ReshapeAttrs,
    infer=_reshape_infer,
    vjp=lambda node, g: (ops.reshape(g, shape=node.operands[0].shape),),
    reference=lambda attrs, x: x.reshape(attrs.shape),
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=_reshape_batch,
)


@dataclass(frozen=True)
class DimsAttrs(Attrs):
    dims: tuple[int, ...]


def _permute_infer(attrs: DimsAttrs, x: Type) -> tuple[Type, ...]:
    if len(attrs.dims) != x.rank:
        raise RuntimeError(
            "permute: number of dimensions in the tensor input does not match the length of the "
            f"desired ordering of dimensions i.e. input.dim() = {x.rank} is not equal to len(dims) "
            f"= {len(attrs.dims)}"
        )
    check_axes(attrs.dims, x, "permute")
    return (x.with_shape([x.shape[d] for d in attrs.dims]),)


def _permute_vjp(node: Node, g: Value) -> tuple[Value]:
    inverse = np.argsort(attrs_of(node, DimsAttrs).dims).tolist()
    return (ops.permute(g, dims=tuple(inverse)),)


def _permute_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    return (ops.permute(values[0], dims=(0, *(d + 1 for d in attrs_of(node, DimsAttrs).dims))),)


permute = Op(
    "permute",
    "Reorder dimensions: result dimension i is dimension dims[i] of x.",
    ("x",),
    attrs=DimsAttrs,
    infer=_permute_infer,
    vjp=_permute_vjp,
    reference=lambda attrs, x: x.transpose(attrs.dims),
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=_permute_batch,
)


def _expand_infer(attrs: ReshapeAttrs, x: Type) -> tuple[Type, ...]:
    target = attrs.shape
    _check_sizes(target, "expand")
    if len(target) < x.rank:
        raise RuntimeError(
            f"expand: the number of sizes provided ({len(target)}) must be greater or equal to the "
            f"number of dimensions in the tensor ({x.rank}): {listed(x.shape)} to {listed(target)}"
        )
    lead = len(target) - x.rank
    for axis, size in enumerate(x.shape):
        if size not in (1, target[lead + axis]):
            raise RuntimeError(
                f"The expanded size of the tensor ({target[lead + axis]}) must match the existing "
                f"size ({size}) at non-singleton dimension {lead + axis}.  Target sizes: "
                f"{listed(target)}.  Tensor sizes: {listed(x.shape)}"
            )
    return (x.with_shape(target),)


def _expand_plain(attrs: ReshapeAttrs, x: np.ndarray) -> np.ndarray:
    shape: Any = attrs.shape
    if x.ndim or 0 in shape:
        return np.broadcast_to(x, shape)
    return np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))  # a fifth of the time


def _expand_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    shape = node.types[0].shape
    return (ops.expand(lifted(values[0], True, len(shape)), shape=(size, *shape)),)


expand = Op(
    "expand",
    "Repeat sizes of 1 (and new leading dimensions) up to a shape, aligned right.",
    ("x",),
    attrs=ReshapeAttrs,
    infer=_expand_infer,
    vjp=lambda node, g: (sum_to(g, node.operands[0].shape),),
    reference=lambda attrs, x: np.broadcast_to(x, attrs.shape),
    plain=_expand_plain,
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=_expand_batch,
)


# slice, slice_update, pad -------------------------------------------------------------------------


@dataclass(frozen=True)
class SliceAttrs(Attrs):
    """One entry per dimension, 0 <= start <= stop <= size and step >= 1."""

    start: tuple[Dim, ...]
    stop: tuple[Dim, ...]
    step: tuple[int, ...]


def _sliced_shape(attrs: SliceAttrs, x: Type, what: str) -> Shape:
    for field in ("start", "stop", "step"):
        _check_rank(getattr(attrs, field), x, f"{what}: {field}")
    sizes: list[Dim] = []
    for axis, size in enumerate(x.shape):
        start, stop, step = attrs.start[axis], attrs.stop[axis], attrs.step[axis]
        if step < 1:
            raise ValueError(f"{what}: slice step must be positive, got {step} at dimension {axis}")
        if not (start >= 0 and start <= stop and stop <= size):
            raise IndexError(
                f"{what}: start {start} and stop {stop} at dimension {axis} leave the range "
                f"0..{size} of shape {listed(x.shape)}; expected 0 <= start <= stop <= size"
            )
        sizes.append((stop - start + (step - 1)) // step)
    return tuple(sizes)


def _slices(attrs: SliceAttrs) -> tuple[builtins.slice, ...]:
    return tuple(
        builtins.slice(a, b, s) for a, b, s in zip(attrs.start, attrs.stop, attrs.step, strict=True)
    )


def _slice_vjp(node: Node, g: Value) -> tuple[Value]:
    attrs, x = attrs_of(node, SliceAttrs), node.operands[0]
    if all(step == 1 for step in attrs.step):
        high = tuple(size - stop for size, stop in zip(x.shape, attrs.stop, strict=True))
        return (ops.pad(g, low=attrs.start, high=high, value=0),)
    return (
        ops.slice_update(zeros_like(x), g, start=attrs.start, stop=attrs.stop, step=attrs.step),
    )


def _slice_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Also of `slice_update`: all entries, and of each the slice."""
    attrs = attrs_of(node, SliceAttrs)
    all_entries = SliceAttrs((0, *attrs.start), (size, *attrs.stop), (1, *attrs.step))
    return node.op.node(wholes(values, mapped, size), all_entries).results()


slice = Op(
    "slice",
    "Every step-th element from start up to stop, in each dimension.",
    ("x",),
    attrs=SliceAttrs,
    infer=lambda attrs, x: (x.with_shape(_sliced_shape(attrs, x, "slice")),),
    vjp=_slice_vjp,
    reference=lambda attrs, x: np.asarray(x[_slices(attrs)]),
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=_slice_batch,
)


def _slice_update_infer(attrs: SliceAttrs, x: Type, src: Type) -> tuple[Type, ...]:
    expected = _sliced_shape(attrs, x, "slice_update")
    if src.shape != expected:
        raise RuntimeError(
            f"slice_update: src of shape {listed(src.shape)} does not match the slice's shape "
            f"{listed(expected)} of x {listed(x.shape)}: expand src first"
        )
    if src.dtype is not x.dtype:
        raise RuntimeError(f"slice_update: src is {src.dtype} but x is {x.dtype}: cast src first")
    return (x,)


def _slice_update_vjp(node: Node, g: Value) -> tuple[Value, Value]:
    attrs = attrs_of(node, SliceAttrs)
    place = {"start": attrs.start, "stop": attrs.stop, "step": attrs.step}
    return ops.slice_update(g, zeros_like(node.operands[1]), **place), ops.slice(g, **place)


def _slice_update_reference(attrs: SliceAttrs, x: np.ndarray, src: np.ndarray) -> np.ndarray:
    result = x.copy()
    result[_slices(attrs)] = src
    return result


slice_update = Op(
    "slice_update",
    "x with one of its slices replaced by src.",
    ("x", "src"),
    attrs=SliceAttrs,
    infer=_slice_update_infer,
    vjp=_slice_update_vjp,
    reference=_slice_update_reference,
    kind=Kind.MOVE,
    weight=Weight.PLAIN,
    batch=_slice_batch,
)


@dataclass(frozen=True)
class PadAttrs(Attrs):
    """Elements added before and after each dimension, none negative."""

    low: tuple[Dim, ...]
    high: tuple[Dim, ...]
    value: float | int | bool = 0


def _fits(value: float, dtype: DType) -> bool:
    if dtype.is_differentiable:
        return True
    low, high = (
        (0, 1) if dtype is boolean else (np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max)
    )
    return low <= value <= high and value == int(value)


def _pad_infer(attrs: PadAttrs, x: Type) -> tuple[Type, ...]:
    _check_rank(attrs.low, x, "pad: low")
    _check_rank(attrs.high, x, "pad: high")
    if not _fits(attrs.value, x.dtype):
        raise RuntimeError(
            f"pad: value {attrs.value} cannot be converted to type {x.dtype} without loss"
        )
    for low, high in zip(attrs.low, attrs.high, strict=True):
        if not (low >= 0 and high >= 0):
            raise RuntimeError(
                f"pad: negative padding ({low}, {high}) of shape {listed(x.shape)}: "
                "remove elements with slice"
            )
    return (
        x.with_shape(
            [a + size + b for a, size, b in zip(attrs.low, x.shape, attrs.high, strict=True)]
        ),
    )


def _pad_vjp(node: Node, g: Value) -> tuple[Value]:
    low, shape = attrs_of(node, PadAttrs).low, node.operands[0].shape
    stop = tuple(a + size for a, size in zip(low, shape, strict=True))
    return (ops.slice(g, start=low, stop=stop, step=(1,) * len(low)),)


def _pad_reference(attrs: PadAttrs, x: np.ndarray) -> np.ndarray:
    sizes = [
        low + size + high for low, size, high in zip(attrs.low, x.shape, attrs.high, strict=True)
    ]
    result = np.full(sizes, np.asarray(attrs.value).astype(x.dtype), x.dtype)
    result[
        tuple(builtins.slice(low, low + size) for low, size in zip(attrs.low, x.shape, strict=True))
    ] = x
    return result


def _pad_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    attrs = attrs_of(node, PadAttrs)
    return (ops.pad(values[0], low=(0, *attrs.low), high=(0, *attrs.high), value=attrs.value),)


pad = Op(
    "pad",
    "x with constant elements added before and after each dimension.",
    ("x",),
    attrs=PadAttrs,
    infer=_pad_infer,
    vjp=_pad_vjp,
    reference=_pad_reference,
    kind=Kind.MOVE,
    weight=Weight.FREE,
    batch=_pad_batch,
)


# concat, flip -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DimAttrs(Attrs):
    dim: int


def _concat_infer(attrs: DimAttrs, *xs: Type) -> tuple[Type, ...]:
    if not xs:
        raise ValueError("concat: expected a non-empty list of Tensors")
    first = xs[0]
    if first.rank == 0:
        raise RuntimeError(
            "zero-dimensional tensor (at position 0) cannot be concatenated: reshape it to [1]"
        )
    check_axis(attrs.dim, first, "concat")
    for position, x in enumerate(xs):
        _check_concat(first, x, position, attrs.dim)
    shape = list(first.shape)
    shape[attrs.dim] = sum((x.shape[attrs.dim] for x in xs[1:]), shape[attrs.dim])
    return (first.with_shape(shape),)


def _check_concat(first: Type, x: Type, position: int, dim: int) -> None:
    if x.rank != first.rank:
        raise RuntimeError(
            f"Tensors must have same number of dimensions: got {first.rank} and {x.rank} "
            f"(tensor number {position})"
        )
    if x.dtype is not first.dtype:
        raise RuntimeError(
            f"concat: tensor number {position} is {x.dtype}, the first {first.dtype}: cast to one "
            "dtype"
        )
    for axis, (a, b) in enumerate(zip(first.shape, x.shape, strict=True)):
        if axis != dim and a != b and not assumed_equal(a, b):
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {dim}. Expected size {a} but got "
                f"size {b} for tensor number {position} in the list."
            )


def _concat_vjp(node: Node, g: Value) -> tuple[Value, ...]:
    dim, parts = attrs_of(node, DimAttrs).dim, []
    start: Dim = 0
    for x in node.operands:
        stop = start + x.shape[dim]
        parts.append(slice_dim(g, dim, start, stop))
        start = stop
    return tuple(parts)


def slice_dim(x: Value, dim: int, start: Dim, stop: Dim) -> Value:
    """x[start:stop] in one dimension, whole in the others."""
    starts = tuple(start if d == dim else 0 for d in range(x.rank))
    stops = tuple(stop if d == dim else size for d, size in enumerate(x.shape))
    return ops.slice(x, start=starts, stop=stops, step=(1,) * x.rank)


concat = Op(
    "concat",
    "Tensors one after the other in one dimension.",
    ("*xs",),
    attrs=DimAttrs,
    infer=_concat_infer,
    vjp=_concat_vjp,
    reference=lambda attrs, *xs: np.concatenate(xs, axis=attrs.dim),
    kind=Kind.MOVE,
    weight=Weight.FREE,
    batch=along("dim"),
)


def _flip_infer(attrs: DimsAttrs, x: Type) -> tuple[Type, ...]:
    check_axes(attrs.dims, x, "flip")
    return (x,)


flip = Op(
    "flip",
    "The elements in reverse order in each of dims.",
    ("x",),
    attrs=DimsAttrs,
    infer=_flip_infer,
    vjp=lambda node, g: (ops.flip(g, dims=node.attrs.dims),),
    reference=lambda attrs, x: np.flip(x, attrs.dims),
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=along("dims"),
)


# iota, constant, detach ---------------------------------------------------------------------------


@dataclass(frozen=True)
class IotaAttrs(Attrs):
    shape: tuple[Dim, ...]
    dim: int
    dtype: DType


def _iota_infer(attrs: IotaAttrs) -> tuple[Type, ...]:
    _check_sizes(attrs.shape, "iota")
    check_axis(attrs.dim, Type(attrs.dtype, attrs.shape), "iota")
    if attrs.dtype is boolean:
        raise RuntimeError("iota: positions do not fit bool: make i64 and compare")
    return (Type(attrs.dtype, attrs.shape),)


def _iota_reference(attrs: IotaAttrs) -> np.ndarray:
    shape = ints(attrs.shape)
    line = np.arange(shape[attrs.dim]).astype(attrs.dtype.numpy)
    aligned = line.reshape([-1 if d == attrs.dim else 1 for d in range(len(shape))])
    return np.broadcast_to(aligned, shape)


iota = Op(
    "iota",
    "Each element's position along one dimension.",
    (),
    attrs=IotaAttrs,
    infer=_iota_infer,
    vjp=NoGradient("has no operands"),
    reference=_iota_reference,
    kind=Kind.WHOLE,
    weight=Weight.FREE,
    batch=NO_OPERANDS,
)


@dataclass(frozen=True)
class ConstantAttrs(Attrs):
    value: Literal


constant = Op(
    "constant",
    "A tensor written into the graph.",
    (),
    attrs=ConstantAttrs,
    infer=lambda attrs: (Type(attrs.value.dtype, attrs.value.shape),),
    vjp=NoGradient("has no operands"),
    reference=lambda attrs: attrs.value.numpy(),
    kind=Kind.WHOLE,
    weight=Weight.FREE,
    batch=NO_OPERANDS,
)

detach = Op(
    "detach",
    "x itself, as a constant to differentiation.",
    ("x",),
    infer=lambda attrs, x: (x,),
    vjp=NoGradient("detach stops gradients"),
    reference=lambda attrs, x: x,
    kind=Kind.VIEW,
    weight=Weight.FREE,
    batch=unchanged,
)


# tril, triu ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TriangleAttrs(Attrs):
    diagonal: int = 0


def _triangle_infer(attrs: TriangleAttrs, x: Type) -> tuple[Type, ...]:
    if x.rank < 2:
        raise RuntimeError(
            "tril/triu: input tensor must have at least 2 dimensions, but got shape "
            f"{listed(x.shape)}"
        )
    return (x,)


def _triangle(node: Node, compare: str) -> tuple[Value]:
    (x,) = node.operands
    matrix = x.shape[-2:]
    row, column = (ops.iota(shape=matrix, dim=d, dtype=i64) for d in (0, 1))
    keep = getattr(ops, compare)(
        ops.sub(column, row), number(attrs_of(node, TriangleAttrs).diagonal, i64)
    )
    return (ops.where(keep, x, number(0, x.dtype)),)


def _below(x: np.ndarray, diagonal: int) -> np.ndarray:
    rows, columns = x.shape[-2:]
    return np.tri(rows, columns, diagonal, dtype=np.bool_)


tril = Op(
    "tril",
    "Matrices with zeros above a diagonal.",
    ("x",),
    attrs=TriangleAttrs,
    infer=_triangle_infer,
    decompose=lambda node: _triangle(node, "le"),
    vjp=lambda node, g: (ops.tril(g, diagonal=node.attrs.diagonal),),
    reference=lambda attrs, x: np.where(_below(x, attrs.diagonal), x, np.zeros((), x.dtype)),
    kind=Kind.WHOLE,
    weight=Weight.CHEAP,
    batch=unchanged,
)
triu = Op(
    "triu",
    "Matrices with zeros below a diagonal.",
    ("x",),
    attrs=TriangleAttrs,
    infer=_triangle_infer,
    decompose=lambda node: _triangle(node, "ge"),
    vjp=lambda node, g: (ops.triu(g, diagonal=node.attrs.diagonal),),
    reference=lambda attrs, x: np.where(_below(x, attrs.diagonal - 1), np.zeros((), x.dtype), x),
    kind=Kind.WHOLE,
    weight=Weight.CHEAP,
    batch=unchanged,
)
