"""Operations with a gradient of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from .._deferred.device_storage import DeviceStorage
from .._deferred.making import from_value
from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._ops.creation import full_value
from .._settings import warn_user
from .._types import DTYPES, device
from .grad_mode import enable_grad, modes, no_grad
from .nodes import FREED, GradNode, pack, unpack
from .seen import Seen, look

# what is to be around the next backward passes of a class, for who wants to know what they do
observers: WeakKeyDictionary[type, Callable[[], AbstractContextManager[Any]]] = WeakKeyDictionary()


class FunctionCtx:
    """What `Function.forward` leaves for `Function.backward`."""

    _to_save: tuple[Any, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _non_differentiable: tuple[Tensor, ...] = ()
    _materialize = True
    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (or None) for `backward`, where they are ``ctx.saved_tensors``."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    "save_for_backward can only save variables, but argument is of type "
                    f"{type(t).__name__}; keep other things as attributes of ctx"
                )
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`; forward-mode differentiation is not used here."""

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs `forward` changed in place."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (True) or None where no gradient arrives."""
        self._materialize = bool(value)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept."""
        node = getattr(self, "_node", None)
        if node is None:
            return self._to_save
        return node.unpack()

    @property
    def saved_variables(self) -> tuple[Any, ...]:
        """As `saved_tensors` (deprecated)."""
        warn_user("'saved_variables' is deprecated; use 'saved_tensors'", DeprecationWarning)
        return self.saved_tensors


class PythonNode(GradNode):
    """The autograd node of one application of a `Function`."""

    def __init__(self, name: str, ctx: FunctionCtx, cls: type, edges: Any, outputs: list[Tensor]):
        super().__init__(name, (), (), edges, ())
        self.types = [t._type for t in outputs]
        if DeviceStorage.used and outputs:
            self.place = outputs[0].device
        if recorder.capture is not None:
            self.shown = [t._value() for t in outputs]
        self.ctx = ctx
        self.cls = cls
        self.functions = (cls,)
        self.runs_hooks = getattr(cls, "runs_hooks", False)
        self.saved: list[Any] | None = []  # tensors with what was seen of them, or what hooks keep

    def save(self, outputs: list[Tensor]) -> None:
        saved: list[Any] = []
        for tensor in self.ctx._to_save:
            if tensor is None:
                saved.append(None)
                continue
            if modes.saving is not None:
                saved.append((pack(modes.saving, tensor), modes.saving[1]))
                continue
            number = next((i for i, o in enumerate(outputs) if o is tensor), None)
            if modes.mutable and number is None:
                with enable_grad():
                    tensor = tensor.clone()
            # an output would hold its own node
            keep = tensor.detach() if number is not None else tensor
            saved.append((keep, look(tensor._counter, tensor._storage, tensor._view), number))
        self.saved = saved
        self.ctx._to_save = ()
        self.ctx._node = self  # type: ignore[attr-defined]

    def unpack(self) -> tuple[Any, ...]:
        if self.saved is None:
            raise RuntimeError(FREED)
        return tuple(
            None if s is None else unpack(*s) if len(s) == 2 else self._unpacked(*s)
            for s in self.saved
        )

    def saved_in_python(self) -> list[Seen]:
        return [s[1] for s in self.saved or () if s is not None and len(s) == 3]

    def _unpacked(self, tensor: Tensor, seen: Seen, number: int | None) -> Tensor:
        if seen.version.number != seen.number:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation: "
                f"[{tensor.type()} {list(tensor.shape)}], saved by {self._name}, is at version "
                f"{seen.version.number}; expected version {seen.number} instead. Hint: clone() it "
                "before saving"
            )
        if number is None:
            return tensor
        tensor._fn, tensor._nr = self, number
        return tensor

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """Run the user's backward: one gradient for each tensor operand."""
        if self.saved is None:
            raise RuntimeError(FREED)
        given = [
            _zeros(self.types[i], self.place) if c is None and self.ctx._materialize else c
            for i, c in enumerate(cotangents)
        ]
        observer = observers.get(self.cls) if observers else None
        with nullcontext() if observer is None else observer():
            found = self.cls.backward(self.ctx, *given)  # type: ignore[attr-defined]
        found = list(found) if isinstance(found, (tuple, list)) else [found]
        if not task.retain_graph and any(s is not None for s in self.saved):
            self.saved = None
            self.freed = True
        return self._checked(found)

    def _checked(self, found: list[Any]) -> list[Any]:
        while len(found) > len(self.edges) and found[-1] is None:
            found.pop()
        if len(found) != len(self.edges):
            raise RuntimeError(
                f"function {self._name} returned an incorrect number of gradients (expected "
                f"{len(self.edges)}, got "
                f"{len(found)})"
            )
        result = []
        for i, (g, edge) in enumerate(zip(found, self.edges, strict=True)):
            if g is not None and not isinstance(g, Tensor):
                raise RuntimeError(
                    f"expected Variable or None (got {type(g).__name__}) as gradient {i} of "
                    f"{self._name}"
                )
            result.append(
                None
                if g is None or edge is None
                else _fitted(g, edge[0].types[edge[1]], self._name, i)
            )
        return result


def _zeros(type_: Any, place: device) -> Tensor:
    return from_value(full_value(type_.shape, 0, type_.dtype), place)


