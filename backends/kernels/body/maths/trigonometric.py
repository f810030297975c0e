"""Trigonometric functions and their inverses in f32.

The argument is reduced in f64 by two-part pi/2 with fused multiply-adds, right up to 2^50; beyond,
by 2/pi in parts whose products with a 24-bit number are exact, each taken modulo 4 quadrants at
once (after M. Payne and R. Hanek, *Radian reduction for trigonometric functions*, 1983). No branch,
no table.
"""

from __future__ import annotations

import functools
import math

from graphtorch.ir.dtype import f32, f64

from ...builder import Builder
from ...ir import Const, Expr, binary, cast, fma, select, unary
from .exponentials import bits, clamp, compare, from_bits, like, magnitude, nearest
from .polynomial import fit, horner, odd_tail

HALF_PI = math.pi / 2
HALF_PI_LOW = 6.123233995736766e-17  # pi/2 - HALF_PI
HALF_PI_LOW32 = HALF_PI - 1.57079637050628662109375  # pi/2 - float32(pi/2)
# 256 bits of 2/pi: the hexadecimal expansion, as in every implementation of this reduction
TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561
HUGE = 2.0**50
CHUNK = 28  # bits of a part: 24 + 28 fit in an f64

SIN = functools.cache(lambda: fit(odd_tail(math.sin, -1 / 6), 0.0, 0.62, 3))
COS = functools.cache(lambda: fit(lambda z: -0.5 if z < 1e-7 else _cos_tail(z), 0.0, 0.62, 4))
ASIN = functools.cache(lambda: fit(odd_tail(math.asin, 1 / 6), 0.0, 0.25, 6))
ATAN = functools.cache(lambda: fit(odd_tail(math.atan, -1 / 3), 0.0, 1.0, 10))


def _cos_tail(z: float) -> float:
    """(cos(sqrt(z)) - 1)/z as a series."""
    return sum((-1) ** (k + 1) * z**k / math.factorial(2 * k + 2) for k in range(10))


def _parts() -> list[float]:
    """2/pi / 4 in parts of CHUNK bits, without those that contribute whole turns to numbers >=
    HUGE."""
    # a number >= 2^50 is a multiple of 2^27, so bits of 2/pi above 2^-25 give multiples of 4
    first = 24
    parts = []
    for low in range(first, 128 + 56, CHUNK):
        chunk = (TWO_OVER_PI >> (256 - low - CHUNK)) & ((1 << CHUNK) - 1)
        parts.append(math.ldexp(chunk, -(low + CHUNK) - 2))
    return parts


