"""Structure and numbers of what was recorded, apart: graphs that differ in sizes only have one
structure.

A *skeleton* stands for an attribute record, or a type, without its numbers: sizes, slice bounds,
paddings (the fields whose type is a `Dim` or made of such) and the value of a 0-d constant.
Skeletons are small integers, equal for equal remains. Sizes of 0 and 1 are part of the skeleton:
they decide what broadcasts and what is empty, so that rules of shape inference branch on them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, TypeAlias

from .graph import Type
from .literal import Literal
from .op import NO_ATTRS, Attrs
from .shape import Shape, SymInt

Number: TypeAlias = int | float
Split: TypeAlias = tuple[int, tuple[Number, ...]]

# records remembered; beyond it the table of splits starts anew (skeletons stay)
TABLE_LIMIT = 1 << 15
SHAPE_FIELDS = frozenset(("shape", "spatial"))  # whose 0 and 1 decide as a size of an operand does

_skeletons: dict[object, int] = {}
_numbers = itertools.count(1)  # of skeletons: each once, whichever threads ask at the same time
_splits: dict[Attrs, Split] = {}
_types: dict[Type, Split] = {}
_fields: dict[type, tuple[tuple[str, bool], ...]] = {}

EMPTY: Split = (0, ())
_skeletons[None] = 0


def skeleton(key: object) -> int:
    """The number that stands for `key`."""
    found = _skeletons.get(key)
    return _skeletons.setdefault(key, next(_numbers)) if found is None else found


def split_type(type: Type) -> Split:
    """The skeleton of a type and its sizes other than 0 and 1."""
    found = _types.get(type)
    if found is None:
        if len(_types) >= TABLE_LIMIT:
            _types.clear()
        pattern, numbers = _sizes(type.shape)
        found = _types[type] = skeleton((type.dtype, pattern)), numbers
    return found


def split_attrs(attrs: Attrs) -> Split:
    """The skeleton of an attribute record and its numbers, in the order of its fields."""
    if attrs is NO_ATTRS:
        return EMPTY
    found: Split | None = attrs._split
    if found is None:
        found = _splits.get(attrs)
        if found is None:
            if len(_splits) >= TABLE_LIMIT:
                _splits.clear()
            found = _splits[attrs] = _split(attrs)
        object.__setattr__(attrs, "_split", found)
    return found


def _split(attrs: Attrs) -> Split:
    kind = type(attrs)
    rest: list[object] = [kind]
    numbers: list[Number] = []
    for name, is_numbers in _fields.get(kind) or _fields_of(kind):
        value = getattr(attrs, name)
        kept, found = _of_field(name, value) if is_numbers else _of_literal(value)
        rest.append(kept)
        numbers += found
    return skeleton(tuple(rest)), tuple(numbers)


def _fields_of(kind: type) -> tuple[tuple[str, bool], ...]:
    """Names of the fields, and whether they hold sizes."""
    found = tuple(
        (f.name, "Dim" in str(f.type) or "Shape" in str(f.type)) for f in dataclasses.fields(kind)
    )
    return _fields.setdefault(kind, found)


def holds_shape(attrs: Attrs) -> bool:
    """Whether the numbers of `attrs` are sizes of a value: neither 0 nor 1."""
    return any(
        name in SHAPE_FIELDS for name, _ in _fields.get(type(attrs)) or _fields_of(type(attrs))
    )


def _of_field(name: str, value: Any) -> tuple[object, tuple[Number, ...]]:
    if name in SHAPE_FIELDS:
        return _sizes(value)
    if isinstance(value, tuple):
        return len(value), value
    return None, (value,)


def _sizes(shape: Shape) -> tuple[object, tuple[Any, ...]]:
    special = [d if type(d) is int and d < 2 else 2 for d in shape]
    return tuple(special), tuple([d for d, s in zip(shape, special, strict=True) if s == 2])


def _of_literal(value: Any) -> tuple[object, tuple[Number, ...]]:
    """A 0-d real constant is a number, unless it is one of those that rules look for (-1, 0, 1,
    2)."""
    if type(value) is not Literal or value.shape or value.dtype.is_complex or value.dtype.is_bool:
        return value, ()
    number: Any = value.item()
    if number in (-1, 0, 1, 2) or (isinstance(number, float) and not math.isfinite(number)):
        return value, ()
    return value.dtype, (number,)


def with_numbers(attrs: Attrs, numbers: list[Any]) -> Attrs:
    """`attrs` with its numbers replaced, in the order in which `split_attrs` gives them."""
    left = iter(numbers)
    changes: dict[str, Any] = {}
    for name, is_numbers in _fields.get(type(attrs)) or _fields_of(type(attrs)):
        value = getattr(attrs, name)
        if not is_numbers:
            assert not _of_literal(value)[1], "constants are replaced by the caller"
            continue
        if name in SHAPE_FIELDS:
            changes[name] = tuple(
                [next(left) if isinstance(d, SymInt) or d > 1 else d for d in value]
            )
        elif isinstance(value, tuple):
            changes[name] = tuple([next(left) for _ in value])
        else:
            changes[name] = next(left)
    return dataclasses.replace(attrs, **changes) if changes else attrs
