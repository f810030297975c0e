"""Running graphs through the references: sizes from shapes, checks of inputs, regions."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import f32, i64
from graphtorch.ir.evaluate import evaluate, specialize
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import symbol

N = symbol("n", min=1, max=8)


def value(name: str, *shape: object) -> Value:
    return Value(Type(f32, shape), name=name)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def halves() -> Graph:
    x = value("x", 2 * N, 3)
    n = value("y", N)
    front = ops.slice(x, start=(0, 0), stop=(N, 3), step=(1, 1))
    return Graph(
        "halves",
        [x, n],
        [ops.reshape(front, shape=(3 * N,)), ops.iota(shape=(N,), dim=0, dtype=i64)],
    )


def test_symbols_take_their_sizes_from_the_inputs() -> None:
    for n in (1, 5):
        front, count = evaluate(halves(), [ones(2 * n, 3), ones(n)])
        assert front.shape == (3 * n,)
        np.testing.assert_array_equal(count, np.arange(n))


@pytest.mark.parametrize(
    ("arrays", "kind", "words"),
    [
        ([ones(2, 3)], TypeError, r"takes 2 inputs \(x, y\), but 1"),
        ([ones(2, 3), np.ones(1)], TypeError, "'y' has type f32"),
        ([ones(2, 3), ones(1, 1)], RuntimeError, "2 dimensions"),
        ([ones(4, 3), ones(1)], RuntimeError, "'n' is 1, but it is 2 elsewhere"),
        ([ones(3, 3), ones(1)], RuntimeError, r"a size 2\*n is expected, for a whole n"),
        ([ones(2, 4), ones(1)], RuntimeError, r"\[2, 3\] is expected"),
        ([ones(18, 3), ones(9)], RuntimeError, r"it was given the range 1\.\.8"),
    ],
)
def test_inputs_are_checked(arrays: list[np.ndarray], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        evaluate(halves(), arrays)


def test_one_symbol_has_one_size() -> None:
    graph = Graph("g", [value("x", N), value("y", N)], [value("z", 1)][:0])
    with pytest.raises(RuntimeError, match="it is 2 elsewhere"):
        evaluate(graph, [ones(2), ones(3)])


def test_symbols_must_be_found_in_the_inputs() -> None:
    product = Graph("g", [value("x", N * symbol("m"))], [])
    with pytest.raises(RuntimeError, match="Dim 'm' cannot be read off the inputs"):
        evaluate(product, [ones(6)])
    assert (
        evaluate(
            Graph("g", [value("x", 2 * N + 1)], [ops.iota(shape=(N,), dim=0, dtype=i64)]), [ones(7)]
        )[0][-1]
        == 2
    )


def test_sizes_that_turn_out_negative_are_an_error() -> None:
    h = symbol("h")
    x, w = value("x", 1, 1, h), value("w", 1, 1, 5)
    graph = Graph(
        "g", [x, w], [ops.conv(x, w, stride=(1,), padding=((0, 0),), dilation=(1,), groups=1)]
    )
    assert evaluate(graph, [ones(1, 1, 7), ones(1, 1, 5)])[0].shape == (1, 1, 3)
    with pytest.raises(RuntimeError, match="too small"):
        evaluate(graph, [ones(1, 1, 2), ones(1, 1, 5)])


def region() -> tuple[Graph, Graph]:
    """The same computation with and without a region around it."""
    a, b = value("a", N, 3), value("b", 3)
    body = Graph("body", [a, b], [ops.add(a, b), ops.reshape(ops.mul(a, b), shape=(3 * N,))])
    x, y = value("x", N, 3), value("y", 3)
    whole = ops.region(x, y, kind="loop", body=body)
    return Graph("g", [x, y], whole), Graph("g", [x, y], whole[0].node.op.decompose(whole[0].node))


def test_region_is_its_body() -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), ones(3)]
    held, plain = region()
    assert not any(node.op is ops.region for node in plain.nodes)
    for a, b in zip(evaluate(held, arrays), evaluate(plain, arrays), strict=True):
        np.testing.assert_array_equal(a, b)


def test_region_checks_its_operands() -> None:
    a = value("a", 3)
    with pytest.raises(TypeError, match="the body takes"):
        ops.region(value("x", 4), kind="loop", body=Graph("body", [a], [ops.neg(a)]))


def test_specialize_fixes_sizes_everywhere() -> None:
    fixed = specialize(region()[0], {"n": 4})
    assert not fixed.symbols()
    assert fixed.outputs[1].shape == (12,)
    assert not fixed.nodes[0].attrs.body.symbols()
    assert specialize(fixed, {"n": 4}) is fixed
