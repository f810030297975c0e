"""Differentiation of graphs: accumulation, paths, stops, second derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphtorch.backends import reference
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i64
from graphtorch.ir.graph import Graph, Location, Type, Value, located
from graphtorch.ir.literal import Literal
from graphtorch.ir.op import OPS, Kind, NoBatch, NoGradient, Op, Weight
from graphtorch.ir.passes.autodiff import pullback, template_of, vjp
from graphtorch.ir.verify import verify
from random_graphs import Generator


def tensor(*shape: int, dtype: DType = f64, name: str = "x") -> Value:
    return Value(Type(dtype, shape), name=name)


def number(value: float, dtype: DType = f64) -> Value:
    return ops.constant(value=Literal.of(value, dtype))


def run(inputs: Sequence[Value], outputs: Sequence[Value], *arrays: object) -> list[np.ndarray]:
    graph = Graph("g", inputs, outputs)
    verify(graph, "autodiff")
    with np.errstate(all="ignore"):
        return reference.run(
            graph, [np.asarray(a, v.dtype.numpy) for a, v in zip(arrays, inputs, strict=True)]
        )


def gradient(y: Value, *wrt: Value) -> list[Value | None]:
    """The gradients of the sum of `y`."""
    one = number(1.0, y.dtype)
    return vjp([y], [ops.expand(one, shape=y.shape) if y.rank else one], wrt)


def test_a_value_used_twice_gets_both_gradients() -> None:
    x = tensor()
    (g,) = gradient(ops.add(ops.mul(x, x), ops.sin(x)), x)
    assert run([x], [g], 2.0)[0] == pytest.approx(4 + np.cos(2.0))


def test_one_operand_in_two_places_of_a_composite() -> None:
    x, m = tensor(2, 3), tensor(3, name="m")
    # (x - m) / sqrt(m), differentiated through its decomposition
    y = ops.batch_norm(x, m, m, eps=0.0)
    (gm,) = gradient(y, m)
    assert run([x, m], [gm], np.ones((2, 3)), np.full(3, 4.0))[0] == pytest.approx([-5 / 8] * 3)
    _, first, second = pullback(y.node, [ops.expand(number(1.0), shape=(2, 3))])
    assert first is not None and second is None, "the whole gradient stands at the first place"


def test_an_earlier_value_sees_through_a_later_one() -> None:
    x = tensor()
    y = ops.mul(x, number(3.0))
    z = ops.mul(y, x)
    gx, gy = gradient(z, x, y)
    found = run([x], [gx, gy], 5.0)
    assert found == [pytest.approx(30.0), pytest.approx(5.0)]


def test_a_pullback_stops_at_the_operands() -> None:
    x = tensor(3)
    y = ops.exp(x)
    node = ops.logaddexp(x, y).node  # y comes from x, but these are the partial derivatives
    seed = tensor(3, name="seed")
    gx, gy = pullback(node, [seed])
    a = np.array([0.1, 0.2, 0.3])
    found = run([x, seed], [gx, gy], a, np.ones(3))
    total = np.exp(a) + np.exp(np.exp(a))
    np.testing.assert_allclose(found[0], np.exp(a) / total)
    np.testing.assert_allclose(found[1], np.exp(np.exp(a)) / total)


def test_no_path_is_no_gradient() -> None:
    x, y = tensor(2), tensor(2, name="y")
    assert gradient(ops.exp(x), y) == [None]
    assert gradient(ops.mul(ops.detach(x), y), x) == [None]
    assert gradient(ops.cast(ops.argmax(x, dim=0, keepdim=False), dtype=f64), x) == [None]
    assert gradient(x, x)[0] is not None, "an output may be what is asked for"
    assert vjp([ops.exp(x)], [None], [x]) == [None]


def test_integers_have_no_gradient() -> None:
    x, index = tensor(5), tensor(2, dtype=i64, name="i")
    gx, gi = gradient(ops.index_select(x, index, dim=0), x, index)
    assert gi is None
    np.testing.assert_array_equal(run([x, index], [gx], np.arange(5.0), [1, 1])[0], [0, 2, 0, 0, 0])


def test_only_what_is_asked_for_is_built() -> None:
    x, w = tensor(3, 4), tensor(4, 5, name="w")
    (g,) = gradient(ops.relu(ops.matmul(x, w)), w)
    graph = Graph("g", [x, w], [g])
    # forward, and one of the two backward products
    assert sum(n.op is ops.matmul for n in graph.nodes) == 2


def test_several_outputs_of_one_node() -> None:
    x = tensor(4)
    values, indices = ops.sort(x, dim=0, descending=False)
    weights = ops.cast(indices, dtype=f64)
    (g,) = gradient(ops.mul(values, weights), x)
    np.testing.assert_array_equal(run([x], [g], [3.0, 1.0, 2.0, 0.0])[0], [0, 1, 2, 3])


def test_the_second_derivative() -> None:
    x = tensor()
    y = ops.mul(ops.sin(x), ops.exp(x))
    (first,) = gradient(y, x)
    (second,) = gradient(first, x)
    assert run([x], [second], 0.3)[0] == pytest.approx(2 * np.exp(0.3) * np.cos(0.3))


def test_nodes_belong_to_the_line_they_differentiate() -> None:
    x = tensor(3)
    with located(Location("model.py", 3)):
        y = ops.exp(x)
    with located(Location("model.py", 4)):
        z = ops.sum(ops.mul(y, y), dims=(0,), keepdim=False)
    (g,) = gradient(z, x)
    lines = {n.location.line for n in Graph("g", [x], [g]).nodes if n.location}
    assert lines == {3, 4}
    assert g.node.location == ("model.py", 3)


def test_a_cotangent_of_another_type_is_refused() -> None:
    x = tensor(3)
    with pytest.raises(TypeError, match=r"cotangent of an output f64\[3\] has type f64\[\]"):
        vjp([ops.exp(x)], [number(1.0)], [x])


def test_a_wrong_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Op(
        "wrong_rule",
        "For this test.",
        ("x",),
        infer=lambda a, x: (x,),
        vjp=lambda node, g: (ops.sum(g, dims=(0,), keepdim=False),),
        reference=lambda a, x: x,
        kind=Kind.POINTWISE,
        weight=Weight.PLAIN,
        batch=NoBatch("is not mapped here"),
    )
    try:
        x = tensor(3)
        with pytest.raises(
            TypeError, match=r"vjp of op wrong_rule made a gradient f64\[\] for operand 0"
        ):
            gradient(wrong(x), x)
    finally:
        del OPS["wrong_rule"]


def test_no_rule_means_none() -> None:
    assert isinstance(ops.floor_div.vjp, NoGradient) or callable(ops.floor_div.vjp)
    x = tensor(2)
    assert pullback(ops.argmax(x, dim=0, keepdim=False).node, [None]) == (None,)


@pytest.mark.parametrize("seed", range(40))
def test_gradients_of_random_graphs_are_valid(seed: int) -> None:
    """Every gradient has its input's type, and the graph of it verifies and runs."""
    generator = Generator(1000 + seed)
    graph = generator.graph(12)
    outputs = [v for v in graph.outputs if v.dtype.is_floating_point]
    wrt = [v for v in graph.inputs if v.dtype.is_floating_point]
    seeds = [ops.expand(number(1.0, v.dtype), shape=v.shape) for v in outputs]
    found = [g for g in vjp(outputs, seeds, wrt) if g is not None]
    run(graph.inputs, found, *generator.arrays(seed))


