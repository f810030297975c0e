"""The error function, the gamma function and their relatives, with references that need no SciPy.

Formulas: Abramowitz and Stegun, Handbook of Mathematical Functions, 6.3 (digamma) and 7.1 (erf);
M. Giles, "Approximating the erfinv function", GPU Computing Gems 2 (2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from ..dtype import f64
from ..op import BY_DECOMPOSITION, Weight
from .common import REAL_FLOATING, Expr, fn, number
from .elementwise import unary

__all__ = ["digamma", "erf", "erfc", "erfinv", "lgamma"]

TWO_BY_SQRT_PI = 2 / math.sqrt(math.pi)


def _scalarwise(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    """A function of the math module on arrays, computed in f64 and rounded once."""
    each = np.frompyfunc(function, 1, 1)

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(each(x.astype(np.float64))).astype(np.float64).astype(x.dtype)

    return run


def _horner(coefficients: Sequence[float], x: Expr) -> Expr:
    """The polynomial with `coefficients`, highest power first."""
    first, *rest = coefficients
    return reduce(lambda total, c: total * x + c, rest, x * 0 + first)


# ------------------------------ error function

_erf_exactly = _scalarwise(math.erf)
ERF_END = 4.0  # from here on erf is 1 in f32
# erf(x) / x as a quotient of polynomials in (x / ERF_END) ** 2, lowest power first: the one of
# least relative error, 1e-11 (found by weighted least squares with Lawson's weights)
ERF_ABOVE = (
    1.1283791670861683, 3.2055559992649947, 14.878440616542004, 20.32564640839753,
    33.62323074839296, 22.84633269858057, 12.629423823671143, 0.8065358649687192,
)  # fmt: skip
ERF_BELOW = (
    1.0, 8.17418336398115, 31.181320248677668, 72.57817321875046,
    112.41118509062908, 116.93519235763507, 75.81894608699872, 19.675187686591947,
)  # fmt: skip
ERF_BLOCK = 1 << 12  # elements: the arrays of one block stay in the cache


def erf_numpy(x: np.ndarray) -> np.ndarray:
    """erf, in f32 by a quotient in f64 that is rounded once."""
    if x.dtype != np.float32:
        return _erf_exactly(x)
    flat = x.reshape(-1)
    result = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, ERF_BLOCK):
        wide = flat[start : start + ERF_BLOCK].astype(np.float64)
        np.minimum(wide, ERF_END, out=wide)
        np.maximum(wide, -ERF_END, out=wide)
        t = wide * wide
        t *= ERF_END**-2
        wide *= _power_series(ERF_ABOVE, t)
        wide /= _power_series(ERF_BELOW, t)
        result[start : start + ERF_BLOCK] = wide
    return result.reshape(x.shape)


def _power_series(coefficients: Sequence[float], t: np.ndarray) -> np.ndarray:
    """The polynomial with `coefficients`, lowest power first."""
    total = t * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        total += c
        total *= t
    total += coefficients[0]
    return total


erfc_numpy = _scalarwise(math.erfc)

# erfinv(x) / x in w = -log(1 - x * x), around w = 2.5 and around sqrt(w) = 3
GILES_CENTRAL = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
GILES_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)
NEWTON_STEPS = 3  # from 7 correct digits (or 2 in the far tail of f64) to 16


def erfinv_numpy(x: np.ndarray) -> np.ndarray:
    """erfinv, in f64 and rounded once: Giles' polynomials, then Newton's steps on `math.erf` and
    `math.erfc`."""
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        size = np.abs(wide)
        rest = 1 - size
        w = -np.log(rest * (1 + size))
        near = np.polyval(GILES_CENTRAL, np.minimum(w, 5) - 2.5)
        y = size * np.where(w < 5, near, np.polyval(GILES_TAIL, np.sqrt(np.maximum(w, 5)) - 3))
        far = -np.log(rest)
        y = np.where(far > 16, np.sqrt(far - 0.5 * np.log(far * math.pi)), y)
        central = size < 0.5
        for _ in range(NEWTON_STEPS):
            slope = np.exp(-y * y) * TWO_BY_SQRT_PI
            beyond = erfc_numpy(y)
            step = np.where(
                central, (_erf_exactly(y) - size) / slope, np.log(rest / beyond) * beyond / slope
            )
            y = y - np.where(np.isfinite(step), step, 0)
    y = np.where(size == 1, np.inf, np.where(size < 1, y, np.nan))
    return np.asarray(np.copysign(y, wide).astype(x.dtype))


def _erfinv_start(x: Expr) -> Expr:
    """|erfinv(x)| to f32's precision."""
    size = fn.abs(x)
    w = -fn.log((1 - size) * (1 + size))
    tail = fn.sqrt(fn.maximum(w, 5)) - 3
    near = _horner(GILES_CENTRAL, fn.minimum(w, 5) - 2.5) * size
    return fn.where(w < 5, near, _horner(GILES_TAIL, tail) * size)


