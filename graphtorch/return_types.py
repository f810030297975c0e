"""The named tuples that operations with several results return, named and printed as PyTorch's
are."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any


def _text(self: Any) -> str:
    parts = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
    return f"torch.return_types.{type(self).__name__}(\n{parts})"


def define(name: str, fields: Sequence[str]) -> Any:
    """A named tuple class, which this module keeps as `name`."""
    made: Any = namedtuple(name, fields)  # type: ignore[misc]
    made.__module__ = __name__
    setattr(made, "__repr__", _text)  # noqa: B010  (mypy takes a named tuple's methods for fixed)
    globals()[name] = made
    return made
