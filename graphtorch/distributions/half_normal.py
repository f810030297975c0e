"""Sizes of normal numbers."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .half import Half
from .normal import Normal
from .transforms import AbsTransform

__all__ = ["HalfNormal"]


class HalfNormal(Half):
    """Sizes of normal numbers of mean 0.

    Args:
        scale: of those numbers, positive.
    """

    def __init__(self, scale: Any, validate_args: bool | None = None):
        super().__init__(
            Normal(0, scale, validate_args=False), AbsTransform(), validate_args=validate_args
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(HalfNormal, _instance))

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        return self.scale.pow(2) * (1 - 2 / math.pi)
