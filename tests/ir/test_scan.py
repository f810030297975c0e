"""`scan`, `cond` and `while_loop`: meaning, gradients, text, checks, and what passes do inside of
them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean, f64, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Node, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.ops.control import CondAttrs
from graphtorch.ir.ops.scan_grad import ScanAttrs
from graphtorch.ir.passes import dce, nested, pipeline, simplify
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol
from graphtorch.ir.text import parse
from graphtorch.ir.verify import VerifyError, verify
from recurrences import BODIES, arrays_for, gru, looped, value


def with_gradients(graph: Graph, only: int | None = None) -> Graph:
    """The outputs of `graph` (or one), then the gradients of all inputs for further inputs as
    cotangents."""
    outputs = list(graph.outputs) if only is None else [graph.outputs[only]]
    given = [Value(v.type, name=f"{graph.name}_c{i}") for i, v in enumerate(outputs)]
    found = [g for g in vjp(outputs, given, graph.inputs) if g is not None]
    return Graph(f"{graph.name}_both", [*graph.inputs, *given], [*outputs, *found])


def numerically(graph: Graph, arrays: list[np.ndarray], outputs: int, index: int) -> np.ndarray:
    """The gradient of input `index` by central differences; the last inputs are the cotangents."""
    plain = graph.with_outputs(graph.outputs[:outputs])
    found = np.zeros_like(arrays[index])
    for place in np.ndindex(*found.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = [a.copy() for a in arrays]
            moved[index][place] += step
            results = zip(evaluate(plain, moved), arrays[-outputs:], strict=True)
            ends.append(sum((y * c).sum() for y, c in results))
        found[place] = (ends[0] - ends[1]) / 2e-6
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_gradients(name: str, reverse: bool) -> None:
    build, carries = BODIES[name]
    graph = looped(build(), carries, 4, reverse)
    both = with_gradients(graph)
    verify(both)
    assert parse(str(both)) == both
    arrays = arrays_for(both)
    count = len(graph.outputs)
    for i, found in enumerate(evaluate(both, arrays)[count:]):
        np.testing.assert_allclose(found, numerically(both, arrays, count, i), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("only", [0, 1, 2])
def test_gradient_of_one_result(only: int) -> None:
    both = with_gradients(looped(gru(), 1, 3), only)
    arrays = arrays_for(both)
    for i, found in enumerate(evaluate(both, arrays)[1:]):
        np.testing.assert_allclose(found, numerically(both, arrays, 1, i), rtol=1e-6, atol=1e-7)


def test_double_backward() -> None:
    once = with_gradients(looped(gru(), 1, 3), only=0)
    twice = with_gradients(once, only=1)
    verify(twice)
    arrays = arrays_for(twice)
    for i, found in enumerate(evaluate(twice, arrays)[1:]):
        np.testing.assert_allclose(found, numerically(twice, arrays, 1, i), rtol=1e-5, atol=1e-7)


def test_no_steps_hand_the_carry_through() -> None:
    both = with_gradients(looped(gru(), 1, 0))
    arrays = arrays_for(both)
    found = evaluate(both, arrays)
    np.testing.assert_array_equal(found[0], arrays[0])
    np.testing.assert_array_equal(found[6], arrays[4])  # d h0 is the cotangent of the final carry
    assert found[7].shape == (0, 3, 6) and not found[8].any()


# ---------------------------------------------------------------------------------------- structure


def loops(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op is ops.scan]


def contractions(graph: Graph) -> int:
    return sum(n.op is ops.matmul for n in graph.nodes)


def body_of(node: Node) -> Graph:
    assert isinstance(node.attrs, ScanAttrs)
    return node.attrs.body


def test_saved_values_spare_the_backward_loop_every_product_of_the_forward() -> None:
    forward, backward = loops(dce.run(with_gradients(looped(gru(), 1, 4), only=0)))
    assert contractions(body_of(forward)) == contractions(body_of(backward)) == 1
    assert "sigmoid" not in str(body_of(backward)) and "tanh" not in str(body_of(backward))


def test_without_saved_carries_the_forward_loop_runs_again() -> None:
    first, again, backward = loops(dce.run(with_gradients(looped(gru(saves=False), 1, 4), only=0)))
    assert len(first.types) == 1 and len(again.types) == 3 and contractions(body_of(backward)) == 2


def test_gradient_of_a_weight_is_one_product_after_the_loop() -> None:
    graph = dce.run(with_gradients(looped(gru(), 1, 4)))
    assert all(a.shape != (6, 2) for n in loops(graph) for a in body_of(n).outputs)
    assert contractions(graph) == 1


def test_gradient_of_another_weight_is_added_up() -> None:
    backward = loops(dce.run(with_gradients(looped(BODIES["convolved"][0](), 1, 4))))[-1]
    assert backward.attrs.carries == 2  # type: ignore[attr-defined]


def test_dead_results_go_and_take_idle_carries_and_operands_along() -> None:
    a, b, x = value("a"), value("b"), value("x")
    body = Graph("two", [a, b, x], [ops.add(a, x), ops.mul(b, b), ops.neg(x), ops.add(a, b)])
    inputs = [value("a0"), value("b0"), value("xs", 3)]
    results = ops.scan(*inputs, body=body, carries=2, stacked=1, length=3)
    (kept,) = loops(dce.run(Graph("g", inputs, [results[0]])))
    assert kept.operands == (inputs[0], inputs[2]) and len(kept.types) == 1
    (kept,) = loops(dce.run(Graph("g", inputs, [results[3]])))
    assert len(kept.operands) == 3 and kept.attrs.carries == 2  # type: ignore[attr-defined]
    assert loops(dce.run(Graph("g", inputs, [inputs[0]]))) == []


def test_results_that_are_the_same_are_stacked_once() -> None:
    graph = looped(*_swap())
    before = arrays_for(graph)
    shorter = dce.run(graph)
    assert len(loops(shorter)[0].types) == 2 + 3
    for a, b in zip(evaluate(graph, before), evaluate(shorter, before), strict=True):
        np.testing.assert_array_equal(a, b)


def _swap() -> tuple[Graph, int]:
    build, carries = BODIES["swap"]
    body = build()
    return Graph("swap", body.inputs, [*body.outputs, body.outputs[3]]), carries


def test_passes_run_inside() -> None:
    h, x = value("h", 2), value("x", 2)
    body = Graph("b", [h, x], [ops.neg(ops.neg(ops.add(h, x)))])
    inputs = [value("h0", 2), value("xs", 3, 2)]
    graph = Graph("g", inputs, [ops.scan(*inputs, body=body, carries=1, stacked=1, length=3)])
    (node,) = nested.everywhere(simplify.run)(graph).nodes
    assert [n.op for n in body_of(node).nodes] == [ops.add]


def test_bodies_become_regions() -> None:
    graph = pipeline.run(looped(gru(), 1), lambda node: node.op.is_core)
    inner = graph.nodes[0].attrs.body.nodes[0]  # type: ignore[attr-defined]
    assert [n.attrs.kind for n in graph.nodes] == ["control"]  # type: ignore[attr-defined]
    kinds = [n.attrs.kind for n in body_of(inner).nodes]  # type: ignore[attr-defined]
    assert kinds == ["contraction", "loop"]


@pytest.mark.parametrize("size", [0, 1, 6])
def test_symbolic_length(size: int) -> None:
    steps = symbol("steps", 0, 100)
    both = with_gradients(looped(gru(symbol("batch", 0, 9)), 1, steps))
    verify(both)
    assert parse(str(both)) == both
    static = with_gradients(looped(gru(2), 1, size))
    arrays = arrays_for(static)
    for a, b in zip(evaluate(both, arrays), evaluate(static, arrays), strict=True):
        np.testing.assert_allclose(a, b)


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carries": 5}, "carries and 1 stacked operands"),
        ({"length": 4}, "its first size must be the number of steps, 4"),
        ({"stacked": 2}, "stacked operand 1"),
    ],
)
def test_operands_that_do_not_fit(change: dict[str, int], message: str) -> None:
    node = looped(gru(), 1).nodes[0]
    with pytest.raises((TypeError, RuntimeError), match=message):
        ops.scan.node(node.operands, dataclasses.replace(node.attrs, **change))  # type: ignore[type-var]


def test_a_carry_keeps_its_type() -> None:
    h = value("h", 2)
    body = Graph("grows", [h], [ops.concat(h, h, dim=0)])
    with pytest.raises(TypeError, match="a carry keeps its shape and dtype"):
        ops.scan(value("h0", 2), body=body, carries=1, stacked=0, length=3)


def test_the_body_takes_the_slices() -> None:
    with pytest.raises(TypeError, match="the body takes"):
        ops.scan(*[value("x", 2)] * 4, body=gru(), carries=1, stacked=0, length=2)


def test_verifier_looks_into_bodies() -> None:
    graph = looped(gru(), 1)
    node = graph.nodes[0]
    attrs = node.attrs
    assert isinstance(attrs, ScanAttrs)
    broken = Graph("gru", attrs.body.inputs, attrs.body.outputs, attrs.body.nodes[1:])
    wrong = Node(ops.scan, node.operands, dataclasses.replace(attrs, body=broken), node.types)
    with pytest.raises(VerifyError, match="in scan"):
        verify(Graph("g", graph.inputs, [wrong.result(0)], [wrong]))


# -------------------------------------------------------------------------------------- cond, while


def conditional() -> Graph:
    p, x, y = Value(Type(boolean), name="p"), value("x", 3), value("y", 3)
    a, b = value("a", 3), value("b", 3)
    then = Graph("then", [a, b], [ops.mul(a, b), a])
    orelse = Graph("orelse", [a, b], [ops.exp(b), ops.neg(b)])
    return Graph("g", [p, x, y], list(ops.cond(p, x, y, then=then, orelse=orelse)))


@pytest.mark.parametrize("truth", [False, True])
def test_cond(truth: bool) -> None:
    graph = conditional()
    given = [Value(v.type, name=f"c{i}") for i, v in enumerate(graph.outputs)]
    found = vjp(graph.outputs, given, graph.inputs[1:])
    both = Graph("both", [*graph.inputs, *given], [*graph.outputs, *found])
    verify(both)
    assert parse(str(both)) == both
    x, y, c, d = np.random.default_rng(0).standard_normal((4, 3))
    expected = [x * y, x, c * y + d, c * x] if truth else [np.exp(y), -y, 0 * x, c * np.exp(y) - d]
    for a, b in zip(evaluate(both, [np.array(truth), x, y, c, d]), expected, strict=True):
        np.testing.assert_allclose(a, b)


def test_cond_drops_what_neither_side_needs() -> None:
    graph = conditional()
    shorter = dce.run(graph.with_outputs(graph.outputs[1:]))
    assert len(shorter.nodes[0].types) == 1 and len(shorter.nodes[0].operands) == 3


def test_branches_return_the_same_types() -> None:
    p, x = Value(Type(boolean), name="p"), value("x", 3)
    other = Graph("other", [x], [ops.sum(x, dims=(0,), keepdim=False)])
    with pytest.raises(TypeError, match="both must return the same types"):
        ops.cond.node((p, value("y", 3)), CondAttrs(Graph("same", [x], [x]), other))
    with pytest.raises(
        RuntimeError, match="expected the predicate to be a bool without dimensions"
    ):
        ops.cond.node((value("q"), value("y", 3)), CondAttrs(other, other))


def halving() -> Graph:
    """Halves x until its sum is at most `limit`; counts the steps."""
    x, n, limit = value("x", 3), Value(Type(i64), name="n"), value("limit")
    test = Graph("test", [x, n, limit], [ops.gt(ops.sum(x, dims=(0,), keepdim=False), limit)])
    half, one = (ops.constant(value=Literal.of(v, t)) for v, t in ((0.5, f64), (1, i64)))
    body = Graph("body", [x, n, limit], [ops.mul(x, half), ops.add(n, one)])
    inputs = [value("x0", 3), Value(Type(i64), name="n0"), value("limit0")]
    return Graph("g", inputs, list(ops.while_loop(*inputs, test=test, body=body, carries=2)))


@pytest.mark.parametrize(("start", "steps"), [(0.1, 0), (8.0, 4)])
def test_while_loop(start: float, steps: int) -> None:
    graph = halving()
    verify(graph)
    assert parse(str(graph)) == graph
    x, n = evaluate(graph, [np.full(3, start), np.array(0), np.array(2.0)])
    assert n == steps and np.allclose(x, start / 2**steps)


def test_while_loop_says_that_it_has_no_gradient() -> None:
    graph = halving()
    with pytest.raises(RuntimeError, match=r"while_loop has no gradient.*Use scan"):
        vjp(graph.outputs[:1], [value("c", 3)], graph.inputs[:1])
