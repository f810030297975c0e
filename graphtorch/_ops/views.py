"""Views: tensors that share the memory of another one."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, i64
from graphtorch.ir.graph import Type
from graphtorch.ir.shape import SymInt, assumed_equal, bounds, contiguous_strides, floordiv, numel

from .._deferred.making import make_view
from .._deferred.storage import Bits, Expand, Permute, Reshape, Slice, Step, is_contiguous
from .._deferred.tensor import Tensor
from .._settings import warn_once
from .._types import to_ir
from .base import (
    FUNCTIONS,
    METHODS,
    axis_of,
    check_tensor,
    dims_of,
    register,
    run,
    shape_of,
    size_of,
)

# ------------------------------------------------------------------------------------ shape changes


@functools.lru_cache(maxsize=4096)
def resolve_shape(sizes: tuple[Any, ...], before: tuple[Any, ...]) -> tuple[Any, ...]:
    """`sizes` with a -1 replaced by what makes the number of elements right."""
    given = [*sizes]
    holes = [i for i, s in enumerate(sizes) if isinstance(s, int) and s < 0]
    total = numel(before)
    if any(sizes[i] != -1 for i in holes):
        raise RuntimeError(f"invalid shape dimension {sizes[holes[0]]}")
    if len(holes) > 1:
        raise RuntimeError("only one dimension can be inferred")
    if holes:
        known = math.prod([s for i, s in enumerate(sizes) if i != holes[0]])
        if known == 0:
            raise RuntimeError(
                f"cannot reshape tensor of 0 elements into shape {list(sizes)} because the "
                "unspecified dimension size -1 can be any value and is ambiguous"
            )
        sizes = tuple(floordiv(total, known) if i == holes[0] else s for i, s in enumerate(sizes))
    if numel(sizes) != total and not assumed_equal(numel(sizes), total):
        raise RuntimeError(f"shape '{given}' is invalid for input of size {total}")
    return sizes


@functools.lru_cache(maxsize=4096)
def view_strides(
    shape: tuple[Any, ...], strides: tuple[Any, ...], target: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    """Strides under which the same memory shows `target`, or None where a copy is needed."""
    if is_contiguous(shape, strides):
        return contiguous_strides(target)
    result = [0] * len(target)
    position = len(target) - 1
    chunk, base = 1, strides[-1] if strides else 1
    for d in range(len(shape) - 1, -1, -1):
        chunk = chunk * shape[d]
        if d == 0 or (shape[d - 1] != 1 and strides[d - 1] != chunk * base):
            covered = 1
            # symbolic sizes that may or may not be 1 count as larger: what is needed is equal
            # polynomials
            while position >= 0 and (
                (covered != chunk and bounds(chunk - covered)[1] > 0) or target[position] == 1
            ):
                result[position] = covered * base
                covered = covered * target[position]
                position -= 1
            if covered != chunk:
                return None
            if d > 0:
                chunk, base = 1, strides[d - 1]
    return tuple(result) if position == -1 else None


def _offset(x: Tensor) -> Any:
    return 0 if x._view is None else x._view.offset


def _reshaped(x: Tensor, target: tuple[Any, ...], strides: tuple[Any, ...], name: str) -> Tensor:
    before = x._type
    step = Reshape(target, before.shape)
    return make_view(x, (step,), Type(before.dtype, target), _offset(x), strides, name)


@register(function=False)
def view(self: Tensor, *shape: Any, dtype: Any = None) -> Tensor:
    """The same memory under another shape, or (given a dtype) under another element type."""
    if dtype is not None and not shape:
        return view_dtype(self, dtype)
    if not shape:
        raise TypeError(
            "view() received an invalid combination of arguments: it takes a shape or a dtype"
        )
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list, SymInt, Tensor)):
        return view_dtype(self, shape[0])
    before = self._type.shape
    target = resolve_shape(shape_of(shape), before)
    strides = view_strides(before, self._strides, target)
    if strides is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one "
            "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return _reshaped(self, target, strides, "ViewBackward0")


def view_dtype(self: Tensor, target: Any) -> Tensor:
    """The same memory as another element type; it takes no part in gradients.

    Raises:
        RuntimeError: elements of another size, and strides or sizes that make no whole number of
            them.
    """
    before, dtype = self._type.dtype, to_ir(target)
    shape, strides, offset = self._type.shape, tuple(self._strides), _offset(self)
    if dtype.itemsize < before.itemsize:
        ratio = before.itemsize // dtype.itemsize
        _check_last(self, dtype, "")
        shape = (*shape[:-1], shape[-1] * ratio)
        strides, offset = (*[s * ratio for s in strides[:-1]], 1), offset * ratio
    elif dtype.itemsize > before.itemsize:
        ratio = dtype.itemsize // before.itemsize
        _check_last(self, dtype, f"divisible by {ratio} to view {_names(before, dtype)}", ratio)
        shape = (*shape[:-1], shape[-1] // ratio)
        strides, offset = (*[s // ratio for s in strides[:-1]], 1), offset // ratio
    source = self.detach() if self.requires_grad else self
    return make_view(source, (Bits(dtype),), Type(dtype, shape), offset, strides, "ViewBackward0")


def _names(before: DType, after: DType) -> str:
    return f"{SCALAR_NAMES[before]} as {SCALAR_NAMES[after]} (different element sizes)"


def _check_last(x: Tensor, dtype: DType, what: str, ratio: int = 1) -> None:
    """Elements of another size have to lie side by side, and larger ones to begin where they
    can."""
    names, strides = _names(x._type.dtype, dtype), x._strides
    if not x.ndim:
        raise RuntimeError(f"self.dim() cannot be 0 to view {names}")
    if strides[-1] != 1 and x._type.shape[-1] != 1:
        raise RuntimeError(f"self.stride(-1) must be 1 to view {names}, but got {strides[-1]}")
    checked = [
        ("size(-1)", x._type.shape[-1]),
        ("storage_offset()", _offset(x)),
        *[(f"stride({i})", s) for i, s in enumerate(strides[:-1])],
    ]
    for name, value in checked:
        if value % ratio != 0:
            raise RuntimeError(f"self.{name} must be {what}, but got {value}")


@register()
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements under another shape: a view where memory allows, a copy otherwise."""
    check_tensor("reshape", "input", input)
    if not shape:
        raise TypeError('reshape() missing 1 required positional arguments: "shape"')
    before = input._type.shape
    target = resolve_shape(shape_of(shape), before)
    strides = view_strides(before, input._strides, target)
    if strides is not None:
        return _reshaped(input, target, strides, "ViewBackward0")
    return run("UnsafeView", ops.reshape, input, **{"shape": target})


