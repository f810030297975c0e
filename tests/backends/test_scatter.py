"""Writes at computed positions in native code against the references."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiled import check, graph_of, lowered_text, run
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32, i64
from graphtorch.ir.graph import Value
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
    np.uint16,
    bool,
]
#         x           index      src        dim
SCATTER = [
    ((7,), (5,), (5,), 0),
    ((7,), (0,), (3,), 0),
    ((1,), (9,), (9,), 0),
    ((4, 5), (4, 3), (4, 3), 1),
    ((4, 5), (9, 5), (9, 5), 0),
    ((4, 5), (2, 3), (6, 4), 0),
    ((3, 4, 5), (3, 2, 5), (3, 3, 5), 1),
    ((3, 4, 5), (2, 4, 3), (2, 4, 6), 2),
    ((0, 5), (0, 3), (0, 3), 1),
    ((30, 600), (40, 600), (40, 600), 0),
    ((1500, 3), (1500, 2), (1500, 2), 1),
    ((2, 3, 4, 700), (2, 3, 9, 650), (2, 3, 9, 650), 2),
]


def numbers(dtype: type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Small numbers whose sums are exact in every dtype."""
    values = np.random.default_rng(seed).integers(0, 3, shape)
    return np.asarray(values).astype(dtype)


def indices(size: int, shape: tuple[int, ...], dtype: type = np.int64, low: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(size).integers(low, size, shape)).astype(dtype)


@pytest.mark.parametrize("name", ["scatter", "scatter_add"])
@pytest.mark.parametrize(("shape", "where", "source", "dim"), SCATTER)
def test_scatter(name: str, shape: tuple, where: tuple, source: tuple, dim: int) -> None:
    arrays = [
        numbers(np.float32, shape),
        indices(max(1, shape[dim]), where),
        numbers(np.float32, source, 1),
    ]
    check(lambda x, i, s: getattr(ops, name)(x, i, s, dim=dim), arrays)


@pytest.mark.parametrize("name", ["scatter", "scatter_add"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_dtypes(name: str, dtype: type) -> None:
    if dtype is bool and name == "scatter_add":
        return
    for kind in (np.int32, np.int64):
        arrays = [numbers(dtype, (4, 6)), indices(6, (4, 9), kind), numbers(dtype, (4, 9), 1)]
        check(lambda x, i, s: getattr(ops, name)(x, i, s, dim=1), arrays)


#      x          src           dims    index shapes
PUT = [
    ((7,), (5,), (0,), [(5,)]),
    ((7,), (), (0,), [(5,)]),
    ((7,), (), (0,), [()]),
    ((6, 4), (9, 4), (0,), [(9,)]),
    ((6, 4), (4,), (0,), [(9,)]),
    ((6, 4), (6, 3), (1,), [(3,)]),
    ((6, 4), (2, 3), (0, 1), [(2, 3), (3,)]),
    ((3, 4, 5), (5, 2, 5), (0, 1), [(5, 1), (2,)]),
    ((3, 4, 5), (2, 4), (0, 2), [(2,), (2,)]),
    ((3, 4, 5), (3, 1, 5), (1,), [(2,)]),
    ((3, 4, 5), (1,), (0, 1, 2), [(8,), (1,), (8,)]),
    ((6, 0), (9, 0), (0,), [(9,)]),
    ((6, 4), (0, 4), (0,), [(0,)]),
    ((50, 700), (90, 700), (0,), [(90,)]),
]


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("shape", "source", "dims", "where"), PUT)
def test_index_put(accumulate: bool, shape: tuple, source: tuple, dims: tuple, where: list) -> None:
    positions = [indices(shape[d], w, low=-shape[d]) for d, w in zip(dims, where, strict=True)]
    arrays = [numbers(np.float32, shape), numbers(np.float32, source, 1), *positions]

    def put(x: Value, s: Value, *at: Value) -> Value:
        return ops.index_put(x, s, *at, dims=dims, accumulate=accumulate)

    check(put, arrays)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_index_put_dtypes(accumulate: bool, dtype: type) -> None:
    if dtype is bool and accumulate:
        return
    arrays = [numbers(dtype, (6, 5)), numbers(dtype, (9, 5), 1), indices(6, (9,), np.int32, -6)]
    check(lambda x, s, i: ops.index_put(x, s, i, dims=(0,), accumulate=accumulate), arrays)


def test_16_bit_sums_are_rounded_once() -> None:
    x, where, source = (
        np.zeros(2, np.float16),
        np.zeros(5000, np.int64),
        np.full(5000, 1, np.float16),
    )
    check(lambda x, i, s: ops.scatter_add(x, i, s, dim=0), [x, where, source])
    check(lambda x, i, s: ops.index_put(x, s, i, dims=(0,), accumulate=True), [x, where, source])


@pytest.mark.parametrize("bad", [-1, 4, 1 << 40, -(1 << 63)])
def test_out_of_range_is_an_index_error(bad: int) -> None:
    x, where, source = np.zeros(4, np.float32), np.array([0, bad, 1]), np.ones(3, np.float32)
    for name in ("scatter", "scatter_add"):
        with pytest.raises(IndexError, match="out of bounds"):
            check(lambda x, i, s, n=name: getattr(ops, n)(x, i, s, dim=0), [x, where, source])
    if bad != -1:
        with pytest.raises(IndexError, match="out of bounds"):
            check(
                lambda x, i, s: ops.index_put(x, s, i, dims=(0,), accumulate=True),
                [x, where, source],
            )


@pytest.mark.parametrize("size", [0, 1, 40])
def test_symbolic_sizes(size: int) -> None:
    where, source = indices(6, (size, 3)), numbers(np.float32, (size, 3), 1)
    shapes = [(6, 3), (BATCH, 3), (BATCH, 3)]
    x = numbers(np.float32, (6, 3))
    check(lambda x, i, s: ops.scatter_add(x, i, s, dim=0), [x, where, source], shapes)
    table = numbers(np.float32, (6, 20))
    rows = numbers(np.float32, (size, 20), 1)
    arrays = [table, rows, where[:, 0].copy()]
    check(
        lambda x, s, i: ops.index_put(x, s, i, dims=(0,), accumulate=True),
        arrays,
        [(6, 20), (BATCH, 20), (BATCH,)],
    )


def test_many_updates_are_added_in_order() -> None:
    """The same sums as one after the other: tasks share the result, not the updates."""
    rng = np.random.default_rng(4)
    x, where = np.zeros(100, np.float32), rng.integers(0, 100, 200_000)
    source = rng.standard_normal(200_000).astype(np.float32)
    expected = x.copy()
    np.add.at(expected, where, source)
    graph = graph_of(
        lambda x, i, s: ops.scatter_add(x, i, s, dim=0),
        [(f32, (100,)), (i64, where.shape), (f32, source.shape)],
    )
    (found,) = run(graph, [x, where, source])
    np.testing.assert_array_equal(found, expected)


def test_kernel_text(golden) -> None:  # type: ignore[no-untyped-def]
    def put(x: Value, s: Value, i: Value) -> Value:
        return ops.index_put(x, s, i, dims=(0,), accumulate=True)

    golden("scatter_rows", lowered_text(put, [(f32, (10, 64)), (f32, (20, 64)), (i64, (20,))]))
