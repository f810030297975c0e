"""Divergences between distributions, of one kind and of two.

KL(p || q) = -H(p) - E_p[log q]. Where p has values outside of q's support it is infinite.
Exponential families: F. Nielsen, R. Nock; normal distributions: J. Duchi, Derivations for linear
algebra and optimization; the others follow from the moments of p.
"""

from __future__ import annotations

import math
from typing import Any

from .. import linalg
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .bernoulli import Bernoulli
from .beta import Beta
from .binomial import Binomial
from .cauchy import Cauchy
from .continuous_bernoulli import ContinuousBernoulli
from .dirichlet import Dirichlet
from .exponential import Exponential
from .gamma import Gamma
from .geometric import Geometric
from .gumbel import Gumbel
from .half_normal import HalfNormal
from .kl import kl_divergence, register_kl
from .laplace import Laplace
from .lowrank_multivariate_normal import (
    LowRankMultivariateNormal,
    lowrank_log_det,
    lowrank_mahalanobis,
)
from .multivariate_normal import MultivariateNormal, log_det_of_factor, mahalanobis
from .normal import Normal
from .pareto import Pareto
from .poisson import Poisson
from .transformed_distribution import TransformedDistribution
from .uniform import Uniform
from .utils import EULER, sum_rightmost

__all__: list[str] = []

LOG_TWO_PI = math.log(2 * math.pi)


def _infinite(like: Tensor) -> Tensor:
    return FUNCTIONS["full_like"](like, math.inf)  # type: ignore[no-any-return]


def _unless(outside: Tensor, value: Tensor) -> Tensor:
    """`value`, but infinity where p has values outside of q's support."""
    return FUNCTIONS["where"](outside, math.inf, value)  # type: ignore[no-any-return]


def _xlogx(x: Tensor) -> Tensor:
    return FUNCTIONS["xlogy"](x, x)  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------- of one kind


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    constants = (c.lgamma() + d.lgamma() + (a + b).lgamma()) - (
        a.lgamma() + b.lgamma() + (c + d).lgamma()
    )
    return (
        constants
        + (a - c) * a.digamma()
        + (b - d) * b.digamma()
        + (c + d - a - b) * (a + b).digamma()
    )


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    if (p.total_count < q.total_count).any():
        raise NotImplementedError(
            "KL between Binomials where q.total_count > p.total_count is not implemented"
        )
    one = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    return _unless(p.total_count > q.total_count, p.total_count * one)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    return ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log() - (
        4 * p.scale * q.scale
    ).log()


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    return (
        p.mean * (p.logits - q.logits)
        + p._log_constant()
        + (-p.probs).log1p()
        - q._log_constant()
        - (-q.probs).log1p()
    )


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    constants = a.sum(-1).lgamma() - b.sum(-1).lgamma() - (a.lgamma() - b.lgamma()).sum(-1)
    return constants + ((a - b) * (a.digamma() - a.sum(-1, True).digamma())).sum(-1)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (
        b * (p.rate / q.rate).log()
        + b.lgamma()
        - a.lgamma()
        + (a - b) * a.digamma()
        + (q.rate - p.rate) * (a / p.rate)
    )


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return (
        distance
        - ratio.log()
        + ratio * EULER
        + ((1 + ratio).lgamma() - distance).exp()
        - (1 + EULER)
    )


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return distance / q.scale - ratio.log() + ratio * (-distance / p.scale).exp() - 1


@register_kl(Pareto, Pareto)
def _pareto(p: Pareto, q: Pareto) -> Tensor:
    powers = q.alpha / p.alpha
    found = q.alpha * (p.scale / q.scale).log() - powers.log() + powers - 1
    return _unless(p.support.lower_bound < q.support.lower_bound, found)


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """Of the bases, where the transforms are equal."""
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    more = len(p.event_shape) - len(p.base_dist.event_shape)
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), more)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    found = ((q.high - q.low) / (p.high - p.low)).log()
    return _unless((q.low > p.low) | (q.high < p.high), found)


# ----------------------------------------------------------------------------------- normal vectors


def _trace(factor: Tensor, other: Tensor) -> Tensor:
    """trace(Q^-1 P) for Q = L L^T, L the lower triangular `factor`, and P = M M^T, M = `other`."""
    shape = FUNCTIONS["broadcast_shapes"](factor.shape[:-2], other.shape[:-2])
    solved = linalg.solve_triangular(
        factor.expand((*shape, *factor.shape[-2:])),
        other.expand((*shape, *other.shape[-2:])),
        upper=False,
    )
    return solved.square().sum((-2, -1))


def _lowrank_trace(q: LowRankMultivariateNormal, other: Tensor) -> Tensor:
    """trace(Q^-1 M M^T), Q of low rank but for its diagonal: by Woodbury's formula."""
    diagonal = q._unbroadcasted_cov_diag
    inner = (q._unbroadcasted_cov_factor.mT / diagonal.unsqueeze(-2)) @ other
    return (other.square() / diagonal.unsqueeze(-1)).sum((-2, -1)) - _trace(
        q._capacitance_tril, inner
    )


