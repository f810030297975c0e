"""From a finished capture to a replay and its guards: inputs, writes and gradients are sorted."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from graphtorch.ir.evaluate import specialize
from graphtorch.ir.graph import Graph, Type, Value, topological
from graphtorch.ir.judge import assuming

from .._deferred.programs import Serving, recorded_program
from .._deferred.storage import Storage, recorder
from .._deferred.tensor import Tensor
from .._types import CPU
from .capture import Boundary, Capture, Closed
from .entry import Guards, Replay, layout_of
from .gradient import ARGUMENT, OUTPUT, TENSOR, Backward, Joint, joint_gradient
from .outputs import Given, Returned
from .results import SINGLE, result_of
from .segments import Path, Segment, Step, Unobserved, Unreplayable
from .sizes import Assumed, Symbols

HANDED = 1 << 16  # bytes from which on results take over memory


class Made(NamedTuple):
    """A recorded call, which is still to be run for the first time."""

    replay: Replay
    guards: Guards


def record(
    capture: Capture,
    call: Callable[[], Any],
    given: Given,
    serving: Serving,
    segments: MutableMapping[Any, Segment],
    judge: Assumed | None = None,
    symbols: Symbols = (),
) -> Made | Any:
    """Record one call and compile it.

    Args:
        call: the function on what stands for its arguments.
        segments: those of other recordings of the function, by what they do; new ones are added.
        judge: decides how sizes compare where some are symbols.
        symbols: where these stand.

    Returns:
        A `Made`; the call's result where the capture was called off.

    Raises:
        RuntimeError: a gradient is to be computed, in the call or later, and not in full precision.
    """
    with nullcontext() if judge is None else assuming(judge):
        result = capture.call(call)
        recording = None if capture.off else _sorted(capture, result, given, serving, segments)
        if recording is None or capture.off:
            return result
        if judge is not None:
            recording.assume(judge, symbols)
    capture.restore()
    if recording.backward is not None or capture.differentiates:
        refuse_gradient("compile()", serving.precision)
    return Made(recording.replay(), recording.guards())


def _sorted(capture: Capture, result: Any, *others: Any) -> Recording | None:
    """What a finished capture holds; None where it is called off."""
    recorder.capture = capture
    try:
        return Recording(capture, result, *others)
    except Unreplayable as reason:
        if not capture.call_off(True):
            capture.restore()
            if isinstance(reason, Unobserved):
                raise
            raise RuntimeError("the function cannot be recorded with symbols for sizes") from None
        capture.why = str(reason) or capture.why
        if isinstance(reason, Unobserved):
            capture.awaited = reason.functions
    except (RuntimeError, NotImplementedError):
        if not capture.off and not capture.call_off(True):
            capture.restore()
            raise
    finally:
        recorder.capture = None
    return None


def refuse_gradient(caller: str, precision: str | None) -> None:
    """Raise RuntimeError where products that are to be computed at `precision` have a gradient."""
    if precision is not None:
        raise RuntimeError(
            f"{caller}: products at precision={precision!r} have no gradient, but one is needed "
            "here: call the function under torch.no_grad() or torch.inference_mode(), freeze the "
            "model with requires_grad_(False), or leave out precision= where it is trained"
        )


def _is_large(type_: Type) -> bool:
    """Whether memory of a type's is worth updating in place: less is copied at less cost than it
    takes to see that nobody else holds it."""
    return isinstance(type_.numel, int) and type_.numel * type_.dtype.itemsize >= HANDED


class Recording:
    """Sorts what a finished capture holds into what a `Replay` and its `Guards` are made of.

    Attributes:
        places: the values that the program starts from: arguments, what segments kept, and others.
    """

    def __init__(
        self,
        capture: Capture,
        result: Any,
        given: Given,
        serving: Serving,
        segments: MutableMapping[Any, Segment],
    ):
        self.capture, self.given, self.serving = capture, given, serving
        self._check_known()
        self.values: list[Value] = []
        self.returned = Returned(capture, given, result, self.values)
        self.writes = self._sorted_writes()
        self.grads = self._sorted_grads()
        carriers, self.spent = self.returned.carriers()
        capture.forward = list(capture.created.values())
        # the backward passes of custom functions are the user's Python, too
        with capture.watching():
            joint = joint_gradient(carriers, given.positions)
        del carriers
        saved = [] if joint is None else joint.saved
        self._sort_inputs([*self.values, *saved, *[r.value for r in capture.reads]])
        if capture.escaped(self._kept()):
            raise Unreplayable
        self.steps: tuple[Step, ...] = ()
        whole = self._follow_reads(joint, segments) if capture.reads else None
        read = self._saved_places(saved)
        self.closed = Closed("main", self.places, self.values)
        self.whole = whole or self.closed
        self.graph = self.closed.graph
        self.backward = None if joint is None else self._backward(joint, read)
        if self.closed.constants or (self._gradient is not None and self._gradient.constants):
            raise Unreplayable  # elements of a tensor whose reading was not seen
        self.symbols: Symbols = ()
        self.pinned: dict[str, int] = {}
        self.conditions: tuple[Any, ...] = ()

    def replay(self) -> Replay:
        """The call as a program."""
        return Replay(
            graph=self.graph,
            whole=self.whole.graph,
            program=recorded_program(
                self._donating(), self.stable, self.serving, self.conditions, self.returned.devices
            ),
            backward=self.backward,
            fed=tuple(self.fed),
            storages=tuple(self.storages),
            types=self.types,
            handed=tuple([i for _, i in self._handed()]),
            scalars=tuple(self.closed.scalars),
            whole_scalars=tuple(self.whole.scalars),
            steps=self.steps,
            draws=bool(self.capture.drawn),
            outputs=self.returned.outputs(self.spent),
            writes=tuple(self.writes),
            counts=tuple(self.counts),
            grads=tuple(self.grads),
            only=self._only(),
            symbols=self.symbols,
        )

    def _handed(self) -> list[tuple[int, int]]:
        """Results that may take over the memory of a storage that they replace: numbers of both.

        Not where the call is gone through again, or a gradient is computed later, from what was
        there before.
        """
        if self.backward is not None or self.steps or set(self.returned.devices) - {CPU}:
            return []
        numbers = {id(s): i for i, s in enumerate(self.storages)}
        found = [(result, numbers.get(id(target), -1)) for target, result in self.writes]
        return [(r, i) for r, i in found if i >= 0 and _is_large(self.types[i])]

    def _donating(self) -> Graph:
        """The graph, with what its results may take over."""
        graph, first = self.graph, len(self.places) - len(self.rest)
        pairs = [(result, first + i) for result, i in self._handed()]
        return (
            Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, pairs) if pairs else graph
        )

    def guards(self) -> Guards:
        """What the call depends on beside its arguments' types and what Python read."""
        tensors, capture = self.given.tensors, self.capture
        return Guards(
            count=len(tensors),
            bound=tuple(self.bound),
            values=tuple(capture.value_guards.items()),
            grads=tuple(capture.grad_guards.items()),
            own=self.own,
            shared=self.shared,
            layouts=self.layouts,
            symbols=self.symbols,
            pinned=self.pinned,
            conditions=self.conditions,
            drawn=tuple(capture.drawn.items()),
        )

    def _only(self) -> int | None:
        """The result to return, where that is all there is to deliver."""
        outputs = self.returned.outputs(self.spent)
        (kind, number), *more = outputs.kinds or [("", 0)]
        if kind != "result" or outputs.structure is not SINGLE or more:
            return None
        return None if self.writes or self.counts or self.grads or self.spent else number

    def assume(self, judge: Assumed, symbols: Symbols) -> None:
        """Note what the recording assumed of its sizes; symbols that can be but one number become
        that."""
        self.symbols, self.pinned, self.conditions = (
            tuple(symbols),
            judge.pinned(),
            tuple(judge.open()),
        )
        self.graph = specialize(self.graph, self.pinned)
        if self.backward is not None:
            self.backward.assume(self.symbols, self.pinned, self.conditions)

    def _check_known(self) -> None:
        """Refuse where a tensor from outside has another storage, view, flag or history than
        before."""
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
            if stand in capture.grads or stand in capture.grad_guards:
                raise Unreplayable  # the argument may have a gradient

    # -- inputs

    def _sort_inputs(self, read: Sequence[Value]) -> None:
        """Args: read: all values that are to be computed."""
        capture, given = self.capture, self.given
        parts = dict(zip(capture.parts.values(), capture.parts, strict=True))
        used = set(read)
        for node in topological(read, frozenset(parts)):
            used.update(node.operands)
        inputs = [s for s, value in capture.inputs.items() if value in used]
        ours = [s for s in inputs if s in capture.arguments]
        rest = [s for s in inputs if s not in capture.arguments]
        parts = {value: t for value, t in parts.items() if value in used}
        alone = [*[s for s, _ in capture.stood], *parts.values()]
        numbers = {id(t): i for i, t in enumerate(given.used)}
        self.fed = [
            *[(numbers[id(t)], False) for t in alone],
            *[(capture.arguments[s], True) for s in ours],
        ]
        self.begin = [*capture.stand_ins, *parts, *[capture.inputs[s] for s in ours]]
        self.rest = [capture.inputs[s] for s in rest]
        self.places = [*self.begin, *self.rest]
        self.storages: list[Storage | Tensor] = [capture.grad_sources.get(s, s) for s in rest]
        self.types: list[Type] = [s.value.type for s in rest]
        self.stable = [len(self.fed) + i for i, s in enumerate(rest) if s not in capture.writes]
        self._sort_memory(inputs, rest)

    def _sort_memory(self, inputs: Sequence[Storage], rest: Sequence[Storage]) -> None:
        """Which tensors are bound, and which storages arguments are, or are not, to use."""
        capture, tensors = self.capture, self.given.tensors
        used = self.given.used
        ids = {id(t) for t in used} | {id(t._base) for t in used}
        outside = [t for t in capture.known if id(t) not in ids]
        self.bound = [t for t in outside if t._storage not in capture.grad_sources]
        reached = {t._storage for t in outside}
        state = {*rest, *[s for s in capture.writes if s not in capture.arguments]}
        self.own = frozenset(state | (reached & {t._storage for t in tensors}))
        self.shared = {i: t._storage for i, t in enumerate(tensors) if t._storage in self.own}
        if self.given.stands and self.shared:
            raise Unreplayable
        whole = {*inputs, *capture.writes}
        self.layouts = {
            i: layout_of(t)
            for i, t in enumerate(tensors)
            if t._view is not None and t._storage in whole
        }

    def _follow_reads(
        self, joint: Joint | None, segments: MutableMapping[Any, Segment]
    ) -> Closed | None:
        """Give each read of the call its segment; what these keep are inputs of what follows. The
        program without that, if there is something."""
        sources: list[Any] = [*self.fed, *self.storages]
        wanted = [*self.values, *([] if joint is None else [*joint.saved, *joint.gradients])]
        path = Path(
            self.capture.reads,
            self.places,
            sources,
            wanted,
            Closed,
            segments,
            self.stable,
            self.serving,
            self.capture.place,
        )
        self.steps = tuple(path.steps)
        whole = Closed("main", self.places, self.values) if path.kept else None
        self.places = [*self.begin, *path.kept, *self.rest]
        self.stable = [i + len(path.kept) for i in self.stable]
        return whole

    # -- writes and gradients

    def _sorted_writes(self) -> list[tuple[Storage | Tensor | int, int]]:
        capture, given = self.capture, self.given
        writes: list[tuple[Storage | Tensor | int, int]] = []
        for storage, value in capture.writes.items():
            source: Any = capture.grad_sources.get(storage, storage)
            source = capture.arguments.get(storage, source)
            writes.append((source, self.returned.number(value, storage.place)))
        for i, stand in given.stands.items():
            if stand._storage.epoch and given.positions[id(stand)] == i:
                writes.append((~i, self.returned.number(stand._value(), stand.device)))
        numbers: dict[int, int] = {}
        for i, t in enumerate(given.tensors):
            numbers.setdefault(id(t._counter), i)
        self.counts = [
            (numbers.get(id(counter), counter), counter.number - before)
            for counter, before in capture.counters.items()
        ]
        return writes

    def _sorted_grads(self) -> list[tuple[Tensor | int, int | None]]:
        # In the order of reading: a step that finds no gradients is then the same graph as one with
        # them.
        order = {t: i for i, t in enumerate(self.capture.grad_guards)}
        found: list[tuple[Tensor | int, int | None]] = []
        for tensor, before in sorted(
            self.capture.grads.items(), key=lambda item: order.get(item[0], len(order))
        ):
            now = tensor._grad
            owner: Any = self.given.positions.get(id(tensor), tensor)
            if now is None:
                found.append((owner, None))
            elif now is not before:
                found.append((owner, self.returned.number(now._value(), now.device)))
        return found

    def _saved_places(self, saved: Sequence[Value]) -> list[tuple[bool, int]]:
        inputs = {v: i for i, v in enumerate(self.places)}
        return [
            (True, inputs[v]) if v in inputs else (False, self.returned.number(v)) for v in saved
        ]

    def _watched(self, joint: Joint) -> list[tuple[int, Any, int]]:
        """The tensors that nodes of the gradient keep: arguments, others from outside, outputs; and
        which of the saved values each holds (-1: none)."""
        places, returned = self._held_by(joint.saved), self.returned
        used = self.given.used
        ids = {id(t) for t in used} | {id(t._base) for t in used}
        made = [
            *returned.bases,
            *[
                t if result_of(*kind) is not None else None  # others show what is here already
                for t, kind in zip(returned.tensors, returned.kinds, strict=True)
            ],
        ]
        tensors: list[tuple[int, Any, Tensor]] = [
            *[(ARGUMENT, i, t) for i, t in enumerate(used)],
            *[(TENSOR, t, t) for t in self.capture.known if id(t) not in ids],
            *[(OUTPUT, i, t) for i, t in enumerate(made) if t is not None],
        ]
        found: list[tuple[int, Any, int]] = []
        for kind, which, tensor in tensors:
            if tensor._counter in joint.counters:
                key = kind, id(which) if kind == TENSOR else which
                found += [(kind, which, place) for place in places.get(key, (-1,))]
        return found

    def _held_by(self, saved: Sequence[Value]) -> dict[tuple[int, int], list[int]]:
        """Which of the saved values are those of arguments, others from outside, and outputs."""
        inputs = {v: i for i, v in enumerate(self.begin)}
        storages = {v: s for s, v in self.capture.inputs.items()}
        holders = {t._storage: t for t in self.capture.known}
        found: dict[tuple[int, int], list[int]] = {}
        for place, value in enumerate(saved):
            if value in inputs:
                found.setdefault((ARGUMENT, self.fed[inputs[value]][0]), []).append(place)
            elif storages.get(value) in holders:
                found.setdefault((TENSOR, id(holders[storages[value]])), []).append(place)
            else:
                first = len(self.returned.bases)
                for i, (kind, x) in enumerate(self.returned.kinds):
                    number = result_of(kind, x)
                    if number is not None and self.values[number] == value:
                        found.setdefault((OUTPUT, first + i), []).append(place)
        return found

    def _kept(self) -> list[Storage]:
        grads = [t._grad._storage for t in self.capture.grads if t._grad is not None]
        return [
            *[t._storage for t in self.returned.tensors],
            *grads,
            *[s._storage for s in self.given.used],
        ]

    _gradient: Closed | None = None

    def _backward(self, joint: Joint, places: list[tuple[bool, int]]) -> Backward:
        self._gradient = Closed("backward", [*joint.saved, *joint.cotangents], joint.gradients)
        return Backward(
            self._gradient,
            places,
            self._watched(joint),
            joint.leaves,
            joint.outputs,
            [v.type for v in joint.cotangents],
            self.whole.graph,
            self._leaf_values(joint.leaves),
            self.returned.carried(joint.outputs),
            self.serving,
            self.capture.place,
        )

    def _leaf_values(self, leaves: Sequence[tuple[bool, Any]]) -> list[Value | None]:
        """What leaves hold, in the whole graph; None for one that this does not read."""
        tensors = [
            self.given.used[which] if is_argument else which for is_argument, which in leaves
        ]
        return [self.whole.table.get(t._value()) for t in tensors]
