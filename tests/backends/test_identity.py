"""What containers hold, asked natively."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from graphtorch.backends.buffer import ALIGNMENT, Buffer, address_of, small
from graphtorch.backends.identity import (
    ITEM,
    LENGTH,
    LIST_ITEM,
    LIST_LENGTH,
    PART,
    PART_LENGTH,
    PART_VALUES,
    Row,
    identities,
)
from graphtorch.ir.dtype import f32


class Made:
    """Equal to everything, which is no identity."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("what", "key", "inner", "change"),
    [
        (ITEM, "a", None, lambda d: d.update(a=Made())),
        (ITEM, "a", None, lambda d: d.pop("a")),
        (PART, "t", "x", lambda d: d["t"].update(x=Made())),
        (PART, "t", "x", lambda d: d["t"].clear()),
        (PART, "t", "x", lambda d: d.pop("t")),
        (PART, "t", "x", lambda d: d.update(t=[1, 2])),  # no dictionary
        (LENGTH, None, None, lambda d: d.update(more=1)),
        (PART_LENGTH, "t", None, lambda d: d["t"].update(y=1)),
        (PART_LENGTH, "t", None, lambda d: d.pop("t")),
        (PART_LENGTH, "t", None, lambda d: d.update(t=3)),  # has no length
        (PART_VALUES, "t", None, lambda d: d["t"].update(x=Made())),
        (PART_VALUES, "t", None, lambda d: d["t"].update(y=1)),
        (PART_VALUES, "t", None, lambda d: d["t"].clear()),
        (PART_VALUES, "t", None, lambda d: d.update(t=OrderedDict(d["t"]))),  # may be in any order
        (PART_VALUES, "t", None, lambda d: d.update(t=[1])),
        (PART_VALUES, "t", None, lambda d: d.pop("t")),
    ],
)
def test_dictionaries(what: int, key: Any, inner: Any, change: Any) -> None:
    held: dict[str, Any] = {"a": Made(), "t": {"x": Made()}}
    expected = {
        ITEM: lambda: held["a"],
        PART: lambda: held["t"]["x"],
        LENGTH: lambda: len(held),
        PART_LENGTH: lambda: len(held["t"]),
        PART_VALUES: lambda: list(held["t"].values()),
    }[what]()
    row: Row = (what, held, key, inner, expected)
    same = identities([row])
    assert same() is True and same() is True
    change(held)
    assert same() is False and same() is False  # and no error is left behind


def test_the_order_of_values_counts() -> None:
    one, other = Made(), Made()
    held = {"t": {"a": one, "b": other}}
    rows: list[Row] = [(PART_VALUES, held, "t", None, [one, other])]
    same = identities(rows)
    assert same() and same()
    held["t"]["a"] = held["t"].pop("a")
    assert not same()
    held["t"]["b"] = held["t"].pop("b")
    assert same()


def test_what_did_not_change_is_no_matter() -> None:
    """Dictionaries that change in what nobody asked for hold what they held, again and again."""
    held: dict[str, Any] = {"a": Made(), "t": {"x": Made()}, "u": {}}
    rows: list[Row] = [(ITEM, held, "a", None, held["a"]), (PART_LENGTH, held, "u", None, 0)]
    same = identities([*rows, (PART, held, "t", "x", held["t"]["x"])])
    for i in range(5):
        held["other"], held["t"]["other"] = i, i
        assert same() and same()
    held["t"]["x"] = Made()
    assert not same() and not same()


def test_a_dictionary_in_the_place_of_another() -> None:
    """What holds the same serves as well, and is looked at itself from then on."""
    x, more = Made(), Made()
    held: dict[str, Any] = {"t": {"x": x}}
    same = identities([(PART, held, "t", "x", x)])
    assert same() and same()
    old, held["t"] = held["t"], {"x": x}
    assert same() and same()
    old["x"] = more  # is no part of it any more
    assert same() and same()
    held["t"]["x"] = more
    assert not same()
    held["t"] = old
    assert not same()
    old["x"] = x
    assert same() and same()
    old["x"] = more
    assert not same()


def test_stores_that_the_interpreter_specialises() -> None:
    class Owner:
        def __init__(self) -> None:
            self.a = self.b = None

    owners = [Owner() for _ in range(4)]
    kept = [vars(o) for o in owners]  # in which attributes lie from now on
    checks = [identities([(ITEM, d, "a", None, None)]) for d in kept]
    for i in range(100):
        for o, same in zip(owners, checks, strict=True):
            assert same() and same()
            o.b = i
            assert same()
            o.a = i
            assert not same() and not same()
            o.a = None
    del owners[0].a
    assert not checks[0]()
    owners[1].a = 1
    assert not checks[1]()


def test_lists() -> None:
    held = [1, Made()]
    rows: list[Row] = [(LIST_LENGTH, held, None, None, 2)]
    rows += [(LIST_ITEM, held, i, None, x) for i, x in enumerate(held)]
    same = identities(rows)
    assert same()
    held.append(1)
    assert not same()
    held.pop()
    assert same()
    held[1] = Made()
    assert not same()
    held.clear()
    assert not same()
    assert identities([])()


def test_small_memory_is_aligned_and_its_own() -> None:
    owners = [small(n) for n in (0, 1, 64, 1024)]
    assert all(address % ALIGNMENT == 0 for _, address in owners)
    buffers = [Buffer.empty(f32, (n,)) for n in (1, 8, 255, 256, 257)]
    for i, b in enumerate(buffers):
        b.numpy()[:] = i
    assert [set(b.numpy().tolist()) for b in buffers] == [{float(i)} for i in range(5)]


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (4, 5)])
def test_where_an_array_begins(shape: tuple[int, ...]) -> None:
    for array in (np.zeros(shape, "f"), np.zeros((7, *shape), "f")[3:4]):
        assert address_of(array) == array.__array_interface__["data"][0]
