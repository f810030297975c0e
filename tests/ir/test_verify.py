"""Corrupted graphs, one rule broken each: the verifier names the rule, the node and the user's
line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean, f32, f64, i64
from graphtorch.ir.graph import Graph, Location, Node, Type, Value, located
from graphtorch.ir.op import NO_ATTRS, Attrs, Op
from graphtorch.ir.passes import pipeline
from graphtorch.ir.shape import symbol
from graphtorch.ir.verify import RULES, VerifyError, verify

LINE = Location("model.py", 7)


def x_of(*shape: int, name: str = "x") -> Value:
    return Value(Type(f32, shape), name=name)


def node(
    op: Op, *operands: Value, attrs: Attrs = NO_ATTRS, types: tuple[Type, ...] | None = None
) -> Node:
    """A node nobody checked."""
    return Node(op, operands, attrs, types or (operands[0].type,), LINE)


def graph(
    *nodes: Node,
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...] | None = None,
    donates: tuple[tuple[int, int], ...] = (),
    name: str = "g",
) -> Graph:
    return Graph(
        name, inputs, (nodes[-1].result(),) if outputs is None else outputs, nodes, donates
    )


def unregistered(name: str) -> Op:
    op = object.__new__(Op)
    op.__dict__.update(vars(ops.neg), name=name)
    return op


def sized(low: int, high: int) -> Value:
    return Value(Type(f32, (symbol("n", low, high),)), name=f"x{high}")


def undefined_operand() -> Graph:
    x = x_of(2)
    return graph(node(ops.neg, x_of(2)), inputs=(x,))


def used_before_defined() -> Graph:
    x = x_of(2)
    first = node(ops.neg, x)
    second = node(ops.exp, first.result())
    return graph(second, first, inputs=(x,))


def node_twice() -> Graph:
    x = x_of(2)
    first = node(ops.neg, x)
    return graph(first, first, inputs=(x,))


def foreign_op() -> Graph:
    return graph(node(unregistered("neg"), x := x_of(2)), inputs=(x,))


def unknown_op() -> Graph:
    return graph(node(unregistered("no_such_op"), x := x_of(2)), inputs=(x,))


def too_few_operands() -> Graph:
    return graph(node(ops.add, x := x_of(2)), inputs=(x,))


def too_many_operands() -> Graph:
    return graph(node(ops.neg, x := x_of(2), x), inputs=(x,))


def wrong_attrs() -> Graph:
    return graph(node(ops.reshape, x := x_of(2)), inputs=(x,))


def unprintable_attribute() -> Graph:
    return graph(node(ops.reshape, x := x_of(2), attrs=ops.reshape.attrs(shape=[2])), inputs=(x,))


def senseless_attribute() -> Graph:
    return graph(
        node(ops.permute, x := x_of(2, 3), attrs=ops.permute.attrs(dims="ab")), inputs=(x,)
    )


def refused_by_inference() -> Graph:
    a, b = x_of(2), x_of(3, name="b")
    return graph(node(ops.add, a, b), inputs=(a, b))


def mixed_dtypes() -> Graph:
    a, b = x_of(2), Value(Type(f64, (2,)), name="b")
    return graph(node(ops.add, a, b), inputs=(a, b))


def wrong_shape() -> Graph:
    return graph(node(ops.neg, x := x_of(2), types=(Type(f32, (3,)),)), inputs=(x,))


def wrong_dtype() -> Graph:
    return graph(node(ops.isnan, x := x_of(2), types=(Type(f32, (2,)),)), inputs=(x,))


def missing_result() -> Graph:
    x = x_of(4)
    return graph(node(ops.sort, x, attrs=ops.sort.attrs(dim=0, descending=False)), inputs=(x,))


def wrong_result_index() -> Graph:
    x = x_of(2)
    made = node(ops.neg, x)
    return graph(made, inputs=(x,), outputs=(Value(x.type, made, 0), Value(x.type, made, 1)))


def wrong_value_type() -> Graph:
    x = x_of(2)
    made = node(ops.neg, x)
    return graph(made, inputs=(x,), outputs=(Value(Type(f64, (2,)), made, 0),))


def two_inputs_of_one_name() -> Graph:
    a, b = x_of(2), x_of(2)
    return graph(node(ops.add, a, b), inputs=(a, b))


def unnamed_input() -> Graph:
    return graph(node(ops.neg, x := x_of(2, name="")), inputs=(x,))


def unnamed_graph() -> Graph:
    return graph(node(ops.neg, x := x_of(2)), inputs=(x,), name="")


def result_as_input() -> Graph:
    x = ops.neg(x_of(2))
    return graph(node(ops.exp, x), inputs=(x,))


def undefined_output() -> Graph:
    return graph(node(ops.neg, x := x_of(2)), inputs=(x,), outputs=(x_of(2, name="y"),))


def dropped_node() -> Graph:
    x = x_of(2)
    return graph(inputs=(x,), outputs=(ops.neg(x),))


def symbol_of_two_ranges() -> Graph:
    a, b = sized(1, 8), sized(1, 9)
    return graph(node(ops.neg, a), inputs=(a, b))


def symbol_of_another_range_in_attributes() -> Graph:
    n, m = symbol("n", 1, 8), symbol("n", 2, 8)
    x = Value(Type(f32, (n,)), name="x")
    return graph(
        node(
            ops.iota, attrs=ops.iota.attrs(shape=(m,), dim=0, dtype=i64), types=(Type(i64, (m,)),)
        ),
        inputs=(x,),
    )


def negative_size() -> Graph:
    x = Value(Type(f32, (-2,)), name="x")
    return graph(node(ops.neg, x), inputs=(x,))


def donation_of_no_input() -> Graph:
    return graph(node(ops.neg, x := x_of(2)), inputs=(x,), donates=((0, 1),))


def donation_to_no_output() -> Graph:
    return graph(node(ops.neg, x := x_of(2)), inputs=(x,), donates=((1, 0),))


def input_donated_twice() -> Graph:
    x = x_of(2)
    made = node(ops.neg, x)
    return graph(
        made, inputs=(x,), outputs=(made.result(), made.result()), donates=((0, 0), (1, 0))
    )


def donation_of_another_type() -> Graph:
    made = node(ops.isnan, x := x_of(2), types=(Type(boolean, (2,)),))
    return graph(made, inputs=(x,), donates=((0, 0),))


def corrupt_body() -> Graph:
    inner = x_of(2)
    body = graph(node(ops.neg, inner, types=(Type(f32, (3,)),)), inputs=(inner,))
    x = x_of(2)
    region = node(
        ops.region, x, attrs=ops.region.attrs(kind="loop", body=body), types=(Type(f32, (3,)),)
    )
    return graph(region, inputs=(x,))


def body_of_other_inputs() -> Graph:
    inner = x_of(3)
    body = graph(node(ops.neg, inner), inputs=(inner,))
    x = x_of(2)
    return graph(node(ops.region, x, attrs=ops.region.attrs(kind="loop", body=body)), inputs=(x,))


BROKEN: list[tuple[Callable[[], Graph], str, str]] = [
    (undefined_operand, "order", "neg"),
    (used_before_defined, "order", "exp"),
    (node_twice, "once", "neg"),
    (foreign_op, "op", "neg"),
    (unknown_op, "op", "no_such_op"),
    (too_few_operands, "arity", "add"),
    (too_many_operands, "arity", "neg"),
    (wrong_attrs, "attrs", "reshape"),
    (unprintable_attribute, "attrs", "reshape"),
    (senseless_attribute, "infer", "permute"),
    (refused_by_inference, "infer", "add"),
    (mixed_dtypes, "infer", "add"),
    (wrong_shape, "types", "neg"),
    (wrong_dtype, "types", "isnan"),
    (missing_result, "types", "sort"),
    (wrong_result_index, "outputs", ""),
    (wrong_value_type, "value", ""),
    (two_inputs_of_one_name, "name", ""),
    (unnamed_input, "name", ""),
    (unnamed_graph, "name", ""),
    (result_as_input, "input", ""),
    (undefined_output, "outputs", ""),
    (dropped_node, "outputs", ""),
    (symbol_of_two_ranges, "symbols", ""),
    (symbol_of_another_range_in_attributes, "symbols", "iota"),
    (negative_size, "sizes", ""),
    (donation_of_no_input, "donates", ""),
    (donation_to_no_output, "donates", ""),
    (input_donated_twice, "donates", ""),
    (donation_of_another_type, "donates", ""),
    (corrupt_body, "types", "neg"),
    (body_of_other_inputs, "infer", "region"),
]


@pytest.mark.parametrize(("make", "rule", "op"), BROKEN, ids=[b[0].__name__ for b in BROKEN])
def test_a_broken_rule_is_named(make: Callable[[], Graph], rule: str, op: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(make(), "a pass")
    assert caught.value.rule == rule
    message = str(caught.value)
    assert "a pass" in message and RULES[rule] in message
    if op:
        assert f"= {op}(" in message, "the node as printed"
        assert "model.py:7" in message, "the user's line"


def test_enough_kinds_are_refused() -> None:
    assert len(BROKEN) >= 20
    assert {rule for _, rule, _ in BROKEN} == set(RULES) - {"legal"}


def test_an_op_out_of_place_is_named() -> None:
    with located(LINE):
        y = ops.softmax(x_of(2, 3), dim=1)
    g = Graph("g", [y.node.operands[0]], [y])
    pattern = r"(?s)softmax is not legal here.*%0 = softmax\(%x\).*model\.py:7"
    with pytest.raises(VerifyError, match=pattern) as caught:
        verify(g, "legalize", legal=lambda n: n.op is not ops.softmax)
    assert caught.value.rule == "legal"


def test_the_pipeline_names_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    x = x_of(2)
    monkeypatch.setattr(pipeline.fold, "run", lambda g: g.with_outputs([x_of(5)], g.nodes))
    with pytest.raises(VerifyError, match="after fold,"):
        pipeline.run(Graph("g", [x], [ops.neg(x)]), lambda n: True)


def test_valid_graphs_pass() -> None:
    x = sized(1, 8)
    verify(Graph("g", [x], [ops.add(x, x), x], donates=[(0, 0)]))
