"""From tensors to Python and NumPy, between dtypes, and writes of whole tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import bf16, promote
from graphtorch.ir.shape import SymInt, broadcast

from .. import _types
from .._deferred import at_once, running
from .._deferred.door import Buffer, Pinned, gpus
from .._deferred.making import beside
from .._deferred.memory_order import channels_last_order
from .._deferred.storage import Leaf, MetaLeaf, overlaps, recorder
from .._deferred.tensor import Tensor
from .._deferred.write import (
    assign,
    cast_tensor,
    check_overlap,
    check_writable,
    on_device,
    pinned,
)
from .._settings import warn_once
from .._torch.legacy import TYPE_NAME_OF, TYPE_NAMES, place_of_type
from .._types import CPU, DTYPES, check_device, dtype, to_ir
from .base import FUNCTIONS, METHODS, Number, check_tensor, common_dtype, register, run
from .creation import from_array, full_value, warn_of_scalar

# ------------------------------------------------------------------------------------------ dtypes


class Destination(NamedTuple):
    """What the arguments of a ``to()`` ask for; None where they say nothing."""

    device: _types.device | None = None
    dtype: _types.dtype | None = None
    non_blocking: bool = False
    copy: bool = False
    memory_format: Any = None


def parse_to(*args: Any, **kwargs: Any) -> Destination:
    """The arguments of ``to(device, dtype)``, ``to(dtype)`` or ``to(tensor)``, each with further
    ``non_blocking`` and ``copy``, and ``memory_format`` by name.

    Raises: TypeError for any other.
    """
    rest = list(args)
    given = dict(kwargs)
    like = given.pop("other", given.pop("tensor", None))
    if rest and isinstance(rest[0], Tensor):
        like = rest.pop(0)
    if like is not None:
        check_tensor("to", "other", like)
        given.update(device=like.device, dtype=like.dtype)
    elif rest and isinstance(rest[0], (_types.dtype, type)):
        given["dtype"] = rest.pop(0)
    else:
        given.update(zip(("device", "dtype"), rest[:2], strict=False))
        rest = rest[2:]
    given.update(zip(("non_blocking", "copy"), rest, strict=False))
    unknown = len(rest) > 2 or any(name not in Destination._fields for name in given)
    if unknown or not all(isinstance(given.get(k, False), bool) for k in ("non_blocking", "copy")):
        raise _wrong_to(args, kwargs)
    where, what = given.get("device"), given.get("dtype")
    if isinstance(where, (bool, float)) or not isinstance(what, (_types.dtype, type, NoneType)):
        raise _wrong_to(args, kwargs)
    if where is not None:
        given["device"] = _types.device(where)
    if isinstance(what, type):  # Python's
        given["dtype"] = _types.dtype._of[to_ir(what)]
    return Destination(**given)


def _wrong_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
    kinds = [type(a).__name__ for a in args] + [
        f"{k}={type(v).__name__}" for k, v in kwargs.items()
    ]
    return TypeError(
        f"to() received an invalid combination of arguments - got ({', '.join(kinds)}), but "
        "expected one of: (device, dtype, non_blocking, copy, *, memory_format), "
        "(dtype, non_blocking, copy, *, memory_format), (Tensor other, non_blocking, "
        "copy, *, memory_format)"
    )


@register(function=False)
def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Another dtype or device: ``to(dtype)``, ``to(device, dtype)``, ``to(other)``; the tensor
    itself where nothing changes."""
    asked = parse_to(*args, **kwargs)
    target = self._type.dtype if asked.dtype is None else to_ir(asked.dtype)
    made = self if target is self._type.dtype else _cast(self, target)
    if asked.device is not None and made.device is not (place := check_device(asked.device)):
        made = on_device(made, place)
    if asked.copy and made is self:
        return METHODS["clone"](self, memory_format=asked.memory_format)
    if asked.memory_format is None or asked.memory_format is _types.preserve_format:
        return made
    if (
        made is self
        and asked.memory_format is _types.contiguous_format
        and not channels_last_order(self)
    ):
        return made
    return METHODS["contiguous"](made, asked.memory_format)  # type: ignore[no-any-return]


def _cast(x: Tensor, target: Any) -> Tensor:
    if x._type.dtype.is_complex and not (target.is_complex or target.is_bool):
        warn_once("Casting complex values to real discards the imaginary part")
    return cast_tensor(x, target)


def _to_dtype(name: str, target: str) -> None:
    dtype = DTYPES[target].ir

    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        if memory_format is None:
            return self if self._type.dtype is dtype else _cast(self, dtype)
        return to(self, DTYPES[target], memory_format=memory_format)

    convert.__name__ = name
    convert.__doc__ = f"Converted to {target}."
    METHODS[name] = convert


