"""Student's t distribution."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from . import constraints
from .chi2 import Chi2
from .distribution import Distribution
from .utils import broadcast_all, gaussian

__all__ = ["StudentT"]


class StudentT(Distribution):
    """Normal numbers of an uncertain deviation.

    Args:
        df: degrees of freedom, positive. loc: the mode. scale: positive.
    """

    arg_constraints = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None
    ):
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = Chi2(self.df)
        super().__init__(self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(StudentT, batch_shape, _instance, "df", "loc", "scale")
        new._chi2 = self._chi2.expand(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        """NaN for up to one degree of freedom."""
        return FUNCTIONS["where"](self.df <= 1, math.nan, self.loc)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """inf for up to two degrees of freedom, NaN for up to one."""
        where, df = FUNCTIONS["where"], self.df
        found = self.scale.square() * df / (df - 2)
        return where(df > 2, found, where(df > 1, math.inf, math.nan).to(found.dtype))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = gaussian(self._extended_shape(sample_shape), self.df)
        drawn = noise * (self._chi2.rsample(sample_shape) / self.df).rsqrt()
        return self._note(self.loc + self.scale * drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        df, y = self.df, (value - self.loc) / self.scale
        constant = (
            self.scale.log()
            + 0.5 * df.log()
            + 0.5 * math.log(math.pi)
            + (0.5 * df).lgamma()
            - (0.5 * (df + 1)).lgamma()
        )
        return -0.5 * (df + 1) * (y.square() / df).log1p() - constant

    def entropy(self) -> Tensor:
        half, more = 0.5 * self.df, 0.5 * (self.df + 1)
        log_beta = half.lgamma() + math.lgamma(0.5) - more.lgamma()
        return (
            self.scale.log()
            + more * (more.digamma() - half.digamma())
            + 0.5 * self.df.log()
            + log_beta
        )
