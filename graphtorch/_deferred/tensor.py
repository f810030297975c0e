"""The deferred tensor: a handle on a storage, a view of it, and its place in the autograd graph.

This file holds what every operation needs: how a tensor is read, written to and differentiated;
making.py has how one is made.
The operations themselves come from the tables in ``_ops`` and are attached when the package is
imported.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import contiguous_strides, numel

from .._settings import warn_user
from .._types import CPU, META, Size, default_dtype, device, dtype, layout, strided
from ..autograd.grad_mode import modes
from ..autograd.nodes import AccumulateGrad, Edge, GradNode
from ..autograd.seen import Seen, hold, move
from ..utils.hooks import register
from . import running
from .device_storage import DeviceStorage
from .door import Buffer
from .storage import (
    Leaf,
    MetaLeaf,
    Slice,
    Step,
    Storage,
    Version,
    View,
    is_contiguous,
    read_steps,
    recorder,
)

COPIED_PART = 1 << 20  # bytes: copying so few costs less than compiling a program for their place
_DTYPE_OF = dtype._of


# A view's parent (weakly, until the parent has a node in the autograd graph), what it showed, and
# the version of their memory then.
Parent = tuple[Any, "View | None", int]

# what `_inference` is of an alias that leaves inference mode: it may be written to
DETACHED = "detached"


class Tensor:
    """An array whose elements are computed when they are needed.

    ``Tensor(2, 3)`` makes an uninitialised float tensor of that shape, ``Tensor([1, 2])`` one of
    that data; the usual way is ``torch.tensor(data)``.
    """

    __module__ = "graphtorch"  # as users know it

    if TYPE_CHECKING:  # the tables in _ops attach these

        def __getattr__(self, name: str) -> Any: ...
        def __eq__(self, other: object) -> Any: ...
        def __ne__(self, other: object) -> Any: ...

        __add__: Any
        __radd__: Any
        __sub__: Any
        __rsub__: Any
        __mul__: Any
        __rmul__: Any
        __truediv__: Any
        __rtruediv__: Any
        __pow__: Any
        __neg__: Any
        __getitem__: Any
        __setitem__: Any
        __lt__: Any
        __le__: Any
        __gt__: Any
        __ge__: Any
        __iter__: Any

    _construct: Any  # what the class makes when called: one of the operations (see legacy.py)
    _storage: Storage
    _counter: Version
    _view: View | None = None
    _cached: tuple[Value, Value] | None = None  # (value of the base, what the view shows of it)
    _rg = False  # leaf that requires grad
    _fn: GradNode | None = None
    _nr = 0
    _base: Tensor | None = None  # the tensor of which this is a differentiable view
    _parent: Parent | None = None  # the view of `_base` from which this view was made
    _creation = ""  # why a view must not be written to under autograd: "", "no_grad", "multi"
    _fn_version = 0  # version for which `_fn` of a view was made
    _tracked = False  # whether the base required grad then
    _name_of_view = "ViewBackward0"
    _grad: Tensor | None = None
    _hooks: OrderedDict[int, Any] | None = None
    _post_hooks: OrderedDict[int, Any] | None = None
    _accumulator: weakref.ref[AccumulateGrad] | None = None
    _inference: bool | str = False
    _seen: Seen | None = None  # see `seen_of`
    _dispatches = False  # whether the class has a ``__torch_dispatch__``, which nothing would call
    _marks: dict[int, Any] | None = None  # of axes: see `_dynamo.mark_dynamic`

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if len(args) == 1 else None
        dtype = given._type.dtype if isinstance(given, Tensor) else default_dtype()
        made = Tensor._construct(dtype, args, kwargs)
        return made if cls is Tensor else cls._make_subclass(cls, made, False)

    @classmethod
    def _take_over(cls, operations: Mapping[str, Any]) -> None:
        """From now on `operations`, written in terms of this class, are its methods and
        properties."""
        for name, operation in operations.items():
            setattr(cls, name, operation)

    @staticmethod
    def _make_subclass(cls: type, data: Tensor, require_grad: bool = False) -> Any:
        """A `cls` over the memory of `data`, outside any autograd graph. Raises TypeError: `cls` is
        none."""
        if not isinstance(data, Tensor):
            raise TypeError(
                "_make_subclass(): argument 'data' (position 2) must be Tensor, not "
                f"{type(data).__name__}"
            )
        made: Any = _instance(cls)
        made._storage, made._view, made._counter = data._storage, data._view, data._counter
        if require_grad:
            made._rg = True
        return made

    def _as(self, cls: type) -> Any:
        """This tensor, with its place in the autograd graph, as another object of the class
        `cls`."""
        made = _instance(cls)
        made.__dict__.update(self.__dict__)
        return made

    # -- reading -----------------------------------------------------------------------------------

    def _value(self) -> Value:
        """The IR value this tensor shows now."""
        view = self._view
        if recorder.capture is not None:
            recorder.capture.seen(self)
        if view is None:
            return self._storage.read()
        if self._storage.host is not None and not self.requires_grad:
            part = self._storage.read_part(view)
            if part is not None:
                return part
        base = self._base
        if base is None or base._storage is not self._storage or base._view is not None:
            source, steps = self._beneath(view)
        else:
            source, steps = base._value(), view.steps
        cached = self._cached
        if cached is None or cached[0] is not source:
            cached = self._cached = (source, self._show(source, steps))
        return cached[1]

    def _beneath(self, view: View) -> tuple[Value, tuple[Step, ...]]:
        """What `view` is a view of, and the steps from there: the base, while that shows memory of
        which this is a part (it may have got another one since)."""
        base = self._base
        if base is None or not base._shows_whole(self):
            return self._storage.read(), view.steps
        own = base._view
        return base._value(), view.steps if own is None else view.steps[len(own.steps) :]

    def _shows_whole(self, part: Tensor) -> bool:
        """Whether `part`, a view of this tensor, still shows a part of what this one shows."""
        if self._storage is not part._storage:
            return False
        own = self._view
        return own is None or own.steps == part._view.steps[: len(own.steps)]  # type: ignore[union-attr]

    def _stand_alone(self) -> None:
        """From now on this is no view of a tensor, but one of its memory; its history stays."""
        self._fn, self._base, self._parent = self.grad_fn, None, None

    def _show(self, source: Value, steps: tuple[Step, ...]) -> Value:
        if type(source) is MetaLeaf:
            return MetaLeaf(self._type)
        if (
            type(source) is Leaf
            and any(type(s) is Slice for s in steps)
            and not self.requires_grad
            and recorder.capture is None
        ):
            part = _part_of_leaf(source, self._base, self._view)
            if part is not None:
                return part
        return read_steps(source, steps)

    def _array(self) -> np.ndarray:
        """The elements, computed if need be; strided like the tensor, sharing its memory. Read
        only."""
        if recorder.capture is not None:
            shown = recorder.capture.reveal(self)
            if shown is not None:
                return shown  # type: ignore[no-any-return]
        array = self._base_array()
        return array if self._view is None else self._view.over(array)

    def _base_array(self) -> np.ndarray:
        """The elements of the storage, computed if need be. Read only."""
        storage = self._storage
        if storage.host is not None:
            running._refuse_in_capture()
            return storage.look()
        if recorder.capture is not None:
            recorder.capture.value_read(storage)
        if type(storage.value) is not Leaf:
            running.settle(storage)
        return storage.value.buffer.numpy()  # type: ignore[attr-defined, no-any-return]

    @property
    def _type(self) -> Type:
        view = self._view
        return self._storage.value.type if view is None else view.type

    # -- autograd ----------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow into this tensor."""
        if self._base is None:
            return self._rg or self._fn is not None
        if self._fn_version != self._counter.number:
            self._refresh()
        return self._tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make a leaf accumulate gradients, or stop doing so."""
        if not isinstance(requires_grad, bool):
            raise TypeError(
                "requires_grad_(): argument 'requires_grad' (position 1) must be bool, not "
                f"{type(requires_grad).__name__}"
            )
        if not requires_grad:
            if not self.is_leaf:
                raise RuntimeError(
                    "you can only change requires_grad flags of leaf variables. If you want to use "
                    "a computed variable in a subgraph that doesn't require differentiation use "
                    "var_no_grad = var.detach()."
                )
            self._rg = False
            return self
        if not self._type.dtype.is_differentiable:
            raise RuntimeError(
                "only Tensors of floating point dtype can require gradients: this one has dtype "
                f"{self.dtype}; convert it with .float() first"
            )
        if self._inference and not modes.inference:
            raise RuntimeError(
                "Setting requires_grad=True on inference tensor outside InferenceMode is not "
                "allowed."
            )
        if self.is_leaf:
            self._rg = True
            self._base = None
        return self

    @property
    def grad_fn(self) -> GradNode | None:
        """The operation that made this tensor, in the autograd graph; None for leaves."""
        if self._base is not None and self._fn_version != self._counter.number:
            self._refresh()
        if self._base is not None and self._fn is None and self._tracked:
            self._derive()
        return self._fn

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return not self.requires_grad or self._rg

    @property
    def output_nr(self) -> int:
        return self._nr

    def _refresh(self) -> None:
        """A view after a write to its base: its history is now that of the base, then the view."""
        self._fn_version = self._counter.number
        if self._creation != "no_grad":
            kept = self.retains_grad
            if kept:
                del self._fn.retained[self._nr]  # type: ignore[union-attr, index]
            self._fn = None
            self._tracked = self._base.requires_grad  # type: ignore[union-attr]
            if kept and self._tracked:
                self.retain_grad()

    def _derive(self) -> None:
        """Give a view its place in the autograd graph, and first the views that it was made
        from."""
        waiting: list[Tensor] = [self]
        while (parent := waiting[-1]._observed_parent()) is not None and parent._fn is None:
            waiting.append(parent)
        for view in reversed(waiting):
            view._derive_from(view._observed_parent())

    def _observed_parent(self) -> Tensor | None:
        """The view this one was made from, where somebody may ask for its gradient and nothing was
        written since; else the gradient goes straight to the base."""
        if self._parent is None:
            return None
        ref, view, version = self._parent
        parent: Tensor | None = ref() if type(ref) is weakref.ref else ref
        if parent is None or parent._view is not view or parent._base is not self._base:
            return None
        return parent if version == self._counter.number == parent._fn_version else None

    def _derive_from(self, parent: Tensor | None) -> None:
        base = self._base
        assert base is not None and self._view is not None
        if parent is None:
            value, edge = self._value(), base._edge()
            assert self._cached is not None
            source = whole = self._cached[0]
            if type(value) is MetaLeaf:
                value = read_steps(
                    source, self._view.steps[len(base._view.steps) if base._view else 0 :]
                )
        else:
            whole, source, edge = base._value(), parent._value(), (parent._fn, parent._nr)  # type: ignore[assignment]
            value = read_steps(source, self._view.steps[len(parent._view.steps) :])  # type: ignore[union-attr]
        if value is source:  # a view of everything
            value = ops.reshape(value, shape=value.shape)
        self._cached = (whole, MetaLeaf(value.type) if type(source) is MetaLeaf else value)
        self._fn = GradNode(self._name_of_view, (value,), (source,), (edge,), (None,))
        if DeviceStorage.used:
            self._fn.place = self.device
        self._nr = 0

    def _edge(self) -> Edge:
        """Where the gradient of this tensor goes."""
        fn = self._fn if self._base is None else self.grad_fn
        if fn is not None:
            return fn, self._nr
        if not self._rg:
            return None
        accumulator = None if self._accumulator is None else self._accumulator()
        if accumulator is None:
            accumulator = AccumulateGrad(self)
            self._accumulator = weakref.ref(accumulator)
        return accumulator, 0

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated so far, or None."""
        if recorder.capture is not None:
            recorder.capture.grad_read(self)
        if self._grad is None and not self.is_leaf and not self.retains_grad:
            _warn_non_leaf_grad()
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got grad of type "
                    f"{type(value).__name__}"
                )
            if value.shape != self.shape:
                raise RuntimeError(
                    f"assigned grad has data of a different size: expected {list(self.shape)}, "
                    f"got {list(value.shape)}"
                )
            if value.device != self.device:
                raise RuntimeError(
                    f"attempting to assign a gradient with device type '{value.device}' to a "
                    f"tensor with device type '{self.device}'. Please ensure that the gradient and "
                    "the tensor are on the same device"
                )
            if value.dtype is not self.dtype:
                raise RuntimeError(
                    f"assigned grad has data of a different type: expected {self.dtype}, got "
                    f"{value.dtype}"
                )
        self._set_grad(value)

    @grad.deleter
    def grad(self) -> None:
        self._set_grad(None)

    def _set_grad(self, value: Tensor | None) -> None:
        if recorder.capture is not None:
            recorder.capture.grad_set(self)
        self._grad = value

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called on this non-leaf tensor."""
        fn = self._fn
        if fn is None or not fn.retained:
            return False
        ref = fn.retained.get(self._nr)
        return ref is not None and ref() is self

    def _is_watched(self) -> None:
        """Somebody is about to ask for the gradient of this tensor."""
        if recorder.capture is not None:
            recorder.capture.watched(self)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf tensor in its ``grad``."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        self._is_watched()
        fn = self.grad_fn
        if fn is not None:
            if fn.retained is None:
                fn.retained = {}
            fn.retained[self._nr] = weakref.ref(self)

    def register_hook(self, hook: Any) -> Any:
        """Call ``hook(grad)`` whenever a gradient for this tensor was computed; it may return
        another one."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        self._is_watched()
        fn = self.grad_fn
        if fn is None:
            if self._hooks is None:
                self._hooks = OrderedDict()
            return register(self._hooks, hook)
        if fn.hooks is None:
            fn.hooks = {}
        return register(fn.hooks.setdefault(self._nr, OrderedDict()), hook)

    def register_post_accumulate_grad_hook(self, hook: Any) -> Any:
        """Call ``hook(tensor)`` after a gradient was added to this leaf's ``grad``."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self.grad_fn is not None:
            raise RuntimeError(
                "post accumulate grad hooks cannot be registered on non-leaf tensors"
            )
        self._is_watched()
        if self._post_hooks is None:
            self._post_hooks = OrderedDict()
        return register(self._post_hooks, hook)

    def detach(self) -> Tensor:
        """The same memory outside the autograd graph."""
        made = object.__new__(Tensor)
        made._storage, made._view, made._counter = self._storage, self._view, self._counter
        made._inference = self._inference and (self._inference if modes.inference else DETACHED)
        if recorder.capture is not None:
            recorder.capture.aliased(made, self)
        return made

    def detach_(self) -> Tensor:
        """Cut this tensor out of the autograd graph."""
        if self._base is not None and self._base is not self:
            raise RuntimeError("Can't detach views in-place. Use detach() instead.")
        self._fn, self._rg, self._base, self._nr = None, False, None, 0
        return self

    @property
    def data(self) -> Tensor:
        """The same memory, outside the autograd graph and its version checks."""
        made = object.__new__(Tensor)
        made._storage, made._view, made._counter = self._storage, self._view, Version()
        made._inference = self._inference and (self._inference if modes.inference else DETACHED)
        if recorder.capture is not None:
            recorder.capture.aliased(made, self)
        else:
            hold(self)
        return made

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        if self._rg and not value._type.dtype.is_differentiable:
            raise RuntimeError(
                "data set to a tensor that requires gradients must be floating point or complex "
                f"dtype, got {value.dtype}"
            )
        # between CPU and GPU data moves freely, as in PyTorch
        if self.is_meta and not value.is_meta:
            raise RuntimeError(
                "Attempted to call `variable.set_data(tensor)`, but `variable` and `tensor` have "
                "incompatible tensor type: the first is on 'meta', the second on "
                f"'{value.device}'. Make a new tensor, or call to_empty(device='cpu') of the module"
            )
        self._rebind(value)

    @data.deleter
    def data(self) -> None:
        raise RuntimeError("Deleting tensor data is not allowed. Delete tensor instead!")

    def _rebind(self, value: Tensor) -> None:
        """From now on this tensor shows the memory of another one."""
        if recorder.capture is not None:
            recorder.capture.rebound(self)
        if self._base is not None:
            self._stand_alone()
        before = None if self._seen is None else hold(self)
        self._storage, self._view, self._cached = value._storage, value._view, None
        if before is not None:
            move(self, before)

    # -- what it is --------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        return Size.of(self._type.shape)

    @property
    def dtype(self) -> dtype:
        return _DTYPE_OF[self._type.dtype]

    @property
    def device(self) -> device:
        return META if type(self._storage.value) is MetaLeaf else self._storage.place

    @property
    def layout(self) -> layout:
        return strided

    @property
    def ndim(self) -> int:
        return len(self._type.shape)

    @property
    def itemsize(self) -> int:
        return self._type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.itemsize * self.numel()

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        return self.device is CPU

    @property
    def is_meta(self) -> bool:
        """Whether it has a shape and a dtype, but no elements."""
        return type(self._storage.value) is MetaLeaf

    is_sparse = is_sparse_csr = is_quantized = is_mkldnn = is_mps = is_nested = is_xpu = False
    names = property(lambda self: (None,) * self.ndim)

    @property
    def _strides(self) -> tuple[Any, ...]:
        view = self._view
        return contiguous_strides(self._storage.value.type.shape) if view is None else view.strides

    def numel(self) -> Any:
        """The number of elements."""
        return numel(self._type.shape)

    @property
    def _version(self) -> int:
        """How often this memory was written to in place."""
        return self._counter.number

    def is_inference(self) -> bool:
        """Whether this tensor was made in inference mode."""
        return bool(self._inference)

    def __len__(self) -> int:
        if not self._type.shape:
            raise TypeError("len() of a 0-d tensor")
        return self._type.shape[0]  # type: ignore[return-value]

    def __hash__(self) -> int:
        return id(self)


def _instance(cls: Any) -> Any:
    """A new object of a subclass of Tensor, without its memory."""
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError(
            "Creating a Tensor subclass from a class that does not inherit from Tensor is not "
            "possible. Make sure your class inherits from Tensor."
        )
    if cls._dispatches:
        raise NotImplementedError(
            f"{cls.__name__}: __torch_dispatch__ is never called, for operations are recorded as "
            "nodes of a graph here, not dispatched to kernels one by one; write a "
            "__torch_function__ for the class, and make its instances with as_subclass"
        )
    return object.__new__(cls)


def _warn_non_leaf_grad() -> None:
    warn_user(
        "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad "
        "attribute won't be populated during autograd.backward(). If you indeed want the .grad "
        "field to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf Tensor.",
    )


def _part_of_leaf(source: Leaf, base: Tensor | None, view: View | None) -> Value | None:
    """A part of elements in memory as a leaf: no slice is recorded, so that a batch from another
    place of the data finds the same program. A part with gaps is copied, unless it is large."""
    if (
        view is None
        or (base is not None and base._view is not None)
        or view.type.dtype is not source.dtype
    ):
        return None
    if is_contiguous(view.type.shape, view.strides):
        return Leaf(source.buffer.part(view.offset, view.type.shape))
    if not isinstance(source.buffer, Buffer):
        return None
    if numel(view.type.shape) * view.type.dtype.itemsize > COPIED_PART:
        return None
    return Leaf(Buffer.of(np.ascontiguousarray(view.over(source.buffer.numpy()))))
