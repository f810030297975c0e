"""Changing the dtype or device of everything a module holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._ops.convert import parse_to
from ...autograd import no_grad
from ..parameter import is_lazy
from ._members import Members, changes


class Casts(Members):
    """`to` and its short forms. All work in place and return the module."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Replace the data of every parameter, gradient and buffer by what `fn` makes of it."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for param in self._parameters.values():
            if param is None:
                continue
            grad = None if is_lazy(param) else param.grad
            with no_grad():
                param._rebind(fn(param.data if is_lazy(param) else param.detach()))
                if grad is not None:
                    self._convert(param, grad, fn(grad.detach()))
        for name, buffer in self._buffers.items():
            if buffer is None:
                continue
            if is_lazy(buffer):
                buffer.data = fn(buffer.data)
            else:
                changes.count += 1
                self._buffers[name] = fn(buffer)
        return self

    @staticmethod
    def _convert(param: Tensor, grad: Tensor, converted: Tensor) -> None:
        """Let the gradient of `param` be `converted`: the same object, as far as that can be."""
        if grad.is_sparse or converted.is_sparse:
            param.grad = converted.requires_grad_(grad.requires_grad)
        else:
            grad._rebind(converted)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move and cast: ``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``.

        A dtype applies to floating-point and complex tensors only, and has to be one itself;
        ``memory_format=`` to tensors with 4 or 5 dimensions.
        """
        device, dtype, _, _, memory_format = parse_to(*args, **kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, "
                f"but got desired dtype={dtype}"
            )

        def move(t: Tensor) -> Tensor:
            cast = (
                dtype
                if dtype is not None and (t.is_floating_point() or t.is_complex())
                else t.dtype
            )
            order = memory_format if t.ndim in (4, 5) else None
            if t.is_meta and device is not None and device.type != "meta":
                raise NotImplementedError(
                    "Cannot copy out of meta tensor; no data! Please use "
                    "torch.nn.Module.to_empty() instead of torch.nn.Module.to() when moving module "
                    "from meta to a different device."
                )
            return t.to(device, cast, memory_format=order)

        return self._apply(move)

    def type(self, dst_type: Any) -> Any:
        """Cast all parameters and buffers to `dst_type`."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self) -> Any:
        """Cast floating-point parameters and buffers to float32."""
        return self._to_float("float")

    def double(self) -> Any:
        """Cast floating-point parameters and buffers to float64."""
        return self._to_float("double")

    def half(self) -> Any:
        """Cast floating-point parameters and buffers to float16."""
        return self._to_float("half")

    def bfloat16(self) -> Any:
        """Cast floating-point parameters and buffers to bfloat16."""
        return self._to_float("bfloat16")

    def _to_float(self, method: str) -> Any:
        return self._apply(lambda t: getattr(t, method)() if t.is_floating_point() else t)

    def cpu(self) -> Any:
        """Move to the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Any:
        """Move to a GPU; raises as ``Tensor.cuda`` does where there is none."""
        return self._apply(lambda t: t.cuda(device))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Any:
        """Move to `device` without the contents."""
        return self._apply(lambda t: FUNCTIONS["empty_like"](t, device=device), recurse=recurse)

    def share_memory(self) -> Any:
        """Move the tensors to shared memory; see ``Tensor.share_memory_``."""
        return self._apply(lambda t: t.share_memory_())
