"""Random numbers as pure functions of (seed, offset, position): Philox 4x32-10.

Philox is the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011). One *block* turns a 128-bit counter and a 64-bit key into four 32-bit
words w[0..3].

    key     = (seed mod 2**32, seed div 2**32)                  seed as an unsigned 64-bit number
    counter = (n mod 2**32, n div 2**32, 0, 0)                  n = offset + block, mod 2**64

An element at row-major position i takes its words from, with `wide` meaning a 64-bit result:

    narrow  block i div 4, lane i mod 4:      word = w[i mod 4]
    wide    block i div 2, lanes of i mod 2:  word = w[2 * (i mod 2)] * 2**32 + w[2 * (i mod 2) + 1]

    random_uniform  narrow, f32: (word >> 8) * 2**-24; f16: (word >> 21) * 2**-11;
                    bf16: (word >> 24) * 2**-8
                    wide, f64: (word >> 11) * 2**-53
    random_normal   narrow, f32 (f16 and bf16 are rounded from it): i and its neighbour are a pair,
                    words a = w[2 * (i mod 4 div 2)] and b = w[2 * (i mod 4 div 2) + 1] of block
                    i div 4; u = ((a >> 8) + 1) * 2**-24 in (0, 1], v = (b >> 8) * 2**-24 in [0, 1),
                    all in f32; sqrt(-2 log u) * cos(2 pi v) for even i,
                    sqrt(-2 log u) * sin(2 pi v) for odd i
                    f64: u and v from the two wide words of block i div 2, 53 bits each, same
                        formula in f64
    random_int      span = high - low. Narrow where span <= 2**32: low + (word * span >> 32)
                    wide otherwise: low + (word * span >> 64)

So an op consumes `blocks(count, lanes)` blocks, and a generator advances its offset by that much.
"""

from __future__ import annotations

import math

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, f64, i64
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, NoGradient, Op, Weight
from ..shape import Dim, Shape, floordiv
from .batching import entry_by_entry
from .common import REAL_FLOATING, cast_to, check_domain, narrow, ops, quiet, zeros_like

__all__ = ["bernoulli", "random_int", "random_normal", "random_uniform"]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, added to the key every round
MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


# ------------------------------ words


FEW_BLOCKS = 12  # so many are made faster in Python than by calls of NumPy


def philox(seed: int, counters: np.ndarray) -> np.ndarray:
    """The four words of each block: u32 as u64 [n, 4] from counters u64 [n]; `seed` is 64 bits
    wide."""
    if counters.size <= FEW_BLOCKS:
        return np.array([_block(seed, c) for c in counters.tolist()], np.uint64).reshape(-1, 4)
    zero = np.zeros_like(counters)
    words = [counters & MASK, counters >> HALF, zero, zero]
    keys = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32 & 0xFFFFFFFF)]
    for _ in range(ROUNDS):
        first, second = (np.uint64(m) * w for m, w in zip(MULTIPLIERS, words[::2], strict=True))
        words = [
            second >> HALF ^ words[1] ^ keys[0],
            second & MASK,
            first >> HALF ^ words[3] ^ keys[1],
            first & MASK,
        ]
        keys = [np.uint64(int(k) + w & 0xFFFFFFFF) for k, w in zip(keys, WEYL, strict=True)]
    return np.stack(words, axis=-1)


def _block(seed: int, counter: int) -> tuple[int, int, int, int]:
    """One block of `philox`."""
    a, b, c, d = counter & 0xFFFFFFFF, counter >> 32, 0, 0
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b = second >> 32 ^ b ^ low, second & 0xFFFFFFFF
        c, d = first >> 32 ^ d ^ high, first & 0xFFFFFFFF
        low, high = low + WEYL[0] & 0xFFFFFFFF, high + WEYL[1] & 0xFFFFFFFF
    return a, b, c, d


def blocks(count: Dim, lanes: int) -> Dim:
    """Blocks that `count` elements consume: `lanes` is 4 for narrow results and 2 for wide ones."""
    return floordiv(count + (lanes - 1), lanes)


