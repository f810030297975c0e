"""Error functions and gamma functions.

erf and erfc: polynomials for erf near 0, for -log(erfc) beyond, and for (1 + 2x) erfc(x) e^(x^2),
whose variable (x - 2)/(x + 2) maps 0..inf to a finite interval (M. Shepherd and J. Laframboise,
*Chebyshev approximation of (1 + 2x) exp(x^2) erfc x*, 1981). erfinv: x p(w), w = -log(1 - x^2) (M.
Giles, *Approximating the erfinv function*, 2011). Gamma: Stirling's series after shifting the
argument beyond 8, reflection below 1/2 (Abramowitz and Stegun 6.1.41, 6.3.18, 6.1.17, 6.3.7), in
f64.
"""

from __future__ import annotations

import functools
import math

from graphtorch.ir.dtype import f32, f64

from ...builder import Builder
from ...ir import Expr, binary, cast, fma, select, unary
from .exponentials import INF, compare, exp_negative, like, log, log1p, log64, magnitude
from .polynomial import fit, fit_ratio, horner
from .trigonometric import cospi64, sinpi64

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
ERF_SPLIT = 0.92


def _erf_ratio(z: float) -> float:
    """erf(sqrt(z))/sqrt(z) - 1."""
    x = math.sqrt(z)
    return TWO_OVER_ROOT_PI - 1 if z < 1e-12 else math.erf(x) / x - 1


def _scaled_erfc(q: float) -> float:
    """(1 + 2x) erfc(x) e^(x^2) at x = 2 (1 + q)/(1 - q)."""
    x = 2 * (1 + q) / (1 - q)
    return (1 + 2 * x) * math.erfc(x) * math.exp(x * x)


def _normal_ratio(z: float) -> float:
    """The area under the normal distribution from 0 to sqrt(z), over sqrt(z)."""
    x = math.sqrt(z)
    return (
        0.5 * TWO_OVER_ROOT_PI * math.sqrt(0.5)
        if z < 1e-12
        else math.erf(x / math.sqrt(2)) / (2 * x)
    )


def _erfinv64(y: float, c: float) -> float:
    """The t with erf(t) = y, where c = 1 - y is exact, by Newton's method."""
    t = math.sqrt(-math.log(c * (1 + y))) * 0.9
    for _ in range(60):
        wrong = (math.erf(t) - y) if y < 0.5 else (c - math.erfc(t))
        t -= wrong / (TWO_OVER_ROOT_PI * math.exp(-t * t))
    return t


def _erfinv_ratio(w: float) -> float:
    """erfinv(x)/x at x = sqrt(1 - e^-w)."""
    if w < 1e-10:
        return 1 / TWO_OVER_ROOT_PI
    square = -math.expm1(-w)
    x = math.sqrt(square)
    return _erfinv64(x, math.exp(-w) / (1 + x)) / x


ERF = functools.cache(lambda: fit(_erf_ratio, 0.0, ERF_SPLIT**2, 6))
ERF_LOG = functools.cache(lambda: fit(lambda t: -math.log(math.erfc(t)), ERF_SPLIT, 4.0, 9))
NORMAL_END = 5.4  # beyond, less than 2^-24 is missing
NORMAL = functools.cache(lambda: fit_ratio(_normal_ratio, NORMAL_END**2, 5))
ERFC = functools.cache(lambda: fit(_scaled_erfc, -1.0, 0.69, 13))
NEAR, FAR = 2.5, 3.2  # centres of the two intervals: small coefficients keep Horner's rule accurate
ERFINV = functools.cache(lambda: fit(lambda d: _erfinv_ratio(NEAR + d), -2.5, 2.5, 10))
ERFINV_TAIL = functools.cache(lambda: fit(lambda d: _erfinv_ratio((FAR + d) ** 2), -0.97, 0.85, 8))
ERFINV_FAR = functools.cache(lambda: fit(lambda d: _erfinv_ratio((FAR + d) ** 2), -0.97, 3.0, 8))


