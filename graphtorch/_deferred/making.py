"""Tensors made of values: what operations return, with their place in the autograd graph."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import ALL, DType
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.literal import Literal

from .._types import CPU, META, device
from ..autograd.grad_mode import modes
from ..autograd.nodes import Edge, GradNode
from ..autograd.seen import Seen, seen_of
from . import running
from .device_storage import DeviceStorage
from .door import Buffer, Given, New, address_of, is_quick, maker, place_of
from .memory_order import Order, view_of
from .storage import Leaf, MetaLeaf, Step, Storage, Version, View, recorder
from .tensor import Tensor

_DIFFERENTIABLE = frozenset(d for d in ALL if d.is_differentiable)
_object_new: Any = object.__new__
_pending = running.pending
_TYPES = Type._table


def from_value(value: Value, place: device = CPU) -> Tensor:
    """A new tensor outside the autograd graph; on "meta" of the value's type alone."""
    made: Tensor = _object_new(Tensor)
    if place is CPU:
        # its constructor in line: every operation makes one
        storage = made._storage = _object_new(Storage)
        storage.value = value
        storage.epoch = 0
        storage.host = None
    elif place is META:
        storage = made._storage = Storage(MetaLeaf(value.type))
        value = storage.value
    else:
        storage = made._storage = DeviceStorage(value, place)
    made._counter = Version()
    if modes.inference:
        made._inference = True
    if type(value) is Value:
        _pending(storage)
    elif recorder.capture is not None:
        recorder.capture.local(storage)
    return made


def from_buffer(buffer: Buffer, host: Any = None) -> Tensor:
    """A new tensor of these elements, on their device and outside the autograd graph; no capture is
    in progress.

    Args: host: the array of code outside that has this memory.
    """
    if not isinstance(buffer, Buffer):
        return from_value(Leaf(buffer), place_of(buffer))
    type_ = _TYPES.get((buffer.dtype, buffer.shape)) or Type(buffer.dtype, buffer.shape)
    made: Tensor = _holder(type_, buffer, host)
    if modes.inference:
        made._inference = True
    return made


def over_array(array: np.ndarray, dtype: DType) -> Tensor:
    """As `from_buffer` for the row-major elements of an array that code outside has."""
    shape = array.shape
    type_ = _TYPES.get((dtype, shape)) or Type(dtype, shape)
    made: Tensor = _over(type_, dtype, shape, address_of(array), array)
    if modes.inference:
        made._inference = True
    return made


def _holder(type_: Type, buffer: Buffer, host: Any) -> Tensor:
    """A tensor outside the autograd graph. Every compiled call makes some: from native code when
    there is any."""
    global _holder
    if is_quick():
        _holder = maker(3, new_tensor(Given(0), Given(1), Given(2)))
    leaf: Leaf = _object_new(Leaf)
    leaf.type = type_  # type: ignore[misc]
    leaf.node = None  # type: ignore[misc]
    leaf.index = 0  # type: ignore[misc]
    leaf.name = ""  # type: ignore[misc]
    leaf.buffer = buffer
    made: Tensor = _object_new(Tensor)
    storage = made._storage = _object_new(Storage)
    storage.value = leaf
    storage.epoch = 0
    storage.host = host
    made._counter = _object_new(Version)
    return made


def _over(
    type_: Type, dtype: DType, shape: tuple[int, ...], address: int, array: np.ndarray
) -> Tensor:
    """A tensor whose elements and host are `array`."""
    global _over
    if is_quick():
        buffer = New(Buffer, address=Given(3), dtype=Given(1), owner=Given(4), shape=Given(2))
        _over = maker(5, new_tensor(Given(0), buffer, Given(4)))
    return _holder(type_, Buffer(address, dtype, shape, array), array)


def new_tensor(type_: Any, buffer: Any, host: Any = None, **attributes: Any) -> New:
    """A tensor as `_holder` makes it, for native code: of objects, `New` or `Given`."""
    leaf = New(Leaf, type=type_, node=None, index=0, name="", buffer=buffer)
    storage = New(Storage, value=leaf, epoch=0, host=host)
    return New(Tensor, _storage=storage, _counter=New(Version), **attributes)


