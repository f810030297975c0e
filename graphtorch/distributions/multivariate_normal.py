"""Normal vectors."""

from __future__ import annotations

import math
from typing import Any

from .. import linalg
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import Size
from . import constraints
from .covariance import Covariance
from .distribution import Distribution
from .utils import gaussian

__all__ = ["MultivariateNormal"]


def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """Products of matrices and vectors, broadcast over the other dimensions."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def mahalanobis(factor: Tensor, vector: Tensor) -> Tensor:
    """Squared lengths of vectors in the metric of the covariance whose lower Cholesky factor is
    given."""
    shape = FUNCTIONS["broadcast_shapes"](factor.shape[:-2], vector.shape[:-1])
    size = factor.shape[-1]
    columns = vector.expand((*shape, size)).unsqueeze(-1)
    solved = linalg.solve_triangular(factor.expand((*shape, size, size)), columns, upper=False)
    return solved.square().sum((-2, -1))


def precision_to_scale_tril(precision: Tensor) -> Tensor:
    """The lower Cholesky factor of a precision matrix's inverse, without inverting the matrix.

    Turned around by 180 degrees a Cholesky factor becomes upper triangular: P = U U^T, and U^-T is
    lower triangular with U^-T U^-1 = P^-1.
    """
    turned = linalg.cholesky(precision.flip((-2, -1))).flip((-2, -1))
    identity = FUNCTIONS["eye"](precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return linalg.solve_triangular(turned.mT, identity.expand(precision.shape), upper=False)


def log_det_of_factor(factor: Tensor) -> Tensor:
    """log det of a triangular matrix with a positive diagonal."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class MultivariateNormal(Covariance, Distribution):
    """Normal vectors of a mean and a covariance.

    Args:
        loc: the mean, along the last dimension. covariance_matrix, precision_matrix (its inverse),
            scale_tril (its lower Cholesky factor): exactly one of the three.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = {
            "covariance_matrix": covariance_matrix,
            "scale_tril": scale_tril,
            "precision_matrix": precision_matrix,
        }
        names = [name for name, matrix in given.items() if matrix is not None]
        if len(names) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                "specified."
            )
        matrix: Any = given[names[0]]
        if matrix.dim() < 2:
            raise ValueError(
                f"{names[0]} must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        batch_shape = Size(FUNCTIONS["broadcast_shapes"](matrix.shape[:-2], loc.shape[:-1]))
        setattr(self, names[0], matrix.expand((*batch_shape, -1, -1)))
        self.loc = loc.expand((*batch_shape, -1))
        super().__init__(batch_shape, self.loc.shape[-1:], validate_args)
        factor = {
            "scale_tril": lambda m: m,
            "covariance_matrix": linalg.cholesky,
            "precision_matrix": precision_to_scale_tril,
        }[names[0]]
        self._unbroadcasted_scale_tril = factor(matrix)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(MultivariateNormal, _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self._event_shape)
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in self.__dict__:
                setattr(new, name, self.__dict__[name].expand(batch_shape + self._event_shape * 2))
        return self._finished(new, batch_shape)

    def _of_batch(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape + self._event_shape)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        found = self._unbroadcasted_scale_tril.square().sum(-1)
        return found.expand(self._batch_shape + self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = gaussian(self._extended_shape(sample_shape), self.loc)
        return self._note(self.loc + matvec(self._unbroadcasted_scale_tril, noise))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        factor = self._unbroadcasted_scale_tril
        distance = mahalanobis(factor, value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - log_det_of_factor(
            factor
        )

    def entropy(self) -> Tensor:
        spread = log_det_of_factor(self._unbroadcasted_scale_tril)
        found = 0.5 * self._event_shape[0] * (1 + math.log(2 * math.pi)) + spread
        return found.expand(self._batch_shape) if self._batch_shape else found
