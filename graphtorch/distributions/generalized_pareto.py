"""Excesses over a threshold."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from . import constraints
from .distribution import Distribution
from .utils import all_numbers, broadcast_all, uniform

__all__ = ["GeneralizedPareto"]


class GeneralizedPareto(Distribution):
    """The generalized Pareto distribution.

    Args:
        loc: the least value. scale: positive. concentration: the shape; where negative, values are
            bounded.
    """

    arg_constraints = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "concentration": constraints.real,
    }
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        shape = () if all_numbers(loc, scale, concentration) else self.loc.shape
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return self._expanded(
            GeneralizedPareto, batch_shape, _instance, "loc", "scale", "concentration"
        )

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:  # type: ignore[override]
        end = self.loc - self.scale / self.concentration
        return constraints.interval(
            self.loc, FUNCTIONS["where"](self.concentration < 0, end, math.inf)
        )

    def _flat(self) -> tuple[Tensor, Tensor]:
        """Where the concentration is about 0; the concentration, 1 there."""
        flat = self.concentration.abs() <= 1e-8
        return flat, FUNCTIONS["where"](flat, 1.0, self.concentration)

    def _z(self, value: Tensor) -> Tensor:
        return (value - self.loc) / self.scale

    @property
    def mean(self) -> Tensor:
        """NaN for concentrations from 1 on."""
        where, c = FUNCTIONS["where"], self.concentration
        return where(c < 1, self.loc + self.scale / (1 - where(c < 1, c, 0.5)), math.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """NaN for concentrations from 1/2 on."""
        where, c = FUNCTIONS["where"], self.concentration
        safe = where(c < 0.5, c, 0.25)
        found = self.scale.square() / ((1 - safe).square() * (1 - 2 * safe))
        return where(c < 0.5, found, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(uniform(self._extended_shape(sample_shape), self.loc))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        where, z = FUNCTIONS["where"], self._z(value)
        flat, c = self._flat()
        power = 1 / c + FUNCTIONS["ones_like"](z)
        return -self.scale.log() - where(flat, z, where(power == 0, power, power * (c * z).log1p()))

    def log_survival_function(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of more than `value`."""
        if self._validate_args:
            self._validate_sample(value)
        z = self._z(value)
        flat, c = self._flat()
        return FUNCTIONS["where"](flat, -z, -(c * z).log1p() / c)

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of `cdf`."""
        return (-self.log_survival_function(value).exp()).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        return self.log_cdf(value).exp()

    def icdf(self, value: Tensor) -> Tensor:
        flat, c = self._flat()
        left = (-value).log1p()
        bent = self.loc + self.scale / c * (-c * left).expm1()
        return FUNCTIONS["where"](flat, self.loc - self.scale * left, bent)

    def entropy(self) -> Tensor:
        return (self.scale.log() + self.concentration + 1).expand(self._batch_shape)
