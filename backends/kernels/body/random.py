"""Random numbers: Philox 4x32-10 in 64-bit integer arithmetic, as ir/ops/random.py specifies it.

A word is a 32-bit number held in an i64, so products of two words are exact and vectorise
everywhere.
"""

from __future__ import annotations

import math

from graphtorch.ir.dtype import DType, f32, f64
from graphtorch.ir.graph import Node
from graphtorch.ir.ops.random import MULTIPLIERS, ROUNDS, WEYL, lanes

from ..builder import Builder
from ..ir import Const, Expr, KType, binary, cast, select, unary

RANDOM = ("random_uniform", "random_normal", "random_int")
LOW = 0xFFFFFFFF


def philox(b: Builder, seed: Expr, block: Expr) -> list[Expr]:
    """The four words of a block: `seed` and `block` are i64."""
    words = [_low(block), _high(block), Const(0), Const(0)]
    keys: list[Expr] = [b.let(_low(seed), "key"), b.let(_high(seed), "key")]
    words = [b.let(w, "w") for w in words]
    for _ in range(ROUNDS):
        first = b.let(binary("mul", words[0], Const(MULTIPLIERS[0])), "w")
        second = b.let(binary("mul", words[2], Const(MULTIPLIERS[1])), "w")
        words = [
            b.let(_xor(_xor(_high(second), words[1]), keys[0]), "w"),
            b.let(_low(second), "w"),
            b.let(_xor(_xor(_high(first), words[3]), keys[1]), "w"),
            b.let(_low(first), "w"),
        ]
        keys = [
            b.let(_low(binary("add", k, Const(w))), "key") for k, w in zip(keys, WEYL, strict=True)
        ]
    return words


def _low(x: Expr) -> Expr:
    return binary("and", x, Const(LOW))


def _high(x: Expr) -> Expr:
    return binary("shr_u", x, Const(32))


def _xor(a: Expr, b: Expr) -> Expr:
    return binary("xor", a, b)


def emit_random(b: Builder, node: Node, seed: Expr, offset: Expr, position: Expr) -> Expr:
    """The element at row-major `position` of one of RANDOM."""
    count = lanes(node.attrs)
    block = b.let(binary("add", offset, binary("div", position, Const(count))), "block")
    words = philox(b, seed, block)
    lane = b.let(binary("rem", position, Const(count)), "lane")
    return b.let(emit_from_words(b, node, words, lane), node.op.name)


def emit_from_words(b: Builder, node: Node, words: list[Expr], lane: Expr) -> Expr:
    """The element that lane `lane` (a constant or not) of a block gives."""
    dtype = node.types[0].dtype
    if node.op.name == "random_normal":
        return _normal(b, dtype, words, lane)
    wide = len(words) // lanes(node.attrs) == 2
    chosen = [_wide(words, 0), _wide(words, 1)] if wide else words
    word = b.let(_pick(chosen, lane), "word")
    if node.op.name == "random_uniform":
        bits = {"f64": 53, "f16": 11, "bf16": 8}.get(dtype.name, 24)
        return cast(_fraction(word, 64 if wide else 32, bits, f64 if wide else f32), dtype)
    return cast(_integer(word, node.attrs.low, node.attrs.high - node.attrs.low, wide), dtype)


def _wide(words: list[Expr], half: int) -> Expr:
    return binary("or", binary("shl", words[2 * half], Const(32)), words[2 * half + 1])


def _pick(choices: list[Expr], lane: Expr) -> Expr:
    if isinstance(lane, Const):
        return choices[int(lane.value)]
    total = choices[-1]
    for i in reversed(range(len(choices) - 1)):
        total = select(binary("eq", lane, Const(i)), choices[i], total)
    return total


def _fraction(word: Expr, width: int, bits: int, dtype: DType, plus: int = 0) -> Expr:
    """The upper `bits` of a word, plus `plus`, as a fraction of 2**bits."""
    top = binary("shr_u", word, Const(width - bits))
    number = cast(top + plus, dtype)
    return binary("mul", number, Const(2.0**-bits, KType(dtype)))


def _integer(word: Expr, low: int, span: int, wide: bool) -> Expr:
    if wide:
        steps = (
            word
            if span == 2**64
            else binary("mulhi_u", word, Const(span - 2**64 if span >= 2**63 else span))
        )
    else:
        steps = word if span == 2**32 else _high(binary("mul", word, Const(span)))
    return binary("add", steps, Const(low))


def _normal(b: Builder, dtype: DType, words: list[Expr], lane: Expr) -> Expr:
    """Box-Muller: even lanes take the cosine, odd ones the sine of their pair."""
    compute = f64 if dtype is f64 else f32
    if compute is f64:
        first, second, width, bits = _wide(words, 0), _wide(words, 1), 64, 53
    else:
        upper = lane // 2
        first, second, width, bits = _pick(words[::2], upper), _pick(words[1::2], upper), 32, 24
    u = _fraction(first, width, bits, compute, plus=1)
    v = _fraction(second, width, bits, compute)
    radius = b.let(
        unary("sqrt", binary("mul", Const(-2.0, KType(compute)), unary("log", u))), "radius"
    )
    angle = b.let(binary("mul", Const(2 * math.pi, KType(compute)), v), "angle")
    odd = lane % 2
    if isinstance(odd, Const):
        wave = unary("sin" if odd.value else "cos", angle)
    else:
        wave = select(binary("eq", odd, Const(0)), unary("cos", angle), unary("sin", angle))
    return cast(binary("mul", radius, wave), dtype)