def _erfinv_refine(x: Expr, y: Expr) -> Expr:
    """A Newton step on erf(y) = |x|; in the tail on log(erfc(y)) = log(1 - |x|), nearly a
    parabola."""
    size = fn.abs(x)
    slope = fn.exp(-y * y) * TWO_BY_SQRT_PI
    rest = fn.erfc(y)
    central = (fn.erf(y) - size) / slope
    tail = fn.log((1 - size) / rest) * rest / slope
    return y - fn.where(size < 0.5, central, tail)


def _erfinv_formula(x: Expr) -> Expr:
    y = _erfinv_start(x)
    if x.dtype is f64:
        w = -fn.log(1 - fn.abs(x))
        far = fn.sqrt(w - 0.5 * fn.log(w * math.pi))  # asymptotic: beyond the polynomial's range
        y = fn.where(w > 16, far, y)
        for _ in range(NEWTON_STEPS):
            y = _erfinv_refine(x, y)
    return fn.where(fn.eq(fn.abs(x), 1), x * math.inf, fn.copysign(y, x))


erf = unary(
    "erf",
    "Error function: 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to x.",
    erf_numpy,
    lambda g, x, y: g * (TWO_BY_SQRT_PI * fn.exp(-x * x)),
    REAL_FLOATING,
    weight=Weight.SLOW,
)
erfc = unary(
    "erfc",
    "1 - erf(x), exact for large x.",
    erfc_numpy,
    lambda g, x, y: g * (-TWO_BY_SQRT_PI * fn.exp(-x * x)),
    REAL_FLOATING,
    weight=Weight.SLOW,
    reference_ns=90.0,
)
erfinv = unary(
    "erfinv",
    "The y with erf(y) = x; inf at 1, -inf at -1, nan outside.",
    erfinv_numpy,
    lambda g, x, y: g * (fn.exp(y * y) / TWO_BY_SQRT_PI),
    REAL_FLOATING,
    formula=_erfinv_formula,
    weight=Weight.SLOW,
    reference_ns=700.0,
)


# ------------------------------ gamma function

# digamma(y) = log(y) - 1 / (2 y) - sum of c[k] / y ** (2 k); lowest power first
DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
DIGAMMA_SHIFT = 10  # the series has 16 digits from here on


def _lgamma_scalar(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def _digamma_scalar(x: float) -> float:
    if x == 0:
        return -math.copysign(math.inf, x)
    if math.isinf(x):
        return x if x > 0 else math.nan
    if x < 0:
        fraction = math.fmod(x, 1)
        return (
            _digamma_scalar(1 - x) - math.pi / math.tan(math.pi * fraction)
            if fraction
            else math.nan
        )
    total = 0.0
    while x < DIGAMMA_SHIFT:
        total, x = total - 1 / x, x + 1
    series = sum(c / x ** (2 * k) for k, c in enumerate(DIGAMMA_SERIES, 1)) if x < 1e17 else 0.0
    return total + math.log(x) - 0.5 / x - series


def _digamma_formula(x: Expr) -> Expr:
    """Reflection below 0, recurrence up to the shift, asymptotic series from there.

    Branches not taken stay finite, so that their zero gradients are zero: derivatives follow to any
    order.
    """
    below = x < 0
    fraction = x - fn.round(x)
    pole = below & fn.eq(fraction, 0)
    angle = fn.where(below & ~pole, fraction, 0.25) * math.pi
    z = fn.where(below, 1 - x, x)
    total = fn.log(z + DIGAMMA_SHIFT) - 0.5 / (z + DIGAMMA_SHIFT)
    square = 1 / ((z + DIGAMMA_SHIFT) * (z + DIGAMMA_SHIFT))
    total = total - _horner((*DIGAMMA_SERIES[::-1], 0.0), square)
    for k in range(DIGAMMA_SHIFT - 1, -1, -1):  # small terms first
        total = total - 1 / (z + k if k else z)  # -0 + 0 would lose the sign of the pole
    total = fn.where(below, total - math.pi / fn.tan(angle), total)
    # a factor: derivatives are nan too
    return total * fn.where(pole, Expr(number(math.nan, x.dtype)), 1)


lgamma = unary(
    "lgamma",
    "log |gamma(x)|; inf at 0 and at negative integers.",
    _scalarwise(_lgamma_scalar),
    lambda g, x, y: g * fn.digamma(x),
    REAL_FLOATING,
    weight=Weight.VERY_SLOW,
    reference_ns=700.0,
)
digamma = unary(
    "digamma",
    "Derivative of log gamma(x); -inf at 0, nan at negative integers.",
    _scalarwise(_digamma_scalar),
    BY_DECOMPOSITION,
    REAL_FLOATING,
    formula=_digamma_formula,
    weight=Weight.VERY_SLOW,
    reference_ns=2500.0,
)
