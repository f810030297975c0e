"""Cholesky factors of correlation matrices."""

from __future__ import annotations

import math
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._types import Size, finfo
from ..autograd.grad_mode import no_grad
from . import constraints
from .beta import Beta
from .distribution import Distribution
from .utils import broadcast_all, gaussian

__all__ = ["LKJCholesky"]


class LKJCholesky(Distribution):
    """Lower Cholesky factors of correlation matrices, of density proportional to det^(concentration
    - 1).

    D. Lewandowski, D. Kurowicka, H. Joe: Generating random correlation matrices based on vines and
    extended onion method (2009).

    Args:
        dim: rows of the matrices, at least 2. concentration: positive; 1 is uniform over the
            matrices.
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None):
        if dim < 2:
            raise ValueError(
                f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}."
            )
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        steps = FUNCTIONS["arange"](
            dim - 1, dtype=self.concentration.dtype, device=self.concentration.device
        )
        offset = FUNCTIONS["cat"]([steps.new_zeros((1,)), steps])
        start = self.concentration + 0.5 * (dim - 2)
        self._beta = Beta(offset + 0.5, start.unsqueeze(-1) - 0.5 * offset)
        super().__init__(self.concentration.shape, (dim, dim), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(LKJCholesky, _instance)
        batch_shape = Size(batch_shape)
        new.dim, new.concentration = self.dim, self.concentration.expand(batch_shape)
        new._beta = self._beta.expand((*batch_shape, self.dim))
        return self._finished(new, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The onion method: row by row, a direction on the sphere and a beta distance from the
        axis."""
        with no_grad():
            size = self._beta.sample(sample_shape).unsqueeze(-1)
            arrow = gaussian(self._extended_shape(sample_shape), self.concentration).tril(-1)
            length = arrow.square().sum(-1, True).sqrt()
            sphere = arrow / FUNCTIONS["where"](length > 0, length, 1.0)  # the first row stays zero
            inner = size.sqrt() * sphere
            rest = (1 - inner.square().sum(-1)).clamp(min=finfo(inner.dtype).tiny).sqrt()
            return self._note(inner + FUNCTIONS["diag_embed"](rest))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        below = self.dim - 1
        like = self.concentration
        rows = FUNCTIONS["arange"](2, self.dim + 1, dtype=like.dtype, device=like.device)
        powers = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - rows
        density = (powers * value.diagonal(dim1=-1, dim2=-2)[..., 1:].log()).sum(-1)
        a = self.concentration + 0.5 * below
        constant = FUNCTIONS["mvlgamma"](a - 0.5, below) - a.lgamma() * below
        return density - (0.5 * below * math.log(math.pi) + constant)
