"""Sizes of Cauchy numbers."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .cauchy import Cauchy
from .half import Half
from .transforms import AbsTransform

__all__ = ["HalfCauchy"]


class HalfCauchy(Half):
    """Sizes of Cauchy numbers of median 0.

    Args:
        scale: of those numbers, positive.
    """

    def __init__(self, scale: Any, validate_args: bool | None = None):
        super().__init__(
            Cauchy(0, scale, validate_args=False), AbsTransform(), validate_args=validate_args
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(HalfCauchy, _instance))

    @property
    def mean(self) -> Tensor:
        return self.scale.new_full(self._extended_shape(), math.inf)

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance
