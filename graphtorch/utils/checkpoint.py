"""Trading time for memory: parts of a model that are computed again in the backward pass.

https://docs.pytorch.org/docs/stable/checkpoint.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from .._deferred.making import from_value
from .._deferred.running import flush
from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._ops import autocast
from .._random.generator import back_to, marks
from .._settings import warn_user
from ..autograd import enable_grad, is_grad_enabled, no_grad
from ..autograd.engine import grad_between
from ..autograd.graph import saved_tensors_hooks
from ..autograd.nodes import FREED, AccumulateGrad, GradNode, new_number
from ..autograd.seen import seen_of

End = tuple[GradNode, int]
Contexts = tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]

_NOT_PASSED = (
    "the use_reentrant parameter should be passed explicitly: newer versions of PyTorch raise an "
    "exception without it. use_reentrant=False is recommended; True is what happens "
    "now."
)
INCOMPATIBLE = (
    "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an "
    "`inputs` parameter to .backward(). To resolve this error, you can either set "
    "use_reentrant=False, or call .backward() without passing the `inputs` argument."
)


class CheckpointError(RuntimeError):
    """The function did something else when it was computed again."""


def noop_context_fn() -> Contexts:
    """Contexts for the two runs of the function that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


class _Node(GradNode):
    """The autograd node of a checkpointed call: computes it again, and keeps none of its values."""

    def __init__(
        self, call: _Call, ends: list[End], outputs: list[Tensor], keeps_input_gradients_only: bool
    ):
        edges = (*[t._edge() for t in call.inputs], *ends)
        super().__init__("CheckpointFunctionBackward", (), (), edges, ())
        self.types = [o._type for o in outputs]
        self.place = outputs[0].device
        if recorder.capture is not None:
            self.shown = [o._value() for o in outputs]
        self.call: _Call | None = call
        self.ends = ends
        self.reentrant = keeps_input_gradients_only

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """Compute the call again with its graph, and the gradients through that graph."""
        if self.call is None:
            raise RuntimeError(FREED)
        if self.reentrant and not task.accumulates:
            raise RuntimeError(INCOMPATIBLE)
        with enable_grad(), self._watched(self.call):
            # aliases: one input may be what another was computed from, and have hooks
            stands = [t.view_as(t) for t in self.call.inputs]
            outputs = _tensors_of(self.call.again(stands))
        if [o._type for o in outputs] != self.types:
            raise CheckpointError(
                "torch.utils.checkpoint: Recomputed values for the following tensors have "
                "different metadata than during the forward pass: "
                f"{[str(o._type) for o in outputs]} instead of {[str(t) for t in self.types]}. The "
                "function has to compute the same each time"
            )
        arrived = [
            (o, c.to(o.device))
            for o, c in zip(outputs, cotangents, strict=True)
            if c is not None and o.requires_grad
        ]
        found = self._gradients(arrived, [*[t._edge() for t in stands], *self.ends], task)
        if not task.retain_graph:
            self.call, self.ends, self.freed = None, [], True
        return found

    def _gradients(
        self, arrived: list[tuple[Tensor, Any]], ends: list[End], task: Any
    ) -> list[Any]:
        if not arrived:
            return [None] * len(ends)
        if not any(o._fn is not None for o, _ in arrived):
            raise RuntimeError(
                "none of output has requires_grad=True, this checkpoint() is not necessary"
            )
        return grad_between(
            [o for o, _ in arrived], [c for _, c in arrived], ends, task.create_graph
        )

    def _watched(self, call: _Call) -> contextlib.AbstractContextManager[Any]:
        """Around the second run: where an argument was written to after the first it must not be
        read."""
        changed = next((s for s in call.seen if s.version.number != s.number), None)
        if changed is None:
            return contextlib.nullcontext()

        def refuse(_: Any) -> Any:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation: an argument of a checkpointed function is at version "
                f"{changed.version.number}; expected version {changed.number} instead. Hint: "
                "clone() it before the call"
            )

        if self.reentrant:
            refuse(None)
        return saved_tensors_hooks(refuse, refuse)


