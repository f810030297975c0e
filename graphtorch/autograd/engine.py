"""The backward pass: walks the autograd graph from the newest operation to the oldest."""

from __future__ import annotations

import heapq
import importlib
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from graphtorch.backends.locks import lock_across_forks
from graphtorch.ir import ops
from graphtorch.ir.graph import Value

from .._deferred.device_storage import DeviceStorage
from .._deferred.making import from_value, ones_like
from .._deferred.running import moved
from .._deferred.storage import MetaLeaf, any_meta, recorder
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, METHODS, SparseOperand
from .._ops.creation import zeros_like
from .._ops.overriding import asks_first
from .._types import device, dtype
from . import anomaly_mode, saved  # noqa: F401 -- `saved` says what nodes keep
from .grad_mode import modes
from .nodes import LATER, AccumulateGrad, Edge, GradientEdge, GradNode, Read
from .seen import Seen

_accumulating = lock_across_forks()  # gradients that several threads add to one leaf all count


watching: list[Callable[[GradNode], None]] = []  # called with each node that a pass comes to


class _Current(threading.local):
    task: Task | None = None  # the backward pass that this thread is making


current = _Current()


class Task:
    """One backward pass.

    Gradients on their way are tensors where the pass itself is recorded (`create_graph`), else
    values: only what a hook, a function of the user's or the end of a path sees becomes a tensor.
    """

    def __init__(self, retain_graph: bool, create_graph: bool, accumulates: bool = True):
        self.retain_graph = retain_graph
        self.accumulates = accumulates
        self.runs_hooks = True  # those of leaves
        self.create_graph = create_graph
        self.arrived: dict[GradNode, list[Any]] = {}
        self.wanted: dict[tuple[GradNode, int], list[int]] = {}
        self.captured: dict[int, Any] = {}
        self.needed: set[GradNode] | None = None  # None: every node
        # what is captured there goes no further, and no hook sees it
        self.stops: Collection[GradNode] = ()
        self.reached: dict[GradNode, int] = {}  # what the roots lead to
        self.saved: list[Seen] | None = None  # tensors that the nodes keep, if somebody asks

    def run(self, roots: Sequence[tuple[tuple[GradNode, int], Any]]) -> None:
        before, around = modes.grad, current.task
        if recorder.capture is not None:
            recorder.capture.differentiates = True
        modes.grad, current.task = self.create_graph, self
        try:
            self._run(roots)
        finally:
            modes.grad, current.task = before, around

    def comes_to(self, fn: GradNode) -> bool:
        """Whether the pass comes to a node."""
        return fn in self.reached and (self.needed is None or fn in self.needed)

    def _run(self, roots: Sequence[tuple[tuple[GradNode, int], Any]]) -> None:
        waits = self.reached = _dependencies([fn for (fn, _), _ in roots], self.stops)
        if self.wanted:
            self.needed = _leading_to({fn for fn, _ in self.wanted}, waits, self.stops)
        ready: list[tuple[int, int, GradNode]] = []
        queued: set[GradNode] = set()
        for (fn, number), gradient in roots:
            self._arrive(fn, number, gradient)
        for fn in {fn: None for (fn, _), _ in roots}:
            if waits[fn] == 0:
                queued.add(fn)
                heapq.heappush(ready, (-fn.sequence, len(queued), fn))
        # decides between the ends of paths: equal programs accumulate in one order
        order = len(queued)
        while ready:
            fn = heapq.heappop(ready)[2]
            gradients = self._step(fn)
            for i, edge in enumerate(fn.edges if gradients is None else gradients[0]):
                if edge is None:
                    continue
                target, number = edge
                gradient = None if gradients is None else gradients[1][i]
                if gradient is not None:
                    if DeviceStorage.used and fn.place is not target.place:
                        gradient = _crossed(gradient, fn.place, target.place)
                    self._arrive(target, number, gradient)
                waits[target] -= 1
                if waits[target] == 0:
                    order += 1
                    heapq.heappush(ready, (-target.sequence, order, target))

    def _arrive(self, fn: GradNode, number: int, gradient: Any) -> None:
        slots = self.arrived.get(fn)
        if slots is None:
            slots = self.arrived[fn] = [None] * len(fn.types)
        before = slots[number]
        slots[number] = gradient if before is None else _added(before, gradient, fn.place)

    def _step(self, fn: GradNode) -> tuple[Sequence[Any], Sequence[Any]] | None:
        """Run one node: its edges and the gradients that leave along them. None where nothing
        arrived."""
        cotangents = self.arrived.pop(fn, None)
        if fn in self.stops:
            if cotangents is not None:
                self._capture(fn, cotangents)
            return (), ()
        if cotangents is None or (self.needed is not None and fn not in self.needed):
            return None
        # As in PyTorch: what is asked for is the gradient before the hooks of its tensor, unless
        # the pass ends there.
        needed = self.needed
        ends = needed is not None and all(e is None or e[0] not in needed for e in fn.edges)
        if self.wanted and not ends:
            self._capture(fn, cotangents)
        is_leaf = type(fn) is AccumulateGrad
        if (fn.variable._hooks and self.runs_hooks) if is_leaf else fn.hooks:  # type: ignore[attr-defined]
            _run_tensor_hooks(fn, cotangents)
        if self.wanted and ends:
            self._capture(fn, cotangents)
        if fn.retained:
            _retain(fn, cotangents)
        if is_leaf:
            if self.accumulates and (not self.wanted or (fn, 0) in self.wanted):
                self._accumulate(fn, cotangents)  # type: ignore[arg-type]
            return None
        if ends:
            return None
        if modes.anomaly or fn.node_prehooks or fn.node_hooks:
            return self._apply(fn, cotangents)
        return fn.edges, self._pulled(fn, cotangents)

    def _capture(self, fn: GradNode, cotangents: list[Any]) -> None:
        """Keep the gradients that were asked for."""
        for number in range(len(cotangents)):
            for position in self.wanted.get((fn, number), ()):
                self.captured[position] = cotangents[number] = _tensor(cotangents[number], fn.place)

    def _apply(self, fn: GradNode, cotangents: list[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        if fn.node_prehooks or fn.node_hooks:
            cotangents = _before(fn, cotangents)
        edges = fn.edges
        gradients = self._watched(fn, cotangents) if modes.anomaly else self._pulled(fn, cotangents)
        if fn.node_hooks:
            gradients = _after(fn, gradients, cotangents)
        return edges, gradients

    def _accumulate(self, fn: AccumulateGrad, cotangents: list[Any]) -> None:
        """The end of a path: the gradient becomes part of its leaf's."""
        if fn.node_prehooks or fn.node_hooks:
            cotangents = _before(fn, cotangents)
        accumulate(fn.variable, cotangents[0], self.create_graph)
        if fn.node_hooks:
            _after(fn, [], cotangents)

    def _pulled(self, fn: GradNode, cotangents: list[Any]) -> list[Any]:
        if fn.in_python:
            if self.saved is not None:
                self.saved += fn.saved_in_python()
            return fn.apply([_tensor(c, fn.place) for c in cotangents], self)  # type: ignore[attr-defined, no-any-return]
        return self._recorded(fn, cotangents)

    def _watched(self, fn: GradNode, cotangents: list[Any]) -> list[Any]:
        """In anomaly mode: a failure, or NaN, is reported with the forward call of `fn`."""
        try:
            gradients = [_tensor(g, fn.place) for g in self._pulled(fn, cotangents)]
        except Exception:
            anomaly_mode.report(fn)
            raise
        if modes.check_nan:
            anomaly_mode.check(fn, gradients)
        return gradients

    def _recorded(self, fn: GradNode, cotangents: list[Any]) -> list[Any]:
        for watch in watching:
            watch(fn)
        try:
            values = [c if c is None or isinstance(c, Value) else c._value() for c in cotangents]
        except SparseOperand:  # rules of operations are for dense gradients
            dense = [c if c is None else _tensor(c, fn.place).to_dense() for c in cotangents]
            return self._recorded(fn, dense)
        spends = not (self.retain_graph or self.create_graph or fn.packed)
        if spends and self.saved is None and not MetaLeaf.used:
            return fn.spend(values)
        found = fn.pull(values)
        if self.saved is not None:
            self.saved += fn.saved_tensors(found, values)
        read = fn.reread(found, values)
        if MetaLeaf.used and any_meta(values):
            return self._without_elements(fn, cotangents, values, found)
        if self.create_graph:
            tensors = [_tensor(c, fn.place) for c in cotangents]
            gradients = _differentiable(fn, tensors, values, found, read)
        else:
            given = found if read is None else fn.pulled_from(read, found, values)
            gradients = [None if e is None else g for g, e in zip(given, fn.edges, strict=True)]
        if not self.retain_graph:
            fn.free(found, values)
        return gradients

    def _without_elements(
        self, fn: GradNode, cotangents: list[Any], values: list[Any], found: Sequence[Value | None]
    ) -> list[Any]:
        """The gradients of a node whose tensors have no elements."""
        if self.create_graph:
            gradients = _differentiable(
                fn, [_tensor(c, fn.place) for c in cotangents], values, found
            )
            for tensor in gradients:
                if tensor is not None:
                    tensor._storage.put(MetaLeaf(tensor._type))
        else:
            gradients = [
                None if e is None or g is None else MetaLeaf(g.type)
                for g, e in zip(found, fn.edges, strict=True)
            ]
        if not self.retain_graph:
            fn.free(found, values)
        return gradients


def _before(fn: GradNode, cotangents: list[Any]) -> list[Any]:
    """The gradients that arrive at a node, as its hooks leave them."""
    arrived = [_tensor(c, fn.place) for c in cotangents]
    for hook in list((fn.node_prehooks or {}).values()):
        changed = hook(tuple(arrived))
        if changed is not None:
            arrived = list(changed) if isinstance(changed, (tuple, list)) else [changed]
    return arrived


def _after(fn: GradNode, gradients: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
    """The gradients that leave a node, as its hooks leave them."""
    leaving = [_tensor(g, fn.place) for g in gradients]
    for hook in list((fn.node_hooks or {}).values()):
        changed = hook(tuple(leaving), tuple(cotangents))
        if changed is not None:
            leaving = list(changed) if isinstance(changed, (tuple, list)) else [changed]
    return leaving


def _tensor(gradient: Any, place: device) -> Any:
    """A gradient as a tensor."""
    return from_value(gradient, place) if isinstance(gradient, Value) else gradient


def _crossed(gradient: Any, place: device, to: device) -> Any:
    """A gradient that goes from one device to another, where an operand came from there."""
    return moved(gradient, place, to) if isinstance(gradient, Value) else gradient.to(to)


def _added(before: Any, new: Any, place: device) -> Any:
    """The sum of two gradients: sparse only where both are."""
    if isinstance(before, Value) and isinstance(new, Value) and before.type is new.type:
        return before if type(before) is MetaLeaf else ops.add(before, new)
    before, new = _tensor(before, place), _tensor(new, place)
    return new + before if before.is_sparse else before + new


def _differentiable(
    fn: GradNode,
    cotangents: list[Any],
    values: list[Value | None],
    found: Sequence[Value | None],
    read: Read | None = None,
) -> list[Any]:
    """The gradients `found` as tensors that can be differentiated again; `read`: what they are
    computed from in the place of what was recorded."""
    border = _border(fn, cotangents, values, found, read)
    if read is not None:
        found = fn.pulled_from(read, found, values)
    result: list[Any] = []
    for gradient, edge in zip(found, fn.edges, strict=True):
        if gradient is None or edge is None:
            result.append(None)
            continue
        tensor = from_value(gradient, fn.place)
        if any(e is not None for _, e, _ in border):
            operands, edges, seen = zip(*border, strict=True)
            name = fn._name.replace("Backward0", "") + "BackwardBackward0"
            tensor._fn = GradNode(name, (gradient,), operands, edges, seen)
            tensor._fn.place = fn.place
        result.append(tensor)
    return result


def _border(
    fn: GradNode,
    cotangents: Sequence[Any],
    values: Sequence[Value | None],
    found: Sequence[Value | None],
    read: Read | None,
) -> list[tuple[Value, Edge, Seen | None]]:
    """What the gradients `found` of a node are computed from: the value, where its own gradient
    goes, and the tensor that holds it."""
    reads = fn.reads(found, values)
    kept = () if fn.packed else fn.saves(found, values)
    now = read or Read(fn.operands, fn.outputs)
    border: list[tuple[Value, Edge, Seen | None]] = []
    for cotangent, value in zip(cotangents, values, strict=True):
        if value is not None:
            border.append((value, cotangent._edge() if cotangent.requires_grad else None, None))
    # of results, or of what lies between operands and results
    through = any(v in reads for v in fn.outputs)
    for i, (value, edge) in enumerate(zip(fn.operands, fn.edges, strict=True)):
        if value in reads or (through and edge is not None):
            seen = fn.seen_operand(i) if value in kept else None
            border.append((now.operands[i], edge, seen))
    for i, value in enumerate(fn.outputs):
        if through and value.dtype.is_differentiable and value not in fn.operands:
            seen = fn.seen_result(i) if value in kept else None
            border.append((now.outputs[i], (fn, i), seen))
    return border


def _dependencies(roots: Sequence[GradNode], stops: Collection[GradNode]) -> dict[GradNode, int]:
    """For every node reachable from `roots`, not through `stops`, how many edges lead to it."""
    waits = dict.fromkeys(roots, 0)
    stack = list(waits)
    while stack:
        fn = stack.pop()
        for edge in () if fn in stops else fn.edges:
            if edge is None:
                continue
            target = edge[0]
            if target in waits:
                waits[target] += 1
            else:
                waits[target] = 1
                stack.append(target)
    return waits


def _leading_to(goals: set[GradNode], nodes: Any, stops: Collection[GradNode]) -> set[GradNode]:
    """The nodes from which one of `goals` can be reached, not through `stops`; goals included."""
    users: dict[GradNode, list[GradNode]] = {}
    for fn in nodes:
        for edge in () if fn in stops else fn.edges:
            if edge is not None:
                users.setdefault(edge[0], []).append(fn)
    found = set(goals)
    stack = list(goals)
    while stack:
        for user in users.get(stack.pop(), ()):
            if user not in found:
                found.add(user)
                stack.append(user)
    return found


def _run_tensor_hooks(fn: GradNode, cotangents: list[Any]) -> None:
    if isinstance(fn, AccumulateGrad):
        tables = {0: fn.variable._hooks} if fn.variable._hooks else None
    else:
        tables = fn.hooks
    if not tables:
        return
    for number, table in tables.items():
        for hook in list(table.values()):
            if cotangents[number] is None:
                break
            cotangents[number] = _tensor(cotangents[number], fn.place)
            changed = hook(cotangents[number])
            if changed is not None:
                cotangents[number] = _checked_hook(hook, changed, cotangents[number])


def _checked_hook(hook: Any, changed: Any, before: Any) -> Any:
    if not hasattr(changed, "_value"):
        raise TypeError(f"hook: expected a Tensor or None, got {type(changed).__name__}")
    if changed.shape != before.shape:
        name = getattr(hook, "__name__", type(hook).__name__)
        raise RuntimeError(
            f"hook '{name}' has changed the size of value: from {list(before.shape)} to "
            f"{list(changed.shape)}; return a gradient of the same shape"
        )
    return changed


def _retain(fn: GradNode, cotangents: list[Any]) -> None:
    for number, ref in (fn.retained or {}).items():
        tensor = ref()
        if tensor is not None and cotangents[number] is not None:
            new = cotangents[number] = _tensor(cotangents[number], fn.place)
            tensor._grad = new if tensor._grad is None else _added(tensor._grad, new, fn.place)


def accumulate(variable: Any, gradient: Any, create_graph: bool) -> None:
    """Add `gradient` to ``variable.grad``, then run the post-accumulate hooks."""
    if gradient is None:
        return
    shared = not isinstance(gradient, Value)  # else this tensor is the only one of its storage
    gradient = _tensor(gradient, variable.device)
    if recorder.capture is not None:
        recorder.capture.grad_read(variable)
    if gradient._type.dtype is not variable._type.dtype:
        gradient = gradient.to(variable.dtype)
    with _accumulating:
        if variable._grad is None:
            variable._set_grad(gradient.detach() if shared and not create_graph else gradient)
        elif create_graph or (variable._grad.is_sparse and not gradient.is_sparse):
            variable._set_grad(_added(variable._grad, gradient, variable.device))
        else:
            variable._grad.add_(gradient)
    hooks = variable._post_hooks
    if hooks:
        for hook in list(hooks.values()):
            hook(variable)


# ------------------------------------------------------------------------------------- entry points


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Add the gradients of `tensors` to the ``grad`` of the leaves they were computed from.

    Args:
        tensors: a tensor or several; those with more than one element need a gradient in
            `grad_tensors`.
        grad_tensors: cotangents of the shapes of `tensors`; None means 1 for a scalar.
        retain_graph: keep what the graph saved for another pass; default `create_graph`.
        create_graph: record the pass itself, so that gradients can be differentiated.
        inputs: accumulate into these tensors only.

    Raises:
        RuntimeError: no tensor requires grad; a non-scalar without gradient; a graph already freed.
    """
    tensors = _listed(tensors)
    if not tensors:
        return
    if inputs is not None and len(_listed(inputs)) == 0:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    roots = _roots(
        tensors, _gradients(tensors, grad_tensors if grad_tensors is not None else grad_variables)
    )
    task = Task(create_graph if retain_graph is None else retain_graph, create_graph)
    if inputs is not None:
        _accumulate_into(task, _listed(inputs), roots)
    else:
        task.run(roots)


def _accumulate_into(task: Task, inputs: Sequence[Any], roots: Any) -> None:
    for position, tensor in enumerate(inputs):
        edge = _edge_of(tensor)
        task.wanted.setdefault(edge, []).append(position)
    task.run(roots)
    for position, tensor in enumerate(inputs):
        ends = isinstance(tensor, GradientEdge) or tensor.is_leaf
        if not ends and task.captured.get(position) is not None:
            accumulate(tensor, task.captured[position], task.create_graph)


@asks_first
def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of the sum of `outputs` (times `grad_outputs`) with respect to `inputs`, as a
    tuple.

    Args:
        outputs, inputs: a tensor or several.
        allow_unused: return None for an input that no output depends on, instead of raising.
        is_grads_batched: whether `grad_outputs` have a leading dimension of several cotangents, and
            the result one of as many gradients.
        materialize_grads: zeros instead of those None.

    Raises:
        RuntimeError: an input does not require grad, or is unused and `allow_unused` is False.
    """
    if materialize_grads:
        if allow_unused is False:
            raise ValueError(
                "Expected allow_unused to be True or not passed when materialize_grads=True, but "
                "got: False."
            )
        allow_unused = True
    outputs, inputs = _listed(outputs), _listed(inputs)
    if not inputs:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    if not all(isinstance(x, (Tensor, GradientEdge)) for x in outputs):
        raise AssertionError("Expected output to be a torch.Tensor")
    for x in inputs:
        if not isinstance(x, (Tensor, GradientEdge)):
            raise RuntimeError(
                f"all inputs have to be Tensors or GradientEdges, but got {type(x).__name__}"
            )
    if is_grads_batched:

        def one(*cotangents: Any) -> tuple[Any, ...]:
            found = grad(
                outputs,
                inputs,
                cotangents,
                True,
                create_graph,
                True,
                allow_unused,
                False,
                materialize_grads,
            )
            missing.extend(i for i, g in enumerate(found) if g is None)
            return tuple(g for g in found if g is not None)

        missing: list[int] = []
        vmap = importlib.import_module("graphtorch.func").vmap  # built on this
        found = iter(vmap(one)(*_listed(grad_outputs)))
        return tuple(None if i in missing else next(found) for i in range(len(inputs)))
    roots = _roots(outputs, _gradients(outputs, grad_outputs))
    task = Task(
        create_graph if retain_graph is None else retain_graph, create_graph, accumulates=False
    )
    for position, tensor in enumerate(inputs):
        task.wanted.setdefault(_edge_of(tensor), []).append(position)
    task.run(roots)
    return tuple(_result(task, i, t, allow_unused, materialize_grads) for i, t in enumerate(inputs))


def grad_between(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    ends: Sequence[tuple[GradNode, int]],
    create_graph: bool,
) -> list[Tensor | None]:
    """The gradients that come to `ends`: not of what lies beyond them, and without running hooks
    there."""
    task = Task(create_graph, create_graph, accumulates=False)
    task.saved = None if current.task is None else current.task.saved
    task.stops = {fn for fn, _ in ends}
    for position, edge in enumerate(ends):
        task.wanted.setdefault(edge, []).append(position)
    task.run(_roots(outputs, cotangents))
    return [task.captured.get(position) for position in range(len(ends))]


def _result(task: Task, position: int, tensor: Any, allow_unused: bool | None, zeros: bool) -> Any:
    found = task.captured.get(position)
    if found is None and not allow_unused:
        raise RuntimeError(
            "One of the differentiated Tensors appears to not have been used in the graph. "
            f"Set allow_unused=True if this is the desired behavior. (input {position})"
        )
    if found is None and zeros:
        if isinstance(tensor, GradientEdge):
            tensor = _ones_at(tensor)
        return zeros_like(tensor, requires_grad=task.create_graph)
    if found is not None and isinstance(tensor, Tensor) and tensor.is_sparse:
        return tensor._with(found)
    return found


def _listed(tensors: Any) -> tuple[Any, ...]:
    return (
        (tensors,)
        if hasattr(tensors, "_value") or isinstance(tensors, GradientEdge)
        else tuple(tensors)
    )


def _ones_at(edge: GradientEdge) -> Tensor:
    """A one for each element of the tensor at an edge."""
    kind = edge.node.types[edge.output_nr]
    ones = FUNCTIONS["ones"](kind.shape, dtype=dtype._of[kind.dtype], device=edge.node.place)
    return ones  # type: ignore[no-any-return]


def _edge_of(tensor: Any) -> tuple[GradNode, int]:
    if isinstance(tensor, GradientEdge):
        return tensor.node, tensor.output_nr
    if not tensor.requires_grad:
        raise RuntimeError("One of the differentiated Tensors does not require grad")
    return tensor._edge()


def _gradients(tensors: Sequence[Any], given: Any) -> list[Any]:
    gradients = [None] * len(tensors) if given is None else list(_listed(given))
    if len(gradients) != len(tensors):
        raise RuntimeError(f"got {len(tensors)} tensors and {len(gradients)} gradients")
    return [_gradient(t, g) for t, g in zip(tensors, gradients, strict=True)]


def _gradient(tensor: Any, gradient: Any) -> Any:
    if isinstance(tensor, GradientEdge):
        tensor = _ones_at(tensor).requires_grad_()
    if not tensor.requires_grad:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    if gradient is None:
        if tensor.numel() != 1:
            raise RuntimeError(
                "grad can be implicitly created only for scalar outputs: this tensor has shape "
                f"{list(tensor.shape)}, so call .sum() or pass gradient="
            )
        if not tensor.dtype.is_floating_point:
            raise RuntimeError(
                "grad can be implicitly created only for real scalar outputs but got "
                f"{tensor.dtype}"
            )
        return ones_like(tensor)
    if not hasattr(gradient, "_value"):
        raise TypeError(
            "gradients can be either Tensors or None, but got " + type(gradient).__name__
        )
    if gradient.shape != tensor.shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[0] has a shape of {gradient.shape} and output[0] has "
            f"a shape of {tensor.shape}."
        )
    if gradient.device is not tensor.device:
        if gradient.shape or not gradient.is_cpu:
            raise RuntimeError(
                f"invalid gradient at index 0 - expected device {tensor.device} but got "
                f"{gradient.device}: move it with .to({str(tensor.device)!r})"
            )
        gradient = gradient.to(tensor.device)
    return gradient if gradient.dtype is tensor.dtype else gradient.to(tensor.dtype)


def _roots(tensors: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    return [(_edge_of(t), g) for t, g in zip(tensors, gradients, strict=True)]


def _backward_method(
    self: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of this tensor to the ``grad`` of the leaves; see
    `torch.autograd.backward`."""
    backward(
        (self,),
        None if gradient is None else (gradient,),
        retain_graph,
        create_graph,
        inputs=inputs,
    )


def _called(fn: GradNode, gradients: Sequence[Any]) -> Any:
    """What ``fn(*gradients)`` is: one step of a backward pass."""
    found = [_tensor(g, fn.place) for g in Task(True, modes.grad)._apply(fn, list(gradients))[1]]
    return found[0] if len(found) == 1 else tuple(found)


METHODS["backward"] = _backward_method
LATER["call"] = _called
