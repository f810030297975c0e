"""A covariance, its inverse and its Cholesky factor, each made from the factor when it is asked
for."""

from __future__ import annotations

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .utils import lazy_property

__all__ = ["Covariance"]


class Covariance:
    """The part of a distribution that its covariance describes."""

    _unbroadcasted_scale_tril: Tensor

    def _of_batch(self, matrix: Tensor) -> Tensor:
        """`matrix` for every element of the batch."""
        raise NotImplementedError

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._of_batch(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        factor = self._unbroadcasted_scale_tril
        return self._of_batch(factor @ factor.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return self._of_batch(FUNCTIONS["cholesky_inverse"](self._unbroadcasted_scale_tril))
