"""Joining, repeating, rearranging and copying elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, i32, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import assumed_equal, broadcast

from .._deferred.making import beside, common_place, wrap
from .._deferred.memory_order import order_asked
from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._deferred.write import lay
from .._settings import warn_once
from .._types import Size, contiguous_format, default_dtype, preserve_format
from ..autograd.keeps import keeps, shown_as
from .autocast import single_precision_on_cpus
from .base import (
    FUNCTIONS,
    METHODS,
    axis_of,
    cast_value,
    check_tensor,
    common_dtype,
    dims_of,
    elements_for_size,
    register,
    run,
    shape_of,
    size_of,
)
from .creation import from_array
from .orders import common_format, format_kept, order_kept, row_major
from .views import expand, permute, reshape, transpose, unsqueeze

# ------------------------------------------------------------------------------------------ copies


@register()
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy, in the autograd graph; in the order of its memory, row-major, or with the channels
    last."""
    check_tensor("clone", "input", input)
    order = order_asked("clone", memory_format, input)
    value = input._value()
    if input.requires_grad:
        return wrap("Clone", ops.reshape(value, shape=value.shape), (input,), (value,), order)
    return beside(input, value, order)  # values are immutable: a copy is the same value elsewhere


@register(function=False)
def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """Row-major (or in `memory_format`): the tensor itself where it is, a copy otherwise."""
    if METHODS["is_contiguous"](self, memory_format):
        return self
    if memory_format is preserve_format:
        raise RuntimeError(
            "preserve memory format is unsupported by the contiguous operator: name an order, "
            "as torch.contiguous_format or torch.channels_last"
        )
    return clone(self, memory_format=memory_format or contiguous_format)


# ------------------------------------------------------------------------------------------ joining


def _listed(name: str, tensors: Any) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not isinstance(tensors, (list, tuple)):
        raise TypeError(
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not "
            f"{type(tensors).__name__}"
        )
    if not tensors:
        raise (ValueError if name == "cat" else RuntimeError)(
            f"torch.{name}(): expected a non-empty list of Tensors"
            if name == "cat"
            else f"{name} expects a non-empty TensorList"
        )
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(
                f"expected Tensor as element {i} in argument 0, but got {type(t).__name__}"
            )
    return list(tensors)


@register("cat", "concat", "concatenate", method=False, out=True)
def cat(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Tensor:
    """Joined along `dim`; sizes agree elsewhere. Empty 1-d tensors are skipped."""
    parts = _listed("cat", tensors)
    dim = dim if axis is None else axis
    first = parts[0]._type
    if len(first.shape) > 1 and all(t._view is None and t._type is first for t in parts):
        # without detours, as most are
        return run("Cat", ops.concat, *parts, dim=axis_of(dim, len(first.shape)))
    dtype = common_dtype(*parts)
    real = [t for t in parts if t._type.shape != (0,)] or parts
    if any(t.ndim == 0 for t in real):
        where = next(i for i, t in enumerate(parts) if t.ndim == 0)
        raise RuntimeError(f"zero-dimensional tensor (at position {where}) cannot be concatenated")
    at = axis_of(dim, real[0].ndim)
    for i, t in enumerate(real):
        _check_joins(real[0], t, at, i)
    if all(t._type.dtype is dtype for t in real):
        made = run("Cat", ops.concat, *real, dim=at)
    else:
        joined = lambda *vs: ops.concat(*[cast_value(v, dtype) for v in vs], dim=at)  # noqa: E731
        made = run("Cat", joined, *real)
    order = common_format(real)
    return made if order is None else lay(made, order)


def _check_joins(first: Tensor, other: Tensor, at: int, position: int) -> None:
    if first.ndim != other.ndim:
        raise RuntimeError(
            f"Tensors must have same number of dimensions: got {first.ndim} and {other.ndim}"
        )
    for i, (a, b) in enumerate(zip(first._type.shape, other._type.shape, strict=True)):
        if i != at and a != b and not assumed_equal(a, b):
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {at}. Expected size {a} but got "
                f"size {b} for tensor number {position} in the list."
            )


