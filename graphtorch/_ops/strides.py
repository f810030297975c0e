"""Views by any strides, changes of shape in place, and questions about memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES
from graphtorch.ir.graph import Type
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import SymInt, contiguous_strides, numel

from .._deferred.door import Buffer, keep
from .._deferred.making import beside, make_view
from .._deferred.memory_order import CHANNELS_LAST_RANK, channels_last_order, order_asked
from .._deferred.running import _refuse_in_capture, settle
from .._deferred.storage import Leaf, Take, ViewDtype, copied, is_contiguous, recorder
from .._deferred.tensor import Tensor
from .._deferred.write import check_writable
from .._types import Size, preserve_format
from .base import FUNCTIONS, METHODS, axis_of, check_tensor, register, shape_of
from .creation import full_value
from .storages import TypedStorage, UntypedStorage
from .views import _offset, narrow, permute, reshape, squeeze, t, transpose, unsqueeze

# -------------------------------------------------------------------------------------- any strides


def _taken(
    x: Tensor, places: np.ndarray, offset: int, strides: tuple[int, ...], name: str
) -> Tensor:
    """A view of the elements of `x` at flat row-major `places`."""
    index = Literal.of(places.reshape(-1).astype(np.int64))
    type_ = Type(x._type.dtype, places.shape)
    return make_view(x, (Take(index, places.shape),), type_, offset, strides, name)


@register()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of dimensions dim1 and dim2, as the last dimension."""
    check_tensor("diagonal", "input", input)
    a, b = axis_of(dim1, input.ndim), axis_of(dim2, input.ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape, strides = input._type.shape, input._strides
    places = np.diagonal(np.arange(numel(shape)).reshape(shape), offset, a, b)
    start = _offset(input) + max(0, -offset) * strides[a] + max(0, offset) * strides[b]
    rest = tuple(s for i, s in enumerate(strides) if i not in (a, b))
    return _taken(input, places, start, (*rest, strides[a] + strides[b]), "DiagonalBackward0")


@register()
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """Elements of the memory at `storage_offset` + index * stride."""
    check_tensor("as_strided", "input", input)
    size, stride = tuple(size), tuple(stride)
    offset = _offset(input) if storage_offset is None else storage_offset
    if len(size) != len(stride):
        raise RuntimeError(
            f"mismatch in length of strides and shape: {len(stride)} and {len(size)}"
        )
    if any(s < 0 for s in stride):
        raise RuntimeError(
            "as_strided: Negative strides are not supported at the moment, got strides: "
            f"{list(stride)}"
        )
    if offset < 0:
        raise RuntimeError(f"Tensor: invalid storage offset {offset}")
    base = input._base if input._base is not None else input
    total = numel(base._storage.value.type.shape)
    dense = _dense(base, size, stride, offset)
    if dense is not None:
        return dense
    places = np.full(size, offset, np.int64)
    for axis, (n, s) in enumerate(zip(size, stride, strict=True)):
        places += np.arange(n).reshape([-1 if i == axis else 1 for i in range(len(size))]) * s
    if places.size and places.max() >= total:
        step = input._type.dtype.itemsize
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset}, and "
            f"itemsize {step} requiring a storage size of {(int(places.max()) + 1) * step} are out "
            f"of bounds for storage of size {total * step}"
        )
    if base._view is not None:
        return _taken(input, _places_within(input, places), offset, stride, "AsStridedBackward0")
    return _taken(base, places, offset, stride, "AsStridedBackward0")


def _dense(base: Tensor, size: Any, stride: Any, offset: int) -> Tensor | None:
    """`as_strided` of memory without a gap, as a part of it with its dimensions in another order.

    None for any other: those list the place of each element.
    """
    if base._view is not None or base.requires_grad or recorder.capture is not None:
        return None
    order = sorted(range(len(size)), key=lambda axis: -stride[axis])
    sizes = tuple(size[axis] for axis in order)
    if contiguous_strides(sizes) != tuple(stride[axis] for axis in order):
        return None
    count = numel(sizes)
    if not count or offset + count > numel(base._type.shape):
        return None
    part = reshape(narrow(reshape(base, (-1,)), 0, offset, count), sizes)
    return permute(part, tuple(order.index(axis) for axis in range(len(size))))


