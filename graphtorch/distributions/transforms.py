"""Invertible functions with the logarithm of their Jacobian's determinant.

``transform(x)``, ``transform.inv(y)`` and ``transform.log_abs_det_jacobian(x, y)`` are what a
`TransformedDistribution` needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from .. import linalg
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, Number
from .._types import Size, finfo
from ..nn.functional import softplus
from . import constraints
from .transform import (
    ComposeTransform,
    IndependentTransform,
    ReshapeTransform,
    Transform,
    _OfItsKind,
    identity_transform,
)
from .utils import sum_rightmost, tril_matrix_to_vec, vec_to_tril_matrix

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "CatTransform",
    "ComposeTransform",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "ExpTransform",
    "IndependentTransform",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "TanhTransform",
    "Transform",
    "identity_transform",
]


class ExpTransform(_OfItsKind):
    """exp(x)."""

    domain = constraints.real
    codomain = constraints.positive
    bijective = True
    sign = +1

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


def _with_parameters(shape: Any, *parameters: Any) -> Any:
    shapes = [getattr(p, "shape", ()) for p in parameters]
    return Size(FUNCTIONS["broadcast_shapes"](shape, *shapes))


class PowerTransform(Transform):
    """x to the power of `exponent`."""

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Any, cache_size: int = 0):
        super().__init__(cache_size=cache_size)
        self.exponent = (
            exponent if isinstance(exponent, Tensor) else FUNCTIONS["as_tensor"](exponent)
        )

    def with_cache(self, cache_size: int = 1) -> Any:
        return self if self._cache_size == cache_size else PowerTransform(self.exponent, cache_size)

    @property
    def sign(self) -> Any:
        return self.exponent.sign()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerTransform) and bool((self.exponent == other.exponent).all())

    __hash__ = object.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.exponent * y / x).abs().log()

    def forward_shape(self, shape: Any) -> Any:
        return _with_parameters(shape, self.exponent)

    def inverse_shape(self, shape: Any) -> Any:
        return _with_parameters(shape, self.exponent)


class SigmoidTransform(_OfItsKind):
    """1 / (1 + exp(-x)), kept away from 0 and 1."""

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = +1

    def _call(self, x: Tensor) -> Tensor:
        limits = finfo(x.dtype)
        return x.sigmoid().clamp(min=limits.tiny, max=1.0 - limits.eps)

    def _inverse(self, y: Tensor) -> Tensor:
        limits = finfo(y.dtype)
        y = y.clamp(min=limits.tiny, max=1.0 - limits.eps)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x) - softplus(x)


class SoftplusTransform(_OfItsKind):
    """log(1 + exp(x)); x itself where that is the same."""

    domain = constraints.real
    codomain = constraints.positive
    bijective = True
    sign = +1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x)


class TanhTransform(_OfItsKind):
    """tanh(x)."""

    domain = constraints.real
    codomain = constraints.interval(-1.0, 1.0)
    bijective = True
    sign = +1

    def _call(self, x: Tensor) -> Tensor:
        return x.tanh()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log(1 - tanh(x)^2) in a form that does not vanish for large x."""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class AbsTransform(_OfItsKind):
    """|x|; its inverse takes the positive one."""

    domain = constraints.real
    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class AffineTransform(Transform):
    """loc + scale * x.

    Args:
        event_dim: how many of the last dimensions make one event: 0 for numbers, 1 for vectors.
    """

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size=cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim

    @property
    def event_dim(self) -> int:
        return self._event_dim

    def _numbers(self) -> Any:
        real, more = constraints.real, self._event_dim
        return constraints.independent(real, more) if more else real

    @constraints.dependent_property(is_discrete=False)
    def domain(self) -> Any:  # type: ignore[override]
        return self._numbers()

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> Any:  # type: ignore[override]
        return self._numbers()

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        return AffineTransform(self.loc, self.scale, self.event_dim, cache_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AffineTransform) and all(
            bool(a == b)
            if isinstance(a, Number) and isinstance(b, Number)
            else bool((FUNCTIONS["as_tensor"](a) == b).all())
            for a, b in ((self.loc, other.loc), (self.scale, other.scale))
        )

    __hash__ = object.__hash__

    @property
    def sign(self) -> Any:
        if isinstance(self.scale, Number):
            number: Any = self.scale
            return int(number > 0) - int(number < 0)
        return self.scale.sign()

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.scale, Number):
            found = FUNCTIONS["full_like"](x, math.log(abs(self.scale)))  # type: ignore[arg-type]
        else:
            found = self.scale.abs().log()
        shape = x.shape
        if self._event_dim:
            found = found.reshape((*found.shape[: -self._event_dim], -1)).sum(-1)
            shape = shape[: -self._event_dim]
        return found.expand(shape)  # type: ignore[no-any-return]

    def forward_shape(self, shape: Any) -> Any:
        return _with_parameters(shape, self.loc, self.scale)

    def inverse_shape(self, shape: Any) -> Any:
        return _with_parameters(shape, self.loc, self.scale)


