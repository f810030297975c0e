"""Trading time for memory: parts of a model that are computed again in the backward pass.

https://docs.pytorch.org/docs/stable/checkpoint.html
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .._deferred.making import from_value
from .._deferred.running import flush
from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._ops import autocast
from .._random.generator import back_to, marks
from ..autograd import enable_grad, grad, is_grad_enabled, no_grad
from ..autograd.nodes import FREED, AccumulateGrad, GradNode

Contexts = tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]

_NOT_PASSED = ("the use_reentrant parameter should be passed explicitly: newer versions of PyTorch raise an "
               "exception without it. use_reentrant=False is recommended; True is what happens now.")
INCOMPATIBLE = ("When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an "
                "`inputs` parameter to .backward(). To resolve this error, you can either set "
                "use_reentrant=False, or call .backward() without passing the `inputs` argument.")


class CheckpointError(RuntimeError):
    """The function did something else when it was computed again."""


def noop_context_fn() -> Contexts:
    """Contexts for the two runs of the function that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


class _Node(GradNode):
    """The autograd node of a checkpointed call: computes it again, and keeps none of its values."""

    def __init__(self, again: Callable[[list[Tensor]], Any], inputs: list[Tensor], leaves: list[Tensor],
                 outputs: list[Tensor], keeps_input_gradients_only: bool):
        edges = tuple(t._edge() for t in (*inputs, *leaves))
        super().__init__("CheckpointFunctionBackward", (), (), edges, ())
        self.types = [o._type for o in outputs]
        self.place = outputs[0].device
        if recorder.capture is not None:
            self.shown = [o._value() for o in outputs]
        self.again: Callable[[list[Tensor]], Any] | None = again
        self.inputs, self.leaves = inputs, leaves
        self.reentrant = keeps_input_gradients_only

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """Compute the call again with its graph, and the gradients through that graph."""
        if self.again is None:
            raise RuntimeError(FREED)
        if self.reentrant and not task.accumulates:
            raise RuntimeError(INCOMPATIBLE)
        with enable_grad():  # aliases: one input may be what another was computed from, and have hooks
            stands = [t.view_as(t) for t in self.inputs]
            outputs = _tensors_of(self.again(stands))
        if [o._type for o in outputs] != self.types:
            raise CheckpointError(
                "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata "
                f"than during the forward pass: {[str(o._type) for o in outputs]} instead of "
                f"{[str(t) for t in self.types]}. The function has to compute the same each time")
        arrived = [(o, c.to(o.device)) for o, c in zip(outputs, cotangents, strict=True)
                   if c is not None and o.requires_grad]
        with _without_hooks(self.leaves):
            found = self._gradients(arrived, [*stands, *self.leaves], task)
        if not task.retain_graph:
            self.again, self.inputs, self.leaves, self.freed = None, [], [], True
        return found

    def _gradients(self, arrived: list[tuple[Tensor, Any]], tensors: list[Tensor], task: Any) -> list[Any]:
        if not arrived:
            return [None] * len(tensors)
        if not any(o._fn is not None for o, _ in arrived):
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not necessary")
        return list(grad([o for o, _ in arrived], tensors, [c for _, c in arrived],
                         create_graph=task.create_graph, allow_unused=True))


@contextlib.contextmanager
def _without_hooks(leaves: list[Tensor]) -> Iterator[None]:
    """Inside, hooks of these tensors wait: they run when what comes out reaches the tensors themselves."""
    kept = [leaf._hooks for leaf in leaves]
    for leaf in leaves:
        leaf._hooks = None
    try:
        yield
    finally:
        for leaf, hooks in zip(leaves, kept, strict=True):
            leaf._hooks = hooks


