"""What generators draw from: PyTorch's Mersenne Twister, or the counter-based Philox.

Methods take a generator and give values; they agree on what is drawn, not on the numbers. ``dense``
says that the numbers go to a contiguous tensor, which PyTorch fills with normal numbers in another
way.
"""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.ops import mersenne, words
from graphtorch.ir.ops.common import number
from graphtorch.ir.shape import SymInt, bounds, broadcast, numel

from .._ops.base import scalar


class Drawing(Protocol):
    """What a stream needs of a generator."""

    def advance(self, step: Any) -> Value: ...


class Stream(ABC):
    """A kind of stream. `size` is that of a state, i64[size]."""

    name: str
    size: int

    @abstractmethod
    def begin(self, seed: int) -> np.ndarray:
        """The state after ``manual_seed(seed)``."""

    def seed_of(self, state: np.ndarray) -> int:
        return int(state[0])

    @abstractmethod
    def check(self, state: np.ndarray) -> None:
        """Raise where bytes from outside are no state."""

    def offset(self, state: np.ndarray) -> int:
        raise RuntimeError(
            "get_offset: only a Philox stream has offsets; "
            "torch.set_random_stream('philox') chooses it"
        )

    def at_offset(self, state: np.ndarray, offset: int) -> np.ndarray:
        raise RuntimeError(
            "set_offset: only a Philox stream has offsets; "
            "torch.set_random_stream('philox') chooses it"
        )

    @abstractmethod
    def unit(self, generator: Drawing, shape: tuple[Any, ...], dtype: DType) -> Value:
        """Uniform in [0, 1), of f32 or f64."""

    @abstractmethod
    def standard(
        self, generator: Drawing, shape: tuple[Any, ...], dtype: DType, dense: bool
    ) -> Value:
        """Of mean 0 and variance 1; `dtype` says of what the numbers are for, theirs is f32 or
        f64."""

    @abstractmethod
    def singly(self, generator: Drawing, shape: tuple[Any, ...]) -> Value:
        """Normal numbers in f64, one by one."""

    @abstractmethod
    def integers(
        self,
        generator: Drawing,
        low: int,
        high: int,
        shape: tuple[Any, ...],
        dtype: DType,
        wide: bool | None = None,
    ) -> Value:
        """In low..high, high excluded."""

    @abstractmethod
    def permutation(self, generator: Drawing, count: Any) -> Value:
        """0 .. count - 1 in random order."""

    def below(self, generator: Drawing, shape: tuple[Any, ...], chance: float) -> Value:
        """Whether uniform numbers in f64 are below a number."""
        unit = self.unit(generator, shape, f64)
        return ops.lt(unit, scalar(float(chance), f64))  # type: ignore[no-any-return]

    def noise(
        self, generator: Drawing, shape: tuple[Any, ...], chance: float, dtype: DType
    ) -> Value:
        """What dropout multiplies with: 1 / chance where `below` holds, else 0."""
        kept = ops.cast(self.below(generator, shape, chance), dtype=dtype)
        return ops.div(kept, scalar(float(chance), dtype))  # type: ignore[no-any-return]

    @abstractmethod
    def sample(self, generator: Drawing, name: str, single: bool, *numbers: Value) -> Value:
        """gamma, poisson or binomial numbers, in f64, of parameters in f64 of one shape; `single`
        for f32."""

    @abstractmethod
    def where(self, generator: Drawing, mask: Value) -> Value:
        """Uniform numbers in f64 where `mask` holds, for which alone some are drawn; others
        elsewhere."""


