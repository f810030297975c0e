"""Sizes that are symbols in the recordings of a compiled function: which, and what a recording
assumes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graphtorch.ir.generalize import Hints
from graphtorch.ir.shape import (
    Condition,
    Symbol,
    SymInt,
    bounds,
    evaluate,
    symbols,
    without_implied,
)

from .. import _settings
from .._deferred.storage import is_contiguous
from .._deferred.tensor import Tensor
from ..nn.modules.module import Module
from .signature import shared_by
from .status import ConstraintViolationError
from .tracing import (
    Dim,
    Unnamed,
    argument_names,
    check_names,
    check_sizes,
    dynamic_axes,
    tensors_in,
)

SMALLEST = 2  # sizes of 0 and 1 decide what broadcasts
# which sizes are symbols: those asked for, those of them that changed, none
ASKED, CHANGED, NONE = range(3)

Place = tuple[int, int]  # which of a call's tensors, and its axis
Axes = Mapping[int, Mapping[int, Dim]]  # of tensors by their ids: the axes whose sizes are symbols
Symbols = Sequence[tuple[str, int, int]]  # a symbol's name, and a place where it stands


class Mark(NamedTuple):
    """What `mark_dynamic` and its kin say of an axis of a tensor."""

    dynamic: bool
    strict: bool = False  # whether it is an error that a recording holds for one size alone
    min: int = SMALLEST
    max: int | None = None


class Assumed(Hints):
    """Decides as the call that is recorded does; numbers that Python needs are assumed as well.

    Attributes:
        numbers: names of the symbols in sizes that were needed as numbers.
    """

    def __init__(self, sizes: dict[str, Any]):
        super().__init__(sizes)
        self.numbers: set[str] = set()

    def number(self, size: SymInt) -> int | None:
        """The size in this call."""
        found = evaluate(size, self.sizes)
        assert isinstance(found, int)
        self.numbers.update(s.name for s in symbols([size]))
        self.is_zero(size - found)  # type: ignore[arg-type]
        return found

    def pinned(self) -> dict[str, int]:
        """The symbols that can be but one number."""
        equal = [c for c in self.conditions if c * -1 in self.conditions and _is_linear(c)]
        names = {s.name for c in equal for s in symbols([c]) if len(symbols([c])) == 1}
        return {n: self.sizes[n] for n in names}  # type: ignore[misc]

    def open(self) -> list[Condition]:
        """The conditions that do not follow from the ranges and from what is pinned."""
        pinned = self.pinned()
        found = [evaluate(c, pinned) for c in self.conditions]
        return without_implied([c for c in found if isinstance(c, SymInt) and bounds(c)[0] < 0])


def _is_linear(size: SymInt) -> bool:
    return all(len(m) <= 1 and all(isinstance(a, Symbol) for a in m) for m, _ in size.terms)


class Call(NamedTuple):
    """One call's arguments."""

    names: list[str]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: list[Tensor]

    @staticmethod
    def of(function: Any, args: Any, kwargs: Any) -> Call:
        """Those of ``function(*args, **kwargs)``."""
        return Call(
            argument_names(function, args, kwargs), args, kwargs, tensors_in([*args, kwargs])
        )

    def names_of_tensors(self) -> Iterator[str]:
        """A name for each tensor."""
        for name, tree in self.named().items():
            found = tensors_in(tree)
            yield from [name if t is tree else f"{name}{i}" for i, t in enumerate(found)]

    def named(self) -> dict[str, Any]:
        """The arguments by their names."""
        return {**dict(zip(self.names, self.args, strict=True)), **self.kwargs}


