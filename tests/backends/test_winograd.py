"""Winograd's filtering: the transforms against the reference, the three steps against a
convolution."""

from __future__ import annotations

import numpy as np
import pytest

from contracting import check
from graphtorch.backends.cpu.contraction.schedule import Machine
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32, f64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import winograd
from graphtorch.ir.shape import Dim, symbol

BATCH = symbol("batch")
MACHINES = {"sse": Machine(16, 16), "avx2": Machine(32, 16), "avx512": Machine(64, 32)}


def filtered(padding: tuple[tuple[int, int], tuple[int, int]], shape: tuple[Dim, ...]) -> object:
    """The epilogue of a result that is made of transformed tiles."""

    def build(x: Value, bias: Value) -> Value:
        made = ops.winograd_result(ops.winograd_image(x, padding=padding), shape=shape)
        return ops.relu(ops.add(made, bias))

    return build


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("size", "padding", "channels"),
    [
        ((8, 12), ((1, 1), (1, 1)), 16),
        ((7, 9), ((1, 1), (0, 2)), 20),
        ((6, 6), ((0, 0), (0, 0)), 3),
        ((13, 5), ((2, 0), (1, 1)), 33),
    ],
)
def test_transforms(
    machine: str,
    size: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    channels: int,
) -> None:
    out = tuple(s + sum(p) - 2 for s, p in zip(size, padding, strict=True))
    check(
        filtered(padding, (2, *out, channels)),
        [(2, *size, channels), (channels,)],  # type: ignore[arg-type]
        target=MACHINES[machine],
    )


@pytest.mark.parametrize("images", [0, 1, 3])
def test_symbolic_batch(images: int) -> None:
    build = filtered(((1, 1), (1, 1)), (BATCH, 9, 8, 16))
    check(build, [(BATCH, 9, 8, 16), (16,)], batch=images)  # type: ignore[arg-type]


def convolution(size: int, channels: int, filters: int, dtype: object) -> Graph:
    x, w = (
        Value(Type(dtype, s), name=n)
        for n, s in (("x", (2, size, size, channels)), ("w", (filters, channels, 3, 3)))  # type: ignore[arg-type]
    )
    y = ops.channels_last_conv(
        x, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1
    )
    return Graph("g", [x, w], [ops.relu(y)])


def test_three_steps_are_a_convolution() -> None:
    """To the rounding that the transforms cost: in f64 next to nothing, in f32 1e-5 of the largest
    result."""
    graph = convolution(14, 48, 40, f64)
    x, w = graph.inputs
    steps = ops.winograd_image(x, padding=((1, 1), (1, 1)))
    made = ops.relu(
        ops.winograd_result(ops.matmul(steps, winograd._filters(w)), shape=(2, 14, 14, 40))
    )
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(v.shape) for v in graph.inputs]  # type: ignore[arg-type]
    (expected,) = evaluate(graph, arrays)
    np.testing.assert_allclose(
        evaluate(Graph("g", [x, w], [made]), arrays)[0], expected, 1e-10, 1e-10
    )
    small = convolution(14, 48, 40, f32)
    found = winograd.run(small, {small.inputs[1]})
    (got,) = evaluate(found, [a.astype(np.float32) for a in arrays])
    assert 0 < np.abs(got - expected).max() < 2e-5 * np.abs(expected).max()


def test_where_it_pays() -> None:
    for size, channels, dtype, stable in (
        (14, 48, f32, True),
        (14, 48, f32, False),
        (14, 16, f32, True),
        (7, 48, f32, True),
        (14, 48, f64, True),
    ):
        graph = convolution(size, channels, 40, dtype)
        found = winograd.run(graph, set(graph.inputs[1:]) if stable else set())
        names = [n.op.name for n in found.nodes]
        assert ("winograd_result" in names) == (
            size == 14 and channels == 48 and dtype is f32 and stable
        )