class CorrCholeskyTransform(Transform):
    """Vectors of D (D - 1) / 2 numbers as lower Cholesky factors of D x D correlation matrices.

    Each row is broken off a stick of length 1: with z = tanh(x), an element takes the part z of the
    length that the elements before it have left, and the diagonal takes the rest.
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    @staticmethod
    def _strict(x: Tensor) -> Tensor:
        """The numbers below the diagonal of zeros."""
        return vec_to_tril_matrix(x, -1)

    def _call(self, x: Tensor) -> Tensor:
        eps = finfo(x.dtype).eps
        r = self._strict(x.tanh().clamp(min=-1 + eps, max=1 - eps))
        left = (1 - r.square()).sqrt().cumprod(-1)  # what is left behind each element
        r = r + FUNCTIONS["eye"](r.shape[-1], dtype=r.dtype, device=r.device)
        ahead = FUNCTIONS["cat"]([left.new_ones((*left.shape[:-1], 1)), left[..., :-1]], -1)
        return r * ahead

    def _inverse(self, y: Tensor) -> Tensor:
        left = 1 - y.square().cumsum(-1)
        ahead = FUNCTIONS["cat"]([left.new_ones((*left.shape[:-1], 1)), left[..., :-1]], -1)
        below, root = tril_matrix_to_vec(y, -1), tril_matrix_to_vec(ahead, -1).sqrt()
        t = below / root
        return (t.log1p() - (-t).log1p()) / 2

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        left = 1 - y.square().cumsum(-1)
        # what is left behind the elements that have another one of their row beside them
        grown = 0.5 * tril_matrix_to_vec(left, -2).log().sum(-1)
        return grown - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        count = shape[-1]
        size = round((0.25 + 2 * count) ** 0.5 + 0.5)
        if size * (size - 1) // 2 != count:
            raise ValueError("Input is not a flattened lower-diagonal number")
        return Size((*shape[:-1], size, size))

    def inverse_shape(self, shape: Any) -> Any:
        if len(shape) < 2:
            raise ValueError("Too few dimensions on input")
        if shape[-2] != shape[-1]:
            raise ValueError("Input is not square")
        return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))


class SoftmaxTransform(_OfItsKind):
    """Vectors to the simplex, by exp and division by the sum; as many numbers as went in, so no
    bijection."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        parts = (x - x.max(-1, True)[0]).exp()
        return parts / parts.sum(-1, True)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def forward_shape(self, shape: Any) -> Any:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        return self.forward_shape(shape)


