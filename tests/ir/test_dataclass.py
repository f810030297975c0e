"""Our `dataclass` makes what the standard library's makes, at the first use of each method."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pprint
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from graphtorch.ir import dataclass as ours
from graphtorch.ir.op import OPS

Decorator = Any
METHODS = ("__init__", "__repr__", "__eq__", "__hash__", "__dataclass_fields__", "__match_args__")


def plain(decorator: Decorator) -> type:
    @decorator(frozen=True)
    class Slice:
        kept: ClassVar[int] = 3
        dim: int
        step: float = 1.0
        sizes: tuple[int, ...] = ()

    return Slice


def derived(decorator: Decorator) -> type:
    @decorator(frozen=True)
    class Whole(plain(decorator)):  # type: ignore[misc]
        dim: int = 7
        last: str = "x"

    return Whole


def changing(decorator: Decorator) -> type:
    @decorator
    class Plan:
        name: str
        slots: list[int] = dataclasses.field(default_factory=list)
        hidden: int = dataclasses.field(default=4, repr=False, compare=False)
        made: str = dataclasses.field(default="-", init=False)
        late: dict[str, int] = dataclasses.field(default_factory=dict, init=False, repr=False)
        least: int = dataclasses.field(kw_only=True)
        most: int = dataclasses.field(default=9, kw_only=True)

        def __post_init__(self) -> None:
            self.made = f"{self.name}{len(self.slots)}"

    return Plan


def by_identity(decorator: Decorator) -> type:
    @decorator(eq=False)
    class Kernel:
        name: str
        body: Any = None

    return Kernel


def slotted(decorator: Decorator) -> type:
    @decorator(frozen=True, slots=True)
    class Exact:
        value: int
        kind: str = "i64"

        def twice(self) -> int:
            return 2 * self.value

    return Exact


def hashed(decorator: Decorator) -> type:
    @decorator(unsafe_hash=True, slots=True)
    class Site:
        op: str
        line: int = 0

    return Site


def empty(decorator: Decorator) -> type:
    @decorator(frozen=True)
    class Nothing:
        pass

    return Nothing


def own_methods(decorator: Decorator) -> type:
    @decorator(frozen=True)
    class Own:
        a: int

        def __repr__(self) -> str:
            return f"own {self.a}"

        def __eq__(self, other: object) -> bool:
            return True

    return Own


CASES: list[tuple[Callable[[Decorator], type], tuple[Any, ...], dict[str, Any]]] = [
    (plain, (1,), {}),
    (plain, (1, float("nan")), {"sizes": (2, 3)}),
    (derived, (), {}),
    (derived, (2, 3.0, (4,), "y"), {}),
    (changing, ("n",), {"least": 1}),
    (changing, ("n", [1, 2], 5), {"least": 1, "most": 2}),
    (by_identity, ("k", 3), {}),
    (slotted, (3,), {"kind": "u8"}),
    (hashed, ("relu",), {}),
    (empty, (), {}),
    (own_methods, (1,), {}),
]


@pytest.mark.parametrize("make, args, kwargs", CASES)
def test_is_what_the_standard_one_makes(
    make: Callable[[Decorator], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    mine, other = make(ours.dataclass), make(dataclasses.dataclass)
    a, b = mine(*args, **kwargs), other(*args, **kwargs)
    is_text_of_place = "object at" in repr(b)
    assert is_text_of_place or repr(a) == repr(b)
    assert str(inspect.signature(mine)) == str(inspect.signature(other))
    assert mine.__match_args__ == other.__match_args__
    assert dataclasses.is_dataclass(mine)
    assert [str(f) for f in dataclasses.fields(mine)] == [str(f) for f in dataclasses.fields(other)]
    same = a == mine(*args, **kwargs), a == b, a == 1
    assert same == (b == other(*args, **kwargs), own_methods is make, own_methods is make)
    assert (mine.__hash__ is None) == (other.__hash__ is None)
    if mine.__hash__ is not None and make is not by_identity:
        assert hash(a) == hash(b)
    assert dataclasses.asdict(a) == dataclasses.asdict(b) or "nan" in repr(a)
    assert hasattr(a, "__dict__") == hasattr(b, "__dict__")
    assert pprint.pformat(a) == repr(a) or len(repr(a)) > 70


@pytest.mark.parametrize("make, args, kwargs", CASES)
def test_refuses_what_the_standard_one_refuses(
    make: Callable[[Decorator], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    said = []
    for decorator in (ours.dataclass, dataclasses.dataclass):
        cls = make(decorator)
        made = cls(*args, **kwargs)
        for wrong in (lambda c=cls: c(*range(9)), lambda c=cls: c(*args, **kwargs, zz=1)):
            with pytest.raises(TypeError) as refused:
                wrong()
            said.append(str(refused.value))
        if cls.__dataclass_params__.frozen:
            name = next(iter(cls.__dataclass_fields__), "none")
            for change in (
                lambda m=made, n=name: setattr(m, n, 1),
                lambda m=made, n=name: delattr(m, n),
            ):
                with pytest.raises(dataclasses.FrozenInstanceError) as frozen:
                    change()
                said.append(str(frozen.value))
    assert said[: len(said) // 2] == said[len(said) // 2 :]


def test_nothing_is_made_before_it_is_used() -> None:
    cls: Any = plain(ours.dataclass)
    later = {name for name in METHODS if isinstance(vars(cls)[name], ours._Later)}
    assert later == set(METHODS)
    made = cls(1)
    assert inspect.isfunction(vars(cls)["__init__"])
    assert isinstance(vars(cls)["__hash__"], ours._Later)
    assert {made: 1}[cls(1)] == 1
    assert inspect.isfunction(vars(cls)["__hash__"]) and inspect.isfunction(vars(cls)["__eq__"])


def test_a_class_derived_without_the_decorator_has_the_methods_of_its_base() -> None:
    cls: Any = plain(ours.dataclass)
    derived = type("Derived", (cls,), {})
    assert derived(1) == derived(1) != cls(1)
    assert "__init__" not in vars(derived) and inspect.isfunction(vars(cls)["__init__"])


def test_a_default_made_for_each_is_not_shared() -> None:
    cls: Any = changing(ours.dataclass)
    a, b = cls("a", least=1), cls("b", least=1)
    a.slots.append(1)
    assert b.slots == [] and a.late is not b.late and not hasattr(cls, "slots")
    assert cls.hidden == 4


def test_is_matched_by_position() -> None:
    match plain(ours.dataclass)(4, 2.0):
        case object(dim=4) as whole:
            assert whole.step == 2.0


def test_a_changed_copy() -> None:
    made: Any = plain(ours.dataclass)(1)
    assert dataclasses.replace(made, step=2.0) == type(made)(1, 2.0)
    with pytest.raises(TypeError):
        dataclasses.replace(made, none=2.0)


@ours.dataclass(frozen=True)
class Loose:
    a: int
    b: str = "b"


@ours.dataclass(frozen=True, slots=True)
class Tight:
    a: int
    b: str = "b"


@pytest.mark.parametrize("cls", [Loose, Tight])
def test_copies_and_pickles(cls: Any) -> None:
    sys.modules.setdefault(cls.__module__, sys.modules[__name__])
    made = cls(1)
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made


def test_a_pickle_is_read_before_any_instance_is_made() -> None:
    made: Any = object.__new__(plain(ours.dataclass))  # as pickle does
    made.__dict__.update(dim=1, step=1.0, sizes=())
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.dim = 2
    assert made == type(made)(1)


def test_a_text_that_holds_itself_ends() -> None:
    made: Any = changing(ours.dataclass)("a", least=1)
    made.slots.append(made)
    assert "..." in repr(made)


def test_many_threads_use_a_class_first() -> None:
    for _ in range(50):
        cls: Any = plain(ours.dataclass)
        gate, found = threading.Barrier(4), []

        def use(cls: Any = cls, gate: threading.Barrier = gate, found: list[Any] = found) -> None:
            gate.wait()
            found.append({cls(1): repr(cls(1))})

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4 and all(one == found[0] for one in found)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_attributes_compare_and_hash_by_their_fields(op: Any) -> None:
    names = [f.name for f in dataclasses.fields(op.attrs)]
    made, same, other = (object.__new__(op.attrs) for _ in range(3))
    for one, value in ((made, 1), (same, 1), (other, 2)):
        one.__dict__.update(dict.fromkeys(names, value))
    assert made == same and hash(made) == hash(same) == hash((1,) * len(names))
    assert (made == other) == (not names)
