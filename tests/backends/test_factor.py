"""Factorizations in native code: the factors multiply to the matrix, and agree with the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiled import check, graph_of, run
from graphtorch.ir import ops
from graphtorch.ir.dtype import f64
from graphtorch.ir.ops.factor import LinAlgError
from graphtorch.ir.shape import Symbol, SymInt

BATCH = SymInt.atom(Symbol("batch", 0, 1 << 40))
SHAPES = [(1, 1), (4, 4), (5, 3), (3, 5), (6, 1), (2, 3, 2), (30, 20)]


def matrix(shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


def compiled(build: Any, x: np.ndarray) -> list[np.ndarray]:
    return run(graph_of(build, [(f64, x.shape)]), [x])


def is_orthonormal(columns: np.ndarray) -> bool:
    return np.allclose(np.swapaxes(columns, -1, -2) @ columns, np.eye(columns.shape[-1]), atol=1e-12)


@pytest.mark.parametrize("x", [*map(matrix, SHAPES), np.zeros((3, 3)), np.ones((4, 3)), np.diag([2.0, 0, 0])],
                         ids=str)
def test_singular_values(x: np.ndarray) -> None:
    u, s, vh = compiled(ops.svd, x)
    np.testing.assert_allclose((u * s[..., None, :]) @ vh, x, atol=1e-12)
    np.testing.assert_allclose(s, np.linalg.svd(x, compute_uv=False), atol=1e-12)
    assert is_orthonormal(u) and is_orthonormal(np.swapaxes(vh, -1, -2))


@pytest.mark.parametrize("size", [1, 2, 7, 25])
def test_eigenvalues(size: int) -> None:
    x = matrix((2, size, size))
    x = x + np.swapaxes(x, -1, -2)
    values, vectors = compiled(ops.eigh, np.tril(x))  # the upper triangle is not read
    np.testing.assert_allclose((vectors * values[:, None, :]) @ np.swapaxes(vectors, -1, -2), x, atol=1e-11)
    assert is_orthonormal(vectors) and (np.diff(values) >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elimination_and_reflections_are_the_references(shape: tuple[int, ...], dtype: type) -> None:
    check(lambda x: ops.lu(x), [matrix(shape, dtype)])
    if shape[-2] <= 8:  # large ones differ by more roundings than `check` allows
        check(lambda x: ops.qr(x), [matrix(shape, dtype)])


def test_complete_q() -> None:
    x = matrix((2, 5, 3))
    q, r = compiled(lambda v: ops.qr(v, complete=True), x)
    assert q.shape == (2, 5, 5) and is_orthonormal(q)
    np.testing.assert_allclose(q @ r, x, atol=1e-12)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular_systems(upper: bool, unit: bool) -> None:
    a = matrix((2, 4, 4)) + 4 * np.eye(4)
    check(lambda p, q: ops.triangular_solve(p, q, upper=upper, unit=unit), [a, matrix((2, 4, 3))])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2), (2, 0, 0)])
def test_matrices_without_elements(shape: tuple[int, ...]) -> None:
    for op in (ops.svd, ops.qr, ops.lu, lambda v: ops.qr(v, complete=True)):
        check(op, [np.zeros(shape)])


def test_one_program_for_all_batches() -> None:
    for count in (0, 1, 5):
        x = matrix((count, 3, 3))
        check(lambda v: ops.svd(v)[1], [x], [(BATCH, 3, 3)])
        check(ops.lu, [x], [(BATCH, 3, 3)])


def test_a_matrix_that_is_not_positive_definite() -> None:
    good, bad = 2 * np.eye(3), np.diag([1.0, -1.0, 1.0])
    assert compiled(ops.cholesky, np.stack([good, bad]))[1].tolist() == [0, 2]

    def required(x: Any) -> Any:
        return ops.require(*ops.cholesky(x), message="not positive-definite")

    np.testing.assert_allclose(compiled(required, good)[0], np.sqrt(2) * np.eye(3))
    with pytest.raises(LinAlgError, match=r"not positive-definite \(require"):
        compiled(required, bad)
