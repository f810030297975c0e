"""Sorting and searching in native code against the references."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiled import check, lowered_text
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.shape import Symbol, SymInt

BATCH = SymInt.atom(Symbol("batch", 0, 1 << 40))
DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
    np.int16,
    np.int8,
    np.uint8,
    np.uint32,
    np.uint64,
    bool,
]
SHAPES = [
    ((1,), 0),
    ((0,), 0),
    ((2, 0), 1),
    ((0, 3), 1),
    ((64,), 0),
    ((65,), 0),
    ((1000,), 0),
    ((3, 5, 4), 1),
    ((4, 300), 1),
    ((300, 4), 0),
    ((2, 90, 3), 1),
]


def numbers(dtype: type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers of which some are equal."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        some = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        return np.where(
            rng.random(shape) < 0.5, some, rng.integers(0, 9, shape).astype(dtype)
        ).astype(dtype)
    return (
        rng.random(shape) < 0.5
        if dtype is bool
        else (rng.integers(-40, 40, shape) * 0.25).astype(dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("size", [30, 200])
def test_dtypes(dtype: type, descending: bool, size: int) -> None:
    check(lambda x: ops.sort(x, dim=1, descending=descending), [numbers(dtype, (3, size))])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_shapes(shape: tuple[int, ...], dim: int, descending: bool) -> None:
    check(lambda x: ops.sort(x, dim=dim, descending=descending), [numbers(np.float32, shape)])


@pytest.mark.parametrize("dtype", DTYPES[:4])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("size", [40, 400])
def test_special_values(dtype: type, descending: bool, size: int) -> None:
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 6e-8, -6e-8]).astype(
        dtype
    )
    x = np.random.default_rng(1).choice(values, (2, size))
    check(lambda x: ops.sort(x, dim=1, descending=descending), [x])
    # the sign of zeros
    check(lambda x: ops.reciprocal(ops.sort(x, dim=1, descending=descending)[0]), [x])


@pytest.mark.parametrize("size", [0, 1, 5, 64, 65, 500])
def test_symbolic_length(size: int) -> None:
    check(
        lambda x: ops.sort(x, dim=0, descending=False),
        [numbers(np.float32, (size, 3))],
        [(BATCH, 3)],
    )
    check(
        lambda x: ops.sort(x, dim=1, descending=True), [numbers(np.int64, (2, size))], [(2, BATCH)]
    )


@pytest.mark.parametrize("size", [0, 1, 7])
def test_symbolic_batch(size: int) -> None:
    check(
        lambda x: ops.sort(x, dim=1, descending=True),
        [numbers(np.float32, (size, 90))],
        [(BATCH, 90)],
    )


def test_only_one_of_two_results() -> None:
    x = numbers(np.float32, (4, 100))
    check(lambda x: ops.sort(x, dim=1, descending=False)[0], [x])
    check(lambda x: ops.sort(ops.sin(x), dim=0, descending=False)[1], [x])
    check(lambda x: ops.topk(x, k=7, dim=1, largest=True), [x])
    check(lambda x: ops.topk(x, k=3, dim=0, largest=False)[1], [x])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_long_lines(dtype: type) -> None:
    values = np.random.default_rng(2).standard_normal((2, 30000)) * 1e6
    check(lambda x: ops.sort(x, dim=1, descending=False), [values.astype(dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(dtype: type, right: bool) -> None:
    line, x = np.sort(numbers(dtype, (37,))), numbers(dtype, (3, 11), 1)
    check(lambda a, x: ops.searchsorted(a, x, right=right), [line, x])
    lines = np.sort(numbers(dtype, (3, 16)), axis=1)
    check(lambda a, x: ops.searchsorted(a, x, right=right), [lines, x])


def test_searchsorted_corners() -> None:
    empty, x = np.zeros(0, np.float32), np.array([1, np.nan, -np.inf, np.inf], np.float32)
    for line in (empty, np.array([1], np.float32), np.array([1, 1, 1, 2, 2, 5], np.float32)):
        check(lambda a, x: ops.searchsorted(a, x, right=True), [line, x])
        check(lambda a, x: ops.searchsorted(a, x, right=False), [line, x], [(BATCH,), (4,)])
        check(lambda a, x: ops.searchsorted(a, x, right=False), [line, np.float32(1)])


def test_kernel_text(golden) -> None:  # type: ignore[no-untyped-def]
    golden(
        "sort_lines",
        lowered_text(lambda x: ops.sort(x, dim=1, descending=False), [(f32, (2, 100))]),
    )
