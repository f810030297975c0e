"""Attributes that a module does not hold: loaded at their first use, or explained with the nearest
names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Any


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; the nearest are a, b"``: the public names most like `name`, case aside; "" where none
    is."""
    import difflib  # of errors only

    folded: dict[str, list[str]] = {}
    for one in known:
        if not one.startswith("_"):
            folded.setdefault(one.lower(), []).append(one)
    near = [
        one for key in difflib.get_close_matches(name.lower(), folded, n=3) for one in folded[key]
    ]
    return f"; the nearest are {', '.join(near)}" if near else ""


def message(module: str, name: str) -> str:
    """What the error about the attribute `name` of the loaded module `module` says."""
    return f"module {module!r} has no attribute {name!r}{nearest(name, dir(sys.modules[module]))}"


class _Message:
    """What an error says, looked for when somebody reads it: `hasattr` never does."""

    def __init__(self, module: str, name: str):
        self._about = module, name

    def __str__(self) -> str:
        return message(*self._about)

    def __reduce__(self) -> Any:
        return str, (str(self),)


def attribute_of(
    module: str,
    lazy: Collection[str] | Mapping[str, str] = (),
    homes: Mapping[str, str] | None = None,
) -> Callable[[str], Any]:
    """A module's ``__getattr__``: loads the submodules `lazy` at their first use, and what has its
    home in another module; explains other names.

    Args:
        lazy: names of submodules; or, for each name, that of the module which is meant.
        homes: for names of classes and functions, the module that each is in (``".x"`` is a
            submodule). None may be the name of a submodule as well: whoever imported that would
            find it in the place of the function.
    """
    of = lazy if isinstance(lazy, Mapping) else {name: f"{module}.{name}" for name in lazy}
    homes = homes or {}
    here = sys.modules[module].__dict__

    def __getattr__(name: str) -> Any:
        if name in homes:
            found = here[name] = getattr(importlib.import_module(homes[name], module), name)
            return found
        if name in of:
            return importlib.import_module(of[name])
        raise AttributeError(_Message(module, name), name=name, obj=sys.modules[module])

    if homes or of:
        here["__dir__"] = lambda: sorted({*here, *homes, *of})
    return __getattr__


def homes_of(names: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The `homes` of `attribute_of`, from the names that each module has."""
    return {name: home for home, listed in names.items() for name in listed}


def explain(*modules: ModuleType) -> None:
    """Make errors about absent attributes of `modules` list the nearest names."""
    for module in modules:
        module.__dict__.setdefault("__getattr__", attribute_of(module.__name__))


def class_without_instances(name: str, module: str, doc: str, instead: str) -> type:
    """A class for ``isinstance`` and annotations. Making an instance raises RuntimeError, which
    says `instead`."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"{module}.{name}: {instead}")

    return type(name, (), {"__init__": __init__, "__doc__": doc, "__module__": module})


def function_without_use(name: str, module: str, instead: str) -> Callable[..., Any]:
    """A function that programs import. Calling it raises RuntimeError, which says `instead`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{module}.{name}: {instead}")

    call.__name__ = call.__qualname__ = name
    call.__module__, call.__doc__ = module, f"Raises RuntimeError: {instead}."
    return call
