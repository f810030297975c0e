"""`dataclass`: the standard library's, whose methods are written when they are first used.

The standard one compiles six functions for each class as its module is loaded, most of which a
program never calls: some hundred records took as long to define as everything else that the import
of graphtorch does. Here a class gets descriptors in their place, and each compiles its method on
first use. What results is a dataclass to everything that asks: `fields`, `replace`, `is_dataclass`.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable
from dataclasses import field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field"]

Make = Callable[[type], Any]


class _Factory:
    """The default of a field that is made anew for each instance, as signatures show it."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


class _Later:
    """In the place of a class's attribute: makes it, and gives way to it, when it is first read."""

    __slots__ = ("make", "name", "owner")

    def __init__(self, owner: type, name: str, make: Make):
        self.owner, self.name, self.make = owner, name, make

    def __get__(self, instance: Any, kind: type) -> Any:
        made = self.make(self.owner)
        setattr(self.owner, self.name, made)
        return made if instance is None or not hasattr(made, "__get__") else made.__get__(instance)


def _fields_of(own: dict[str, Any]) -> Make:
    """Fields as the standard library reads them, from a class that has nothing else: `own` are the
    defaults that a class was written with."""

    def make(cls: type) -> dict[str, dataclasses.Field[Any]]:
        found: dict[str, dataclasses.Field[Any]] = {}
        for base in cls.__mro__[:0:-1]:
            found.update(getattr(base, "__dataclass_fields__", {}))
        if cls.__annotations__:
            body = {name: getattr(cls, name) for name in ("__annotations__", "__module__")}
            body["__doc__"] = "-"  # it would write one
            read: Any = type(cls.__name__, (), {**body, **own})
            dataclasses.dataclass(init=False, repr=False, eq=False)(read)
            found.update(read.__dataclass_fields__)
        return found

    return make


def _define(cls: type, name: str, arguments: str, lines: list[str], known: dict[str, Any]) -> Any:
    """The method of that source, in which the names `known` stand for these objects."""
    scope = {"__name__": cls.__module__, **known}
    exec(f"def {name}({arguments}):\n " + "\n ".join(lines), scope)
    made = scope[name]
    made.__qualname__ = f"{cls.__qualname__}.{name}"
    return made


def _init(cls: Any) -> Any:
    known: dict[str, Any] = {"_set": object.__setattr__, "_factory": _FACTORY}
    arguments, lines, annotations = ["self"], [], {}
    by_name: list[str] = []
    for f in dataclasses.fields(cls):
        value, text = f.name, f.name
        if f.default_factory is not dataclasses.MISSING:
            known[f"_make_{f.name}"] = f.default_factory
            value = f"_make_{f.name}()"
            if f.init:
                value, text = f"{value} if {f.name} is _factory else {f.name}", f"{text}=_factory"
        elif f.default is not dataclasses.MISSING:
            known[f"_default_{f.name}"] = f.default
            value = f.name if f.init else f"_default_{f.name}"
            text = f"{text}=_default_{f.name}"
        elif not f.init:
            continue
        if f.init:
            (by_name if f.kw_only else arguments).append(text)
            annotations[f.name] = f.type
        frozen = cls.__dataclass_params__.frozen
        lines.append(f"_set(self, {f.name!r}, {value})" if frozen else f"self.{f.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    listed = ", ".join([*arguments, *(["*", *by_name] if by_name else [])])
    made = _define(cls, "__init__", listed, lines or ["pass"], known)
    made.__annotations__ = {**annotations, "return": None}
    return made


def _tuple(cls: Any, of: str) -> str:
    """The source of a tuple of the fields that are compared."""
    return "(" + "".join([f"{of}.{f.name}, " for f in dataclasses.fields(cls) if f.compare]) + ")"


def _eq(cls: type) -> Any:
    lines = [
        "if other.__class__ is self.__class__:",
        f"    return {_tuple(cls, 'self')} == {_tuple(cls, 'other')}",
        "return NotImplemented",
    ]
    return _define(cls, "__eq__", "self, other", lines, {})


def _hash(cls: type) -> Any:
    return _define(cls, "__hash__", "self", [f"return hash({_tuple(cls, 'self')})"], {})


def _repr(cls: Any) -> Any:
    names = [f.name for f in dataclasses.fields(cls) if f.repr]

    @reprlib.recursive_repr()
    def __repr__(self: Any) -> str:
        shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{self.__class__.__qualname__}({shown})"

    return __repr__


def _match_args(cls: Any) -> tuple[str, ...]:
    return tuple([f.name for f in dataclasses.fields(cls) if f.init and not f.kw_only])


def _refuse_set(self: Any, name: str, value: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, f.name) for f in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for f, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, f.name, value)  # past what refuses it


def _slotted(cls: type, names: list[str]) -> type:
    """`cls` anew with slots for fields: a class cannot be given any once it is there."""
    inherited = {name for base in cls.__mro__[1:] for name in getattr(base, "__slots__", ())}
    body = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__", *names)}
    body["__slots__"] = tuple([name for name in names if name not in inherited])
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    return made


def _process(cls: Any, *, eq: bool, frozen: bool, slots: bool, unsafe_hash: bool) -> Any:
    annotations = cls.__annotations__
    names = [name for name, kind in annotations.items() if not str(kind).startswith("ClassVar")]
    own = {name: vars(cls)[name] for name in names if name in vars(cls)}
    for name, default in own.items():
        if isinstance(default, dataclasses.Field):
            if default.default is dataclasses.MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, default.default)
    if slots:
        cls = _slotted(cls, names)
    written = vars(cls)
    is_hash_written = written.get("__hash__") is not None
    later: dict[str, Make] = {
        "__dataclass_fields__": _fields_of(own),
        "__match_args__": _match_args,
        "__init__": _init,
        "__repr__": _repr,
        **({"__eq__": _eq} if eq else {}),
    }
    for name, make in later.items():
        if name not in written:
            setattr(cls, name, _Later(cls, name, make))
    if not is_hash_written and (unsafe_hash or (eq and frozen)):
        cls.__hash__ = _Later(cls, "__hash__", _hash)
    elif not is_hash_written and eq:
        cls.__hash__ = None
    if frozen:
        cls.__setattr__, cls.__delattr__ = _refuse_set, _refuse_delete
        if slots and "__getstate__" not in written:
            cls.__getstate__, cls.__setstate__ = _state, _set_state
    cls.__dataclass_params__ = SimpleNamespace(
        init=True, repr=True, eq=eq, order=False, unsafe_hash=unsafe_hash, frozen=frozen
    )
    return cls


if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        cls: Any = None,
        /,
        *,
        eq: bool = True,
        frozen: bool = False,
        slots: bool = False,
        unsafe_hash: bool = False,
    ) -> Any:
        """Fields, comparison and text of a class by its annotations: see `dataclasses.dataclass`,
        whose other parameters nothing here needs."""

        def process(cls: type) -> Any:
            return _process(cls, eq=eq, frozen=frozen, slots=slots, unsafe_hash=unsafe_hash)

        return process if cls is None else process(cls)
