"""Modules of options that programs set, read and patch; they change nothing here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any


class Options:
    """A group of options; any may be set."""

    def __init__(self, **values: Any):
        self.__dict__.update(values)


def _owner(module: Any, name: str) -> tuple[Any, str]:
    *path, last = name.split(".")
    return functools.reduce(getattr, path, module), last


class _Patch:
    """Sets options until its end; also as a decorator."""

    def __init__(self, module: Any, changes: dict[str, Any]):
        self._module, self._changes = module, changes
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        for name, value in self._changes.items():
            owner, last = _owner(self._module, name)
            self._before.append((owner, last, getattr(owner, last, None)))
            setattr(owner, last, value)

    def __exit__(self, *exc: object) -> None:
        while self._before:
            owner, name, value = self._before.pop()
            setattr(owner, name, value)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with _Patch(self._module, self._changes):
                return function(*args, **kwargs)

        return inside


def patch_of(module: str) -> Callable[..., Any]:
    """``config.patch(name=value)``, ``patch("name", value)`` and ``patch({"name": value})`` of a
    module."""

    def patch(arg1: Any = None, arg2: Any = None, **kwargs: Any) -> Any:
        """Set options inside of a ``with`` statement or a decorated function."""
        given = {arg1: arg2} if isinstance(arg1, str) else dict(arg1 or {})
        return _Patch(sys.modules[module], {**given, **kwargs})

    return patch
