"""``torch.autograd.graph``: the graph that `backward` walks.

https://docs.pytorch.org/docs/stable/autograd.html#autograd-graph
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from .._deferred.tensor import Tensor
from .._torch.absent import attribute_of
from ..utils.hooks import RemovableHandle
from .nodes import GradNode as Node


class GradientEdge(NamedTuple):
    """Where the gradient of a tensor goes: a node, and which of its results the tensor is."""

    node: Any
    output_nr: int
    ownership_token: Any = None


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a tensor. Raises RuntimeError: it does not require grad."""
    edge = tensor._edge()
    if edge is None:
        raise RuntimeError(
            "It is not possible to get the gradient edge for a Tensor that does not require gradients"
        )
    return GradientEdge(*edge)


def increment_version(tensor: Any) -> None:
    """Say that a tensor (or several) was written to without autograd's knowledge."""
    for one in (tensor,) if isinstance(tensor, Tensor) else tensor:
        one._counter.number += 1


@contextlib.contextmanager
def save_on_cpu(pin_memory: bool = False, device_type: str = "cuda") -> Iterator[None]:
    """Keep what a gradient needs in the CPU's memory: there is no other."""
    yield


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Inside, `saved_tensors_hooks` is an error: it always is."""
    yield


class saved_tensors_hooks:
    """Raises RuntimeError: gradients are graphs here, in which no tensors are packed and unpacked."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]):
        raise RuntimeError(
            "saved_tensors_hooks: a gradient is part of a graph here, and its tensors are not saved one "
            "by one; use torch.utils.checkpoint to compute them again"
        )


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
) -> Any:
    """Call ``fn`` with the gradients of all `tensors` once they are there, or ("any") with the first of them.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    found: list[Any] = [None] * len(tensors)
    seen: set[int] = set()

    def arrived(number: int, grad: Tensor) -> None:
        seen.add(number)
        found[number] = grad
        if mode == "any":
            if len(seen) == 1:
                fn(grad)
        elif len(seen) == len(tensors):
            fn(tuple(found))
        if len(seen) == len(tensors):
            seen.clear()

    return _Several([t.register_hook(functools.partial(arrived, i)) for i, t in enumerate(tensors)])


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