def _fitted(gradient: Tensor, wanted: Any, name: str, position: int) -> Tensor:
    """A gradient of the shape and dtype that the operand has."""
    if gradient._type.shape != wanted.shape:
        try:
            gradient = gradient.sum_to_size(wanted.shape)  # type: ignore[attr-defined]
        except RuntimeError:
            raise RuntimeError(
                f"Function {name} returned an invalid gradient at index {position} - got "
                f"{list(gradient.shape)} but expected shape compatible with {list(wanted.shape)}"
            ) from None
    if gradient._type.dtype is not wanted.dtype:
        if gradient._type.dtype.is_complex and not wanted.dtype.is_complex:
            raise RuntimeError(
                f"Function {name} returned a complex gradient at index {position} for a real "
                "operand: return its .real"
            )
        gradient = gradient.to(DTYPES[wanted.dtype.torch_name])
    return gradient


class Function(FunctionCtx):
    """An operation with its own gradient: subclass it, write static `forward` and `backward`, call
    ``apply``."""

    generate_vmap_rule = False
    # whether it is a call of an operator, of which `vmap` has a rule, or sees its lines
    of_operator = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warn_user(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all "
            "static, so you should invoke them on the class "
            "itself.",
            DeprecationWarning,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated. Please use "
            "new-style autograd function with static forward method, and call "
            f"{type(self).__name__}.apply(...)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The operation: ``forward(ctx, *inputs)``, or ``forward(*inputs)`` beside
        `setup_context`."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Fill `ctx` after a `forward` that does not take it."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient for each input of `forward`; None where there is none."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """The operation for all entries of a batch: (results, where these have their entries).

        Args:
            info: has `batch_size` and `randomness`.
            in_dims: for each of `args` which dimension is mapped; None for those that all entries
                share.
        """
        raise NotImplementedError(
            "To use autograd.Function with vmap, you must either override the vmap static method "
            "or set generate_vmap_rule=True."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and remember how to differentiate it."""
        if recorder.capture is not None:
            mapped = recorder.capture.applied(cls, args)
            if mapped is not NotImplemented:
                return mapped
        ctx = FunctionCtx()
        tracks = modes.grad and any(isinstance(a, Tensor) and a.requires_grad for a in args)
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                raw = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, raw)
            else:
                raw = cls.forward(ctx, *args, **kwargs)
        outputs = list(raw) if isinstance(raw, (tuple, list)) else [raw]
        outputs = [_own(o, args, ctx) if isinstance(o, Tensor) else o for o in outputs]
        if tracks and recorder.capture is not None:
            outputs = recorder.capture.apart(outputs, args)
        if tracks:
            _attach(cls, ctx, args, outputs, list(raw) if isinstance(raw, (tuple, list)) else [raw])
        return type(raw)(outputs) if isinstance(raw, (tuple, list)) else outputs[0]


def _own(output: Tensor, args: tuple[Any, ...], ctx: FunctionCtx) -> Tensor:
    """An input that is returned as it is becomes a view of it, so that each tensor has one
    history."""
    if any(output is d for d in ctx._dirty):
        return output
    if any(output is a for a in args):
        return output.detach()
    return output if output.is_leaf and output._base is None else output.detach()


def _attach(
    cls: type, ctx: FunctionCtx, args: tuple[Any, ...], outputs: list[Any], raw: list[Any]
) -> None:
    edges = tuple(a._edge() if isinstance(a, Tensor) else None for a in args)
    tensors = [o for o in outputs if isinstance(o, Tensor)]
    kind = _kind_of_node(cls)
    node = kind(kind.__name__, ctx, cls, edges, tensors)
    number = 0
    for output, before in zip(outputs, raw, strict=True):
        if not isinstance(output, Tensor):
            continue
        skip = (
            any(before is t for t in ctx._non_differentiable)
            or not output._type.dtype.is_differentiable
        )
        if not skip:
            output._fn, output._nr, output._rg = node, number, False
        number += 1
    node.save([o for o in raw if isinstance(o, Tensor)])


def _kind_of_node(cls: type) -> type[PythonNode]:
    """The class of the nodes of a `Function`, named after it."""
    made: Any = cls.__dict__.get("_backward_cls")
    if made is None:
        made = type(cls.__name__ + "Backward", (PythonNode,), {"__module__": __name__})
        setattr(cls, "_backward_cls", made)  # noqa: B010  (mypy knows of no such attribute)
    return made  # type: ignore[no-any-return]


class _Once(Function):
    """Gradients of a `once_differentiable` function, which are not to be differentiated."""

    @staticmethod
    def forward(ctx: FunctionCtx, *gradients: Any) -> Any:  # type: ignore[override]
        return gradients

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable: "
            "its backward has to be written without that decorator"
        )


_Once._backward_cls = type("Error", (PythonNode,), {"__module__": __name__})  # type: ignore[attr-defined]


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for `backward`: its results cannot be differentiated again, which raises
    RuntimeError where somebody does."""

    @functools.wraps(function)
    def inside(ctx: Any, *args: Any) -> Any:
        with no_grad():
            found = function(ctx, *args)
        if not modes.grad or not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return found
        several = isinstance(found, (tuple, list))
        marked = _marked_once(found if several else (found,))
        return marked if several else marked[0]

    return inside


def _marked_once(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradients as results of `_Once`."""
    given = (g.detach().requires_grad_() if isinstance(g, Tensor) else g for g in found)
    return _Once.apply(*given)  # type: ignore[no-any-return]