def test_a_line_of_differences() -> None:
    """One composed function against central differences."""
    x, w = tensor(4, 6), tensor(6, 3, name="w")
    y = ops.log_softmax(ops.layer_norm(ops.tanh(ops.matmul(x, w)), axes=1, eps=1e-3), dim=1)
    loss = ops.sum(ops.mul(y, ops.sin(y)), dims=(0, 1), keepdim=False)
    grads = gradient(loss, x, w)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 6)), rng.normal(size=(6, 3))
    found = run([x, w], grads, a, b)

    def value(a: np.ndarray, b: np.ndarray) -> float:
        return float(run([x, w], [loss], a, b)[0])

    for array, slope in ((a, found[0]), (b, found[1])):
        for position in ((0, 0), (3, 2), (1, 1)):
            array[position] += 1e-5
            high = value(a, b)
            array[position] -= 2e-5
            low = value(a, b)
            array[position] += 1e-5
            assert slope[position] == pytest.approx((high - low) / 2e-5, rel=1e-5, abs=1e-8)


def test_f32_stays_f32() -> None:
    x = tensor(3, dtype=f32)
    (g,) = gradient(ops.gelu(x, approximate="tanh"), x)
    assert g.type is x.type


def test_a_template_makes_what_the_rule_makes_and_comes_with_the_second_time() -> None:
    x, y = (
        tensor(2, 5),
        tensor(5, name="y"),
    )  # types that no other test has: what came before counts
    wanted = (False, True)

    def pulled() -> tuple[Value, Value, tuple[Value | None, ...]]:
        product = ops.mul(ops.sin(x), y)
        given = ops.expand(number(2.0), shape=(2, 5))
        return product, given, pullback(product.node, [given], wanted)

    product, given, first = pulled()
    assert template_of(product.node, (True,), wanted) is None
    pulled()
    template = template_of(product.node, (True,), wanted)
    assert template is not None and template_of(product.node, (True,), (True, True)) is None
    none, found = template.apply(product.node, [given])
    assert none is None and found is not None and first[1] is not None
    arrays = np.arange(10.0).reshape(2, 5), np.arange(5.0)
    np.testing.assert_array_equal(
        run([x, y], [found], *arrays)[0], run([x, y], [first[1]], *arrays)[0]
    )
