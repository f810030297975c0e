"""Full backward hooks: identities around a module that see all its gradients at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..._deferred.tensor import Tensor
from ...autograd import Function


class Watch(Function):
    """The identity on any number of tensors; `seen` gets all their gradients together."""

    runs_hooks = True

    @staticmethod
    def forward(ctx: Any, seen: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.seen = seen
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *ctx.seen(grads))


class BackwardHooks:
    """The backward hooks of one call of a module.

    Args:
        module: what the hooks are told.
        hooks: ``hook(module, grad_input, grad_output)``.
        pre_hooks: ``hook(module, grad_output)``.
    """

    def __init__(
        self,
        module: Any,
        hooks: Sequence[Callable[..., Any]],
        pre_hooks: Sequence[Callable[..., Any]],
    ):
        self.module = module
        self.hooks = hooks
        self.pre_hooks = pre_hooks
        self.grad_output: tuple[Any, ...] = ()
        self.input_spots: tuple[int, ...] | None = None  # None: no input needs a gradient
        self.input_count = 0

    def wrap_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.input_count = len(args)
        watched, spots = self._watch(args, self._input_grads)
        self.input_spots = spots
        return watched

    def wrap_outputs(self, result: Any) -> Any:
        outputs = result if isinstance(result, tuple) else (result,)
        self.output_count = len(outputs)
        watched, self.output_spots = self._watch(outputs, self._output_grads)
        return watched if isinstance(result, tuple) else watched[0]

    def _watch(
        self, values: tuple[Any, ...], seen: Callable[..., Any]
    ) -> tuple[Any, tuple[int, ...] | None]:
        spots = tuple(i for i, v in enumerate(values) if isinstance(v, Tensor))
        if not any(values[i].requires_grad for i in spots):
            return values, None
        tensors = Watch.apply(seen, *(values[i] for i in spots))
        tensors = tensors if isinstance(tensors, tuple) else (tensors,)
        replaced = list(values)
        for i, tensor in zip(spots, tensors, strict=True):
            replaced[i] = tensor
        return tuple(replaced), spots

    def _output_grads(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full = _spread(grads, self.output_spots, self.output_count)
        for hook in self.pre_hooks:
            new = hook(self.module, full)
            if new is not None:
                full = _replacement(new, full, "Backward pre hook", "grad_output")
        self.grad_output = full
        if self.input_spots is None:
            self._run_hooks((None,) * self.input_count)
        return tuple(full[i] for i in self.output_spots or ())

    def _input_grads(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full = self._run_hooks(_spread(grads, self.input_spots, self.input_count))
        return tuple(full[i] for i in self.input_spots or ())

    def _run_hooks(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.hooks:
            new = hook(self.module, grad_input, self.grad_output)
            if new is None:
                continue
            if self.input_spots is None:
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always "
                    "return None or None for all gradients."
                )
            grad_input = _replacement(new, grad_input, "Backward hook", "grad_input")
        return grad_input


def _spread(grads: tuple[Any, ...], spots: tuple[int, ...] | None, count: int) -> tuple[Any, ...]:
    full: list[Any] = [None] * count
    for i, grad in zip(spots or (), grads, strict=True):
        full[i] = grad
    return tuple(full)


def _replacement(new: Any, old: tuple[Any, ...], who: str, what: str) -> tuple[Any, ...]:
    new = new if isinstance(new, tuple) else (new,)
    if len(new) != len(old):
        raise RuntimeError(
            f"{who} returned an invalid number of {what}, got {len(new)}, but expected {len(old)}"
        )
    return new