def reduce_angle(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """r (f32, |r| <= pi/4) and the quadrant (i32, two low bits) with x = quadrant * pi/2 + r."""
    wide = b.let(cast(x, f64), "w")
    q = b.let(unary("round", wide * (2 / math.pi)), "q")
    r = fma(q, like(wide, -HALF_PI), wide, exact=True)
    r = b.let(fma(q, like(wide, -HALF_PI_LOW), r), "r")
    turns = q * 0.25
    quadrant = b.let(fma(unary("round", turns), like(wide, -4.0), q), "q")
    big_q, big_r = reduce_huge(b, wide)
    huge = b.let(compare("ge", magnitude(wide), HUGE), "huge")
    r = b.let(cast(select(huge, big_r, r), f32), "r")
    quadrant = cast(select(huge, big_q, quadrant), f32)
    _, k = nearest(b, b.let(quadrant, "q"))
    return r, k


def reduce_huge(b: Builder, wide: Expr) -> tuple[Expr, Expr]:
    """Quadrant and remainder of |x| >= HUGE, both f64."""
    total: Expr = Const(0.0, wide.type)
    for part in _parts():
        turn = b.let(wide * part, "t")
        total = b.let(total + (turn - unary("round", turn)), "turns")
        total = b.let(total - unary("round", total), "turns")
    quarters = b.let(total * 4.0, "q")
    q = b.let(unary("round", quarters), "q")
    return q, (quarters - q) * HALF_PI


def sin_fraction(b: Builder, r: Expr, z: Expr) -> Expr:
    return b.let(fma(b.let(r * z, "rz"), horner(b, z, SIN()), r), "s")


def cos_fraction(b: Builder, z: Expr) -> Expr:
    return b.let(fma(z, horner(b, z, COS()), like(z, 1.0)), "c")


def sin(b: Builder, x: Expr) -> Expr:
    r, k = reduce_angle(b, x)
    return select(compare("eq", x, 0.0), x, _quadrant(b, r, k))


def cos(b: Builder, x: Expr) -> Expr:
    r, k = reduce_angle(b, x)
    return _quadrant(b, r, b.let(k + 1, "k"))


def _quadrant(b: Builder, r: Expr, k: Expr) -> Expr:
    """sin(k pi/2 + r)."""
    z = b.let(r * r, "z")
    odd = compare("ne", binary("and", k, 1), 0)
    y = select(odd, cos_fraction(b, z), sin_fraction(b, r, z))
    return from_bits(binary("xor", bits(y), binary("shl", binary("and", k, 2), 30)))


def tan(b: Builder, x: Expr) -> Expr:
    r, k = reduce_angle(b, x)
    z = b.let(r * r, "z")
    s, c = sin_fraction(b, r, z), cos_fraction(b, z)
    odd = b.let(compare("ne", binary("and", k, 1), 0), "odd")
    y = select(odd, unary("neg", c), s) / select(odd, s, c)
    return select(compare("eq", x, 0.0), x, y)


def _asin_fraction(b: Builder, s: Expr, z: Expr) -> Expr:
    """asin(s) for s^2 = z <= 1/4."""
    return b.let(fma(b.let(s * z, "sz"), horner(b, z, ASIN()), s), "p")


def _half_angle(b: Builder, x: Expr) -> tuple[Expr, Expr, Expr]:
    """Whether |x| > 1/2, and asin of |x|, or there of sqrt((1 - |x|)/2)."""
    a = b.let(magnitude(x), "a")
    outer = b.let(compare("gt", a, 0.5), "outer")
    z = b.let(select(outer, (1.0 - a) * 0.5, a * a), "z")
    s = b.let(select(outer, unary("sqrt", z), a), "s")
    return a, outer, _asin_fraction(b, s, z)


def asin(b: Builder, x: Expr) -> Expr:
    _, outer, p = _half_angle(b, x)
    big = fma(p, like(x, -2.0), like(x, HALF_PI_LOW32)) + HALF_PI
    return binary("copysign", select(outer, big, p), x)


def acos(b: Builder, x: Expr) -> Expr:
    _, outer, p = _half_angle(b, x)
    negative = b.let(compare("lt", x, 0.0), "negative")
    inner = (HALF_PI_LOW32 - binary("copysign", p, x)) + HALF_PI
    far = select(negative, fma(p, like(x, -2.0), like(x, 2 * HALF_PI_LOW32)) + math.pi, p * 2.0)
    return select(outer, far, inner)


def _atan_fraction(b: Builder, t: Expr) -> Expr:
    """atan(t) for 0 <= t <= 1."""
    z = b.let(t * t, "z")
    return b.let(fma(b.let(t * z, "tz"), horner(b, z, ATAN()), t), "p")


def atan(b: Builder, x: Expr) -> Expr:
    a = b.let(magnitude(x), "a")
    outer = b.let(compare("gt", a, 1.0), "outer")
    p = _atan_fraction(b, b.let(select(outer, 1.0 / a, a), "t"))
    return binary("copysign", select(outer, (HALF_PI_LOW32 - p) + HALF_PI, p), x)


def atan2(b: Builder, y: Expr, x: Expr) -> Expr:
    """Angle of (x, y); signs of zeros and infinities as C99 F.9.1.4."""
    ax, ay = b.let(magnitude(x), "ax"), b.let(magnitude(y), "ay")
    steep = b.let(compare("gt", ay, ax), "steep")
    top, bottom = b.let(select(steep, ax, ay), "top"), b.let(select(steep, ay, ax), "bottom")
    t = select(compare("eq", bottom, 0.0), like(x, 0.0), top / bottom)
    t = b.let(select(compare("eq", top, math.inf), like(x, 1.0), t), "t")
    p = _atan_fraction(b, t)
    p = b.let(select(steep, (HALF_PI_LOW32 - p) + HALF_PI, p), "p")
    left = compare("lt", bits(x), 0)
    p = select(left, (2 * HALF_PI_LOW32 - p) + math.pi, p)
    p = select(binary("or", unary("isnan", x), unary("isnan", y)), like(x, math.nan), p)
    return binary("copysign", p, y)


SINPI64 = functools.cache(
    lambda: tuple((-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(12))
)
COSPI64 = functools.cache(
    lambda: tuple((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k) for k in range(12))
)


def sinpi64(b: Builder, r: Expr) -> Expr:
    """sin(pi r) for an f64 |r| <= 1/2."""
    return b.let(horner(b, b.let(r * r, "rr"), SINPI64()) * r, "s")


def cospi64(b: Builder, r: Expr) -> Expr:
    """cos(pi r) for an f64 |r| <= 1/2."""
    return b.let(horner(b, b.let(r * r, "rr"), COSPI64()), "c")


__all__ = ["acos", "asin", "atan", "atan2", "clamp", "cos", "cospi64", "sin", "sinpi64", "tan"]
