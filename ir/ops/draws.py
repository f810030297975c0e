"""Samples by rejection: gamma, Poisson and binomial numbers.

Each draws a seed of its own from its place in the stream; the tries come from that seed's stream,
so that a draw moves the generator on by the same amount however many tries its elements take.

    gamma     G. Marsaglia, W. Tsang, A simple method for generating gamma variables (2000)
    Poisson   below 10 by inversion; else PTRS of W. Hoermann, The transformed rejection method for
              generating Poisson random variables (1993)
    binomial  below 10 by inversion; else BTRS of W. Hoermann, The generation of binomial random
              variates (1993)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..dtype import f64, i64
from ..graph import Node, Type, Value
from ..op import Attrs, Kind, Op, Weight
from ..shape import broadcast
from .batching import entry_by_entry
from .common import REAL_FLOATING, Expr, check_domain, check_same_dtype, fn, number, ops, zeros_like
from .loops import constant, finite_or, in_f64, reference_of, repeat
from .random import check_state

__all__ = ["binomial", "poisson", "standard_gamma"]

APART = 1 << 40  # counters between the streams of one try
SMALL = 10.0  # means below this go by inversion
MOST_COUNTED = 400.0  # far beyond what numbers of such a mean reach


def _own_seed(seed: Expr, offset: Expr) -> Expr:
    drawn = ops.random_int(
        seed.value, offset.value, low=-(1 << 62), high=1 << 62, shape=(), dtype=i64
    )
    return Expr(drawn)


def _uniform(seed: Expr, counter: Expr, like: Expr) -> Expr:
    """In [0, 1)."""
    return Expr(ops.random_uniform(seed.value, counter.value, shape=like.shape, dtype=f64))


def _counter(start: int) -> Expr:
    return Expr(number(start, i64))


def _tries(
    accept: Callable[..., tuple[Expr, Expr]],
    done: Expr,
    result: Expr,
    seed: Expr,
    fixed: Sequence[Expr],
) -> Expr:
    """`result`, with what is not `done` replaced by the first try that is accepted.

    ``accept(seed, counter, *fixed)`` gives whether the tries are taken, and what they are.
    """

    def step(counter: Expr, done: Expr, result: Expr, seed: Expr, *fixed: Expr) -> list[Expr]:
        taken, value = accept(seed, counter, *fixed)
        return [counter + 2 * APART, done | taken, fn.where(done, result, value)]

    carried = [_counter(APART), done, result]
    return repeat(lambda counter, done, *rest: ~done, step, carried, [seed, *fixed])[2]


def _draw(
    name: str,
    doc: str,
    operands: tuple[str, ...],
    formula: Callable[..., Expr],
    rule: Callable[[Node, Value], Value] | None = None,
) -> Op:
    """An op of parameters of one dtype, seed and offset; `rule` is the gradient of the first
    parameter."""
    count = len(operands)

    def infer(attrs: Attrs, *types: Type) -> tuple[Type, ...]:
        dtype = check_same_dtype(name, *types[:count])
        check_domain(name, types[0], REAL_FLOATING)
        check_state(name, *types[count:])
        return (Type(dtype, broadcast(*[t.shape for t in types[:count]])),)

    def vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
        if rule is not None:
            return rule(node, g), None, None
        return (*(zeros_like(v) for v in node.operands[:count]), None, None)

    def decompose(node: Node) -> tuple[Value, ...]:
        return (in_f64(formula, node, count),)

    made: Op = Op(
        name,
        doc,
        (*operands, "seed", "offset"),
        infer,
        vjp,
        reference_of(decompose, lambda: made),
        Attrs,
        decompose,
        kind=Kind.WHOLE,
        weight=Weight.VERY_SLOW,
        batch=entry_by_entry,
    )
    return made


# ------------------------------ gamma


def _gamma(a: Expr, seed: Expr, offset: Expr) -> Expr:
    """Below a = 1 by a sample of a + 1, times a uniform number to the power of 1 / a."""
    seed = _own_seed(seed, offset)
    usual = (a > 0) & (a < math.inf)
    safe = finite_or(usual, a, 1)
    low = safe < 1
    d = fn.where(low, safe + 1, safe) - 1 / 3

    def accept(seed: Expr, counter: Expr, d: Expr) -> tuple[Expr, Expr]:
        z = Expr(ops.random_normal(seed.value, counter.value, shape=d.shape, dtype=f64))
        u = 1 - _uniform(seed, counter + APART, d)
        root = 1 + z / fn.sqrt(9 * d)
        v = root * root * root
        fits = (v > 0) & (fn.log(u) < 0.5 * z * z + d - d * v + d * fn.log(fn.where(v > 0, v, 1)))
        return fits, d * v

    drawn = _tries(accept, ~usual, constant(a, 0), seed, [d])
    lift = 1 - _uniform(seed, _counter(0), a)
    drawn = fn.where(low, drawn * fn.pow(lift, 1 / safe), drawn)
    return fn.where(usual, drawn, fn.where(fn.eq(a, 0), constant(a, 0), constant(a, math.nan)))


def _gamma_vjp(node: Node, g: Value) -> Value:
    return ops.mul(g, ops.standard_gamma_grad(node.operands[0], node.result()))  # type: ignore[no-any-return]


standard_gamma = _draw(
    "standard_gamma",
    "Samples of the gamma distribution of concentration a and rate 1.",
    ("a",),
    _gamma,
    _gamma_vjp,
)


# ------------------------------ counts


def _by_inversion(
    first: Expr, following: Callable[..., Expr], u: Expr, fixed: Sequence[Expr]
) -> Expr:
    """How many probabilities, `first` being that of 0, have to be added to exceed u.

    ``following(k, *fixed)`` is the quotient of the probabilities of k and of k - 1.
    """

    def step(k: Expr, chance: Expr, total: Expr, u: Expr, *fixed: Expr) -> list[Expr]:
        more = u >= total
        k = fn.where(more, k + 1, k)
        chance = fn.where(more, chance * following(k, *fixed), chance)
        return [k, chance, fn.where(more, total + chance, total)]

    def going(k: Expr, chance: Expr, total: Expr, u: Expr, *fixed: Expr) -> Expr:
        return (u >= total) & (k < MOST_COUNTED)

    return repeat(going, step, [constant(u, 0), first, first], [u, *fixed])[0]


def _squeezed(
    seed: Expr, counter: Expr, a: Expr, b: Expr, center: Expr, fast: Expr
) -> tuple[Expr, Expr, Expr, Expr, Expr]:
    """A try of the transformed rejection: whether it is taken at once, k, whether it may be taken,
    what u' and v are for the exact test."""
    u = _uniform(seed, counter, a) - 0.5
    v = 1 - _uniform(seed, counter + APART, a)
    us = 0.5 - fn.abs(u)
    us = fn.where(us > 0, us, 1e-300)
    k = fn.floor((2 * a / us + b) * u + center)
    at_once = (us >= 0.07) & (v <= fast)
    return at_once, k, (us >= 0.013) | (v <= us), us, v


