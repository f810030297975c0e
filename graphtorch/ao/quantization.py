"""``torch.ao.quantization``: modules that mark where a model may be quantized.

There are no quantized tensors here, so that preparing and converting a model are errors; the
markers are what they are in a model that was never prepared: the identity.
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._torch.absent import message
from ..nn import Module


class QuantStub(Module):
    """Marks where float becomes quantized: the identity."""

    def __init__(self, qconfig: Any = None):
        super().__init__()
        if qconfig is not None:
            raise RuntimeError("QuantStub: there are no quantized tensors here; leave qconfig out")

    def forward(self, x: Tensor) -> Tensor:
        return x


class DeQuantStub(QuantStub):
    """Marks where quantized becomes float: the identity."""


class QuantWrapper(Module):
    """A module between the two markers."""

    def __init__(self, module: Module):
        super().__init__()
        self.quant, self.dequant, self.module = QuantStub(), DeQuantStub(), module

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.module(self.quant(x)))  # type: ignore[no-any-return]


__all__ = ["DeQuantStub", "QuantStub", "QuantWrapper"]


def __getattr__(name: str) -> Any:
    raise AttributeError(
        message(__name__, name)
        + ": there are no quantized tensors here; run the model in float, or "
        "export it with torch.onnx.export and quantize it there"
    )
