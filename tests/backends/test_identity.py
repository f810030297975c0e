"""What containers hold, asked natively."""

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
    ],
)
def test_dictionaries(what: int, key: Any, inner: Any, change: Any) -> None:
    held: dict[str, Any] = {"a": Made(), "t": {"x": Made()}}
    expected = {
        ITEM: lambda: held["a"],
        PART: lambda: held["t"]["x"],
        LENGTH: lambda: len(held),
        PART_LENGTH: lambda: len(held["t"]),
    }[what]()
    row: Row = (what, held, key, inner, expected)
    same = identities([row])
    assert same() is True and same() is True
    change(held)
    assert same() is False and same() is False  # and no error is left behind


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
