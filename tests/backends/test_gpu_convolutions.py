"""Convolutions on a GPU read images in place: zeros around and between elements are masks, not
copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from copying import copies
from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.lower import lower
from graphtorch.backends.gpu.machine import LARGE, Tf32
from graphtorch.backends.gpu.schedules import contraction
from graphtorch.backends.gpu.supports import supports
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import pipeline
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

BATCH = symbol("batch")
# shapes of image and weight, dtype, stride, padding, dilation, groups
CASES: dict[str, tuple[Any, ...]] = {
    "padding of one side": (
        (2, 3, 9, 11),
        (5, 3, 3, 3),
        "f32",
        (1, 1),
        ((0, 2), (1, 0)),
        (1, 1),
        1,
    ),
    "many channels": ((2, 20, 6, 7), (40, 20, 3, 3), "f32", (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "stride beyond the kernel": (
        (2, 4, 9, 12),
        (6, 4, 1, 2),
        "f32",
        (3, 2),
        ((0, 0), (1, 1)),
        (1, 1),
        1,
    ),
    "dilation and groups": (
        (2, 6, 12, 9),
        (8, 3, 3, 3),
        "f32",
        (1, 2),
        ((2, 2), (3, 3)),
        (2, 3),
        2,
    ),
    "depthwise": ((2, 6, 7, 8), (6, 1, 3, 3), "f32", (2, 2), ((1, 1), (1, 1)), (1, 1), 6),
    "one element": ((2, 1, 3, 3), (1, 1, 1, 1), "f32", (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "line": ((3, 4, 40), (7, 4, 5), "f64", (2,), ((2, 2),), (1,), 1),
    "space": ((2, 2, 5, 6, 7), (3, 2, 3, 3, 3), "f32", (1, 2, 1), ((1, 1),) * 3, (1, 1, 1), 1),
    "bf16": ((2, 20, 8, 16), (24, 20, 3, 3), "bf16", (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "bf16 by rows": ((2, 20, 8, 16), (24, 20, 3, 1), "bf16", (1, 1), ((1, 1), (0, 0)), (1, 1), 1),
    "f16 stride": ((2, 20, 9, 16), (24, 20, 3, 3), "f16", (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "a tap of each four": ((2, 8, 8, 9), (8, 8, 1, 1), "f32", (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "dilation of half a stride": ((2, 4, 30), (4, 4, 5), "f32", (4,), ((3, 2),), (2,), 1),
    "any batch": ((BATCH, 3, 9, 11), (5, 3, 3, 3), "f32", (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
}
# launches of the gradient of the image, by residue
STRIDED = {
    "stride beyond the kernel": 6,
    "dilation and groups": 2,
    "depthwise": 4,
    "space": 2,
    "f16 stride": 4,
    "any batch": 4,
    "a tap of each four": 4,
    "dilation of half a stride": 4,
}
TOLERANCE = {"f32": 1e-5, "f64": 1e-12, "bf16": 1e-2, "f16": 2e-3}


def graph(case: tuple[Any, ...]) -> Graph:
    """The convolution, and the gradients of image and weight."""
    image, weight, name, stride, padding, dilation, groups = case
    x, w = (Value(Type(DType.named(name), s), name=n) for s, n in ((image, "x"), (weight, "w")))
    y = ops.conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    g = Value(y.type, name="g")
    gradients = vjp([y], [g], [x, w])
    return Graph("case", [x, w, g], [y, *(v for v in gradients if v is not None)])


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transposed convolutions of a stride are several dense ones, however small they are."""
    monkeypatch.setattr(contraction, "MANY", 0)


@pytest.mark.usefixtures("split")
def test_gradients_of_strides_by_residue() -> None:
    """A launch for each residue of the result's places modulo the stride that has places; where no
    tap meets an element, zeros are stored."""
    launches = {}
    for name in STRIDED:
        program = lower(pipeline.run(backward(CASES[name]), supports, "cuda"), LARGE)
        launches[name] = len(program.launches)
    assert launches == STRIDED
    check({name: CASES[name] for name in STRIDED}, backward)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_nothing_is_multiplied_where_no_tap_meets_an_element(dtype: str) -> None:
    """Of the gradient of a convolution of one tap a quarter is a product; the rest, zeros with what
    is done after it, is stored by a thread each."""
    case = ((2, 32, 20, 24), (64, 32, 1, 1), dtype, (2, 2), ((0, 0), (0, 0)), (1, 1), 1)
    built = build(backward(case), Unit())
    stages = [s for kernel in built.kernels for s in kernel.stages]
    assert len(stages) > 1 and sum(s.threads > 0 for s in stages) == 1
    check({"one tap": case}, backward)


