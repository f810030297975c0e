"""Random ops: the published generator's words, their spread, and that only the position decides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation import apply, decomposed, gradients
from graphtorch.ir.dtype import DType, bf16, f16, f32, f64, i8, i32, i64, u8
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.op import OPS
from graphtorch.ir.ops import random
from graphtorch.ir.shape import symbol

# Known answers of Random123 (kat_vectors: philox4x32 10): counter, key, words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def draw(name: str, seed: int = 7, offset: int = 0, **attrs: object) -> np.ndarray:
    return apply(OPS[name], np.array(seed, np.int64), np.array(offset, np.int64), **attrs)[0]


def scalar_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The algorithm as printed in the paper, in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            second >> 32 ^ c[1] ^ k[0],
            second & 0xFFFFFFFF,
            first >> 32 ^ c[3] ^ k[1],
            first & 0xFFFFFFFF,
        ]
        k = [k[0] + 0x9E3779B9 & 0xFFFFFFFF, k[1] + 0xBB67AE85 & 0xFFFFFFFF]
    return tuple(c)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    assert scalar_philox(counter, key) == words
    seed, start = key[0] | key[1] << 32, counter[0] | counter[1] << 32
    # the ops leave the upper half of the counter zero
    words = scalar_philox((*counter[:2], 0, 0), key)
    assert random.philox(seed, np.array([start], np.uint64))[0].tolist() == list(words)


@pytest.mark.parametrize(
    ("seed", "offset"), [(1, 0), (-1, 5), (2**40 + 3, 2**32 - 2), (0, -1), (0, 2**63 - 1)]
)
def test_words_and_lanes(seed: int, offset: int) -> None:
    def block(n: int) -> tuple[int, ...]:
        n, s = (offset + n) % 2**64, seed % 2**64
        return scalar_philox((n & 0xFFFFFFFF, n >> 32, 0, 0), (s & 0xFFFFFFFF, s >> 32))

    narrow = draw("random_int", seed, offset, low=0, high=2**32, shape=(10,), dtype=i64)
    assert narrow.tolist() == [block(i // 4)[i % 4] for i in range(10)]
    wide = draw("random_int", seed, offset, low=-(2**63), high=2**63, shape=(5,), dtype=i64)
    expected = [
        (block(i // 2)[2 * (i % 2)] << 32 | block(i // 2)[2 * (i % 2) + 1]) - 2**63
        for i in range(5)
    ]
    assert wide.tolist() == expected


@pytest.mark.parametrize(("dtype", "bits"), [(f32, 24), (f64, 53), (f16, 11), (bf16, 8)], ids=str)
def test_uniform(dtype: DType, bits: int) -> None:
    x = draw("random_uniform", shape=(200, 100), dtype=dtype).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert np.all(x * 2**bits == np.floor(x * 2**bits)), (
        "a multiple of the step, never rounded up to 1"
    )
    assert abs(x.mean() - 0.5) < 0.01 and abs(x.var() - 1 / 12) < 0.005


@pytest.mark.parametrize("dtype", [f32, f64, f16, bf16], ids=str)
def test_normal(dtype: DType) -> None:
    x = draw("random_normal", shape=(40001,), dtype=dtype).astype(np.float64)
    assert np.isfinite(x).all()
    assert abs(x.mean()) < 0.02 and abs(x.var() - 1) < 0.03
    assert abs(np.mean(x**4) - 3) < 0.2
    assert abs(np.mean(x[:-1:2] * x[1::2])) < 0.02, "the two halves of a pair are independent"


def test_normal_is_box_muller_of_the_stated_lanes() -> None:
    words = random.narrow_words(7, 0, 8)
    x = draw("random_normal", shape=(8,), dtype=f32)
    for pair in range(4):
        u, v = (
            ((int(words[2 * pair]) >> 8) + 1) * 2.0**-24,
            (int(words[2 * pair + 1]) >> 8) * 2.0**-24,
        )
        radius = math.sqrt(-2 * math.log(u))
        expected = radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)
        np.testing.assert_allclose(x[2 * pair : 2 * pair + 2], expected, 1e-5, 1e-6)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", ["random_uniform", "random_normal"])
def test_only_the_position_decides(name: str, dtype: DType) -> None:
    whole = draw(name, shape=(3, 7), dtype=dtype).reshape(-1)
    assert np.array_equal(draw(name, shape=(5,), dtype=dtype), whole[:5])
    lanes = random.lanes(OPS[name].attrs(shape=(1,), dtype=dtype))
    assert np.array_equal(
        draw(name, offset=2, shape=(4,), dtype=dtype), whole[2 * lanes : 2 * lanes + 4]
    )
    assert not np.array_equal(draw(name, seed=8, shape=(21,), dtype=dtype), whole)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 10, i64),
        (-5, 5, i8),
        (0, 256, u8),
        (-128, 128, i8),
        (0, 2**32, i64),
        (-(2**31), 2**31, i32),
        (-(2**40), 2**50 + 7, i64),
        (5, 6, i64),
    ],
)
def test_integers_fill_their_range(low: int, high: int, dtype: DType) -> None:
    x = draw("random_int", low=low, high=high, shape=(20000,), dtype=dtype).astype(object)
    assert x.min() >= low and x.max() < high
    span = high - low
    assert abs(float(x.sum()) / 20000 - (low + high - 1) / 2) <= 0.02 * span
    if span <= 256:
        assert len(set(x.tolist())) == span


def test_wide_integers_are_the_high_product() -> None:
    span = 2**50 + 12345
    words = random.wide_words(3, 0, 50)
    found = draw("random_int", seed=3, low=-9, high=span - 9, shape=(50,), dtype=i64)
    assert found.tolist() == [(int(w) * span >> 64) - 9 for w in words]


@pytest.mark.parametrize("dtype", [f32, f64, f16, bf16], ids=str)
def test_bernoulli(dtype: DType) -> None:
    p = np.array([0.0, 0.25, 1.0])[:, None].repeat(8000, 1).astype(dtype.numpy)
    unit = draw("random_uniform", shape=p.shape, dtype=f64 if dtype is f64 else f32)
    (found,) = apply(OPS["bernoulli"], p, unit)
    assert found.dtype == dtype.numpy and set(found.astype(float).reshape(-1)) <= {0.0, 1.0}
    mean = found.astype(float).mean(1)
    assert mean[0] == 0 and mean[2] == 1 and abs(mean[1] - 0.25) < 0.02
    assert np.array_equal(decomposed(OPS["bernoulli"], p, unit)[0], found)
    to_p, to_unit = gradients(OPS["bernoulli"], [p, unit], [p])
    assert not to_p.astype(float).any() and to_unit is None


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,)], ids=str)
def test_small_shapes(shape: tuple[int, ...]) -> None:
    for dtype in (f32, f64):
        assert draw("random_uniform", shape=shape, dtype=dtype).shape == shape
        assert draw("random_normal", shape=shape, dtype=dtype).shape == shape
    assert draw("random_int", low=0, high=3, shape=shape, dtype=i64).shape == shape


def test_blocks_consumed() -> None:
    assert [random.blocks(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    n = symbol("n")
    assert random.blocks(4 * n, 2) == 2 * n


def test_bad_calls_are_refused() -> None:
    state, real = Value(Type(i64), name="s"), Value(Type(f32), name="r")
    with pytest.raises(RuntimeError, match=r"seed to be i64\[\]"):
        OPS["random_uniform"](real, state, shape=(2,), dtype=f32)
    with pytest.raises(NotImplementedError, match="'Long'"):
        OPS["random_normal"](state, state, shape=(2,), dtype=i64)
    with pytest.raises(RuntimeError, match="less than"):
        OPS["random_int"](state, state, low=3, high=3, shape=(2,), dtype=i64)
    with pytest.raises(RuntimeError, match="out of bounds"):
        OPS["random_int"](state, state, low=0, high=300, shape=(2,), dtype=u8)
    with pytest.raises(NotImplementedError, match="'Long'"):
        OPS["bernoulli"](state, state)
