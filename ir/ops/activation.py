"""Activation functions. All are composites: a formula of simpler ops, computed in f32 for f16 and
bf16.

Names, parameters and values at the corners follow
https://docs.pytorch.org/docs/stable/nn.functional.html#non-linear-activation-functions.
"""

from __future__ import annotations

import math

import numpy as np

from ..dataclass import dataclass
from ..op import Attrs, Weight
from .common import REAL, REAL_FLOATING, Expr, fn
from .elementwise import unary
from .special import erf_numpy

__all__ = [
    "elu",
    "gelu",
    "gelu_slope",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "relu",
    "silu",
    "softplus",
    "softsign",
]


@dataclass(frozen=True)
class Gelu(Attrs):
    approximate: str = "none"


@dataclass(frozen=True)
class Softplus(Attrs):
    beta: float = 1.0
    threshold: float = 20.0


@dataclass(frozen=True)
class Elu(Attrs):
    alpha: float = 1.0
    scale: float = 1.0
    input_scale: float = 1.0


@dataclass(frozen=True)
class LeakyRelu(Attrs):
    slope: float = 0.01


@dataclass(frozen=True)
class Hardtanh(Attrs):
    low: float = -1.0
    high: float = 1.0


# ------------------------------ piecewise linear


def _clip(x: Expr, low: float, high: float) -> Expr:
    return fn.minimum(fn.maximum(x, low), high)


def _hardswish_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    return fn.where(x <= -3, 0, fn.where(x < 3, g * (x / 3 + 0.5), g))


def _softsign_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    below = 1 + fn.abs(x)
    return g / (below * below)


relu = unary(
    "relu",
    "max(x, 0); nan stays. relu'(0) = 0.",
    lambda x: np.maximum(x, x.dtype.type(0)),
    lambda g, x, y: fn.where(y <= 0, 0, g),
    REAL,
    formula=lambda x: fn.maximum(x, 0),
    widen=False,
    weight=Weight.CHEAP,
)
leaky_relu = unary(
    "leaky_relu",
    "x above 0, slope * x below.",
    lambda a, x: np.where(x > 0, x, x * a.slope).astype(x.dtype),
    lambda a, g, x, y: fn.where(x > 0, g, g * a.slope),
    REAL_FLOATING,
    attrs=LeakyRelu,
    formula=lambda a, x: fn.where(x > 0, x, x * a.slope),
    weight=Weight.CHEAP,
)
hardtanh = unary(
    "hardtanh",
    "x kept within low..high; no gradient at the ends.",
    lambda a, x: np.clip(x, a.low, a.high),
    lambda a, g, x, y: fn.where((x <= a.low) | (x >= a.high), 0, g),
    REAL_FLOATING,
    attrs=Hardtanh,
    widen=False,
    formula=lambda a, x: _clip(x, a.low, a.high),
    weight=Weight.CHEAP,
)
hardsigmoid = unary(
    "hardsigmoid",
    "x / 6 + 1 / 2 kept within 0..1.",
    lambda x: np.clip(x + 3, 0, 6) / 6,
    lambda g, x, y: fn.where((x > -3) & (x < 3), g / 6, 0),
    REAL_FLOATING,
    formula=lambda x: _clip(x + 3, 0, 6) / 6,
    weight=Weight.PLAIN,
)
hardswish = unary(
    "hardswish",
    "x * hardsigmoid(x).",
    lambda x: x * np.clip(x + 3, 0, 6) / 6,
    _hardswish_rule,
    REAL_FLOATING,
    formula=lambda x: x * _clip(x + 3, 0, 6) / 6,
    weight=Weight.PLAIN,
)
softsign = unary(
    "softsign",
    "x / (1 + |x|).",
    lambda x: x / (1 + np.abs(x)),
    _softsign_rule,
    REAL_FLOATING,
    formula=lambda x: x / (1 + fn.abs(x)),
    weight=Weight.PLAIN,
)


# ------------------------------ smooth

# constants of the tanh form, https://arxiv.org/abs/1606.08415
TANH_GELU = math.sqrt(2 / math.pi), 0.044715
PEAK = 1 / math.sqrt(2 * math.pi)  # of the normal distribution's density


def _check_gelu(attrs: Gelu) -> None:
    if attrs.approximate not in ("none", "tanh"):
        raise RuntimeError(
            f"gelu: approximate argument must be either none or tanh, got {attrs.approximate!r}"
        )


def _gelu_numpy(attrs: Gelu, x: np.ndarray) -> np.ndarray:
    if attrs.approximate == "tanh":
        scale, cubic = TANH_GELU
        return 0.5 * x * (1 + np.tanh(scale * (x + cubic * x * x * x)))
    return 0.5 * x * (1 + erf_numpy(x * math.sqrt(0.5)))


def _gelu_formula(attrs: Gelu, x: Expr) -> Expr:
    if attrs.approximate == "tanh":
        scale, cubic = TANH_GELU
        return x * 0.5 * (1 + fn.tanh((x + x * x * x * cubic) * scale))
    return x * 0.5 * (1 + fn.erf(x * math.sqrt(0.5)))


