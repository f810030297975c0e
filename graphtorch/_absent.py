"""Attributes that a module does not hold: loaded at their first use, or explained with the nearest names."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Collection, Iterable
from types import ModuleType
from typing import Any


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; the nearest are a, b"``: the public names most like `name`, case aside; "" where none is."""
    folded: dict[str, list[str]] = {}
    for one in known:
        if not one.startswith("_"):
            folded.setdefault(one.lower(), []).append(one)
    near = [one for key in difflib.get_close_matches(name.lower(), folded, n=3) for one in folded[key]]
    return f"; the nearest are {', '.join(near)}" if near else ""


def message(module: str, name: str) -> str:
    """What the error about the attribute `name` of the loaded module `module` says."""
    return f"module {module!r} has no attribute {name!r}{nearest(name, dir(sys.modules[module]))}"


class AbsentError(AttributeError):
    """An absent attribute; what it says is looked for when somebody reads it: `hasattr` never does."""

    def __init__(self, module: str, name: str):
        super().__init__(name=name, obj=sys.modules[module])
        self._module = module

    def __str__(self) -> str:
        return message(self._module, str(self.name))

    def __reduce__(self) -> Any:
        return AttributeError, (str(self),)


def attribute_of(module: str, lazy: Collection[str] = ()) -> Callable[[str], Any]:
    """A module's ``__getattr__``: loads the submodules `lazy` at their first use, explains other names."""

    def __getattr__(name: str) -> Any:
        if name in lazy:
            return importlib.import_module(f"{module}.{name}")
        raise AbsentError(module, name)

    return __getattr__


def explain(*modules: ModuleType) -> None:
    """Make errors about absent attributes of `modules` list the nearest names."""
    for module in modules:
        module.__dict__.setdefault("__getattr__", attribute_of(module.__name__))