def _check_sizes(p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        names = " ".join(dict.fromkeys((_words(p), _words(q))))
        raise ValueError(
            f"KL-divergence between two {names} with different event shapes cannot be computed"
        )


def _words(d: Any) -> str:
    low = isinstance(d, LowRankMultivariateNormal)
    return ("Low Rank " if low else "") + "Multivariate Normals"


def _of_normals(
    p: Any, log_det_p: Tensor, log_det_q: Tensor, trace: Tensor, distance: Tensor
) -> Tensor:
    """From log det of the covariances, the trace of Q^-1 P and the distance of the means in q's
    metric."""
    return 0.5 * (log_det_q - log_det_p + trace + distance - p.event_shape[0])


@register_kl(MultivariateNormal, MultivariateNormal)
def _normal_vectors(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    _check_sizes(p, q)
    a, b = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    return _of_normals(
        p,
        2 * log_det_of_factor(a),
        2 * log_det_of_factor(b),
        _trace(b, a),
        mahalanobis(b, q.loc - p.loc),
    )


@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _normal_to_lowrank(p: MultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    _check_sizes(p, q)
    a = p._unbroadcasted_scale_tril
    return _of_normals(
        p,
        2 * log_det_of_factor(a),
        lowrank_log_det(q._unbroadcasted_cov_diag, q._capacitance_tril),
        _lowrank_trace(q, a),
        _lowrank_distance(q, p.loc),
    )


def _lowrank_distance(q: LowRankMultivariateNormal, loc: Tensor) -> Tensor:
    return lowrank_mahalanobis(
        q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag, q.loc - loc, q._capacitance_tril
    )


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _lowrank_to_normal(p: LowRankMultivariateNormal, q: MultivariateNormal) -> Tensor:
    _check_sizes(p, q)
    b = q._unbroadcasted_scale_tril
    root = FUNCTIONS["diag_embed"](p._unbroadcasted_cov_diag.sqrt())
    trace = _trace(b, p._unbroadcasted_cov_factor) + _trace(b, root)
    return _of_normals(
        p,
        lowrank_log_det(p._unbroadcasted_cov_diag, p._capacitance_tril),
        2 * log_det_of_factor(b),
        trace,
        mahalanobis(b, q.loc - p.loc),
    )


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _lowrank(p: LowRankMultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    _check_sizes(p, q)
    root = FUNCTIONS["diag_embed"](p._unbroadcasted_cov_diag.sqrt())
    trace = _lowrank_trace(q, p._unbroadcasted_cov_factor) + _lowrank_trace(q, root)
    return _of_normals(
        p,
        lowrank_log_det(p._unbroadcasted_cov_diag, p._capacitance_tril),
        lowrank_log_det(q._unbroadcasted_cov_diag, q._capacitance_tril),
        trace,
        _lowrank_distance(q, p.loc),
    )


# ------------------------------------------------------------------------------------- of two kinds

_BOUNDED, _HALF = (Beta, ContinuousBernoulli, Uniform), (Exponential, Gamma)


def _never_inside(parameter: str, p: type, *qs: type) -> None:
    """Every p has values outside of the support of these q."""
    for q in qs:
        register_kl(p, q)(lambda p, q: _infinite(getattr(p, parameter)))


_never_inside("concentration1", Beta, Pareto)
_never_inside("probs", ContinuousBernoulli, Pareto)
_never_inside("rate", Exponential, Beta, ContinuousBernoulli, Pareto, Uniform)
_never_inside("concentration", Gamma, Beta, ContinuousBernoulli, Pareto, Uniform)
for _kind in (Gumbel, Laplace, Normal):
    _never_inside("loc", _kind, *_BOUNDED, *_HALF, Pareto)
_never_inside("scale", Pareto, *_BOUNDED)
_never_inside("rate", Poisson, Bernoulli, Binomial)


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


def _to_continuous_bernoulli(p: Any, q: ContinuousBernoulli) -> Tensor:
    return -p.entropy() - p.mean * q.logits - (-q.probs).log1p() - q._log_constant()


def _to_exponential(p: Any, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


def _to_normal(p: Any, q: Normal) -> Tensor:
    spread = p.variance + (p.mean - q.loc).square()
    return -p.entropy() + 0.5 * (LOG_TWO_PI + 2 * q.scale.log() + spread / q.scale.square())


def _to_gamma(p: Any, q: Gamma, mean_log: Tensor) -> Tensor:
    a = q.concentration
    return -p.entropy() + a.lgamma() - a * q.rate.log() - (a - 1) * mean_log + q.rate * p.mean


register_kl(Beta, ContinuousBernoulli)(_to_continuous_bernoulli)
register_kl(Beta, Exponential)(_to_exponential)
register_kl(ContinuousBernoulli, Exponential)(_to_exponential)
register_kl(Gamma, Exponential)(_to_exponential)
for _other in (Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Laplace, Uniform):
    register_kl(_other, Normal)(_to_normal)


@register_kl(Beta, Gamma)
def _beta_gamma(p: Beta, q: Gamma) -> Tensor:
    a = p.concentration1
    return _to_gamma(p, q, a.digamma() - (a + p.concentration0).digamma())


@register_kl(Beta, Uniform)
def _beta_uniform(p: Beta, q: Uniform) -> Tensor:
    return _unless((q.low > 0) | (q.high < 1), -p.entropy() + (q.high - q.low).log())


@register_kl(ContinuousBernoulli, Uniform)
def _continuous_bernoulli_uniform(p: ContinuousBernoulli, q: Uniform) -> Tensor:
    return _unless((q.low >= 0) | (q.high <= 1), -p.entropy() + (q.high - q.low).log())


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Exponential, q: Gamma) -> Tensor:
    return _to_gamma(p, q, -p.rate.log() - EULER)


def _to_gumbel(p: Any, q: Gumbel, mean_power: Tensor) -> Tensor:
    """From the mean of exp(-x / scale of q)."""
    return (
        -p.entropy()
        + q.scale.log()
        + (p.mean - q.loc) / q.scale
        + (q.loc / q.scale).exp() * mean_power
    )


@register_kl(Exponential, Gumbel)
def _exponential_gumbel(p: Exponential, q: Gumbel) -> Tensor:
    product = p.rate * q.scale
    return _to_gumbel(p, q, product / (product + 1))


@register_kl(Gamma, Gumbel)
def _gamma_gumbel(p: Gamma, q: Gumbel) -> Tensor:
    return _to_gumbel(p, q, (1 + (p.rate * q.scale).reciprocal()).pow(-p.concentration))


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Normal, q: Gumbel) -> Tensor:
    ratio = p.scale / q.scale
    distance = (p.loc - q.loc) / q.scale
    return -p.entropy() + q.scale.log() + distance + (0.5 * ratio.square() - distance).exp()


@register_kl(Uniform, Gumbel)
def _uniform_gumbel(p: Uniform, q: Gumbel) -> Tensor:
    part = q.scale / (p.high - p.low)
    high, low = (p.high - q.loc) / q.scale, (p.low - q.loc) / q.scale
    return part.log() + 0.5 * (high + low) - part * ((-high).exp() - (-low).exp())


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    distance = p.loc - q.loc
    part = distance / p.scale
    size = (
        math.sqrt(2 / math.pi) * p.scale * (-0.5 * part.pow(2)).exp()
        + distance * (math.sqrt(0.5) * part).erf()
    )
    return size / q.scale - (p.scale / q.scale).log() - 0.5 * (1 + math.log(0.5 * math.pi))


def _mean_from(least: float, p: Pareto, value: Tensor) -> Tensor:
    """`value`, infinite where the power is too small for the moments in it."""
    return FUNCTIONS["where"](p.alpha <= least, math.inf, value)  # type: ignore[no-any-return]


@register_kl(Pareto, Exponential)
def _pareto_exponential(p: Pareto, q: Exponential) -> Tensor:
    return _mean_from(
        1, p, -p.entropy() - q.rate.log() + q.rate * p.alpha * p.scale / (p.alpha - 1)
    )


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Pareto, q: Gamma) -> Tensor:
    return _mean_from(1, p, _to_gamma(p, q, p.scale.log() + p.alpha.reciprocal()))


@register_kl(Pareto, Normal)
def _pareto_normal(p: Pareto, q: Normal) -> Tensor:
    a = p.alpha
    part = p.scale / (a - 1)
    spread = part.square() * a / (a - 2) + (a * part - q.loc).square()
    found = -p.entropy() + 0.5 * (LOG_TWO_PI + 2 * q.scale.log() + spread / q.scale.square())
    return _mean_from(2, p, found)


def _mean_log(low: Tensor, high: Tensor) -> Tensor:
    """The mean of log x, evenly spread over low .. high."""
    return (_xlogx(high) - _xlogx(low)) / (high - low) - 1


@register_kl(Uniform, Beta)
def _uniform_beta(p: Uniform, q: Beta) -> Tensor:
    a, b = q.concentration1, q.concentration0
    powers = (a - 1) * _mean_log(p.low, p.high) + (b - 1) * _mean_log(1 - p.high, 1 - p.low)
    found = a.lgamma() + b.lgamma() - (a + b).lgamma() - (p.high - p.low).log() - powers
    return _unless((p.high > 1) | (p.low < 0), found)


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Uniform, q: ContinuousBernoulli) -> Tensor:
    return _unless((p.high >= 1) | (p.low <= 0), _to_continuous_bernoulli(p, q))


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Uniform, q: Exponential) -> Tensor:
    return _unless(p.low < 0, _to_exponential(p, q))


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Uniform, q: Gamma) -> Tensor:
    return _unless(p.low < 0, _to_gamma(p, q, _mean_log(p.low, p.high)))


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Uniform, q: Pareto) -> Tensor:
    logs = (q.alpha + 1) * _mean_log(p.low, p.high) - q.alpha.log() - q.alpha * q.scale.log()
    return _unless(p.low < q.support.lower_bound, logs - (p.high - p.low).log())
