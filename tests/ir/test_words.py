"""Words of a Mersenne Twister as numbers: decomposed and in native code against the references."""

from __future__ import annotations

import numpy as np
import pytest

from compiled import check, graph_of, run
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i32, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.ops.words import Normals, normal_words, per_number


def words(count: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 1 << 32, count, dtype=np.uint64)
    made[: min(count, 4)] = [0, (1 << 32) - 1, 1 << 31, (1 << 24) - 1][:count]
    return made.astype(np.uint32).view(np.int32)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 40)])
def test_floats(dtype: DType, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape)) * per_number(dtype)
    check(lambda w: ops.words_to_float(w, shape=shape, dtype=dtype), [words(count)])


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("count", [16, 17, 31, 32, 100])
@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("cephes", [True, False])
def test_normals(dtype: DType, count: int, every: bool, cephes: bool) -> None:
    attrs = Normals((count,), dtype, count % 16 != 0, cephes)
    drawn = normal_words(attrs, every)
    check(
        lambda w: ops.words_to_normal(
            w, shape=(count,), dtype=dtype, rest=attrs.rest, cephes=cephes
        ),
        [words(drawn)],
    )


def test_normals_in_single_precision_are_rounded_right() -> None:
    """Each of logarithm, root, wave and product by less than 0.51 of its last place."""
    n = 1 << 16
    given = words(n)
    graph = graph_of(
        lambda w: ops.words_to_normal(w, shape=(n,), dtype=f32, rest=False, cephes=False),
        [(i32, (n,))],
    )
    (found,) = run(graph, [given])
    (expected,) = evaluate(graph, [given])
    assert np.mean(found == expected) > 0.98
    assert np.max(np.abs(found - expected) / np.spacing(np.abs(expected))) <= 2


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 1),
        (-5, 100),
        (0, (1 << 28) - 1),
        (0, 1 << 28),
        (-(1 << 31), 1 << 31),
        (7, (1 << 62) - 1),
        (0, 1 << 62),
        (-(1 << 62), 1 << 62),
        (-(1 << 63), 1 << 62),
        (-(1 << 63), 1 << 63),
        (-(1 << 63), (1 << 63) - 1),
    ],
)
def test_integers(low: int, high: int) -> None:
    for wide in (False, True):
        if wide or high - low <= 1 << 32:
            check(
                lambda w, wide=wide: ops.words_to_integer(
                    w, low=low, high=high, shape=(50,), dtype=i64, wide=wide
                ),
                [words(100 if wide else 50)],
            )


def test_narrow_integers() -> None:
    check(
        lambda w: ops.words_to_integer(w, low=-9, high=9, shape=(50,), dtype=i32, wide=False),
        [words(50)],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_muladd_rounds_once(dtype: type) -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal(1000).astype(dtype) for _ in range(2))
    z = -(x * y)  # what is left is the error of the product
    exact = [float(a) for a in map(_error, x.tolist(), y.tolist(), z.tolist())]
    found = ops.muladd.reference(None, x, y, z)
    np.testing.assert_array_equal(found, np.array(exact).astype(dtype))
    check(lambda x, y, z: ops.muladd(x, y, z), [x, y, z])


def _error(x: float, y: float, z: float) -> object:
    from fractions import Fraction

    return Fraction(x) * Fraction(y) + Fraction(z)