@register(method=False, out=True)
def stack(tensors: Any, dim: int = 0) -> Tensor:
    """Joined along a new dimension; all shapes are equal."""
    parts = _listed("stack", tensors)
    shape = parts[0]._type.shape
    for i, t in enumerate(parts):
        if t._type.shape != shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(t._type.shape)} at entry {i}"
            )
    at = axis_of(dim, len(shape) + 1)
    dtype = common_dtype(*parts)
    one = (*shape[:at], 1, *shape[at:])
    return run(
        "Stack",
        lambda *vs: ops.concat(*[ops.reshape(cast_value(v, dtype), shape=one) for v in vs], dim=at),
        *parts,
    )


def _at_least(x: Tensor, rank: int) -> Tensor:
    if rank == 1:
        return reshape(x, (1,)) if x.ndim == 0 else x
    if rank == 2:
        return reshape(x, (1, 1)) if x.ndim == 0 else unsqueeze(x, 0) if x.ndim == 1 else x
    x = _at_least(x, 2) if x.ndim < 2 else x
    return unsqueeze(x, -1) if x.ndim == 2 else x


def _publish_at_least(rank: int) -> None:
    def define(*tensors: Any) -> Any:
        given = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else tensors
        found = tuple(_at_least(t, rank) for t in given)
        return found[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) else found

    define.__name__ = f"atleast_{rank}d"
    define.__doc__ = f"With at least {rank} dimensions."
    register(define.__name__, method=False)(define)


for _rank in (1, 2, 3):
    _publish_at_least(_rank)


@register(method=False, out=True)
def hstack(tensors: Any) -> Tensor:
    """Joined along dimension 1 (0 for vectors)."""
    parts = [_at_least(t, 1) for t in _listed("hstack", tensors)]
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


@register("vstack", "row_stack", method=False, out=True)
def vstack(tensors: Any) -> Tensor:
    """Joined along dimension 0, vectors as rows."""
    return cat([_at_least(t, 2) for t in _listed("vstack", tensors)], 0)


@register(method=False, out=True)
def dstack(tensors: Any) -> Tensor:
    """Joined along dimension 2."""
    return cat([_at_least(t, 3) for t in _listed("dstack", tensors)], 2)


@register(method=False, out=True)
def column_stack(tensors: Any) -> Tensor:
    """Vectors as columns, joined along dimension 1."""
    return cat(
        [
            reshape(t, (t.numel(), 1)) if t.ndim <= 1 else t
            for t in _listed("column_stack", tensors)
        ],
        1,
    )


@register(method=False)
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All expanded to their common shape."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    shape = broadcast(*[t._type.shape for t in given])
    return tuple(expand(t, shape) for t in given)