def backward(case: tuple[Any, ...]) -> Graph:
    """The gradient of the image, with a bias and a maximum after it."""
    made = graph(case)
    found = made.outputs[1]
    bias = Value(Type(found.dtype, (found.shape[1],)), name="b")
    column = ops.reshape(bias, shape=(found.shape[1], *[1] * (found.rank - 2)))
    return Graph("backward", [*made.inputs, bias], [ops.relu(ops.add(found, column))])


def test_against_the_reference() -> None:
    """Whatever lies beside an image is zero, in all three products, and no kernel is there for it
    alone."""
    check(CASES, graph)


def check(cases: dict[str, tuple[Any, ...]], graph: Callable[[tuple[Any, ...]], Graph]) -> None:
    """Compare with NumPy."""
    device, unit, rng = EmulatedDevice(order=2), Unit(), np.random.default_rng(0)
    built = {name: build(graph(case), unit) for name, case in cases.items()}
    module = device.load(unit.pieces(device.compilers))
    for name, case in cases.items():
        made = graph(case)
        shapes = [[2 if d is BATCH else d for d in v.shape] for v in made.inputs]
        dtype = DType.named(case[2])
        arrays = [rng.standard_normal(s).astype(dtype.numpy) for s in shapes]
        found = Executable(built[name], module, device)(
            [DeviceBuffer.of(a, device) for a in arrays]
        )
        wanted = compile_reference(made, "reference")([Buffer.of(a) for a in arrays])
        for ours, theirs in zip(found, wanted, strict=True):
            mine, expected = (x.numpy().astype(np.float64) for x in (ours, theirs))
            scale = np.abs(expected).max()
            assert np.abs(mine - expected).max() <= TOLERANCE[case[2]] * scale, name


@pytest.mark.parametrize("name", CASES)
def test_no_copies(name: str) -> None:
    program = lower(pipeline.run(graph(CASES[name]), supports, "cuda"), LARGE)
    assert len(program.launches) >= 3 and not copies(program)


def test_a_copy_is_found() -> None:
    x = Value(Type(DType.named("f32"), (2, 3)), name="x")
    padded = ops.pad(x, low=(1, 0), high=(1, 2), value=0.0)
    for moved in (padded, ops.permute(x, dims=(1, 0))):
        assert (
            len(copies(lower(pipeline.run(Graph("copy", [x], [moved]), supports, "cuda"), LARGE)))
            == 1
        )


def test_an_image_is_turned_by_tiles() -> None:
    """What a convolution's kernel cannot read where it lies is copied by neighbours, as any map."""
    x, w = (
        Value(Type(DType.named("f32"), s), name=n)
        for n, s in (("x", (2, 40, 24, 24)), ("w", (8, 40, 3, 3)))
    )
    y = ops.channels_last_conv(
        ops.permute(x, dims=(0, 2, 3, 1)),
        w,
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        groups=1,
    )
    made = Graph("g", [x, w], [y])
    device, unit, rng = EmulatedDevice(order=2, traced=True), Unit(), np.random.default_rng(0)
    built = build(made, unit, machine=replace(LARGE, warpgroups=True, tf32=Tf32(True, True)))
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in made.inputs]
    module = device.load(unit.pieces(device.compilers))
    (found,) = Executable(built, module, device)([DeviceBuffer.of(a, device) for a in arrays])
    (wanted,) = compile_reference(made, "reference")([Buffer.of(a) for a in arrays])
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), 1e-2, 0.05)
    (copy,) = [c for name, c in device.counts.items() if "permute" in name]
    assert copy.sectors <= 1.05 * copy.ideal and copy.turns == copy.shared