def _poisson(rate: Expr, seed: Expr, offset: Expr) -> Expr:
    seed = _own_seed(seed, offset)
    usual = (rate > 0) & (rate < math.inf)
    small = usual & (rate < SMALL)
    low = finite_or(small, rate, 0)
    u = fn.where(small, _uniform(seed, _counter(0), rate), 0)
    counted = _by_inversion(fn.exp(-low), lambda k, rate: rate / k, u, [low])
    high = finite_or(usual & ~small, rate, 20)

    def accept(seed: Expr, counter: Expr, rate: Expr) -> tuple[Expr, Expr]:
        b = 0.931 + 2.53 * fn.sqrt(rate)
        a = -0.059 + 0.02483 * b
        at_once, k, may, us, v = _squeezed(
            seed, counter, a, b, rate + 0.43, 0.9277 - 3.6224 / (b - 2)
        )
        scaled = fn.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (us * us) + b))
        whole = fn.where(k < 0, 0, k)
        fits = scaled <= whole * fn.log(rate) - rate - fn.lgamma(whole + 1)
        return (k >= 0) & (at_once | (may & fits)), k

    found = _tries(accept, ~usual | small, counted, seed, [high])
    return fn.where(usual | fn.eq(rate, 0), found, constant(rate, math.nan))


poisson = _draw(
    "poisson",
    "Samples of the Poisson distribution of a rate; NaN for one that is negative.",
    ("rate",),
    _poisson,
)


def _binomial(n: Expr, p: Expr, seed: Expr, offset: Expr) -> Expr:
    """Of the rarer of success and failure."""
    seed = _own_seed(seed, offset)
    known = fn.eq(p, p) & (n < math.inf)
    n_ = finite_or(known & (n > 0), fn.floor(n), 0)
    p_ = fn.maximum(fn.minimum(finite_or(known, p, 0), constant(p, 1)), constant(p, 0))
    often = p_ > 0.5
    q = fn.where(often, 1 - p_, p_)
    small = n_ * q < SMALL
    count, chance = finite_or(small, n_, 0), finite_or(small, q, 0)
    u = _uniform(seed, _counter(0), n)
    counted = _by_inversion(
        fn.exp(count * fn.log1p(-chance)),
        lambda k, n, odds: (n - k + 1) / k * odds,
        fn.where(small & (count > 0) & (chance > 0), u, 0),
        [count, chance / (1 - chance)],
    )
    counted = fn.where(counted > count, count, counted)

    def accept(seed: Expr, counter: Expr, n: Expr, p: Expr) -> tuple[Expr, Expr]:
        spread = fn.sqrt(n * p * (1 - p))
        b = 1.15 + 2.53 * spread
        a = -0.0873 + 0.0248 * b + 0.01 * p
        at_once, k, _, us, v = _squeezed(seed, counter, a, b, n * p + 0.5, 0.92 - 4.2 / b)
        inside = (k >= 0) & (k <= n)
        whole = fn.where(inside, k, 0)
        scaled = fn.log(v * (2.83 + 5.1 / b) * spread / (a / (us * us) + b))
        m = fn.floor((n + 1) * p)
        bound = (
            fn.lgamma(m + 1)
            + fn.lgamma(n - m + 1)
            - fn.lgamma(whole + 1)
            - fn.lgamma(n - whole + 1)
            + (whole - m) * (fn.log(p) - fn.log1p(-p))
        )
        return inside & (at_once | (scaled <= bound)), k

    found = _tries(
        accept, small, counted, seed, [finite_or(~small, n_, 100), finite_or(~small, q, 0.25)]
    )
    found = fn.where(often, n_ - found, found)
    return fn.where(known, found, constant(n, math.nan))


binomial = _draw(
    "binomial",
    "How many of n trials of probability p succeed; p is clipped to 0 .. 1, n at 0.",
    ("n", "p"),
    _binomial,
)
