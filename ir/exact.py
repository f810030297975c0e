"""Attribute records as keys that tell apart what ``==`` does not."""

from __future__ import annotations

from .op import NO_ATTRS, Attrs
from .printer import field_names


def exact(attrs: Attrs) -> object:
    """`attrs` as a key in which ``0.0``, ``-0.0``, ``0`` and ``False`` are four values."""
    if attrs is NO_ATTRS:
        return None
    kind = type(attrs)
    values = [getattr(attrs, name) for name in field_names(kind)]
    return kind, *[(repr(v),) if isinstance(v, (float, int)) else v for v in values]
