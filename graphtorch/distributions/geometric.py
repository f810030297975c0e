"""Failures before the first success."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import finfo
from ..autograd.grad_mode import no_grad
from ..nn.functional import binary_cross_entropy_with_logits
from . import constraints
from .categorical import one_parameter
from .distribution import Distribution
from .utils import (
    all_numbers,
    broadcast_all,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
    uniform,
)

__all__ = ["Geometric"]


class Geometric(Distribution):
    """How many trials fail before one succeeds.

    Args:
        probs: the probability of success, above 0. logits: its log-odds. One of the two.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = one_parameter(probs, logits)
        (parameter,) = broadcast_all(given)
        setattr(self, "logits" if probs is None else "probs", parameter)
        super().__init__(() if all_numbers(given) else parameter.shape, validate_args=validate_args)
        broken = (
            self._validate_args
            and probs is not None
            and constraints.first_broken([(constraints.positive, parameter)]) is not None
        )
        if broken:
            raise ValueError(
                f"Expected parameter probs ({type(parameter).__name__} of shape "
                f"{tuple(parameter.shape)}) of distribution {self!r} to be positive but found "
                f"invalid values:\n{parameter}"
            )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return self._expanded(Geometric, batch_shape, _instance, "probs", "logits")

    @lazy_property
    def logits(self) -> Tensor:
        """The log-odds of success."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """The probability of success."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def mean(self) -> Tensor:
        return 1 / self.probs - 1

    @property
    def mode(self) -> Tensor:
        return FUNCTIONS["zeros_like"](self.probs)

    @property
    def variance(self) -> Tensor:
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            u = uniform(shape, self.probs).clamp(min=finfo(self.probs.dtype).tiny)
            return self._note((u.log() / (-self.probs).log1p()).floor())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        sure = (probs == 1) & (value == 0)
        return value * (-FUNCTIONS["where"](sure, 0.0, probs)).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        return (
            binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs
        )