def narrow_words(seed: int, offset: int, count: int) -> np.ndarray:
    """The 32-bit words of elements 0..count, as u64."""
    return _all_words(seed, offset, int(blocks(count, 4)))[:count]


def wide_words(seed: int, offset: int, count: int) -> np.ndarray:
    """The 64-bit words of elements 0..count."""
    pairs = _all_words(seed, offset, int(blocks(count, 2))).reshape(-1, 2)
    return (pairs[:, 0] << HALF | pairs[:, 1])[:count]


def _all_words(seed: int, offset: int, count: int) -> np.ndarray:
    start = np.uint64(offset % 2**64)
    return philox(seed % 2**64, start + np.arange(count, dtype=np.uint64)).reshape(-1)


def lanes(attrs: Attrs) -> int:
    """Elements per block of a random op: 4 where it is narrow, 2 where it is wide."""
    if isinstance(attrs, RandomInt):
        return 4 if attrs.high - attrs.low <= 2**32 else 2
    return 2 if isinstance(attrs, RandomFloat) and attrs.dtype is f64 else 4


# ------------------------------ records


@dataclass(frozen=True)
class RandomFloat(Attrs):
    shape: Shape
    dtype: DType


@dataclass(frozen=True)
class RandomInt(Attrs):
    low: int
    high: int
    shape: Shape
    dtype: DType


NOT_DIFFERENTIABLE = NoGradient("random numbers depend on no floating-point operand")


def check_state(name: str, seed: Type, offset: Type) -> None:
    """Raise where seed or offset is not an i64 scalar."""
    for role, type in (("seed", seed), ("offset", offset)):
        if type is not Type(i64):
            raise RuntimeError(f"{name}: expected {role} to be i64[], got {type}")


def _float_infer(name: str, attrs: RandomFloat, seed: Type, offset: Type) -> tuple[Type, ...]:
    check_state(name, seed, offset)
    check_domain(name, Type(attrs.dtype, attrs.shape), REAL_FLOATING)
    return (Type(attrs.dtype, attrs.shape),)


def _count(shape: Shape) -> int:
    return math.prod(int(d) for d in shape)


def _uniform_reference(attrs: RandomFloat, seed: np.ndarray, offset: np.ndarray) -> np.ndarray:
    count = _count(attrs.shape)
    if attrs.dtype is f64:
        result = (wide_words(int(seed), int(offset), count) >> np.uint64(11)) * 2.0**-53
    else:
        bits = {"f16": 11, "bf16": 8}.get(attrs.dtype.name, 24)
        result = (narrow_words(int(seed), int(offset), count) >> np.uint64(32 - bits)) * 2.0**-bits
    return narrow(result, attrs.dtype).reshape(attrs.shape)


@quiet
def _normal_reference(attrs: RandomFloat, seed: np.ndarray, offset: np.ndarray) -> np.ndarray:
    count = _count(attrs.shape)
    dtype: type[np.floating]
    if attrs.dtype is f64:
        bits, dtype, words = 53, np.float64, wide_words(int(seed), int(offset), count + count % 2)
        words = words >> np.uint64(11)
    else:
        bits, dtype, words = 24, np.float32, narrow_words(int(seed), int(offset), count + count % 2)
        words = words >> np.uint64(8)
    u: np.ndarray = ((words[::2] + np.uint64(1)) * 2.0**-bits).astype(dtype)
    v: np.ndarray = (words[1::2] * 2.0**-bits).astype(dtype)
    radius, angle = np.sqrt(np.log(u) * dtype(-2)), v * dtype(2 * math.pi)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return narrow(pairs.reshape(-1)[:count], attrs.dtype).reshape(attrs.shape)


def int_range(name: str, attrs: RandomInt) -> None:
    """Raise where the bounds of random integers do not fit."""
    if not attrs.dtype.is_integer:
        raise RuntimeError(f"{name}: expected an integer dtype, got {attrs.dtype}; cast the result")
    if attrs.low >= attrs.high:
        raise RuntimeError(
            f"{name} expects 'low' to be less than 'high', but got low={attrs.low} >= "
            f"high={attrs.high}"
        )
    info = np.iinfo(attrs.dtype.numpy)
    if attrs.low < info.min or attrs.high - 1 > info.max:
        raise RuntimeError(
            f"{name}: {attrs.low}..{attrs.high - 1} is out of bounds for {attrs.dtype}, "
            f"which holds {info.min}..{info.max}"
        )