class Mersenne(Stream):
    """One word after another, as PyTorch on CPUs."""

    name = "mersenne"
    size = mersenne.STATE_TYPE.shape[0]  # type: ignore[assignment]

    def begin(self, seed: int) -> np.ndarray:
        return mersenne.seeded_state(seed)

    def check(self, state: np.ndarray) -> None:
        left, place = int(state[mersenne.LEFT]) & 0xFFFFFFFF, int(state[mersenne.PLACE])
        if not 1 <= left <= mersenne.WORDS or not 0 <= place <= mersenne.WORDS:
            raise RuntimeError(
                "set_state: Invalid mt19937 state: these bytes are not what get_state() gave"
            )

    def _words(self, generator: Drawing, count: Any) -> Value:
        return generator.advance(lambda state: ops.mersenne_words(state, shape=(count,)))

    def unit(self, generator: Drawing, shape: tuple[Any, ...], dtype: DType) -> Value:
        drawn = self._words(generator, numel(shape) * words.per_number(dtype))
        return ops.words_to_float(drawn, shape=shape, dtype=dtype)  # type: ignore[no-any-return]

    def standard(
        self, generator: Drawing, shape: tuple[Any, ...], dtype: DType, dense: bool
    ) -> Value:
        count, computed = numel(shape), f64 if dtype is f64 else f32
        if not dense or count < words.GROUP:
            return self.singly(generator, shape)
        attrs = words.Normals(shape, computed, bool(count % words.GROUP != 0), computes_with_avx2())
        drawn = self._words(generator, words.normal_words(attrs, dtype in (f32, f64)))
        return ops.words_to_normal(  # type: ignore[no-any-return]
            drawn, shape=shape, dtype=computed, rest=attrs.rest, cephes=attrs.cephes
        )

    def singly(self, generator: Drawing, shape: tuple[Any, ...]) -> Value:
        return generator.advance(lambda state: ops.mersenne_normals(state, shape=shape))

    def integers(
        self,
        generator: Drawing,
        low: int,
        high: int,
        shape: tuple[Any, ...],
        dtype: DType,
        wide: bool | None = None,
    ) -> Value:
        wide = high - low >= words.WIDE_RANGE if wide is None else wide
        drawn = self._words(generator, numel(shape) * (2 if wide else 1))
        return ops.words_to_integer(  # type: ignore[no-any-return]
            drawn, low=low, high=high, shape=shape, dtype=dtype, wide=wide
        )

    def below(self, generator: Drawing, shape: tuple[Any, ...], chance: float) -> Value:
        drawn = self._words(generator, 2 * numel(shape))
        bits = ops.bitwise_and(ops.words_to_wide(drawn, shape=shape), number((1 << 53) - 1, i64))
        # k 2**-53 < p where k < p 2**53, which is exact: whole numbers are compared faster
        return ops.lt(bits, scalar(int(np.ceil(chance * 2.0**53)), i64))  # type: ignore[no-any-return]

    def permutation(self, generator: Drawing, count: Any) -> Value:
        if count < 2:
            return ops.iota(shape=(count,), dim=0, dtype=i64)  # type: ignore[no-any-return]
        wide = count >= LONG_PERMUTATION
        drawn = self._words(generator, (count - 1) * (2 if wide else 1))
        if wide:
            drawn = ops.words_to_wide(drawn, shape=(count - 1,))
        return ops.permutation(drawn)  # type: ignore[no-any-return]

    def sample(self, generator: Drawing, name: str, single: bool, *numbers: Value) -> Value:
        op = getattr(ops, f"mersenne_{name}")
        return generator.advance(lambda state: op(*numbers, state, single=single))

    def where(self, generator: Drawing, mask: Value) -> Value:
        count = numel(mask.shape)
        flat = ops.cast(ops.reshape(mask, shape=(count,)), dtype=i64)

        def step(state: Value) -> tuple[Value, Value]:
            drawn, _ = ops.mersenne_words(state, shape=(2 * count,))
            taken = ops.mul(ops.sum(flat, dims=(0,), keepdim=False), number(2, i64))
            return drawn, ops.mersenne_skip(state, taken)

        unit = ops.words_to_float(generator.advance(step), shape=(count,), dtype=f64)
        place = ops.maximum(ops.sub(ops.cumsum(flat, dim=0), number(1, i64)), number(0, i64))
        return ops.reshape(ops.index_select(unit, place, dim=0), shape=mask.shape)  # type: ignore[no-any-return]


@functools.cache
def computes_with_avx2() -> bool:
    """Whether this is a processor with AVX2 and without AVX-512.

    For normal numbers in f32 PyTorch has code of its own there."""
    features: dict[str, bool] = {}
    # the second in NumPy 1
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        with suppress(ImportError):
            features = importlib.import_module(name).__cpu_features__
            break
    return bool(features.get("AVX2") and not features.get("AVX512_SKX"))