@register(method=False)
def broadcast_shapes(*shapes: Any) -> Any:
    """The common shape of several."""
    return Size(broadcast(*[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))


@register(method=False)
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinate grids of several vectors; indexing "xy" exchanges the first two dimensions, "ij"
    (the default) does not.

    Raises: RuntimeError: no tensors, more than one dimension, or tensors of several dtypes.
    """
    if indexing is None:
        indexing = "ij"
        warn_once(
            "torch.meshgrid: in an upcoming release, it will be required to pass the indexing "
            "argument."
        )
    given = list(
        tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    )
    if indexing not in ("ij", "xy"):
        raise RuntimeError(
            f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}'
        )
    swap = indexing == "xy" and len(given) >= 2
    _check_vectors(given)
    order = [given[1], given[0], *given[2:]] if swap else given
    shape = tuple(t.numel() for t in order)
    grids = [
        expand(reshape(t, tuple(-1 if i == j else 1 for j in range(len(order)))), shape)
        for i, t in enumerate(order)
    ]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def _check_vectors(given: list[Any]) -> None:
    if not given:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    for i, t in enumerate(given):
        check_tensor("meshgrid", "tensors", t, i + 1)
        if t.ndim > 1:
            raise RuntimeError(
                "torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got one of shape "
                f"{list(t.shape)}: flatten it first"
            )
        if t._type.dtype is not given[0]._type.dtype:
            raise RuntimeError(
                "meshgrid expects all tensors to have the same dtype, but got "
                f"{given[0].dtype} and {t.dtype}"
            )


@register(method=False)
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of several vectors, one per row.

    Raises: RuntimeError: no vectors, or of different dtypes.
    """
    for t in tensors:
        if t.ndim != 1:
            raise RuntimeError(f"Expect a 1D vector, but got shape {list(t.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, (-1,)) for g in meshgrid(*tensors, indexing="ij")], 1)


@register(method=False)
def block_diag(*tensors: Tensor) -> Tensor:
    """The matrix with the given blocks on its diagonal."""
    if not tensors:
        return from_array(np.empty((1, 0), default_dtype().numpy))
    blocks = [_at_least(t, 2) for t in tensors]
    width = sum(b.shape[1] for b in blocks)
    rows, left = [], 0
    for b in blocks:
        rows.append(constant_pad(b, (left, width - left - b.shape[1])))
        left += b.shape[1]
    return cat(rows, 0)


@format_kept
def constant_pad(x: Tensor, pad: Any, value: Any = 0) -> Tensor:
    """Padded with a constant: pairs (low, high) from the last dimension backwards; negative ones
    cut."""
    rank = x.ndim
    low, high = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    dtype = x._type.dtype
    if isinstance(value, complex) and dtype.is_complex:
        if value.imag:
            parts = [
                constant_pad(part, pad, side)
                for part, side in (
                    (FUNCTIONS["real"](x), value.real),
                    (FUNCTIONS["imag"](x), value.imag),
                )
            ]
            return FUNCTIONS["complex"](*parts)  # type: ignore[no-any-return]
        value = value.real
    number = bool(value) if dtype.is_bool else int(value) if dtype.is_integer else float(value)

    def apply(v: Value) -> Value:
        shape = v.shape
        if any(p < 0 for p in (*low, *high)):
            v = ops.slice(
                v,
                start=tuple(max(0, -a) for a in low),
                step=(1,) * rank,
                stop=tuple(d - max(0, -b) for d, b in zip(shape, high, strict=True)),
            )
        return ops.pad(
            v, low=tuple(max(0, a) for a in low), high=tuple(max(0, b) for b in high), value=number
        )

    return run("ConstantPadNd", apply, x)


FUNCTIONS["constant_pad_nd"] = constant_pad


# ---------------------------------------------------------------------------------------- repeating


@register(function=False)
def repeat(self: Tensor, *repeats: Any) -> Tensor:
    """Copies side by side along each dimension."""
    times = shape_of(repeats)
    rank = len(times)
    if rank < self.ndim:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    if any(isinstance(n, int) and n < 0 for n in times):
        raise RuntimeError(
            f"Trying to create tensor with negative dimension: repeats {list(times)}"
        )
    shape = (1,) * (rank - self.ndim) + self._type.shape
    between = tuple(d for n in shape for d in (1, n))
    wide = tuple(d for k, n in zip(times, shape, strict=True) for d in (k, n))
    final = tuple(k * n for k, n in zip(times, shape, strict=True))
    return run(
        "Repeat",
        lambda v: ops.reshape(ops.expand(ops.reshape(v, shape=between), shape=wide), shape=final),
        self,
    )


@register()
def tile(input: Tensor, *dims: Any) -> Tensor:
    """As `repeat`; missing leading repeats are 1."""
    if not dims:
        raise TypeError('tile() missing 1 required positional arguments: "dims"')
    times = shape_of(dims)
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


def _tile_to(input: Tensor, dims: Any) -> Tensor:
    if not isinstance(dims, (tuple, list)):
        raise TypeError(
            f"tile(): argument 'dims' (position 2) must be tuple of ints, not {type(dims).__name__}"
        )
    return tile(input, dims)


_tile_to.__name__ = _tile_to.__qualname__ = "tile"
_tile_to.__doc__ = tile.__doc__
FUNCTIONS["tile"] = _tile_to


@register()
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element repeated in place, `repeats` times (a number, or one per entry of `dim`)."""
    if isinstance(repeats, str):
        raise TypeError(
            "repeat_interleave(): argument 'repeats' (position 2) must be Tensor or int, not str"
        )
    if repeats is None:
        input, repeats = FUNCTIONS["arange"](input.shape[0], device=input.device), input
    if dim is None:
        input, dim = reshape(input, (-1,)), 0
    axis = axis_of(dim, input.ndim)
    size = input._type.shape[axis]
    if isinstance(repeats, int):
        shape = input._type.shape
        wide = (*shape[: axis + 1], repeats, *shape[axis + 1 :])
        final = (*shape[:axis], size * repeats, *shape[axis + 1 :])
        one = (*shape[: axis + 1], 1, *shape[axis + 1 :])
        return run(
            "RepeatInterleave",
            lambda v: ops.reshape(ops.expand(ops.reshape(v, shape=one), shape=wide), shape=final),
            input,
        )
    if isinstance(repeats, Tensor):
        if repeats._type.dtype not in (i32, i64):
            raise NotImplementedError(
                '"repeat_interleave" not implemented for '
                f"'{SCALAR_NAMES[repeats._type.dtype]}': give repeats of "
                "int64"
            )
        if output_size is not None and (recorder.capture is not None or repeats.is_meta):
            return _repeated(input, repeats, axis, output_size)
        common_place("RepeatInterleave", (input, repeats))
        repeats = elements_for_size("repeat_interleave", repeats, "give output_size")
    counts = np.asarray(repeats).reshape(-1)
    if (counts < 0).any():
        raise RuntimeError("repeats can not be negative")
    if counts.size not in (1, size):
        raise RuntimeError(
            "repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{counts.size} and "
            f"input.size({axis}) = {size}"
        )
    index = np.repeat(np.arange(size), counts if counts.size == size else int(counts[0]))
    return FUNCTIONS["index_select"](
        input, axis, from_array(index.astype(np.int64), place=input.device)
    )


def _repeated(input: Tensor, repeats: Tensor, axis: int, total: int) -> Tensor:
    """`repeat_interleave` whose repeats are not known now, but that they add up to `total`."""
    ends = FUNCTIONS["cumsum"](repeats.reshape(-1).expand(input._type.shape[axis]), 0)
    places = FUNCTIONS["arange"](total, device=input.device)
    index = FUNCTIONS["searchsorted"](ends, places.to(ends.dtype), right=True)
    return FUNCTIONS["index_select"](input, axis, index)


# -------------------------------------------------------------------------------------- rearranging


@register()
@order_kept
def flip(input: Tensor, *positions: Any, dims: Any = None) -> Tensor:
    """Reversed along `dims`, copied."""
    dims = positions if dims is None else (dims,)
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    axes = dims_of(given, input.ndim) if given else ()
    return run("Flip", ops.flip, input, **{"dims": axes}) if axes else clone(input)


@register()
def fliplr(input: Tensor) -> Tensor:
    """Reversed along dimension 1."""
    return flip(input, (1,))


@register()
def flipud(input: Tensor) -> Tensor:
    """Reversed along dimension 0."""
    return flip(input, (0,))


@register()
@shown_as("Roll")
@row_major
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Shifted along `dims`; what leaves at one end enters at the other."""
    if dims is None or dims == ():
        return reshape(roll(reshape(input, (-1,)), shifts, 0), input.shape)
    shifts = shifts if isinstance(shifts, (tuple, list)) else (shifts,)
    dims = dims if isinstance(dims, (tuple, list)) else (dims,)
    if len(shifts) != len(dims):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}"
        )
    x = input
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[axis_of(dim, x.ndim)]
        if size:
            turn = shift % size if isinstance(size, int) or not -size <= shift <= size else shift
            cut = -turn if turn < 0 else size - turn
            cut = cut % size if isinstance(size, int) else cut
            x = cat([x.narrow(dim, cut, size - cut), x.narrow(dim, 0, cut)], dim) if cut else x
    return x if x is not input else clone(input)