def _gelu_rule(attrs: Gelu, g: Expr, x: Expr, y: Expr) -> Expr:
    if attrs.approximate == "tanh":
        scale, cubic = TANH_GELU
        square = x * x
        t = fn.tanh(x * (square * cubic + 1) * scale)
        return g * 0.5 * (1 + t + x * (1 - t * t) * (square * (3 * cubic * scale) + scale))
    return g * fn.gelu_slope(x)


def _gelu_slope_numpy(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + erf_numpy(x * math.sqrt(0.5))) + x * np.exp(-0.5 * x * x) * PEAK


def _gelu_slope_formula(x: Expr) -> Expr:
    return 0.5 * (1 + fn.erf(x * math.sqrt(0.5))) + x * fn.exp(x * x * -0.5) * PEAK


def _silu_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    s = fn.sigmoid(x)
    return g * s * (1 + x * (1 - s))


def _silu_numpy(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _softplus_numpy(attrs: Softplus, x: np.ndarray) -> np.ndarray:
    return np.where(
        x * attrs.beta > attrs.threshold, x, np.logaddexp(x * attrs.beta, 0) / attrs.beta
    )


def _softplus_formula(attrs: Softplus, x: Expr) -> Expr:
    """log(1 + exp(z)) as max(z, 0) + log1p(exp(-|z|)): exact for any threshold."""
    z = x * attrs.beta
    smooth = (fn.maximum(z, 0) + fn.log1p(fn.exp(-fn.abs(z)))) / attrs.beta
    return fn.where(z > attrs.threshold, x, smooth)


def _softplus_rule(attrs: Softplus, g: Expr, x: Expr, y: Expr) -> Expr:
    z = x * attrs.beta
    return fn.where(z > attrs.threshold, g, g * fn.sigmoid(z))


def _elu_numpy(attrs: Elu, x: np.ndarray) -> np.ndarray:
    below = attrs.alpha * attrs.scale * np.expm1(x * attrs.input_scale)
    return np.where(x > 0, attrs.scale * x, below)


def _elu_formula(attrs: Elu, x: Expr) -> Expr:
    below = fn.expm1(fn.where(x > 0, 0, x) * attrs.input_scale) * (attrs.alpha * attrs.scale)
    return fn.where(x > 0, x * attrs.scale, below)


def _elu_rule(attrs: Elu, g: Expr, x: Expr, y: Expr) -> Expr:
    """The exponential never sees x > 0, where it could overflow and spoil a second derivative."""
    slope = fn.exp(fn.where(x > 0, 0, x) * attrs.input_scale) * (
        attrs.alpha * attrs.scale * attrs.input_scale
    )
    return g * fn.where(x > 0, attrs.scale, slope)


def _mish_numpy(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(x, 0))


def _mish_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    t = fn.tanh(fn.softplus(x))
    return g * (t + x * fn.sigmoid(x) * (1 - t * t))


gelu = unary(
    "gelu",
    "x times the normal distribution's probability below x; approximate is none or tanh.",
    _gelu_numpy,
    _gelu_rule,
    REAL_FLOATING,
    attrs=Gelu,
    formula=_gelu_formula,
    check=_check_gelu,
    weight=Weight.SLOW,
)
gelu_slope = unary(
    "gelu_slope",
    "The derivative of gelu (approximate: none): the normal distribution below x, and x times its "
    "density.",
    _gelu_slope_numpy,
    lambda g, x, y: g * (2 - x * x) * fn.exp(x * x * -0.5) * PEAK,
    REAL_FLOATING,
    formula=_gelu_slope_formula,
    weight=Weight.SLOW,
)
silu = unary(
    "silu",
    "x * sigmoid(x).",
    _silu_numpy,
    _silu_rule,
    REAL_FLOATING,
    formula=lambda x: x * fn.sigmoid(x),
    weight=Weight.SLOW,
)
softplus = unary(
    "softplus",
    "log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold.",
    _softplus_numpy,
    _softplus_rule,
    REAL_FLOATING,
    attrs=Softplus,
    formula=_softplus_formula,
    weight=Weight.SLOW,
)
log_sigmoid = unary(
    "log_sigmoid",
    "log(sigmoid(x)).",
    lambda x: -np.logaddexp(0, -x),
    lambda g, x, y: g * fn.sigmoid(-x),
    REAL_FLOATING,
    formula=lambda x: fn.minimum(x, 0) - fn.log1p(fn.exp(-fn.abs(x))),
    weight=Weight.SLOW,
)
elu = unary(
    "elu",
    "scale * x above 0, scale * alpha * (exp(input_scale * x) - 1) below: elu, selu and celu.",
    _elu_numpy,
    _elu_rule,
    REAL_FLOATING,
    attrs=Elu,
    formula=_elu_formula,
    weight=Weight.SLOW,
)
mish = unary(
    "mish",
    "x * tanh(log(1 + exp(x))).",
    _mish_numpy,
    _mish_rule,
    REAL_FLOATING,
    formula=lambda x: x * fn.tanh(fn.softplus(x)),
    weight=Weight.SLOW,
)
