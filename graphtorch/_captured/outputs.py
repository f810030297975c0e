"""What a recorded call returned: results of its program, views of older memory, what is handed
back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.ir.dtype import boolean
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import SymInt

from .._deferred.memory_order import order_shown, own_order
from .._deferred.storage import Storage, Version, View, is_contiguous
from .._deferred.tensor import Tensor
from .._types import device
from .capture import Capture, rebuild, sequence_like, tensors_in
from .gradient import behind
from .results import SINGLE, Outputs, Shown, result_of
from .segments import Unreplayable


class Given:
    """The arguments of a recorded call that are tensors.

    Attributes:
        tensors: the arguments; `stands`, by number, what stands for some of them.
        used: what the function got.
        positions: numbers of those by their ids; `holders`: by their storages.
    """

    def __init__(self, tensors: Sequence[Tensor], stands: Mapping[int, Tensor]):
        self.tensors, self.stands = tensors, stands
        self.used = [stands.get(i, t) for i, t in enumerate(tensors)]
        self.positions: dict[int, int] = {}
        self.holders: dict[Storage, int] = {}
        for i, t in enumerate(self.used):
            self.positions.setdefault(id(t), i)
            self.holders.setdefault(t._storage, i)


class Returned:
    """The result of a recorded call.

    Attributes:
        tensors: those in it, in order, with stand-ins for numbers that are made anew.
        values: what the program has to compute for it.
        bases: tensors of which outputs are views.
        kinds: see `Outputs`.
    """

    def __init__(self, capture: Capture, given: Given, result: Any, values: list[Value]):
        self.values = values
        self.devices: list[device] = []  # that each of them is to be on
        self.bases: list[Tensor] = []
        self._capture, self._given = capture, given
        # of stand-ins for those in the result, by their ids
        self._numbers: dict[int, Value | SymInt] = {}
        self._kept: list[Tensor] = []  # the stand-ins themselves
        self._base_of: dict[Storage, int] = {}
        self._base_results: list[int] = []
        self._tree = self._with_stand_ins(result)
        self.tensors = tensors_in(self._tree)
        self.kinds = self._sorted()

    def number(self, value: Value, place: device | None = None) -> int:
        """The number of a value among the results of the program."""
        self.values.append(value)
        self.devices.append(self._capture.place if place is None else place)
        return len(self.values) - 1

    def carriers(self) -> tuple[list[Tensor | None], list[int]]:
        """Bases and outputs that carry a history, None for others; and those whose backward pass
        ran."""
        found: list[Tensor | None] = [*self.bases]
        found += [
            t if k == "base" or result_of(k, x) is not None else None
            for t, (k, x) in zip(self.tensors, self.kinds, strict=True)
        ]
        spent = [i for i, t in enumerate(found) if t is not None and behind([t]).freed]
        return [None if i in spent else t for i, t in enumerate(found)], spent

    def outputs(self, spent: Sequence[int]) -> Outputs:
        """How the result is made again."""
        structure = (
            SINGLE if isinstance(self._tree, Tensor) else rebuild(self._tree, lambda _: _HOLE)
        )
        return Outputs(structure, tuple(self._base_results), tuple(self.kinds), tuple(spent))

    def carried(self, outputs: Sequence[int]) -> list[int]:
        """Which results of the program the bases and outputs are that carry the history."""
        bases = self._base_results
        found = []
        for i in outputs:
            kind, number = ("base", i) if i < len(bases) else self.kinds[i - len(bases)]
            result = bases[number] if kind == "base" else result_of(kind, number)
            assert result is not None  # no other carries a history
            found.append(result)
        return found

    # -- numbers

    def _with_stand_ins(self, tree: Any) -> Any:
        """A result with a tensor for each number that is made anew at each call."""
        found: Any = tree if isinstance(tree, SymInt) else None
        for number, value in self._capture.numbers:
            if tree is number:
                found = value
        if found is not None:
            return self._stand_in(found)
        if not (self._capture.numbers or self._given.stands) or isinstance(tree, Tensor):
            return tree
        if isinstance(tree, dict):
            made_dict = copy.copy(tree)
            for k, v in tree.items():
                made_dict[k] = self._with_stand_ins(v)
            return made_dict
        if isinstance(tree, (tuple, list)):
            return sequence_like(tree, [self._with_stand_ins(v) for v in tree])
        return tree

    def _stand_in(self, number: Value | SymInt) -> Tensor:
        made: Tensor = object.__new__(Tensor)
        made._storage = Storage(_NOTHING if isinstance(number, SymInt) else number)
        made._counter = Version()
        self._numbers[id(made)] = number
        self._kept.append(made)
        return made

    # -- tensors

    def _sorted(self) -> list[tuple[str, Any]]:
        holders: dict[Storage, set[int]] = {}
        for t in self.tensors:
            holders.setdefault(t._storage, set()).add(id(t))
        found: list[tuple[str, Any]] = []
        first: dict[int, int] = {}
        for i, t in enumerate(self.tensors):
            if id(t) in first:
                found.append(("same", first[id(t)]))
                continue
            first[id(t)] = i
            found.append(self._output(t, len(holders[t._storage]) == 1))
        return found

    def _output(self, tensor: Tensor, alone: bool) -> tuple[str, Any]:
        """How one tensor is made again; `alone`: no other shows its memory."""
        number = self._given.positions.get(id(tensor))
        if number is not None:
            return "argument", number
        if id(tensor) in self._numbers:
            made = self._numbers[id(tensor)]
            return ("size", made) if isinstance(made, SymInt) else ("number", self.number(made))
        if tensor._storage in self._given.holders:
            return "shown", self._of_argument(tensor)
        if not self._capture.owns(tensor._storage):
            return self._of_older(tensor)
        if type(tensor) is not Tensor:
            raise Unreplayable
        view, whole = tensor._view, tensor._storage.value.type
        if alone and (view is None or view.type.numel != whole.numel or _is_all(view, tensor)):
            order = own_order(tensor)
            if not tensor._rg:
                number = self.number(tensor._value(), tensor.device)
                return ("result", number) if order is None else ("ordered", (number, order))
            if view is not None:
                raise Unreplayable
            return "leaf", self.number(tensor._value(), tensor.device)
        return self._of_base(tensor)

    def _of_argument(self, tensor: Tensor) -> Shown:
        """A view of, or an alias for, the memory of an argument."""
        storage, view, base = tensor._storage, tensor._view, tensor._base
        if tensor._rg and base is None:
            raise Unreplayable  # a leaf of its own over the memory of an argument
        owner = tensor if base is None else base
        for i, t in enumerate(self._given.used):
            own = t._view
            if (
                t._storage is storage
                and (base is None or base is t or base is t._base)
                and (
                    own is None or (view is not None and view.steps[: len(own.steps)] == own.steps)
                )
            ):
                if i in self._given.stands and self._given.tensors[i]._view is not None:
                    raise Unreplayable
                return _shown("argument", i, tensor, own)._replace(
                    counted=owner._counter is t._counter
                )
        raise Unreplayable

    def _of_older(self, tensor: Tensor) -> tuple[str, Any]:
        """A tensor from outside, or what shows its memory."""
        base = tensor._base
        source = self._capture.aliases.get(tensor) if base is None else base
        if source is None or (base is not None and id(tensor) not in self._capture.views):
            return "tensor", tensor
        if base is None and tensor._rg:
            raise Unreplayable  # a leaf of its own over memory from outside
        shown = _shown("tensor", source, tensor, source._view)
        return "shown", shown._replace(counted=tensor._counter is source._counter)

    def _of_base(self, tensor: Tensor) -> tuple[str, Any]:
        """One of several tensors that show memory that was made inside."""
        storage, base = tensor._storage, tensor._base
        if tensor._rg or (base is not None and (base._view is not None or base._rg)):
            raise Unreplayable
        made = self._base_of.get(storage)
        if made is None:
            made = self._base_of[storage] = len(self.bases)
            self.bases.append(_base_tensor(tensor))
            self._base_results.append(self.number(self.bases[-1]._value(), storage.place))
        held = self.bases[made]
        if tensor is held:
            return "base", made
        if tensor._fn is not None if base is None else base is not held:
            raise Unreplayable  # two tensors of one memory have histories of their own
        return "shown", _shown("base", made, tensor, None)._replace(
            counted=tensor._counter is held._counter
        )


def _base_tensor(tensor: Tensor) -> Tensor:
    """The tensor that has all of a storage that was made inside."""
    if tensor._base is not None:
        return tensor._base
    if tensor._view is None:
        return tensor
    made = object.__new__(Tensor)
    made._storage, made._counter = tensor._storage, tensor._counter
    return made


def _shown(kind: str, which: Any, tensor: Tensor, own: View | None) -> Shown:
    """How `tensor` shows the memory of what `which` stands for, whose own view is `own`."""
    view = tensor._view
    if view is not None and own is not None:
        if view.steps[: len(own.steps)] != own.steps:
            raise Unreplayable
        view = View(view.steps[len(own.steps) :], view.type, view.offset - own.offset, view.strides)
    name = "" if tensor._base is None else tensor._name_of_view
    return Shown(kind, which, view, name, tensor._creation, tensor._tracked, True)


def _is_all(view: View, tensor: Tensor) -> bool:
    """Whether a view of all of a tensor's memory shows it as the memory of a new one."""
    own = tensor._base is None and order_shown(view) is not None
    return own or is_contiguous(view.type.shape, view.strides)


_NOTHING = Value(Type(boolean))  # in the place of what a size of the result would be as a tensor
_HOLE = object.__new__(Tensor)  # stands for a tensor in the structure of a result