def in_order(value: Value, order: Order | None, place: device = CPU) -> Tensor:
    """A new tensor outside the autograd graph, whose memory is filled dimension by dimension of
    `order`."""
    if order is None:
        return from_value(value, place)
    made = from_value(ops.permute(value, dims=order), place)
    made._view = view_of(value.type, order)
    made._cached = made._storage.value, value
    return made


def beside(tensor: Tensor, value: Value, order: Order | None = None) -> Tensor:
    """A new tensor outside the autograd graph on the device of `tensor`: on "meta" of the type
    alone."""
    return in_order(value, order, tensor.device)


def _constant_one(type_: Type) -> Value:
    one = ops.constant(value=Literal.of(1, type_.dtype))
    return ops.expand(one, shape=type_.shape) if type_.shape else one


def ones_like(tensor: Tensor) -> Tensor:
    """The cotangent that a backward pass starts with."""
    return beside(tensor, _constant_one(tensor._type))


def wrap(
    name: str,
    outs: Value | tuple[Value, ...],
    tensors: Sequence[Any],
    values: tuple[Value, ...],
    order: Any = None,
) -> Any:
    """The results of an operation as tensors, with their place in the autograd graph.

    Args:
        name: as PyTorch names the operation's node, without ``Backward0``.
        outs: the values made: one, or a tuple.
        tensors: for each of `values` the tensor it was read from; anything else for constants.
        values: the operands.
        order: of the result's memory, see `memory_order`; of several, one for each or None for all.
    """
    if DeviceStorage.used or MetaLeaf.used:
        return _wrap_placed(name, outs, tensors, values, order)
    if isinstance(outs, Value):
        made = from_value(outs) if order is None else in_order(outs, order)
        if modes.grad and _any_requires_grad(tensors):
            _attach(name, (made,), (outs,), tensors, values)
        return made
    results = tuple([from_value(v) for v in outs] if order is None else map(in_order, outs, order))
    if modes.grad and _any_requires_grad(tensors):
        _attach(name, results, outs, tensors, values)
    return results


def _wrap_placed(
    name: str,
    outs: Value | tuple[Value, ...],
    tensors: Sequence[Any],
    values: tuple[Value, ...],
    order: Any,
) -> Any:
    """As `wrap`, in programs that have tensors elsewhere than on the CPU."""
    place = common_place(name, tensors)
    several = (outs,) if isinstance(outs, Value) else outs
    orders = (order,) if isinstance(outs, Value) else order or (None,) * len(outs)
    results = tuple([in_order(v, o, place) for v, o in zip(several, orders, strict=True)])
    if modes.grad and _any_requires_grad(tensors):
        _attach(name, results, several, tensors, values)
    return results[0] if isinstance(outs, Value) else results


# operations on a GPU that take places from the CPU, as PyTorch's
PLACES = frozenset({"Index", "IndexPut"})


JOINED = frozenset({"Cat", "Stack"})  # where a number on the CPU is a part like any other


def common_place(name: str, tensors: Sequence[Any]) -> device:
    """The device of an operation on `tensors`. Numbers (0-d tensors) on the CPU go anywhere.

    Raises: RuntimeError: they are on different devices.
    """
    bound = [
        t
        for t in tensors
        if isinstance(t, Tensor) and (t._type.shape or not t.is_cpu or name in JOINED)
    ]
    places = dict.fromkeys([t.device for t in bound])
    if len(places) <= 1:
        return next(iter(places), CPU)
    if META in places:
        others = [t for t in bound if not t._type.dtype.is_integer] or bound  # than places
        one, *rest = dict.fromkeys([t.device for t in others])
        if rest:
            raise RuntimeError(f"Tensor on device {rest[0]} is not on the expected device {one}!")
        return one
    if name in PLACES and bound[0].is_cuda:
        places = dict.fromkeys(
            [t.device for t in bound if not (t.is_cpu and t._type.dtype.is_integer)]
        )
        if len(places) == 1:
            return bound[0].device
    one, other = sorted(places, key=lambda place: place is CPU)[:2]
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {one} and "
        f"{other}! ({name}: move one of them with .to({str(one)!r}))"
    )


def _any_requires_grad(tensors: Sequence[Any]) -> bool:
    for t in tensors:
        if isinstance(t, Tensor) and (
            t._rg or t._fn is not None or (t._base is not None and t.requires_grad)
        ):
            return True
    return False