@register()
def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by 90 degrees k times in the plane of two dimensions.

    Raises: RuntimeError: not two different dimensions.
    """
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    if dims[0] == dims[1] or abs(dims[0] - dims[1]) == input.ndim:
        raise RuntimeError(
            f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}"
        )
    a, b = (axis_of(d, input.ndim) for d in dims)
    turned = {
        0: lambda: clone(input, memory_format=contiguous_format),
        1: lambda: transpose(flip(input, (b,)), a, b),
        2: lambda: flip(input, (a, b)),
        3: lambda: transpose(flip(input, (a,)), a, b),
    }[k % 4]
    return turned()


def _triangle(name: str, op: Any) -> None:
    def define(input: Tensor, diagonal: int = 0) -> Tensor:
        check_tensor(name, "input", input)
        if input.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
        return run(name.capitalize(), op, input, diagonal=size_of(diagonal))

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc
    register(name, inplace=True, out=True)(define)


_triangle("tril", ops.tril)
_triangle("triu", ops.triu)


@register(out=True)
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with a vector on its diagonal."""
    if input.ndim == 2:
        return clone(FUNCTIONS["diagonal"](input, diagonal))
    if input.ndim != 1:
        raise RuntimeError("diag(): Supports 1D or 2D tensors. Got " + f"{input.ndim}D")
    return diag_embed(input, diagonal)


