"""Products with weights as products of few digits, and those as products of narrow numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f32, f64, i8, i16, u8
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.ops.narrow import LONGEST, PRECISIONS
from graphtorch.ir.passes import legalize, narrow, precision
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.printer import print_graph
from graphtorch.ir.shape import symbol
from graphtorch.ir.verify import verify


def tensor(name: str, *shape: object, dtype: DType = f32) -> Value:
    return Value(Type(dtype, shape), name=name)


def net() -> tuple[Graph, set[Value]]:
    """Three layers, one of them without a bias, and a product of two activations."""
    x = tensor("x", 3, 10)
    w, b, v, u = tensor("w", 6, 10), tensor("b", 6), tensor("v", 4, 6), tensor("u", 4, 5)
    h = ops.relu(ops.affine(b, x, w))
    h = ops.matmul(ops.linear(h, v), u)
    scores = ops.matmul(h, ops.permute(h, dims=(1, 0)))
    return Graph("net", [x, w, b, v, u], [scores]), {w, b, v, u}


@pytest.mark.parametrize("name", PRECISIONS)
def test_products_with_weights_are_replaced(name: str) -> None:
    graph, stable = net()
    found = precision.run(graph, stable, name)
    verify(found, "precision")
    assert [n.op.name for n in found.nodes] == [
        *("low_linear", "add", "relu", "low_linear", "permute", "low_linear", "permute", "matmul")
    ]
    assert {n.attrs.precision for n in found.nodes if n.op is ops.low_linear} == {name}


def test_only_f32_matrices_that_seldom_change_are() -> None:
    graph, _ = net()
    assert precision.run(graph, set(), "int8") is graph
    x, w = tensor("x", 3, 10, dtype=f64), tensor("w", 6, 10, dtype=f64)
    wide = Graph("g", [x, w], [ops.linear(x, w)])
    assert precision.run(wide, {w}, "int8") is wide
    x, w = tensor("x", 2, 3, 10), tensor("w", 2, 10, 6)
    batched = Graph("g", [x, w], [ops.matmul(x, w)])
    assert precision.run(batched, {w}, "bf16") is batched
    w, v = tensor("w", 6, 10), tensor("v", 4, 10)
    weights_alone = Graph("g", [w, v], [ops.linear(w, v)])
    assert precision.run(weights_alone, {w, v}, "int8") is weights_alone


@pytest.mark.parametrize("depth", [0, LONGEST + 4, symbol("k")], ids=str)
def test_sums_that_int8_may_not_hold_stay(depth: object) -> None:
    x, w = tensor("x", 3, depth), tensor("w", 6, depth)
    graph = Graph("g", [x, w], [ops.linear(x, w)])
    assert precision.run(graph, {w}, "int8") is graph
    assert precision.run(graph, {w}, "bf16") is not graph
    with pytest.raises(RuntimeError, match="int8 needs a known number of 1 to"):
        ops.low_linear(x, w, precision="int8")


def test_weights_computed_of_weights_are_weights() -> None:
    x, w, g = tensor("x", 3, 10), tensor("w", 6, 10), tensor("g", 6, 1)
    graph = Graph("g", [x, w, g], [ops.linear(x, ops.mul(w, g))])
    found = precision.run(graph, {w, g}, "int8")
    assert [n.op.name for n in found.nodes] == ["mul", "low_linear"]


TARGETS = {
    "pairs": Limits(integers=(i16, i16), floats=(f32, bf16)),
    "quads": Limits(integers=(u8, i8), floats=(bf16, bf16)),
    "none": Limits(floats=(f32, f32)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("depth", [1, 2, 7, 16])
def test_targets_multiply_what_they_can(target: str, name: str, depth: int) -> None:
    """All alike: sums of integers are exact, and the reference is a formula of its own."""
    x, w = tensor("x", 2, 5, depth), tensor("w", 3, depth)
    graph = Graph("g", [x, w], [ops.low_linear(x, w, precision=name)])
    found = narrow.run(graph, TARGETS[target])
    verify(found, "narrow")
    assert all(n.op is not ops.low_linear for n in found.nodes)
    rng = np.random.default_rng(depth)
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in (x, w)]
    arrays[0][0, 1] = 0
    plain = legalize.run(found, lambda n: n.op is not ops.narrow_linear)
    for each in (found, plain):
        np.testing.assert_allclose(
            evaluate(each, arrays)[0], evaluate(graph, arrays)[0], rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("target", ["pairs", "quads"])
def test_golden_products(target: str, golden: Callable[[str, str], None]) -> None:
    graph, stable = net()
    low = precision.run(graph, stable, "int8")
    golden(f"narrow_{target}", print_graph(narrow.run(low, TARGETS[target])))


# ------------------------------------------------------------------------------------- the numbers


def low(x: np.ndarray, w: np.ndarray, name: str = "int8") -> np.ndarray:
    a, b = tensor("x", *x.shape), tensor("w", *w.shape)
    graph = Graph("g", [a, b], [ops.low_linear(a, b, precision=name)])
    with np.errstate(all="ignore"):
        (whole,) = evaluate(graph, [x, w])
        (parts,) = evaluate(narrow.run(graph, TARGETS["pairs"]), [x, w])
    np.testing.assert_allclose(whole, parts, rtol=1e-6, atol=1e-38)
    return whole


def test_int8_is_what_python_computes() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((4, 33), (5, 33)))
    sx, sw = (np.abs(v).max(1, keepdims=True).astype(np.float64) / 127 for v in (x, w))
    qx, qw = (np.rint(v / s).astype(int) for v, s in ((x, sx), (w, sw)))
    exact = [[sum(int(a) * int(b) for a, b in zip(r, c, strict=True)) for c in qw] for r in qx]
    np.testing.assert_allclose(low(x, w), np.array(exact) * sx * sw.T, rtol=1e-6)
    # of each product the rounding of both factors, at most half a step
    bound = (
        sx * np.abs(w).sum(1) + sw.T * np.abs(x).sum(1, keepdims=True)
    ) / 2 + 33 * sx * sw.T / 4
    assert (np.abs(low(x, w) - x.astype(np.float64) @ w.T) <= bound).all()


def test_rows_of_zeros_are_zeros() -> None:
    x, w = np.zeros((2, 8), np.float32), np.ones((3, 8), np.float32)
    x[1], w[1] = 1, 0
    np.testing.assert_array_equal(low(x, w), [[0, 0, 0], [8, 0, 8]])


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e30, 3e38])
def test_any_size_of_numbers(size: float) -> None:
    x = np.array([[size, -size / 2]], np.float32)
    found = low(x, np.array([[1.0, 0.0]], np.float32))
    assert abs(found[0, 0] - x[0, 0]) <= max(x[0, 0] / 254, 1e-35 / 254) + 1e-45


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_infinities_and_nan_stay_in_their_row(name: str, odd: float) -> None:
    x, w = np.ones((3, 8), np.float32), np.ones((2, 8), np.float32)
    x[1, 3] = odd
    found = low(x, w, name)
    np.testing.assert_allclose(found[[0, 2]], 8)
    if name == "int8" or np.isnan(odd):
        assert np.isnan(found[1]).all()
    else:
        assert (found[1] == odd).all()


def test_wrong_operands_are_refused() -> None:
    x, w = tensor("x", 3, 10), tensor("w", 6, 10)
    with pytest.raises(ValueError, match="'fp8' is none of bf16, int8"):
        ops.low_linear(x, w, precision="fp8")
    with pytest.raises(RuntimeError, match=r"expected x \[\*, in\] and a weight"):
        ops.low_linear(x, tensor("w", 6, 9), precision="int8")
    with pytest.raises(TypeError, match="expected f32 operands"):
        ops.low_linear(tensor("x", 3, 10, dtype=f64), w, precision="int8")
    with pytest.raises(TypeError, match="no products of i8 and i16"):
        ops.narrow_linear(tensor("x", 3, 8, dtype=i8), tensor("w", 6, 8, dtype=i16))