@register(function=False)
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """This tensor viewed under the shape of `other`."""
    return view(self, other.shape)


@register(function=False)
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """This tensor reshaped to the shape of `other`."""
    return reshape(self, other.shape)


@register()
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim..end_dim as one."""
    check_tensor("flatten", "input", input)
    shape = input._type.shape
    if not shape:
        axis_of(start_dim, 0), axis_of(end_dim, 0)  # raise for any but the one that there could be
        return reshape(input, (1,))
    start, end = axis_of(start_dim, len(shape)), axis_of(end_dim, len(shape))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    return (
        input
        if start == end
        else reshape(input, (*shape[:start], numel(shape[start : end + 1]), *shape[end + 1 :]))
    )


@register()
def ravel(input: Tensor) -> Tensor:
    """One dimension, all elements."""
    return reshape(METHODS["contiguous"](input), (input.numel(),))


@register()
def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension `dim` split into `sizes`, one of which may be -1."""
    shape = input._type.shape
    axis = axis_of(dim, len(shape))
    parts = tuple(size_of(s) for s in sizes)
    if not parts:
        raise RuntimeError("unflatten: sizes must be non-empty")
    try:
        parts = resolve_shape(parts, (shape[axis],))
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(parts)} don't multiply up to the size of dim {axis} "
            f"({shape[axis]}) in the input tensor"
        ) from None
    return reshape(input, (*shape[:axis], *parts, *shape[axis + 1 :]))


def _squeezed(x: Tensor, drop: set[int], name: str = "SqueezeBackward0") -> Tensor:
    shape, strides = x._type.shape, x._strides
    keep = [i for i in range(len(shape)) if i not in drop]
    return _reshaped(x, tuple(shape[i] for i in keep), tuple(strides[i] for i in keep), name)


@register()
def squeeze(input: Tensor, dim: Any = None, *further: int) -> Tensor:
    """Without dimensions of size 1: all of them, or those among `dim` (an int, several, or a
    tuple)."""
    check_tensor("squeeze", "input", input)
    dim = (dim, *further) if further else dim
    shape = input._type.shape
    axes = range(len(shape)) if dim is None else () if dim == () else dims_of(dim, len(shape))
    drop = {a for a in axes if a < len(shape) and isinstance(shape[a], int) and shape[a] == 1}
    name = f"SqueezeBackward{0 if dim is None else 1 if isinstance(dim, int) else 2}"
    return _squeezed(input, drop, name)


