"""A recorded call as a program: where its inputs come from, and where its results go."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.evaluate import bind_sizes
from graphtorch.ir.evaluate import resolve as evaluated
from graphtorch.ir.graph import Graph, Node, Type, Value, topological
from graphtorch.ir.ops.require import RAISED
from graphtorch.ir.passes.fuse import CHEAP

from .._deferred import running
from .._deferred.door import Buffer
from .._deferred.programs import recorded_program
from .._deferred.storage import Leaf, RuntimeScalar, Storage, Version, View, is_contiguous, recorder
from .._deferred.tensor import Tensor, from_value, make_view
from .._deferred.write import assign
from ..autograd.engine import Task
from ..autograd.grad_mode import modes, no_grad
from ..autograd.nodes import FREED, AccumulateGrad, GradNode, _sequence, _users_stack
from ..utils.hooks import changes
from .capture import Boundary, Capture, Closed, buffer_of, rebuild, tensors_in
from .checks import Checks
from .guards import Watch
from .segments import Known, Path, Segment, Step, Unreplayable, follow, number_now


class Backward:
    """The gradient of a recorded call: a graph of its own, compiled at the first backward pass."""

    def __init__(
        self,
        graph: Closed,
        saved: Sequence[tuple[bool, int]],
        watched: Sequence[tuple[int, Any]],
        leaves: Sequence[tuple[bool, Any]],
        outputs: Sequence[int],
        types: Sequence[Type],
        forward: Entry,
        held: Sequence[Value | None],
        results: Sequence[int],
        dynamic: bool | None,
    ):
        self.graph = graph.graph
        self.dynamic = dynamic
        self.forward = forward
        self.held = tuple(held)  # what the leaves hold, in the whole forward graph, where they are there
        self.results = tuple(results)  # of the forward graph that the outputs are
        self.watched = tuple(watched)  # tensors that the gradient reads: kind, and number or tensor
        picked = ", ".join([f"{'inputs' if is_input else 'results'}[{i}]" for is_input, i in saved])
        # what of a call's buffers the gradient reads
        self.pick: Callable[[Any, Any], list[Buffer]] = eval(f"lambda inputs, results: [{picked}]")
        self.leaves = tuple(leaves)  # where gradients go: (whether an argument, its number; or the tensor)
        self._ends: tuple[int, list[Any]] = -1, []  # what `_edges` found, and when
        self.outputs = tuple(outputs)  # which of the call's outputs are differentiable
        self.types = list(types)
        self.is_static = all(t.is_static for t in types)
        self._program: Any = None

    @property
    def program(self) -> Any:
        if self._program is None:
            self._program = recorded_program(self.graph, (), self.dynamic)
        return self._program

    def _edges(self, arguments: Sequence[Tensor]) -> list[Any]:
        """Where gradients go. Ends at leaves are kept, so that the next call finds them made."""
        edges = [arguments[t]._edge() if is_argument else t._edge() for is_argument, t in self.leaves]
        if not any(is_argument for is_argument, _ in self.leaves) and all(map(_is_own_end, edges)):
            self._ends = changes.count, edges
        else:
            self._ends = -1, []
        return edges

    def unfolded(self, inputs: Sequence[Buffer], edges: Any) -> GradNode:
        """The call as one node of the autograd graph whose gradient can be differentiated again."""
        graph, held = self.forward.whole, self.held
        if None in held or graph.symbols():
            raise RuntimeError(
                "gradients of this compiled function cannot be differentiated again (create_graph=True): "
                "call the function without compile(), or put the whole computation inside it"
            )
        leaves = [Leaf(b) for b in inputs]
        table: dict[Value, Value] = dict(zip(graph.inputs, leaves, strict=True))
        for node in graph.nodes:
            made = Node(
                node.op, tuple([table[v] for v in node.operands]), node.attrs, node.types, node.location
            )
            table.update(zip(node.results(), made.results(), strict=True))
        outputs = tuple([table[graph.outputs[i]] for i in self.results])
        operands = tuple([table[v] for v in held])  # type: ignore[index]
        return GradNode("CompiledFunctionBackward", outputs, operands, edges, (None,) * len(operands))

    def attach(
        self,
        outputs: Sequence[Any],
        inputs: Sequence[Buffer],
        whole: Sequence[Buffer],
        results: Sequence[Buffer],
        arguments: Sequence[Tensor],
    ) -> None:
        """Give the differentiable outputs of one call their history; `whole`: inputs of the whole graph."""
        seen, edges = self._ends
        if seen != changes.count:
            edges = self._edges(arguments)
        node: CompiledNode = _new(CompiledNode)  # without its constructors: every call makes one
        node.edges = edges  # type: ignore[assignment]
        node.sequence = next(_sequence)
        node.owner = self
        node.saved = self.pick(inputs, results)
        node.inputs = whole
        node.types = self.types if self.is_static else [outputs[i]._type for i in self.outputs]
        node.versions = versions = []
        for kind, which in self.watched:
            counter = (
                which if kind == TENSOR else arguments[which] if kind == ARGUMENT else outputs[which]
            )._counter
            versions.append((counter, counter.number))
        if modes.anomaly:
            node.metadata["traceback_"] = _users_stack()
        for number, i in enumerate(self.outputs):
            outputs[i]._fn, outputs[i]._nr = node, number


def fresh(buffer: Buffer) -> Tensor:
    """A new tensor of these elements, outside the autograd graph; no capture is in progress."""
    leaf: Leaf = _new(Leaf)  # constructors in line: every call makes some
    leaf.type = _TYPES.get((buffer.dtype, buffer.shape)) or Type(buffer.dtype, buffer.shape)  # type: ignore[misc]
    leaf.node = None  # type: ignore[misc]
    leaf.index = 0  # type: ignore[misc]
    leaf.name = ""  # type: ignore[misc]
    leaf.buffer = buffer
    made: Tensor = _new(Tensor)
    storage = made._storage = _new(Storage)
    storage.value = leaf
    storage.epoch = 0
    storage.host = None
    made._counter = _new(Version)
    if modes.inference:
        made._inference = True
    return made


ARGUMENT, TENSOR, OUTPUT = range(3)  # what a gradient reads, and nobody may have written to since
_new: Any = object.__new__
_TYPES = Type._table


def _is_own_end(edge: Any) -> bool:
    """Whether an edge leads to the end of the graph at a leaf, and nobody has put hooks there."""
    end = edge[0]
    return type(end) is AccumulateGrad and not (end.node_hooks or end.node_prehooks or end.hooks)


class CompiledNode(GradNode):
    """The autograd node of one replayed call."""

    outputs = operands = seen = made = ()  # it has none of an operation
    _name = "CompiledFunctionBackward"

    owner: Backward
    saved: list[Buffer] | None
    inputs: Sequence[Buffer]

    versions: list[tuple[Version, int]]

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """Run the compiled gradient."""
        if self.saved is None:
            raise RuntimeError(FREED)
        for counter, number in self.versions:
            if counter.number != number:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace "
                    f"operation: a tensor that {self._name} reads is at version {counter.number}; expected "
                    f"version {number} instead. Hint: use the out-of-place form of the operation that "
                    "changed it, or clone() the tensor first"
                )
        if task.create_graph:
            gradients: list[Any] = task._recorded(self.owner.unfolded(self.inputs, self.edges), cotangents)
        else:
            given = [
                Buffer.of(np.zeros(t.shape, t.dtype.numpy)) if c is None else buffer_of(c)
                for c, t in zip(cotangents, self.types, strict=True)
            ]
            results = self.owner.program([*self.saved, *given])
            gradients = [from_value(Leaf(b)) for b in results]
        if not task.retain_graph:
            self.saved, self.inputs, self.versions = None, (), []
            self.freed = True
        return gradients


class Spent(GradNode):
    """The autograd node of results whose backward pass ran inside the recorded call."""

    freed = True

    def __init__(self, tensor: Tensor):
        super().__init__("CompiledFunctionBackward", (), (), (), ())
        self.types = [tensor._type]

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """There is nothing left to differentiate."""
        raise RuntimeError(FREED)


class Shown(NamedTuple):
    """A result that shows the memory of another tensor."""

    kind: str  # "argument", "tensor" or "base": what it is a view of
    which: Any  # a number, or the tensor
    view: View | None  # the steps are those beyond what it is a view of
    name: str  # of the view's autograd node; "" for an alias outside the graph
    creation: str
    tracked: bool
    counted: bool  # whether an alias shares the count of writes


class Entry:
    """One recording: its program, what guards it, and how it is fed."""

    backward: Backward | None = None
    state: Callable[[Sequence[Tensor]], Any]  # made by `guard`

    def __init__(self, structure: Any, count: int):
        """Args: count: of the arguments that are tensors."""
        self.count = count
        self.graph: Graph
        self.whole: Graph  # the same from the start on, without what segments keep
        self.whole_scalars: list[RuntimeScalar] = []
        self.structure = structure
        self.fed: list[tuple[int, bool]] = []  # inputs: numbers of arguments, and whether with their storage
        self.storages: list[Storage | Tensor] = []  # inputs after these; a Tensor stands for its gradient
        self.types: list[Type] = []
        self.scalars: list[RuntimeScalar] = []
        self.steps: list[Step] = []  # values that Python read, on which the rest depends
        self.guards: list[tuple[Tensor, bool]] = []
        self.values: list[tuple[Storage, int]] = []  # storages read in Python, and their writes until then
        self.bound: list[Tensor] = []  # tensors that are not arguments: they are to be as they were
        self.own: frozenset[Storage] = frozenset()  # storages that are not arguments'
        self.shared: dict[int, Storage] = {}  # arguments that are to have one of those
        self.layouts: dict[int, Any] = {}  # arguments that are to lie in their storage as they did
        self.generators: list[tuple[Any, int]] = []
        self.bases: list[int] = []  # results that become tensors of which outputs are views
        self.outputs: list[tuple[str, Any]] = []  # kind, and number, tensor or `Shown`
        self.spent: list[int] = []  # bases and outputs whose backward pass ran inside
        self.writes: list[
            tuple[Storage | Tensor | int, int]
        ] = []  # (storage, gradient's tensor or argument, inverted for a part; result)
        self.counts: list[tuple[Version | int, int]] = []  # writes that tensors, or arguments, have counted
        self.grads: list[tuple[Tensor | int, int | None]] = []
        self.only: int | None = None  # the result to return, where that is all there is to deliver
        self.program: Any = None
        self.ran = False  # whether it was replayed
        self._met: list[Any] = [([], [])]  # what the storages were last seen to hold: values, buffers

    def guard(self, watch: Watch) -> None:
        """From now on all has to be as it is: what `watch` saw, and the tensors that are not arguments.

        It makes `state`: what the program reads beside the arguments it is given, or None where something is
        not what was recorded.
        """
        checks = Checks()
        for storage, epoch in self.values:
            checks.add(f"{checks.const(storage)}.epoch == {epoch}")
        for tensor in self.bound:
            checks.tensor(tensor)
        watch.write(checks)
        for tensor, absent in self.guards:
            checks.add(f"{checks.const(tensor)}._grad is {'' if absent else 'not '}None")
        if self.shared:
            checks.add(f"{checks.const(self._apart)}(given)")
        elif self.own:
            for i in range(self.count):
                checks.add(f"given[{i}]._storage not in {checks.const(self.own)}")
        if self.layouts:
            checks.add(f"{checks.const(self._lie_alike)}(given)")
        self.state = checks.function("given", self._reading(checks), "None")

    def _reading(self, checks: Checks) -> list[str]:
        """The lines that read the storages."""
        if not self.storages:
            return ["return ()"]
        names = [checks.const(s) + ("" if type(s) is Storage else "._grad._storage") for s in self.storages]
        hosts = " is ".join([f"{n}.host" for n in names])
        met = checks.const(self._met)
        return [
            f"values = [{', '.join([f'{n}.value' for n in names])}]",
            f"met = {met}[0]",
            f"if values == met[0] and {hosts} is None:",
            "    return met[1]",  # weights of a model that is not being trained
            f"return {checks.const(self.read)}()",
        ]

    def read(self) -> list[Buffer] | None:
        """What the storages hold; None where that is of other types than recorded."""
        sources = [s if type(s) is Storage else s._grad._storage for s in self.storages]  # type: ignore[union-attr]
        if [s.value.type for s in sources] != self.types:
            return None
        for storage in sources:
            running.settle(storage)
        values: list[Any] = [s.value for s in sources]
        buffers = [_fitting(v.buffer, s) for v, s in zip(values, sources, strict=True)]
        if not self.writes:  # a step's old weights are not to be held on to
            self._met[0] = values, buffers
        return buffers

    def _apart(self, arguments: Sequence[Tensor]) -> bool:
        """Whether arguments use the storages that others use just where they did."""
        return all(
            (tensor._storage not in self.own and i not in self.shared)
            or self.shared.get(i) is tensor._storage
            for i, tensor in enumerate(arguments)
        )

    def _lie_alike(self, arguments: Sequence[Tensor]) -> bool:
        return all(layout_of(arguments[i]) == layout for i, layout in self.layouts.items())

    def bind(self, tensors: Iterable[Tensor]) -> None:
        """From now on these have to be as they are now, too."""
        self.bound = list(dict.fromkeys((*self.bound, *tensors)))
        self._storages = [t._storage for t in self.bound]
        self._flags = [(t._rg, t._fn is None) for t in self.bound]

    def alive(self) -> bool:
        """Whether this recording can still serve: the tensors it is bound to are as they were, and what
        Python read of others as well."""
        return (
            all(storage.epoch == epoch for storage, epoch in self.values)
            and [t._storage for t in self.bound] == self._storages  # a storage is equal to itself alone
            and [(t._rg, t._fn is None) for t in self.bound] == self._flags
        )

    def replay(self, arguments: Sequence[Tensor], state: Sequence[Buffer], known: Known | None = None) -> Any:
        """Run the recorded call on other arguments, in a `state` that was found to fit.

        Args:
            known: what segments of other recordings made in this call.

        Returns:
            OTHER where a value that Python reads leads to another path.

        Raises:
            Failed: an error that data has led to; nothing has been changed yet.
        """
        inputs = self._inputs(arguments)
        kept: list[Buffer] = []
        try:
            if self.steps:
                found = follow(self.steps, [*inputs, *state], {} if known is None else known)
                if found is None:
                    return OTHER
                kept = found
            given = [*inputs, *kept] if kept else inputs
            numbers = [number_now(s) for s in self.scalars] if self.scalars else []
            results = self.program([*given, *state, *numbers]) if numbers else self.program(given, state)
        except RAISED as error:
            if self.graph.symbols():
                raise  # sizes that are not what their Dims say
            raise Failed from error
        whole: list[Buffer] = []
        if self.backward is not None:
            given = [*given, *state]
            if kept:
                whole = [*inputs, *state, *[number_now(s) for s in self.whole_scalars]]
            else:
                whole = [*given, *numbers] if numbers else given
        for generator, used in self.generators:
            generator._offset += used
        return self._deliver(results, given, whole, arguments)

    def _inputs(self, arguments: Sequence[Tensor]) -> list[Buffer]:
        inputs: list[Buffer] = []
        for i, whole in self.fed:
            tensor = arguments[i]
            value = tensor._storage.value
            if type(value) is Leaf and tensor._view is None:
                inputs.append(value.buffer)
            else:
                inputs.append(_settled(tensor._storage) if whole else buffer_of(tensor))
        return inputs

    def _deliver(
        self,
        results: Sequence[Buffer],
        inputs: Sequence[Buffer],
        whole: Sequence[Buffer],
        arguments: Sequence[Tensor],
    ) -> Any:
        if self.only is not None:
            result = fresh(results[self.only])
            if self.backward is not None:
                self.backward.attach((result,), inputs, whole, results, arguments)
            return result
        for target, i in self.writes:
            _write(target, Leaf(results[i]), arguments)
        for counter, count in self.counts:
            (arguments[counter]._counter if type(counter) is int else counter).number += count  # type: ignore[union-attr]
        for owner, number in self.grads:
            tensor: Any = arguments[owner] if type(owner) is int else owner
            tensor._grad = None if number is None else fresh(results[number])
        bases = [fresh(results[x]) for x in self.bases]
        made: list[Any] = []
        shown = False
        for kind, x in self.outputs:
            if kind == "result":
                made.append(fresh(results[x]))
            elif kind == "number":
                made.append(results[x].numpy().item())
            elif kind == "argument":
                made.append(arguments[x])
            elif kind == "base":
                made.append(bases[x])
            elif kind == "same":
                made.append(made[x])
            elif kind == "tensor":
                made.append(x)
            elif kind == "leaf":
                made.append(fresh(results[x]))
                made[-1]._rg = True
            else:
                made.append(None)
                shown = True
        if self.backward is not None or self.spent:
            carriers = [*bases, *made]
            if self.backward is not None:
                self.backward.attach(carriers, inputs, whole, results, arguments)
            for i in self.spent:
                carriers[i]._fn = Spent(carriers[i])
        if shown:
            for i, (kind, x) in enumerate(self.outputs):
                if kind == "shown":
                    made[i] = _show(self._sized(x, arguments), bases, arguments)
            for i, (kind, x) in enumerate(self.outputs):
                if kind == "same":
                    made[i] = made[x]
        if self.structure is _SINGLE:
            return made[0]
        position = iter(made)
        return rebuild(self.structure, lambda _: next(position))

    def _sized(self, shown: Shown, arguments: Sequence[Tensor]) -> Shown:
        """`shown` with the sizes of this call in the place of symbols."""
        view = shown.view
        if view is None or view.type.is_static:
            return shown
        values = self.graph.inputs[: len(self.fed)]
        shapes = [arguments[i]._type.shape for i, _ in self.fed]
        sizes = bind_sizes(values, shapes)  # type: ignore[arg-type]
        shape, strides, offset = evaluated((view.type.shape, view.strides, view.offset), sizes)
        steps = tuple(
            [
                replace(s, **{f.name: evaluated(getattr(s, f.name), sizes) for f in fields(s)})
                for s in view.steps
            ]
        )
        return shown._replace(view=View(steps, view.type.with_shape(shape), offset, strides))

    def explain(self) -> str:
        """What runs."""
        texts = [s.segment.program.explain() for s in self.steps if s.segment.program is not None]
        text = "".join([*dict.fromkeys(texts), self.program.explain()])
        return text if self.backward is None else text + "\nbackward:\n" + self.backward.program.explain()


def layout_of(tensor: Tensor) -> Any:
    """How a tensor lies in its storage."""
    view = tensor._view
    return tensor._storage.value.type, None if view is None else (view.strides, view.offset, view.type)


def _show(shown: Shown, bases: Sequence[Tensor], arguments: Sequence[Tensor]) -> Tensor:
    """A view of, or an alias for, what a result shows."""
    owner: Tensor = (
        bases[shown.which]
        if shown.kind == "base"
        else arguments[shown.which]
        if shown.kind == "argument"
        else shown.which
    )
    view, own = shown.view, owner._view
    if not shown.name:
        made = owner.detach() if shown.counted else owner.data
        if view is not None:
            made._view = _beyond(own, view)
        return made
    assert view is not None
    whole = _beyond(own, view)
    made = make_view(owner, view.steps, whole.type, whole.offset, whole.strides, shown.name, shown.creation)
    if not shown.tracked:
        made._tracked = False
        made._creation = shown.creation
    return made


def _beyond(own: View | None, view: View) -> View:
    """`view`, whose steps come after those of `own`."""
    return (
        view
        if own is None
        else View(own.steps + view.steps, view.type, own.offset + view.offset, view.strides)
    )


_SINGLE = object()


def _settled(storage: Storage) -> Buffer:
    """The elements of a storage, computed if need be."""
    running.settle(storage)
    return _fitting(storage.value.buffer, storage)  # type: ignore[attr-defined]


def _fitting(buffer: Buffer, storage: Storage) -> Buffer:
    """The elements of a storage for a program; code outside may have written to memory that is shared with
    it, so that what was packed of it is stale."""
    if storage.host is None:
        return buffer
    return Buffer(buffer.address, buffer.dtype, buffer.shape, buffer.owner)


def _write(target: Any, leaf: Leaf, arguments: Sequence[Tensor]) -> None:
    if type(target) is int:
        if target < 0:  # what a stand-in for a part of a storage got
            with no_grad():
                assign(arguments[~target], from_value(leaf))
            return
        storage = arguments[target]._storage
    else:
        storage = target if type(target) is Storage else target._grad._storage
    if storage.host is None:
        storage.value = leaf
        storage.epoch += 1
    else:
        running.store(storage, leaf)


# ------------------------------------------------------------------------------------------ from a capture


class Failed(Exception):
    """A program ended with an error that its data led to."""


OTHER = object()  # in the place of a result: the call is on another path


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
    entry.generators = list(capture.drawn.items())
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
            _SINGLE if isinstance(result, Tensor) else rebuild(result, lambda _: _HOLE), len(arguments)
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
            if carrier is not None and _ends_of([carrier])[1]:
                entry.spent.append(i)
                carriers[i] = None
        capture.forward = list(capture.created.values())
        joint = _joint_gradient(carriers, self.positions)
        saved = [] if joint is None else joint.saved
        self._sort_inputs([*self.values, *saved, *[r.value for r in capture.reads]])
        if capture.escaped(self._kept(tensors)):
            raise Unreplayable
        if capture.reads:
            self._follow_reads(joint, segments)
        places = self._saved_places(saved)
        self._close(joint, places)
        (kind, number), *more = entry.outputs or [("", 0)]
        if kind == "result" and entry.structure is _SINGLE and not more:
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
            if base is None:
                return "tensor", tensor
            return "shown", _shown("tensor", base, tensor, base._view)
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

    def _follow_reads(self, joint: _Joint | None, segments: MutableMapping[Any, Segment]) -> None:
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

    def _watched(self, saved: Sequence[Value]) -> list[tuple[int, Any]]:
        """The tensors that hold what a gradient reads: arguments, others from outside, outputs."""
        inputs = {v: i for i, v in enumerate(self.begin)}
        storages = {v: s for s, v in self.capture.inputs.items()}
        holders = {t._storage: t for t in self.capture.known}
        found: list[tuple[int, Any]] = []
        for value in saved:
            if value in inputs:
                found.append((ARGUMENT, self.entry.fed[inputs[value]][0]))
            elif storages.get(value) in holders:
                found.append((TENSOR, holders[storages[value]]))
            else:
                first = len(self.entry.bases)
                found += [(OUTPUT, first + i) for i, (kind, x) in enumerate(self.entry.outputs)
                          if kind == "result" and self.values[x] == value]
        return list(dict.fromkeys(found))

    def _kept(self, tensors: Sequence[Tensor]) -> list[Storage]:
        grads = [t._grad._storage for t in self.capture.grads if t._grad is not None]
        return [*[t._storage for t in tensors], *grads, *[s._storage for s in self.arguments]]

    def _close(self, joint: _Joint | None, places: list[tuple[bool, int]]) -> None:
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
                entry,
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


class _Joint:
    """The gradient of a call's outputs, and what of the forward pass it reads."""

    def __init__(
        self,
        gradients: list[Value],
        cotangents: list[Value],
        leaves: list[tuple[bool, Any]],
        outputs: list[int],
    ):
        self.gradients, self.cotangents, self.leaves, self.outputs = gradients, cotangents, leaves, outputs
        self.saved = _frontier(gradients, cotangents)


