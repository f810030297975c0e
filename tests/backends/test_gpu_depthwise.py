"""Depthwise convolutions of turned images on a GPU: threads take neighbouring channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import LARGE, Tf32
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import symbol

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

HOPPER = replace(LARGE, warpgroups=True, tf32=Tf32(True, True))
BATCH = symbol("batch")
# image [N, *S, C], kernel, filters of a channel, stride, padding, dilation
CASES: dict[str, tuple[Any, ...]] = {
    "3x3": ((2, 7, 8, 12), (3, 3), 1, (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "stride": ((2, 9, 8, 8), (3, 3), 1, (2, 2), ((1, 1), (0, 1)), (1, 1)),
    "large": ((1, 9, 10, 8), (7, 7), 1, (1, 1), ((3, 3), (3, 3)), (1, 1)),
    "beyond the kernel": ((2, 9, 10, 4), (2, 1), 1, (3, 2), ((0, 0), (0, 0)), (1, 1)),
    "dilation": ((1, 12, 11, 8), (3, 3), 1, (1, 1), ((2, 2), (3, 3)), (2, 3)),
    "dilation and stride": ((1, 12, 13, 8), (3, 3), 1, (2, 3), ((2, 2), (2, 1)), (3, 2)),
    "line": ((3, 40, 6), (5,), 1, (2,), ((2, 2),), (1,)),
    "space": ((1, 5, 6, 7, 4), (3, 2, 3), 1, (1, 2, 1), ((1, 1), (0, 1), (1, 1)), (1, 1, 1)),
    "any batch": ((BATCH, 7, 8, 12), (3, 3), 1, (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "many": ((4, 24, 24, 40), (3, 3), 1, (1, 1), ((1, 1), (1, 1)), (1, 1)),
}


def graph(case: tuple[Any, ...], dtype: str = "f32") -> Graph:
    """The convolution with an epilogue, and its gradients by image and filters."""
    image, kernel, multiple, stride, padding, dilation = case
    channels = image[-1]
    x, w, b = (
        Value(Type(DType.named(dtype), tuple(s)), name=n)
        for n, s in (
            ("x", image),
            ("w", (channels * multiple, 1, *kernel)),
            ("b", (channels * multiple,)),
        )
    )
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    y = ops.channels_last_conv(x, w, b, **attrs)
    g = Value(y.type, name="g")
    outside = tuple(
        size - ((o - 1) * s - sum(p) + (k - 1) * d + 1)
        for size, o, s, p, k, d in zip(
            image[1:-1], y.shape[1:-1], stride, padding, kernel, dilation, strict=True
        )
    )
    back = ops.channels_last_conv_transpose(g, w, **attrs, output_padding=outside)
    weight = ops.channels_last_conv_weight_grad(x, g, **attrs, kernel=kernel)
    results = [ops.relu(ops.add(y, g)), ops.mul(back, x), ops.add(weight, w)]
    return Graph("depthwise", [x, w, b, g], results)


def check(cases: dict[str, Graph], tolerance: float) -> EmulatedDevice:
    """Compare all results with NumPy's."""
    device, unit, rng = EmulatedDevice(order=2, traced=True), Unit(), np.random.default_rng(0)
    built = {name: build(made, unit, machine=HOPPER) for name, made in cases.items()}
    module = device.load(unit.pieces(device.compilers))
    for name, made in cases.items():
        arrays = [
            rng.standard_normal([2 if d is BATCH else d for d in v.shape]).astype(v.dtype.numpy)
            for v in made.inputs
        ]
        found = Executable(built[name], module, device)(
            [DeviceBuffer.of(a, device) for a in arrays]
        )
        wanted = compile_reference(made, "reference")([Buffer.of(a) for a in arrays])
        for ours, theirs in zip(found, wanted, strict=True):
            mine, expected = (x.numpy().astype(np.float64) for x in (ours, theirs))
            scale = np.abs(expected).max()
            np.testing.assert_allclose(mine, expected, tolerance, tolerance * scale, err_msg=name)
    return device


def test_against_the_reference() -> None:
    several = graph(((2, 7, 8, 6), (3, 3), 2, (1, 1), ((1, 1), (1, 1)), (1, 1)))
    forward = Graph("forward", several.inputs, several.outputs[:1])
    graphs = {name: graph(case) for name, case in CASES.items()}
    check({**graphs, "several filters a channel": forward}, 1e-5)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_short_floats(dtype: str) -> None:
    names = ("3x3", "stride", "dilation and stride", "many")
    check({name: graph(CASES[name], dtype) for name in names}, {"f16": 2e-3, "bf16": 2e-2}[dtype])


def test_accesses_are_as_few_as_can_be() -> None:
    """Sectors within 5 % of what the bytes of the requests need, but where filters are turned."""
    case = ((2, 24, 24, 64), *CASES["3x3"][1:])
    device = check({"counted": graph(case)}, 1e-5)
    large = {k: c for k, c in device.counts.items() if c.touched > 2 * 24 * 24 * 64 * 4 // 32}
    assert len(large) == 3
    for kernel, found in large.items():
        assert found.sectors <= 1.05 * found.ideal and found.turns == found.shared, kernel


def test_filters_are_turned_once() -> None:
    """Where they seldom change that is not part of the call."""
    made = graph(CASES["3x3"])
    only = Graph("forward", made.inputs, made.outputs[:1])
    unit = Unit()
    stable = [i for i, v in enumerate(only.inputs) if v.name == "w"]
    built = build(only, unit, stable, HOPPER)
    assert len(built.kernels) == 2 and built.record.packed