@register()
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 inserted at `dim`, within -d-1..d."""
    check_tensor("unsqueeze", "input", input)
    shape, strides = input._type.shape, input._strides
    axis = axis_of(dim, len(shape) + 1)
    stride = shape[axis] * strides[axis] if axis < len(shape) else 1
    return _reshaped(
        input,
        (*shape[:axis], 1, *shape[axis:]),
        (*strides[:axis], stride, *strides[axis:]),
        "UnsqueezeBackward0",
    )


# ----------------------------------------------------------------------------------------- order of
# dimensions


def _permuted(x: Tensor, dims: tuple[int, ...], name: str) -> Tensor:
    step, type_ = _permuted_kind(x._type, dims)
    strides = x._strides
    return make_view(x, (step,), type_, _offset(x), tuple([strides[d] for d in dims]), name)


@functools.lru_cache(maxsize=4096)
def _permuted_kind(type_: Type, dims: tuple[int, ...]) -> tuple[Permute, Type]:
    """The step that exchanges dimensions, and what it gives."""
    return Permute(dims), Type(type_.dtype, tuple([type_.shape[d] for d in dims]))


@register()
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in another order."""
    check_tensor("permute", "input", input)
    if not dims:
        raise TypeError('permute() missing 1 required positional arguments: "dims"')
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    for d in dims:
        if not hasattr(d, "__index__"):
            raise TypeError(
                "permute(): argument 'dims' (position 2) must be tuple of ints, not "
                f"{type(d).__name__}"
            )
    rank = input.ndim
    if len(dims) != rank:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {rank} is not equal "
            f"to len(dims) = {len(dims)}"
        )
    axes = tuple(axis_of(d, rank) for d in dims)
    if len(set(axes)) != rank:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return _permuted(input, axes, "PermuteBackward0")


@register("transpose", "swapaxes", "swapdims")
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    check_tensor("transpose", "input", input)
    rank = input.ndim
    a, b = axis_of(dim0, rank), axis_of(dim1, rank)
    dims = list(range(rank))
    if rank:
        dims[a], dims[b] = b, a
    return _permuted(input, tuple(dims), "TransposeBackward0")


def matrix_transpose(x: Tensor) -> Tensor:
    """The transpose of a matrix, as ``x.t()``."""
    return _permuted(x, (1, 0), "TBackward0")


@register()
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; a tensor with fewer dimensions itself."""
    check_tensor("t", "input", input)
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return _permuted(input, tuple(range(input.ndim))[::-1], "TBackward0")


@register("movedim", "moveaxis")
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions `source` moved to the positions `destination`."""
    rank = input.ndim
    source = [
        axis_of(d, rank) for d in (source if isinstance(source, (tuple, list)) else (source,))
    ]
    target = [
        axis_of(d, rank)
        for d in (destination if isinstance(destination, (tuple, list)) else (destination,))
    ]
    if len(source) != len(target):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({source} dims) should contain "
            f"the same number of dims as destination ({target} dims)"
        )
    if len(set(source)) != len(source) or len(set(target)) != len(target):
        raise RuntimeError("movedim: repeated dim in `source` or `destination`")
    order = dict(zip(target, source, strict=True))
    rest = iter([d for d in range(rank) if d not in source])
    return _permuted(
        input,
        tuple(order[i] if i in order else next(rest) for i in range(rank)),
        "PermuteBackward0",
    )


@register()
def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged, conjugated where complex."""
    return transpose(input, -2, -1).conj()


# ---------------------------------------------------------------------------------------- expansion


@register(function=False)
def expand(self: Tensor, *sizes: Any, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 (and new leading ones) repeated without copying; -1 keeps a size."""
    target = shape_of(sizes)
    shape, strides = self._type.shape, self._strides
    lead = len(target) - len(shape)
    if lead < 0:
        raise RuntimeError(
            f"expand({self.type()}{{{list(shape)}}}, size={list(target)}): the number of sizes "
            f"provided ({len(target)}) must be greater or equal to the number of dimensions in the "
            f"tensor ({len(shape)})"
        )
    result, steps = [], []
    for i, size in enumerate(target):
        now = 1 if i < lead else shape[i - lead]
        if isinstance(size, int) and size == -1:
            if i < lead:
                raise RuntimeError(
                    "The expanded size of the tensor (-1) isn't allowed in a leading, "
                    f"non-existing dimension {i}"
                )
            size = now
        if (size != now and now != 1) or (isinstance(size, int) and size < 0):
            raise RuntimeError(
                f"The expanded size of the tensor ({size}) must match the existing size ({now}) at "
                f"non-singleton dimension {i}.  Target sizes: {list(target)}.  Tensor sizes: "
                f"{list(shape)}"
            )
        result.append(size)
        steps.append(0 if i < lead or size != now else strides[i - lead])
    shape_ = tuple(result)
    type_ = Type(self._type.dtype, shape_)
    return make_view(self, (Expand(shape_),), type_, _offset(self), tuple(steps), "ExpandBackward0")