def _joint_gradient(carriers: Sequence[Tensor | None], positions: Mapping[int, int]) -> _Joint | None:
    """The gradient of results (None for those without a history of their own)."""
    numbers = [i for i, t in enumerate(carriers) if t is not None and not t._rg and t.requires_grad]
    roots = [carriers[i] for i in numbers]
    ends = _ends_of(roots)[0]  # type: ignore[arg-type]
    if not ends:
        return None
    cotangents = [Value(t._type, name=f"cotangent{n}") for n, t in enumerate(roots)]  # type: ignore[union-attr]
    task = Task(True, False, accumulates=False)
    task.runs_hooks = False  # they run when a gradient gets there
    for position, node in enumerate(ends):
        task.wanted[node, 0] = [position]
    edges = [t._edge() for t in roots]  # type: ignore[union-attr]
    beyond = {e: e.edges for e in ends if isinstance(e, Boundary)}
    for end in beyond:
        end.edges = ()
    try:
        task.run([(e, from_value(c)) for e, c in zip(edges, cotangents, strict=True)])  # type: ignore[misc]
    finally:
        for end, outer in beyond.items():
            end.edges = outer
    found = [
        (ends[p].variable, task.captured[p].to_dense()._value())
        for p in sorted(task.captured)
        if task.captured[p] is not None
    ]
    leaves = [(True, positions[id(t)]) if id(t) in positions else (False, t) for t, _ in found]
    return _Joint([v for _, v in found], cotangents, leaves, numbers)