class SizesOf:
    """Which sizes of a compiled function's arguments are symbols.

    Places are remembered: of those that a recording could not leave open, the sizes that it was
    made for; of those that were marked, their marks.

    Attributes:
        active: whether sizes of some calls are symbols.
    """

    def __init__(self, function: Any, dynamic: Any):
        self._function = function
        self._dynamic = dynamic
        self._dims = dynamic if isinstance(dynamic, Mapping) else None
        self._every = dynamic is True or dynamic is None
        self._stage = CHANGED if dynamic is None else ASKED
        self._marks: dict[Place, Mark] = {}
        self._changed: set[Place] = set()
        self._last: dict[Place, int] = {}
        # where sizes were needed as numbers of Python: the one with a recording of its own; None:
        # all have
        self._apart: dict[Place, int | None] = {}
        self.active = bool(self._dims) or self._every

    # -- which

    def axes(self, args: Any, kwargs: Any) -> Axes:
        """The axes of a call's tensors whose sizes are symbols; symbols of equal sizes are one."""
        if self._stage == NONE or (self._dims is None and _settings.deterministic()):
            return {}  # (the bits are not to depend on what came before)
        tensors = tensors_in([*args, kwargs])
        if shared_by(tensors) is not None:
            return {}  # what stands for arguments has memory of its own
        if self._dims is not None:
            return self._named(Call.of(self._function, args, kwargs))
        found: dict[int, dict[int, Dim]] = {}
        if self._yields(tensors):
            return found
        dims: dict[tuple[int, int, int | None], Dim] = {}
        for number, tensor in enumerate(tensors):
            if not _is_plain(tensor):
                continue
            for axis, size in enumerate(tensor._type.shape):
                mark = self._mark_of((number, axis), size)
                if mark is not None:
                    dim = dims.get((size, mark.min, mark.max))
                    if dim is None:
                        dim = Unnamed(f"s{len(dims)}", min=mark.min, max=mark.max)
                        dims[size, mark.min, mark.max] = dim
                    found.setdefault(id(tensor), {})[axis] = dim
        return found

    def _yields(self, tensors: Sequence[Tensor]) -> bool:
        """Whether sizes are symbols only where that makes one recording of all: there are programs
        for changing sizes without that."""
        return self._dynamic is None and any(
            self._apart.get((number, axis), -1) is None
            for number, tensor in enumerate(tensors)
            for axis in range(len(tensor._type.shape))
        )

    def _mark_of(self, place: Place, size: int) -> Mark | None:
        """How the size at a place is a symbol, if it is one."""
        mark = self._marks.get(place)
        if mark is None and self._every and (self._stage == ASKED or place in self._changed):
            mark = _UNMARKED
        if mark is None or not mark.dynamic or not mark.min <= size <= (mark.max or size):
            return None
        return None if self._apart.get(place, -1) in (None, size) else mark

    def _named(self, call: Call) -> Axes:
        dims = dynamic_axes(self._dims, call.names, call.args)
        owners = [name for name, tree in call.named().items() for _ in tensors_in(tree)]
        found: dict[int, dict[int, Dim]] = {}
        for number, (name, tensor) in enumerate(zip(owners, call.tensors, strict=True)):
            for axis, dim in dims.get(name, {}).items():
                if self._is_open(number, tensor, axis, dim):
                    found.setdefault(id(tensor), {})[axis] = dim
        return found

    def _is_open(self, number: int, tensor: Tensor, axis: int, dim: Dim) -> bool:
        shape = tensor._type.shape
        if not -len(shape) <= axis < len(shape) or not dim.min <= shape[axis] <= (
            dim.max or shape[axis]
        ):
            return False
        return self._apart.get((number, axis), -1) not in (None, shape[axis])

    # -- what calls and recordings tell

    def meet(self, call: Call) -> bool:
        """Look at a call that is to be recorded; whether it tells of places that were not known as
        symbols.

        Raises:
            RuntimeError: sizes are not what their Dims say.
        """
        if self._dims is not None:
            dims = dynamic_axes(self._dims, call.names, call.args)
            check_names(dims, call.names, call.kwargs)
            check_sizes(dims, call.named())
            return False
        before = len(self._marks), len(self._changed)
        for number, tensor in enumerate(call.tensors):
            for axis, mark in (tensor._marks or {}).items():
                self._marks[number, axis] = mark
            for axis, size in enumerate(tensor._type.shape):
                if self._last.setdefault((number, axis), size) != size:
                    self._changed.add((number, axis))
        self.active = self.active or any(m.dynamic for m in self._marks.values())
        return self.active and before != (len(self._marks), len(self._changed))

    def narrow(self) -> Any:
        """Fewer sizes are symbols from now on: a recording with them failed. What `widen` takes
        back."""
        before = self._stage
        self._stage = CHANGED if self._stage == ASKED and self._every else NONE
        return before

    def widen(self, before: Any) -> None:
        """The failure was the caller's own."""
        self._stage = before

    @property
    def are_named(self) -> bool:
        """Whether a user asked for certain sizes."""
        return self._dims is not None or any(m.strict for m in self._marks.values())

    def note(self, judge: Assumed, symbols_: Symbols) -> None:
        """What a recording assumed: sizes that it holds for alone are no symbols in calls that have
        them.

        Raises:
            ConstraintViolationError: one of these was marked as dynamic.
        """
        pinned = judge.pinned()
        for name, number, axis in symbols_:
            if name in pinned and name in judge.numbers:
                self._is_number((number, axis), name, pinned[name])

    def _is_number(self, place: Place, name: str, size: int) -> None:
        """A size was needed as a number of Python; if that comes again, all of them are recorded
        apart."""
        mark = self._marks.get(place)
        if mark is not None and mark.strict:
            raise ConstraintViolationError(
                f"axis {place[1]} of tensor {place[0]} among the arguments is marked as dynamic, "
                f"but the function needs its size as a number of Python, which was {size}: use "
                "maybe_mark_dynamic, or leave it to arithmetic and comparisons"
            )
        if self._dims is not None and not self._apart:
            warnings.warn(
                f"compile(): size {name} is needed as a number of Python. The function is recorded "
                "for each size instead, and sizes that change are found by comparing the "
                "recordings",
                stacklevel=7 if isinstance(self._function, Module) else 6,
            )
        self._apart[place] = None if place in self._apart else size


_UNMARKED = Mark(True)


def _is_plain(tensor: Tensor) -> bool:
    """Whether what stands for it lacks nothing of it that code could see."""
    view = tensor._view
    return (
        type(tensor) is Tensor
        and (view is None or is_contiguous(view.type.shape, view.strides))
        and tensor._hooks is None
        and tensor._post_hooks is None
    )
