"""Objects that are made at once, natively."""

import gc
import sys
import weakref
from typing import Any

import pytest

from graphtorch.backends.objects import Given, New, maker


class Slots:
    __slots__ = ("__weakref__", "a", "b", "c")


class More(Slots):
    __slots__ = ("d",)


class Open:
    number = 7

    def __init__(self) -> None:
        raise AssertionError("constructors are not run")


def test_slots_and_attributes() -> None:
    inner = New(More, a=Given(0), b=None, d="text", c=Given(1))
    make = maker(2, New(Open, slots=inner, empty=New(Slots), shared=1.5))
    given = [object(), object()]
    one, other = make(*given), make(*given[::-1])
    assert type(one) is Open and type(one.slots) is More and type(one.empty) is Slots
    assert (one.slots.a, one.slots.b, one.slots.c, one.slots.d) == (
        given[0],
        None,
        given[1],
        "text",
    )
    assert (other.slots.a, other.slots.c) == (given[1], given[0])
    assert one.shared == 1.5 and one.number == 7 and one.empty is not other.empty
    assert not hasattr(one.empty, "a")


def test_references_are_neither_lost_nor_kept() -> None:
    shared, given = object(), Slots()
    make = maker(1, New(Open, part=New(Slots, a=Given(0), b=shared), same=shared))
    before = sys.getrefcount(shared), sys.getrefcount(given)
    made = [make(given) for _ in range(50)]
    assert sys.getrefcount(shared) == before[0] + 100
    assert sys.getrefcount(given) == before[1] + 50
    gone = weakref.ref(made[0].part)
    del made
    assert gone() is None
    assert (sys.getrefcount(shared), sys.getrefcount(given)) == before


def test_what_was_made_is_seen_by_the_collector() -> None:
    make = maker(1, New(Open, part=New(Slots, a=Given(0))))
    ring: list[Any] = []
    ring.append(make(ring))
    gone = weakref.ref(ring[0].part)
    del ring
    gc.collect()
    assert gone() is None


def test_what_it_names_lives_as_long_as_it() -> None:
    make = maker(0, New(Open, part=[1, 2, 3], **{"".join(["na", "me"]): ("un", "shared")}))
    gc.collect()
    assert make().part == [1, 2, 3] and make().name == ("un", "shared")


def test_another_number_of_arguments_is_refused() -> None:
    make = maker(2, New(Slots, a=Given(0), b=Given(1)))
    for given in ((), (1,), (1, 2, 3)):
        with pytest.raises(SystemError):
            make(*given)
    with pytest.raises(ValueError, match="16"):
        maker(16, New(Slots))
