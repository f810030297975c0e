"""``__torch_function__``: classes that say themselves what operations on their instances are.

A program without such a class or mode pays a test of an empty list for each function and named
method, and nothing for operators and properties: `take_over` puts those that ask into `Tensor` when
the first such class is defined. See
https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._deferred.tensor import Tensor
from .base import FUNCTIONS, METHODS

# classes and modes that may take over; nothing is looked at while it is empty
overriding: list[Any] = []
_PLAIN: set[type] = {Tensor, int, float, bool, str, type(None), complex, slice, type(Ellipsis)}


class _State(threading.local):
    """Of one thread: whether subclasses, or everybody, are left out; and the modes, innermost
    last."""

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
    """What the modes and classes concerned make of ``func(*args, **kwargs)``; NOBODY where there
    are none."""
    if not state.everybody or (not state.subclasses and not state.modes):
        return NOBODY
    found = overriding_arguments((*args, *kwargs.values())) if state.subclasses else []
    if not found and not state.modes:
        return NOBODY
    return hand_over(func, found, args, dict(kwargs))


def overridden_by_mode(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """As `overridden`, of a function to which a tensor is data: classes are not asked."""
    return hand_over(func, [], args, dict(kwargs)) if state.everybody and state.modes else NOBODY


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


# --------------------------------------------------------------------------------------- subclasses


@classmethod  # type: ignore[misc]
def torch_function(
    cls: Any, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
) -> Any:
    """What subclasses of Tensor do unless they say otherwise: results of operations on them are
    `cls` too."""
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
        return result._as(cls)
    if isinstance(result, (tuple, list)):
        parts = [converted(x, cls) for x in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


# What is not overridden: what objects are made of, what each class says itself, what operations
# read of every operand, and iteration, which is `unbind`.
_OWN = frozenset(
    {
        "__class_getitem__",
        "__copy__",
        "__deepcopy__",
        "__dir__",
        "__getattribute__",
        "__getstate__",
        "__hash__",
        "__index__",
        "__init__",
        "__init_subclass__",
        "__iter__",
        "__new__",
        "__reduce__",
        "__reduce_ex__",
        "__setattr__",
        "__setstate__",
        "__sizeof__",
        "__subclasshook__",
        "__torch_function__",
        "is_leaf",
        "output_nr",
        "requires_grad",
    }
)
# As which functions the operators are asked for: ``x + 1`` is ``Tensor.add``, as in PyTorch.
_OPERATORS = {
    "__abs__": "abs",
    "__add__": "add",
    "__div__": "div",
    "__ge__": "ge",
    "__gt__": "gt",
    "__iadd__": "add_",
    "__idiv__": "div_",
    "__ifloordiv__": "floor_divide_",
    "__imod__": "remainder_",
    "__imul__": "mul_",
    "__ipow__": "pow_",
    "__isub__": "sub_",
    "__itruediv__": "div_",
    "__le__": "le",
    "__lt__": "lt",
    "__matmul__": "matmul",
    "__mod__": "remainder",
    "__mul__": "mul",
    "__ne__": "ne",
    "__neg__": "neg",
    "__pos__": "positive",
    "__pow__": "pow",
    "__radd__": "add",
    "__rand__": "bitwise_and",
    "__rmul__": "mul",
    "__ror__": "bitwise_or",
    "__rxor__": "bitwise_xor",
    "__rtruediv__": "__rdiv__",
    "__sub__": "sub",
    "__truediv__": "div",
}
_BINARY = frozenset(
    f"__{reflected}{name}__"
    for reflected in ("", "r", "i")
    for name in (
        "add",
        "and",
        "div",
        "floordiv",
        "lshift",
        "matmul",
        "mod",
        "mul",
        "or",
        "pow",
        "rshift",
        "sub",
        "truediv",
        "xor",
    )
) | {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
_KEPT: list[Any] = []  # properties whose results stay what they are: `grad`


def _method(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    """A method behind one of Python's operators that asks first."""

    @functools.wraps(own)
    def method(*args: Any, **kwargs: Any) -> Any:
        if state.modes or kwargs or not _PLAIN.issuperset(map(type, args)):
            try:
                answer = overridden(getattr(Tensor, public), args, kwargs)
            except TypeError:
                if binary:  # the other operand may know the operation
                    return NotImplemented
                raise
            if answer is not NOBODY:
                return answer
        return own(*args, **kwargs)

    method.__name__, binary, public = name, name in _BINARY, _OPERATORS.get(name, name)
    return method


def _property(own: property) -> property:
    def get(self: Any) -> Any:
        if state.modes or type(self) not in _PLAIN:
            answer = overridden(made.__get__, (self,), {})
            if answer is not NOBODY:
                return answer
        return own.__get__(self)

    def set_(self: Any, value: Any) -> None:
        if overridden(made.__set__, (self, value), {}) is NOBODY:
            own.__set__(self, value)

    made = property(get, set_ if own.fset else None, own.fdel, own.__doc__)
    return made


def asking() -> dict[str, Any]:
    """Named methods that the class `Tensor` itself defines, which no table has: they ask first,
    too."""
    found = {
        name: asks_first(part)
        for name, part in vars(Tensor).items()
        if name not in _OWN and not name.startswith("_") and inspect.isfunction(part)
    }
    for method in found.values():
        method.__module__ = Tensor.__module__
    return found


def asks_first(own: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the modes and the classes of the arguments may say what the function is."""

    @functools.wraps(own)
    def call(*args: Any, **kwargs: Any) -> Any:
        if overriding:
            answer = overridden(call, args, kwargs)
            if answer is not NOBODY:
                return answer
        return own(*args, **kwargs)

    return call


@functools.cache  # once
def take_over() -> None:
    """From now on `Tensor`'s operators and properties ask modes and classes too, as its named
    methods do."""
    Tensor._take_over(
        {
            name: _property(part) if isinstance(part, property) else _method(name, part)
            for name, part in vars(Tensor).items()
            if name not in _OWN
            and (
                not name.startswith("_")
                if isinstance(part, property)
                else name.startswith("__") and inspect.isfunction(part)
            )
        }
    )
    _KEPT.append(vars(Tensor)["grad"])


@classmethod  # type: ignore[misc]
def _init_subclass(cls: Any, **kwargs: Any) -> None:
    """A new subclass of Tensor: unless it opts out, operations on its instances ask it."""
    super(Tensor, cls).__init_subclass__(**kwargs)
    if vars(cls).get("__torch_dispatch__") not in (None, no_dispatch):
        cls._dispatches = True
    if cls.__torch_function__ is not disabled:
        overriding.append(cls)
        take_over()


def no_dispatch(*args: Any, **kwargs: Any) -> Any:
    """In the place of a class's ``__torch_dispatch__``: it has none."""
    return NotImplemented


def _make_wrapper_subclass(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Raises TypeError: `cls` has no ``__torch_dispatch__``. NotImplementedError: nothing calls it
    here."""
    if not getattr(cls, "_dispatches", False):
        raise TypeError(f"{getattr(cls, '__name__', cls)} must define __torch_dispatch__")
    Tensor._make_subclass(cls, FUNCTIONS["empty"](0))


METHODS["__torch_function__"] = torch_function
METHODS["__torch_dispatch__"] = staticmethod(no_dispatch)
METHODS["__init_subclass__"] = _init_subclass
METHODS["_make_wrapper_subclass"] = staticmethod(_make_wrapper_subclass)