def _tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors among what a function returned."""
    listed = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [o for o in listed if isinstance(o, Tensor)]


class _Call:
    """A function with its arguments and the state of the world around it."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        preserve: bool,
        contexts: Contexts,
    ):
        self.function, self.args, self.kwargs = function, args, kwargs
        given = (*args, *kwargs.values())
        self.places = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t.requires_grad]
        self.inputs: list[Tensor] = [given[i] for i in self.places]
        self.seen = [seen_of(t) for t in args if isinstance(t, Tensor)]  # not kwargs, as in PyTorch
        self.contexts = contexts
        self.random = marks() if preserve else None
        self.cast = autocast.state.target, autocast.state.on_gpus

    def first(self) -> Any:
        with self.contexts[0]:
            return self.function(*self.args, **self.kwargs)

    def again(self, inputs: list[Tensor]) -> Any:
        """Once more, with the random numbers and casts of the first time, on what stands for the
        inputs."""
        given = [*self.args, *self.kwargs.values()]
        for place, stand in zip(self.places, inputs, strict=True):
            given[place] = stand
        args, kwargs = (
            given[: len(self.args)],
            dict(zip(self.kwargs, given[len(self.args) :], strict=True)),
        )
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


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], Contexts] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, whose intermediate values are not kept for the backward pass.

    The call is run at once and again in the backward pass, which needs less memory and more time.
    Inside a function that is compiled as a whole both are one graph, in which equal computations
    are one: there it changes nothing.

    Args:
        use_reentrant: True keeps PyTorch's older rules: gradients only flow where an argument
            requires one, and only through ``backward()`` without `inputs`. Pass it; without it a
            warning comes.
        context_fn: returns two contexts, for the first run and for the second (use_reentrant=False
            only).
        preserve_rng_state: False spares saving and restoring the random state; default True.
        determinism_check: "default" compares shapes and dtypes of both runs, "none" does not.
        debug, early_stop: accepted.

    Raises: ValueError for arguments that do not go together, CheckpointError where the second run
        gives other shapes or dtypes.
    """
    if use_reentrant is None:
        warn_user(f"torch.utils.checkpoint: {_NOT_PASSED}")
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug:
            raise ValueError(
                "Passing `context_fn` or `debug` is only supported when use_reentrant=False."
            )
    call = _Call(function, args, kwargs, preserve, context_fn())
    if use_reentrant and not call.inputs:
        warn_user("None of the inputs have requires_grad=True. Gradients will be None")
        with no_grad():
            return call.first()
    if not is_grad_enabled():
        return call.first()
    return _checkpointed(call, use_reentrant)


def _checkpointed(call: _Call, reentrant: bool) -> Any:
    before = new_number()
    outputs = call.first()
    tensors = [t for t in _tensors_of(outputs) if t.requires_grad]
    inner, ends = _nodes_since(before, tensors)
    if not tensors or not (call.inputs or ends):
        return outputs
    node = _Node(call, ends, _tensors_of(outputs), reentrant)
    node.functions = tuple({f for n in inner for f in n.functions})
    made = _without_history(outputs, node)
    del outputs, tensors, inner
    if recorder.capture is None:
        flush()  # the outputs are in memory now; what led to them need not stay
    return made


def _nodes_since(before: int, outputs: list[Tensor]) -> tuple[list[GradNode], list[End]]:
    """The nodes of the autograd graph of `outputs` that were made after `before`, and where it goes
    from there: to leaves, and to what was computed earlier."""
    inner: dict[GradNode, None] = {}
    ends: dict[End, None] = {}
    stack = [e for t in outputs if (e := t._edge()) is not None]
    while stack:
        edge = stack.pop()
        node = edge[0]
        if isinstance(node, AccumulateGrad) or node.sequence < before:
            ends[edge] = None
        elif node not in inner:
            inner[node] = None
            stack.extend(e for e in node.edges if e is not None)
    return list(inner), list(ends)


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


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """`functions` (a Sequential, or modules and functions in a list) one after the other, in
    `segments` checkpoints of which the last keeps its values.

    Raises: ValueError for other keyword arguments than ``preserve_rng_state``, or too many
        segments.
    """
    if use_reentrant is None:
        warn_user(f"torch.utils.checkpoint.checkpoint_sequential: {_NOT_PASSED}")
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    parts = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(parts) // segments
    if size == 0:
        raise ValueError(
            f"checkpoint_sequential: {segments} segments of {len(parts)} functions: at most one "
            "for each function"
        )
    last = size * (segments - 1)
    for start in range(0, last, size):
        input = checkpoint(
            _chain(parts[start : start + size]),
            input,
            use_reentrant=use_reentrant,
            preserve_rng_state=preserve,
        )
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