for _name in (
    "float",
    "double",
    "half",
    "bfloat16",
    "int",
    "long",
    "short",
    "bool",
    "cfloat",
    "cdouble",
):
    _to_dtype(_name, _name)
_to_dtype("byte", "uint8")
_to_dtype("char", "int8")


@register("type", function=False)
def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The legacy type name, or the tensor converted to a dtype or legacy type."""
    if dtype is None:
        kind = "" if self.is_cpu else f"{self.device.type}."
        return f"torch.{kind}{TYPE_NAME_OF[self._type.dtype]}"
    if isinstance(dtype, Tensor):
        raise TypeError(
            "type(): dtype must be a type, str, or dtype object, not a Tensor: use type_as()"
        )
    place = place_of_type(dtype)
    name = dtype.rsplit(".", 1)[-1] if isinstance(dtype, str) else getattr(dtype, "__name__", "")
    if isinstance(dtype, str) and name not in TYPE_NAMES and name not in DTYPES:
        raise ValueError(f"invalid type: '{dtype}'")
    return to(self, place, DTYPES[TYPE_NAMES[name]] if name in TYPE_NAMES else dtype)


@register(function=False)
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """Converted to the dtype, and on the device, of `other`."""
    return to(self, other.device, other.dtype)


@register(function=False)
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """In the host's memory: the tensor itself, or a copy of one on a GPU.

    Raises: NotImplementedError for one without elements.
    """
    return to(self, CPU, memory_format=memory_format)


@register(function=False)
def cuda(
    self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> Tensor:
    """On a GPU: the present one, or that of a number.

    Raises: AssertionError: there is none. RuntimeError: `device` is no GPU.
    """
    place = _types.device("cuda" if device is None else device)
    if place.type != "cuda":
        raise RuntimeError(f"Invalid device, must be cuda device: got {str(place)!r}")
    return to(self, place, memory_format=memory_format)


@register(function=False)
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """A copy in memory that GPUs read by themselves, so that programs need not wait; or the tensor
    itself, where it is there already, and where there is no GPU.

    Raises: RuntimeError: the tensor is not on the CPU, or sparse.
    """
    if not self.is_cpu or self.is_sparse:
        raise RuntimeError(f"cannot pin '{self.type()}' only dense CPU tensors can be pinned")
    return self if not gpus() or is_pinned(self) else pinned(self)


@register(function=False)
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the elements are in memory that GPUs read by themselves: `pin_memory` made it, and
    nothing was written to it since."""
    if self.is_sparse:
        return False
    value = self._storage.value
    return (
        type(value) is Leaf
        and isinstance(value.buffer, Buffer)
        and type(value.buffer.owner) is Pinned
    )


@register(function=False)
def record_stream(self: Tensor, stream: Any) -> None:
    """That a stream uses the tensor: all streams are one queue, so its memory is not taken for
    anything else before.

    Raises: TypeError: `stream` is none. NotImplementedError: the tensor is not on a GPU.
    """
    if not hasattr(stream, "stream_id"):
        raise TypeError(
            "record_stream(): argument 's' must be a torch.cuda.Stream, not "
            f"{type(stream).__name__}"
        )
    if not self.is_cuda:
        raise NotImplementedError(
            "Could not run 'aten::record_stream' with arguments from the 'CPU' backend: memory of "
            "the CPU belongs to no stream; call it on tensors of a GPU alone"
        )


METHODS["get_device"] = lambda self: self.device.index if self.is_cuda else -1