def erf(b: Builder, x: Expr) -> Expr:
    a = b.let(magnitude(x), "a")
    small = fma(x, horner(b, b.let(x * x, "z"), ERF()), x)
    t = b.let(select(compare("gt", a, 4.0), like(x, 4.0), a), "t")
    large = 1.0 - exp_negative(b, b.let(-horner(b, t, ERF_LOG()), "g"))
    return select(compare("lt", a, ERF_SPLIT), small, binary("copysign", large, x))


def erfc(b: Builder, x: Expr) -> Expr:
    """e^(-x^2) p, the square in two parts; 2 - erfc(-x) for negative x; 1 - erf(x) near 0."""
    a = b.let(select(compare("gt", magnitude(x), 10.5), like(x, 10.5), magnitude(x)), "a")
    square = b.let(a * a, "s")
    rest = fma(a, a, unary("neg", square), exact=True)  # what rounding took
    q = b.let((a - 2.0) / (a + 2.0), "q")
    p = b.let(horner(b, q, ERFC()) / (a * 2.0 + 1.0), "p")
    p = b.let(p - p * rest, "p")
    y = b.let(exp_negative(b, b.let(-square, "n"), 24) * p * 2.0**-24, "y")
    y = select(compare("lt", x, 0.0), 2.0 - y, y)
    near = 1.0 - fma(x, horner(b, b.let(x * x, "z"), ERF()), x)
    return select(unary("isnan", x), x, select(compare("lt", a, 0.46), near, y))


def normal_cdf(b: Builder, x: Expr) -> Expr:
    """1/2 + x f(x^2), a ratio of polynomials; 0 and 1 far out. Off by 3 * 2^-24 at most: relative
    to a small result that is much."""
    z = b.let(x * x, "z")
    upper, lower = (horner(b, z, coefficients) for coefficients in NORMAL())
    y = b.let(fma(x, upper / lower, like(x, 0.5)), "y")
    y = select(compare("lt", x, -NORMAL_END), like(x, 0.0), y)
    return select(compare("gt", x, NORMAL_END), like(x, 1.0), y)


def normal_cdf64(b: Builder, x: Expr) -> Expr:
    return fma(unary("erf", x * math.sqrt(0.5)), like(x, 0.5), like(x, 0.5))


def erfinv(b: Builder, x: Expr) -> Expr:
    a = b.let(magnitude(x), "a")
    near = log1p(b, b.let(unary("neg", x * x), "m"))
    far = log(b, b.let((1.0 - a) * (a + 1.0), "m"))
    w = b.let(unary("neg", select(compare("lt", a, 0.5), near, far)), "w")
    tail = b.let(compare("ge", w, 5.0), "tail")
    root = b.let(unary("sqrt", w) - FAR, "root")
    p = select(tail, horner(b, root, ERFINV_TAIL()), horner(b, b.let(w - NEAR, "d"), ERFINV()))
    y = select(compare("eq", a, 1.0), binary("copysign", like(x, INF), x), x * p)
    return select(compare("gt", a, 1.0), like(x, math.nan), y)


def erfinv64(b: Builder, x: Expr) -> Expr:
    """f64: a start good to four digits, then Halley's method on erf, or on erfc near 1."""
    a = b.let(magnitude(x), "a")
    c = b.let(1.0 - a, "c")
    w = b.let(unary("neg", unary("log", b.let(c * (a + 1.0), "m"))), "w")
    w = b.let(select(compare("lt", a, 1e-4), a * a, w), "w")
    tail = compare("ge", w, 5.0)
    t: Expr = select(
        tail,
        horner(b, b.let(unary("sqrt", w) - FAR, "root"), ERFINV_FAR()),
        horner(b, b.let(w - NEAR, "d"), ERFINV()),
    )
    t = b.let(t * a, "t")
    for _ in range(2):
        wrong = select(compare("lt", a, 0.5), unary("erf", t) - a, c - unary("erfc", t))
        u = b.let(wrong / (unary("exp", unary("neg", t * t)) * TWO_OVER_ROOT_PI), "u")
        t = b.let(t - u / (t * u + 1.0), "t")
    t = select(compare("eq", a, 1.0), like(x, INF), t)
    return select(compare("gt", a, 1.0), like(x, math.nan), binary("copysign", t, x))


