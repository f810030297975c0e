"""Complex arithmetic and functions on pairs of real values.

Branch cuts, signed zeros, infinities and NaN follow C99's Annex G, as NumPy and PyTorch have them;
functions whose textbook formula loses digits or overflows use W. Kahan's ("Branch Cuts for Complex
Elementary Functions, or Much Ado About Nothing's Sign Bit", 1987).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..dtype import f32
from ..ops.common import Expr, fn, number

LN2, LN10 = math.log(2), math.log(10)


class Complex(NamedTuple):
    """A complex value: both parts have its real dtype, and shapes that broadcast to its own."""

    re: Expr
    im: Expr

    def plus(self, real: float) -> Complex:
        return Complex(self.re + real, self.im)

    def times(self, real: float | Expr) -> Complex:
        return Complex(self.re * real, self.im * real)

    def turned(self) -> Complex:
        """The product with i."""
        return Complex(-self.im, self.re)

    def turned_back(self) -> Complex:
        """The product with -i."""
        return Complex(self.im, -self.re)


def choose(condition: Expr, x: Complex, y: Complex) -> Complex:
    """x where the condition holds, y elsewhere."""
    return Complex(fn.where(condition, x.re, y.re), fn.where(condition, x.im, y.im))


def _like(value: float, x: Expr) -> Expr:
    return Expr(number(value, x.dtype))


def _is_zero(x: Complex) -> Expr:
    return fn.eq(x.re, 0) & fn.eq(x.im, 0)


# ------------------------------ arithmetic


def mul(x: Complex, y: Complex) -> Complex:
    """Each product rounded by itself, so that x times its conjugate is real to the last bit."""
    return Complex(
        fn.product(x.re, y.re) - fn.product(x.im, y.im),
        fn.product(x.re, y.im) + fn.product(x.im, y.re),
    )


def div(x: Complex, y: Complex) -> Complex:
    """R. L. Smith, "Algorithm 116: Complex division", 1962: scaled by the larger part of y."""
    re, im = fn.abs(y.re), fn.abs(y.im)
    flat = re >= im
    large, small = fn.where(flat, y.re, y.im), fn.where(flat, y.im, y.re)
    ratio = small / large
    scale = 1 / (large + small * ratio)
    found = Complex(
        fn.where(flat, x.re + x.im * ratio, x.re * ratio + x.im) * scale,
        fn.where(flat, x.im - x.re * ratio, x.im * ratio - x.re) * scale,
    )
    return choose(_is_zero(y), Complex(x.re / re, x.im / re), found)


def modulus(x: Complex) -> Expr:
    return fn.hypot(x.re, x.im)


def argument(x: Complex) -> Expr:
    return fn.atan2(x.im, x.re)


def sign(x: Complex) -> Complex:
    size = modulus(x)
    zero = fn.eq(size, 0)
    found = div(x, Complex(fn.where(zero, 1, size), _like(0.0, size)))
    return Complex(fn.where(zero, 0, found.re), fn.where(zero, 0, found.im))


# ------------------------------ exp, log, powers


def exp(x: Complex) -> Complex:
    """In two factors: where e to the real part overflows, its product with a sine may not."""
    limit = _like(88.0 if x.re.dtype is f32 else 709.0, x.re)
    large = x.re > limit
    size = fn.exp(fn.where(large, limit, x.re))
    rest = fn.where(large, fn.exp(x.re - limit), 1)
    empty = fn.eq(x.re, -math.inf)  # e to -inf is 0 whatever the angle
    re = fn.where(empty, 0, _endless(x, size * fn.cos(x.im) * rest))
    im = fn.where(empty, 0, size * fn.sin(x.im) * rest)
    return Complex(re, fn.where(fn.eq(x.im, 0), x.im, im))


def log(x: Complex) -> Complex:
    """Near |x| = 1 from how far it is from 1, which a logarithm of |x| would lose."""
    a, b = fn.abs(x.re), fn.abs(x.im)
    large, small = fn.maximum(a, b), fn.minimum(a, b)
    near = fn.log1p((large - 1) * (large + 1) + small * small) * 0.5
    size = modulus(x)
    return Complex(fn.where((size > 0.5) & (size < 2.0), near, fn.log(size)), argument(x))


def expm1(x: Complex) -> Complex:
    half = fn.sin(x.im * 0.5)
    return Complex(fn.expm1(x.re) * fn.cos(x.im) - 2 * half * half, fn.exp(x.re) * fn.sin(x.im))


def sqrt(x: Complex) -> Complex:
    """Scaled where the sum inside would overflow, or would lose digits below the normal numbers."""
    single = x.re.dtype is f32
    top, bottom, power = (
        (2.0**125, 2.0**-100, 2.0**48) if single else (2.0**1021, 2.0**-900, 2.0**200)
    )
    most, one = fn.fmax(fn.abs(x.re), fn.abs(x.im)), _like(1.0, x.re)
    scaled = x.times(fn.where(most > top, 0.25, fn.where(most < bottom, power, one)))
    back = fn.where(most > top, 2.0, fn.where(most < bottom, power**-0.5, one))
    root = fn.sqrt((fn.abs(scaled.re) + modulus(scaled)) * 0.5)
    other = fn.where(fn.eq(root, 0), scaled.im, scaled.im / (2 * root))
    right = Complex(root, other)
    left = Complex(fn.abs(other), fn.copysign(root, scaled.im))
    found = choose(scaled.re < 0, left, right).times(back)
    endless = fn.isinf(x.im)
    return Complex(fn.where(endless, fn.abs(x.im), found.re), fn.where(endless, x.im, found.im))


def reciprocal(x: Complex) -> Complex:
    one = _like(1.0, x.re)
    return div(Complex(one, _like(0.0, one)), x)


def pow(x: Complex, y: Complex) -> Complex:
    zero, none = _is_zero(x), _is_zero(y)
    found = exp(mul(y, log(x)))
    of_zero = fn.where((y.re > 0) & fn.eq(y.im, 0), 0, _like(math.nan, y.re))
    return Complex(
        fn.where(none, 1, fn.where(zero, of_zero, found.re)),
        fn.where(none, 0, fn.where(zero, of_zero, found.im)),
    )


def whole_power(x: Complex, exponent: int) -> Complex:
    """x times itself, by squaring; `exponent` is not 0."""
    result, power, left = None, x, abs(exponent)
    while left:
        if left & 1:
            result = power if result is None else mul(result, power)
        left >>= 1
        power = mul(power, power) if left else power
    assert result is not None
    return result if exponent > 0 else reciprocal(result)


def sigmoid(x: Complex) -> Complex:
    return reciprocal(exp(Complex(-x.re, -x.im)).plus(1))


# ------------------------------ circular and hyperbolic functions


def sinh(x: Complex) -> Complex:
    re = fn.where(fn.eq(x.re, 0), x.re, _endless(x, fn.sinh(x.re) * fn.cos(x.im)))
    im = fn.where(fn.eq(x.im, 0), x.im, fn.cosh(x.re) * fn.sin(x.im))
    return Complex(re, im)


def cosh(x: Complex) -> Complex:
    im = fn.sinh(x.re) * fn.sin(x.im)
    flat = fn.eq(x.re, 0) | fn.eq(x.im, 0)
    signed = fn.copysign(_like(1.0, x.re), x.re) * fn.copysign(fn.where(flat, 0, x.im), x.im)
    return Complex(_endless(x, fn.cosh(x.re) * fn.cos(x.im)), fn.where(flat, signed, im))


def _endless(x: Complex, re: Expr) -> Expr:
    """The real part of sinh and cosh: infinite where that of x is, even where there is no angle."""
    return fn.where(fn.isinf(x.re) & ~fn.isfinite(x.im), fn.abs(x.re), re)


def tanh(x: Complex) -> Complex:
    """Kahan's, without overflow; far out it is 1 but for a vanishing imaginary part."""
    tan, sinh = fn.tan(x.im), fn.sinh(x.re)
    beta, rho = tan * tan + 1, fn.sqrt(sinh * sinh + 1)
    below = beta * sinh * sinh + 1
    endless = fn.isinf(tan)
    near = Complex(
        fn.where(endless, rho / sinh, beta * rho * sinh / below),
        fn.where(endless, 1 / tan, tan / below),
    )
    small = 4 * fn.sin(x.im) * fn.cos(x.im) * fn.exp(-2 * fn.abs(x.re))
    bounded = fn.where(fn.isinf(x.re), fn.copysign(_like(0.0, x.re), fn.sin(2 * x.im)), small)
    one = fn.where(fn.isinf(x.re) | fn.isfinite(x.im), _like(1.0, x.re), math.nan)
    far = Complex(fn.copysign(one, x.re), bounded)
    found = choose(fn.abs(x.re) > (11.0 if x.re.dtype is f32 else 22.0), far, near)
    return Complex(
        fn.where(fn.eq(x.re, 0), x.re, found.re), fn.where(fn.eq(x.im, 0), x.im, found.im)
    )


