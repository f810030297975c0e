"""Error bounds of the maths functions over all of f32, and what they do at the corners."""

from __future__ import annotations

import math

import numpy as np
import pytest

from accuracy import CORNERS, EXACT, TIGHT, sample, special, ulps
from graphtorch.backends.kernels.body.maths import exponentials
from graphtorch.backends.kernels.body.maths.polynomial import fit
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Kernel, KType, Name, binary, load, unary
from graphtorch.backends.kernels.text import print_kernel
from graphtorch.backends.llvm.jit import run_kernel
from graphtorch.ir.dtype import bf16, f16, f32, f64


def apply(op: str, *xs: np.ndarray, dtype=f32, lanes: int = 1) -> np.ndarray:
    """`op` on arrays, in a loop for the vectoriser or on explicit vectors of `lanes`."""
    buffers = [Buffer(f"x{i}", dtype) for i in range(len(xs))]
    out, n, b = Buffer("y", dtype, "write"), Name("n"), Builder()
    with b.loop(n, "vector" if lanes == 1 else "serial", step=lanes) as i:
        args = [load(x, i, lanes) for x in buffers]
        b.store(out, i, unary(op, *args) if len(args) == 1 else binary(op, *args))
    result = np.empty_like(xs[0])
    run_kernel(Kernel("apply", (*buffers, out), (n,), b.body), [*xs, result], [len(result)])
    return result


@pytest.mark.parametrize("op", EXACT)
def test_f32_is_within_its_bound(op):
    x = sample()
    if op == "lgamma":
        x = x[x > -1e6]  # SciPy's own reflection loses the sine of larger ones
    with np.errstate(all="ignore"):
        exact = EXACT[op](x.astype(np.float64))
    if op == "lgamma":
        exact = np.where(x == -np.inf, np.inf, exact)
    error = ulps(apply(op, x), exact)
    worst = int(error.argmax())
    assert error[worst] <= (2 if op in TIGHT else 4), f"{op}({x[worst]!r}): {error[worst]} ULP"


def test_half_exp():
    """Beside a half only what is not tiny counts; silu = (x/2) / (1/2 + e^-x/2)."""
    x = sample()
    with np.errstate(all="ignore"):
        half = np.exp(x.astype(np.float64)) / 2
        got = apply("half_exp", x)
        inside = (x > -87) & (half < 2.0**127 * 1.414)
        assert ulps(got, half)[inside].max() <= 2
        assert (got[x <= -87] < 1e-37).all() and (got[x > 89.1] == np.inf).all()
        silu = (np.float32(0.5) * x) / (np.float32(0.5) + apply("half_exp", -x))
        exact = x.astype(np.float64) * special.expit(x.astype(np.float64))
        assert ulps(silu, exact)[(x > -88) & (np.abs(x) > 1e-37)].max() <= 4
    assert np.isnan(apply("half_exp", np.array([np.nan], np.float32))).all()


def test_exp_negative():
    x = sample()
    x = x[(x <= 0) | np.isnan(x)]
    with np.errstate(all="ignore"):
        assert ulps(apply("exp_negative", x), np.exp(x.astype(np.float64))).max() <= 2
    x = -np.random.default_rng(4).uniform(0, 1, 1000)
    np.testing.assert_allclose(apply("exp_negative", x, dtype=f64), np.exp(x), rtol=1e-15)


