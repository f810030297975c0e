"""The gradient of a recorded call: a program of its own, and its node in the autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean
from graphtorch.ir.evaluate import bind_sizes, resolve_attrs, specialize
from graphtorch.ir.failure import InternalError
from graphtorch.ir.graph import Graph, Node, Type, Value, topological
from graphtorch.ir.shape import Condition, Shape, SymInt, plain_symbol

from .._deferred.door import Buffer, place_of
from .._deferred.making import from_value
from .._deferred.programs import Serving, recorded_program
from .._deferred.storage import Leaf, RuntimeScalar, Storage, Version, View
from .._deferred.tensor import Tensor
from .._types import CPU, device
from ..autograd.engine import Task
from ..autograd.grad_mode import modes
from ..autograd.nodes import FREED, AccumulateGrad, GradNode, _sequence, _users_stack
from ..autograd.seen import Seen
from ..utils.hooks import changes
from .capture import Boundary, Closed, buffer_of
from .observed import require_observed
from .segments import Unreplayable
from .sizes import Symbols


class Backward:
    """The gradient of a recorded call: a graph of its own, compiled at the first backward pass."""

    def __init__(
        self,
        graph: Closed,
        saved: Sequence[tuple[bool, int]],
        watched: Sequence[tuple[int, Any, int]],
        leaves: Sequence[tuple[bool, Any]],
        outputs: Sequence[int],
        types: Sequence[Type],
        whole: Graph,
        held: Sequence[Value | None],
        results: Sequence[int],
        serving: Serving,
        place: device,
    ):
        self.graph = graph.graph
        self.conditions: Sequence[Condition] = ()  # what it assumes of its symbols
        self.carried: Symbols = ()  # those that no other input has, and which argument does
        self.serving = serving
        self.place = place
        self.whole = whole  # the forward graph
        # what the leaves hold, in the whole forward graph, where they are there
        self.held = tuple(held)
        self.results = tuple(results)  # of the forward graph that the outputs are
        # tensors that the gradient keeps: kind, number or tensor, and which of the saved buffers it
        # holds (none: -1)
        self.watched = tuple(watched)
        picked = ", ".join([f"{'inputs' if is_input else 'results'}[{i}]" for is_input, i in saved])
        # what of a call's buffers the gradient reads
        self.pick: Callable[[Any, Any], list[Buffer]] = eval(f"lambda inputs, results: [{picked}]")
        # where gradients go: (whether an argument, its number; or the tensor)
        self.leaves = tuple(leaves)
        self._ends: tuple[int, list[Any]] = -1, []  # what `_edges` found, and when
        self.outputs = tuple(outputs)  # which of the call's outputs are differentiable
        self.types = list(types)
        self.is_static = all(t.is_static for t in types)
        self._program: Any = None
        self._programs: dict[Any, Any] = {}  # by shapes, where no program serves all sizes

    def assume(
        self, symbols: Symbols, pinned: Mapping[str, int], conditions: Sequence[Condition]
    ) -> None:
        """Note what its sizes are: where symbols stand among the arguments, which of them can be
        but one number, and what else is assumed. Symbols that no input has come with inputs that
        are never read."""
        graph = specialize(self.graph, pinned)
        known = {s for v in graph.inputs for d in v.shape if (s := plain_symbol(d)) is not None}
        missing = {s.name: s for s in graph.symbols() if s not in known}
        carriers = [
            Value(Type(boolean, (SymInt.atom(s),)), name=f"n{i}")
            for i, s in enumerate(missing.values())
        ]
        places = {name: (name, number, axis) for name, number, axis in reversed(symbols)}
        self.carried = tuple([places[name] for name in missing])
        self.graph = Graph(
            graph.name, [*graph.inputs, *carriers], graph.outputs, graph.nodes, graph.donates
        )
        self.conditions = tuple(conditions)

    @property
    def program(self) -> Any:
        if self._program is None:
            self._program = recorded_program(
                self.graph,
                (),
                self.serving,
                self.conditions,
                [self.place] * len(self.graph.outputs),
            )
        return self._program

    def run(self, given: list[Buffer]) -> list[Buffer]:
        """The gradients; by a program for these sizes where there is none for all of them."""
        program = None
        if not self._programs:
            try:
                program = self.program
            except (InternalError, NotImplementedError, TypeError):
                if not self.graph.symbols():
                    raise
        if program is None:
            shapes = tuple([b.shape for b in given])
            program = self._programs.get(shapes)
            if program is None:
                fixed = specialize(self.graph, bind_sizes(self.graph.inputs, shapes))
                program = self._programs[shapes] = recorded_program(
                    fixed, (), self.serving, places=[self.place] * len(fixed.outputs)
                )
        return program(given)  # type: ignore[no-any-return]

    def _edges(self, arguments: Sequence[Tensor]) -> list[Any]:
        """Where gradients go. Ends at leaves are kept, so that the next call finds them made."""
        edges = [
            arguments[t]._edge() if is_argument else t._edge() for is_argument, t in self.leaves
        ]
        if not any(is_argument for is_argument, _ in self.leaves) and all(map(_is_own_end, edges)):
            self._ends = changes.count, edges
        else:
            self._ends = -1, []
        return edges

    def unfolded(self, inputs: Sequence[Buffer], edges: Any) -> GradNode:
        """The call as one node of the autograd graph whose gradient can be differentiated again."""
        graph, held = self.whole, self.held
        if None in held:
            raise RuntimeError(
                "gradients of this compiled function cannot be differentiated again "
                "(create_graph=True): call the function without compile(), or put the whole "
                "computation inside it"
            )
        leaves = [Leaf(b) for b in inputs]
        sizes = bind_sizes(graph.inputs, [b.shape for b in inputs])
        table: dict[Value, Value] = dict(zip(graph.inputs, leaves, strict=True))
        for node in graph.nodes:
            operands = tuple([table[v] for v in node.operands])
            made = (
                node.op.node(operands, resolve_attrs(node.attrs, sizes), node.location)
                if sizes
                else Node(node.op, operands, node.attrs, node.types, node.location)
            )
            table.update(zip(node.results(), made.results(), strict=True))
        outputs = tuple([table[graph.outputs[i]] for i in self.results])
        ends = tuple([table[v] for v in held])  # type: ignore[index]
        made = GradNode("CompiledFunctionBackward", outputs, ends, edges, (None,) * len(ends))
        made.place = self.place
        return made

    def attach(
        self,
        outputs: Sequence[Any],
        inputs: Sequence[Buffer],
        whole: Sequence[Buffer],
        results: Sequence[Buffer],
        arguments: Sequence[Tensor],
    ) -> None:
        """Give the differentiable outputs of one call their history; `whole`: inputs of the whole
        graph."""
        seen, edges = self._ends
        if seen != changes.count:
            # ends that nobody else holds are let go, and hooks that came to them with them
            self._ends = -1, (edges := [])
            edges = self._edges(arguments)
        node: CompiledNode = _new(CompiledNode)  # without its constructors: every call makes one
        node.edges = edges  # type: ignore[assignment]
        if self.place is not CPU:
            node.place = self.place
        node.sequence = next(_sequence)
        node.owner = self
        node.saved = self.pick(inputs, results)
        node.inputs = whole
        if self.carried:
            node.carried = [
                Buffer(0, boolean, (arguments[number]._type.shape[axis],), None)
                for _, number, axis in self.carried
            ]
        node.types = self.types if self.is_static else [outputs[i]._type for i in self.outputs]
        node.versions = versions = []
        for kind, which, place in self.watched:
            tensor = (
                which
                if kind == TENSOR
                else arguments[which]
                if kind == ARGUMENT
                else outputs[which]
            )
            counter, storage = tensor._counter, tensor._storage
            versions.append(
                (
                    counter,
                    counter.number,
                    storage,
                    storage.epoch,
                    tensor._view,
                    place,
                    None if kind == OUTPUT else tensor,
                )
            )
        if modes.anomaly:
            node.metadata["traceback_"] = _users_stack()
        for number, i in enumerate(self.outputs):
            outputs[i]._fn, outputs[i]._nr = node, number


ARGUMENT, TENSOR, OUTPUT = range(3)  # what a gradient reads, and nobody may have written to since
_new: Any = object.__new__


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
    carried: Sequence[Buffer] = ()

    # counts of writes to what it reads, those through ``.data`` included, and where that is
    versions: list[tuple[Version, int, Storage, int, View | None, int, Tensor | None]]

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """Run the compiled gradient."""
        if self.saved is None:
            raise RuntimeError(FREED)
        for counter, number, storage, epoch, view, place, operand in self.versions:
            # as in PyTorch, what is there now counts
            moved = operand is not None and operand._storage is not storage
            if place >= 0 and (moved or storage.epoch != epoch) and counter.number == number:
                if moved:
                    storage, view = operand._storage, operand._view  # type: ignore[union-attr]
                self.saved[place] = _shown(
                    storage, view, None if operand is None else self.saved[place].shape
                )
            if counter.number != number:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: a tensor that {self._name} reads is at version "
                    f"{counter.number}; expected version {number} instead. Hint: use the "
                    "out-of-place form of the operation that changed it, or clone() the tensor "
                    "first"
                )
        if task.create_graph:
            gradients: list[Any] = task._recorded(
                self.owner.unfolded(self.inputs, self.edges), cotangents
            )
        else:
            given = [
                Buffer.of(np.zeros(t.shape, t.dtype.numpy)) if c is None else buffer_of(c)
                for c, t in zip(cotangents, self.types, strict=True)
            ]
            results = self.owner.run([*self.saved, *given, *self.carried])
            gradients = [from_value(Leaf(b), place_of(b)) for b in results]
        if not task.retain_graph:
            self.saved, self.inputs, self.versions = None, (), []
            self.freed = True
        return gradients


def _shown(storage: Storage, view: View | None, shape: Shape | None) -> Buffer:
    """The elements of a storage now, where it has that shape; else those that a view shows."""
    made = object.__new__(Tensor)
    made._storage = storage
    whole = buffer_of(made)
    if view is None or whole.shape == shape:
        return whole
    made._view = view
    return buffer_of(made)


class Spent(GradNode):
    """The autograd node of results whose backward pass ran inside the recorded call."""

    freed = True

    def __init__(self, tensor: Tensor):
        super().__init__("CompiledFunctionBackward", (), (), (), ())
        self.types = [tensor._type]

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """There is nothing left to differentiate."""
        raise RuntimeError(FREED)


class Joint:
    """The gradient of a call's outputs, and what of the forward pass it reads."""

    def __init__(
        self,
        gradients: list[Value],
        cotangents: list[Value],
        leaves: list[tuple[bool, Any]],
        outputs: list[int],
        kept: Sequence[Seen],
    ):
        self.gradients, self.cotangents, self.leaves, self.outputs = (
            gradients,
            cotangents,
            leaves,
            outputs,
        )
        # of tensors that nobody may write to before the backward pass
        self.counters = {s.version for s in kept if s.version.number == s.number}
        self.saved = _frontier(gradients, cotangents)


