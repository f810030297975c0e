"""Exponentials, logarithms, powers and hyperbolic functions in f32.

Argument reduction and reconstruction as in W. J. Cody and W. Waite, *Software Manual for the
Elementary Functions* (1980): exp(x) = 2^n exp(r) with r = x - n ln 2 in two parts; log(x) = e ln 2
+ log(m).
"""

from __future__ import annotations

import functools
import math

from graphtorch.ir.dtype import f32, f64, i32, i64

from ...builder import Builder
from ...ir import Const, Expr, KType, binary, cast, fma, select, unary
from .polynomial import exp_tail, fit, horner, log_tail, odd_tail

LN2 = math.log(2)
LN2_HIGH = float.fromhex("0x1.62e4p-1")  # 15 bits: a product with any exponent is exact
LN2_LOW = LN2 - LN2_HIGH
LOG2E = 1 / LN2
INF = math.inf
ROUND = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits
SQRT_HALF_BITS = 0x3F3504F3

EXP = functools.cache(lambda: fit(exp_tail, -0.35, 0.35, 5))
LOG = functools.cache(lambda: fit(log_tail, -0.2930, 0.4143, 9))
SINH = functools.cache(lambda: fit(odd_tail(math.sinh, 1 / 6), 0.0, 1.0, 4))


def like(x: Expr, value: float) -> Const:
    """`value` in the type of `x`."""
    return Const(value, x.type)


def bits(x: Expr) -> Expr:
    return unary("bitcast_int", x)


def from_bits(x: Expr) -> Expr:
    return unary("bitcast_float", x)


def magnitude(x: Expr) -> Expr:
    return unary("abs", x)


def compare(op: str, x: Expr, y: float | Expr) -> Expr:
    return binary(op, x, y)


def clamp(x: Expr, low: float, high: float) -> Expr:
    """`x` within low..high; NaN stays NaN."""
    x = select(compare("gt", x, high), like(x, high), x)
    return select(compare("lt", x, low), like(x, low), x)


