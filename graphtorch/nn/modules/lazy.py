"""Layers that learn their input size from the first call, and then are ordinary ones."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ...autograd import no_grad
from ..parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from . import batchnorm, conv
from .linear import Linear
from .module import Module


class LazyModuleMixin:
    """A module with parameters that wait for a shape. Its first call infers it and changes the
    class.

    A subclass sets `cls_to_become` and overrides `initialize_parameters`, which gets the call's
    arguments.
    """

    cls_to_become: type[Module] | None = None

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer still waits for its shape."""
        own: Any = self
        return any(is_lazy(t) for t in (*own._parameters.values(), *own._buffers.values()))

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give every waiting parameter a shape and values."""
        raise NotImplementedError(
            f"initialize_parameters is not implemented for {type(self).__name__}"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.has_uninitialized_params():
            with no_grad():
                self.initialize_parameters(*args, **kwargs)
            if self.has_uninitialized_params():
                raise RuntimeError(f"module {type(self).__name__} has not been fully initialized")
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]
        return Module.__call__(self, *args, **kwargs)  # type: ignore[arg-type]


def _wait(module: Any, names: tuple[str, ...], device: Any, dtype: Any) -> None:
    """Put waiting tensors in the place of the empty ones that the base class made."""
    for name in names:
        if module._parameters.get(name) is not None:
            setattr(module, name, UninitializedParameter(device=device, dtype=dtype))
        elif module._buffers.get(name) is not None:
            module._buffers[name] = UninitializedBuffer(device=device, dtype=dtype)


def _materialize(module: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        tensor = getattr(module, name)
        if tensor is not None and is_lazy(tensor):
            tensor.materialize(shape)
    module.reset_parameters()


class LazyLinear(LazyModuleMixin, Linear):
    """`Linear` whose in_features is the last size of its first input."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None):
        Module.__init__(self)
        self.in_features = 0
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.bias = UninitializedParameter(device=device, dtype=dtype) if bias else None

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params():
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        self.in_features = input.shape[-1]
        _materialize(
            self, {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        )


class _LazyConvNd(LazyModuleMixin):
    """The first input's channel count decides in_channels."""

    def __init__(
        self: Any,
        out_channels: int,
        kernel_size: Any,
        *args: Any,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        self.cls_to_become.__init__(
            self, 0, 0, kernel_size, *args, device=device, dtype=dtype, **kwargs
        )
        self.out_channels = out_channels
        _wait(self, ("weight", "bias"), device, dtype)

    def reset_parameters(self: Any) -> None:
        if not self.has_uninitialized_params() and self.in_channels:
            self.cls_to_become.reset_parameters(self)

    def initialize_parameters(self: Any, input: Tensor, *args: Any) -> None:
        if input.dim() not in (self.rank + 1, self.rank + 2):
            raise RuntimeError(
                f"Expected {self.rank + 1}D (unbatched) or {self.rank + 2}D (batched) input "
                f"to {type(self).__name__}, but got input of size: "
                f"{list(input.shape)}"
            )
        self.in_channels = input.shape[-self.rank - 1]
        if self.in_channels % self.groups:
            raise ValueError("in_channels must be divisible by groups")
        _materialize(self, {"weight": self._weight_shape(), "bias": (self.out_channels,)})


class _LazyNorm(LazyModuleMixin):
    """The first input's channel count decides num_features."""

    def __init__(self: Any, *args: Any, device: Any = None, dtype: Any = None, **kwargs: Any):
        self.cls_to_become.__init__(self, 0, *args, device=device, dtype=dtype, **kwargs)
        _wait(self, ("weight", "bias", "running_mean", "running_var"), device, dtype)

    def reset_parameters(self: Any) -> None:
        if not self.has_uninitialized_params() and self.num_features:
            self.cls_to_become.reset_parameters(self)

    def initialize_parameters(self: Any, input: Tensor) -> None:
        self._check_input_dim(input)
        single = isinstance(self, batchnorm._InstanceNorm) and input.dim() == self.ranks[0]
        self.num_features = input.shape[0 if single else 1]
        names = ("weight", "bias", "running_mean", "running_var")
        _materialize(self, dict.fromkeys(names, (self.num_features,)))


def _lazy(mixin: type, base: type[Module]) -> Any:
    """The lazy form of a layer class."""
    return type(
        f"Lazy{base.__name__}",
        (mixin, base),
        {
            "cls_to_become": base,
            "__module__": __name__,
            "__doc__": f"`{base.__name__}` that learns its number of channels from the first call.",
        },
    )


LazyConv1d, LazyConv2d, LazyConv3d = (
    _lazy(_LazyConvNd, c) for c in (conv.Conv1d, conv.Conv2d, conv.Conv3d)
)
LazyConvTranspose1d, LazyConvTranspose2d, LazyConvTranspose3d = (
    _lazy(_LazyConvNd, c)
    for c in (conv.ConvTranspose1d, conv.ConvTranspose2d, conv.ConvTranspose3d)
)
LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d = (
    _lazy(_LazyNorm, c)
    for c in (batchnorm.BatchNorm1d, batchnorm.BatchNorm2d, batchnorm.BatchNorm3d)
)
LazyInstanceNorm1d, LazyInstanceNorm2d, LazyInstanceNorm3d = (
    _lazy(_LazyNorm, c)
    for c in (batchnorm.InstanceNorm1d, batchnorm.InstanceNorm2d, batchnorm.InstanceNorm3d)
)