class StickBreakingTransform(_OfItsKind):
    """Vectors to the simplex with one element more: each takes a part of what is left of a
    stick."""

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    @staticmethod
    def _to_come(x: Tensor) -> Tensor:
        """The logarithm of how many elements of a vector are still to come, itself included."""
        count = x.shape[-1]
        return FUNCTIONS["arange"](count, 0, -1, dtype=x.dtype, device=x.device).log()  # type: ignore

    def _call(self, x: Tensor) -> Tensor:
        z = (x - self._to_come(x)).sigmoid()
        left = (1 - z).cumprod(-1)
        ones = left.new_ones((*left.shape[:-1], 1))
        cat = FUNCTIONS["cat"]
        return cat([z, ones], -1) * cat([ones, left], -1)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        parts = y[..., :-1]
        left = (1 - parts.cumsum(-1)).clamp(min=finfo(y.dtype).tiny)
        return parts.log() - left.log() + self._to_come(parts)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        x = x - self._to_come(x)
        return (-x + (-softplus(-x)) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Any:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size((*shape[:-1], shape[-1] - 1))


class LowerCholeskyTransform(_OfItsKind):
    """Square matrices as lower triangular ones with a positive diagonal."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + FUNCTIONS["diag_embed"](x.diagonal(dim1=-2, dim2=-1).exp())  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + FUNCTIONS["diag_embed"](y.diagonal(dim1=-2, dim2=-1).log())  # type: ignore[no-any-return]


class PositiveDefiniteTransform(_OfItsKind):
    """Square matrices as positive definite ones, by their Cholesky factors."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(linalg.cholesky(y))


class _Several(Transform):
    """Parts of a tensor along `dim`, each through a transform of its own."""

    transforms: list[Any]
    dim: int

    def __init__(self, tseq: Sequence[Transform], dim: int, cache_size: int):
        if not all(isinstance(t, Transform) for t in tseq):
            raise AssertionError("All elements of tseq must be Transform instances")
        if cache_size:
            tseq = [t.with_cache(cache_size) for t in tseq]
        super().__init__(cache_size=cache_size)
        self.transforms, self.dim = list(tseq), dim

    def _parts(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def _joined(self, parts: list[Tensor], dim: int) -> Tensor:
        raise NotImplementedError

    def _checked(self, x: Tensor) -> Tensor:
        if not -x.dim() <= self.dim < x.dim():
            raise AssertionError(
                f"dim {self.dim} out of range for tensor with {x.dim()} dimensions"
            )
        return x

    def _call(self, x: Tensor) -> Tensor:
        parts = self._parts(self._checked(x))
        return self._joined([t(v) for t, v in zip(self.transforms, parts, strict=True)], self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        parts = self._parts(self._checked(y))
        return self._joined(
            [t.inv(v) for t, v in zip(self.transforms, parts, strict=True)], self.dim
        )

    def _grown(self, x: Tensor, y: Tensor) -> Iterator[tuple[Any, Tensor]]:
        before, after = (self._parts(self._checked(v)) for v in (x, y))
        pairs = zip(self.transforms, before, after, strict=True)
        return ((t, t.log_abs_det_jacobian(a, b)) for t, a, b in pairs)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(t.bijective for t in self.transforms)


class CatTransform(_Several):
    """Parts of the given lengths along `dim`, each through a transform of its own.

    Raises: AssertionError where what comes in has not the lengths' sum there.
    """

    def __init__(
        self,
        tseq: Sequence[Transform],
        dim: int = 0,
        lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ):
        super().__init__(tseq, dim, cache_size)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.transforms):
            raise AssertionError(
                f"lengths and tseq must have the same length, got {len(self.lengths)} and "
                f"{len(self.transforms)}"
            )

    @property
    def event_dim(self) -> int:
        return max(t.event_dim for t in self.transforms)

    @property
    def length(self) -> int:
        """The sum of the lengths."""
        return sum(self.lengths)

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        return CatTransform(self.transforms, self.dim, self.lengths, cache_size)

    def _parts(self, x: Tensor) -> list[Tensor]:
        if x.shape[self.dim] != self.length:
            raise AssertionError(
                f"size {x.shape[self.dim]} of dim {self.dim} must equal the length {self.length}"
            )
        return list(x.split(self.lengths, self.dim))

    def _joined(self, parts: list[Tensor], dim: int) -> Tensor:
        return FUNCTIONS["cat"](parts, dim)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        parts = [sum_rightmost(v, self.event_dim - t.event_dim) for t, v in self._grown(x, y)]
        dim = self.dim if self.dim < 0 else self.dim - x.dim()
        dim += self.event_dim
        return self._joined(parts, dim) if dim < 0 else sum(parts[1:], parts[0])

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)


class StackTransform(_Several):
    """Slices along `dim`, each through a transform of its own."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0):
        super().__init__(tseq, dim, cache_size)

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        return StackTransform(self.transforms, self.dim, cache_size)

    def _parts(self, x: Tensor) -> list[Tensor]:
        if x.shape[self.dim] != len(self.transforms):
            raise AssertionError(
                f"size {x.shape[self.dim]} of dim {self.dim} must equal the number of "
                f"transforms {len(self.transforms)}"
            )
        return [x.select(self.dim, i) for i in range(len(self.transforms))]

    def _joined(self, parts: list[Tensor], dim: int) -> Tensor:
        return FUNCTIONS["stack"](parts, dim)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._joined([v for _, v in self._grown(x, y)], self.dim)

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.codomain for t in self.transforms], self.dim)


class CumulativeDistributionTransform(Transform):
    """Values as their probabilities by the cdf of a distribution of numbers."""

    bijective = True
    codomain = constraints.unit_interval
    sign = +1

    def __init__(self, distribution: Any, cache_size: int = 0):
        super().__init__(cache_size=cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return self.distribution.support

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        return CumulativeDistributionTransform(self.distribution, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distribution.log_prob(x)  # type: ignore[no-any-return]