def _huge(x: Complex) -> Expr:
    return fn.fmax(fn.abs(x.re), fn.abs(x.im)) > (1e17 if x.re.dtype is f32 else 1e150)


def _roots(x: Complex) -> tuple[Complex, Complex]:
    """sqrt(1 - x) and sqrt(1 + x), on the side of the cut that the sign of a zero tells."""
    return sqrt(Complex(1 - x.re, -x.im)), sqrt(Complex(1 + x.re, x.im))


def _far_log(x: Complex) -> Expr:
    """log(2 |x|) of a large x."""
    return fn.log(modulus(x.times(0.5))) + 2 * LN2


def asin(x: Complex) -> Complex:
    minus, plus = _roots(x)
    near = Complex(
        fn.atan2(x.re, minus.re * plus.re - minus.im * plus.im),
        fn.asinh(minus.re * plus.im - minus.im * plus.re),
    )
    far = Complex(fn.atan2(x.re, fn.abs(x.im)), fn.copysign(_far_log(x), x.im))
    return choose(_huge(x), far, near)


def acos(x: Complex) -> Complex:
    minus, plus = _roots(x)
    near = Complex(
        2 * fn.atan2(minus.re, plus.re), fn.asinh(plus.re * minus.im - plus.im * minus.re)
    )
    far = Complex(fn.atan2(fn.abs(x.im), x.re), -fn.copysign(_far_log(x), x.im))
    return choose(_huge(x), far, near)