LONG_PERMUTATION = (1 << 32) // 20  # of so many the words are of 64 bits


class Philox(Stream):
    """Numbers by their places: a state is a seed, and how many counters were used."""

    name = "philox"
    size = 2

    def begin(self, seed: int) -> np.ndarray:
        return np.array([seed % (1 << 64), 0], np.uint64).view(np.int64)

    def check(self, state: np.ndarray) -> None:
        if state[1] < 0:
            raise RuntimeError(
                "set_state: Invalid philox state: these bytes are not what get_state() gave"
            )

    def offset(self, state: np.ndarray) -> int:
        return int(state[1])

    def at_offset(self, state: np.ndarray, offset: int) -> np.ndarray:
        return np.array([state[0], offset])

    def _take(self, generator: Drawing, count: Any, make: Any) -> Value:
        """``make(seed, offset)``, for which `count` elements' counters are used."""
        if isinstance(count, SymInt):
            count = bounds(count)[1]
        used = (count + 3) // 4 * 2  # of the widest dtype: the stream does not depend on it

        def step(state: Value) -> tuple[Value, Value]:
            parts = [
                ops.reshape(ops.slice(state, start=(i,), stop=(i + 1,), step=(1,)), shape=())
                for i in range(2)
            ]
            after = ops.concat(
                *[
                    ops.reshape(p, shape=(1,))
                    for p in (parts[0], ops.add(parts[1], number(used, i64)))
                ],
                dim=0,
            )
            return make(*parts), after

        return generator.advance(step)

    def place(self, generator: Drawing, shape: tuple[Any, ...]) -> tuple[Value, Value]:
        """Seed and offset, for an op that draws numbers of this shape by itself."""
        found: Any = self._take(generator, numel(shape), lambda seed, offset: (seed, offset))
        return found  # type: ignore[no-any-return]

    def unit(self, generator: Drawing, shape: tuple[Any, ...], dtype: DType) -> Value:
        return self._take(
            generator,
            numel(shape),
            lambda seed, offset: ops.random_uniform(seed, offset, shape=shape, dtype=dtype),
        )

    def standard(
        self, generator: Drawing, shape: tuple[Any, ...], dtype: DType, dense: bool
    ) -> Value:
        computed = f64 if dtype is f64 else f32
        return self._take(
            generator,
            numel(shape),
            lambda seed, offset: ops.random_normal(seed, offset, shape=shape, dtype=computed),
        )

    def singly(self, generator: Drawing, shape: tuple[Any, ...]) -> Value:
        return self.standard(generator, shape, f64, True)

    def integers(
        self,
        generator: Drawing,
        low: int,
        high: int,
        shape: tuple[Any, ...],
        dtype: DType,
        wide: bool | None = None,
    ) -> Value:
        return self._take(
            generator,
            numel(shape),
            lambda seed, offset: ops.random_int(
                seed, offset, low=low, high=high, shape=shape, dtype=dtype
            ),
        )

    def permutation(self, generator: Drawing, count: Any) -> Value:
        keys = self.integers(generator, -(1 << 62), 1 << 62, (count,), i64)
        return ops.sort(keys, dim=0, descending=False)[1]  # type: ignore[no-any-return]

    def below(self, generator: Drawing, shape: tuple[Any, ...], chance: float) -> Value:
        return ops.lt(self.unit(generator, shape, f32), scalar(float(chance), f32))  # type: ignore[no-any-return]

    def sample(self, generator: Drawing, name: str, single: bool, *numbers: Value) -> Value:
        op = {"gamma": ops.standard_gamma, "poisson": ops.poisson, "binomial": ops.binomial}[name]
        shape = broadcast(*[v.shape for v in numbers])
        return self._take(generator, numel(shape), lambda seed, offset: op(*numbers, seed, offset))

    def where(self, generator: Drawing, mask: Value) -> Value:
        return self.unit(generator, tuple(mask.shape), f64)


STREAMS: dict[str, Stream] = {s.name: s for s in (Mersenne(), Philox())}

__all__ = ["STREAMS", "Drawing", "Stream"]