def _attach(
    name: str,
    results: tuple[Tensor, ...],
    outs: tuple[Value, ...],
    tensors: Sequence[Any],
    values: tuple[Value, ...],
) -> None:
    edges: list[Edge] = []
    seen: list[Seen | None] = []
    inference = False
    for t in tensors:
        if not isinstance(t, Tensor):
            edges.append(None)
            seen.append(None)
            continue
        if t._base is None:
            fn = t._fn
            if fn is not None:
                edges.append((fn, t._nr))
            elif t._rg:
                edges.append(t._edge())
            else:
                edges.append(None)
        else:
            edges.append(t._edge() if t._type.dtype in _DIFFERENTIABLE else None)
        counter, storage, known = t._counter, t._storage, t._seen
        if (  # as `seen_of`, in line
            known is not None
            and known[0] is counter
            and known[1] == counter.number
            and known[3] == storage.epoch
            and known[4] is t._view
            and known[2]() is storage
        ):
            seen.append(known)
        else:
            seen.append(seen_of(t))
        if t._inference:
            inference = True
    made = (seen_of(results[0]),) if len(results) == 1 else tuple([seen_of(r) for r in results])
    fn = GradNode.of(name, outs, values, tuple(edges), tuple(seen), made)
    if DeviceStorage.used:
        fn.place = results[0].device
    used = False
    for i, result in enumerate(results):
        if outs[i].type.dtype in _DIFFERENTIABLE:
            result._fn = fn
            if i:
                result._nr = i
            used = True
    if not used:
        return
    running.remember(fn)
    if modes.saving is not None or modes.mutable:
        _hand_over(fn, tensors, results)
    if inference:
        _refuse_inference(fn, tensors, values)


def _hand_over(fn: GradNode, tensors: Sequence[Any], results: Sequence[Tensor]) -> None:
    """What the gradient of an operation reads goes to the hooks for what is saved, if there are
    any; values never change, so that to allow writes to saved tensors is not to look for them."""
    if modes.saving is not None:
        fn.pack(modes.saving, (*tensors, *results), some_cotangents(fn))
    if modes.mutable:
        fn.seen = fn.made = ()


def some_cotangents(fn: GradNode) -> list[Value | None]:
    """Cotangents of a node's results, to see what its gradient reads."""
    return [_constant_one(v.type) if v.dtype in _DIFFERENTIABLE else None for v in fn.outputs]


def _refuse_inference(
    fn: GradNode, tensors: Sequence[Tensor | None], values: tuple[Value, ...]
) -> None:
    cotangents = some_cotangents(fn)
    saved = fn.saves(fn.pull(cotangents), cotangents)
    for tensor, value in zip(tensors, values, strict=True):
        if isinstance(tensor, Tensor) and tensor._inference and value in saved:
            raise RuntimeError(
                "Inference tensors cannot be saved for backward. Please do not use Tensors created "
                "in inference mode in computation tracked by autograd. To work around this, you "
                "can make a clone to get a normal tensor and use it in autograd, or use "
                "`torch.no_grad()` instead of `torch.inference_mode()`."
            )


def make_view(
    tensor: Tensor,
    steps: tuple[Step, ...],
    type_: Type,
    offset: Any,
    strides: tuple[Any, ...],
    name: str,
    creation: str = "",
) -> Tensor:
    """A tensor that shows the memory of `tensor` through further view steps."""
    made = _object_new(Tensor)
    before = tensor._view
    made._storage, made._counter = tensor._storage, tensor._counter
    made._view = View(steps if before is None else before.steps + steps, type_, offset, strides)
    made._base = tensor._base if tensor._base is not None else tensor
    made._fn_version = made._counter.number
    made._name_of_view = name
    if recorder.capture is not None:
        recorder.capture.viewed(made)
    if tensor._inference:
        made._inference = True
    if not modes.grad:
        made._creation = "no_grad"
        return made
    if tensor.requires_grad:
        made._tracked = True
        if tensor._base is not None:
            # a node may have hooks of its own
            ref = weakref.ref(tensor) if tensor._fn is None else tensor
            made._parent = ref, before, made._fn_version
    if creation or tensor._creation:
        made._creation = creation or tensor._creation
    return made
