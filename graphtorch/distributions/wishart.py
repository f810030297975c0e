"""Covariances of normal vectors."""

from __future__ import annotations

import math
from typing import Any

from .. import linalg
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._settings import warn_user
from .._types import Size, finfo
from . import constraints
from .chi2 import Chi2
from .covariance import Covariance
from .exp_family import ExponentialFamily
from .multivariate_normal import precision_to_scale_tril
from .utils import above, all_numbers, gaussian

__all__ = ["Wishart"]


class Wishart(Covariance, ExponentialFamily):
    """Sums of squares of normal vectors.

    M. Bartlett: On the theory of statistical regression (1933), for the samples.

    Args:
        df: degrees of freedom, greater than the matrices' size less 1. covariance_matrix,
            precision_matrix (its inverse), scale_tril (its lower Cholesky factor): of the vectors,
            exactly one of the three.
    """

    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {
            "covariance_matrix": constraints.positive_definite,
            "precision_matrix": constraints.positive_definite,
            "scale_tril": constraints.lower_cholesky,
            "df": constraints.greater_than(self._event_shape[-1] - 1),
        }

    def __init__(
        self,
        df: Any,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        given = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        names = [name for name, matrix in given.items() if matrix is not None]
        if len(names) != 1:
            raise AssertionError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                "specified."
            )
        matrix: Any = given[names[0]]
        if matrix.dim() < 2:
            raise ValueError(
                "scale_tril must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        if all_numbers(df):
            batch_shape = Size(matrix.shape[:-2])
            self.df = FUNCTIONS["tensor"](df, dtype=matrix.dtype, device=matrix.device)
        else:
            batch_shape = Size(FUNCTIONS["broadcast_shapes"](matrix.shape[:-2], df.shape))
            self.df = df.expand(batch_shape)
        size = matrix.shape[-1]
        if constraints.first_broken([(constraints.greater_than(size - 1), self.df)]) is not None:
            raise ValueError(f"Value of df={df} expected to be greater than ndim - 1 = {size - 1}.")
        if constraints.first_broken([(constraints.greater_than_eq(size), self.df)]) is not None:
            warn_user(
                "Low df values detected. Singular samples are highly likely to occur for ndim - 1 "
                "< df < ndim.",
            )
        setattr(self, names[0], matrix.expand((*batch_shape, -1, -1)))
        super().__init__(batch_shape, matrix.shape[-2:], validate_args)
        factor = {
            "scale_tril": lambda m: m,
            "covariance_matrix": linalg.cholesky,
            "precision_matrix": precision_to_scale_tril,
        }[names[0]]
        self._unbroadcasted_scale_tril = factor(matrix)
        self._dist_chi2 = self._diagonal()

    def _diagonal(self) -> Chi2:
        """The squares of the diagonal of samples' factors, for the covariance I."""
        scale_tril = self._unbroadcasted_scale_tril
        steps = FUNCTIONS["arange"](
            self._event_shape[-1], dtype=scale_tril.dtype, device=scale_tril.device
        )
        df = self.df.expand(self._batch_shape) if self._batch_shape else self.df
        return Chi2(df.unsqueeze(-1) - steps)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(Wishart, _instance)
        batch_shape = Size(batch_shape)
        shape = batch_shape + self._event_shape
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril.expand(shape)
        new.df = self.df.expand(batch_shape)
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in self.__dict__:
                setattr(new, name, self.__dict__[name].expand(shape))
        self._finished(new, batch_shape)
        new._dist_chi2 = new._diagonal()
        return new

    def _of_batch(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape)

    def _beside_matrices(self, value: Tensor) -> Tensor:
        return value.reshape((*value.shape, 1, 1))

    @property
    def mean(self) -> Tensor:
        return self._beside_matrices(self.df) * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        """NaN where df is not greater than the size plus 1."""
        factor = self.df - self._event_shape[-1] - 1
        factor = FUNCTIONS["where"](factor > 0, factor, math.nan)
        return self._beside_matrices(factor) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        diagonal = self.covariance_matrix.diagonal(dim1=-2, dim2=-1)
        products = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return self._beside_matrices(self.df) * (self.covariance_matrix.pow(2) + products)

    def _bartlett_sampling(self, sample_shape: Any = ()) -> Tensor:
        """By a factor with roots of chi-squared numbers on the diagonal and normal numbers below
        it."""
        root = self._dist_chi2.rsample(sample_shape).sqrt()
        root = above(root, finfo(root.dtype).eps)
        size = self._event_shape[-1]
        rows, columns = FUNCTIONS["tril_indices"](size, size, -1, device=root.device)
        below = gaussian((*sample_shape, *self._batch_shape, size * (size - 1) // 2), root)
        lower = root.new_zeros((*root.shape, size))
        lower[..., rows, columns] = below
        factor = self._unbroadcasted_scale_tril @ (FUNCTIONS["diag_embed"](root) + lower)
        return factor @ factor.mT

    def rsample(self, sample_shape: Any = (), max_try_correction: int | None = None) -> Tensor:
        """Draws; those that are singular by rounding are drawn again, `max_try_correction` times at
        most."""
        self._bartlett_sampling(sample_shape)  # PyTorch takes what it draws first for singular
        drawn = self._bartlett_sampling(sample_shape)
        for _ in range(10 if max_try_correction is None else max_try_correction):
            if constraints.first_broken([(self.support, drawn)]) is None:
                break
            fits = self._beside_matrices(self.support.check(drawn.detach()))
            drawn = FUNCTIONS["where"](fits, drawn, self._bartlett_sampling(sample_shape))
        return self._note(drawn)

    def _half_log_det(self) -> Tensor:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        nu, size = self.df, self._event_shape[-1]
        factor = self._unbroadcasted_scale_tril
        shape = FUNCTIONS["broadcast_shapes"](factor.shape, value.shape)
        solved = FUNCTIONS["cholesky_solve"](value.expand(shape), factor.expand(shape))
        trace = solved.diagonal(dim1=-2, dim2=-1).sum(-1)
        constant = nu * (size * math.log(2) / 2 + self._half_log_det()) + FUNCTIONS["mvlgamma"](
            nu / 2, size
        )
        return (nu - size - 1) / 2 * linalg.slogdet(value)[1] - trace / 2 - constant

    def entropy(self) -> Tensor:
        nu, size = self.df, self._event_shape[-1]
        return (
            (size + 1) * (size * math.log(2) / 2 + self._half_log_det())
            + nu * size / 2
            + FUNCTIONS["mvlgamma"](nu / 2, size)
            - (nu - size - 1) / 2 * mvdigamma(nu / 2, size)
        )

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return -self.precision_matrix / 2, (self.df - self._event_shape[-1] - 1) / 2

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        x, y = natural_params
        size = self._event_shape[-1]
        power = y + (size + 1) / 2
        return power * (size * math.log(2) - linalg.slogdet(-2 * x)[1]) + FUNCTIONS["mvlgamma"](
            power, size
        )


def mvdigamma(x: Tensor, size: int) -> Tensor:
    """The derivative of the logarithm of the gamma function of a dimension."""
    return (
        (x.unsqueeze(-1) - FUNCTIONS["arange"](size, dtype=x.dtype, device=x.device) / 2)
        .digamma()
        .sum(-1)
    )
