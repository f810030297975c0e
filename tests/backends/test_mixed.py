"""Complex numbers compiled by LLVM: special values, memory outside, graphs with nodes that have no
code."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.backends.mixed import Mixed
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, c64, c128, f32
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.pair_math import FUNCTIONS
from graphtorch.ir.shape import symbol


def tensor(name: str, *shape: object, dtype: DType = c64) -> Value:
    return Value(Type(dtype, shape), name=name)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [b.numpy() for b in compile(graph, "llvm")([Buffer.of(a) for a in arrays])]


def check(graph: Graph, arrays: Sequence[np.ndarray], tolerance: float = 1e-5) -> None:
    for a, b in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [c64, c128])
def test_functions_at_the_ends(dtype: DType) -> None:
    """As the references, but for the sign of an infinity without an angle."""
    ends = (0.0, -0.0, 1.0, -0.5, math.inf, -math.inf, math.nan, 20.0)
    points = np.array([complex(a, b) for a in ends for b in ends], dtype.numpy)
    x = tensor("x", points.size, dtype=dtype)
    names = [
        n
        for n in FUNCTIONS
        if n not in ("asin", "acos", "acosh", "atanh", "asinh", "atan", "square")
    ]
    graph = Graph("g", [x], [getattr(ops, n)(x) for n in names])
    for name, a, b in zip(names, run(graph, [points]), evaluate(graph, [points]), strict=True):
        for part in (np.real, np.imag):
            found, expected = part(a), part(b)
            if name in ("sin", "cos", "sinh", "cosh"):
                found, expected = abs(found), abs(expected)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_number_times_its_conjugate_is_real() -> None:
    z = tensor("z", 1000)
    [found] = run(Graph("g", [z], [ops.mul(z, ops.conj(z))]), [random(1000)])
    assert not found.imag.any()


def test_inputs_that_are_outputs_and_sizes_that_change() -> None:
    z = tensor("z", symbol("n", 1, 64), 3)
    graph = Graph("g", [z], [z, ops.mul(z, z), ops.cumsum(z, dim=0)])
    program = compile(graph, "llvm")
    for n in (1, 5, 64):
        array = random(n, 3)
        found = [b.numpy() for b in program([Buffer.of(array)])]
        for a, b in zip(found, evaluate(graph, [array]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_donated_input() -> None:
    z, step = tensor("z", 100), tensor("s", 100)
    graph = Graph("g", [z, step], [ops.sub(z, step)], donates=[(0, 0)])
    given = Buffer.of(random(100).copy())
    expected = given.numpy() - random(100, seed=1)
    [found] = compile(graph, "llvm")([given, Buffer.of(random(100, seed=1))])
    np.testing.assert_array_equal(found.numpy(), expected)


def positive(n: int) -> np.ndarray:
    a = random(n, n)
    return (a @ a.conj().T + n * np.eye(n)).astype(np.complex64)


def test_only_what_has_no_code_is_run_by_its_reference() -> None:
    z, x = tensor("z", 4, 4), tensor("x", 8, 8, dtype=f32)
    twice = ops.add(z, z)
    factor, info = ops.cholesky(twice)
    again, second = ops.cholesky(ops.matmul(factor, ops.conj(ops.permute(factor, dims=(1, 0)))))
    graph = Graph("g", [z, x], [ops.exp(factor), again, ops.matmul(x, x), z, info, second, twice])
    program = compile(graph, "llvm")
    assert isinstance(program, Mixed)
    assert program.explain().count("cholesky: by NumPy") == 2 and "matmul" in program.explain()
    check(graph, [positive(4), np.eye(8, dtype=np.float32)], 1e-4)


def test_results_of_a_mixed_graph_share_no_memory() -> None:
    z = tensor("z", 3, 3)
    factor, _ = ops.cholesky(z)
    given = Buffer.of(positive(3))
    found = compile(Graph("g", [z], [z, factor, factor]), "llvm")([given])
    assert len({given.address, *(b.address for b in found)}) == 4


def test_mixed_graphs_of_changing_sizes() -> None:
    z = tensor("z", symbol("n", 1, 9))
    graph = Graph("g", [z], [ops.exp(ops.prod(ops.mul(z, z), dims=(0,), keepdim=False))])
    program = compile(graph, "llvm")
    assert isinstance(program, Mixed)
    for n in (1, 4, 9):
        array = random(n) * np.float32(0.5)
        [found] = program([Buffer.of(array)])
        np.testing.assert_allclose(found.numpy(), evaluate(graph, [array])[0], rtol=1e-5)
