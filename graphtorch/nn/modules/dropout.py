"""Dropout layers: active in training mode only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from .module import Module


class _DropoutNd(Module):
    function: Callable[..., Tensor]

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


def _layer(name: str, function: Callable[..., Tensor], doc: str) -> Any:
    return type(
        name,
        (_DropoutNd,),
        {"function": staticmethod(function), "__doc__": doc, "__module__": __name__},
    )


Dropout = _layer(
    "Dropout", F.dropout, "Zero each element with probability p, scale the others by 1 / (1 - p)."
)
Dropout1d = _layer("Dropout1d", F.dropout1d, "`Dropout` of whole channels of [N, C, L] or [C, L].")
Dropout2d = _layer(
    "Dropout2d", F.dropout2d, "`Dropout` of whole channels of [N, C, H, W] or [C, H, W]."
)
Dropout3d = _layer(
    "Dropout3d", F.dropout3d, "`Dropout` of whole channels of [N, C, D, H, W] or [C, D, H, W]."
)
AlphaDropout = _layer(
    "AlphaDropout", F.alpha_dropout, "Dropout that keeps the statistics of SELU activations."
)
FeatureAlphaDropout = _layer(
    "FeatureAlphaDropout", F.feature_alpha_dropout, "`AlphaDropout` of whole channels."
)