@register(function=False)
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of `other`."""
    return expand(self, other.shape)


@register(method=False)
def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """Expanded to `size`."""
    check_tensor("broadcast_to", "input", input)
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            "broadcast_to(): argument 'size' (position 2) must be tuple of ints, not "
            f"{type(size).__name__}"
        )
    return expand(input, size)


@register("broadcast_to", function=False)
def broadcast_to_method(self: Tensor, *size: Any) -> Tensor:
    """Expanded to `size`, ints or one tuple of them."""
    return broadcast_to(self, shape_of(size))


# ------------------------------------------------------------------------------------------ parts


def slice_view(
    x: Tensor,
    start: tuple[Any, ...],
    stop: tuple[Any, ...],
    step: tuple[int, ...],
    name: str = "SliceBackward0",
    creation: str = "",
) -> Tensor:
    """Start, stop and step for each dimension, already within bounds."""
    return part_view(x, start, stop, step, name, (), creation)


def part_view(
    x: Tensor,
    start: tuple[Any, ...],
    stop: tuple[Any, ...],
    step: tuple[int, ...],
    name: str,
    dropped: Sequence[int],
    creation: str = "",
) -> Tensor:
    """As `slice_view`, without the dimensions `dropped`, which are of size 1 by then."""
    strides = x._strides
    offset = _offset(x)
    shape, kept, steps = [], [], []
    for axis, a in enumerate(start):
        s, stride = step[axis], strides[axis]
        size = stop[axis] - a if s == 1 else (stop[axis] - a + s - 1) // s
        shape.append(size)
        offset = offset + a * stride
        if axis not in dropped:
            kept.append(size)
            steps.append(stride * s)
    taken: tuple[Step, ...] = (Slice(start, stop, step),)
    if dropped:
        taken = (*taken, Reshape(tuple(kept), tuple(shape)))
    type_ = Type(x._type.dtype, kept)
    return make_view(x, taken, type_, offset, tuple(steps), name, creation)


@register()
def narrow(input: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """`length` entries from `start` on along `dim`."""
    check_tensor("narrow", "input", input)
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    axis = axis_of(dim, input.ndim)
    size, first, count = input._type.shape[axis], size_of(start), size_of(length)
    if count < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -size <= first <= size:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-size}, {size}], but got "
            f"{first})"
        )
    first = first + size if first < 0 else first
    if first + count > size:
        raise RuntimeError(f"start ({first}) + length ({count}) exceeds dimension size ({size}).")
    return _along(input, axis, first, first + count)


def _along(
    x: Tensor,
    axis: int,
    start: Any,
    stop: Any,
    step: int = 1,
    creation: str = "",
    name: str = "SliceBackward0",
) -> Tensor:
    if step == 1 and type(start) is int and type(stop) is int:
        taken, type_ = _along_kind(x._type, axis, start, stop)
        strides = x._strides
        return make_view(
            x, taken, type_, _offset(x) + start * strides[axis], strides, name, creation
        )
    shape = x._type.shape
    return slice_view(
        x,
        tuple(start if i == axis else 0 for i in range(len(shape))),
        tuple(stop if i == axis else d for i, d in enumerate(shape)),
        tuple(step if i == axis else 1 for i in range(len(shape))),
        name,
        creation,
    )


@functools.lru_cache(maxsize=4096)
def _along_kind(type_: Type, axis: int, start: int, stop: int) -> tuple[tuple[Slice], Type]:
    """The step that shows a part along an axis, and what it gives."""
    shape, after = type_.shape, axis + 1
    rank = len(shape)
    first = (*(0,) * axis, start, *(0,) * (rank - after))
    step = Slice(first, (*shape[:axis], stop, *shape[after:]), (1,) * rank)
    return (step,), Type(type_.dtype, (*shape[:axis], stop - start, *shape[after:]))


@register()
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A copy of `length` entries from `start` on along `dim`."""
    return FUNCTIONS["clone"](narrow(input, dim, start, length))  # type: ignore[no-any-return]


