"""Error bounds of functions of f32: where they are looked at, what is exact, and how errors are
counted."""

from __future__ import annotations

import numpy as np
import pytest

special = pytest.importorskip("scipy.special")

CORNERS = np.array(
    [
        0.0,
        -0.0,
        1,
        -1,
        np.inf,
        -np.inf,
        np.nan,
        1e-45,
        -1e-45,
        1e-40,
        2.0**-126,
        3.4028235e38,
        -3.4028235e38,
        0.5,
        -0.5,
        2,
        -2,
        3,
        -3,
        1e10,
        -1e10,
    ],
    np.float32,
)


def sample(count: int = 100_000) -> np.ndarray:
    """Corners, every exponent, and many numbers where functions bend."""
    rng = np.random.default_rng(7)
    anything = rng.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32).view(np.float32)
    usual = (rng.standard_normal(count) * 10.0 ** rng.uniform(-8, 2.2, count)).astype(np.float32)
    near_one = (1 + rng.standard_normal(count) * 10.0 ** rng.uniform(-7, -0.5, count)).astype(
        np.float32
    )
    return np.concatenate([CORNERS, anything, usual, near_one, -near_one])


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Error in units of the last place of the exact result; infinite where a NaN or infinity is
    wrong."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(got.dtype).tiny)).astype(np.float64)
        unit = np.where(
            np.abs(rounded) < np.finfo(got.dtype).tiny,
            float(np.finfo(got.dtype).smallest_subnormal),
            unit,
        )
        error = np.abs(got.astype(np.float64) - exact) / unit
    both = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    edge = np.isinf(got) != np.isinf(rounded)
    close = edge & (np.abs(exact) > 3.4028e38)  # rounds to the largest number or to infinity
    return np.where(both | close, 0.0, np.where(np.isfinite(error), error, np.inf))


EXACT = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": special.erf,
    "erfc": special.erfc,
    "erfinv": special.erfinv,
    "sigmoid": special.expit,
    "lgamma": special.gammaln,
}
TIGHT = ("exp", "log", "tanh", "erf", "sigmoid")
