"""Quotients of sums of squares."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import finfo
from . import constraints
from .distribution import Distribution
from .gamma import Gamma
from .utils import all_numbers, broadcast_all

__all__ = ["FisherSnedecor"]


class FisherSnedecor(Distribution):
    """The F distribution.

    Args:
        df1, df2: degrees of freedom of numerator and denominator, positive.
    """

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self.df1, self.df2 = broadcast_all(df1, df2)
        self._gamma1, self._gamma2 = (
            Gamma(self.df1 * 0.5, self.df1),
            Gamma(self.df2 * 0.5, self.df2),
        )
        super().__init__(
            () if all_numbers(df1, df2) else self.df1.shape, validate_args=validate_args
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(FisherSnedecor, batch_shape, _instance, "df1", "df2")
        new._gamma1, new._gamma2 = (g.expand(batch_shape) for g in (self._gamma1, self._gamma2))
        return new

    def _where(self, condition: Tensor, value: Tensor) -> Tensor:
        return FUNCTIONS["where"](condition, value, math.nan)

    @property
    def mean(self) -> Tensor:
        """NaN for df2 up to 2."""
        df2 = self._where(self.df2 > 2, self.df2)
        return df2 / (df2 - 2)

    @property
    def mode(self) -> Tensor:
        """NaN for df1 up to 2."""
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return self._where(self.df1 > 2, mode)

    @property
    def variance(self) -> Tensor:
        """NaN for df2 up to 4."""
        df1, df2 = self.df1, self._where(self.df2 > 4, self.df2)
        return 2 * df2.square() * (df1 + df2 - 2) / (df1 * (df2 - 2).square() * (df2 - 4))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        tiny = finfo(self.df1.dtype).tiny
        above_, below = (g.rsample(sample_shape) for g in (self._gamma1, self._gamma2))
        return self._note((above_ / below.clamp(min=tiny)).clamp(min=tiny))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        constant = (a + b).lgamma() - a.lgamma() - b.lgamma()
        return (
            constant + a * ratio.log() + (a - 1) * value.log() - (a + b) * (ratio * value).log1p()
        )
