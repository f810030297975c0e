"""Draws from a Mersenne Twister in native code against the references, these against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiled import check
from graphtorch.ir import ops
from graphtorch.ir.dtype import f64
from graphtorch.ir.graph import Value
from graphtorch.ir.ops import mersenne
from graphtorch.ir.shape import Symbol, SymInt

COUNT = SymInt.atom(Symbol("count", 0, 1 << 40))


def state_after(seed: int, words: int = 0, kept: bool = False) -> np.ndarray:
    engine = mersenne.Engine(mersenne.seeded_state(seed))
    engine.words(words)
    if kept:
        engine.normal()
    return engine.state()


def parted(drawn: Any) -> tuple[Value, ...]:
    """What a draw gives, with the number kept in the state as one to compare as a float."""
    values, state = drawn
    kept = ops.bitcast(ops.slice(state, start=(628,), stop=(629,), step=(1,)), dtype=f64)
    return (
        values,
        kept,
        ops.slice(state, start=(0,), stop=(628,), step=(1,)),
        ops.slice(state, start=(629,), stop=(632,), step=(1,)),
    )


@pytest.mark.parametrize("words", [0, 1, 623, 624, 625, 2000])
@pytest.mark.parametrize("count", [0, 1, 7, 624, 1300])
def test_words(words: int, count: int) -> None:
    check(lambda s: ops.mersenne_words(s, shape=(count,)), [state_after(3, words)])


def test_words_are_numpys() -> None:
    engine = mersenne.Engine(mersenne.seeded_state(5))
    expected = np.random.RandomState(5).randint(0, 1 << 32, 2000, dtype=np.uint64)
    assert np.array_equal(np.concatenate([engine.words(700), engine.words(1300)]), expected)


@pytest.mark.parametrize("count", [0, 5, 1000])
def test_skip(count: int) -> None:
    check(lambda s, n: ops.mersenne_skip(s, n), [state_after(2, 100), np.array(count)])


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 9, 700])
def test_normals(kept: bool, count: int) -> None:
    check(lambda s: parted(ops.mersenne_normals(s, shape=(count,))), [state_after(4, 11, kept)])


def test_samples() -> None:
    state = state_after(8, 600)
    alpha = np.array([0.0, 0.2, 1.0, 3.5, 100.0, np.nan, -1.0, 0.9, 1e6] * 20)
    for single in (False, True):
        check(lambda a, s, o=single: parted(ops.mersenne_gamma(a, s, single=o)), [alpha, state])
    rate = np.array([0.0, 0.2, 9.99, 10.0, 55.5, 1e6, np.nan, 3.0] * 20)
    check(lambda a, s: parted(ops.mersenne_poisson(a, s, single=False)), [rate, state])
    count = np.array([0.0, 3.0, 40.0, 1000.0, 1e6, 40.0, 30.0, -2.0, 100.0, np.nan] * 20)
    chance = np.array([0.5, 0.2, 0.25, 0.9, 0.001, 0.0, 1.0, 0.3, 0.5, 0.1] * 20)
    check(
        lambda n, p, s: parted(ops.mersenne_binomial(n, p, s, single=False)), [count, chance, state]
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_permutation(dtype: type) -> None:
    words = np.random.default_rng(0).integers(-(2**31), 2**31, 300).astype(dtype)
    check(lambda w: ops.permutation(w), [words])
    check(lambda w: ops.permutation(w), [words], [(COUNT,)])