def test_normal_cdf():
    """Beside 1 what is off counts, as where it is 1/2 + erf/2; gelu = x cdf(x) is 0 far below 0."""
    x = np.concatenate([sample(), np.linspace(-6, 6, 200_001).astype(np.float32)])
    got, exact = apply("normal_cdf", x), special.ndtr(x.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
    assert np.nanmax(np.abs(got - exact)) <= 3.5 * 2.0**-24
    assert (got[x < -5.4] == 0).all() and (got[x > 5.4] == 1).all()
    gelu, positive = x * got, (x > 0) & np.isfinite(x)
    assert ulps(gelu, x * exact)[positive].max() <= 4
    x = np.linspace(-9, 9, 1001)
    np.testing.assert_allclose(apply("normal_cdf", x, dtype=f64), special.ndtr(x), atol=1e-15)


def test_huge_angles():
    """Numbers next to multiples of pi/2 lose most bits: the worst f32 of each range (Payne and
    Hanek)."""
    x = np.array(
        [
            2.0**50,
            2.0**64,
            2.0**100,
            3.4028235e38,
            -(2.0**77),
            16367173.0 * 2.0**72,
            13.0 * 2.0**120,
        ],
        np.float32,
    )
    for op, f in (("sin", math.sin), ("cos", math.cos), ("tan", math.tan)):
        assert ulps(apply(op, x), np.array([f(float(v)) for v in x])).max() <= 4


def test_digamma():
    x = sample()
    x = x[np.isfinite(x) & (x > -1e4)]
    x = x[(x >= 0) | (x != np.floor(x))]
    with np.errstate(all="ignore"):
        exact = special.digamma(x.astype(np.float64))
    usual = np.abs(exact) > 1e-3  # SciPy is no closer at the roots
    assert ulps(apply("digamma", x), exact)[usual].max() <= 4
    assert np.isnan(apply("digamma", np.array([-1.0, -2.0], np.float32))).all()
    assert list(apply("digamma", np.array([0.0, -0.0], np.float32))) == [-np.inf, np.inf]


@pytest.mark.parametrize("op, f", [("pow", np.power), ("atan2", np.arctan2)])
def test_binary_functions(op, f):
    rng = np.random.default_rng(3)
    x, y = (a.ravel() for a in np.meshgrid(CORNERS, [*CORNERS, 4, 2.5, -2.5, 33333333, 0.3333]))
    a = np.concatenate([x.astype(np.float32), sample(20000)])
    b = np.concatenate([y.astype(np.float32), rng.permutation(sample(20000))])
    with np.errstate(all="ignore"):
        exact = f(a.astype(np.float64), b.astype(np.float64))
    got = apply(op, a, b)
    error = ulps(got, exact)
    worst = int(error.argmax())
    assert error[worst] <= 4, (
        f"{op}({a[worst]!r}, {b[worst]!r}) = {got[worst]!r}, not {exact[worst]!r}"
    )
    zero = (got == 0) & (exact == 0)
    assert (np.signbit(got) == np.signbit(exact))[zero].all()


@pytest.mark.parametrize(
    "op",
    [
        "sin",
        "tan",
        "asin",
        "atan",
        "sinh",
        "tanh",
        "asinh",
        "atanh",
        "expm1",
        "log1p",
        "erf",
        "erfinv",
    ],
)
def test_odd_functions_keep_the_sign_of_zero_and_denormals(op):
    x = np.array([0.0, -0.0, 1e-44, -1e-44], np.float32)
    scale = {"erf": 2 / math.sqrt(math.pi), "erfinv": math.sqrt(math.pi) / 2}.get(op, 1.0)
    got = apply(op, x)
    assert (np.signbit(got) == np.signbit(x)).all()
    assert np.abs(got - (x * np.float32(scale))).max() <= 2e-45


@pytest.mark.parametrize("op", ["exp", "sin", "pow", "erfinv"])
@pytest.mark.parametrize("lanes", [4, 16])
def test_explicit_lanes_give_the_same_bits(op, lanes):
    x = np.random.default_rng(1).uniform(0.01, 0.99, 64).astype(np.float32)
    args = (x, x[::-1].copy()) if op == "pow" else (x,)
    assert (apply(op, *args, lanes=lanes) == apply(op, *args)).all()


@pytest.mark.parametrize(
    "op", ["exp", "log", "tanh", "erf", "lgamma", "erfinv", "digamma", "sigmoid", "expm1"]
)
def test_f64(op):
    x = np.random.default_rng(2).uniform(0.001, 0.999, 4000)
    exact = {**EXACT, "digamma": special.digamma}[op](x)
    np.testing.assert_allclose(apply(op, x, dtype=f64), exact, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(apply(op, x, dtype=f64, lanes=4), exact, rtol=1e-14, atol=1e-15)


def test_erfinv_near_one_in_f64():
    x = 1 - 10.0 ** np.linspace(-16, -1, 200)
    np.testing.assert_allclose(apply("erfinv", x, dtype=f64), special.erfinv(x), rtol=1e-13)


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_halves_are_computed_in_f32(dtype):
    x = np.linspace(-4, 4, 334).astype(dtype.numpy)
    for op, f in (("exp", np.exp), ("tanh", np.tanh), ("sin", np.sin)):
        exact = f(x.astype(np.float64)).astype(np.float32).astype(dtype.numpy)
        got = apply(op, x, dtype=dtype)
        assert np.abs(got.astype(np.float32) / exact.astype(np.float32) - 1).max() <= 2 * float(
            {"f16": 2**-11, "bf16": 2**-8}[dtype.name]
        )


@pytest.mark.parametrize("dtype", [f32, f64])
def test_nextafter(dtype):
    x, y = (a.ravel().astype(dtype.numpy) for a in np.meshgrid(CORNERS, CORNERS))
    with np.errstate(all="ignore"):
        got, want = apply("nextafter", x, y, dtype=dtype), np.nextafter(x, y)
    assert ((got == want) | (np.isnan(got) & np.isnan(want))).all()
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


def test_fit_interpolates():
    c = fit(math.exp, -1.0, 1.0, 12)
    assert abs(sum(a * 0.3**i for i, a in enumerate(c)) - math.exp(0.3)) < 1e-12


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
def test_a_gate_is_one_exponential_and_one_division(op, golden):
    """Recurrent nets spend a sixth of their time in these two: neither chain nor count may grow."""
    x, b = Name("x", KType(f32, 8)), Builder()
    out = Buffer("y", f32, "write")
    b.store(out, 0, getattr(exponentials, op)(b, x))
    golden(f"maths_{op}", print_kernel(Kernel(op, (out,), (), b.body)))
