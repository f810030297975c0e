"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import Size
from ..autograd.grad_mode import no_grad
from ..nn.functional import binary_cross_entropy_with_logits
from . import constraints
from .categorical import one_parameter
from .exp_family import ExponentialFamily
from .utils import (
    all_numbers,
    broadcast_all,
    clamp_probs,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
    uniform,
)

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(ExponentialFamily):
    """Numbers between 0 and 1, of a density proportional to p^x (1 - p)^(1 - x).

    G. Loaiza-Ganem, J. Cunningham: The continuous Bernoulli: fixing a pervasive error in
    variational autoencoders (2019).

    Args:
        probs: p, which is not the mean. logits: its log-odds. One of the two.
        lims: between these, where the formulas are 0 / 0, Taylor's series is used.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ):
        given = one_parameter(probs, logits)
        (self._param,) = broadcast_all(given)
        if probs is None:
            self.logits = self._param
        else:
            if (
                validate_args is not None
                and not self.arg_constraints["probs"].check(self._param).all()
            ):
                raise ValueError("The parameter probs has invalid values")
            self.probs = self._param = clamp_probs(self._param)
        self._lims = lims
        super().__init__(
            () if all_numbers(given) else self._param.shape, validate_args=validate_args
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(ContinuousBernoulli, batch_shape, _instance, "probs", "logits")
        new._param = new.__dict__["probs" if "probs" in self.__dict__ else "logits"]
        new._lims = self._lims
        return new

    @lazy_property
    def logits(self) -> Tensor:
        """The log-odds of p."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """p."""
        return clamp_probs(logits_to_probs(self.logits, is_binary=True))

    @property
    def param_shape(self) -> Size:
        """The shape of `probs` and `logits`."""
        return self._param.shape

    def _steady(self) -> Tensor:
        """Where the formulas can be used as they are."""
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _steady_probs(self) -> Tensor:
        """p there, elsewhere a number of no consequence."""
        return FUNCTIONS["where"](self._steady(), self.probs, self._lims[0])

    def _log_constant(self) -> Tensor:
        """The logarithm of the factor that makes the density's integral 1: 2 atanh(1 - 2p) / (1 -
        2p)."""
        where, p = FUNCTIONS["where"], self._steady_probs()
        low, high = (where(p <= 0.5, p, 0.0), where(p >= 0.5, p, 1.0))
        exact = ((-p).log1p() - p.log()).abs().log() - where(
            p <= 0.5, (-2 * low).log1p(), (2 * high - 1).log()
        )
        x = (self.probs - 0.5).square()
        return where(self._steady(), exact, math.log(2.0) + (4 / 3 + 104 / 45 * x) * x)

    @property
    def mean(self) -> Tensor:
        p = self._steady_probs()
        exact = p / (2 * p - 1) + 1 / ((-p).log1p() - p.log())
        x = self.probs - 0.5
        return FUNCTIONS["where"](self._steady(), exact, 0.5 + (1 / 3 + 16 / 45 * x.square()) * x)

    @property
    def variance(self) -> Tensor:
        p = self._steady_probs()
        exact = p * (p - 1) / (1 - 2 * p).square() + 1 / ((-p).log1p() - p.log()).square()
        x = (self.probs - 0.5).square()
        return FUNCTIONS["where"](self._steady(), exact, 1 / 12 - (1 / 15 - 128 / 945 * x) * x)

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._note(self.icdf(uniform(self._extended_shape(sample_shape), self.probs)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return self._log_constant() - binary_cross_entropy_with_logits(
            logits, value, reduction="none"
        )

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        where, p = FUNCTIONS["where"], self._steady_probs()
        exact = (p.pow(value) * (1 - p).pow(1 - value) + p - 1) / (2 * p - 1)
        inside = where(self._steady(), exact, value)
        return where(value <= 0, 0.0, where(value >= 1, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        p = self._steady_probs()
        exact = ((-p + value * (2 * p - 1)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p())
        return FUNCTIONS["where"](self._steady(), exact, value)

    def entropy(self) -> Tensor:
        none = (-self.probs).log1p()
        return self.mean * (none - self.probs.log()) - self._log_constant() - none

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        (x,) = natural_params
        steady = (x <= self._lims[0] - 0.5) | (x > self._lims[1] - 0.5)
        cut = FUNCTIONS["where"](steady, x, self._lims[0] - 0.5)
        exact = cut.expm1().abs().log() - cut.abs().log()
        return FUNCTIONS["where"](steady, exact, 0.5 * x + x.pow(2) / 24 - x.pow(4) / 2880)
