"""``torch.ao``: of quantization, what models that may later be quantized are written with."""

from __future__ import annotations

from .._torch.absent import attribute_of

__getattr__ = attribute_of(__name__, {"nn", "quantization"})
