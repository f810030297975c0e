"""Normal vectors whose covariance is of low rank but for its diagonal."""

from __future__ import annotations

import math
from typing import Any

from .. import linalg
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import Size
from . import constraints
from .distribution import Distribution
from .multivariate_normal import mahalanobis, matvec
from .utils import gaussian, lazy_property

__all__ = ["LowRankMultivariateNormal"]


class LowRankMultivariateNormal(Distribution):
    """Normal vectors of the covariance W W^T + diag(D).

    Determinant and inverse come from a matrix of the rank's size: the matrix determinant lemma and
    Woodbury's formula.

    Args:
        loc: the mean, of n elements. cov_factor: W, n x rank. cov_diag: D, n positive elements.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ):
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        event_shape = loc.shape[-1:]
        if cov_factor.dim() < 2:
            raise ValueError(
                "cov_factor must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        if cov_factor.shape[-2:-1] != event_shape:
            raise ValueError(
                f"cov_factor must be a batch of matrices with shape {event_shape[0]} x m"
            )
        if cov_diag.shape[-1:] != event_shape:
            raise ValueError(f"cov_diag must be a batch of vectors with shape {event_shape}")
        shapes = (loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        try:
            batch_shape = Size(FUNCTIONS["broadcast_shapes"](*shapes))
        except RuntimeError as error:
            raise ValueError(
                f"Incompatible batch shapes: loc {loc.shape}, cov_factor {cov_factor.shape}, "
                f"cov_diag {cov_diag.shape}"
            ) from error
        self.loc = loc.expand(batch_shape + event_shape)
        self.cov_factor = cov_factor.expand(batch_shape + cov_factor.shape[-2:])
        self.cov_diag = cov_diag.expand(batch_shape + event_shape)
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        self._capacitance_tril = capacitance_tril(cov_factor, cov_diag)
        super().__init__(batch_shape, event_shape, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(LowRankMultivariateNormal, _instance)
        batch_shape = Size(batch_shape)
        new.loc, new.cov_diag = (
            x.expand(batch_shape + self._event_shape) for x in (self.loc, self.cov_diag)
        )
        new.cov_factor = self.cov_factor.expand(batch_shape + self.cov_factor.shape[-2:])
        for name in ("_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag", "_capacitance_tril"):
            setattr(new, name, getattr(self, name))
        return self._finished(new, batch_shape)

    def _of_batch(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape + self._event_shape)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance: of its diagonal's root times that of I + K
        K^T."""
        root = self._unbroadcasted_cov_diag.sqrt().unsqueeze(-1)
        scaled = self._unbroadcasted_cov_factor / root
        identity = FUNCTIONS["eye"](self._event_shape[0], dtype=scaled.dtype, device=scaled.device)
        return self._of_batch(root * linalg.cholesky(scaled @ scaled.mT + identity))

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        factor = self._unbroadcasted_cov_factor
        return self._of_batch(
            factor @ factor.mT + FUNCTIONS["diag_embed"](self._unbroadcasted_cov_diag)
        )

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance, by Woodbury's formula."""
        diagonal = self._unbroadcasted_cov_diag
        scaled = self._unbroadcasted_cov_factor.mT / diagonal.unsqueeze(-2)
        shape = FUNCTIONS["broadcast_shapes"](self._capacitance_tril.shape[:-2], scaled.shape[:-2])
        part = linalg.solve_triangular(
            self._capacitance_tril.expand(shape + self._capacitance_tril.shape[-2:]),
            scaled.expand(shape + scaled.shape[-2:]),
            upper=False,
        )
        return self._of_batch(FUNCTIONS["diag_embed"](diagonal.reciprocal()) - part.mT @ part)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:  # type: ignore[override]
        """The diagonal of the covariance."""
        found = self._unbroadcasted_cov_factor.square().sum(-1) + self._unbroadcasted_cov_diag
        return found.expand(self._batch_shape + self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        along = gaussian((*shape[:-1], self.cov_factor.shape[-1]), self.loc)
        noise = gaussian(shape, self.loc)
        return self._note(
            self.loc
            + matvec(self._unbroadcasted_cov_factor, along)
            + self._unbroadcasted_cov_diag.sqrt() * noise
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        factor, diagonal = self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag
        distance = lowrank_mahalanobis(factor, diagonal, value - self.loc, self._capacitance_tril)
        log_det = lowrank_log_det(diagonal, self._capacitance_tril)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + log_det + distance)

    def entropy(self) -> Tensor:
        log_det = lowrank_log_det(self._unbroadcasted_cov_diag, self._capacitance_tril)
        found = 0.5 * (self._event_shape[0] * (1 + math.log(2 * math.pi)) + log_det)
        return found.expand(self._batch_shape) if self._batch_shape else found


def capacitance_tril(factor: Tensor, diagonal: Tensor) -> Tensor:
    """The lower Cholesky factor of I + W^T D^-1 W."""
    inner = factor.mT / diagonal.unsqueeze(-2) @ factor
    unit = FUNCTIONS["eye"](factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return linalg.cholesky(inner + unit)


def lowrank_log_det(diagonal: Tensor, capacitance: Tensor) -> Tensor:
    """log det(W W^T + diag(D)), by the matrix determinant lemma."""
    return 2 * capacitance.diagonal(dim1=-2, dim2=-1).log().sum(-1) + diagonal.log().sum(-1)


def lowrank_mahalanobis(
    factor: Tensor, diagonal: Tensor, vector: Tensor, capacitance: Tensor
) -> Tensor:
    """x^T (W W^T + diag(D))^-1 x, by Woodbury's formula."""
    inner = matvec(factor.mT / diagonal.unsqueeze(-2), vector)
    return (vector.square() / diagonal).sum(-1) - mahalanobis(capacitance, inner)