def joint_gradient(carriers: Sequence[Tensor | None], positions: Mapping[int, int]) -> Joint | None:
    """The gradient of results (None for those without a history of their own).

    Raises: Unobserved: backward passes of the user's own would run for the first time.
    """
    numbers = [i for i, t in enumerate(carriers) if t is not None and not t._rg and t.requires_grad]
    roots = [carriers[i] for i in numbers]
    ends, _, functions = behind(roots)  # type: ignore[arg-type]
    if not ends:
        return None
    require_observed(functions)
    cotangents = [Value(t._type, name=f"cotangent{n}") for n, t in enumerate(roots)]  # type: ignore[union-attr]
    task = Task(True, False, accumulates=False)
    task.runs_hooks = False  # they run when a gradient gets there
    task.saved = []
    for position, node in enumerate(ends):
        task.wanted[node, 0] = [position]
    edges = [t._edge() for t in roots]  # type: ignore[union-attr]
    beyond = {e: e.edges for e in ends if isinstance(e, Boundary)}
    for end in beyond:
        end.edges = ()
    try:
        task.run(
            [
                (e, from_value(c, e[0].place))  # type: ignore[index, misc]
                for e, c in zip(edges, cotangents, strict=True)
            ]
        )
    finally:
        for end, outer in beyond.items():
            end.edges = outer
    captured = [(ends[p].variable, g) for p, g in sorted(task.captured.items()) if g is not None]
    if any(g.is_sparse for _, g in captured):
        raise Unreplayable  # of a look-up table: its program would have to give indices and rows
    found = [(variable, g._value()) for variable, g in captured]
    leaves = [(True, positions[id(t)]) if id(t) in positions else (False, t) for t, _ in found]
    return Joint([v for _, v in found], cotangents, leaves, numbers, task.saved)