def _places_within(x: Tensor, places: np.ndarray) -> np.ndarray:
    view = x._view
    assert view is not None
    own = np.full(view.type.shape, view.offset, np.int64)
    for axis, (n, s) in enumerate(zip(view.type.shape, view.strides, strict=True)):
        own += np.arange(n).reshape([-1 if i == axis else 1 for i in range(own.ndim)]) * s
    table = {int(p): i for i, p in enumerate(own.reshape(-1))}
    try:
        return np.array([table[int(p)] for p in places.reshape(-1)], np.int64).reshape(places.shape)
    except KeyError:
        raise RuntimeError(
            "as_strided: the view leaves the detached tensor it is taken of; take it of the base"
        ) from None


@register(function=False)
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` along a dimension, `step` apart, as a new last dimension."""
    axis = axis_of(dimension, self.ndim)
    shape, strides = (self._type.shape, self._strides) if self.ndim else ((1,), (1,))
    if isinstance(size, int) and size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if size > shape[axis]:
        raise RuntimeError(
            f"maximum size for tensor at dimension {axis} is {shape[axis]} but size is {size}"
        )
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    if any(isinstance(n, SymInt) for n in shape):
        return _windows(self, axis, size, step)
    flat = np.arange(numel(shape)).reshape(shape)
    places = np.lib.stride_tricks.sliding_window_view(flat, size, axis)
    places = places[
        tuple(slice(None, None, step) if i == axis else slice(None) for i in range(len(shape)))
    ]
    moved = tuple(s * step if i == axis else s for i, s in enumerate(strides))
    if self.ndim == 0:
        return _taken(self, places.reshape(-1), _offset(self), (1,), "UnfoldBackward0")
    return _taken(self, places, _offset(self), (*moved, strides[axis]), "UnfoldBackward0")


def _windows(x: Tensor, axis: int, size: int, step: int) -> Tensor:
    """`unfold` of a tensor with symbolic sizes: a copy."""
    count = (x._type.shape[axis] - size) // step + 1
    starts = FUNCTIONS["arange"](count, device=x.device).unsqueeze(1) * step
    places = (starts + FUNCTIONS["arange"](size, device=x.device)).reshape(-1)
    taken = FUNCTIONS["index_select"](x, axis, places)
    shape = x._type.shape
    return taken.reshape((*shape[:axis], count, size, *shape[axis + 1 :])).movedim(axis + 1, -1)


@register()
def view_as_real(input: Tensor) -> Tensor:
    """A complex tensor as pairs of its components, in the same memory."""
    if not input._type.dtype.is_complex:
        raise RuntimeError(f"view_as_real is only supported for complex tensors, got {input.dtype}")
    shape = (*input._type.shape, 2)
    return make_view(
        input,
        (ViewDtype(False),),
        Type(input._type.dtype.real, shape),
        _offset(input) * 2,
        (*[s * 2 for s in input._strides], 1),
        "ViewAsRealBackward0",
    )


@register()
def view_as_complex(input: Tensor) -> Tensor:
    """Pairs of floats as complex numbers, in the same memory."""
    shape, dtype = input._type.shape, input._type.dtype
    if not dtype.is_floating_point or dtype.itemsize < 4:
        raise RuntimeError(
            "view_as_complex is only supported for half, float and double tensors, but got a "
            f"tensor of scalar type: {dtype.torch_name}"
        )
    if not shape or shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    return make_view(
        input,
        (ViewDtype(True),),
        Type(dtype.complex, shape[:-1]),
        _offset(input) // 2,
        tuple(s // 2 for s in input._strides[:-1]),
        "ViewAsComplexBackward0",
    )


# ------------------------------------------------------------------------------------- metadata, in
# place


def _rebind(x: Tensor, seen: Tensor) -> Tensor:
    """Make `x` look as `seen`, a view of it."""
    check_writable(x)
    if recorder.capture is not None:
        recorder.capture.turned(x)
    fn, rg = x.grad_fn, x._rg
    if x._base is None and (fn is not None or rg):
        keeper = object.__new__(Tensor)
        keeper.__dict__.update(x.__dict__)
        seen._base = keeper
    x._view, x._cached = seen._view, None
    x._base = None if seen._base is x else seen._base
    x._fn, x._rg, x._nr = None, False, 0
    x._tracked, x._fn_version, x._name_of_view = seen._tracked, seen._fn_version, seen._name_of_view
    return x


def _in_place_view(name: str, define: Any) -> None:
    def call(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _rebind(self, define(self, *args, **kwargs))

    call.__name__ = name
    call.__doc__ = f"In place: {define.__doc__}"
    register(name, function=False)(call)


for _name, _define in {
    "squeeze_": squeeze,
    "unsqueeze_": unsqueeze,
    "transpose_": transpose,
    "t_": t,
    "swapaxes_": transpose,
    "swapdims_": transpose,
    "as_strided_": as_strided,
}.items():
    _in_place_view(_name, _define)


@register(function=False)
def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Another shape in place; the leading elements of memory stay, new ones are zero.

    Args:
        memory_format: in which order dimensions lie in memory then; by default that of the shape.

    Raises:
        RuntimeError: the tensor requires grad, or the shape has another rank than the format; or
            it needs other memory, which tensors and arrays that show the same would not see.
    """
    if self.requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    if memory_format is preserve_format:
        raise RuntimeError("resize_: torch.preserve_format is no format to lay memory out by")
    target = shape_of(sizes)
    before = self.numel()
    wanted = numel(target)
    if memory_format is None and _has_room(self, target):
        if target != self._type.shape:
            self._rebind(_part_of_memory(self, target, contiguous_strides(target), _offset(self)))
            self._counter.number += 1
        return self
    if self._storage.shared_memory() is not None:
        raise RuntimeError("Trying to resize storage that is not resizable")
    if recorder.capture is None and _has_memory(self) and _has_aliases(self):
        raise RuntimeError(
            f"resize_: {list(target)} needs more memory than {list(self.shape)} has, or another "
            "order of it, and other tensors show the same memory: they would not see it move. "
            "clone() first what is to be resized, or what shows it"
        )
    flat = reshape(self.detach(), (before,)) if before else None
    if flat is None or wanted == 0:
        value = full_value(target, 0, self._type.dtype)
    elif wanted <= before:
        value = ops.reshape(narrow(flat, 0, 0, wanted)._value(), shape=target)
    else:
        value = ops.pad(flat._value(), low=(0,), high=(wanted - before,), value=_zero(self))
        value = ops.reshape(value, shape=target)
    made = beside(self, value)
    order = None if memory_format is None else order_asked("resize_", memory_format, made)
    if order is not None:
        value = ops.reshape(value, shape=tuple([target[d] for d in order]))
        back = tuple(sorted(range(len(order)), key=order.__getitem__))
        made = beside(self, ops.permute(value, dims=back), order)
    self._storage, self._view, self._base, self._cached = made._storage, made._view, None, None
    self._counter.number += 1
    return self


def _memory(x: Tensor) -> Tensor:
    """All elements of the memory that `x` shows some of, in one dimension and of its dtype."""
    return _as_dtype(UntypedStorage(x)._tensor, x.dtype)


def _as_dtype(whole: Tensor, dtype: Any) -> Tensor:
    flat = reshape(whole, (-1,))
    return flat if flat.dtype is dtype else METHODS["view"](flat, dtype)  # type: ignore[no-any-return]


def _part_of_memory(x: Tensor, size: Any, stride: Any, offset: int) -> Tensor:
    return as_strided(_memory(x), size, stride, offset).detach()


def _has_room(x: Tensor, shape: tuple[Any, ...]) -> bool:
    """Whether the memory that `x` shows some of holds a tensor of that shape where `x` begins."""
    offset, dims = _offset(x), (*shape, *x._storage.value.type.shape)
    if not all(isinstance(d, int) for d in (offset, *dims)) or x.is_meta:
        return False
    room = x._storage.value.type.numel * x._storage.value.dtype.itemsize
    return (offset + numel(shape)) * x.itemsize <= room  # type: ignore[operator]


def _has_memory(x: Tensor) -> bool:
    return not x.is_meta and x._storage.value.type.numel != 0


def _has_aliases(x: Tensor) -> bool:
    """Whether another tensor shows the memory of `x`, or a storage object stands for it."""
    known = _ALONE + _kept_by(x)
    base = x._base
    if base is not None:
        if sys.getrefcount(base) > _ALONE + 1:
            return True
        known += 1 + _kept_by(base)
    return sys.getrefcount(x._storage) > known


_ALONE = 2  # references to what one object holds, as `getrefcount` counts


def _kept_by(x: Tensor) -> int:
    """How often what was seen of `x` keeps its storage."""
    return int(x._seen is not None and getattr(x._seen.place, "kept", None) is x._storage)


def _zero(x: Tensor) -> Any:
    dtype = x._type.dtype
    return False if dtype.is_bool else 0 if dtype.is_integer else 0.0


@register()
def resize_as_(input: Tensor, other: Tensor, *, memory_format: Any = None) -> Tensor:
    """The shape of `other`, in place: as `Tensor.resize_`."""
    if memory_format is preserve_format:
        known = {rank: kind for kind, rank in CHANNELS_LAST_RANK.items()}
        memory_format = known[other.ndim] if channels_last_order(other) else None
    return resize_(input, other.shape, memory_format=memory_format)


@register(function=False)
def set_(
    self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None
) -> Tensor:
    """Use the memory of `source`, a tensor or a storage, under a size and stride if given.

    Raises:
        RuntimeError: `source` has another dtype or device, or its memory does not hold such a
            tensor.
    """
    check_writable(self)
    if source is None:
        source = beside(self, full_value((0,), 0, self._type.dtype))
    given = source._tensor if isinstance(source, (TypedStorage, UntypedStorage)) else source
    if not isinstance(given, Tensor):
        raise TypeError(
            "set_(): argument 'source' (position 1) must be Tensor or a storage, not "
            f"{type(given).__name__}"
        )
    if given.dtype is not self.dtype and not isinstance(source, UntypedStorage):
        mine, theirs = (SCALAR_NAMES[x._type.dtype].lower() for x in (self, given))
        raise RuntimeError(f"Could not set tensor of type {theirs} to a tensor of type {mine}")
    if given is not source:
        source = _as_dtype(given, self.dtype)
    if source.device is not self.device:
        raise RuntimeError(
            f'Attempted to set the storage of a tensor on device "{self.device}" to a storage '
            f'on different device "{source.device}".  This is no longer allowed; the devices '
            "must match."
        )
    if size is not None:
        stride = contiguous_strides(tuple(size)) if stride is None else stride
        source = as_strided(_memory(source), size, stride, storage_offset)
    self.data = source.detach()
    self._counter.number += 1
    return self


# ---------------------------------------------------------------------------------------- questions


@register(function=False)
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one size."""
    shape = self._type.shape
    return (
        Size(shape) if dim is None else shape[axis_of(dim, len(shape))] if shape else _no_dims(dim)
    )


def _no_dims(dim: Any) -> Any:
    raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")


@register(function=False)
def stride(self: Tensor, dim: int | None = None) -> Any:
    """How far apart in memory neighbours along each dimension are, in elements."""
    strides = self._strides
    return tuple(strides) if dim is None else strides[axis_of(dim, len(strides))]


@register(function=False)
def storage_offset(self: Tensor) -> Any:
    """Where in its memory this tensor begins, in elements."""
    return _offset(self)


@register("is_contiguous", function=False)
def is_contiguous_method(self: Tensor, memory_format: Any = None) -> bool:
    """Whether elements lie row-major without gaps."""
    rank = CHANNELS_LAST_RANK.get(memory_format)
    if rank is not None:
        shape = self._type.shape
        if len(shape) != rank:
            return False
        order = (0, *range(2, rank), 1)
        return is_contiguous(tuple(shape[i] for i in order), tuple(self._strides[i] for i in order))
    return is_contiguous(self._type.shape, self._strides)


@register("dim", "ndimension", function=False)
def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return self.ndim


@register("numel", method=False)
def numel_(input: Tensor) -> Any:
    """The number of elements."""
    return input.numel()


@register("nelement", function=False)
def nelement(self: Tensor) -> Any:
    """The number of elements."""
    return self.numel()


@register(function=False)
def element_size(self: Tensor) -> int:
    """Bytes of one element."""
    return self.itemsize


@register(function=False)
def data_ptr(self: Tensor) -> int:
    """The address of the first element; 0 where there are none."""
    storage = self._storage
    if self.is_meta:
        return 0
    _refuse_in_capture()
    settle(storage)
    if (
        storage.host is None and sys.getrefcount(storage.value) > 2
    ):  # a clone may hold the same elements until a write
        storage.value = Leaf(copied(storage.value.buffer))  # type: ignore[attr-defined]
    if not storage.value.type.numel:
        return 0
    if isinstance(storage.value.buffer, Buffer):  # type: ignore[attr-defined]
        keep(storage.value.buffer)  # type: ignore[attr-defined]
    return storage.value.buffer.address + _offset(self) * self.itemsize  # type: ignore


@register(function=False)
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both show the same memory in the same way."""
    return (
        self._storage is tensor._storage
        and self._strides == tensor._strides
        and _offset(self) == _offset(tensor)
        and self.shape == tensor.shape
    )
