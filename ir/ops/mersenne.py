"""Random numbers one after another: the Mersenne Twister, with PyTorch's use of it on CPUs.

M. Matsumoto, T. Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform
pseudo-random number generator" (1998): MT19937, 32-bit words. A generator's *state* is a value,
i64[632], laid out as the 5,056 bytes of `torch.Generator.get_state` are (little-endian):

    0        the seed
    1        32 bits: words left of this block, plus 1 (1: the next word begins a new block);
             32 bits: 1
    2        the place of the next word in the block
    3..626   the 624 words of the block, 64 bits each
    627..629 three f64, of which the second is the normal number kept for the next call
    630      32 bits: whether one is kept
    631      not used

Every op takes a state and gives, after its other results, the next one. `mersenne_words` is for all
draws that take a known number of words; the others take as many as it turns out. How words become
numbers is said in `words.py`.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import f64, i32, i64
from ..graph import Type, Value
from ..op import Attrs, Kind, NoGradient, Op, Weight
from ..shape import Shape
from .batching import entry_by_entry
from .common import ops, zeros_like

__all__ = [
    "mersenne_binomial",
    "mersenne_gamma",
    "mersenne_normals",
    "mersenne_poisson",
    "mersenne_skip",
    "mersenne_words",
    "permutation",
]

WORDS = 624  # of a block
STATE_TYPE = Type(i64, (632,))
LEFT, PLACE, BLOCK, KEPT, IS_KEPT = 1, 2, 3, 628, 630  # places in a state
SEEDED = 1 << 32  # the upper half of state[LEFT]
FRESH = NoGradient("random numbers depend on no floating-point operand")


def seeded_state(seed: int) -> np.ndarray:
    """The state after ``manual_seed(seed)``; the words depend on its lower 32 bits."""
    state = np.zeros(STATE_TYPE.shape, np.int64)
    state[0] = np.uint64(seed % (1 << 64)).astype(np.int64)
    state[LEFT] = SEEDED | 1
    engine = _engine()
    engine.twister._legacy_seeding(seed & 0xFFFFFFFF)
    state[BLOCK : BLOCK + WORDS], _ = engine.read()
    return state


# ------------------------------ references


_engines = threading.local()  # making one of NumPy's costs more than most draws


class _Twister:
    """One of NumPy's generators, and its block and place, where they lie in memory as its sources
    say: by its `state` they are exchanged in a hundred times as long."""

    def __init__(self) -> None:
        self.twister = np.random.MT19937(0)
        raw: Any = (ctypes.c_uint32 * (WORDS + 1)).from_address(self.twister.ctypes.state_address)
        self._memory = np.frombuffer(raw, np.uint32)
        self.twister.random_raw(3)
        key, place = self._said()
        self._known = bool(np.array_equal(self._memory, [*key, place]))

    def _said(self) -> tuple[np.ndarray, int]:
        inner = self.twister.state["state"]
        return inner["key"], int(inner["pos"])

    def read(self) -> tuple[np.ndarray, int]:
        """The words of the block, and the place of the next one."""
        return (self._memory[:WORDS], int(self._memory[WORDS])) if self._known else self._said()

    def write(self, block: np.ndarray, place: int) -> None:
        if self._known:
            self._memory[:WORDS], self._memory[WORDS] = block, place
            return
        self.twister.state = {
            "bit_generator": "MT19937",
            "state": {"key": block.astype(np.uint32), "pos": place},
        }


def _engine() -> _Twister:
    found = getattr(_engines, "engine", None)
    if found is None:
        found = _engines.engine = _Twister()
    return found


class Engine:
    """A generator that goes on from `state`; one at a time in a thread."""

    def __init__(self, state: np.ndarray):
        self.begun = state
        self.engine = _engine()
        fresh = state[LEFT] & 0xFFFFFFFF == 1
        # a state that somebody made up stays inside the block
        place = WORDS if fresh else min(max(int(state[PLACE]), 0), WORDS)
        self.engine.write(state[BLOCK : BLOCK + WORDS], place)
        self.drawn = False
        self.kept = (
            float(state[KEPT : KEPT + 1].view(np.float64)[0]) if state[IS_KEPT] & 0xFF else None
        )

    def words(self, count: int) -> np.ndarray:
        """The next 32-bit words, as u64."""
        self.drawn |= count > 0
        return np.asarray(self.engine.twister.random_raw(count), np.uint64)

    def unit(self) -> float:
        """In [0, 1) with 53 bits."""
        first, second = self.words(2).tolist()
        return (((first << 32) | second) & ((1 << 53) - 1)) * 2.0**-53

    def normal(self) -> float:
        """Box and Muller's pair: the cosine now, the sine is kept for the next call."""
        if self.kept is not None:
            value, self.kept = self.kept, None
            return value
        u, v = self.unit(), self.unit()
        radius, angle = math.sqrt(-2 * math.log1p(-v)), 2 * math.pi * u
        self.kept = radius * math.sin(angle)
        return radius * math.cos(angle)

    def state(self) -> np.ndarray:
        state = self.begun.copy()
        if self.drawn:
            state[BLOCK : BLOCK + WORDS], place = self.engine.read()
            place = place or WORDS
            state[PLACE] = place
            state[LEFT] = SEEDED | (WORDS + 1 - place)
        state[IS_KEPT] = self.kept is not None
        state[KEPT : KEPT + 1] = np.array([self.kept or 0.0]).view(np.int64)
        return state


