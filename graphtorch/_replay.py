"""A recorded call as a program: where its inputs come from, and where its results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph, Type, Value, topological

from . import _record
from ._capture import Capture, Closed, rebuild, tensors_in
from ._grad_mode import no_grad
from ._grad_node import FREED, AccumulateGrad, GradNode
from ._memory import Buffer, captured_program
from ._write import assign
from .autograd.engine import Task
from .storage import Leaf, RuntimeScalar, Storage, is_contiguous
from .tensor import Tensor, from_value


def buffer_of(tensor: Tensor) -> Buffer:
    """The elements of a tensor, row-major; no copy where they lie so."""
    storage = tensor._storage
    _record.settle(storage)
    buffer = storage.value.buffer  # type: ignore[attr-defined]
    view = tensor._view
    if view is None:
        return buffer
    if view.type.dtype is buffer.dtype and is_contiguous(view.type.shape, view.strides):
        return buffer.part(view.offset, view.type.shape)
    return Buffer.of(tensor._array().copy())


class Backward:
    """The gradient of a recorded call: a graph of its own, compiled at the first backward pass."""

    def __init__(
        self,
        graph: Closed,
        saved: Sequence[tuple[bool, int]],
        leaves: Sequence[tuple[bool, Any]],
        outputs: Sequence[int],
        types: Sequence[Type],
    ):
        self.graph = graph.graph
        self.saved = tuple(saved)  # (whether an input, else a result of the forward program; which)
        self.leaves = tuple(leaves)  # (whether an argument, its number; else the tensor)
        self.outputs = tuple(outputs)  # which of the call's outputs are differentiable
        self.types = tuple(types)
        self._program: Any = None

    @property
    def program(self) -> Any:
        if self._program is None:
            self._program = captured_program(self.graph)
        return self._program

    def attach(
        self,
        outputs: Sequence[Any],
        inputs: Sequence[Buffer],
        results: Sequence[Buffer],
        arguments: Sequence[Tensor],
    ) -> None:
        """Give the differentiable outputs of one call their history."""
        saved = [inputs[i] if is_input else results[i] for is_input, i in self.saved]
        edges = tuple([arguments[t]._edge() if is_argument else t._edge() for is_argument, t in self.leaves])
        node = CompiledNode(self, saved, edges, [outputs[i] for i in self.outputs])
        for number, i in enumerate(self.outputs):
            outputs[i]._fn, outputs[i]._nr = node, number


class CompiledNode(GradNode):
    """The autograd node of one replayed call."""

    def __init__(self, owner: Backward, saved: list[Buffer], edges: Any, outputs: Sequence[Tensor]):
        super().__init__("CompiledFunctionBackward", (), (), edges, ())
        self.types = [t._type for t in outputs]
        self.owner = owner
        self.saved: list[Buffer] | None = saved

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """Run the compiled gradient."""
        if self.saved is None:
            raise RuntimeError(FREED)
        if task.create_graph:
            raise RuntimeError(
                "gradients of a compiled function cannot be differentiated again (create_graph=True): "
                "call the "
                "function without compile(), or put the whole computation inside the compiled function"
            )
        given = [
            Buffer.of(np.zeros(t.shape, t.dtype.numpy)) if c is None else buffer_of(c)
            for c, t in zip(cotangents, self.types, strict=True)
        ]
        results = self.owner.program([*self.saved, *given])
        if not task.retain_graph:
            self.saved = None
            self.freed = True
        return [from_value(Leaf(b)) for b in results]


class Entry:
    """One recording: its program, what guards it, and how it is fed."""

    replayable = True
    backward: Backward | None = None

    def __init__(self, graph: Graph, structure: Any):
        self.graph = graph
        self.structure = structure
        self.storages: list[
            Storage | Tensor
        ] = []  # inputs after the arguments; a Tensor stands for its gradient
        self.types: list[Type] = []
        self.scalars: list[RuntimeScalar] = []
        self.guards: list[tuple[Tensor, bool]] = []
        self.values: list[tuple[Storage, int]] = []  # storages read in Python, and their writes until then
        self.bound: list[Tensor] = []  # members of modules, and the storages they are known to use
        self.bound_storages: list[Storage] = []
        self.generators: list[tuple[Any, int]] = []
        self.outputs: list[tuple[str, Any]] = []  # ("result", i), ("argument", i), ("tensor", t)
        self.writes: list[
            tuple[Storage | Tensor | int, int]
        ] = []  # (storage, gradient's tensor or argument; result)
        self.grads: list[tuple[Tensor | int, int | None]] = []
        self.program: Any = None
        self._plain: bool | None = None  # whether no storage stands for a gradient
        self._met: tuple[list[Value], list[Buffer]] = [], []  # what the storages were last seen to hold

    def state(self) -> list[Buffer] | None:
        """What the program reads beside the arguments; None where that is not what was recorded."""
        if not self.alive():
            return None
        for tensor, absent in self.guards:
            if (tensor._grad is None) is not absent:
                return None
        sources = self._sources()
        values = [s.value for s in sources]
        if values == self._met[0] and not any(s.host is not None for s in sources):
            return self._met[1]  # weights of a model that is not being trained
        if [v.type for v in values] != self.types:
            return None
        buffers = [_settled(s) for s in sources]
        if not self.writes:  # a step's old weights are not to be held on to
            self._met = [s.value for s in sources], buffers
        return buffers

    def _sources(self) -> list[Storage]:
        """The storages that are read beside the arguments, those of gradients as they are now."""
        if self._plain is None:
            self._plain = all(type(s) is Storage for s in self.storages)
        if self._plain:
            return self.storages  # type: ignore[return-value]
        return [s if type(s) is Storage else s._grad._storage for s in self.storages]  # type: ignore[union-attr]

    def alive(self) -> bool:
        """Whether this recording can still serve: the tensors it is bound to use the storages it knows, and
        what Python read of others is as it was."""
        if self.values and any(storage.epoch != epoch for storage, epoch in self.values):
            return False
        return [t._storage for t in self.bound] == self.bound_storages  # a storage is equal to itself alone

    def replay(self, arguments: Sequence[Tensor], state: Sequence[Buffer]) -> Any:
        """Run the recorded call on other arguments, in a `state` that was found to fit."""
        inputs: list[Buffer] = []
        for tensor in arguments:
            value = tensor._storage.value
            inputs.append(value.buffer if type(value) is Leaf and tensor._view is None else buffer_of(tensor))
        inputs += state
        for scalar in self.scalars:
            inputs.append(Buffer.of(np.array(scalar.getter(), scalar.dtype.numpy)))
        results = self.program(inputs)
        for generator, used in self.generators:
            generator._offset += used
        return self._deliver(results, inputs, arguments)

    def _deliver(
        self, results: Sequence[Buffer], inputs: Sequence[Buffer], arguments: Sequence[Tensor]
    ) -> Any:
        for target, i in self.writes:
            _write(target, Leaf(results[i]), arguments)
        for owner, number in self.grads:
            tensor: Any = arguments[owner] if type(owner) is int else owner
            tensor._grad = None if number is None else from_value(Leaf(results[number]))
        made = [
            from_value(Leaf(results[x])) if kind == "result" else arguments[x] if kind == "argument" else x
            for kind, x in self.outputs
        ]
        if self.backward is not None:
            self.backward.attach(made, inputs, results, arguments)
        if self.structure is _SINGLE:
            return made[0]
        position = iter(made)
        return rebuild(self.structure, lambda _: next(position))

    def explain(self) -> str:
        """What runs."""
        text = self.program.explain()
        return text if self.backward is None else text + "\nbackward:\n" + self.backward.program.explain()


_SINGLE = object()


def _settled(storage: Storage) -> Buffer:
    """The elements of a storage, computed if need be."""
    _record.settle(storage)
    buffer: Buffer = storage.value.buffer  # type: ignore[attr-defined]
    if storage.host is None:
        return buffer
    # code outside may have written to it: what was packed of it is stale
    return Buffer(buffer.address, buffer.dtype, buffer.shape, buffer.owner)


def _write(target: Any, leaf: Leaf, arguments: Sequence[Tensor]) -> None:
    if type(target) is int:
        tensor = arguments[target]
        with no_grad():
            assign(tensor, from_value(leaf))
        return
    storage = target if type(target) is Storage else target._grad._storage
    if storage.host is None:
        storage.value = leaf
        storage.epoch += 1
    else:
        storage.write(leaf)


# ------------------------------------------------------------------------------------------ from a capture


def make_entry(
    capture: Capture,
    function: Callable[..., Any],
    given: tuple[Sequence[Any], dict[str, Any]],
    stands: Sequence[Tensor],
    arguments: Sequence[Tensor],
    modules: Sequence[Any] = (),
) -> tuple[Entry, Any]:
    """Record one call, compile it, run it: the entry and the call's result."""
    result = capture.call(lambda: function(*given[0], **given[1]))
    Storage.capture = capture
    try:
        plan = _Plan(capture, result, stands)
    finally:
        Storage.capture = None
        final = {g: g._offset for g in capture.generators}
        capture.restore()
    entry = plan.entry
    entry.generators = [(g, final[g] - state[1]) for g, state in capture.generators.items()]
    entry.bound = [
        t
        for m in modules
        for t in (*m._parameters.values(), *m._buffers.values())
        if t is not None
    ]
    entry.bound_storages = [t._storage for t in entry.bound]
    stable = [len(stands) + i for i, s in enumerate(capture.inputs) if s not in capture.writes]
    entry.program = captured_program(entry.graph, stable)
    return entry, plan.first_run(arguments)


