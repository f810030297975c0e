"""Sizes of numbers that are spread evenly around 0: what half-normal and half-Cauchy numbers
share."""

from __future__ import annotations

import math

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from . import constraints
from .transformed_distribution import TransformedDistribution

__all__ = ["Half"]


class Half(TransformedDistribution):
    """The absolute values of `base_dist`, whose density is even."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    @property
    def scale(self) -> Tensor:
        """Of the numbers with a sign."""
        return self.base_dist.scale

    @property
    def mode(self) -> Tensor:
        return FUNCTIONS["zeros_like"](self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = FUNCTIONS["as_tensor"](value, dtype=self.scale.dtype, device=self.scale.device)
        inside = self.base_dist.log_prob(value) + math.log(2)
        return FUNCTIONS["where"](value >= 0, inside, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() - math.log(2)
