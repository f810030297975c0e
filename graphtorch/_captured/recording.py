"""From a finished capture to an entry: inputs, outputs, writes and gradients are sorted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from graphtorch.ir.graph import Value, topological

from .._deferred.programs import recorded_program
from .._deferred.storage import Storage, Version, View, is_contiguous, recorder
from .._deferred.tensor import Tensor
from .capture import Boundary, Capture, Closed, rebuild, tensors_in
from .entry import SINGLE, Entry, Shown, layout_of
from .gradient import ARGUMENT, OUTPUT, TENSOR, Backward, Joint, ends_of, joint_gradient
from .segments import Path, Segment, Unreplayable


def record(
    capture: Capture,
    call: Callable[[], Any],
    arguments: Sequence[Tensor],
    stands: Mapping[int, Tensor],
    dynamic: bool | None,
    segments: MutableMapping[Any, Segment],
) -> Recording | Any:
    """Record one call and compile it.

    Args:
        call: the function on what stands for its arguments.
        stands: by number, arguments that something else stands for.
        segments: those of other recordings of the function, by what they do; new ones are added.

    Returns:
        A `Recording`, which is still to be run; the call's result where the capture was called off.
    """
    result = capture.call(call)
    if not capture.off:
        recorder.capture = capture
        try:
            made = Recording(capture, result, arguments, stands, dynamic, segments)
        except Unreplayable:
            if not capture.call_off(True):
                raise RuntimeError("the function cannot be recorded with symbols for sizes") from None
        except (RuntimeError, NotImplementedError):
            if not capture.off and not capture.call_off(True):
                raise
        finally:
            recorder.capture = None
    if capture.off:
        return result
    capture.restore()
    entry = made.entry
    entry.draws = capture.drawn
    entry.program = recorded_program(entry.graph, made.stable, dynamic)
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


class Recording:
    """Sorts what a finished capture holds into inputs, outputs, writes and gradients of an `Entry`."""

    def __init__(
        self,
        capture: Capture,
        result: Any,
        arguments: Sequence[Tensor],
        stands: Mapping[int, Tensor],
        dynamic: bool | None,
        segments: MutableMapping[Any, Segment],
    ):
        self.capture, self.dynamic = capture, dynamic
        self.whole: Closed | None = None
        self.arguments = [stands.get(i, t) for i, t in enumerate(arguments)]
        self.given, self.stands = arguments, stands
        self.positions: dict[int, int] = {}
        for i, t in enumerate(self.arguments):
            self.positions.setdefault(id(t), i)
        self.holders: dict[Storage, int] = {}  # storages of arguments and stand-ins
        for i, t in enumerate(self.arguments):
            self.holders.setdefault(t._storage, i)
        self._check_known()
        self.values: list[Value] = []
        self.numbers: dict[int, Value] = {}  # of stand-ins for numbers in the result, by their ids
        result = self._with_stand_ins(result)
        tensors = tensors_in(result)
        entry = self.entry = Entry(
            SINGLE if isinstance(result, Tensor) else rebuild(result, lambda _: _HOLE), len(arguments)
        )
        self.bases: list[Tensor] = []  # tensors of which outputs are views
        self._base_of: dict[Storage, int] = {}
        entry.outputs = self._outputs(tensors)
        self._sort_writes()
        self._sort_grads()
        carriers = [
            *self.bases,
            *[
                t if k in ("result", "base") else None
                for t, (k, _) in zip(tensors, entry.outputs, strict=True)
            ],
        ]
        for i, carrier in enumerate(carriers):
            if carrier is not None and ends_of([carrier])[1]:
                entry.spent.append(i)
                carriers[i] = None
        capture.forward = list(capture.created.values())
        joint = joint_gradient(carriers, self.positions)
        saved = [] if joint is None else joint.saved
        self._sort_inputs([*self.values, *saved, *[r.value for r in capture.reads]])
        if capture.escaped(self._kept(tensors)):
            raise Unreplayable
        if capture.reads:
            self._follow_reads(joint, segments)
        places = self._saved_places(saved)
        self._close(joint, places)
        (kind, number), *more = entry.outputs or [("", 0)]
        if kind == "result" and entry.structure is SINGLE and not more:
            effects = entry.writes or entry.counts or entry.grads or entry.spent
            entry.only = None if effects else number
        entry.guards = list(capture.grad_guards.items())
        entry.values = list(capture.value_guards.items())

    def _check_known(self) -> None:
        """Refuse where a tensor from outside has another storage, view, flag or history than before."""
        capture = self.capture
        if any(t._grad is not None and t._grad.is_sparse for t in capture.grads):
            raise Unreplayable
        for tensor, (storage, view, leaf, fn, _) in capture.known.items():
            if tensor._storage is not storage or tensor._view is not view or tensor._rg is not leaf:
                raise Unreplayable
            if tensor._base is None and (
                tensor._fn is not None if fn is None else not isinstance(tensor._fn, Boundary)
            ):
                raise Unreplayable  # it was written to, and has got a history
        for (stand, _), flag in zip(capture.stood, capture.stood_leaves, strict=True):
            lost = stand._fn is not None and not isinstance(stand._fn, Boundary)
            if stand._view is not None or stand._rg is not flag or lost:
                raise Unreplayable

    def _with_stand_ins(self, tree: Any) -> Any:
        """A result with a tensor for each number that is made anew at each call."""
        for number, value in self.capture.numbers:
            if tree is number:
                made: Tensor = object.__new__(Tensor)
                made._storage, made._counter = Storage(value), Version()
                self.numbers[id(made)] = value
                return made
        if not self.capture.numbers or isinstance(tree, Tensor):
            return tree
        if isinstance(tree, dict):
            made_dict = copy.copy(tree)
            for k, v in tree.items():
                made_dict[k] = self._with_stand_ins(v)
            return made_dict
        if isinstance(tree, (tuple, list)):
            parts = [self._with_stand_ins(v) for v in tree]
            return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
        return tree

    def _number(self, value: Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    # -- outputs

    def _outputs(self, tensors: Sequence[Tensor]) -> list[tuple[str, Any]]:
        holders: dict[Storage, set[int]] = {}
        for t in tensors:
            holders.setdefault(t._storage, set()).add(id(t))
        found: list[tuple[str, Any]] = []
        first: dict[int, int] = {}
        for i, t in enumerate(tensors):
            if id(t) in first:
                found.append(("same", first[id(t)]))
                continue
            first[id(t)] = i
            found.append(self._output(t, len(holders[t._storage]) == 1))
        return found

    def _output(self, tensor: Tensor, alone: bool) -> tuple[str, Any]:
        number = self.positions.get(id(tensor))
        if number is not None:
            return "argument", number
        if id(tensor) in self.numbers:
            return "number", self._number(self.numbers[id(tensor)])
        storage, view, base = tensor._storage, tensor._view, tensor._base
        holder = self.holders.get(storage)
        if holder is not None:
            if tensor._rg and base is None:
                raise Unreplayable  # a leaf of its own over the memory of an argument
            owner = tensor if base is None else base
            for i, t in enumerate(self.arguments):
                own = t._view
                if (
                    t._storage is storage
                    and (base is None or base is t or base is t._base)
                    and (own is None or (view is not None and view.steps[: len(own.steps)] == own.steps))
                ):
                    if i in self.stands and self.given[i]._view is not None:
                        raise Unreplayable
                    counted = owner._counter is t._counter
                    return "shown", _shown("argument", i, tensor, own)._replace(counted=counted)
            raise Unreplayable
        if not self.capture.owns(storage):
            source = self.capture.aliases.get(tensor) if base is None else base
            if source is None:
                return "tensor", tensor
            if base is None and tensor._rg:
                raise Unreplayable  # a leaf of its own over memory from outside
            shown = _shown("tensor", source, tensor, source._view)
            return "shown", shown._replace(counted=tensor._counter is source._counter)
        if type(tensor) is not Tensor:
            raise Unreplayable
        whole = storage.value.type
        if alone and (view is None or view.type.numel != whole.numel or _in_order(view)):
            if tensor._rg:
                if view is not None:
                    raise Unreplayable
                return "leaf", self._number(tensor._value())
            return "result", self._number(tensor._value())
        if tensor._rg or (base is not None and (base._view is not None or base._rg)):
            raise Unreplayable
        made = self._base_of.get(storage)
        if made is None:
            made = self._base_of[storage] = len(self.bases)
            self.bases.append(self._base_tensor(tensor))
            self.entry.bases.append(self._number(self.bases[-1]._value()))
        held = self.bases[made]
        if tensor is held:
            return "base", made
        if tensor._fn is not None if base is None else base is not held:
            raise Unreplayable  # two tensors of one memory have histories of their own
        return "shown", _shown("base", made, tensor, None)._replace(counted=tensor._counter is held._counter)

    @staticmethod
    def _base_tensor(tensor: Tensor) -> Tensor:
        """The tensor that has all of a storage that was made inside."""
        if tensor._base is not None:
            return tensor._base
        if tensor._view is None:
            return tensor
        made = object.__new__(Tensor)
        made._storage, made._counter = tensor._storage, tensor._counter
        return made

    # -- inputs

    def _sort_inputs(self, read: Sequence[Value]) -> None:
        """Args: read: all values that are to be computed."""
        capture, entry = self.capture, self.entry
        parts = dict(zip(capture.parts.values(), capture.parts, strict=True))
        used = set(read)
        for node in topological(read, frozenset(parts)):
            used.update(node.operands)
        inputs = [s for s, value in capture.inputs.items() if value in used]
        ours = [s for s in inputs if s in capture.arguments]
        rest = [s for s in inputs if s not in capture.arguments]
        numbers = {id(t): i for i, t in enumerate(self.arguments)}
        entry.fed = [(numbers[id(s)], False) for s, _ in capture.stood]
        parts = {value: t for value, t in parts.items() if value in used}
        entry.fed += [(numbers[id(t)], False) for t in parts.values()]
        entry.fed += [(capture.arguments[s], True) for s in ours]
        self.begin = [*capture.stand_ins, *parts, *[capture.inputs[s] for s in ours]]
        self.rest = [capture.inputs[s] for s in rest]
        self.places = [*self.begin, *self.rest]
        for storage in rest:
            entry.storages.append(capture.grad_sources.get(storage, storage))
            entry.types.append(storage.value.type)
        self.stable = [len(entry.fed) + i for i, s in enumerate(rest) if s not in capture.writes]
        given = {id(t) for t in self.arguments} | {id(t._base) for t in self.arguments}
        entry.bind(
            t for t in capture.known if id(t) not in given and t._storage not in capture.grad_sources
        )
        reached = {t._storage for t in capture.known if id(t) not in given}
        state = {*rest, *[s for s in capture.writes if s not in capture.arguments]}
        entry.own = frozenset(state | (reached & {t._storage for t in self.given}))
        entry.shared = {i: t._storage for i, t in enumerate(self.given) if t._storage in entry.own}
        if self.stands and entry.shared:
            raise Unreplayable
        whole = {*inputs, *capture.writes}
        entry.layouts = {
            i: layout_of(t) for i, t in enumerate(self.given) if t._view is not None and t._storage in whole
        }

    def _follow_reads(self, joint: Joint | None, segments: MutableMapping[Any, Segment]) -> None:
        """Give each read of the call its segment; what these keep are inputs of what follows."""
        entry = self.entry
        sources: list[Any] = [*entry.fed, *entry.storages]
        wanted = [*self.values, *([] if joint is None else [*joint.saved, *joint.gradients])]
        path = Path(self.capture.reads, self.places, sources, wanted, Closed, segments, self.dynamic)
        entry.steps = path.steps
        if path.kept:
            self.whole = Closed("main", self.places, self.values)
        self.places = [*self.begin, *path.kept, *self.rest]
        self.stable = [i + len(path.kept) for i in self.stable]

    # -- writes and gradients

    def _sort_writes(self) -> None:
        entry, capture = self.entry, self.capture
        for storage, value in capture.writes.items():
            source: Any = capture.grad_sources.get(storage, storage)
            source = capture.arguments.get(storage, source)
            entry.writes.append((source, self._number(value)))
        for i, stand in self.stands.items():
            if stand._storage.epoch and self.positions[id(stand)] == i:
                entry.writes.append((~i, self._number(stand._value())))
        numbers: dict[int, int] = {}
        for i, t in enumerate(self.given):
            numbers.setdefault(id(t._counter), i)
        for counter, before in capture.counters.items():
            which = numbers.get(id(counter), counter)
            entry.counts.append((which, counter.number - before))

    def _sort_grads(self) -> None:
        # In the order of reading: a step that finds no gradients is then the same graph as one with them.
        order = {t: i for i, t in enumerate(self.capture.grad_guards)}
        grads = sorted(self.capture.grads.items(), key=lambda item: order.get(item[0], len(order)))
        for tensor, before in grads:
            now = tensor._grad
            owner: Any = self.positions.get(id(tensor), tensor)
            if now is None:
                self.entry.grads.append((owner, None))
            elif now is not before:
                self.entry.grads.append((owner, self._number(now._value())))

    def _saved_places(self, saved: Sequence[Value]) -> list[tuple[bool, int]]:
        inputs = {v: i for i, v in enumerate(self.places)}
        return [(True, inputs[v]) if v in inputs else (False, self._number(v)) for v in saved]

    def _watched(self, saved: Sequence[Value]) -> list[tuple[int, Any, int]]:
        """The tensors that hold what a gradient reads: arguments, others from outside, outputs; and which of
        `saved` each holds."""
        inputs = {v: i for i, v in enumerate(self.begin)}
        storages = {v: s for s, v in self.capture.inputs.items()}
        holders = {t._storage: t for t in self.capture.known}
        found: list[tuple[int, Any, int]] = []
        for place, value in enumerate(saved):
            if value in inputs:
                found.append((ARGUMENT, self.entry.fed[inputs[value]][0], place))
            elif storages.get(value) in holders:
                found.append((TENSOR, holders[storages[value]], place))
            else:
                first = len(self.entry.bases)
                found += [(OUTPUT, first + i, place) for i, (kind, x) in enumerate(self.entry.outputs)
                          if kind == "result" and self.values[x] == value]
        return found

    def _kept(self, tensors: Sequence[Tensor]) -> list[Storage]:
        grads = [t._grad._storage for t in self.capture.grads if t._grad is not None]
        return [*[t._storage for t in tensors], *grads, *[s._storage for s in self.arguments]]

    def _close(self, joint: Joint | None, places: list[tuple[bool, int]]) -> None:
        entry = self.entry
        closed = self.closed = Closed("main", self.places, self.values)
        entry.graph, entry.scalars = closed.graph, closed.scalars
        whole = self.whole or closed
        entry.whole, entry.whole_scalars = whole.graph, whole.scalars
        constants = closed.constants
        if joint is not None:
            backward = Closed("backward", [*joint.saved, *joint.cotangents], joint.gradients)
            constants += backward.constants
            types = [v.type for v in joint.cotangents]
            entry.backward = Backward(
                backward,
                places,
                self._watched(joint.saved),
                joint.leaves,
                joint.outputs,
                types,
                entry.whole,
                self._leaf_values(joint.leaves),
                self._carried(joint.outputs),
                self.dynamic,
            )
        if constants:
            raise Unreplayable  # elements of a tensor whose reading was not seen

    def _leaf_values(self, leaves: Sequence[tuple[bool, Any]]) -> list[Value | None]:
        """What leaves hold, in the whole graph; None for one that this does not read."""
        table = (self.whole or self.closed).table
        tensors = [self.arguments[which] if is_argument else which for is_argument, which in leaves]
        return [table.get(t._value()) for t in tensors]

    def _carried(self, outputs: Sequence[int]) -> list[int]:
        """Which results the tensors are that carry the history."""
        bases = self.entry.bases
        found = []
        for i in outputs:
            kind, number = ("base", i) if i < len(bases) else self.entry.outputs[i - len(bases)]
            found.append(bases[number] if kind == "base" else number)
        return found

    def first_run(self) -> Any:
        """Run the entry for the call that was recorded."""
        state = self.entry.read()
        assert state is not None  # it was recorded a moment ago
        return self.entry.replay(self.given, state)


def _in_order(view: View) -> bool:
    return is_contiguous(view.type.shape, view.strides)


_HOLE = object.__new__(Tensor)  # stands for a tensor in the structure of a result