def acosh(x: Complex) -> Complex:
    minus, plus = sqrt(x.plus(-1)), sqrt(x.plus(1))
    near = Complex(
        fn.asinh(minus.re * plus.re + minus.im * plus.im), 2 * fn.atan2(minus.im, plus.re)
    )
    return choose(_huge(x), Complex(_far_log(x), argument(x)), near)


def atanh(x: Complex) -> Complex:
    """On the right half plane, from where it is odd."""
    re = fn.abs(x.re)
    beside = 1 - re
    apart = fn.hypot(beside, x.im)
    close = apart < (1e-10 if x.re.dtype is f32 else 1e-100)  # whose square vanishes
    size = fn.where(close, (LN2 - fn.log(apart)) * 0.5, fn.log1p(4 * re / (apart * apart)) * 0.25)
    near = Complex(
        fn.copysign(size, x.re), fn.atan2(2 * x.im, beside * (1 + re) - x.im * x.im) * 0.5
    )
    quarter = fn.copysign(_like(math.pi / 2, x.re), x.im)
    lost = fn.isnan(x.im)
    nothing = fn.where(lost & ~fn.isinf(x.re), math.nan, _like(0.0, x.re))
    far = Complex(fn.copysign(nothing, x.re), fn.where(lost, x.im, quarter))
    return choose(_huge(x), far, near)


FUNCTIONS = {
    "sign": sign,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "sqrt": sqrt,
    "sigmoid": sigmoid,
    "reciprocal": reciprocal,
    "rsqrt": lambda x: reciprocal(sqrt(x)),
    "square": lambda x: mul(x, x),
    "exp2": lambda x: exp(x.times(LN2)),
    "log1p": lambda x: log(x.plus(1)),
    "log2": lambda x: log(x).times(1 / LN2),
    "log10": lambda x: log(x).times(1 / LN10),
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "asin": asin,
    "acos": acos,
    "acosh": acosh,
    "atanh": atanh,
    "sin": lambda x: sinh(x.turned()).turned_back(),
    "cos": lambda x: cosh(x.turned()),
    "tan": lambda x: tanh(x.turned()).turned_back(),
    "asinh": lambda x: asin(x.turned()).turned_back(),
    "atan": lambda x: atanh(x.turned()).turned_back(),
}