@dataclass(frozen=True)
class Drawn(Attrs):
    """Attrs of a draw of a given shape."""

    shape: Shape


def _count(shape: Shape) -> int:
    return math.prod(int(d) for d in shape)


def check_state(name: str, state: Type) -> None:
    """Raise where `state` is not one."""
    if state != STATE_TYPE:
        raise RuntimeError(f"{name}: expected a generator's state, {STATE_TYPE}, got {state}")


def _words_infer(attrs: Drawn, state: Type) -> tuple[Type, ...]:
    check_state("mersenne_words", state)
    return Type(i32, attrs.shape), state


def _words_reference(attrs: Drawn, state: np.ndarray) -> tuple[np.ndarray, ...]:
    engine = Engine(state)
    words = engine.words(_count(attrs.shape)).astype(np.uint32).view(np.int32)
    return words.reshape(attrs.shape), engine.state()


mersenne_words: Op = Op(
    "mersenne_words",
    "The next 32-bit words of a generator, and its state after them.",
    ("state",),
    _words_infer,
    FRESH,
    _words_reference,
    Drawn,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=entry_by_entry,
)


def _skip_infer(attrs: Attrs, state: Type, count: Type) -> tuple[Type, ...]:
    check_state("mersenne_skip", state)
    if count != Type(i64):
        raise RuntimeError(f"mersenne_skip: expected count to be i64[], got {count}")
    return (state,)


def _skip_reference(attrs: Attrs, state: np.ndarray, count: np.ndarray) -> np.ndarray:
    engine = Engine(state)
    engine.words(int(count))
    return engine.state()


mersenne_skip: Op = Op(
    "mersenne_skip",
    "A generator's state after `count` more words.",
    ("state", "count"),
    _skip_infer,
    FRESH,
    _skip_reference,
    Attrs,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=entry_by_entry,
)


def _normals_infer(attrs: Drawn, state: Type) -> tuple[Type, ...]:
    check_state("mersenne_normals", state)
    return Type(f64, attrs.shape), state


def _normals_reference(attrs: Drawn, state: np.ndarray) -> tuple[np.ndarray, ...]:
    engine = Engine(state)
    made = np.array([engine.normal() for _ in range(_count(attrs.shape))], np.float64)
    return made.reshape(attrs.shape), engine.state()


mersenne_normals: Op = Op(
    "mersenne_normals",
    "Normal numbers of mean 0 and variance 1, one by one; the second of a pair may be kept in the "
    "state.",
    ("state",),
    _normals_infer,
    FRESH,
    _normals_reference,
    Drawn,
    kind=Kind.WHOLE,
    weight=Weight.VERY_SLOW,
    reference_ns=2500.0,
    batch=entry_by_entry,
)


# ------------------------------ samples by rejection


@dataclass(frozen=True)
class Precision(Attrs):
    """`single`: whether what is computed of the parameters alone is rounded to f32, as for f32
    numbers."""

    single: bool