def _int_infer(attrs: RandomInt, seed: Type, offset: Type) -> tuple[Type, ...]:
    check_state("random_int", seed, offset)
    int_range("random_int", attrs)
    return (Type(attrs.dtype, attrs.shape),)


def _high_product(words: np.ndarray, span: int) -> np.ndarray:
    """The upper 64 bits of the 128-bit products words * span, both below 2**64."""
    low, high = np.uint64(span & 0xFFFFFFFF), np.uint64(span >> 32)
    word_low, word_high = words & MASK, words >> HALF
    middle = word_low * high + (word_low * low >> HALF)
    carry = word_high * low + (middle & MASK)
    return word_high * high + (middle >> HALF) + (carry >> HALF)


@quiet
def _int_reference(attrs: RandomInt, seed: np.ndarray, offset: np.ndarray) -> np.ndarray:
    count, span = _count(attrs.shape), attrs.high - attrs.low
    if span <= 2**32:
        steps = narrow_words(int(seed), int(offset), count)
        steps = steps if span == 2**32 else steps * np.uint64(span) >> HALF
    else:
        steps = wide_words(int(seed), int(offset), count)
        steps = steps if span == 2**64 else _high_product(steps, span)
    result = steps + np.uint64(attrs.low % 2**64)  # wraps to the right two's complement
    return result.astype(np.int64).astype(attrs.dtype.numpy).reshape(attrs.shape)


random_uniform = Op(
    "random_uniform",
    "Uniform numbers in [0, 1) with 24 bits (f64: 53, f16: 11, bf16: 8).",
    ("seed", "offset"),
    lambda attrs, *types: _float_infer("random_uniform", attrs, *types),
    NOT_DIFFERENTIABLE,
    _uniform_reference,
    RandomFloat,
    kind=Kind.DRAW,
    weight=Weight.SLOW,
    batch=entry_by_entry,
)
random_normal = Op(
    "random_normal",
    "Normal numbers of mean 0 and variance 1, by the Box-Muller transform.",
    ("seed", "offset"),
    lambda attrs, *types: _float_infer("random_normal", attrs, *types),
    NOT_DIFFERENTIABLE,
    _normal_reference,
    RandomFloat,
    kind=Kind.DRAW,
    weight=Weight.SLOW,
    batch=entry_by_entry,
)
random_int = Op(
    "random_int",
    "Integers evenly spread over low..high, high excluded.",
    ("seed", "offset"),
    _int_infer,
    NOT_DIFFERENTIABLE,
    _int_reference,
    RandomInt,
    kind=Kind.DRAW,
    weight=Weight.SLOW,
    batch=entry_by_entry,
)


# ------------------------------ bernoulli


def _bernoulli_infer(attrs: Attrs, p: Type, unit: Type) -> tuple[Type, ...]:
    check_domain("bernoulli", p, REAL_FLOATING)
    check_domain("bernoulli", unit, REAL_FLOATING)
    if p.shape != unit.shape:
        raise RuntimeError(f"bernoulli: expected unit to have the shape of p, got {unit} and {p}")
    return (p,)


def _bernoulli_decompose(node: Node) -> tuple[Value, ...]:
    p, unit = node.operands
    return (cast_to(ops.lt(unit, cast_to(p, unit.dtype)), p.dtype),)


bernoulli = Op(
    "bernoulli",
    "1 with probability p, else 0: whether a uniform number of [0, 1) is below p, in the number's "
    "dtype.",
    ("p", "unit"),
    _bernoulli_infer,
    lambda node, g: (zeros_like(node.operands[0]), None),
    lambda attrs, p, unit: np.asarray(unit < p.astype(unit.dtype)).astype(p.dtype),
    Attrs,
    _bernoulli_decompose,
    kind=Kind.DRAW,
    weight=Weight.SLOW,
    batch=BY_DECOMPOSITION,
)
