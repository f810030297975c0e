"""Running reductions in native code against the references."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiled import check, graph_of, lowered_text, run
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.shape import Symbol, SymInt

BATCH = SymInt.atom(Symbol("batch", 0, 1 << 40))
DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
    np.uint8,
    np.int8,
    np.uint32,
    np.uint64,
]
SHAPES = [
    ((), 0),
    ((1,), 0),
    ((0,), 0),
    ((7,), 0),
    ((5, 0), 1),
    ((0, 5), 1),
    ((3, 37), 1),
    ((37, 3), 0),
    ((2, 9, 70), 1),
    ((4, 5, 6), 0),
    ((4, 5, 6), 2),
    ((300, 41), 0),
    ((2, 1, 3), 1),
]


def numbers(dtype: type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype is bool:
        return rng.random(shape) < 0.4
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-9, 10, shape).astype(dtype)  # unsigned: near both ends
    return np.asarray(np.round(rng.standard_normal(shape) * 2, 1)).astype(dtype)


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin"])
@pytest.mark.parametrize("dtype", [*DTYPES, bool])
def test_dtypes(name: str, dtype: type) -> None:
    if dtype is bool and name in ("cumsum", "cumprod"):
        return
    for dim in (0, 1):
        check(lambda x, d=dim: getattr(ops, name)(x, dim=d), [numbers(dtype, (5, 13))])


@pytest.mark.parametrize("name", ["cumsum", "cummax"])
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_shapes(name: str, shape: tuple[int, ...], dim: int) -> None:
    check(lambda x: getattr(ops, name)(x, dim=dim), [numbers(np.float32, shape)])


@pytest.mark.parametrize("name", ["cumsum", "cummin"])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 1, 3, 80])
def test_symbolic_sizes(name: str, dim: int, size: int) -> None:
    shapes = [tuple(BATCH if d == (dim + 1) % 3 else n for d, n in enumerate((4, 5, 6)))]
    x = numbers(
        np.float32, tuple(size if d == (dim + 1) % 3 else n for d, n in enumerate((4, 5, 6)))
    )
    check(lambda x: getattr(ops, name)(x, dim=dim), [x], shapes)
    check(lambda x: getattr(ops, name)(x, dim=(dim + 1) % 3), [x], shapes)


@pytest.mark.parametrize("name", ["cummax", "cummin", "cumsum", "cumprod"])
@pytest.mark.parametrize("dim", [0, 1])
def test_special_values(name: str, dim: int) -> None:
    line = np.array([-0.0, 1, 1, np.nan, 5, np.nan, np.inf, -np.inf, 0.0, 2], np.float32)
    x = np.stack(
        [line, line[::-1], np.full(10, -np.inf, np.float32), np.full(10, np.nan, np.float32)]
    )
    check(lambda x: getattr(ops, name)(x, dim=dim), [x])


def test_only_one_of_two_results() -> None:
    x = numbers(np.float32, (6, 9))
    check(lambda x: ops.cummax(x, dim=1)[0], [x])
    check(lambda x: ops.cummax(x, dim=1)[1], [x])
    check(lambda x: ops.exp(ops.cummax(ops.sin(x), dim=0)[0]), [x])


@pytest.mark.parametrize("dim", [0, 1])
def test_long_running_sums_keep_their_digits(dim: int) -> None:
    """Equal numbers added one after the other in f32 are all rounded to the same side."""
    x = np.full((20000, 3) if dim == 0 else (3, 20000), 0.1, np.float32)
    graph = graph_of(lambda v: ops.cumsum(v, dim=dim), [(f32, x.shape)])
    want = np.cumsum(x.astype(np.float64), dim)
    for found in (run(graph, [x])[0], *evaluate(graph, [x])):
        np.testing.assert_allclose(found, want, rtol=1e-7)


def test_negative_zero_stays() -> None:
    x = np.array([-0.0, -0.0], np.float32)
    check(lambda x: ops.reciprocal(ops.cumsum(x, dim=0)), [x])


def test_kernel_text(golden) -> None:  # type: ignore[no-untyped-def]
    golden("scan_cummax", lowered_text(lambda x: ops.cummax(x, dim=0), [(f32, (9, 100))]))


def test_many_long_lines() -> None:
    check(lambda x: ops.cumsum(x, dim=1), [numbers(np.float32, (64, 4096))])
    check(lambda x: ops.cumsum(x, dim=0), [numbers(np.float64, (512, 3000))])