# ---- gamma

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
# of log gamma, in 1/z^2
STIRLING = tuple(v / (2 * k * (2 * k - 1)) for k, v in enumerate(BERNOULLI, 1))
PSI = tuple(-v / (2 * k) for k, v in enumerate(BERNOULLI, 1))  # of its derivative
SHIFT = 8


def lgamma(b: Builder, x: Expr) -> Expr:
    """log |gamma(x)| of an f32, computed in f64."""
    wide = b.let(cast(x, f64), "w")
    mirrored = b.let(compare("lt", wide, 0.5), "mirrored")
    z = b.let(select(mirrored, 1.0 - wide, wide), "z")
    y = _lgamma_right(b, b.let(select(compare("lt", z, 1e300), z, like(z, 1.0)), "z"))
    r = b.let(wide - unary("round", wide), "r")
    s = b.let(magnitude(sinpi64(b, r)), "s")
    pole = b.let(compare("eq", s, 0.0), "pole")
    bent = log64(b, b.let(math.pi / select(pole, like(s, 1.0), s), "m")) - y
    y = select(mirrored, select(pole, like(y, INF), bent), y)
    y = select(compare("eq", magnitude(wide), INF), like(y, INF), y)
    y = select(binary("or", compare("eq", x, 1.0), compare("eq", x, 2.0)), like(y, 0.0), y)
    return select(unary("isnan", x), x, cast(y, f32))


def _shifted(b: Builder, z: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """Whether z < 8; z then moved up by 8; z (z+1) .. (z+7), and its derivative by z."""
    low = b.let(compare("lt", z, float(SHIFT)), "low")
    product: Expr = z
    slope: Expr = like(z, 1.0)
    for i in range(1, SHIFT):
        step = b.let(z + float(i), "step")
        slope = b.let(fma(slope, step, product), "slope")
        product = b.let(product * step, "product")
    one = like(z, 1.0)
    return low, b.let(select(low, z + float(SHIFT), z), "z"), select(low, product, one), slope


def _lgamma_right(b: Builder, z: Expr) -> Expr:
    """For z >= 1/2: (z - 1/2) log z - z + log(2 pi)/2 + series, less the logarithm of the shift."""
    _, t, product, _ = _shifted(b, z)
    inverse = b.let(1.0 / t, "inverse")
    series = horner(b, b.let(inverse * inverse, "ii"), STIRLING) * inverse
    main = fma(t - 0.5, log64(b, t), series - t) + 0.5 * math.log(2 * math.pi)
    return b.let(main - log64(b, b.let(product, "product")), "y")


def digamma64(b: Builder, x: Expr) -> Expr:
    """Derivative of log gamma of an f64: +-inf at -+0, NaN at the negative integers."""
    mirrored = b.let(compare("lt", x, 0.5), "mirrored")
    z = b.let(select(mirrored, 1.0 - x, x), "z")
    low, t, product, slope = _shifted(b, z)
    inverse = b.let(1.0 / t, "inverse")
    ii = b.let(inverse * inverse, "ii")
    y = fma(horner(b, ii, PSI), ii, fma(inverse, like(z, -0.5), unary("log", t)))
    y = b.let(y - select(low, slope / product, like(z, 0.0)), "y")
    r = b.let(x - unary("round", x), "r")
    y = select(mirrored, y - math.pi * cospi64(b, r) / sinpi64(b, r), y)
    pole = binary("and", compare("eq", r, 0.0), compare("le", x, 0.0))
    at_pole = select(
        compare("eq", x, 0.0), binary("copysign", like(x, INF), unary("neg", x)), like(x, math.nan)
    )
    y = select(pole, at_pole, y)
    return select(compare("eq", x, INF), x, y)


def digamma(b: Builder, x: Expr) -> Expr:
    """f32, computed in f64."""
    return cast(digamma64(b, b.let(cast(x, f64), "w")), f32)


def half_exp64(b: Builder, x: Expr) -> Expr:
    return unary("exp", x) * 0.5


def sigmoid64(b: Builder, x: Expr) -> Expr:
    z = b.let(unary("exp", unary("neg", magnitude(x))), "z")
    return select(compare("lt", x, 0.0), z, like(x, 1.0)) / (z + 1.0)
