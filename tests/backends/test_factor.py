"""Factorizations in native code: the factors multiply to the matrix, and agree with the
references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiled import check, graph_of, run
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.literal import Literal
from graphtorch.ir.ops.require import LinAlgError
from graphtorch.ir.shape import Symbol, SymInt

BATCH = SymInt.atom(Symbol("batch", 0, 1 << 40))
SHAPES = [(1, 1), (4, 4), (5, 3), (3, 5), (6, 1), (2, 3, 2), (30, 20)]


def matrix(shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


def compiled(build: Any, x: np.ndarray) -> list[np.ndarray]:
    return run(graph_of(build, [(f64, x.shape)]), [x])


def is_orthonormal(columns: np.ndarray) -> bool:
    return np.allclose(
        np.swapaxes(columns, -1, -2) @ columns, np.eye(columns.shape[-1]), atol=1e-12
    )


@pytest.mark.parametrize(
    "x", [*map(matrix, SHAPES), np.zeros((3, 3)), np.ones((4, 3)), np.diag([2.0, 0, 0])], ids=str
)
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
    np.testing.assert_allclose(
        (vectors * values[:, None, :]) @ np.swapaxes(vectors, -1, -2), x, atol=1e-11
    )
    assert is_orthonormal(vectors) and (np.diff(values) >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elimination_and_reflections_are_the_references(
    shape: tuple[int, ...], dtype: type
) -> None:
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


# -------------------------------------------------------------------------------------- conventions


def structured(m: int, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Matrices for which signs, bases and pivots are a matter of convention."""
    size = max(m, n)
    turned = np.linalg.qr(rng.standard_normal((size, size)))[0]
    hadamard = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    repeated = turned[:m, :m] * np.repeat([1.0, 2.0, 5.0], m)[::3][:m]
    low = rng.integers(-2, 3, (m, max(1, min(m, n) // 2))).astype(float)
    return {
        "random": rng.standard_normal((m, n)),
        "integer": rng.integers(-2, 3, (m, n)).astype(float),
        "zero": np.zeros((m, n)),
        "one": np.ones((m, n)),
        "unit": -np.eye(m, n),
        "orthogonal": turned[:m, :n],
        "permutation": np.eye(size)[rng.permutation(size)][:m, :n],
        "hadamard": hadamard[:m, :n],
        "repeated": repeated @ turned.T[:m, :n],
        "low rank": low @ rng.integers(-2, 3, (low.shape[1], n)),
        "triangular": np.triu(rng.standard_normal((m, n))),
        "huge": 1e160 * rng.standard_normal((m, n)),
        "tiny": 1e-200 * rng.standard_normal((m, n)),
        "nan": np.where(rng.random((m, n)) < 0.2, np.nan, 1.0),
        "infinite": np.where(rng.random((m, n)) < 0.2, -np.inf, 1.0),
    }


def both_ways(build: Any, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    graph = graph_of(build, [(DType.of(x.dtype), x.shape)])
    return list(zip(run(graph, [x]), evaluate(graph, [x]), strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (5, 3), (3, 5), (8, 8)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_conventions_are_those_of_the_record(shape: tuple[int, int], dtype: type) -> None:
    m, n = shape
    matrices = structured(m, n, np.random.default_rng(m))
    with np.errstate(over="ignore"):
        x = np.stack(list(matrices.values())).astype(dtype)
    builds = [ops.svd, ops.qr, lambda v: ops.qr(v, complete=True)]
    if m == n:
        builds += [lambda v: ops.eigh(ops.add(v, ops.permute(v, dims=(0, 2, 1)))), ops.eigh]
    for build in builds:
        for found, expected in both_ways(build, x):
            scale = np.max(np.abs(expected), axis=tuple(range(1, expected.ndim)), keepdims=True)
            scale = np.where(scale > 0, scale, 1)
            limit = 1e-10 if dtype is np.float64 else 5e-6
            np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=limit)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4), (5, 3), (3, 5), (9, 9)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_elimination_is_the_same_in_every_bit(shape: tuple[int, int], dtype: type) -> None:
    with np.errstate(all="ignore"):
        x = np.stack(list(structured(*shape, np.random.default_rng(7)).values())).astype(dtype)
        square = x @ np.swapaxes(x, 1, 2)
    sides = np.random.default_rng(8).standard_normal((len(x), shape[0], 3)).astype(dtype)

    def solve(upper: bool) -> Any:
        return lambda a: ops.triangular_solve(a, ops.constant(value=Literal.of(sides)), upper=upper)

    for build, given in [
        (ops.lu, x),
        (ops.cholesky, square),
        (solve(True), square),
        (solve(False), square),
    ]:
        for found, expected in both_ways(build, given):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_largest_components_are_positive(dtype: type, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(dtype)
    x = x * np.exp(1j * rng.standard_normal(shape)) if dtype is np.complex128 else x
    u, s, vh = evaluate(graph_of(ops.svd, [(DType.of(x.dtype), shape)]), [x])
    np.testing.assert_allclose((u * s) @ vh, x, atol=1e-12)
    hermitian = x @ x.conj().T
    _, vectors = evaluate(graph_of(ops.eigh, [(DType.of(x.dtype), hermitian.shape)]), [hermitian])
    for rows in (u.T if shape[0] < shape[1] else vh, vectors.T):
        largest = np.take_along_axis(rows, np.argmax(np.abs(rows), -1)[:, None], -1)
        assert (largest.real > 0).all() and np.allclose(largest.imag, 0)


def test_equal_values_have_one_basis() -> None:
    """The first vector takes all that a group has along the axis where that is most."""
    for x in (np.eye(3), np.zeros((3, 3)), -np.eye(3)):
        assert np.array_equal(evaluate(graph_of(ops.eigh, [(f64, (3, 3))]), [x])[1], np.eye(3))
    u, s, vh = compiled(ops.svd, np.ones((2, 2)))
    np.testing.assert_allclose((u, np.diag(s), vh), (H, np.diag([2.0, 0]), H), atol=1e-15)


H = np.array([[1, 1], [1, -1]]) * 0.5**0.5
