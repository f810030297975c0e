"""Angles around a direction."""

from __future__ import annotations

import math
from typing import Any

from .. import special
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from ..autograd.grad_mode import no_grad
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all, lazy_property

__all__ = ["VonMises"]


class VonMises(Distribution):
    """The von Mises distribution.

    Args:
        loc: the direction, in radians. concentration: 1 over the variance where that is small, positive.
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}  # noqa: RUF012
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, (), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        try:
            return super().expand(batch_shape)
        except NotImplementedError:
            validate_args = self.__dict__.get("_validate_args")
            return type(self)(self.loc.expand(batch_shape), self.concentration.expand(batch_shape),
                              validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The direction."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:  # type: ignore[override]
        """The circular variance, 1 - I1 / I0."""
        return 1 - special.i1e(self.concentration) / special.i0e(self.concentration)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Angles in -pi .. pi, by rejection."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            turned = FUNCTIONS["_von_mises"](self.concentration.expand(shape)) + self.loc + math.pi
            return self._note(turned % (2 * math.pi) - math.pi)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        scaled = special.i0e(self.concentration).log() + self.concentration  # log I0
        return self.concentration * (value - self.loc).cos() - math.log(2 * math.pi) - scaled
