"""Writing to tensors: what in-place operations do to elements, aliases and history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.ops.common import zeros

from .._types import META, device
from ..autograd.grad_mode import modes
from ..autograd.nodes import GradNode
from ..autograd.seen import look
from . import at_once, door, running
from .device_storage import DeviceStorage, stored
from .making import beside, in_order, wrap
from .memory_order import Order, own_order
from .storage import Leaf, MetaLeaf, Storage, overlaps, recorder, write_steps
from .tensor import Tensor

# writes to parts, each to what the one before left, that wait before they are computed
CHAIN_BOUND = 16


def check_writable(tensor: Tensor) -> None:
    """Raise where autograd or aliasing forbids an in-place operation on `tensor`."""
    if tensor._inference is True and not modes.inference:
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed.You can make "
            "a clone to get a normal tensor before doing inplace update."
        )
    if not modes.grad:
        return
    if tensor._rg:
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )
    base = tensor._base
    if base is None:
        return
    if base._rg:
        raise RuntimeError(
            "a view of a leaf Variable that requires grad is being used in an in-place operation."
        )
    if tensor._creation and (
        base.requires_grad or (tensor._creation == "multi" and tensor.requires_grad)
    ):
        why = (
            "was created in no_grad mode and is being modified inplace with grad mode enabled"
            if tensor._creation == "no_grad"
            else "is an output of a function that returns multiple views. Such functions do not "
            "allow the output views to be modified inplace"
        )
        raise RuntimeError(
            f"A view {why}. Write out-of-place, or make the view and the write in the same grad "
            "mode."
        )


def check_overlap(target: Tensor, source: Tensor, identical: bool = False) -> None:
    """Raise where an operation that writes to `target` reads some of its memory through `source`.

    As PyTorch, which looks at dense tensors only, and takes those that are the same part of memory
    unless `identical` is refused too.
    """
    if source.is_sparse or target.is_sparse or source._storage is not target._storage:
        return
    if source is target and not identical:
        return
    one, other = _dense_span(target), _dense_span(source)
    if one is None or other is None or one[1] <= other[0] or other[1] <= one[0]:
        return
    if one == other and target._strides == source._strides and not identical:
        return
    raise RuntimeError(
        "unsupported operation: some elements of the input tensor and the written-to tensor refer "
        "to a single memory location. Please clone() the tensor before performing the operation."
    )


def _dense_span(x: Tensor) -> tuple[int, int] | None:
    """First and last byte (excluded) of a tensor whose elements fill a part of memory; None for
    others."""
    shape, strides = x._type.shape, x._strides
    if not all(isinstance(d, int) for d in shape):
        return None
    expected = 1
    for stride, size in sorted((s, d) for s, d in zip(strides, shape, strict=True) if d != 1):
        if stride != expected:
            return None
        expected *= size  # type: ignore[operator]
    first = (0 if x._view is None else x._view.offset) * x._type.dtype.itemsize
    return first, first + expected * x._type.dtype.itemsize  # type: ignore[return-value,operator]


def assign(tensor: Tensor, result: Tensor, fills: bool = False, updates: bool = False) -> Tensor:
    """Finish an in-place operation: `tensor` takes over the elements and the history of `result`.

    Args:
        tensor: the tensor written to; views and detached aliases of its memory see the write.
        result: what the out-of-place operation made.
        fills: whether all elements become equal, so that an expanded tensor may be written to.
        updates: whether `result` was made of `tensor` by this very operation, whose gradient then
            reads the elements from before the write (PyTorch saves a copy of them).
    """
    check_writable(tensor)
    if tensor.is_sparse:
        return tensor._taken_over(result)  # type: ignore[no-any-return]
    if updates and result._fn is not None:
        _forget(result._fn, tensor)
        before = tensor._fn
        if tensor._base is not None and before is not None and (before.hooks or before.retained):
            # As in PyTorch: the gradient goes on to the base, unseen by who watches what the view
            # showed
            bare = before.unwatched()
            edges = list(result._fn.edges)
            own = next((i for i, e in enumerate(edges) if e is not None and e[0] is before), None)
            if own is not None:
                edges[own] = bare, 0
                result._fn.edges = tuple(edges)
    target = tensor._type
    if result._type.shape != target.shape:
        result = _fitted(result, target)
    if result._type.dtype is not target.dtype:
        result = _cast(result, target.dtype)
    if not fills and tensor._view is not None and overlaps(target.shape, tensor._view.strides):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    if result._storage is tensor._storage and not fills:
        check_overlap(tensor, result)
    if DeviceStorage.used and result.device is not tensor.device:
        result = on_device(result, tensor.device)
    value = result._value()
    if type(value) is MetaLeaf and not tensor.is_meta:
        value.buffer  # noqa: B018 - which says that there is nothing to be written
    base = tensor._base
    if base is not None and not base._shows_whole(tensor):
        tensor._stand_alone()  # its base got other memory
        base = None
    keep_history = modes.grad and (
        result.requires_grad or (base if base is not None else tensor).requires_grad
    )
    if not keep_history and type(value) is Leaf and at_once.copy(tensor, value):
        return tensor
    if base is None:
        replaces = keep_history and tensor.requires_grad and not (updates and result.requires_grad)
        fn = _replacement(tensor, result, value) if replaces else None
        _write_own(tensor, value)
        if keep_history:
            _continue(tensor, *((fn, 0) if replaces else _history(result)))
            _saw_itself(tensor, result, tensor._fn, tensor._nr)
        return tensor
    _write_view(tensor, base, result, value, keep_history)
    return tensor


def replaced(op: Any, targets: Sequence[Tensor], operands: Sequence[Any], attrs: Any) -> bool:
    """Write the results of one node to `targets`, each of the type of its result.

    It is done where that is all there is to do: outside the autograd graph and captures, of tensors
    that are no views and share no memory with code outside.

    Returns: whether it was.
    """
    if modes.grad or recorder.capture is not None or DeviceStorage.used or MetaLeaf.used:
        return False
    values = []
    for x in operands:
        storage = x._storage
        if x._view is not None or storage.host is not None or x._inference or x.is_sparse:
            return False
        if x._rg and storage.value.node is not None:
            running.flush()  # an updated parameter is read: here the iteration before ends
        values.append(storage.value)
    for x in targets:
        if x._base is not None or x._view is not None or x._storage.host is not None:
            return False
    for target, value in zip(targets, op(*values, **attrs), strict=True):
        target._storage.put(value)
        running.pending(target._storage)
        target._counter.number += 1
    return True


def forget_target(tensor: Tensor, result: Tensor, start: int = 0) -> None:
    """Let all operations that lead from `tensor` to `result` read the elements from before it is
    written to: as `assign` does for the last one.

    Args:
        start: the number that was new when they began (see `new_number`), where they read other
            tensors that have a history, too.
    """
    waiting: list[Any] = [result._fn]
    done = {tensor._fn, None}
    while waiting:
        fn = waiting.pop()
        if fn not in done and fn.sequence > start and hasattr(fn, "seen"):
            done.add(fn)
            _forget(fn, tensor)
            waiting += [edge[0] for edge in fn.edges if edge is not None]


def _forget(fn: Any, tensor: Tensor) -> None:
    counter = tensor._counter
    fn.seen = tuple([None if s is not None and s.version is counter else s for s in fn.seen])
    fn.kept = tuple([k for k in fn.kept if k.seen.version is not counter])


def _write_own(tensor: Tensor, value: Value) -> None:
    """Write `value` to all of a tensor that is no view of another one (it may be an alias of a
    part)."""
    storage, view = tensor._storage, tensor._view
    if view is None:
        running.store(storage, value)
    else:
        after = write_steps(storage.read(), view.steps, value)
        running.store(storage, after)
        tensor._cached = after, value
        _end_of_chain(storage)
    _written(tensor)


def _write_view(
    tensor: Tensor, base: Tensor, result: Tensor, value: Value, keep_history: bool
) -> None:
    own = () if base._view is None else base._view.steps
    rest = tensor._view.steps[len(own) :]  # type: ignore[union-attr]
    before = base._value()
    after = write_steps(before, rest, value) if rest else value
    edges = (base._edge(), result._edge()) if keep_history else None
    storage = tensor._storage
    running.store(storage, write_steps(storage.read(), own + rest, value) if own else after)
    _written(tensor)
    if edges is None:
        _end_of_chain(storage)
        return
    _saw_itself(tensor, result, result._fn, result._nr)
    if not rest:
        _continue(base, *_history(result))
    else:
        fn = Written("CopySlices", (after,), (before, value), edges, (None, None))
        _continue(base, _placed(fn, base), 0)


def _end_of_chain(storage: Storage) -> None:
    """Compute what a loop of writes made of pending elements: its further writes find them in
    memory."""
    node = storage.now().node
    for _ in range(CHAIN_BOUND):
        if node is None or node.op is not ops.slice_update:
            return
        node = node.operands[0].node
    if recorder.capture is None:
        running.settle(storage)


class Written(GradNode):
    """A write: what the tensor held before gets zeros where nothing of it is left."""

    def pull(self, cotangents: Sequence[Value | None]) -> list[Value | None]:
        gradients = super().pull(cotangents)
        if gradients[0] is None and self.edges[0] is not None:
            gradients[0] = zeros(self.operands[0].type)
        return gradients


def _replacement(tensor: Tensor, result: Tensor, value: Value) -> Written:
    """The node of a write that replaces all elements of `tensor`."""
    name = "CopyBackwards" if result.requires_grad else "FillBackward0"
    fn = Written(
        name, (value,), (tensor._value(), value), (tensor._edge(), result._edge()), (None, None)
    )
    return _placed(fn, tensor)


def _placed(fn: Any, tensor: Tensor) -> Any:
    """A node of the autograd graph at which gradients of `tensor` arrive."""
    if DeviceStorage.used:
        fn.place = tensor.device
    return fn


def _history(result: Tensor) -> tuple[GradNode | None, int]:
    """The history that a tensor takes over from what is written to it."""
    fn = result.grad_fn
    if fn is None and result._rg:  # a leaf: its gradient goes through one more node
        value = result._value()
        fn = GradNode("CopyBackwards", (value,), (value,), (result._edge(),), (None,))
        return _placed(fn, result), 0
    return fn, result._nr


def _written(tensor: Tensor) -> None:
    if recorder.capture is not None:
        recorder.capture.counts(tensor)
    tensor._counter.number += 1


def _continue(tensor: Tensor, fn: GradNode | None, number: int) -> None:
    """A write gave `tensor` another history: its gradient, if it is kept, is the one that arrives
    there."""
    kept = tensor.retains_grad
    if kept:
        del tensor._fn.retained[tensor._nr]  # type: ignore[union-attr, index]
    tensor._fn, tensor._nr = fn, number
    if kept and fn is not None:
        tensor.retain_grad()


def _saw_itself(tensor: Tensor, result: Tensor, fn: GradNode | None, number: int) -> None:
    """The node `fn` that made the new contents now guards this tensor, and not `result`, the
    temporary it came from."""
    if fn is None or not (fn.made or fn.kept):
        return
    now = look(tensor._counter, tensor._storage, tensor._view)
    if fn.made:
        made = list(fn.made)
        made[number] = now
        fn.made = tuple(made)
    fn.kept = tuple(
        [k._replace(seen=now) if k.seen.version is result._counter else k for k in fn.kept]
    )


class Moved(GradNode):
    """A copy from one device to another: the pass itself takes gradients back (see
    `autograd.engine`)."""

    def pull(self, cotangents: Sequence[Value | None]) -> list[Value | None]:
        """The gradient as it arrived, on the device where it arrived."""
        return [None if c is None else ops.reshape(c, shape=c.shape) for c in cotangents]

    def reads(
        self, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]
    ) -> set[Value]:
        """Nothing but the gradient."""
        return set()


def on_device(x: Tensor, place: device) -> Tensor:
    """A copy of `x` on another device, in the autograd graph, in the same order of memory.

    Raises: NotImplementedError: `x` has no elements.
    """
    if x.is_sparse:
        return x._with(*[on_device(t, place) for t in reversed(x._pair)])  # type: ignore[no-any-return]
    value, order = x._value(), own_order(x)
    if place is META:
        return wrap_on_meta(x, value, order)
    if type(value) is MetaLeaf:
        value.buffer  # noqa: B018 - raises: there is nothing to copy
    made = in_order(running.moved(value, x.device, place), order, place)
    return _moved_from(x, value, made, "ToCopyBackward0")


def _moved_from(x: Tensor, value: Value, made: Tensor, name: str) -> Tensor:
    """`made`, a copy of `x`, with its place in the autograd graph."""
    if modes.grad and x.requires_grad:
        made._fn = _placed(Moved(name, (made._value(),), (value,), (x._edge(),), (None,)), made)
    return made


def pinned(x: Tensor) -> Tensor:
    """A copy of `x`, a tensor on the CPU, in memory that GPUs read by themselves, in the autograd
    graph."""
    value = x._value()
    made = in_order(Leaf(door.pinned(running.array_of(value))), None)
    return _moved_from(x, value, made, "PinMemoryBackward0")


def wrap_on_meta(x: Tensor, value: Value, order: Order | None) -> Tensor:
    """`x` without its elements."""
    made: Tensor = wrap("ToCopy", ops.reshape(value, shape=value.shape), (x,), (value,), order)
    made._storage = stored(MetaLeaf(made._storage.value.type), META)
    return made


def lay(made: Tensor, order: Order | None) -> Tensor:
    """`made`, a new tensor that nothing else shows yet, with its memory filled in another order."""
    other = beside(made, made._value(), order)
    if made._base is not None:  # what it is a view of was made on the way, and is nobody's
        made._rg, made._fn, made._base = False, made.grad_fn, None
    made._storage, made._view, made._cached = other._storage, other._view, other._cached
    _saw_itself(made, made, made._fn, made._nr)
    return made


def _fitted(result: Tensor, target: Type) -> Tensor:
    value = result._value()
    try:
        return wrap("Expand", ops.expand(value, shape=target.shape), (result,), (value,))
    except RuntimeError:
        raise RuntimeError(
            f"output with shape {list(target.shape)} doesn't match the broadcast shape "
            f"{list(result._type.shape)}"
        ) from None


def _cast(result: Tensor, target: DType) -> Tensor:
    given = result._type.dtype
    if given.kind > target.kind:
        raise RuntimeError(
            f"result type {given.torch_name} can't be cast to the desired output type "
            f"{target.torch_name}"
        )
    return cast_tensor(result, target)


def cast_tensor(tensor: Tensor, target: DType) -> Tensor:
    """`tensor` as another dtype, in the autograd graph."""
    if tensor.is_sparse:
        return tensor._with(cast_tensor(tensor._pair[1], target))  # type: ignore[no-any-return]
    value = tensor._value()
    return wrap("ToCopy", ops.cast(value, dtype=target), (tensor,), (value,), own_order(tensor))