def _refuse_sparse(capture: Capture) -> None:
    if any(t._grad is not None and t._grad.is_sparse for t in capture.grads):
        raise RuntimeError(
            "a sparse gradient outlives the captured function: a replay could not make it again. Call "
            "optimizer.zero_grad() after optimizer.step() inside the function, or use sparse=False"
        )


class _Plan:
    """Sorts what a finished capture holds into inputs, outputs, writes and gradients of an `Entry`."""

    def __init__(self, capture: Capture, result: Any, stands: Sequence[Tensor]):
        self.capture, self.stands = capture, list(stands)
        _refuse_sparse(capture)
        self.values: list[Value] = []
        tensors = tensors_in(result)
        entry = self.entry = Entry(
            None, _SINGLE if isinstance(result, Tensor) else rebuild(result, lambda _: _HOLE)
        )  # type: ignore[arg-type]
        entry.outputs = [self._output(t) for t in tensors]
        self._sort_writes()
        self._sort_grads()
        for storage in list(capture.inputs):  # reading outputs may have added inputs
            source = capture.grad_sources.get(storage, storage)
            entry.storages.append(source)
            entry.types.append(storage.value.type)
        joint = _joint_gradient(capture, tensors, self.stands)
        saved = [] if joint is None else joint.saved
        places = self._saved_places(saved)
        self.new_state = capture.escaped(self._kept(tensors))
        entry.replayable = not self.new_state
        self.escape_places = [self._number(s.value) for s in self.new_state]
        self._close(joint, places)
        entry.guards = list(capture.grad_guards.items())
        entry.values = list(capture.value_guards.items())

    def _number(self, value: Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _output(self, tensor: Tensor) -> tuple[str, Any]:
        for i, stand in enumerate(self.stands):
            if tensor is stand:
                return "argument", i
        storage = tensor._storage
        lives_on = isinstance(storage.value, Leaf) or storage in self.capture.writes
        if lives_on and storage not in self.capture.locals and tensor._view is None and tensor._fn is None:
            return "tensor", tensor
        return "result", self._number(tensor._value())

    def _sort_writes(self) -> None:
        entry = self.entry
        for storage in self.capture.writes:
            source = self.capture.grad_sources.get(storage, storage)
            entry.writes.append((source, self._number(storage.value)))
        for i, stand in enumerate(self.stands):
            if stand._storage.epoch:
                entry.writes.append((i, self._number(stand._value())))

    def _sort_grads(self) -> None:
        positions = {id(s): i for i, s in enumerate(self.stands)}
        # In the order of reading: a step that finds no gradients is then the same graph as one with them.
        order = {t: i for i, t in enumerate(self.capture.grad_guards)}
        grads = sorted(self.capture.grads.items(), key=lambda item: order.get(item[0], len(order)))
        for tensor, before in grads:
            now = tensor._grad
            owner = positions.get(id(tensor), tensor)
            if now is None:
                self.entry.grads.append((owner, None))
            elif now is not before:
                self.entry.grads.append((owner, self._number(now._value())))

    def _saved_places(self, saved: Sequence[Value]) -> list[tuple[bool, int]]:
        inputs = {v: i for i, v in enumerate([*self.capture.stand_ins, *self.capture.inputs.values()])}
        return [(True, inputs[v]) if v in inputs else (False, self._number(v)) for v in saved]

    def _kept(self, tensors: Sequence[Tensor]) -> list[Storage]:
        grads = [t._grad._storage for t in self.capture.grads if t._grad is not None]
        return [*[t._storage for t in tensors], *grads, *[s._storage for s in self.stands]]

    def _close(self, joint: _Joint | None, places: list[tuple[bool, int]]) -> None:
        capture, entry = self.capture, self.entry
        closed = Closed("main", [*capture.stand_ins, *capture.inputs.values()], self.values)
        entry.graph, entry.scalars = closed.graph, closed.scalars
        if joint is not None:
            entry.backward = Backward(
                Closed("backward", [*joint.saved, *joint.cotangents], joint.gradients),
                places,
                joint.leaves,
                joint.outputs,
                [v.type for v in joint.cotangents],
            )

    def first_run(self, arguments: Sequence[Tensor]) -> Any:
        """Run the entry for the call that was recorded; new state gets its elements."""
        entry = self.entry
        deliver = entry._deliver

        def with_state(results: Sequence[Buffer], inputs: Sequence[Buffer], given: Sequence[Tensor]) -> Any:
            for storage, i in zip(self.new_state, self.escape_places, strict=True):
                storage.value = Leaf(results[i])
            return deliver(results, inputs, given)

        entry._deliver = with_state  # type: ignore[method-assign, assignment]
        try:
            state = entry.state()
            assert state is not None  # it was recorded a moment ago
            return entry.replay(arguments, state)
        finally:
            del entry._deliver


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


def _joint_gradient(capture: Capture, tensors: Sequence[Tensor], stands: Sequence[Tensor]) -> _Joint | None:
    numbers = [
        i
        for i, t in enumerate(tensors)
        if t.requires_grad and not any(t is s for s in stands) and t._fn is not None
    ]
    accumulators, freed = _leaves_of([tensors[i] for i in numbers])
    if not numbers or freed or not accumulators:
        return None
    cotangents = [Value(tensors[i]._type, name=f"cotangent{n}") for n, i in enumerate(numbers)]
    task = Task(True, False, accumulates=False)
    for position, node in enumerate(accumulators):
        task.wanted[node, 0] = [position]
    roots: list[Any] = [(tensors[i]._edge(), from_value(c)) for i, c in zip(numbers, cotangents, strict=True)]
    task.run(roots)
    order = sorted(task.captured)
    found = [
        (accumulators[p].variable, task.captured[p].to_dense()._value())
        for p in order
        if task.captured[p] is not None
    ]
    positions = {id(s): i for i, s in enumerate(stands)}
    leaves = [(True, positions[id(t)]) if id(t) in positions else (False, t) for t, _ in found]
    return _Joint([v for _, v in found], cotangents, leaves, numbers)


def _leaves_of(tensors: Sequence[Tensor]) -> tuple[list[AccumulateGrad], bool]:
    """The ends of the autograd graph behind some tensors, and whether part of it was freed."""
    ends: list[AccumulateGrad] = []
    seen: set[GradNode] = set()
    stack = [t.grad_fn for t in tensors]
    freed = False
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        freed = freed or node.freed
        if isinstance(node, AccumulateGrad):
            ends.append(node)
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
    return list(saved)
