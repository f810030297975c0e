"""``torch.ao.nn.quantized``: operations of models that may later be quantized, as they are on
floats."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._torch.absent import attribute_of
from ...nn import Module


class FloatFunctional(Module):
    """Additions and products as a module, which a quantizer would replace."""

    def forward(self, x: Any) -> Any:
        raise RuntimeError(
            "FloatFunctional is not intended to use the 'forward'. Please use the underlying "
            "operation"
        )

    def add(self, x: Tensor, y: Any) -> Tensor:
        """x + y."""
        return FUNCTIONS["add"](x, y)  # type: ignore[no-any-return]

    add_scalar = add

    def mul(self, x: Tensor, y: Any) -> Tensor:
        """x * y."""
        return FUNCTIONS["mul"](x, y)  # type: ignore[no-any-return]

    mul_scalar = mul

    def cat(self, x: list[Tensor], dim: int = 0) -> Tensor:
        """All of `x` along `dim`."""
        return FUNCTIONS["cat"](x, dim)  # type: ignore[no-any-return]

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """max(x + y, 0)."""
        return FUNCTIONS["relu"](FUNCTIONS["add"](x, y))  # type: ignore[no-any-return]

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """x @ y."""
        return FUNCTIONS["matmul"](x, y)  # type: ignore[no-any-return]


__all__ = ["FloatFunctional"]
__getattr__ = attribute_of(__name__)
