"""Layer, RMS, group and local response normalisation."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from .. import init
from ..parameter import Parameter
from ._build import buffer
from ._thin import thin
from .module import Module

LocalResponseNorm = thin(
    "LocalResponseNorm",
    F.local_response_norm,
    lambda size, alpha=1e-4, beta=0.75, k=1.0: None,
    "x / (k + alpha mean of x^2 over neighbouring channels)^beta.",
    shown="{size}, alpha={alpha}, beta={beta}, k={k}",
)
CrossMapLRN2d = thin(
    "CrossMapLRN2d",
    F.local_response_norm,
    lambda size, alpha=1e-4, beta=0.75, k=1: None,
    "Older name of `LocalResponseNorm`.",
    shown="{size}, alpha={alpha}, beta={beta}, k={k}",
)


class LayerNorm(Module):
    """Normalise over the trailing dims `normalized_shape`, then scale and shift elementwise."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, kind, wanted in (("weight", "ones", True), ("bias", "zeros", bias)):
            made = elementwise_affine and wanted
            self.register_parameter(
                name,
                Parameter(buffer(kind, self.normalized_shape, device, dtype)) if made else None,
            )

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        _reset(self)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the trailing dims; `eps` None is the dtype's
    epsilon."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = (
            Parameter(buffer("ones", self.normalized_shape, device, dtype))
            if elementwise_affine
            else None
        )
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Weight 1."""
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """Normalise over each of `num_groups` groups of channels, then scale and shift each channel."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(
                f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        for name, kind, wanted in (("weight", "ones", affine), ("bias", "zeros", affine and bias)):
            self.register_parameter(
                name, Parameter(buffer(kind, (num_channels,), device, dtype)) if wanted else None
            )

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        _reset(self)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


def _shape(given: Any) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)


def _reset(module: Any) -> None:
    if module.weight is not None:
        init.ones_(module.weight)
    if getattr(module, "bias", None) is not None:
        init.zeros_(module.bias)