def nearest(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """The integer next to `x` (below 2^22), as f32 and as i32."""
    shifted = b.let(x + ROUND, "shifted")
    return b.let(shifted - ROUND, "n"), b.let(bits(shifted) - bits(like(x, ROUND)), "k")


def power_of_two(k: Expr) -> Expr:
    """2^k for -126 <= k <= 127."""
    return from_bits(binary("shl", k + 127, 23))


def scale(b: Builder, x: Expr, k: Expr) -> Expr:
    """x * 2^k for -252 <= k <= 254 in two steps, so that overflow and denormals come out right."""
    half = b.let(binary("shr", k, 1), "half")
    return x * power_of_two(half) * power_of_two(k - half)


def exp_fraction(b: Builder, u: Expr, factor: float = 1.0) -> Expr:
    """e^r - 1 for r = factor u, |r| <= ln(2)/2.

    Pairs of coefficients are summed by themselves: half of Horner's chain of dependent sums.
    """
    c = [c * factor ** (k + 2) for k, c in enumerate(EXP())]
    uu = b.let(u * u, "uu")
    pairs = [b.let(fma(u, like(u, c[k + 1]), like(u, c[k])), "p") for k in range(0, len(c), 2)]
    total = pairs.pop()
    while pairs:
        total = b.let(fma(total, uu, pairs.pop()), "p")
    return b.let(fma(uu, total, u if factor == 1.0 else u * factor), "q")


def reduce_exp(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """r and k with x = k ln 2 + r."""
    n, k = nearest(b, x * LOG2E)
    r = fma(n, like(x, -LN2_HIGH), x)
    return b.let(fma(n, like(x, -LN2_LOW), r), "r"), k


def exp(b: Builder, x: Expr, shift: int = 0) -> Expr:
    """e^x * 2^shift."""
    x = b.let(clamp(x, -120.0, 100.0), "x")
    r, k = reduce_exp(b, x)
    return b.let(scale(b, exp_fraction(b, r) + 1.0, b.let(k + shift, "k") if shift else k), "e")


def scaled_exp(b: Builder, x: Expr, shift: int, factor: float = 1.0) -> tuple[Expr, Expr]:
    """s = 2^(k + shift), at least 2^-126 and finite, and q with e^(factor x) 2^shift = s + s q and
    |q| < 1/2; near 0 q is e^(factor x) - 1. The factor is a power of 2 or its negative."""
    bias = ROUND + 127 + shift  # the exponent of s stands in the low bits, biased
    shifted = b.let(fma(x, like(x, LOG2E * factor), like(x, bias)), "shifted")
    n = b.let(shifted - bias, "n")
    u = fma(n, like(x, -LN2_HIGH / factor), x)
    q = exp_fraction(b, b.let(fma(n, like(x, -LN2_LOW / factor), u), "u"), factor)
    return b.let(from_bits(binary("shl", bits(shifted), 23)), "s"), q


def exp_negative(b: Builder, x: Expr, shift: int = 0) -> Expr:
    """e^x * 2^shift for x <= 0: scaling up first and down by a constant leaves one exponent to
    make."""
    x = b.let(select(compare("lt", x, -105.0), like(x, -105.0), x), "x")
    s, q = scaled_exp(b, x, 32)
    return b.let(fma(s, q, s) * 2.0 ** (shift - 32), "e")


def half_exp(b: Builder, x: Expr) -> Expr:
    """e^x / 2, made to be added to a half: 0 for x below -87, infinite for x above 89.1."""
    # halves have exponents of one step: biased ones are 0 to 255
    s, q = scaled_exp(b, b.let(clamp(x, -87.0, 89.4), "x"), -1)
    return b.let((q + 1.0) * s, "e")


def exp2(b: Builder, x: Expr) -> Expr:
    x = b.let(clamp(x, -160.0, 140.0), "x")
    n, k = nearest(b, x)
    r = b.let((x - n) * LN2, "r")
    return b.let(scale(b, exp_fraction(b, r) + 1.0, k), "e")


def expm1(b: Builder, x: Expr) -> Expr:
    """2 (2^(k-1) (e^r - 1) + (2^(k-1) - 1/2))."""
    t = b.let(clamp(x, -30.0, 89.0), "x")
    r, k = reduce_exp(b, t)
    s = b.let(power_of_two(k - 1), "s")
    y = fma(s, exp_fraction(b, r), s - 0.5) * 2.0
    y = select(compare("ge", x, 89.0), like(x, INF), y)
    return select(compare("eq", x, 0.0), x, y)


def split(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """f and e (both f32) with x = (1 + f) 2^e, sqrt(1/2) <= 1 + f < sqrt(2), for positive finite
    x."""
    small = b.let(compare("lt", x, 2.0**-126), "small")
    word = b.let(bits(select(small, x * 2.0**24, x)) - SQRT_HALF_BITS, "word")
    e = cast(binary("shr", word, 23), f32) - select(small, like(x, 24.0), like(x, 0.0))
    m = from_bits(binary("and", word, 0x7FFFFF) + SQRT_HALF_BITS)
    return b.let(m - 1.0, "f"), b.let(e, "e")


def log_fraction(b: Builder, f: Expr) -> Expr:
    """log(1 + f) - f."""
    ff = b.let(f * f, "ff")
    return b.let(fma(ff * f, horner(b, f, LOG()), ff * -0.5), "t")


def log_domain(x: Expr, y: Expr) -> Expr:
    """`y`, or what a logarithm is at 0, at infinity, below 0 and for NaN."""
    y = select(compare("eq", x, INF), x, y)
    y = select(compare("eq", x, 0.0), like(x, -INF), y)
    return select(compare("ge", x, 0.0), y, like(x, math.nan))


def log(b: Builder, x: Expr) -> Expr:
    f, e = split(b, x)
    t = fma(e, like(x, LN2_LOW), log_fraction(b, f))
    return log_domain(x, b.let(fma(e, like(x, LN2_HIGH), t + f), "y"))


def log2(b: Builder, x: Expr) -> Expr:
    f, e = split(b, x)
    return log_domain(x, e + b.let(times_constant(b, f, log_fraction(b, f), LOG2E), "y"))


def log10(b: Builder, x: Expr) -> Expr:
    f, e = split(b, x)
    high = float.fromhex("0x1.3440p-2")  # 14 bits of log10(2)
    t = times_constant(b, f, log_fraction(b, f), 1 / math.log(10))
    return log_domain(x, fma(e, like(x, high), fma(e, like(x, math.log10(2) - high), t)))


def times_constant(b: Builder, f: Expr, t: Expr, c: float) -> Expr:
    """(f + t) * c with c in two parts, t small against f."""
    high = float.fromhex(float.hex(c)[:7] + "p" + float.hex(c).split("p")[1])
    return b.let(fma(f, like(f, high), fma(f, like(f, c - high), t * c)), "c")


def log1p(b: Builder, x: Expr) -> Expr:
    u = b.let(x + 1.0, "u")
    f, e = split(b, u)
    near = b.let(compare("eq", e, 0.0), "near")  # x itself is the fraction: nothing is lost
    lost = (x - (u - 1.0)) / u
    lost = select(compare("gt", x, 1e7), like(x, 0.0), lost)
    f = b.let(select(near, x, f), "f")
    t = fma(e, like(x, LN2_LOW), log_fraction(b, f) + select(near, like(x, 0.0), lost))
    y = log_domain(u, b.let(fma(e, like(x, LN2_HIGH), t + f), "y"))
    return select(compare("eq", x, 0.0), x, y)


def sigmoid(b: Builder, x: Expr) -> Expr:
    """c/(c + c e^-x) with c = 2^-32: e^105 c is finite, so that results may be denormal, and e^-64
    c is not yet."""
    x = b.let(clamp(x, -105.0, 64.0), "x")
    s, q = scaled_exp(b, x, -32, -1.0)
    return 2.0**-32 / (fma(s, q, like(x, 2.0**-32)) + s)


def tanh(b: Builder, x: Expr) -> Expr:
    """(1 - z)/(1 + z) with z = e^-2a and a = |x|, both rounded once; 1 from a = 9.02 on."""
    a = b.let(magnitude(x), "a")
    a = b.let(select(compare("gt", a, 10.0), like(x, 10.0), a), "a")
    s, q = scaled_exp(b, a, 0, -2.0)
    return binary("copysign", fma(-s, q, 1.0 - s) / fma(s, q, s + 1.0), x)


def sinh(b: Builder, x: Expr) -> Expr:
    """x + x^3 p(x^2) below 1, else h - 1/(4h) with h = e^x/2."""
    a = b.let(magnitude(x), "a")
    z = b.let(x * x, "z")
    small = fma(b.let(x * z, "xz"), horner(b, z, SINH()), x)
    h = exp(b, a, -1)
    return select(compare("lt", a, 1.0), small, binary("copysign", h - 0.25 / h, x))


def cosh(b: Builder, x: Expr) -> Expr:
    h = exp(b, magnitude(x), -1)
    return h + 0.25 / h


def asinh(b: Builder, x: Expr) -> Expr:
    """log(1 + a + a^2/(1 + sqrt(a^2 + 1))), or log(a) + ln 2 for large a."""
    a = b.let(magnitude(x), "a")
    large = b.let(compare("gt", a, 1e6), "large")
    t = b.let(select(large, like(x, 1.0), a), "t")
    small = log1p(b, b.let(t + t * t / (unary("sqrt", t * t + 1.0) + 1.0), "s"))
    y = select(large, log(b, a) + LN2, small)
    return binary("copysign", y, x)


def acosh(b: Builder, x: Expr) -> Expr:
    """log(1 + t + sqrt(2t + t^2)) with t = x - 1, or log(x) + ln 2 for large x."""
    large = b.let(compare("gt", x, 1e6), "large")
    t = b.let(select(large, like(x, 1.0), x - 1.0), "t")
    small = log1p(b, b.let(t + unary("sqrt", fma(t, t, t * 2.0)), "s"))
    y = select(large, log(b, x) + LN2, small)
    return select(compare("lt", x, 1.0), like(x, math.nan), y)


def atanh(b: Builder, x: Expr) -> Expr:
    """log(1 + 2a/(1 - a)) / 2."""
    a = b.let(magnitude(x), "a")
    return binary("copysign", log1p(b, b.let(a * 2.0 / (1.0 - a), "s")) * 0.5, x)


# ---- f64 pieces that f32 functions use where 24 bits are not enough


LOG64_TERMS = tuple(2.0 / (2 * k + 1) for k in range(11))


def log64(b: Builder, x: Expr) -> Expr:
    """log of a positive finite f64 that is not denormal: e ln 2 + 2 artanh((m - 1)/(m + 1)), to ~1
    ulp."""
    wide = KType(i64, x.type.lanes)
    base = Const(0x3FE6A09E667F3BCD, wide)  # sqrt(1/2)
    word = b.let(bits(x) - base, "word")
    e = b.let(cast(cast(binary("shr", word, 52), i32), f64), "e")
    m = b.let(from_bits(binary("and", word, (1 << 52) - 1) + base), "m")
    s = b.let((m - 1.0) / (m + 1.0), "s")
    t = b.let(horner(b, b.let(s * s, "ss"), LOG64_TERMS) * s, "t")
    return b.let(fma(e, like(x, LN2), t), "l")


def power(b: Builder, x: Expr, y: Expr) -> Expr:
    """2^(y log2|x|) with the logarithm in f64; special cases of C99 F.9.4.4."""
    a = b.let(magnitude(x), "a")
    wide = b.let(
        log64(
            b,
            b.let(
                select(
                    binary("and", compare("gt", a, 0.0), compare("lt", a, INF)),
                    cast(a, f64),
                    Const(1.0, KType(f64, x.type.lanes)),
                ),
                "w",
            ),
        )
        * LOG2E,
        "l",
    )
    wide = select(compare("eq", a, INF), like(wide, INF), wide)
    wide = select(compare("eq", a, 0.0), like(wide, -INF), wide)
    t = b.let(clamp(cast(y, f64) * wide, -200.0, 200.0), "t")
    n = b.let(unary("round", t), "n")
    r = b.let(cast((t - n) * LN2, f32), "r")
    _, k = nearest(b, b.let(cast(n, f32), "m"))
    result = b.let(scale(b, exp_fraction(b, r) + 1.0, k), "y")
    result = select(compare("eq", a, 1.0), like(x, 1.0), result)
    return power_cases(b, x, y, b.let(result, "y"))


def power_cases(b: Builder, x: Expr, y: Expr, result: Expr) -> Expr:
    """Sign, NaN and the exact cases around ``|x|^y``."""
    whole = b.let(compare("eq", unary("floor", y), y), "whole")
    odd = binary("and", whole, compare("ne", unary("floor", y * 0.5), y * 0.5))
    negative = b.let(compare("lt", bits(x), 0), "negative")
    result = select(binary("and", negative, odd), unary("neg", result), result)
    outside = binary("and", compare("lt", x, 0.0), unary("not", whole))
    outside = binary("and", outside, compare("ne", x, -INF))
    outside = binary("or", outside, binary("or", unary("isnan", x), unary("isnan", y)))
    result = select(outside, like(x, math.nan), result)
    return select(binary("or", compare("eq", y, 0.0), compare("eq", x, 1.0)), like(x, 1.0), result)