def _sampler(
    name: str,
    doc: str,
    operands: tuple[str, ...],
    sample: Callable[..., float],
    rule: Callable[..., Value] | None = None,
) -> Op:
    """An op that draws an f64 for each element of its f64 operands, in their order.

    ``sample(engine, single, *numbers)`` is one of them; ``rule(node, g)`` the gradient of the first
    operand.
    """

    def infer(attrs: Precision, *types: Type) -> tuple[Type, ...]:
        *numbers, state = types
        check_state(name, state)
        for operand, type in zip(operands, numbers, strict=True):
            if type.dtype is not f64 or type.shape != numbers[0].shape:
                raise RuntimeError(
                    f"{name}: expected {operand} to be f64 of shape "
                    f"{list(numbers[0].shape)}, got {type}"
                )
        return numbers[0], state

    def reference(attrs: Precision, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        *numbers, state = arrays
        engine = Engine(state)
        rows = zip(*[n.reshape(-1).tolist() for n in numbers], strict=True)
        made = np.array([sample(engine, attrs.single, *row) for row in rows], np.float64)
        return made.reshape(numbers[0].shape), engine.state()

    def vjp(node: Any, g: Value, *states: Value) -> tuple[Value | None, ...]:
        first = zeros_like(node.operands[0]) if rule is None else rule(node, g)
        return (first, *(zeros_like(v) for v in node.operands[1:-1]), None)

    return Op(
        name,
        doc,
        (*operands, "state"),
        infer,
        vjp,
        reference,
        Precision,
        kind=Kind.WHOLE,
        weight=Weight.VERY_SLOW,
        reference_ns=5000.0,
        batch=entry_by_entry,
    )


# As PyTorch has them, in single precision
THIRD, SQUEEZE = float(np.float32(1) / np.float32(3)), float(np.float32(0.0331))


def _gamma(engine: Engine, single: bool, alpha: float) -> float:
    """G. Marsaglia, W. Tsang, A simple method for generating gamma variables (2000)."""
    if not 0 < alpha < math.inf:
        return 0.0 if alpha == 0 else math.nan
    rounded: Callable[[float], float] = (lambda x: float(np.float32(x))) if single else float
    scale = 1.0
    if alpha < 1:
        scale = (1 - engine.unit()) ** rounded(1 / alpha)
        alpha = rounded(alpha + 1)
    d = rounded(alpha - THIRD)
    c = 1 / math.sqrt(9 * d)
    while True:
        x = engine.normal()
        y = 1 + c * x
        if y <= 0:
            continue
        v, u, square = y * y * y, 1 - engine.unit(), x * x
        if u < 1 - SQUEEZE * square * square or math.log(u) < 0.5 * square + d * (
            1 - v + math.log(v)
        ):
            return scale * d * v


mersenne_gamma: Op = _sampler(
    "mersenne_gamma",
    "Samples of the gamma distribution of concentration alpha and rate 1.",
    ("alpha",),
    _gamma,
    lambda node, g: ops.mul(g, ops.standard_gamma_grad(node.operands[0], node.results()[0])),
)


def _poisson(engine: Engine, single: bool, rate: float) -> float:
    """Products of uniform numbers below 10; from there PTRS of W. Hoermann, The transformed
    rejection method for generating Poisson random variables (1993)."""
    if not 0 <= rate < math.inf:
        return math.nan
    if rate < 10:
        return _few(engine, rate)
    root, log = math.sqrt(rate), math.log(rate)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse, limit = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = engine.unit() - 0.5, engine.unit()
        us = 0.5 - abs(u)
        k = _floor((2 * a / us + b) * u + rate + 0.43)
        if us >= 0.07 and v <= limit:
            return k
        if k < 0 or (us < 0.013 and v > us):
            continue
        if _log(v) + math.log(inverse) - math.log(
            a / (us * us) + b
        ) <= k * log - rate - math.lgamma(k + 1):
            return k


def _floor(x: float) -> float:
    return float(np.floor(x))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _few(engine: Engine, rate: float) -> float:
    if rate == 0:
        return 0.0
    least, count, product = math.exp(-rate), 0, engine.unit()
    while product > least:
        count += 1
        product *= engine.unit()
    return float(count)


mersenne_poisson: Op = _sampler(
    "mersenne_poisson", "Samples of the Poisson distribution of a rate.", ("rate",), _poisson
)

# k! = sqrt(2 pi) (k + 1)**(k + 1/2) exp(-k - 1 + tail): of Stirling's series, for k below 10
STIRLING_TAILS = (
    0.0810614667953272,
    0.0413406959554092,
    0.0276779256849983,
    0.02079067210376509,
    0.0166446911898211,
    0.0138761288230707,
    0.0118967099458917,
    0.0104112652619720,
    0.00925546218271273,
    0.00833056343336287,
)


def _tail(k: float) -> float:
    if k <= 9:
        return STIRLING_TAILS[int(k)]
    square = (k + 1) * (k + 1)
    return (1 / 12 - (1 / 360 - 1 / 1260 / square) / square) / (k + 1)


def _binomial(engine: Engine, single: bool, count: float, chance: float) -> float:
    """Of the rarer of success and failure: below a mean of 10 the lengths of runs are added up;
    from there BTRS of W. Hoermann, The generation of binomial random variates (1993)."""
    if math.isnan(count) or math.isnan(chance):
        return math.nan
    if count <= 0 or chance <= 0:
        return 0.0
    if chance >= 1:
        return count
    rare = chance if chance <= 0.5 else 1 - chance
    found = (_rejected if count * rare >= 10 else _runs)(engine, count, rare)
    return found if chance <= 0.5 else count - found


def _runs(engine: Engine, count: float, chance: float) -> float:
    total, found, log = 0.0, 0.0, math.log1p(-chance)
    while True:
        total += -_floor(-(_log(engine.unit()) / log))
        if total > count:
            return found
        found += 1


def _rejected(engine: Engine, count: float, chance: float) -> float:
    spread = math.sqrt(count * chance * (1 - chance))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * chance
    limit, odds, alpha = 0.92 - 4.2 / b, chance / (1 - chance), (2.83 + 5.1 / b) * spread
    m = math.floor((count + 1) * chance)
    while True:
        u, v = engine.unit() - 0.5, engine.unit()
        us = 0.5 - abs(u)
        k = _floor((2 * a / us + b) * u + count * chance + 0.5)
        if us >= 0.07 and v <= limit:
            return k
        if k < 0 or k > count:
            continue
        bound = (
            (m + 0.5) * math.log((m + 1) / (odds * (count - m + 1)))
            + (count + 1) * math.log((count - m + 1) / (count - k + 1))
            + (k + 0.5) * math.log(odds * (count - k + 1) / (k + 1))
            + _tail(m)
            + _tail(count - m)
            - _tail(k)
            - _tail(count - k)
        )
        if _log(v * alpha / (a / (us * us) + b)) <= bound:
            return k


mersenne_binomial: Op = _sampler(
    "mersenne_binomial",
    "How many of `count` trials of probability `chance` succeed.",
    ("count", "chance"),
    _binomial,
)


# ------------------------------ permutations


def _permutation_infer(attrs: Attrs, words: Type) -> tuple[Type, ...]:
    if words.rank != 1 or words.dtype not in (i32, i64):
        raise RuntimeError(f"permutation: expected words to be i32[n] or i64[n], got {words}")
    return (Type(i64, (words.shape[0] + 1,)),)


def _permutation_reference(attrs: Attrs, words: np.ndarray) -> np.ndarray:
    count = words.size + 1
    order = list(range(count))
    unsigned = words.view(np.uint32 if words.dtype == np.int32 else np.uint64)
    for i, word in enumerate(unsigned.tolist()):
        j = i + word % (count - i)
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)


permutation: Op = Op(
    "permutation",
    "The numbers 0 .. n in random order by n unsigned words: place i changes with i + word mod (n "
    "+ 1 - i).",
    ("words",),
    _permutation_infer,
    FRESH,
    _permutation_reference,
    Attrs,
    kind=Kind.WHOLE,
    weight=Weight.SLOW,
    reference_ns=150.0,
    batch=entry_by_entry,
)