@register()
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with the flattened input on its diagonal."""
    return diag_embed(reshape(input, (-1,)), offset)


@register()
@keeps("DiagEmbed")
@row_major
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on a diagonal."""
    rank = input.ndim + 1
    a, b = axis_of(dim1, rank), axis_of(dim2, rank)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = input.shape[-1] + abs(offset)
    low, high = (offset, 0) if offset >= 0 else (0, -offset)
    lead = input._type.shape[:-1]

    def apply(v: Value) -> Value:  # one element a row, zeros elsewhere
        column = ops.pad(
            v, low=(0,) * len(lead) + (high,), high=(0,) * len(lead) + (low,), value=_zero(v)
        )
        square = ops.expand(ops.reshape(column, shape=(*lead, size, 1)), shape=(*lead, size, size))
        rows, columns = (ops.iota(shape=(size, size), dim=d, dtype=i64) for d in (0, 1))
        here = ops.eq(ops.add(rows, ops.constant(value=Literal.of(offset, i64))), columns)
        return ops.where(here, square, ops.constant(value=Literal.of(0, v.dtype)))

    made = run("DiagEmbed", apply, input)
    order: list[Any] = [None] * rank
    order[a], order[b] = rank - 2, rank - 1
    rest = iter(range(rank - 2))
    return permute(made, tuple(next(rest) if o is None else o for o in order))


def _zero(v: Value) -> Any:
    return False if v.dtype.is_bool else 0 if v.dtype.is_integer else 0.0


@register()
@shown_as("Trace")
@single_precision_on_cpus
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    return FUNCTIONS["diagonal"](input).sum()


@register()
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of a vector as columns.

    Raises: RuntimeError: `x` is no vector.
    """
    if x.ndim != 1:
        raise RuntimeError(f"x must be a one-dimensional tensor, but got shape {list(x.shape)}.")
    count = x.shape[0] if N is None else N
    powers = FUNCTIONS["arange"](count, device=x.device)
    columns = x.unsqueeze(-1) ** (powers if increasing else flip(powers, (0,)))
    return columns
