"""``torch.autograd.graph``: the graph that `backward` walks.

https://docs.pytorch.org/docs/stable/autograd.html#autograd-graph
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._torch.absent import attribute_of
from ..utils.hooks import RemovableHandle
from .engine import current
from .grad_mode import modes
from .nodes import GradientEdge
from .nodes import GradNode as Node


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a tensor. Raises RuntimeError: it does not require grad."""
    edge = tensor._edge()
    if edge is None:
        raise RuntimeError(
            "It is not possible to get the gradient edge for a Tensor that does not require "
            "gradients"
        )
    return GradientEdge(*edge)


def increment_version(tensor: Any) -> None:
    """Say that a tensor (or several) was written to without autograd's knowledge."""
    for one in (tensor,) if isinstance(tensor, Tensor) else tensor:
        one._counter.number += 1


def _leave_capture(what: str) -> None:
    if recorder.capture is not None and not recorder.capture.call_off(True):
        raise RuntimeError(
            f"{what}: hooks are called line by line, and a captured graph has no lines; "
            "enter it outside of the captured function"
        )


class saved_tensors_hooks(contextlib.ContextDecorator):
    """Inside, what the backward pass will read goes through two hooks; the innermost block's count.

    ``pack_hook(tensor)`` is called when an operation is recorded, once for each operand and result
    that its gradient is computed from, and for each tensor of `ctx.save_for_backward`;
    ``unpack_hook(packed)`` when a backward pass comes to the operation. The gradient is computed
    from what it gives, which has the shape and dtype of what was packed. docs/autograd.md says
    which tensors an operation reads.

    A compiled function that is called inside runs line by line.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]):
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._before: list[Any] = []

    def __enter__(self) -> None:
        if modes.no_saving is not None:
            raise RuntimeError(modes.no_saving)
        _leave_capture("saved_tensors_hooks")
        self._before.append(modes.saving)
        modes.saving = self.pack_hook, self.unpack_hook
        modes.watchers += 1

    def __exit__(self, *exc: object) -> None:
        modes.saving = self._before.pop()
        modes.watchers -= 1


class save_on_cpu(saved_tensors_hooks):
    """Keep what a gradient needs in the CPU's memory: there is no other, so that nothing is
    copied."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda"):
        super().__init__(lambda tensor: tensor, lambda tensor: tensor)


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Inside, to enter `saved_tensors_hooks` is a RuntimeError with this message; so is this inside
    one."""
    if modes.saving is not None:
        raise RuntimeError(error_message)
    before, modes.no_saving = modes.no_saving, error_message
    try:
        yield
    finally:
        modes.no_saving = before


class _AllowMutationOnSavedContext:
    """What `allow_mutation_on_saved_tensors` gives: nothing is copied, so that there is nothing to
    clear."""

    def clear(self) -> None:
        """Forget copies: there are none."""


@contextlib.contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[_AllowMutationOnSavedContext]:
    """Operations recorded inside compute their gradients from what tensors held when they read
    them, also where these were written to since. Values are immutable here: nothing has to be
    copied for it.

    Raises:
        RuntimeError: blocks are nested.
    """
    if modes.mutable:
        raise RuntimeError("allow_mutation_on_saved_tensors contexts cannot be nested")
    _leave_capture("allow_mutation_on_saved_tensors")
    modes.mutable = True
    modes.watchers += 1
    try:
        yield _AllowMutationOnSavedContext()
    finally:
        modes.mutable = False
        modes.watchers -= 1


class _Several(RemovableHandle):
    """The handles of one hook on several tensors."""

    def __init__(self, handles: Sequence[Any]):
        self._handles = handles

    def remove(self) -> None:
        """Take the hook from all of them."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> _Several:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: str = "all"
) -> RemovableHandle:
    """Call ``fn`` with the gradients of `tensors` once a backward pass made them, or ("any") with
    the first.

    A pass that comes to some of the tensors only has None for the others.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    arrived: WeakKeyDictionary[Any, dict[int, Tensor]] = WeakKeyDictionary()  # by backward pass

    def hook(number: int, grad: Tensor) -> None:
        task = current.task
        found = arrived.setdefault(task, {})
        found[number] = grad
        if mode == "any":
            if len(found) == 1:
                fn(grad)
        elif len(found) == sum(task.comes_to(t._edge()[0]) for t in tensors):  # type: ignore[union-attr, index]
            fn([found.get(i) for i in range(len(tensors))])

    return _Several([t.register_hook(functools.partial(hook, i)) for i, t in enumerate(tensors)])


__all__ = [
    "GradientEdge",
    "Node",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "save_on_cpu",
    "saved_tensors_hooks",
]
__getattr__ = attribute_of(__name__)
