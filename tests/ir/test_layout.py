"""Images in the order of memory that costs least: what is turned, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.backends.cpu.supports import supports
from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.passes import layout, pipeline
from graphtorch.ir.passes.limits import Exactness, Limits
from graphtorch.ir.printer import print_graph
from graphtorch.ir.shape import symbol
from recurrences import arrays_for, value

ONE = ((1, 1), (1, 1))


def conv(x: Value, w: Value, stride: int = 1, groups: int = 1) -> Value:
    around = tuple((k // 2, k // 2) for k in w.shape[2:])
    return ops.conv(x, w, stride=(stride, stride), padding=around, dilation=(1, 1), groups=groups)


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def same(graph: Graph, **sizes: int) -> Graph:
    """The graph after the pass, which computes the same."""
    found = layout.run(graph, supports)
    arrays = arrays_for(graph, sizes)
    for got, expected in zip(evaluate(found, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, 1e-5, 1e-5)
    return found


def block(x: Value, *w: Value) -> Value:
    """Expanded, depthwise, projected, and added to what came in."""
    y = ops.relu(conv(x, w[0]))
    y = ops.relu(conv(y, w[1], groups=w[1].shape[0]))
    return ops.add(conv(y, w[2]), x)


def blocks(batch: object = 2) -> Graph:
    x = value("x", batch, 16, 12, 12)
    weights = [
        value(f"w{i}", *s) for i, s in enumerate([(32, 16, 1, 1), (32, 1, 3, 3), (16, 32, 1, 1)])
    ]
    y = block(block(x, *weights), *weights)
    return Graph("g", [x, *weights], [ops.sum(y, dims=(2, 3), keepdim=False)])


def test_only_the_first_image_is_turned() -> None:
    found = same(blocks())
    assert names(found).count("channels_last_conv") == 6
    assert names(found).count("permute") == 1


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("layout_blocks", print_graph(layout.run(blocks(), supports)))


def test_symbolic_batch() -> None:
    same(blocks(symbol("batch")), batch=3)


def test_a_lone_small_convolution_stays() -> None:
    x, w = value("x", 1, 3, 8, 8), value("w", 4, 3, 3, 3)
    graph = Graph("g", [x, w], [conv(x, w)])
    assert layout.run(graph, supports) is graph


def test_graphs_without_convolutions_stay() -> None:
    x = value("x", 2, 3, 8, 8)
    graph = Graph("g", [x], [ops.relu(ops.permute(x, dims=(0, 2, 3, 1)))])
    assert layout.run(graph, supports) is graph


def test_other_targets_stay() -> None:
    graph = blocks()
    assert layout.run(graph, lambda n: n.op.is_core) is graph


def deep(x: Value, w: Value, between: Callable[[Value], Value]) -> Value:
    """Two depthwise convolutions, which are worth turning for, around something."""
    return conv(between(conv(x, w, groups=w.shape[0])), w, groups=w.shape[0])


BETWEEN: dict[str, Callable[[Value], Value]] = {
    "max pool": lambda x: ops.max_pool(
        x, kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil_mode=False
    )[0],
    "average pool": lambda x: ops.avg_pool(
        x, kernel=(2, 3), stride=(2, 1), padding=(1, 1), ceil_mode=True, count_include_pad=False
    ),
    "concat": lambda x: ops.slice(
        ops.concat(x, x, dim=1),
        start=(0, 4, 0, 0),
        stop=(*x.shape[:1], 4 + x.shape[1], *x.shape[2:]),
        step=(1, 1, 1, 1),
    ),
    "pad": lambda x: ops.pad(x, low=(0, 0, 1, 2), high=(0, 0, 0, 1), value=3.0),
    "statistics": lambda x: ops.sub(x, ops.sum(x, dims=(0, 2, 3), keepdim=True)),
    "gate": lambda x: ops.mul(x, ops.sigmoid(ops.adaptive_avg_pool(x, output_size=(1, 1)))),
    "rows of numbers": lambda x: ops.add(x, ops.iota(shape=(x.shape[3],), dim=0, dtype=x.dtype)),
    "a mean of channels": lambda x: ops.mul(x, ops.sum(x, dims=(1,), keepdim=True)),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_works_in_the_new_order(name: str) -> None:
    x, w = value("x", 2, 24, 10, 12), value("w", 24, 1, 3, 3)
    found = same(Graph("g", [x, w], [deep(x, w, BETWEEN[name])]))
    assert names(found).count("channels_last_conv") == 2
    turned = [n for n in found.nodes if n.op is ops.permute and n.types[0].numel == x.type.numel]
    assert len(turned) <= 2  # what comes in, and what goes out


def test_gradients_work_in_the_new_order() -> None:
    x, w, g = value("x", 4, 32, 14, 14), value("w", 32, 1, 3, 3), value("g", 4, 32, 14, 14)
    place = {"stride": (1, 1), "padding": ONE, "dilation": (1, 1), "groups": 32}
    grad = ops.conv_transpose(g, w, **place, output_padding=(0, 0))
    of_weights = ops.conv_weight_grad(ops.relu(x), grad, kernel=(3, 3), **place)
    found = same(Graph("g", [x, w, g], [of_weights]))
    assert {"channels_last_conv_transpose", "channels_last_conv_weight_grad"} <= set(names(found))


def test_images_that_the_program_turns_itself_are_not_turned_again() -> None:
    x, w, scale = value("x", 2, 24, 10, 10), value("w", 24, 1, 3, 3), value("s", 24)

    def normed(y: Value) -> Value:
        last = ops.permute(y, dims=(0, 2, 3, 1))
        return ops.permute(ops.mul(ops.softmax(last, dim=3), scale), dims=(0, 3, 1, 2))

    found = same(Graph("g", [x, w, scale], [deep(x, w, normed)]))
    assert names(found).count("permute") == 2


def test_positions_of_a_pool_that_are_read_keep_it_in_place() -> None:
    x, w = value("x", 2, 24, 10, 10), value("w", 24, 1, 3, 3)
    y = conv(x, w, groups=24)
    pool = ops.max_pool(
        y, kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False
    )
    same(Graph("g", [x, w], list(pool)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pool_and_its_gradient_work_in_the_same_order(stride: int) -> None:
    x, w = value("x", 2, 24, 10, 10), value("w", 24, 1, 3, 3)
    g = value("g", 2, 24, 10 // stride, 10 // stride)
    pads = (1, 1) if stride == 1 else (0, 0)
    kernel = (3, 3) if stride == 1 else (2, 2)
    pool = ops.max_pool(
        conv(x, w, groups=24),
        kernel=kernel,
        stride=(stride, stride),
        padding=pads,
        dilation=(1, 1),
        ceil_mode=False,
    )
    grad = ops.max_pool_grad(ops.mul(pool[0], g), pool[1], spatial=(10, 10))
    mean = ops.avg_pool_grad(
        ops.mul(pool[0], g), spatial=(10, 10), kernel=kernel, stride=(stride, stride), padding=pads
    )
    found = same(Graph("g", [x, w, g], [conv(ops.add(grad, mean), w, groups=24)]))
    turned = [n for n in found.nodes if n.op is ops.permute and n.types[0].numel == x.type.numel]
    assert len(turned) <= 3 and names(found).count("channels_last_conv") == 2


@pytest.mark.parametrize("channels", [6, 32])
def test_few_channels_stay_apart(channels: int) -> None:
    """Neighbouring channels that do not fill a vector cost more than moving images does."""
    x, w = value("x", 32, 1, 24, 24), value("w0", channels, 1, 5, 5)
    second, g = value("w1", 32, channels, 5, 5), value("g", 32, 32, 12, 12)
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    y = ops.max_pool(ops.relu(conv(x, w)), **pool, dilation=(1, 1), ceil_mode=False)[0]
    place = {"stride": (1, 1), "padding": ((2, 2), (2, 2)), "dilation": (1, 1), "groups": 1}
    grad = ops.conv_transpose(g, second, **place, output_padding=(0, 0))
    graph = Graph("g", [x, w, second, g], [conv(y, second), ops.mul(y, grad)])
    for limits in (Limits(), Limits(neighbours=1)):
        turned = "channels_last_conv" in names(layout.run(graph, supports, limits))
        assert turned is (channels == 32 or limits.neighbours == 1)


def test_exact_programs_keep_their_images() -> None:
    graph = blocks()
    for exact in Exactness:
        seen: dict[str, Graph] = {}
        pipeline.run(graph, supports, exact=exact, on_stage=seen.__setitem__)
        found = any(n.op is ops.channels_last_conv for n in seen["dce-legal"].nodes)
        assert found is (exact is not Exactness.BITS)


def test_small_nets_keep_their_images() -> None:
    """What there is to gain takes less time than the kernels that turn images take to start."""
    x, w = value("x", 1, 24, 5, 5), value("w", 24, 1, 3, 3)
    graph = Graph("g", [x, w], [deep(x, w, ops.relu)])
    assert layout.run(graph, supports) is graph


def test_places_that_another_graph_has_found() -> None:
    """Their numbers mean the order in which they were found: what adds at them works in that."""
    x, w, g = value("x", 2, 24, 10, 10), value("w", 24, 1, 3, 3), value("g", 2, 24, 5, 5)
    pool = ops.max_pool(
        x, kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False
    )
    places = value("places", 2, 24, 5, 5, dtype=i64)
    grad = ops.max_pool_grad(g, places, spatial=(10, 10))
    graph = Graph("g", [w, g, places], [conv(conv(ops.relu(grad), w, groups=24), w, groups=24)])
    found = layout.run(graph, supports)
    assert names(found).count("channels_last_conv") == 2
    (own,) = [n for n in found.nodes if n.op is ops.max_pool_grad]
    assert own.operands[1] == places
    rng = np.random.default_rng(0)
    arrays = {v: rng.standard_normal(v.shape) for v in (x, w, g)}
    arrays[places] = evaluate(Graph("p", [x], [pool[1]]), [arrays[x]])[0]
    given = [arrays[v] for v in graph.inputs]
    for got, expected in zip(evaluate(found, given), evaluate(graph, given), strict=True):
        np.testing.assert_allclose(got, expected, 1e-4, 1e-4)