@register()
def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating-point one."""
    check_tensor("is_floating_point", "input", input)
    return input._type.dtype.is_floating_point


@register()
def is_complex(input: Tensor) -> bool:
    """Whether the dtype is complex."""
    return input._type.dtype.is_complex


@register()
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return input._type.dtype.signed


@register()
def is_nonzero(input: Tensor) -> bool:
    """Whether a tensor of one element is not zero."""
    if input.numel() != 1:
        raise RuntimeError(
            "Boolean value of Tensor with more than one value is ambiguous"
            if input.numel()
            else "Boolean value of Tensor with no values is ambiguous"
        )
    if recorder.capture is not None and not input._type.dtype.is_bool:
        input = FUNCTIONS["ne"](input, 0)  # all that counts: a recording can go on with that
    return bool(input.item())


@register("is_tensor", method=False)
def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, Tensor)


@register("promote_types", method=False)
def promote_types(type1: Any, type2: Any) -> Any:
    """The smallest dtype that holds both."""
    return dtype._of[promote(to_ir(type1), to_ir(type2))]


@register("result_type", method=False)
def result_type(tensor1: Any, tensor2: Any) -> Any:
    """The dtype of an operation on two tensors or numbers."""
    return dtype._of[common_dtype(tensor1, tensor2)]


@register("can_cast", method=False)
def can_cast(from_: Any, to: Any) -> bool:
    """Whether promotion allows writing one dtype into another."""
    a, b = to_ir(from_), to_ir(to)
    return a.kind <= b.kind and not (a.is_integer and b.is_integer and a.signed and not b.signed)


# ---------------------------------------------------------------------------------------- to Python


@register(function=False)
def item(self: Tensor) -> Any:
    """The one element as a Python number."""
    if self._type.shape and self.numel() != 1:
        raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
    if self.is_meta:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")
    if recorder.capture is not None:
        shown = recorder.capture.reveal(self, sys._getframe(1))
        if shown is not None:
            return shown.item()
    array, view = self._base_array(), self._view
    if view is not None:
        if array.dtype != view.type.dtype.numpy:
            return view.over(array).item()
        return array.item(view.offset)
    return array.item()


@register(function=False)
def tolist(self: Tensor) -> Any:
    """The elements as nested lists of Python numbers."""
    array = self._array()
    if self._type.dtype is bf16:
        array = array.astype(np.float32)
    return array.tolist()


def _index(self: Tensor) -> int:
    if self._type.dtype.is_differentiable or self.numel() != 1:
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(item(self))


def _number(kind: Any) -> Any:
    def convert(self: Tensor) -> Any:
        if self._type.shape and self.numel() != 1:
            raise ValueError(
                "only one element tensors can be converted to Python scalars: this one has "
                f"shape {list(self.shape)}"
            )
        if kind is not complex and self._type.dtype.is_complex:
            found = item(self)
            if found.imag:
                raise RuntimeError(
                    f"value cannot be converted to type {names[kind]} without overflow: it is "
                    f"{found}; take its .real or .abs()"
                )
            return kind(found.real)
        if self.requires_grad:
            warn_of_scalar()
        return kind(item(self))

    names = {int: "int64_t", float: "double"}
    return convert


METHODS["__bool__"] = is_nonzero
METHODS["__int__"], METHODS["__float__"], METHODS["__complex__"] = (
    _number(int),
    _number(float),
    _number(complex),
)
METHODS["__index__"] = _index
METHODS["__format__"] = lambda self, spec: (
    format(item(self), spec)
    if self.ndim == 0 and type(self) is Tensor and not self.is_meta
    else object.__format__(self, spec)
)


def _iterate(self: Tensor) -> Any:
    if not self._type.shape:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


def _contains(self: Tensor, element: Any) -> bool:
    if not isinstance(element, (Tensor, int, float, complex, np.generic)):
        raise RuntimeError(
            "Tensor.__contains__ only supports Tensor or scalar, but you passed in a "
            f"{element.__class__}."
        )
    return bool(FUNCTIONS["eq"](self, element).any())


METHODS["__iter__"], METHODS["__contains__"] = _iterate, _contains
METHODS["__reversed__"] = lambda self: METHODS["flip"](self, (0,)) if self.ndim else self


# ------------------------------------------------------------------------------------ NumPy, DLPack


@register(function=False)
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The elements as an array over the same memory: writes on either side show on the other."""
    if force:
        return numpy(self.detach().cpu())
    storage, view = self._storage, self._view
    if self._rg or ((self._fn is not None or self._base is not None) and self.requires_grad):
        raise RuntimeError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    if storage.place is not CPU or (MetaLeaf.used and self.is_meta):
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )
    if (storage.value.type if view is None else view.type).dtype is bf16:
        raise TypeError(
            "Got unsupported ScalarType BFloat16: NumPy has no such dtype; convert with .float() "
            "first"
        )
    if recorder.capture is not None:
        exposed: np.ndarray | None = recorder.capture.exposed(self)
        if exposed is not None:
            return exposed
        running._refuse_in_capture()
    array = storage.host
    if array is None:
        array = running.share(storage)
    return array.view() if view is None else view.over(array)


def _array(self: Tensor, dtype: Any = None, copy: Any = None) -> np.ndarray:
    found = numpy(self)
    return found if dtype is None else found.astype(dtype, copy=False)


def _array_wrap(
    self: Tensor, array: Any, context: Any = None, return_scalar: bool = False
) -> Tensor:
    return from_array(np.asarray(array).copy())


METHODS["__array__"], METHODS["__array_wrap__"] = _array, _array_wrap
METHODS["__array_priority__"] = 1000  # type: ignore[assignment]  # NumPy's scalars leave operators to us

# ---------------------------------------------------------------------------------- writes of whole
# tensors


