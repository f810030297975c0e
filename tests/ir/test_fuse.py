"""What belongs into one region: golden texts of known programs, and the rules one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphtorch.backends import reference
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f32, i64
from graphtorch.ir.graph import Graph, Node, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import autodiff, pipeline
from graphtorch.ir.shape import symbol

Golden = Callable[[str, str], None]


def tensor(name: str, *shape: object, dtype: DType = f32) -> Value:
    return Value(Type(dtype, shape), name=name)


def number(value: float, dtype: DType = f32) -> Value:
    return ops.constant(value=Literal.of(value, dtype))


def compiled(outputs: Sequence[Value] | Value, inputs: Sequence[Value]) -> Graph:
    outputs = [outputs] if isinstance(outputs, Value) else list(outputs)
    return pipeline.run(Graph("f", inputs, outputs), lambda n: n.op.is_core, "a core machine")


def regions(graph: Graph) -> list[tuple[str, list[str]]]:
    """For each region its kind and its ops, free ones left out."""
    free = ("constant", "reshape", "expand", "permute", "slice", "iota", "flip", "size")
    return [
        (n.attrs.kind, [m.op.name for m in n.attrs.body.nodes if m.op.name not in free])
        for n in graph.nodes
        if n.op is ops.region
    ]


def linear(x: Value, w: Value, b: Value) -> Value:
    return ops.add(ops.matmul(x, ops.permute(w, dims=(1, 0))), b)


def gradients(loss: Value, wrt: Sequence[Value]) -> list[Value]:
    found = autodiff.vjp([loss], [number(1.0)], wrt)
    assert all(g is not None for g in found)
    return [g for g in found if g is not None]


def conv(x: Value, w: Value, b: Value | None = None, padding: int = 1) -> Value:
    operands = (x, w) if b is None else (x, w, b)
    return ops.conv(
        *operands, stride=(1, 1), padding=((padding, padding),) * 2, dilation=(1, 1), groups=1
    )


# ----------------------------------------------------------------------------------------- programs


def softmax() -> Graph:
    x = tensor("x", 64, 128)
    return compiled(ops.softmax(ops.mul(x, number(0.125)), dim=1), [x])


def layer_norm() -> Graph:
    x, w, b = tensor("x", symbol("n", 1, 64), 128), tensor("w", 128), tensor("b", 128)
    return compiled(ops.layer_norm(x, w, b, axes=1, eps=1e-5), [x, w, b])


def mlp() -> Graph:
    x, w, b, v, c = (
        tensor("x", 64, 784),
        tensor("w", 128, 784),
        tensor("b", 128),
        tensor("v", 10, 128),
        tensor("c", 10),
    )
    return compiled(linear(ops.relu(linear(x, w, b)), v, c), [x, w, b, v, c])


def mlp_backward() -> Graph:
    x, w, b, v, c = (
        tensor("x", 64, 784),
        tensor("w", 128, 784),
        tensor("b", 128),
        tensor("v", 10, 128),
        tensor("c", 10),
    )
    target = tensor("t", 64, dtype=i64)
    logits = linear(ops.relu(linear(x, w, b)), v, c)
    loss = ops.cross_entropy(
        logits, target, reduction="mean", ignore_index=-100, label_smoothing=0.0
    )
    return compiled([loss, *gradients(loss, [w, b, v, c])], [x, w, b, v, c, target])


def batch_norm_train() -> Graph:
    x, w, b = tensor("x", 32, 16, 14, 14), tensor("w", 16), tensor("b", 16)
    y, mean, var = ops.batch_norm_train(x, w, b, eps=1e-5)
    return compiled([ops.relu(y), mean, var], [x, w, b])


def adam() -> Graph:
    p, g, m, v = (tensor(n, 128, 784) for n in "pgmv")
    lr, c1, c2 = tensor("lr"), tensor("c1"), tensor("c2")
    m2 = ops.add(ops.mul(m, number(0.9)), ops.mul(g, number(0.1)))
    v2 = ops.add(ops.mul(v, number(0.999)), ops.mul(ops.mul(g, g), number(0.001)))
    step = ops.div(ops.div(m2, c1), ops.add(ops.sqrt(ops.div(v2, c2)), number(1e-8)))
    graph = Graph(
        "f",
        [p, g, m, v, lr, c1, c2],
        [ops.sub(p, ops.mul(lr, step)), m2, v2],
        donates=[(0, 0), (1, 2), (2, 3)],
    )
    return pipeline.run(graph, lambda n: n.op.is_core)


def conv_bias_relu() -> Graph:
    x, w, b = tensor("x", 8, 6, 14, 14), tensor("w", 16, 6, 3, 3), tensor("b", 16)
    return compiled(ops.relu(conv(x, w, b)), [x, w, b])


def residual() -> Graph:
    x, w, v = tensor("x", 8, 16, 14, 14), tensor("w", 16, 16, 3, 3), tensor("v", 16, 16, 3, 3)
    first = ops.relu(conv(x, w))
    return compiled(ops.relu(ops.add(conv(first, v), x)), [x, w, v])


def attention() -> Graph:
    q, k, v = (tensor(n, 2, 10, 64) for n in "qkv")

    def heads(t: Value) -> Value:
        return ops.permute(ops.reshape(t, shape=(2, 10, 4, 16)), dims=(0, 2, 1, 3))

    scores = ops.matmul(heads(q), ops.permute(heads(k), dims=(0, 1, 3, 2)))
    mixed = ops.matmul(ops.softmax(ops.mul(scores, number(0.25)), dim=3), heads(v))
    return compiled(
        ops.reshape(ops.permute(mixed, dims=(0, 2, 1, 3)), shape=(2, 10, 64)), [q, k, v]
    )


PROGRAMS = [
    softmax,
    layer_norm,
    mlp,
    mlp_backward,
    batch_norm_train,
    adam,
    conv_bias_relu,
    residual,
    attention,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_golden(program: Callable[[], Graph], golden: Golden) -> None:
    golden(f"fuse_{program.__name__}", str(program()))


def test_counts_of_kernels() -> None:
    assert len(regions(softmax())) == 1
    assert len(regions(layer_norm())) == 1
    assert len(regions(mlp())) == 2
    assert len(regions(batch_norm_train())) == 1
    assert len(regions(adam())) == 1
    assert len(regions(conv_bias_relu())) == 1
    assert len(regions(residual())) == 2


# ------------------------------------------------------------------------------------------ rules


def test_an_op_is_in_one_region_only() -> None:
    x, w = tensor("x", 8, 8), tensor("w", 8, 8)
    y = ops.exp(x)
    graph = compiled(
        [ops.matmul(y, w), ops.matmul(w, y), ops.sum(y, dims=(0,), keepdim=False)], [x, w]
    )
    assert sum(names.count("exp") for _, names in regions(graph)) == 1


def test_reductions_of_different_axes_are_apart() -> None:
    x = tensor("x", 8, 9)
    y = ops.exp(x)
    graph = compiled(
        [ops.sum(y, dims=(0,), keepdim=False), ops.sum(y, dims=(1,), keepdim=False)], [x]
    )
    assert len(regions(graph)) == 2


def test_a_long_row_is_read_again_by_another_kernel() -> None:
    x = tensor("x", 1_000_000)
    graph = compiled(ops.div(x, ops.sum(x, dims=(0,), keepdim=False)), [x])
    assert regions(graph) == [("loop", ["sum"]), ("loop", ["div"])]
    short = tensor("x", 1000)
    graph = compiled(ops.div(short, ops.sum(short, dims=(0,), keepdim=False)), [short])
    assert regions(graph) == [("loop", ["sum", "div"])]


def test_an_expensive_op_is_not_repeated_for_each_broadcast_copy() -> None:
    row, x = tensor("r", 64), tensor("x", 128, 64)
    assert len(regions(compiled(ops.add(x, ops.exp(row)), [x, row]))) == 2
    assert len(regions(compiled(ops.add(x, ops.neg(row)), [x, row]))) == 1
    column = tensor("c", 128, 1)  # constant in the innermost loop
    assert len(regions(compiled(ops.add(x, ops.exp(column)), [x, column]))) == 1


def test_groups_do_not_depend_on_each_other_in_a_circle() -> None:
    x, w = tensor("x", 8, 8), tensor("w", 8, 8)
    y = ops.exp(x)  # y and z could be one loop, but the matmul lies between them
    z = ops.add(y, ops.sum(ops.matmul(y, w), dims=(0,), keepdim=True))
    graph = compiled(z, [x, w])
    assert [kind for kind, _ in regions(graph)] == ["loop", "contraction", "loop", "loop"] or [
        kind for kind, _ in regions(graph)
    ] == ["loop", "contraction", "loop"]


def test_views_of_a_contraction_are_absorbed_where_strides_express_them() -> None:
    x, w = tensor("x", 4, 6, 8), tensor("w", 8, 5)
    merged = ops.reshape(ops.permute(x, dims=(1, 0, 2)), shape=(24, 8))  # needs a copy
    assert [k for k, _ in regions(compiled(ops.matmul(merged, w), [x, w]))] == [
        "loop",
        "contraction",
    ]
    swapped = ops.permute(x, dims=(1, 0, 2))
    assert [k for k, _ in regions(compiled(ops.matmul(swapped, w), [x, w]))] == ["contraction"]
    flipped = ops.flip(x, dims=(1,))
    assert [k for k, _ in regions(compiled(ops.matmul(flipped, w), [x, w]))] == [
        "loop",
        "contraction",
    ]


def test_what_is_stored_for_a_contraction_keeps_the_order_of_its_beginning() -> None:
    """A transposed copy would be the slower one, and the contraction reads either."""
    x, w = tensor("x", 4, 32, 24), tensor("w", 128, 40)
    rows = ops.reshape(ops.permute(x, dims=(1, 0, 2)), shape=(128, 24))
    graph = compiled(ops.matmul(ops.permute(rows, dims=(1, 0)), w), [x, w])
    copy, product = [n.attrs.body for n in graph.nodes if n.op is ops.region]
    assert [str(v.type) for v in copy.outputs] == ["f32[128, 24]"]
    assert [n.op.name for n in product.nodes] == ["permute", "matmul"]


def test_reshaped_parts_that_are_stored_are_not_put_together_in_a_sum_as_well() -> None:
    x, y, w = tensor("x", 4, 64, 6), tensor("y", 64, 40), tensor("w", 64, 30)
    moved = ops.reshape(ops.permute(x, dims=(1, 0, 2)), shape=(64, 24))
    for part, kernels in (
        (moved, [["concat"], ["sum"], ["matmul"]]),
        (y, [["concat", "sum"], ["matmul"]]),
    ):
        joined = ops.concat(part, y, dim=1)
        total = ops.sum(joined, dims=(0,), keepdim=False)
        assert regions(compiled(total, [x, y])) == [("loop", ["concat", "sum"])]
        product = ops.matmul(ops.permute(joined, dims=(1, 0)), w)
        both = compiled([total, product], [x, y, w])
        assert [names for _, names in regions(both)] == kernels


def test_a_cast_is_absorbed_by_the_contraction_that_reads_it() -> None:
    x, w = tensor("x", 16, 8, dtype=bf16), tensor("w", 8, 4)
    assert regions(compiled(ops.matmul(ops.cast(x, dtype=f32), w), [x, w])) == [
        ("contraction", ["cast", "matmul"])
    ]


def test_lookups_read_from_memory() -> None:
    x, index = tensor("x", 50, 8), tensor("i", 20, dtype=i64)
    rows = ops.index_select(ops.exp(x), index, dim=0)
    assert regions(compiled(ops.neg(rows), [x, index])) == [
        ("loop", ["exp"]),
        ("loop", ["index_select", "neg"]),
    ]
    assert regions(compiled(rows, [x, index]))[1] == ("opaque", ["index_select"])


def test_a_window_takes_an_epilogue() -> None:
    x = tensor("x", 2, 3, 8, 8)
    values, indices = ops.max_pool(
        x, kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False
    )
    assert regions(compiled([ops.tanh(values), indices], [x])) == [("window", ["max_pool", "tanh"])]


def test_an_update_by_a_gradient_is_not_an_epilogue() -> None:
    """The gradient is an output; one update kernel serves all weights, and no register tile repeats
    it."""
    x, g, w, m = tensor("x", 64, 30), tensor("g", 64, 20), tensor("w", 30, 20), tensor("m", 30, 20)
    grad = ops.matmul(ops.permute(x, dims=(1, 0)), g)
    moment = ops.add(ops.mul(m, number(0.9)), grad)
    update = ops.sub(w, ops.mul(moment, number(0.1)))
    apart = [("contraction", ["matmul"]), ("loop", ["mul", "add", "mul", "sub"])]
    assert regions(compiled([grad, moment, update], [x, g, w, m])) == apart
    assert len(regions(compiled([moment, update], [x, g, w, m]))) == 1
    assert len(regions(compiled([grad, ops.relu(grad)], [x, g]))) == 1


def test_constants_with_dimensions_stay_outside() -> None:
    x = tensor("x", 3)
    graph = compiled(ops.add(x, ops.constant(value=Literal.of([1, 2, 3], f32))), [x])
    assert [n.op.name for n in graph.nodes] == ["constant", "region"]


def test_an_output_that_is_a_view_is_stored() -> None:
    x = tensor("x", 3, 4)
    graph = compiled(
        [ops.permute(ops.exp(x), dims=(1, 0)), ops.expand(number(2.0), shape=(5,))], [x]
    )
    assert len(regions(graph)) == 2
    found = reference.run(graph, [np.ones((3, 4), np.float32)])
    np.testing.assert_array_equal(found[1], np.full(5, 2, np.float32))


def test_symbolic_sizes_fuse_alike() -> None:
    n = symbol("n", 1, 64)
    x = tensor("x", n, 10)
    graph = compiled(ops.log_softmax(ops.reshape(ops.neg(x), shape=(n, 10)), dim=1), [x])
    assert len(regions(graph)) == 1


def deep(layers: int) -> Graph:
    """A training step's worth of nodes."""
    x = tensor("x", 32, 64)
    weights = [tensor(f"w{i}", 64, 64) for i in range(layers)]
    biases = [tensor(f"b{i}", 64) for i in range(layers)]
    y = x
    for w, b in zip(weights, biases, strict=True):
        y = ops.add(
            ops.gelu(ops.layer_norm(linear(y, w, b), axes=1, eps=1e-5), approximate="none"), y
        )
    loss = ops.mean(ops.mul(y, y), dims=(0, 1), keepdim=False)
    return Graph("deep", [x, *weights, *biases], [loss, *gradients(loss, [*weights, *biases])])


def test_three_thousand_nodes_become_a_few_regions_a_layer() -> None:
    layers = 75
    nodes: dict[str, int] = {}
    fused = pipeline.run(
        deep(layers),
        lambda n: n.op.is_core,
        on_stage=lambda name, graph: nodes.update({name: len(graph.nodes)}),
    )
    assert nodes["dce-legal"] > 3000
    regions = sum(n.op.name == "region" for n in fused.nodes)
    assert regions <= 7 * layers, regions


def test_every_node_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = deep(2)
    stages: dict[str, Graph] = {}
    fused = pipeline.run(graph, lambda n: n.op.is_core, on_stage=stages.__setitem__)

    def heavy(nodes: Sequence[Node]) -> list[str]:
        free = ("constant", "reshape", "expand", "permute", "slice", "iota", "flip", "size")
        return sorted(n.op.name for n in nodes if n.op.name not in free)

    inside = [m for n in fused.nodes if n.op is ops.region for m in n.attrs.body.nodes]
    assert heavy(inside) == heavy(stages["dce-legal"].nodes)
