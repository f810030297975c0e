"""How the 32-bit words of a Mersenne Twister become numbers, as PyTorch makes them on CPUs.

    word64    (first word << 32) | second word
    uniform   f32: (word & (2**24 - 1)) * 2**-24; f64: (word64 & (2**53 - 1)) * 2**-53
    normal    of 16 and more: u[16] at a time, radius = sqrt(-2 log(1 - u[:8])), angle = 2 pi u[8:],
              eight numbers radius * cos(angle), then eight radius * sin(angle); the last 16 from
              words of their own where the count is no multiple of 16
    integer   low + word mod (high - low); of wide ranges word64

All of them are composites: pointwise arithmetic that fuses with what uses the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, f32, f64, i32, i64
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, NoGradient, Op, Weight
from ..shape import Dim, Shape, floordiv, numel
from .checks import attrs_of
from .common import Expr, cast_to, fn, number, ops
from .random import RandomFloat, RandomInt, int_range

__all__ = ["words_to_float", "words_to_integer", "words_to_normal", "words_to_wide"]

NOT_DIFFERENTIABLE = NoGradient("words are integers")
GROUP = 16  # normal numbers made together
WIDE_RANGE = 1 << 28  # integers of so wide a range take two words each


def per_number(dtype: DType) -> int:
    """Words that a uniform or normal number takes."""
    return 2 if dtype is f64 else 1


# ------------------------------ 64 bits


@dataclass(frozen=True)
class Shaped(Attrs):
    shape: Shape


def _check_words(name: str, words: Type, count: Dim) -> None:
    if words != Type(i32, (count,)):
        raise RuntimeError(f"{name}: expected words to be i32[{count}], got {words}")


def _wide_infer(attrs: Shaped, words: Type) -> tuple[Type, ...]:
    _check_words("words_to_wide", words, 2 * numel(attrs.shape))
    return (Type(i64, attrs.shape),)


def _column(words: Value, count: Dim, which: int) -> Value:
    pairs = ops.reshape(words, shape=(count, 2))
    part = ops.slice(pairs, start=(0, which), stop=(count, which + 1), step=(1, 1))
    return ops.cast(ops.reshape(part, shape=(count,)), dtype=i64)  # type: ignore[no-any-return]


def _wide_decompose(node: Node) -> tuple[Value, ...]:
    (words,) = node.operands
    shape = attrs_of(node, Shaped).shape
    count = numel(shape)
    high = ops.shift_left(_column(words, count, 0), number(32, i64))
    low = ops.bitwise_and(_column(words, count, 1), number(0xFFFFFFFF, i64))
    return (ops.reshape(ops.bitwise_or(high, low), shape=shape),)


def _wide_array(words: np.ndarray) -> np.ndarray:
    pairs = words.view(np.uint32).reshape(-1, 2).astype(np.uint64)
    return pairs[:, 0] << np.uint64(32) | pairs[:, 1]


words_to_wide: Op = Op(
    "words_to_wide",
    "Numbers of 64 bits, of two words each.",
    ("words",),
    _wide_infer,
    NOT_DIFFERENTIABLE,
    lambda attrs, words: _wide_array(words).view(np.int64).reshape(attrs.shape),
    Shaped,
    _wide_decompose,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)


# ------------------------------ floats


def _float_infer(attrs: RandomFloat, words: Type) -> tuple[Type, ...]:
    if attrs.dtype not in (f32, f64):
        raise RuntimeError(
            f"words_to_float: expected f32 or f64, got {attrs.dtype}; cast the result"
        )
    _check_words("words_to_float", words, per_number(attrs.dtype) * numel(attrs.shape))
    return (Type(attrs.dtype, attrs.shape),)


def _float_decompose(node: Node) -> tuple[Value, ...]:
    (words,) = node.operands
    attrs = attrs_of(node, RandomFloat)
    shape, dtype = attrs.shape, attrs.dtype
    if dtype is f64:
        whole, bits = ops.words_to_wide(words, shape=shape), 53
    else:
        whole, bits = ops.reshape(words, shape=shape), 24
    kept = ops.cast(ops.bitwise_and(whole, number((1 << bits) - 1, whole.dtype)), dtype=dtype)
    return (ops.mul(kept, number(2.0**-bits, dtype)),)


def _float_array(words: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype is f64:
        return (_wide_array(words) & np.uint64((1 << 53) - 1)) * 2.0**-53
    return ((words & 0xFFFFFF) * 2.0**-24).astype(np.float32)


words_to_float: Op = Op(
    "words_to_float",
    "Uniform numbers in [0, 1): 24 bits in f32, 53 in f64.",
    ("words",),
    _float_infer,
    NOT_DIFFERENTIABLE,
    lambda attrs, words: _float_array(words, attrs.dtype).reshape(attrs.shape),
    RandomFloat,
    _float_decompose,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)


# ------------------------------ normal numbers


@dataclass(frozen=True)
class Normals(Attrs):
    """rest: whether the last 16 are made of words of their own, which come last.
    cephes: whether f32 numbers come of Cephes' series in f32; else the angle is a product in f64,
        and logarithm, cosine and sine are rounded once.
    """

    shape: Shape
    dtype: DType
    rest: bool
    cephes: bool


def normal_words(attrs: Normals, every: bool) -> Dim:
    """Words that `words_to_normal` takes; `every` if those that the rest replaces are drawn,
    too."""
    count = numel(attrs.shape)
    whole = count if every else _whole(count)
    return (whole + GROUP * attrs.rest) * per_number(attrs.dtype)


def _whole(count: Dim) -> Dim:
    return floordiv(count, GROUP) * GROUP


def _normal_infer(attrs: Normals, words: Type) -> tuple[Type, ...]:
    if attrs.dtype not in (f32, f64):
        raise RuntimeError(
            f"words_to_normal: expected f32 or f64, got {attrs.dtype}; cast the result"
        )
    if words.dtype is not i32 or words.shape not in [
        (normal_words(attrs, e),) for e in (True, False)
    ]:
        raise RuntimeError(
            f"words_to_normal: expected i32[{normal_words(attrs, True)}] words, got {words}"
        )
    return (Type(attrs.dtype, attrs.shape),)


def _part(x: Value, start: Dim, stop: Dim) -> Value:
    return ops.slice(x, start=(start,), stop=(stop,), step=(1,))  # type: ignore[no-any-return]


def _pairs(unit: Value, groups: Dim, cephes: bool) -> Value:
    """[16 groups] normal numbers of as many uniform ones."""
    halves = ops.reshape(unit, shape=(groups, 2, GROUP // 2))

    def half(which: int) -> Expr:
        return Expr(
            ops.slice(
                halves, start=(0, which, 0), stop=(groups, which + 1, GROUP // 2), step=(1, 1, 1)
            )
        )

    if unit.dtype is f64:
        radius, angle = fn.sqrt(fn.log(1 - half(0)) * -2), half(1) * (2 * math.pi)
        waves = [fn.cos(angle), fn.sin(angle)]
    elif cephes:
        radius = fn.sqrt(_single_log(1 - half(0)) * -2)
        waves = _single_waves(half(1) * float(np.float32(2 * math.pi)))
    else:
        radius = fn.sqrt(_log(1 - half(0)) * -2)
        turn = Expr(ops.cast(half(1).value, dtype=f64)) * (2 * math.pi)
        waves = _waves(Expr(ops.cast(turn.value, dtype=f32)))
    made = ops.concat(*[ops.product(radius.value, wave.value) for wave in waves], dim=1)
    return ops.reshape(made, shape=(groups * GROUP,))  # type: ignore[no-any-return]


# In f32 the logarithm and the waves are computed in f64, whose vector series are short, and rounded
# once.


def _log(x: Expr) -> Expr:
    """Of f32 in (0, 1]: x = m 2**e with m in 1 / sqrt 2 .. sqrt 2, log m = 2 artanh((m - 1) / (m +
    1))."""
    bits = ops.bitcast(x.value, dtype=i32)
    power = Expr(ops.sub(ops.shift_right(bits, number(23, i32)), number(127, i32)))
    kept = ops.bitwise_or(ops.bitwise_and(bits, number((1 << 23) - 1, i32)), number(127 << 23, i32))
    m = Expr(ops.cast(ops.bitcast(kept, dtype=f32), dtype=f64))
    high = m > math.sqrt(2)
    m = fn.where(high, m * 0.5, m)
    power = Expr(ops.cast(fn.where(high, power + 1, power).value, dtype=f64))
    s = (m - 1) / (m + 1)
    series = _polynomial(s * s, [1 / k for k in range(1, 14, 2)])
    return Expr(ops.cast((s * series * 2 + power * math.log(2)).value, dtype=f32))


def _waves(angle: Expr) -> list[Expr]:
    """Cosine and sine of f32 in 0 .. 2 pi, by their series around the nearest quarter turn."""
    wide = Expr(ops.cast(angle.value, dtype=f64))
    turns = Expr(ops.floor((wide * (2 / math.pi) + 0.5).value))
    low = math.pi / 2
    rest = wide - turns * low - turns * 6.123233995736766e-17  # what pi / 2 is beyond its f64
    square = rest * rest
    sine = rest * _polynomial(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)])
    cosine = _polynomial(square, [(-1) ** k / math.factorial(2 * k) for k in range(8)])
    odd = Expr(ops.bitwise_and(ops.cast(turns.value, dtype=i32), number(1, i32)))

    def wave(even: Expr, uneven: Expr, negative: Expr) -> Expr:
        chosen = fn.where(fn.eq(odd, 0), even, uneven)
        return Expr(ops.cast(fn.where(negative, -chosen, chosen).value, dtype=f32))

    return [
        wave(cosine, sine, fn.eq(turns, 1) | fn.eq(turns, 2)),
        wave(sine, cosine, fn.eq(turns, 2) | fn.eq(turns, 3)),
    ]


# S. Moshier's Cephes library, single precision (logf, sinf, cosf): the same roundings as where
# PyTorch computes with vectors of AVX2, sums and products fused.

LOG_SERIES = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
LOG_2 = (-2.12194440e-4, 0.693359375)  # log 2 in two parts, the smaller first
SINE_SERIES = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COSINE_SERIES = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
EIGHTH = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)  # -pi / 4 in three parts


def _single_log(x: Expr) -> Expr:
    """Of f32 in (0, 1]."""
    bits = ops.bitcast(x.value, dtype=i32)
    power = Expr(ops.sub(ops.shift_right(bits, number(23, i32)), number(126, i32)))
    kept = ops.bitwise_or(ops.bitwise_and(bits, number((1 << 23) - 1, i32)), number(126 << 23, i32))
    m = Expr(ops.bitcast(kept, dtype=f32))  # 1/2 .. 1
    low = m < float(np.float32(0.707106781186547524))
    e = Expr(ops.cast(fn.where(low, power - 1, power).value, dtype=f32))
    m = fn.where(low, m - 1 + m, m - 1)
    z = m * m
    y = fn.muladd(_single_series(m, LOG_SERIES) * m, z, fn.product(e, LOG_2[0]))
    return fn.muladd(e, LOG_2[1], m + fn.muladd(z, -0.5, y))


def _single_waves(angle: Expr) -> list[Expr]:
    """Cosine and sine of f32 in 0 .. 2 pi, by eighths of a turn."""
    eighths = ops.cast((angle * float(np.float32(4 / math.pi))).value, dtype=i32)
    even = ops.bitwise_and(ops.add(eighths, number(1, i32)), number(-2, i32))
    count, x = Expr(ops.cast(even, dtype=f32)), angle
    for part in EIGHTH:
        x = fn.muladd(count, part, x)
    z = x * x
    cosine = fn.muladd(_single_series(z, COSINE_SERIES) * z, z, z * -0.5) + 1
    sine = fn.muladd(_single_series(z, SINE_SERIES) * z, x, x)

    def bit(value: Value, which: int) -> Expr:
        return Expr(ops.ne(ops.bitwise_and(value, number(which, i32)), number(0, i32)))

    swapped = bit(even, 2)
    flipped = ~bit(ops.sub(even, number(2, i32)), 4)
    cos, sin = fn.where(swapped, sine, cosine), fn.where(swapped, cosine, sine)
    return [fn.where(flipped, -cos, cos), fn.where(bit(even, 4), -sin, sin)]


def _single_series(x: Expr, coefficients: Sequence[float]) -> Expr:
    total = fn.muladd(x, coefficients[0], coefficients[1])
    for c in coefficients[2:]:
        total = fn.muladd(total, x, c)
    return total


def _polynomial(x: Expr, coefficients: list[float]) -> Expr:
    total = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * x + c
    return total


def _normal_decompose(node: Node) -> tuple[Value, ...]:
    (words,) = node.operands
    attrs = attrs_of(node, Normals)
    count, per = numel(attrs.shape), per_number(attrs.dtype)
    total = floordiv(words.shape[0], per)
    unit = ops.words_to_float(words, shape=(total,), dtype=attrs.dtype)
    groups = floordiv(count, GROUP)

    def pairs(first: Dim, count: Dim) -> Value:
        return _pairs(_part(unit, first, first + count * GROUP), count, attrs.cephes)

    # the last 16 begin inside a group: that one is by itself, so that the others stay rows
    if attrs.rest:
        cut = groups * GROUP - GROUP
        pieces = [_part(pairs(cut, 1), 0, count - GROUP - cut), pairs(total - GROUP, 1)]
        if groups != 1:
            pieces.insert(0, pairs(0, groups - 1))
        made = ops.concat(*pieces, dim=0)
    else:
        made = pairs(0, groups)
    return (ops.reshape(made, shape=attrs.shape),)


def _fused(x: np.ndarray, y: Any, z: Any) -> np.ndarray:
    return np.asarray(x.astype(np.float64) * np.float32(y) + np.float32(z)).astype(np.float32)


def single_log(x: np.ndarray) -> np.ndarray:
    """Cephes' logf of f32 in (0, 1], sums and products fused."""
    bits = x.view(np.int32)
    m = ((bits & 0x7FFFFF) | 126 << 23).view(np.float32)
    low = m < np.float32(0.707106781186547524)
    e = ((bits >> 23) - 126 - low).astype(np.float32)
    m = np.where(low, m - np.float32(1) + m, m - np.float32(1))
    z = m * m
    y = _fused(single_series(m, LOG_SERIES) * m, z, e * np.float32(LOG_2[0]))
    return _fused(e, LOG_2[1], m + _fused(z, -0.5, y))


