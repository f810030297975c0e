"""Angles around a direction."""

from __future__ import annotations

import math
from typing import Any

from .. import special
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import DTYPES
from ..autograd.grad_mode import no_grad
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all, lazy_property

__all__ = ["VonMises"]


class VonMises(Distribution):
    """The von Mises distribution.

    Args:
        loc: the direction, in radians. concentration: 1 over the variance where that is small,
            positive.
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, (), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        try:
            return super().expand(batch_shape)
        except NotImplementedError:
            validate_args = self.__dict__.get("_validate_args")
            return type(self)(
                self.loc.expand(batch_shape),
                self.concentration.expand(batch_shape),
                validate_args=validate_args,
            )

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
        """Angles in -pi .. pi, by rejection in f64.

        D. Best, N. Fisher, Efficient simulation of the von Mises distribution (1979).
        """
        with no_grad():
            shape = self._extended_shape(sample_shape)
            k, where = self.concentration.double(), FUNCTIONS["where"]
            tau = 1 + (1 + 4 * k * k).sqrt()
            rho = (tau - (2 * tau).sqrt()) / (2 * k)
            r = where(k < 1e-5, 1 / k + k, (1 + rho * rho) / (2 * rho))
            angle = k.new_zeros(shape)
            done = angle.new_zeros(shape, dtype=DTYPES["bool"])
            while not done.all():
                turn, limit, side = FUNCTIONS["rand"](
                    (3, *shape), dtype=k.dtype, device=k.device
                ).unbind()
                z = (math.pi * turn).cos()
                f = (1 + r * z) / (r + z)
                c = k * (r - f)
                fits = (c * (2 - c) - limit > 0) | ((c / limit).log() + 1 - c >= 0)
                angle = where(fits, (side - 0.5).sign() * f.acos(), angle)
                done = done | fits
            turned = (angle + math.pi + self.loc.double()) % (2 * math.pi) - math.pi
            return self._note(turned.to(self.loc.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        scaled = special.i0e(self.concentration).log() + self.concentration  # log I0
        return self.concentration * (value - self.loc).cos() - math.log(2 * math.pi) - scaled
