"""Sizes of Cauchy numbers."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from . import constraints
from .cauchy import Cauchy
from .transformed_distribution import TransformedDistribution
from .transforms import AbsTransform

__all__ = ["HalfCauchy"]


class HalfCauchy(TransformedDistribution):
    """Sizes of Cauchy numbers of median 0.

    Args:
        scale: of those numbers, positive.
    """

    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None):
        super().__init__(Cauchy(0, scale, validate_args=False), AbsTransform(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(HalfCauchy, _instance))

    @property
    def scale(self) -> Tensor:
        """Of the numbers with a sign."""
        return self.base_dist.scale

    @property
    def mode(self) -> Tensor:
        return FUNCTIONS["zeros_like"](self.scale)

    @property
    def mean(self) -> Tensor:
        return FUNCTIONS["full"](self._extended_shape(), math.inf, dtype=self.scale.dtype)

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = FUNCTIONS["as_tensor"](value, dtype=self.base_dist.scale.dtype)
        inside = (math.log(2 / math.pi) - self.scale.log()) - (value / self.scale).square().log1p()
        return FUNCTIONS["where"](value >= 0, inside, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() - math.log(2)