@register()
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """Entry `index` along `dim`, which goes away."""
    check_tensor("select", "input", input)
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    return entry(input, axis_of(dim, input.ndim), size_of(index))


def entry(input: Tensor, axis: int, at: Any) -> Tensor:
    """`select` of arguments that were looked at."""
    size = input._type.shape[axis]
    if not -size <= at < size:
        raise IndexError(f"index {at} is out of bounds for dimension {axis} with size {size}")
    at = at + size if at < 0 else at
    return _entry(input, axis, at)


def _entry(
    x: Tensor, axis: int, at: Any, creation: str = "", name: str = "SelectBackward0"
) -> Tensor:
    type_, zeros, ones, reshape = _entry_kind(x._type, axis)
    shape, strides, after = x._type.shape, x._strides, axis + 1
    taken = Slice(
        (*zeros[:axis], at, *zeros[after:]), (*shape[:axis], at + 1, *shape[after:]), ones
    )
    offset = at * strides[axis] if x._view is None else x._view.offset + at * strides[axis]
    left = strides[:axis] + strides[after:]
    return make_view(x, (taken, reshape), type_, offset, left, name, creation)


@functools.lru_cache(maxsize=4096)
def _entry_kind(type_: Type, axis: int) -> tuple[Type, tuple[int, ...], tuple[int, ...], Reshape]:
    """What all entries along an axis have in common: their type, and parts of the steps that show
    them."""
    shape = type_.shape
    rest = (*shape[:axis], *shape[axis + 1 :])
    rank = len(shape)
    return (
        Type(type_.dtype, rest),
        (0,) * rank,
        (1,) * rank,
        Reshape(rest, (*shape[:axis], 1, *shape[axis + 1 :])),
    )


def _pieces(
    x: Tensor, axis: int, sizes: list[Any], name: str, creation: str = "multi"
) -> tuple[Tensor, ...]:
    result, start = [], 0
    for size in sizes:
        result.append(_along(x, axis, start, start + size, creation=creation, name=name))
        start = start + size
    return tuple(result)


def _needs_dimension(name: str, x: Tensor) -> None:
    if x.ndim == 0:
        raise RuntimeError(f"{name} expects at least a 1-dimensional tensor")


@register("split")
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of one size (the last may be smaller), or of the given sizes."""
    check_tensor("split", "tensor", tensor)
    axis = axis_of(dim, tensor.ndim)
    _needs_dimension("split", tensor)
    size = tensor._type.shape[axis]
    if isinstance(split_size_or_sections, (list, tuple)):
        sizes = [size_of(s) for s in split_size_or_sections]
        total: Any = 0
        for s in sizes:
            total = total + s
        if total != size or any(isinstance(s, int) and s < 0 for s in sizes):
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's "
                f"size at dimension {axis}), but got split_sizes={sizes}"
            )
        return _pieces(tensor, axis, sizes, "SplitWithSizesBackward0")
    each = size_of(split_size_or_sections)
    if each < 0 or (each == 0 and size != 0):
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={each}")
    count = 1 if each == 0 or size == 0 else -(-size // each)
    return _pieces(
        tensor,
        axis,
        [min(each, size - i * each) for i in range(count)] if each else [0],
        "SplitBackward0",
    )


def _unsafe(pieces: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """The form of a function whose pieces are no views: autograd lets each be written to."""

    def cut(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tuple(FUNCTIONS["clone"](piece) for piece in pieces(*args, **kwargs))

    cut.__name__ = cut.__qualname__ = f"unsafe_{pieces.__name__}"
    cut.__doc__ = f"As `{pieces.__name__}`, but copies, each of which may be written to."
    cut.__signature__ = inspect.signature(pieces)  # type: ignore[attr-defined]
    return register(cut.__name__)(cut)


@register()
def split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the given sizes."""
    return split(input, list(split_sizes), dim)