class Behind(NamedTuple):
    """What is behind some tensors in the autograd graph: its ends, whether part of it was freed,
    and which functions with a backward pass of the user's own stand in it."""

    ends: list[Any]
    freed: bool
    functions: set[type]


def behind(tensors: Sequence[Tensor]) -> Behind:
    """The autograd graph behind some tensors, up to what is older than the capture.

    Raises: Unreplayable: there are hooks, which are to run at each backward pass.
    """
    ends: list[Any] = []
    functions: set[type] = set()
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
            raise Unreplayable
        if isinstance(node, Boundary):
            ends.append(node)
            continue
        freed = freed or node.freed
        functions.update(node.functions)
        stack.extend(e[0] for e in node.edges if e is not None)
    return Behind(ends, freed, functions)


def _frontier(gradients: Sequence[Value], cotangents: Sequence[Value]) -> list[Value]:
    """Values of the forward pass that the nodes of the gradient read, constants apart."""
    depends: dict[Any, bool] = {}
    varies: dict[Any, bool] = {}
    given = set(cotangents)
    order = topological(gradients)
    for node in order:
        depends[node] = any(
            v in given if v.node is None else depends[v.node] for v in node.operands
        )
        varies[node] = any(
            v not in given if v.node is None else varies[v.node] for v in node.operands
        )
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
    """`saved` without what is as well made from the others once more, such as the mask of a
    relu."""
    kept = dict.fromkeys(saved)
    for value in saved:
        node = value.node
        if node is None or not node.op.is_cheap:
            continue
        operands = [
            v for v in node.operands if not (v.node is not None and v.node.op is ops.constant)
        ]
        if operands and all(v in kept and v is not value for v in operands):
            del kept[value]
    return list(kept)
