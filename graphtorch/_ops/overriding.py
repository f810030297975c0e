"""``__torch_function__``: classes that say themselves what operations on their instances are.

A program without such a class pays a test of an empty list for each call. Subclasses of `Tensor` get
their own copies of its methods, so that operators of plain tensors stay as they are; functions look at the
classes
of their arguments. See https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._deferred.tensor import Tensor
from .base import METHODS

overriding: list[Any] = []  # classes and modes that may take over; nothing is looked at while it is empty
_PLAIN: set[type] = {Tensor, int, float, bool, str, type(None), complex, slice, type(Ellipsis)}


class _State(threading.local):
    """Of one thread: whether subclasses, or everybody, are left out; and the modes, innermost last."""

    def __init__(self) -> None:
        self.subclasses, self.everybody = True, True
        self.modes: list[Any] = []


state = _State()


class DisableTorchFunctionSubclass:
    """Inside, operations take instances of tensor subclasses for plain tensors."""

    _names: tuple[str, ...] = ("subclasses",)

    def __enter__(self) -> None:
        self._before = {name: getattr(state, name) for name in self._names}
        for name in self._names:
            setattr(state, name, False)

    def __exit__(self, *exc: object) -> None:
        for name, value in self._before.items():
            setattr(state, name, value)


class DisableTorchFunction(DisableTorchFunctionSubclass):
    """Inside, nothing is overridden: neither subclasses nor modes are asked."""

    _names = ("subclasses", "everybody")


def disabled(func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """In the place of a class's ``__torch_function__``: the class overrides nothing."""
    with DisableTorchFunctionSubclass():
        return func(*args, **(kwargs or {}))


def overrides(kind: type) -> bool:
    """Whether instances of `kind` say what operations on them are."""
    if kind in _PLAIN:
        return False
    own = getattr(kind, "__torch_function__", None)
    if own is None or own is disabled:
        if issubclass(kind, Tensor) and own is disabled:
            _PLAIN.add(kind)
        return False
    if any(c.__module__ == "torch" and c.__name__ == "Tensor" for c in kind.__mro__):
        _PLAIN.add(kind)  # PyTorch's own, whose operations are not ours
        return False
    return kind is not Tensor


def overriding_arguments(args: Iterable[Any]) -> list[Any]:
    """One argument of each class that overrides, subclasses before what they derive from.

    Lists and tuples are looked into.
    """
    found: list[Any] = []
    for x in args:
        kind = type(x)
        if kind in _PLAIN:
            continue
        for one in x if kind is tuple or kind is list else (x,):
            if type(one) not in _PLAIN and overrides(type(one)):
                _insert(found, one)
    return found


def _insert(found: list[Any], one: Any) -> None:
    if any(type(one) is type(f) for f in found):
        return
    at = next((i for i, f in enumerate(found) if issubclass(type(one), type(f))), len(found))
    found.insert(at, one)


NOBODY = object()  # in the place of a result: nobody overrides


def overridden(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the modes and classes concerned make of ``func(*args, **kwargs)``; NOBODY where there are none."""
    if not state.everybody or (not state.subclasses and not state.modes):
        return NOBODY
    found = overriding_arguments((*args, *kwargs.values())) if state.subclasses else []
    if not found and not state.modes:
        return NOBODY
    return hand_over(func, found, args, dict(kwargs))


def hand_over(
    func: Callable[..., Any], found: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Ask the innermost mode, then the arguments `found`, until one has an answer.

    Raises:
        TypeError: none has.
    """
    types = tuple([type(x) for x in found])
    if state.modes:
        mode = state.modes.pop()
        try:
            answer = mode.__torch_function__(func, types, args, kwargs)
        finally:
            state.modes.append(mode)
        if answer is not NotImplemented:
            return answer
    for one in found:
        answer = type(one).__torch_function__(func, types, args, kwargs)
        if answer is not NotImplemented:
            return answer
    name = getattr(func, "__name__", str(func))
    raise TypeError(
        f"Multiple dispatch failed for 'torch.{name}'; all __torch_function__ handlers returned "
        f"NotImplemented: "
        f"no implementation found for {[t.__name__ for t in types]}"
    )


# ------------------------------------------------------------------------------------------ subclasses


@classmethod  # type: ignore[misc]
def torch_function(cls: Any, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """What subclasses of Tensor do unless they say otherwise: results of operations on them are `cls` too."""
    if not all(issubclass(cls, t) for t in types):
        return NotImplemented
    with DisableTorchFunctionSubclass():
        result = func(*args, **(kwargs or {}))
        return result if getattr(func, "__self__", None) in _KEPT else converted(result, cls)


def converted(result: Any, cls: Any) -> Any:
    """`result` with the tensors in it, in tuples and lists too, as `cls`."""
    if cls is Tensor:
        return result
    if isinstance(result, Tensor) and not isinstance(result, cls):
        return METHODS["as_subclass"](result, cls)
    if isinstance(result, (tuple, list)):
        parts = [converted(x, cls) for x in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


_KEPT: list[Any] = []  # properties whose results stay what they are: `grad`
# What is not overridden: what objects are made of, and what each class says itself.
_OWN = frozenset(
    {
        "__class_getitem__",
        "__deepcopy__",
        "__dir__",
        "__getattribute__",
        "__hash__",
        "__init__",
        "__init_subclass__",
        "__new__",
        "__reduce__",
        "__reduce_ex__",
        "__setattr__",
        "__setstate__",
        "__subclasshook__",
        "__torch_function__",
        "as_subclass",
        "is_leaf",
        "output_nr",
        "requires_grad",
    }
)


def _public_parts() -> dict[str, Any]:
    """The methods and properties of `Tensor` that a subclass overrides by its ``__torch_function__``."""
    return {
        name: part
        for name, part in vars(Tensor).items()
        if name not in _OWN
        and (name.startswith("__") or not name.startswith("_"))
        and (isinstance(part, property) or callable(part))
        and not isinstance(part, type)
    }


def _method(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def method(*args: Any, **kwargs: Any) -> Any:
        answer = overridden(func, args, kwargs)
        return func(*args, **kwargs) if answer is NOBODY else answer

    return method


def _property(own: property) -> property:
    def get(self: Any) -> Any:
        answer = overridden(own.__get__, (self,), {})
        return own.__get__(self) if answer is NOBODY else answer

    def set_(self: Any, value: Any) -> None:
        if overridden(own.__set__, (self, value), {}) is NOBODY:
            own.__set__(self, value)

    return property(get, set_ if own.fset else None, own.fdel, own.__doc__)


@functools.cache
def _dispatching() -> dict[str, Any]:
    _KEPT.append(vars(Tensor)["grad"])
    return {
        name: _property(part) if isinstance(part, property) else _method(part)
        for name, part in _public_parts().items()
    }


@classmethod  # type: ignore[misc]
def _init_subclass(cls: Any, **kwargs: Any) -> None:
    """A new subclass of Tensor: unless it opts out, its methods ask its ``__torch_function__``."""
    super(Tensor, cls).__init_subclass__(**kwargs)
    if cls.__torch_function__ is disabled:
        return
    overriding.append(cls)
    plain = vars(Tensor)
    for name, part in _dispatching().items():
        owner = next(base for base in cls.__mro__ if name in vars(base))
        if vars(owner)[name] is plain.get(name):
            setattr(cls, name, part)


METHODS["__torch_function__"] = torch_function
METHODS["__init_subclass__"] = _init_subclass