def single_waves(angle: np.ndarray) -> list[np.ndarray]:
    """Cephes' cosf and sinf of f32 in 0 .. 2 pi, sums and products fused."""
    even = (angle * np.float32(4 / math.pi)).astype(np.int32) + 1 & ~1
    x = angle
    for part in EIGHTH:
        x = _fused(even.astype(np.float32), part, x)
    z = x * x
    cosine = _fused(single_series(z, COSINE_SERIES) * z, z, z * np.float32(-0.5)) + np.float32(1)
    sine = _fused(single_series(z, SINE_SERIES) * z, x, x)
    swapped = even & 2 != 0
    cos, sin = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    return [np.where(even - 2 & 4 == 0, -cos, cos), np.where(even & 4 != 0, -sin, sin)]


def single_series(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """A polynomial, the highest power's coefficient first."""
    total = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total = _fused(total, x, c)
    return total


def _normal_reference(attrs: Normals, words: np.ndarray) -> np.ndarray:
    count = math.prod(int(d) for d in attrs.shape)
    unit = _float_array(words, attrs.dtype)

    def rounded(x: np.ndarray) -> np.ndarray:
        return x.astype(attrs.dtype.numpy)

    def made(unit: np.ndarray) -> np.ndarray:
        first, second = np.moveaxis(unit.reshape(-1, 2, GROUP // 2), 1, 0)
        if attrs.cephes and attrs.dtype is f32:
            radius = np.sqrt(np.float32(-2) * single_log(1 - first))
            waves = single_waves(second * np.float32(2 * math.pi))
        else:
            radius = np.sqrt(
                rounded(np.log((1 - first).astype(np.float64))) * attrs.dtype.numpy.type(-2)
            )
            angle = rounded(second.astype(np.float64) * (2 * math.pi)).astype(np.float64)
            waves = [rounded(np.cos(angle)), rounded(np.sin(angle))]
        return np.stack([radius * wave for wave in waves], axis=1).reshape(-1)

    found = made(unit[: count // GROUP * GROUP])
    if attrs.rest:
        found = np.concatenate([found[: count - GROUP], made(unit[-GROUP:])])
    return found.reshape(attrs.shape)


words_to_normal: Op = Op(
    "words_to_normal",
    "Normal numbers of mean 0 and variance 1, 16 and more, by Box and Muller's transform.",
    ("words",),
    _normal_infer,
    NOT_DIFFERENTIABLE,
    _normal_reference,
    Normals,
    _normal_decompose,
    kind=Kind.WHOLE,
    weight=Weight.SLOW,
    reference_ns=400.0,
    batch=BY_DECOMPOSITION,
)


# ------------------------------ integers


@dataclass(frozen=True)
class Integers(RandomInt):
    """`wide`: whether each takes two words, as it has to where the range is beyond 32 bits."""

    wide: bool


def _integer_infer(attrs: Integers, words: Type) -> tuple[Type, ...]:
    int_range("words_to_integer", attrs)
    if not attrs.wide and attrs.high - attrs.low > 1 << 32:
        raise RuntimeError(f"words_to_integer: {attrs.low}..{attrs.high} needs wide=True")
    _check_words("words_to_integer", words, (1 + attrs.wide) * numel(attrs.shape))
    return (Type(attrs.dtype, attrs.shape),)


def _integer_decompose(node: Node) -> tuple[Value, ...]:
    (words,) = node.operands
    attrs = attrs_of(node, Integers)
    span = attrs.high - attrs.low
    if not attrs.wide:
        whole = ops.cast(ops.reshape(words, shape=attrs.shape), dtype=i64)
        rest = Expr(
            ops.remainder(ops.bitwise_and(whole, number(0xFFFFFFFF, i64)), number(span, i64))
        )
    else:
        rest = _unsigned_rest(Expr(ops.words_to_wide(words, shape=attrs.shape)), span)
    return (cast_to((rest + _wrapped(attrs.low)).value, attrs.dtype),)


def _wrapped(number: int) -> int:
    """The signed number of the same 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _unsigned_rest(word: Expr, span: int) -> Expr:
    """word mod span, both of 64 bits without a sign."""
    if span == 1 << 64:
        return word
    turned = Expr(number(-(1 << 63), i64))

    def below(a: Expr, b: Expr) -> Expr:
        return Expr(
            ops.lt(ops.bitwise_xor(a.value, turned.value), ops.bitwise_xor(b.value, turned.value))
        )

    divisor = Expr(number(_wrapped(span), i64))
    if span >= 1 << 62:  # at most three times in a word
        for _ in range(-(-(1 << 64) // span) - 1):
            word = fn.where(below(word, divisor), word, word - divisor)
        return word
    half = Expr(
        ops.bitwise_and(ops.shift_right(word.value, number(1, i64)), number((1 << 63) - 1, i64))
    )
    odd = Expr(ops.bitwise_and(word.value, number(1, i64)))
    twice = Expr(ops.remainder(half.value, divisor.value)) * 2 + odd
    return fn.where(twice >= divisor, twice - divisor, twice)


def _integer_reference(attrs: Integers, words: np.ndarray) -> np.ndarray:
    span = attrs.high - attrs.low
    whole = _wide_array(words) if attrs.wide else words.view(np.uint32).astype(np.uint64)
    rest = whole if span == 1 << 64 else whole % np.uint64(span)
    shifted = rest + np.uint64(attrs.low % (1 << 64))
    return shifted.view(np.int64).astype(attrs.dtype.numpy).reshape(attrs.shape)


words_to_integer: Op = Op(
    "words_to_integer",
    "Integers of low..high, high excluded: what is left of a word after division.",
    ("words",),
    _integer_infer,
    NOT_DIFFERENTIABLE,
    _integer_reference,
    Integers,
    _integer_decompose,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)
