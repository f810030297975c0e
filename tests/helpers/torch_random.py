"""PyTorch's random numbers on CPUs, from the seed, in NumPy: an oracle that shares no code with ours.

One MT19937 stream a generator. A 64-bit word is two of 32 bits, the first one above. Found by comparing with
PyTorch 2.13 on a processor that is not Intel's: there ``bernoulli_`` and ``exponential_`` may come from
another library. ``kind`` is "f32", "f64", "f16" or "bf16"; results are in that precision, held wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

WHOLE = ("f32", "f64")
WIDE_RANGE = 1 << 28  # integers of so wide a range take 64-bit words


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """`values` in the precision of `kind`."""
    dtype = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[kind]
    narrow = values if kind == "f64" else np.asarray(values, np.float32)
    return np.asarray(narrow).astype(dtype).astype(np.float64)


class Stream:
    """A generator after ``manual_seed(seed)``."""

    def __init__(self, seed: int):
        self.seed = seed
        self.engine = np.random.RandomState(seed & 0xFFFFFFFF)
        self.kept: float | None = None  # the second normal number of a pair

    def words(self, count: int) -> np.ndarray:
        """The next 32-bit words, as u64."""
        return self.engine.randint(0, 1 << 32, count, dtype=np.uint64)

    def wide_words(self, count: int) -> np.ndarray:
        words = self.words(2 * count)
        return words[0::2] << np.uint64(32) | words[1::2]

    def state(self) -> bytes:
        """As PyTorch lays it out: seed; words left, 1; place of the next word; 624 words of 64 bits; three
        doubles, of which the second is the number kept; whether one is; 12 bytes that are not used."""
        words, place = self.engine.get_state()[1:3]
        begun = np.random.RandomState(self.seed).get_state()[1]
        fresh = place == 624 and np.array_equal(words, begun)
        head = np.array([self.seed], np.uint64).tobytes()
        left = 1 if fresh else 624 - place + 1 if place else 1
        head += np.array([left, 1], np.int32).tobytes()
        head += np.array([0 if fresh else place], np.uint64).tobytes()
        kept = np.array([0.0, self.kept or 0.0, 0.0]).tobytes()
        tail = np.array([self.kept is not None, 0, 0, 0], np.int32).tobytes()
        return head + words.astype(np.uint64).tobytes() + kept + tail

    # -- floats

    def uniform(self, count: int, kind: str = "f32", low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """``uniform_``: one rounding for the product and the sum; 16-bit floats are rounded f32 ones."""
        if kind == "f64":
            unit = (self.wide_words(count) & np.uint64(2**53 - 1)) * 2.0**-53
            if (low, high) == (0.0, 1.0):
                return unit
            span = np.longdouble(high) - np.longdouble(low)
            return np.asarray(unit * span + np.longdouble(low), np.float64)
        unit = (self.words(count) & np.uint64(2**24 - 1)) * 2.0**-24
        low = float(np.float32(low))
        made = rounded(unit * float(np.float32(np.float32(high) - np.float32(low))) + low, kind)
        return np.where(made == high, low, made)  # `high` itself is excluded

    def one_normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        """Box and Muller's pair in f64: the cosine now, the sine at the next call."""
        if self.kept is not None:
            value, self.kept = self.kept, None
        else:
            u, v = self.uniform(2, "f64")
            radius, angle = math.sqrt(-2 * math.log1p(-v)), 2 * math.pi * u
            value, self.kept = radius * math.cos(angle), radius * math.sin(angle)
        return value * std + mean

    def normal(self, count: int, kind: str = "f32", mean: float = 0.0, std: float = 1.0,
               contiguous: bool = True) -> np.ndarray:
        """``normal_``: of 16 and more contiguous numbers eight pairs at a time, the last 16 drawn anew where
        their number is no multiple of 16. In other arrangements in the order of memory, one by one."""
        if count < 16 or not contiguous:
            return rounded(np.array([self.one_normal(mean, std) for _ in range(count)]), kind)
        made = np.zeros(count)
        whole = "f64" if kind == "f64" else "f32"
        words = self.uniform(count, whole) if kind in WHOLE else None  # of these all are drawn at first
        for i in range(0, count - 15, 16):
            unit = self.uniform(16, whole) if words is None else words[i:i + 16]
            made[i:i + 16] = self._pairs(unit, kind, mean, std)
        if count % 16:
            made[count - 16:] = self._pairs(self.uniform(16, whole), kind, mean, std)
        return made

    @staticmethod
    def _pairs(unit: np.ndarray, kind: str, mean: float, std: float) -> np.ndarray:
        real = np.float64 if kind == "f64" else np.float32
        unit = unit.astype(real)
        radius, angle = np.sqrt(real(-2) * np.log(1 - unit[:8])), real(2 * math.pi) * unit[8:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float64)
        return rounded(both * std + mean, kind)

    def exponential(self, count: int, rate: float = 1.0) -> np.ndarray:
        return -1.0 / rate * np.log1p(-self.uniform(count, "f64"))

    def geometric(self, count: int, p: float) -> np.ndarray:
        return np.ceil(np.log(self.uniform(count, "f64")) / np.log1p(-p))

    def cauchy(self, count: int, median: float = 0.0, sigma: float = 1.0) -> np.ndarray:
        return median + sigma * np.tan(np.pi * (self.uniform(count, "f64") - 0.5))

    def log_normal(self, count: int, mean: float = 1.0, std: float = 2.0) -> np.ndarray:
        return np.exp([self.one_normal(mean, std) for _ in range(count)])

    # -- integers

    def integers(self, count: int, low: int, high: int) -> np.ndarray:
        """``randint``."""
        span = high - low
        words = self.wide_words(count) if span >= WIDE_RANGE else self.words(count)
        return (words % np.uint64(span)).astype(np.int64) + low

    def permutation(self, count: int) -> np.ndarray:
        """``randperm``."""
        order = np.arange(count)
        for i, word in enumerate(self.words(max(count - 1, 0)).tolist()):
            j = i + word % (count - i)
            order[i], order[j] = order[j], order[i]
        return order

    # -- chances

    def bernoulli(self, chances: np.ndarray | float, count: int = 0) -> np.ndarray:
        """``bernoulli``: f32 chances are compared with f32 numbers, a number (and dropout) with f64 ones."""
        if isinstance(chances, float):
            return self.uniform(count, "f64") < chances
        kind = "f64" if chances.dtype == np.float64 else "f32"
        return self.uniform(chances.size, kind) < chances.reshape(-1)

    def multinomial(self, weights: np.ndarray, count: int, replacement: bool = False) -> np.ndarray:
        """``multinomial`` of f32 weights [rows, n]; a single draw is made without replacement."""
        if not replacement or count == 1:
            drawn = self.exponential(weights.size).astype(np.float32).reshape(weights.shape)
            return np.argsort(-(weights / drawn), axis=-1, kind="stable")[:, :count]
        rows = []
        for row in weights:
            steps = np.cumsum(row, dtype=np.float32)
            steps = (steps / steps[-1]).astype(np.float32)
            steps[-1] = 1
            rows.append(np.searchsorted(steps, self.uniform(count, "f64"), side="left"))
        return np.array(rows)

    def poisson(self, rate: float) -> int:
        """Products of uniform numbers below 10; then Hörmann's transformed rejection (PTRS, 1993)."""
        def unit() -> float:
            return float(self.uniform(1, "f64")[0])

        if rate < 10:
            return self._few(rate, unit)
        root, log = math.sqrt(rate), math.log(rate)
        b = 0.931 + 2.53 * root
        a = -0.059 + 0.02483 * b
        inverse, limit = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
        while True:
            u, v = unit() - 0.5, unit()
            us = 0.5 - abs(u)
            k = math.floor((2 * a / us + b) * u + rate + 0.43)
            if us >= 0.07 and v <= limit:
                return k
            if k < 0 or (us < 0.013 and v > us):
                continue
            if math.log(v) + math.log(inverse) - math.log(a / (us * us) + b) <= (
                    k * log - rate - math.lgamma(k + 1)):
                return k

    @staticmethod
    def _few(rate: float, unit: Callable[[], float]) -> int:
        if rate == 0:
            return 0
        least, count, product = math.exp(-rate), 0, unit()
        while product > least:
            count += 1
            product *= unit()
        return count

    def gamma(self, alpha: float) -> float:
        """Marsaglia and Tsang's method (2000), raised by one below 1."""
        scale = 1.0
        if alpha < 1:
            scale = (1 - float(self.uniform(1, "f64")[0])) ** (1 / alpha)
            alpha += 1
        d = alpha - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self.one_normal()
            y = 1 + c * x
            if y <= 0:
                continue
            v, u = y**3, 1 - float(self.uniform(1, "f64")[0])
            if u < 1 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + d * (1 - v + math.log(v)):
                return scale * d * v
