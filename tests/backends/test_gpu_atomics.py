"""Sums at computed positions on a GPU: atomic additions, or one order of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu import nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build, compile
from graphtorch.backends.gpu.device import DeviceError, Launch, Piece
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import Gpu
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, i64
from graphtorch.ir.graph import Graph, Type, Value

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

# dtype, shape of the result, shapes of positions; the updates have those and the result's other
# dimensions
CASES: dict[str, tuple[str, tuple[int, ...], list[tuple[int, ...]]]] = {
    "rows": ("f32", (5, 7), [(40,)]),
    "line": ("f64", (3,), [(70,)]),
    "halves": ("bf16", (5, 6), [(9,)]),
    "rows of rows": ("i64", (4, 3), [(6, 5)]),
    "pairs": ("f32", (3, 4, 2), [(8, 1), (5,)]),
    "i32": ("i32", (6,), [(50,)]),
    "no atomics": ("u8", (6,), [(50,)]),
    "nothing": ("f32", (3, 2), [(0,)]),
}


def put(case: tuple[str, tuple[int, ...], list[tuple[int, ...]]]) -> Graph:
    name, shape, positions = case
    block = np.broadcast_shapes(*positions)
    values = [
        Value(Type(DType.named(name), s), name=n)
        for n, s in (("x", shape), ("updates", (*block, *shape[len(positions) :])))
    ]
    places = [Value(Type(i64, p), name=f"at{i}") for i, p in enumerate(positions)]
    dims = tuple(range(len(positions)))
    return Graph(
        "put", [*values, *places], [ops.index_put(*values, *places, dims=dims, accumulate=True)]
    )


def arrays(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x, *rest = graph.inputs
    made = [(rng.standard_normal(v.shape) * 8).astype(v.dtype.numpy) for v in (x, rest[0])]
    return made + [rng.integers(-x.shape[i], x.shape[i], v.shape) for i, v in enumerate(rest[1:])]


@pytest.mark.parametrize("ordered", [False, True])
def test_sums_against_the_reference(ordered: bool) -> None:
    """Many updates of one place, all of them taken, with no race between the threads."""
    device, unit = EmulatedDevice(order=1, traced=True), Unit()
    built = {
        name: build(put(case), unit, machine=Gpu(ordered=ordered)) for name, case in CASES.items()
    }
    module = device.load(unit.pieces(device.compilers))
    for name, made in built.items():
        given = arrays(put(CASES[name]))
        found = Executable(made, module, device)([DeviceBuffer.of(a, device) for a in given])[0]
        want = compile_reference(put(CASES[name]), "reference")([Buffer.of(a) for a in given])[0]
        ours, theirs = (x.numpy().astype(np.float64) for x in (found, want))
        tolerance = 1e-2 if CASES[name][0] == "bf16" else 1e-5
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance, err_msg=name)
    # integers in either case
    assert unit.text().count("gt_atomic_add(GT_SHARE(") == (2 if ordered else 6)


def test_along_a_dimension() -> None:
    """scatter_add; a position out of range is an error with the op's name."""
    device = EmulatedDevice()
    named = ("x", "f32", (4, 3)), ("at", "i64", (6, 2)), ("updates", "f32", (6, 2))
    x, at, updates = (Value(Type(DType.named(d), s), name=n) for n, d, s in named)
    made = compile(Graph("g", [x, at, updates], [ops.scatter_add(x, at, updates, dim=0)]), device)
    start, places = (
        np.ones((4, 3), np.float32),
        np.array([[0, 3], [1, 3], [0, 3], [3, 0], [0, 1], [2, 2]]),
    )
    amounts = np.arange(12, dtype=np.float32).reshape(6, 2)
    want = start.copy()
    for (i, j), row in np.ndenumerate(places):
        want[row, j] += amounts[i, j]
    given: list[Any] = [DeviceBuffer.of(a, device) for a in (start, places, amounts)]
    np.testing.assert_array_equal(made(given)[0].numpy(), want)
    made([given[0], DeviceBuffer.of(places + 1, device), given[2]])
    with pytest.raises(IndexError, match="scatter_add"):
        device.synchronize()


def run(line: str) -> np.ndarray:
    device = EmulatedDevice(traced=True)
    text = f'extern "C" __global__ void k(float* x, gt_i32* status) {{\n{line}\n}}\n'
    x, status = (DeviceBuffer.of(np.zeros(1, dtype), device) for dtype in (np.float32, np.int32))
    series = device.load([Piece(text, ("k",))]).series([Launch("k", 2, 64, ((0, 0),))])
    series([x.address, status.address], [x.nbytes, status.nbytes])
    return x.numpy()


def test_only_additions_at_once_may_meet() -> None:
    assert run("gt_atomic_add(GT_SHARE(x, 0), 1.0f);") == 128
    for line in (
        "GT_TO(x, 0) = GT_AT(x, 0) + 1.0f;",
        "if (threadIdx.x) gt_atomic_add(GT_SHARE(x, 0), 1.0f);\nelse GT_TO(x, 0) = 1.0f;",
    ):
        with pytest.raises(DeviceError, match="a race"):
            run(line)


@pytest.mark.skipif(
    nvrtc.library() is None, reason="pip install nvidia-cuda-nvrtc compiles kernels for GPUs"
)
def test_nvrtc_takes_them() -> None:
    unit = Unit()
    for case in CASES.values():
        build(put(case), unit)
    assert nvrtc.compile(unit.text(), "sm_80").startswith(b"\x7fELF")
