"""Conditions that are written as the text of one Python function: about 20 ns each.

Objects stand in the text as names of constants. What is checked is read in the text itself, so that
nothing about how a value got there is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import copysign
from operator import is_
from typing import Any

import numpy as np

from .._deferred.door import LIST_ITEM, LIST_LENGTH, Row, identities
from .._deferred.tensor import Tensor

ATOMS = (int, float, bool, str, bytes, complex, type(None))
_DEPTH = 6  # containers in containers are compared so far


class Checks:
    """Conditions in the order in which they are tested, and the constants that they name."""

    def __init__(self, prefix: str = "c") -> None:
        """Args: prefix: of the constants' names, for conditions that join others'."""
        self._prefix = prefix
        self.space: dict[str, Any] = {"same": same_contents}
        self._names: dict[int, str] = {}
        self._terms: dict[str, None] = {}
        # those that hold where dictionaries hold the very objects that they held, which is seen at
        # once; others may be equal
        self._alike: dict[str, None] = {}
        self._rows: list[Row] = []

    def const(self, value: Any) -> str:
        """The name of an object in the text."""
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = f"{self._prefix}{len(self._names)}"
            self.space[name] = value
        return name

    def add(self, text: str, *rows: Row) -> None:
        """A condition; it holds where `rows` do, if there are any: see `identities`."""
        (self._alike if rows else self._terms)[text] = None
        self._rows += rows

    def join(self, more: Checks) -> None:
        """Others, with constants of another prefix, after these."""
        self.space |= more.space
        self._terms |= more._terms
        self._alike |= more._alike
        self._rows += more._rows

    def value(self, text: str, value: Any, *rows: Row) -> None:
        """`text` is what it was: a number or string by value, any other object by identity, which
        `rows` say."""
        c = self.const(value)
        if value is None or isinstance(value, bool):
            self.add(f"{text} is {value}", *rows)
        elif not isinstance(value, ATOMS):
            self.add(f"{text} is {c}", *rows)
        elif isinstance(value, (float, complex)) and not value:  # 0.0 and -0.0 are equal
            self.add(f"((v := {text}) is {c} or same(v, {c}))", *rows)
        else:
            kind = self.const(type(value))
            self.add(f"((v := {text}) is {c} or (type(v) is {kind} and v == {c}))", *rows)

    def contents(self, text: str, value: Any, owner: Any = None) -> None:
        """`text` holds what it held when `value` was made by `contents`.

        Args: owner: what `text` is; where it is a list, it is looked at itself.
        """
        same = f"same({text}, {self.const(value)})"
        if type(owner) is list and all(type(v) in ATOMS for v in owner):
            items = [(LIST_ITEM, owner, i, None, v) for i, v in enumerate(owner)]
            self.add(same, (LIST_LENGTH, owner, None, None, len(owner)), *items)
        else:
            self.add(same)

    def identical(self, text: str, values: Sequence[Any]) -> None:
        """The values of a dictionary are these objects, by number and order of its names."""
        if not values:
            self.add(f"not {text}")
            return
        self.space["identical"] = identical
        self.add(f"identical({text}.values(), {self.const(list(values))})")

    def tensor(self, tensor: Tensor) -> None:
        """A tensor uses the memory it used, and is the leaf or not that it was."""
        c = self.const(tensor)
        self.add(f"{c}._storage is {self.const(tensor._storage)}")
        self.add(f"{c}._rg is {tensor._rg}")
        if not tensor._rg:  # a leaf that requires grad never has a history
            self.add(f"{c}._fn is {'' if tensor._fn is None else 'not '}None")

    def function(
        self, given: str = "", then: Sequence[str] = ("return True",), otherwise: str = "False"
    ) -> Callable[..., Any]:
        """A function of `given`: the lines `then` where all conditions hold; else, or where one
        raises, `otherwise`."""
        lines = [f"def check({given}):"]
        terms = list(self._terms)
        if self._alike:
            alike = self.const(identities(self._rows))
            self.space["rows"] = self._rows  # keeps what they name
            rest = self.const(_later(" and ".join(self._alike), self.space))
            terms.append(f"({alike}() or {rest}())")
        if terms:
            joined = "\n                and ".join(terms)
            lines += ["    try:", f"        if not ({joined}):", f"            return {otherwise}"]
            lines += ["    except Exception:", f"        return {otherwise}"]
        exec("\n".join([*lines, *[f"    {line}" for line in then]]), self.space)
        return self.space["check"]  # type: ignore[no-any-return]


def _later(text: str, space: dict[str, Any]) -> Callable[[], Any]:
    """The expression `text` as a function, compiled at its first call: that of a large model takes
    Python 50 ms and 10 MiB, and most are never called.
    """
    made: list[Callable[[], Any]] = []

    def holds() -> Any:
        if not made:
            made.append(eval(f"lambda: {text}", space))
        return made[0]()

    return holds


def identical(now: Any, before: Sequence[Any]) -> bool:
    """Whether two collections hold the same objects."""
    return len(now) == len(before) and all(map(is_, now, before))


def contents(value: Any, depth: int = 0) -> Any:
    """A copy of a container to compare it with later: see `same_contents`."""
    if depth < _DEPTH:
        if isinstance(value, (list, tuple)):
            return [contents(v, depth + 1) for v in value]
        if isinstance(value, dict):
            return {k: contents(v, depth + 1) for k, v in value.items()}
        if isinstance(value, (set, frozenset)):
            return set(value)
        if isinstance(value, np.ndarray):
            return value.copy()
    return value


def same_contents(value: Any, before: Any) -> bool:
    """Whether a container holds what it held when `before` was made by `contents`."""
    kind = type(before)
    if kind is list and isinstance(value, (list, tuple)):
        return len(value) == len(before) and all(
            a is b or same_contents(a, b) for a, b in zip(value, before, strict=True)
        )
    if kind is dict and isinstance(value, dict):
        return list(value) == list(before) and all(
            a is b or same_contents(a, b)
            for a, b in zip(value.values(), before.values(), strict=True)
        )
    if kind is set:
        return bool(value == before)
    if kind is np.ndarray:
        return (
            value.dtype == before.dtype
            and value.shape == before.shape
            and (value.tobytes() == before.tobytes())
        )
    same = type(value) is kind and kind in ATOMS and bool(value == before)
    return same and sign_of(value) == sign_of(before)


def sign_of(value: Any) -> Any:
    """What tells the zeros apart that are equal: the signs of a 0.0 and of complex ones; None for
    others."""
    if type(value) is float:
        return None if value else copysign(1.0, value)
    if type(value) is complex:
        return sign_of(value.real), sign_of(value.imag)
    return None
