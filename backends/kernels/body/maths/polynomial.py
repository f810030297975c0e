"""Polynomial approximations, fitted when first needed: the code states function, interval and
degree.

Interpolation at Chebyshev nodes is within a small factor of the best polynomial (Trefethen,
*Approximation Theory and Approximation Practice*, chapter 4) and needs nothing but the function in
double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...builder import Builder
from ...ir import Const, Expr, fma


def fit(f: Callable[[float], float], low: float, high: float, degree: int) -> tuple[float, ...]:
    """Coefficients, lowest power first, of the polynomial that interpolates `f` on
    ``low..high``."""
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    values = np.array([f(0.5 * (low + high) + 0.5 * (high - low) * float(t)) for t in nodes])
    series = [
        2 / (degree + 1) * np.dot(values, np.cos(k * np.arccos(nodes))) for k in range(degree + 1)
    ]
    series[0] /= 2
    line = np.polynomial.Polynomial([-(high + low) / (high - low), 2 / (high - low)])
    polynomial = np.polynomial.Polynomial(np.polynomial.chebyshev.cheb2poly(series))(line)
    return tuple(float(c) for c in polynomial.coef)


def fit_ratio(
    f: Callable[[float], float], high: float, degree: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients, lowest power first, of two polynomials of `degree` whose ratio interpolates `f`
    on ``0..high``: at the squares of Chebyshev nodes, for what is smooth in the root of its
    variable. The lower one is 1 at 0."""
    count = 2 * degree + 1
    nodes = (1 + np.cos(np.pi * (np.arange(count) + 0.5) / count)) ** 2 / 4  # of 0..1
    values = np.array([f(high * float(s)) for s in nodes])
    basis = np.polynomial.chebyshev.chebvander(2 * nodes - 1, degree)
    equations = np.hstack([basis, -values[:, None] * basis[:, 1:]])
    series = np.linalg.solve(equations, values)
    line = np.polynomial.Polynomial([-1, 2 / high])
    upper, lower = (
        np.polynomial.Polynomial(np.polynomial.chebyshev.cheb2poly(c))(line).coef
        for c in (series[: degree + 1], [1, *series[degree + 1 :]])
    )
    return tuple(float(c / lower[0]) for c in upper), tuple(float(c / lower[0]) for c in lower)


def horner(b: Builder, x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial at `x` by Horner's rule, one fused multiply-add a coefficient."""
    total: Expr = Const(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        total = b.let(fma(total, x, Const(c, x.type)), "p")
    return total


def exp_tail(r: float) -> float:
    """(e^r - 1 - r) / r^2, without cancellation for small r."""
    return sum(r**k / math.factorial(k + 2) for k in range(20))


def log_tail(f: float) -> float:
    """(log(1 + f) - f + f^2/2) / f^3."""
    if abs(f) < 0.1:
        return sum((-f) ** k / (k + 3) for k in range(18))
    return (math.log1p(f) - f + f * f / 2) / f**3


def odd_tail(f: Callable[[float], float], third: float) -> Callable[[float], float]:
    """z -> (f(x)/x - 1)/z at x = sqrt(z) for an odd function f(x) = x + third x^3 + ..."""

    def tail(z: float) -> float:
        x = math.sqrt(z)
        return third if z < 1e-7 else (f(x) / x - 1) / z

    return tail
