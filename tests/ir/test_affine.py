"""Scales and shifts of channels become part of the filters that they follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.ops.common import number
from graphtorch.ir.passes import affine
from recurrences import arrays_for, value

PLACE = {"stride": (1, 2), "padding": ((1, 1), (0, 1)), "dilation": (1, 1)}


def normed(y: Value, vectors: list[Value], shape: tuple[int, ...]) -> Value:
    """A batch norm that is not training."""
    mean, var, weight, bias = (ops.reshape(v, shape=shape) for v in vectors)
    scaled = ops.mul(ops.sub(y, mean), ops.rsqrt(ops.add(var, number(1e-3, var.dtype))))
    return ops.add(ops.mul(scaled, weight), bias)


def case(last: bool, groups: int, bias: bool) -> tuple[Graph, list[Value]]:
    x = value("x", *((2, 7, 9, 4) if last else (2, 4, 7, 9)))
    w, b = value("w", 6, 4 // groups, 3, 3), value("b", 6)
    vectors = [value(name, 6) for name in ("mean", "var", "weight", "bias")]
    op = ops.channels_last_conv if last else ops.conv
    y = op(x, w, *([b] if bias else []), **PLACE, groups=groups)
    made = ops.relu(normed(y, vectors, (1, 1, 1, 6) if last else (1, 6, 1, 1)))
    return Graph("g", [x, w, b, *vectors], [made]), [w, b, *vectors]


def given(graph: Graph) -> list[np.ndarray]:
    return [
        np.abs(a) + 0.5 if v.name == "var" else a
        for a, v in zip(arrays_for(graph), graph.inputs, strict=True)
    ]


def after(graph: Graph, name: str) -> list[str]:
    """The ops from the first `name` on."""
    names = [n.op.name for n in graph.nodes]
    return names[names.index(name) :]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_becomes_part_of_the_filters(last: bool, groups: int, bias: bool) -> None:
    graph, seldom = case(last, groups, bias)
    found = affine.run(graph, set(seldom))
    assert after(found, "channels_last_conv" if last else "conv")[1:] == ["relu"]
    arrays = given(graph)
    np.testing.assert_allclose(evaluate(found, arrays)[0], evaluate(graph, arrays)[0], 1e-9, 1e-9)


def test_what_changes_from_call_to_call_stays() -> None:
    graph, seldom = case(False, 1, True)
    for kept in (graph.inputs[1], seldom[2], seldom[4]):
        found = affine.run(graph, set(seldom) - {kept})
        arrays = given(graph)
        np.testing.assert_allclose(
            evaluate(found, arrays)[0], evaluate(graph, arrays)[0], 1e-9, 1e-9
        )
        assert len(after(found, "conv")) > 2


STOPS: dict[str, Callable[[Value, Value], Value]] = {
    "a divisor": lambda y, s: ops.div(s, y),
    "rows": lambda y, s: ops.mul(y, ops.reshape(s, shape=(1, 1, 6, 1))),
    "both sides": lambda y, s: ops.mul(y, y),
    "several readers": lambda y, s: ops.add(ops.mul(y, s), ops.exp(y)),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_is_no_scale_of_channels_stays(name: str) -> None:
    x, w, s = value("x", 2, 3, 6, 6), value("w", 6, 3, 1, 1), value("s", 6, 1, 1)
    place = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    graph = Graph("g", [x, w, s], [STOPS[name](ops.conv(x, w, **place), s)])
    assert affine.run(graph, {w, s}) is graph
