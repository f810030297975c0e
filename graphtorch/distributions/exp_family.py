"""Exponential families: p(x) = exp(<t(x), natural parameters> - log normalizer + carrier
measure)."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from ..autograd.engine import grad
from ..autograd.grad_mode import enable_grad
from .distribution import Distribution

__all__ = ["ExponentialFamily"]


class ExponentialFamily(Distribution):
    """A distribution with natural parameters and a log normalizer, from which its entropy follows.

    F. Nielsen, R. Nock: Entropies and cross-entropies of exponential families.
    """

    @property
    def _mean_carrier_measure(self) -> Any:
        """The mean of the carrier measure."""
        raise NotImplementedError

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The log normalizer's Bregman divergence."""
        measure = self._mean_carrier_measure
        with enable_grad():
            natural = [p.detach().requires_grad_() for p in self._natural_params]
            normalizer = self._log_normalizer(*natural)
            slopes = grad(normalizer.sum(), natural, create_graph=True)
        result = normalizer - measure
        for parameter, slope in zip(natural, slopes, strict=True):
            result = result - (parameter * slope).reshape((*self._batch_shape, -1)).sum(-1)
        return result
