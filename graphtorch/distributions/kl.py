"""Kullback-Leibler divergences, found by the types of the two distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from ..autograd.engine import grad
from ..autograd.grad_mode import enable_grad
from ..nn.functional import softplus
from .bernoulli import Bernoulli
from .categorical import Categorical
from .distribution import Distribution
from .exp_family import ExponentialFamily
from .independent import Independent
from .normal import Normal
from .one_hot_categorical import OneHotCategorical
from .utils import sum_rightmost

__all__ = ["kl_divergence", "register_kl"]

_F = TypeVar("_F", bound=Callable[..., Any])
_table: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[_F], _F]:
    """Decorates the function that computes KL(p || q) for these types and what derives from
    them."""
    for one, name in ((type_p, "type_p"), (type_q, "type_q")):
        if not isinstance(one, type):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {one}")

    def keep(function: _F) -> _F:
        _table[type_p, type_q] = function
        return function

    return keep


def _nearest(type_p: type, type_q: type) -> Callable[[Any, Any], Tensor] | None:
    """The function registered for the most derived types: those of p first."""
    found = [
        (type_p.__mro__.index(p), type_q.__mro__.index(q), function)
        for (p, q), function in _table.items()
        if issubclass(type_p, p) and issubclass(type_q, q)
    ]
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), of the batch shape of the two.

    Raises:
        NotImplementedError: no function is registered for the two types.
    """
    function = _nearest(type(p), type(q))
    if function is None:
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type "
            f"{type(q).__name__}"
        )
    return function(p, q)


def _limits(value: Tensor, infinite: Tensor, zero: Tensor) -> Tensor:
    """`value`, but infinity where q has no probability, and 0 where p has none."""
    return FUNCTIONS["where"](zero, 0.0, FUNCTIONS["where"](infinite, float("inf"), value))


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    ones = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    zeros = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    return _limits(ones, q.probs == 0, p.probs == 0) + _limits(zeros, q.probs == 1, p.probs == 1)


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    return _limits(p.probs * (p.logits - q.logits), q.probs == 0, p.probs == 0).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(ExponentialFamily, ExponentialFamily)
def _exponential_families(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    """The Bregman divergence of the log normalizer."""
    if type(p) is not type(q):
        raise NotImplementedError(
            "The cross KL-divergence between different exponential families cannot be "
            "computed using Bregman divergences"
        )
    theirs = q._natural_params
    with enable_grad():
        ours = [x.detach().requires_grad_() for x in p._natural_params]
        normalizer = p._log_normalizer(*ours)
        slopes = grad(normalizer.sum(), ours, create_graph=True)
    result = q._log_normalizer(*theirs) - normalizer
    for a, b, slope in zip(ours, theirs, slopes, strict=True):
        result = result - sum_rightmost((b - a) * slope, len(q.event_shape))
    return result


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