@register()
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size; the last may be smaller."""
    check_tensor("chunk", "input", input)
    if isinstance(chunks, bool):
        raise TypeError("chunk(): argument 'chunks' (position 2) must be int, not bool")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    axis = axis_of(dim, input.ndim)
    _needs_dimension("chunk", input)
    size = input._type.shape[axis]
    each = -(-size // chunks)
    if size == 0:
        return split(input, [0] * chunks, dim)
    return split(input, each, dim)


for _cut in (split, split_with_sizes, chunk):
    _unsafe(_cut)


@register()
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces between indices, or a number of nearly equal ones: slices, which may be written to."""
    check_tensor("tensor_split", "input", input)
    axis = axis_of(dim, input.ndim)
    size = input._type.shape[axis]
    given = indices_or_sections
    if isinstance(given, Tensor):
        if given._type.dtype is not i64:
            raise RuntimeError(
                "tensor_split expected tensor_indices_or_sections to have dtype of long, but "
                f"got {given.dtype}"
            )
        given = given.tolist()
    if isinstance(given, (list, tuple)):
        cuts = [min(max(i + size if i < 0 else i, 0), size) for i in given]
        ends = [*cuts, size]
        starts = [0, *cuts]
        return tuple(_along(input, axis, a, max(a, b)) for a, b in zip(starts, ends, strict=True))
    if given <= 0:
        raise RuntimeError(f"number of sections must be larger than 0, got {given}")
    each, extra = divmod(size, given)
    return _pieces(
        input, axis, [each + (i < extra) for i in range(given)], "SliceBackward0", creation=""
    )


def _split_along(x: Tensor, given: Any, dim: int, least: int, name: str) -> tuple[Tensor, ...]:
    """Raises RuntimeError: too few dimensions, or a number of parts that does not divide."""
    if x.ndim < least:
        raise RuntimeError(
            f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor "
            f"with {x.ndim} dimensions!"
        )
    if isinstance(given, int) and given > 0 and x.shape[dim] % given:
        raise RuntimeError(
            f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension "
            f"{x.shape[dim]} is not divisible by the split_size {given}!"
        )
    return tensor_split(x, given, dim)


@register()
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Pieces along dimension 1 (0 for vectors)."""
    return _split_along(input, indices_or_sections, 0 if input.ndim == 1 else 1, 1, "hsplit")


@register()
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Pieces along dimension 0."""
    return _split_along(input, indices_or_sections, 0, 2, "vsplit")


@register()
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Pieces along dimension 2."""
    return _split_along(input, indices_or_sections, 2, 3, "dsplit")


@register()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Every entry along `dim`."""
    check_tensor("unbind", "input", input)
    axis = axis_of(dim, input.ndim)
    if input.ndim == 0:
        raise RuntimeError("Dimension specified as 0 but tensor has no dimensions")
    creation = input._creation or "multi"
    return tuple(
        [
            _entry(input, axis, i, creation, "UnbindBackward0")
            for i in range(input._type.shape[axis])
        ]
    )  # type: ignore[arg-type]


def _reversed(x: Tensor) -> Tensor:
    if x.ndim != 2:
        _warn_of_rank("T", x)
    return permute(x, tuple(range(x.ndim))[::-1])


def _warn_of_rank(name: str, x: Tensor) -> None:
    if x.ndim == 0:
        more = (
            "Consider using x.conj()."
            if name == "H"
            else "This function is the identity in these cases."
        )
        warn_once(f"Tensor.{name} is deprecated on 0-D tensors. {more}")
    elif name == "T" and x.ndim != 2:
        warn_once(
            "The use of `x.T` on tensors of dimension other than 2 to reverse their shape is "
            "deprecated and it will throw an error in a future release. Consider `x.mT` to "
            "transpose batches of matrices or `x.permute(*torch.arange(x.ndim - 1, -1, -1))` to "
            "reverse the dimensions of a tensor."
        )


def _transposed(x: Tensor, name: str = "mT") -> Tensor:
    if x.ndim == 0:
        _warn_of_rank(name, x)
    if x.ndim == 1:
        raise RuntimeError(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got 1-D tensor."
        )
    return transpose(x, -2, -1) if x.ndim else x


def _adjoint(x: Tensor) -> Tensor:
    return FUNCTIONS["conj"](_transposed(x, "mH"))  # type: ignore[no-any-return]


def _hermitian(x: Tensor) -> Tensor:
    if x.ndim not in (0, 2):
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {x.ndim}-D tensor."
            + (" For batches of matrices, consider using tensor.mH" if x.ndim > 2 else "")
        )
    return _adjoint(x) if x.ndim else _of_number(x)


def _of_number(x: Tensor) -> Tensor:
    _warn_of_rank("H", x)
    return FUNCTIONS["conj"](x)  # type: ignore[no-any-return]


METHODS.update(
    T=property(_reversed), mT=property(_transposed), H=property(_hermitian), mH=property(_adjoint)
)
