"""Positive numbers that add up to 1."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import Size, finfo
from . import constraints
from .exp_family import ExponentialFamily

__all__ = ["Dirichlet"]


class Dirichlet(ExponentialFamily):
    """The Dirichlet distribution.

    Args:
        concentration: positive, of the elements of an event along the last dimension.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None):
        if concentration.dim() < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(Dirichlet, _instance)
        new.concentration = self.concentration.expand(Size(batch_shape) + self._event_shape)
        return self._finished(new, batch_shape)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        """In a corner where no concentration reaches 1."""
        above_one = (self.concentration - 1).clamp(min=0.0)
        corner = (FUNCTIONS["arange"](self._event_shape[0], device=above_one.device) == 0).to(
            above_one
        )
        nowhere = (self.concentration < 1).all(-1, True)
        return FUNCTIONS["where"](nowhere, corner, above_one / above_one.sum(-1, True))

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.square() * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Gamma numbers over their sum.

        Their gradient is that of each element by its own concentration, whose growth takes from the
        others in proportion to what they have.
        """
        concentration = self.concentration.expand(self._extended_shape(sample_shape))
        held = concentration.detach()
        parts = FUNCTIONS["_standard_gamma"](held).clamp(min=finfo(held.dtype).tiny)
        drawn = parts / parts.sum(-1, True)
        if not concentration.requires_grad:
            return self._note(drawn)
        total = held.sum(-1, True).expand(held.shape)
        moved = FUNCTIONS["_dirichlet_grad"](drawn, held, total) * (concentration - held)  # zeros
        return self._note(drawn + moved - drawn * moved.sum(-1, True))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        return FUNCTIONS["xlogy"](a - 1, value).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)

    def entropy(self) -> Tensor:
        a = self.concentration
        count, total = a.shape[-1], a.sum(-1)
        return (
            a.lgamma().sum(-1)
            - total.lgamma()
            - (count - total) * total.digamma()
            - ((a - 1) * a.digamma()).sum(-1)
        )

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.concentration,)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        return natural_params[0].lgamma().sum(-1) - natural_params[0].sum(-1).lgamma()
