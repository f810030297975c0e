"""Pools and their gradients on a GPU: elements by themselves, in both orders of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

BATCH = symbol("batch")
#   input [N, C, *S], kernel, stride, padding, dilation, ceil mode
WINDOWS: dict[str, tuple[Any, ...]] = {
    "resnet": ((2, 8, 13, 12), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "apart": ((2, 3, 9, 7), (2, 2), (2, 2), (0, 0), (1, 1), True),
    "overlapping": ((1, 4, 6, 6), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "partial": ((1, 2, 10, 13), (3, 3), (2, 2), (1, 1), (1, 1), True),
    "dilated": ((2, 4, 9, 12), (3, 2), (1, 2), (1, 0), (2, 3), False),
    "nothing inside": ((1, 2, 5, 5), (4, 4), (1, 1), (2, 2), (2, 2), False),
    "gaps": ((1, 2, 11, 9), (2, 1), (3, 4), (0, 0), (1, 1), False),
    "large": ((1, 2, 9, 20), (7, 9), (1, 1), (3, 4), (1, 1), False),
    "line": ((2, 3, 17), (3,), (2,), (1,), (1,), False),
    "space": ((1, 2, 7, 6, 9), (3, 3, 3), (2, 1, 2), (1, 1, 1), (2, 1, 2), True),
    "any batch": ((BATCH, 4, 9, 8), (3, 3), (2, 2), (1, 1), (1, 1), False),
}
ENOUGH = {"many": ((4, 32, 32, 31), (3, 3), (2, 2), (1, 1), (1, 1), False)}  # for wide accesses


def given(shape: Sequence[Any], dtype: str, name: str) -> Value:
    return Value(Type(DType.named(dtype), tuple(shape)), name=name)


def window(case: tuple[Any, ...], last: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The input's shape and the window; with `last`, of images whose channels lie side by side, as
    the layout pass writes it."""
    (n, c, *spatial), kernel, stride, padding, dilation, ceil_mode = case
    fields = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    if last:
        ends = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
        fields = {name: (*field, ends[name]) for name, field in fields.items()}
        return (n, 1, *spatial, c), {**fields, "ceil_mode": ceil_mode}
    return (n, c, *spatial), {**fields, "ceil_mode": ceil_mode}


def maxima(case: tuple[Any, ...], last: bool, dtype: str = "f32") -> Graph:
    """Values, places and the gradient of a max pool, and the gradient of another graph's."""
    shape, attrs = window(case, last)
    x = given(shape, dtype, "x")
    values, places = ops.max_pool(x, **attrs)
    g = given(values.shape, dtype, "g")
    (grad,) = vjp([values], [g], [x])
    assert grad is not None
    return Graph("maxima", [x, g], [values, places, grad, ops.relu(values)])


def means(case: tuple[Any, ...], last: bool, include: bool, divisor: int | None) -> Graph:
    """An average pool and its gradient."""
    shape, attrs = window(case, last)
    del attrs["dilation"]
    x = given(shape, "f32", "x")
    y = ops.avg_pool(x, **attrs, count_include_pad=include, divisor=divisor)
    g = given(y.shape, "f32", "g")
    (grad,) = vjp([y], [g], [x])
    assert grad is not None
    return Graph("means", [x, g], [y, grad])


def check(graphs: Sequence[Graph], draw: Any) -> None:
    """Compare all results with NumPy's; `draw` makes the inputs."""
    device, unit = EmulatedDevice(order=2), Unit()
    built = [build(graph, unit) for graph in graphs]
    module = device.load(unit.pieces(device.compilers))
    for graph, made in zip(graphs, built, strict=True):
        arrays = [
            draw(tuple(2 if d is BATCH else d for d in v.shape)).astype(v.dtype.numpy)
            for v in graph.inputs
        ]
        found = Executable(made, module, device)([DeviceBuffer.of(a, device) for a in arrays])
        wanted = compile_reference(graph, "reference")([Buffer.of(a) for a in arrays])
        for ours, theirs in zip(found, wanted, strict=True):
            mine, expected = ours.numpy(), theirs.numpy()
            assert mine.dtype == expected.dtype
            tolerance = 1e-6 if graph.name == "means" else 0
            np.testing.assert_allclose(
                mine.astype(np.float64), expected.astype(np.float64), tolerance, tolerance
            )


def halves(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which many are equal and whose sums are exact."""
    return np.random.default_rng(0).integers(-4, 5, shape) * 0.5


def special(shape: tuple[int, ...]) -> np.ndarray:
    values = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0])
    return np.random.default_rng(1).choice(values, shape, p=[0.1, 0.4, 0.1, 0.1, 0.1, 0.2])


def test_max_pools() -> None:
    cases = WINDOWS | ENOUGH
    check([maxima(case, last) for case in cases.values() for last in (False, True)], halves)


def test_max_pools_of_nan_and_infinities() -> None:
    """The last NaN stays, as in PyTorch; the gradient of what is read once is what is read."""
    graphs = []
    for name in ("resnet", "nothing inside", "large"):
        for last in (False, True):
            whole = maxima(WINDOWS[name], last)
            graphs.append(Graph("maxima", whole.inputs[:1], whole.outputs[:2]))
    check(graphs, special)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f64"])
def test_max_pools_of_other_types(dtype: str) -> None:
    cases = (WINDOWS["resnet"], WINDOWS["dilated"], ENOUGH["many"])
    check([maxima(case, last, dtype) for case in cases for last in (False, True)], halves)


def test_max_pools_of_integers() -> None:
    graphs = []
    for dtype in ("u8", "i32", "i64"):
        shape, attrs = window(WINDOWS["resnet"], True)
        x = given(shape, dtype, "x")
        graphs.append(Graph("integers", [x], list(ops.max_pool(x, **attrs))))
    check(graphs, lambda shape: np.random.default_rng(0).integers(0, 9, shape))


def test_average_pools() -> None:
    cases = [case for case in (WINDOWS | ENOUGH).values() if max(case[4]) == 1]
    ways = [(True, None), (False, None), (True, 3)]
    check([means(c, last, *way) for c in cases for last in (False, True) for way in ways], halves)


def test_places_without_windows() -> None:
    """Sums at computed positions: those of adaptive pools."""
    graphs = []
    for dtype in ("f32", "f16"):
        x = given((2, 3, 9, 7), dtype, "x")
        values, places = ops.adaptive_max_pool(x, output_size=(4, 3))
        g = given(values.shape, dtype, "g")
        (grad,) = vjp([values], [g], [x])
        assert grad is not None
        graphs.append(Graph("adaptive", [x, g], [values, places, grad]))
    check(graphs, halves)


def test_accesses_are_as_few_as_can_be() -> None:
    """Where channels lie side by side, sectors within 5 % of what the requests' bytes need."""
    device, unit = EmulatedDevice(traced=True), Unit()
    graphs = [maxima(ENOUGH["many"], True), means(ENOUGH["many"], True, False, None)]
    built = [build(graph, unit) for graph in graphs]
    module = device.load(unit.pieces(device.compilers))
    for graph, made in zip(graphs, built, strict=True):
        Executable(made, module, device)(
            [DeviceBuffer.of(halves(v.shape).astype(np.float32), device) for v in graph.inputs]
        )
    assert len(device.counts) == 4
    for kernel, found in device.counts.items():
        assert found.sectors <= 1.05 * found.ideal, kernel


def test_text(golden: Callable[[str, str], None]) -> None:
    unit = Unit()
    build(maxima(((2, 8, 66, 64), *WINDOWS["resnet"][1:]), True), unit)
    golden("gpu_pools", unit.text())