def _ends_of(tensors: Sequence[Tensor]) -> tuple[list[Any], bool]:
    """The ends of the autograd graph behind some tensors, and whether part of it was freed."""
    ends: list[Any] = []
    seen: set[GradNode] = set()
    stack = [t.grad_fn for t in tensors]
    freed = False
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, AccumulateGrad):
            ends.append(node)
            continue
        if node.hooks or node.retained or node.node_hooks or node.node_prehooks or node.runs_hooks:
            raise Unreplayable  # hooks are to run at each backward pass
        if isinstance(node, Boundary):
            ends.append(node)
            continue
        freed = freed or node.freed
        stack.extend(e[0] for e in node.edges if e is not None)
    return ends, freed


def _frontier(gradients: Sequence[Value], cotangents: Sequence[Value]) -> list[Value]:
    """Values of the forward pass that the nodes of the gradient read, constants apart."""
    depends: dict[Any, bool] = {}
    varies: dict[Any, bool] = {}
    given = set(cotangents)
    order = topological(gradients)
    for node in order:
        depends[node] = any(v in given if v.node is None else depends[v.node] for v in node.operands)
        varies[node] = any(v not in given if v.node is None else varies[v.node] for v in node.operands)
    saved: dict[Value, None] = {}
    for node in order:
        if not depends[node]:
            continue
        for v in node.operands:
            if v in given or (isinstance(v, Leaf) and not isinstance(v, RuntimeScalar)):
                continue
            if v.node is None or (not depends[v.node] and varies[v.node]):
                saved[v] = None
    for v in gradients:
        if v not in given and v.node is not None and not depends[v.node] and varies[v.node]:
            saved[v] = None
    return _made_again(saved)


def _made_again(saved: Mapping[Value, None]) -> list[Value]:
    """`saved` without what is as well made from the others once more, such as the mask of a relu."""
    kept = dict.fromkeys(saved)
    for value in saved:
        node = value.node
        if node is None or node.op.name not in CHEAP:
            continue
        operands = [v for v in node.operands if not (v.node is not None and v.node.op is ops.constant)]
        if operands and all(v in kept and v is not value for v in operands):
            del kept[value]
    return list(kept)
