"""Sums of padded parts become concatenations, stored piece by piece by the kernel that makes the
pieces."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.backends.cpu.supports import supports
from graphtorch.ir import ops
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.passes import pads, pipeline
from recurrences import arrays_for, value


def padded(x: Value, low: int, size: int) -> Value:
    return ops.pad(x, low=(0, low), high=(0, size - low - x.shape[1]), value=0)


def total(places: list[tuple[int, int]], size: int) -> Graph:
    """The sum of parts of the given places and widths in rows of `size`."""
    inputs = [value(f"x{i}", 3, width) for i, (_, width) in enumerate(places)]
    result = padded(inputs[0], places[0][0], size)
    for x, (low, _) in zip(inputs[1:], places[1:], strict=True):
        result = ops.add(result, padded(x, low, size))
    return Graph("g", inputs, [result])


@pytest.mark.parametrize(
    ("places", "size", "names"),
    [
        ([(0, 2), (2, 3)], 5, ["concat"]),
        ([(4, 2), (0, 2), (2, 2)], 6, ["concat"]),  # the first two leave a gap
        ([(3, 2), (1, 2)], 7, ["concat", "pad"]),
        ([(0, 2), (3, 2)], 5, ["pad", "pad", "add"]),
        ([(0, 3), (2, 3)], 5, ["pad", "pad", "add"]),
    ],
)
def test_parts_side_by_side(places: list[tuple[int, int]], size: int, names: list[str]) -> None:
    graph = total(places, size)
    joined = pads.run(graph)
    assert [n.op.name for n in joined.nodes] == names
    arrays = arrays_for(graph)
    np.testing.assert_array_equal(evaluate(joined, arrays)[0], evaluate(graph, arrays)[0])


def test_other_sums_stay() -> None:
    x, y = value("x", 3, 2), value("y", 3, 2)
    ones = ops.pad(y, low=(0, 2), high=(0, 0), value=1)
    rows = ops.pad(value("z", 1, 4), low=(0, 0), high=(2, 0), value=0)
    for other in (ones, rows):
        inputs = [x, y, rows.node.operands[0]]  # type: ignore[union-attr]
        graph = Graph("g", inputs, [ops.add(padded(x, 0, 4), other)])
        assert pads.run(graph) is graph


def test_pieces_are_stored_by_the_kernel_that_computes_them() -> None:
    x = value("x", 3, 4)
    a, b = ops.sin(x), ops.exp(x)
    graph = Graph("g", [x], [ops.concat(a, b, ops.mul(a, b), dim=1), a])
    assert [n.attrs.kind for n in pipeline.run(graph, supports).nodes] == ["loop"]  # type: ignore[attr-defined]