@register(function=False)
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """The elements of `src`, broadcast and converted, written into this tensor."""
    if not isinstance(src, Tensor):
        if not isinstance(src, Number):
            raise TypeError(
                "copy_(): argument 'other' (position 1) must be Tensor, not "
                f"{src.__class__.__name__}"
            )
        return METHODS["fill_"](self, src)
    if _is_same(self, src):
        check_writable(self)
        self._counter.number += 1
        return self
    check_overlap(self, src)
    if src._type.dtype is not self._type.dtype:
        src = cast_tensor(src, self._type.dtype)
    if src._type.shape != self._type.shape:
        both = broadcast(self._type.shape, src._type.shape)
        if both != self._type.shape:
            raise RuntimeError(
                f"output with shape {list(self.shape)} doesn't match the broadcast shape "
                f"{list(both)}"
            )
        src = METHODS["expand"](src, self._type.shape)
    if src._storage is self._storage or src.requires_grad:
        value = src._value()
        src = run("Copy", lambda v: ops.reshape(v, shape=value.shape), src)
    return assign(self, src)


def _is_same(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors show the same places of an expanded memory: nothing is to be copied."""
    views = (x._view, y._view)
    if x._storage is not y._storage or None in views or y.requires_grad:
        return False
    one, other = views
    same = x._type is y._type and one.offset == other.offset and one.strides == other.strides  # type: ignore[union-attr]
    return same and overlaps(x._type.shape, one.strides)  # type: ignore[union-attr]


@register("fill_")
def fill_(input: Tensor, value: Any) -> Tensor:
    """Every element becomes `value`."""
    check_tensor("fill_", "input", input)
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(
                f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} "
                "dimensions."
            )
        return assign(
            input, METHODS["expand"](to(value, input.dtype), input._type.shape), fills=True
        )
    if not isinstance(value, (bool, int, float, complex, np.generic, SymInt)):
        raise TypeError(
            f"fill_(): argument 'value' (position 1) must be Number, not {type(value).__name__}"
        )
    return assign(input, FUNCTIONS["full_number"](input, value), fills=True)


@register()
def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor of the same shape filled with `value`."""
    return fill_(METHODS["clone"](input), value)


@register(function=False)
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Every element becomes ``callable(element)``: slow, for small tensors.

    Raises: RuntimeError: the tensor requires grad.
    """
    return _mapped("apply_", self, callable, self)


@register(function=False)
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Every element becomes ``callable(element, element of tensor)``; `tensor` is broadcast.

    Raises: RuntimeError: one of them requires grad.
    """
    if tensor._type.dtype is not self._type.dtype:
        raise TypeError(f"map_: expected {self.type()} for 'other' (got {tensor.type()})")
    return _mapped("map_", self, callable, self, tensor)


def _mapped(name: str, target: Tensor, change: Callable[..., Any], *given: Tensor) -> Tensor:
    if any(x.requires_grad for x in given):
        raise RuntimeError(
            f"Can't call {name}() on Variable that requires grad. Use var.detach().{name}() "
            "instead."
        )
    shape = target._type.shape
    numbers = [METHODS["expand"](x, shape).reshape(-1).tolist() for x in given]
    made = FUNCTIONS["tensor"](list(map(change, *numbers)), dtype=target.dtype)
    return copy_(target, made.reshape(shape))


@register("zero_")
def zero_(input: Tensor) -> Tensor:
    """Every element becomes 0."""
    if at_once.fill(input, 0):
        return input
    return assign(
        input, beside(input, full_value(input._type.shape, 0, input._type.dtype)), fills=True
    )


@register(function=False)
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """The main diagonal of a matrix becomes `fill_value`."""
    if self.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.ndim == 2:
        size = min(self.shape)
        rows = FUNCTIONS["arange"](size, device=self.device)
        self[rows, rows] = fill_value
        if wrap:
            for start in range(self.shape[1] + 1, self.shape[0], self.shape[1] + 1):
                fill_diagonal_(self[start:], fill_value)
        return self
    rows = FUNCTIONS["arange"](self.shape[0], device=self.device)
    self[(rows,) * self.ndim] = fill_value
    return self


@register(function=False)
def as_subclass(self: Tensor, cls: type) -> Any:
    """The same tensor, with its place in the autograd graph, as a subclass of Tensor."""
    if not self.requires_grad:
        return self._as(cls)
    made = METHODS["view"](self, self.shape)._as(cls)
    made._name_of_view = "AliasBackward0"
    return made


@register("typename", method=False)
def typename(obj: Any) -> str:
    """The type name: ``torch.FloatTensor`` for tensors, the qualified class name otherwise."""
    if isinstance(obj, Tensor):
        return type_(obj)
    kind = obj if isinstance(obj, type) else type(obj)
    module = kind.__module__ or ""
    name = getattr(kind, "__qualname__", kind.__name__)
    return name if module in ("builtins", "__builtin__", "") else f"{module}.{name}"