def _tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors among what a function returned."""
    listed = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [o for o in listed if isinstance(o, Tensor)]


def _is_input(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


class _Call:
    """A function with its arguments and the state of the world around it."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                 preserve: bool, contexts: Contexts):
        self.function, self.args, self.kwargs = function, args, kwargs
        self.contexts = contexts
        self.random = marks() if preserve else None
        self.cast = autocast.state.target, autocast.state.on_gpus

    def first(self) -> Any:
        with self.contexts[0]:
            return self.function(*self.args, **self.kwargs)

    def again(self, inputs: list[Tensor]) -> Any:
        """Once more, with the random numbers and casts of the first time, on what stands for the inputs."""
        stands = iter(inputs)
        args = [next(stands) if _is_input(t) else t for t in self.args]
        kwargs = {k: next(stands) if _is_input(t) else t for k, t in self.kwargs.items()}
        now, cast = marks(), (autocast.state.target, autocast.state.on_gpus)
        if self.random is not None:
            back_to(self.random)
        autocast.state.target, autocast.state.on_gpus = self.cast
        try:
            with self.contexts[1]:
                return self.function(*args, **kwargs)
        finally:
            autocast.state.target, autocast.state.on_gpus = cast
            if self.random is not None:
                back_to(now)


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               context_fn: Callable[[], Contexts] = noop_context_fn, determinism_check: str = "default",
               debug: bool = False, early_stop: bool = True, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, whose intermediate values are not kept for the backward pass.

    The call is run at once and again in the backward pass, which needs less memory and more time. Inside a
    function that is compiled as a whole both are one graph, in which equal computations are one: there it
    changes nothing.

    Args:
        use_reentrant: True keeps PyTorch's older rules: gradients only flow where an argument requires
            one, and only through ``backward()`` without `inputs`. Pass it; without it a warning comes.
        context_fn: returns two contexts, for the first run and for the second (use_reentrant=False only).
        preserve_rng_state: False spares saving and restoring the random state; default True.
        determinism_check: "default" compares shapes and dtypes of both runs, "none" does not.
        debug, early_stop: accepted.

    Raises: ValueError for arguments that do not go together, CheckpointError where the second run gives
        other shapes or dtypes.
    """
    if use_reentrant is None:
        warnings.warn(f"torch.utils.checkpoint: {_NOT_PASSED}", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug:
            raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
    call = _Call(function, args, kwargs, preserve, context_fn())
    inputs = [t for t in (*args, *kwargs.values()) if _is_input(t)]
    if use_reentrant and not inputs:
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)
        with no_grad():
            return call.first()
    if not is_grad_enabled():
        return call.first()
    return _checkpointed(call, inputs, use_reentrant)


def _checkpointed(call: _Call, inputs: list[Tensor], reentrant: bool) -> Any:
    outputs = call.first()
    tensors = [t for t in _tensors_of(outputs) if t.requires_grad]
    known = {id(t) for t in inputs}
    leaves = [n.variable for n in _nodes_before(tensors, inputs) if isinstance(n, AccumulateGrad)]
    leaves = [leaf for leaf in leaves if id(leaf) not in known]
    if not tensors or not (inputs or leaves):
        return outputs
    node = _Node(call.again, inputs, leaves, _tensors_of(outputs), reentrant)
    node.functions = tuple({f for n in _nodes_before(tensors, inputs) for f in n.functions})
    made = _without_history(outputs, node)
    del outputs, tensors
    if recorder.capture is None:
        flush()  # the outputs are in memory now; what led to them need not stay
    return made


def _nodes_before(outputs: list[Tensor], inputs: list[Tensor]) -> Iterator[Any]:
    """The nodes of the autograd graph between `inputs` and `outputs`, the ends at other leaves included."""
    ends = {e[0] for t in inputs if (e := t._edge()) is not None}
    seen, stack = set(ends), [t.grad_fn for t in outputs]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(e[0] for e in node.edges if e is not None)


def _without_history(outputs: Any, node: _Node) -> Any:
    """The same outputs as results of `node`."""
    number = 0

    def renew(x: Any) -> Any:
        nonlocal number
        if not isinstance(x, Tensor):
            return x
        made = x.detach() if not x.requires_grad else from_value(x._value(), x.device)
        if x.requires_grad:
            made._fn, made._nr = node, number
        number += 1
        return made

    if isinstance(outputs, (tuple, list)):
        return type(outputs)([renew(o) for o in outputs])
    return renew(outputs)


def checkpoint_sequential(functions: Any, segments: int, input: Any, use_reentrant: bool | None = None,
                          **kwargs: Any) -> Any:
    """`functions` (a Sequential, or modules and functions in a list) one after the other, in `segments`
    checkpoints of which the last keeps its values.

    Raises: ValueError for other keyword arguments than ``preserve_rng_state``, or too many segments.
    """
    if use_reentrant is None:
        warnings.warn(f"torch.utils.checkpoint.checkpoint_sequential: {_NOT_PASSED}", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    parts = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(parts) // segments
    if size == 0:
        raise ValueError(f"checkpoint_sequential: {segments} segments of {len(parts)} functions: at most one "
                         "for each function")
    last = size * (segments - 1)
    for start in range(0, last, size):
        input = checkpoint(_chain(parts[start: start + size]), input, use_reentrant=use_reentrant,
                           preserve_rng_state=preserve)
    return _chain(parts[last:])(input)


def _chain(functions: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for function in functions:
            x = function(x)
        return x

    return run


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Accepted: only what the gradient reads is computed again either way."""
    yield


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Accepted."""
    yield
