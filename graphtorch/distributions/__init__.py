"""Probability distributions (``torch.distributions``): samples, log-probabilities, entropies, divergences."""

from __future__ import annotations

from .._torch.absent import attribute_of
from .bernoulli import Bernoulli
from .categorical import Categorical
from .distribution import Distribution
from .exp_family import ExponentialFamily
from .independent import Independent
from .kl import kl_divergence, register_kl
from .normal import Normal
from .one_hot_categorical import OneHotCategorical, OneHotCategoricalStraightThrough

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "ExponentialFamily",
    "Independent",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "kl_divergence",
    "register_kl",
]

__getattr__ = attribute_of(__name__)
