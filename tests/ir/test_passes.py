"""simplify, fold, cse, dce, detach, legalize, and the order they run in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphtorch.backends import reference
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, boolean, c64, f16, f32, f64, i8, i16, i32, i64, u8
from graphtorch.ir.graph import Graph, Location, Node, Type, Value, located
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import cse, dce, detach, fold, legalize, pipeline, pools, simplify
from graphtorch.ir.rewrite import rewrite, rewrite_until_stable
from graphtorch.ir.shape import symbol

SPECIAL = [0.0, -0.0, 1.0, -1.5, 3e38, 1e-40, math.inf, -math.inf, math.nan]


def tensor(*shape: object, dtype: DType = f32, name: str = "x") -> Value:
    return Value(Type(dtype, shape), name=name)


def number(value: float, dtype: DType = f32) -> Value:
    return ops.constant(value=Literal.of(value, dtype))


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def special_values(type: Type) -> np.ndarray:
    shape = tuple(int(d) for d in type.shape)
    if type.dtype.kind >= f32.kind:
        source = np.array(SPECIAL)
    else:
        source = np.array([0, 1, 1] if type.dtype.is_bool else [0, 1, 255, 3, 128, 7])
    with np.errstate(all="ignore"):
        return np.resize(source, shape).astype(type.dtype.numpy)


def simplified(make: Callable[..., Value], *inputs: Value) -> Graph:
    """The simplified graph, after checking that it gives the same bits on awkward numbers."""
    inputs = tuple(Value(v.type, name=f"x{i}") for i, v in enumerate(inputs))
    graph = Graph("g", inputs, [make(*inputs)])
    result = simplify.run(graph)
    arrays = [special_values(v.type) for v in inputs]
    with np.errstate(all="ignore"):
        before, after = reference.run(graph, arrays), reference.run(result, arrays)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
        if a.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))
    return result


X, N, B = tensor(9), tensor(6, dtype=i32), tensor(6, dtype=boolean)
M = tensor(4, 6)

GONE: list[tuple[str, Callable[..., Value], Value]] = [
    ("x + -0", lambda x: ops.add(x, number(-0.0)), X),
    ("-0 + x", lambda x: ops.add(number(-0.0), x), X),
    ("n + 0", lambda x: ops.add(x, number(0, i32)), N),
    ("x - 0", lambda x: ops.sub(x, number(0.0)), X),
    ("x * 1", lambda x: ops.mul(x, number(1.0)), X),
    ("1 * x, expanded", lambda x: ops.mul(ops.expand(number(1.0), shape=(9,)), x), X),
    ("x / 1", lambda x: ops.div(x, number(1.0)), X),
    ("x ** 1", lambda x: ops.pow(x, number(1.0)), X),
    ("--x", lambda x: ops.neg(ops.neg(x)), X),
    ("not not b", lambda x: ops.logical_not(ops.logical_not(x)), B),
    ("b and true", lambda x: ops.logical_and(x, number(True, boolean)), B),
    ("b or false", lambda x: ops.logical_or(number(False, boolean), x), B),
    ("n ^ 0", lambda x: ops.bitwise_xor(x, number(0, i32)), N),
    ("max(x, x)", lambda x: ops.maximum(x, x), X),
    ("where(b, x, x)", lambda x: ops.where(ops.isnan(x), x, x), X),
    ("where(true, x, y)", lambda x: ops.where(number(True, boolean), x, ops.neg(x)), X),
    ("same cast", lambda x: ops.cast(x, dtype=f32), X),
    ("there and back", lambda x: ops.cast(ops.cast(x, dtype=f64), dtype=f32), X),
    ("n to i64 and back", lambda x: ops.cast(ops.cast(x, dtype=i64), dtype=i32), N),
    ("reshape back", lambda x: ops.reshape(ops.reshape(x, shape=(24,)), shape=(4, 6)), M),
    ("transposed twice", lambda x: ops.permute(ops.permute(x, dims=(1, 0)), dims=(1, 0)), M),
    ("expand to itself", lambda x: ops.expand(x, shape=(4, 6)), M),
    ("the whole slice", lambda x: ops.slice(x, start=(0, 0), stop=(4, 6), step=(1, 1)), M),
    ("pad by nothing", lambda x: ops.pad(x, low=(0, 0), high=(0, 0), value=1.0), M),
    ("flip twice", lambda x: ops.flip(ops.flip(x, dims=(1,)), dims=(1,)), M),
    ("flip of size 1", lambda x: ops.flip(x, dims=(0,)), tensor(1, 9)),
    ("concat of one", lambda x: ops.concat(x, dim=0), M),
    (
        "concat with nothing",
        lambda x: ops.concat(x, ops.slice(x, start=(0, 0), stop=(0, 6), step=(1, 1)), dim=0),
        M,
    ),
    ("max of size 1", lambda x: ops.max(x, dims=(0,), keepdim=True), tensor(1, 9)),
]


@pytest.mark.parametrize(("make", "x"), [g[1:] for g in GONE], ids=[g[0] for g in GONE])
def test_identities_vanish(make: Callable[..., Value], x: Value) -> None:
    assert names(simplified(make, x)) == []


KEPT: list[tuple[str, Callable[..., Value], Value]] = [
    ("x + 0 turns -0 into 0", lambda x: ops.add(x, number(0.0)), X),
    ("x - -0", lambda x: ops.sub(x, number(-0.0)), X),
    ("x * 0 keeps nan", lambda x: ops.mul(x, number(0.0)), X),
    ("0 - x is not -x", lambda x: ops.sub(number(0.0), x), X),
    ("x / 3", lambda x: ops.div(x, number(3.0)), X),
    ("x / 2**-140 (its inverse is subnormal)", lambda x: ops.div(x, number(2.0**127)), X),
    ("broadcast x * 1", lambda x: ops.mul(x, ops.reshape(ops.exp(x), shape=(9, 1))), X),
    ("to a narrow type and back", lambda x: ops.cast(ops.cast(x, dtype=f16), dtype=f32), X),
    (
        "an integer through a float wraps or saturates",
        lambda x: ops.cast(ops.cast(x, dtype=f32), dtype=u8),
        tensor(6, dtype=i8),
    ),
    ("flip of other axes", lambda x: ops.flip(ops.flip(x, dims=(0,)), dims=(1,)), M),
]


@pytest.mark.parametrize(("make", "x"), [k[1:] for k in KEPT], ids=[k[0] for k in KEPT])
def test_what_only_looks_like_an_identity_stays(make: Callable[..., Value], x: Value) -> None:
    before = names(Graph("g", [x], [make(x)]))
    after = names(simplified(make, x))
    assert [n for n in after if n != "constant"] == [n for n in before if n != "constant"]


def test_multiplications_replace() -> None:
    assert names(simplified(lambda x: ops.div(x, number(8.0)), X)) == ["constant", "mul"]
    assert names(simplified(lambda x: ops.div(x, number(-0.25)), X)) == ["constant", "mul"]
    assert names(simplified(lambda x: ops.pow(x, number(2.0)), X)) == ["mul"]
    assert names(simplified(lambda x: ops.mul(x, number(-1.0)), X)) == ["neg"]
    assert names(simplified(lambda x: ops.add(ops.exp(x), ops.neg(x)), X)) == ["exp", "sub"]
    assert names(simplified(lambda x: ops.mul(x, number(0, i32)), N)) == ["constant", "expand"]
    assert names(simplified(lambda x: ops.pow(x, number(0.0)), X)) == ["constant", "expand"]


def test_views_combine() -> None:
    def sliced(x: Value) -> Value:
        first = ops.slice(x, start=(1, 0), stop=(4, 6), step=(1, 2))
        return ops.slice(first, start=(1, 1), stop=(3, 3), step=(1, 1))

    result = simplified(sliced, M)
    assert names(result) == ["slice"]
    result = simplified(
        lambda x: ops.permute(ops.permute(x, dims=(1, 2, 0)), dims=(2, 1, 0)), tensor(2, 3, 4)
    )
    assert names(result) == ["permute"]
    assert names(
        simplified(lambda x: ops.add(ops.expand(x, shape=(4, 9)), tensor_of_ones()), X)
    ) == [
        "constant",
        "expand",
        "add",
    ]


def tensor_of_ones() -> Value:
    return ops.expand(number(1.0), shape=(4, 9))


def test_a_transposed_product_needs_no_transposition() -> None:
    a, b = tensor(3, 4), tensor(4, 5)
    result = simplified(lambda a, b: ops.permute(ops.matmul(a, b), dims=(1, 0)), a, b)
    assert names(result) == ["permute", "permute", "matmul"]
    x, y = tensor(3, 4), tensor(4, 5, name="y")
    product = ops.matmul(x, y)
    both = Graph("g", [x, y], [ops.permute(product, dims=(1, 0)), product])
    assert names(simplify.run(both)) == ["matmul", "permute"], "the product itself is needed too"


def test_a_product_of_all_rows_keeps_their_dims() -> None:
    x, w = tensor(2, 3, 4), tensor(4, 5, name="w")

    def folded(x: Value, w: Value) -> Value:
        return ops.matmul(ops.reshape(x, shape=(6, 4)), w)

    result = simplified(lambda x, w: ops.reshape(folded(x, w), shape=(2, 3, 5)), x, w)
    assert names(result) == ["matmul"]
    for shape in ((3, 2, 5), (6, 5, 1)):
        other = simplified(lambda x, w, s=shape: ops.reshape(folded(x, w), shape=s), x, w)
        assert names(other) == ["reshape", "matmul", "reshape"]
    product = folded(x, w)
    both = Graph("g", [x, w], [ops.reshape(product, shape=(2, 3, 5)), product])
    assert names(simplify.run(both)) == ["reshape", "matmul", "reshape"], (
        "the product itself is needed too"
    )


def test_a_size_is_read_off_an_input() -> None:
    n = symbol("n")
    x = tensor(3, n)
    graph = simplify.run(Graph("g", [x], [ops.size(ops.exp(ops.permute(x, dims=(1, 0))), dim=0)]))
    assert (
        names(graph) == ["size"]
        and graph.nodes[0].operands == (x,)
        and graph.nodes[0].attrs.dim == 1
    )


def test_exactness_of_casts() -> None:
    exact = [(u8, f16), (i8, bf16), (bf16, f32), (f16, f32), (i32, f64), (boolean, f16), (u8, i16)]
    lossy = [
        (u8, i8),
        (i8, u8),
        (i32, f32),
        (i64, f64),
        (f16, bf16),
        (bf16, f16),
        (f64, f32),
        (f32, c64),
        (f32, i64),
        (f32, boolean),
    ]
    assert all(simplify.is_exact(a, b) for a, b in exact)
    assert not any(simplify.is_exact(a, b) for a, b in lossy)


# ----------------------------------------------------------------------------------- fold, cse, dce


def test_fold_computes_constants() -> None:
    x = tensor(2)
    row = ops.constant(value=Literal.of([1.0, 2.0], f32))
    graph = fold.run(Graph("g", [x], [ops.add(x, ops.exp(ops.mul(row, row)))]))
    assert names(graph) == ["constant", "add"]
    np.testing.assert_allclose(graph.nodes[0].attrs.value.numpy(), np.exp([1, 4]), rtol=1e-6)


def test_fold_keeps_uniform_results_small() -> None:
    ones = ops.constant(value=Literal.of(np.ones((3, 4)), f32))
    graph = fold.run(Graph("g", [], [ops.neg(ones)]))
    assert names(graph) == ["constant", "expand"]
    big = ops.matmul(
        ops.constant(value=Literal.of(np.ones((200, 1)), f32)),
        ops.constant(value=Literal.of(np.ones((1, 200)), f32)),
    )
    assert "matmul" in names(fold.run(Graph("g", [], [big])))


def test_fold_computes_what_has_no_elements() -> None:
    """No kernel reads memory that is not there."""
    x, y = tensor(0, 4), tensor(3, 0)
    graph = fold.run(
        Graph("g", [x, y], [ops.sum(x, dims=(0,), keepdim=False), ops.matmul(y, x), ops.exp(x)])
    )
    assert set(names(graph)) <= {"constant", "expand"}
    assert [v.shape for v in graph.outputs] == [(4,), (3, 4), (0, 4)]


def test_fold_leaves_errors_to_the_run() -> None:
    x = ops.constant(value=Literal.of([1.0, 2.0], f32))
    index = ops.constant(value=Literal.of([5], i64))
    assert "index_select" in names(fold.run(Graph("g", [], [ops.index_select(x, index, dim=0)])))


def test_cse_merges_equal_nodes_only() -> None:
    x = tensor(3, 4)
    twice = ops.add(ops.exp(x), ops.exp(x))
    assert names(cse.run(Graph("g", [x], [twice]))) == ["exp", "add"]
    pads = [ops.pad(x, low=(1, 0), high=(0, 0), value=v) for v in (0.0, -0.0)]
    assert len(cse.run(Graph("g", [x], pads)).nodes) == 2, "a zero is not a negative zero"
    other = ops.add(ops.sum(x, dims=(0,), keepdim=True), ops.sum(x, dims=(0, 1), keepdim=True))
    assert len(cse.run(Graph("g", [x], [other])).nodes) == 3


def test_dce_keeps_what_outputs_need() -> None:
    x = tensor(3)
    y = ops.exp(x)
    dead = ops.neg(y)
    graph = Graph("g", [x], [y], [y.node, dead.node], donates=[(0, 0)])
    result = dce.run(graph)
    assert names(result) == ["exp"] and result.donates == ((0, 0),)
    assert dce.run(result) is result


def test_detach_goes() -> None:
    x = tensor(3)
    assert names(detach.run(Graph("g", [x], [ops.neg(ops.detach(x))]))) == ["neg"]


# ---------------------------------------------------------------------- legalize, rewrite, pipeline


def test_legalize_expands_what_is_not_supported() -> None:
    x = tensor(3, 4)
    graph = Graph("g", [x], [ops.softmax(ops.silu(x), dim=1)])
    assert "softmax" in names(legalize.run(graph, lambda n: n.op.is_core or n.op is ops.softmax))
    result = legalize.run(graph, lambda n: n.op.is_core)
    assert all(n.op.is_core for n in result.nodes)


def test_legalize_names_what_a_target_lacks() -> None:
    with located(Location("train.py", 31)):
        y = ops.lgamma(tensor(3))
    graph = Graph("g", [y.node.operands[0]], [y])
    with pytest.raises(
        NotImplementedError, match=r"toaster has no op lgamma.*f32\[3\].*train\.py:31"
    ):
        legalize.run(graph, lambda n: n.op is not ops.lgamma, "toaster")


def test_rewriting_keeps_locations_and_what_does_not_change() -> None:
    x = tensor(3)
    with located(Location("a.py", 1)):
        y = ops.exp(x)
    with located(Location("a.py", 2)):
        z = ops.neg(y)
    graph = Graph("g", [x], [z], donates=[(0, 0)])
    assert rewrite(graph, lambda n: None) is graph
    result = rewrite(graph, lambda n: ops.log(n.operands[0]) if n.op is ops.exp else None)
    assert [(n.op.name, n.location) for n in result.nodes] == [
        ("log", ("a.py", 1)),
        ("neg", ("a.py", 2)),
    ]
    assert result.donates == graph.donates
    with pytest.raises(TypeError, match="a replacement keeps the types"):
        rewrite(graph, lambda n: ops.isnan(n.operands[0]) if n.op is ops.exp else None)
    with pytest.raises(RuntimeError, match="does not end"):
        rewrite_until_stable(graph, lambda n: ops.neg(n.operands[0]) if n.op is ops.neg else None)


def max_pool_step(kernel: int, stride: int) -> tuple[Graph, Graph]:
    """A gradient through ``max_pool(relu(x))`` and its sum for a bias; before and after the
    pass."""
    x, g = (
        tensor(2, 3, 8, 8),
        tensor(2, 3, (8 - kernel) // stride + 1, (8 - kernel) // stride + 1, name="g"),
    )
    y = ops.relu(x)
    values, places = ops.max_pool(
        y,
        kernel=(kernel,) * 2,
        stride=(stride,) * 2,
        padding=(0, 0),
        dilation=(1, 1),
        ceil_mode=False,
    )
    grad = ops.max_pool_grad(g, places, spatial=(8, 8))
    masked = ops.where(ops.le(y, number(0)), number(0), grad)
    graph = Graph("g", [x, g], [values, masked, ops.sum(masked, dims=(0, 2, 3), keepdim=False)])
    return graph, pools.run(graph)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (2, 3), (3, 2)])
def test_the_mask_and_the_sum_of_a_pools_gradient_move_to_its_result(
    kernel: int, stride: int
) -> None:
    before, after = max_pool_step(kernel, stride)
    op = "max_pool_grad" if stride < kernel else "max_pool_input_grad"
    assert names(after).count(op) == 1
    assert {n.types[0].shape for n in after.nodes if n.op in (ops.where, ops.le)} == {
        before.inputs[1].shape
    }
    rng = np.random.default_rng(0)
    x = rng.choice(np.array([-1, 0, 1, 2, np.nan], np.float32), (2, 3, 8, 8))
    g = rng.integers(-4, 5, before.inputs[1].shape).astype(np.float32)
    for a, b in zip(reference.run(before, [x, g]), reference.run(after, [x, g]), strict=True):
        np.testing.assert_array_equal(a, b)


def core(node: Node) -> bool:
    return node.op.is_core


def test_the_pipeline_reports_its_stages() -> None:
    x = tensor(3, 4)
    seen: list[tuple[str, int]] = []
    graph = Graph("g", [x], [ops.softmax(x, dim=1)])
    with pipeline.observed(lambda name, g: seen.append((name, len(g.nodes)))):
        pipeline.run(graph, core)
    assert [name for name, _ in seen] == ["recorded", *[s.name for s in pipeline.stages(core)]]
    assert seen[0][1] == 1 and seen[-1][1] == 1


def test_a_fused_graph_may_go_through_again() -> None:
    x = tensor(3, 4)
    graph = pipeline.run(Graph("g", [x], [ops.softmax(x, dim=1)]), core)
    assert pipeline.run(graph, lambda n: core(n) or n.op is ops.region) == graph
    assert pipeline.run(graph, core) == graph


def grids(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


def test_symbolic_graphs_run_at_every_size() -> None:
    n = symbol("n", 1, 64)
    x, w = tensor(n, 6), tensor(6, 4, name="w")
    y = ops.softmax(ops.mul(ops.matmul(x, w), number(2.0)), dim=1)
    graph = pipeline.run(Graph("g", [x, w], [y, ops.mean(y, dims=(0,), keepdim=False)]), core)
    for size in (1, 2, 7, 64):
        a, b = grids([(size, 6), (6, 4)])
        probabilities, mean = reference.run(graph, [a, b])
        expected = np.exp(2 * a @ b) / np.exp(2 * a @ b).sum(1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
        np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-4)
