"""Kernels as CUDA C on the emulated device, beside the reference; and what that device finds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu import compiler, nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.device import DeviceError, Launch, Piece
from graphtorch.backends.gpu.emulated import ORDERS, EmulatedDevice
from graphtorch.backends.gpu.emulated import compiler as cxx
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Symbol, SymInt
from op_samples import WITHOUT_KERNELS, Sample, differs, every, with_kernels

pytestmark = pytest.mark.skipif(
    cxx() is None, reason="the emulated CUDA device needs a C++ compiler"
)

CHUNKS = 8  # of the samples; the kernels of each are one unit


def put(device: EmulatedDevice, x: Any) -> DeviceBuffer:
    return DeviceBuffer.of(np.asarray(x), device)


@functools.cache
def samples() -> list[Sample]:
    return list(with_kernels())


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_op(chunk: int) -> None:
    """Each record's samples with their gradients are what the reference makes of them."""
    device, unit = EmulatedDevice(), Unit()
    chosen = samples()[chunk::CHUNKS]
    built = [compiler.build(sample.graph(), unit) for sample in chosen]
    module = device.load(unit.pieces(device.compilers))
    wrong = []
    for sample, made in zip(chosen, built, strict=True):
        found = Executable(made, module, device)([put(device, x) for x in sample.arrays])
        want = compile_reference(sample.graph(), "reference")([Buffer.of(x) for x in sample.arrays])
        if said := differs([x.numpy() for x in found], [x.numpy() for x in want], f64, 64):
            wrong.append(f"{sample.name}: {said}")
    assert not wrong


def test_what_has_no_kernel_is_refused_by_name() -> None:
    (sample,) = [s for s in every() if s.name in WITHOUT_KERNELS]
    with pytest.raises(NotImplementedError, match=r"eig of complex numbers.*\.cpu\(\)"):
        compiler.build(sample.graph(), Unit())


DTYPES = ("f16", "bf16", "f32", "f64", "i8", "u8", "i16", "i32", "i64", "u32", "bool")


def all_dtypes() -> Graph:
    """Casts of one input of each dtype to all the others."""
    inputs = [Value(Type(DType.named(name), (6,)), name=name) for name in DTYPES]
    return Graph(
        "casts", inputs, [ops.cast(v, dtype=DType.named(t)) for v in inputs for t in DTYPES]
    )


def test_conversions() -> None:
    """Every pair of dtypes: what rounds, wraps or saturates does so as in the reference."""
    device = EmulatedDevice()
    numbers = np.array([0.0, -1.0, 2.5, 300.7, 7e4, -3e9])
    given = []
    for name in DTYPES:
        dtype = DType.named(name)
        kept = (
            numbers
            if dtype.is_floating_point
            else np.clip(numbers, 0 if name[0] in "ub" else -100, 100)
        )
        with np.errstate(over="ignore"):
            given.append(np.asarray(kept).astype(dtype.numpy))
    found = compiler.compile(all_dtypes(), device)([put(device, x) for x in given])
    want = compile_reference(all_dtypes(), "reference")([Buffer.of(x) for x in given])
    for (a, b), ours, theirs in zip(
        [(a, b) for a in DTYPES for b in DTYPES], found, want, strict=True
    ):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes(), f"{a} to {b}"


def model(x: Value, w: Value, b: Value) -> Value:
    return ops.softmax(ops.add(ops.matmul(ops.tanh(x), w), b), dim=1)


@pytest.mark.parametrize("order", range(ORDERS))
def test_symbolic_sizes_in_any_order_of_threads(order: int) -> None:
    device, rows = EmulatedDevice(order), SymInt.atom(Symbol("rows", 1, 100))
    types = [Type(f32, s) for s in ((rows, 7), (7, 9), (9,))]
    inputs = [Value(t, name=n) for t, n in zip(types, "xwb", strict=True)]
    executable = compiler.compile(Graph("model", inputs, [model(*inputs)]), device)
    rng = np.random.default_rng(0)
    for count in (1, 5, 70):
        arrays = [rng.standard_normal(s).astype(np.float32) for s in ((count, 7), (7, 9), (9,))]
        scores = np.tanh(arrays[0]) @ arrays[1] + arrays[2]
        want = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        found = executable([put(device, x) for x in arrays])[0].numpy()
        np.testing.assert_allclose(found, want, 1e-5)


def test_errors_name_op_and_line() -> None:
    device = EmulatedDevice()
    inputs = [
        Value(Type(f32, (4, 2)), name="x"),
        Value(Type(DType.named("i64"), (3,)), name="places"),
    ]
    executable = compiler.compile(Graph("g", inputs, [ops.index_select(*inputs, dim=0)]), device)
    executable([put(device, np.ones((4, 2), np.float32)), put(device, np.array([0, 9, 1]))])
    with pytest.raises(IndexError, match="index_select"):
        device.synchronize()
    device.synchronize()


# --------------------------------------------------------------------------------------- the device

FAULTS: dict[str, tuple[str, str]] = {
    "outside": (
        "GT_AT(x, threadIdx.x + 1) = 0.0f;",
        "line 2: an access outside of the kernel's buffers",
    ),
    "scratch": (
        "float s[4];\nGT_IN(s, 4, threadIdx.x) = 1.0f;\nGT_AT(x, threadIdx.x) = s[0];",
        "line 3: an index outside of a thread's or a block's memory",
    ),
    "divergent": (
        "if (threadIdx.x < 16)\n__syncthreads();\nGT_AT(x, threadIdx.x) = 1.0f;",
        "line 3: a barrier after some threads of the block have left",
    ),
    "two barriers": (
        "if (threadIdx.x < 16)\n__syncthreads();\nelse\n__syncthreads();",
        "threads of a block wait at different barriers",
    ),
    "left lane": (
        "if (threadIdx.x == 3) return;\nGT_AT(x, threadIdx.x) = __shfl_xor_sync(~0u, 1.0f, 1);",
        "line 3: a warp operation waits for a lane that has left",
    ),
}


def run(body: str, order: int = 0, size: int = 32) -> np.ndarray:
    """`size` threads of one block run `body` on as many floats."""
    device = EmulatedDevice(order)
    text = f'extern "C" __global__ void k(float* x, gt_i32* status) {{\n{body}\n}}\n'
    x, status = put(device, np.arange(size, dtype=np.float32)), put(device, np.zeros(1, np.int32))
    series = device.load([Piece(text, ("k",))]).series([Launch("k", 1, size, ((0, 0),))])
    series([x.address, status.address], [x.nbytes, status.nbytes])
    return x.numpy()


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_reported_with_kernel_and_line(name: str) -> None:
    body, message = FAULTS[name]
    with pytest.raises(DeviceError, match="kernel k, ") as caught:
        run(body)
    assert message in str(caught.value)


REVERSED = """__shared__ float s[64];
s[threadIdx.x] = x[threadIdx.x];
%s
x[threadIdx.x] = s[63 - threadIdx.x];"""


def test_a_missing_barrier_shows() -> None:
    """With the barrier all orders agree; without it what was not yet written is NaN in some of
    them."""
    want = np.arange(64, dtype=np.float32)[::-1]
    assert all(
        (run(REVERSED % "__syncthreads();", order, 64) == want).all() for order in range(ORDERS)
    )
    without = [run(REVERSED % "", order, 64) for order in range(ORDERS)]
    assert any(np.isnan(x).any() for x in without)


SUMS: dict[str, str] = {
    "down": "for (int d = 16; d; d /= 2) v += __shfl_down_sync(~0u, v, d);\nx[threadIdx.x] = v;",
    "xor": "for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);\nx[threadIdx.x] = v;",
    "one": "v = __shfl_sync(~0u, v, 5);\nx[threadIdx.x] = v;",
}


@pytest.mark.parametrize(("name", "want"), [("down", 496), ("xor", 496), ("one", 5)])
def test_lanes_exchange_values(name: str, want: float) -> None:
    for order in range(ORDERS):
        assert run("float v = x[threadIdx.x];\n" + SUMS[name], order)[0] == want


# ------------------------------------------------------------------------------------------ NVRTC


@pytest.mark.skipif(
    nvrtc.library() is None, reason="pip install nvidia-cuda-nvrtc compiles kernels for GPUs"
)
def test_nvrtc_takes_the_same_text() -> None:
    unit = Unit()
    for sample in samples()[::40]:
        compiler.build(sample.graph(), unit)
    assert nvrtc.compile(unit.text(), "sm_80").startswith(b"\x7fELF")
    with pytest.raises(DeviceError, match=r"unit\(1\): error"):
        nvrtc.compile("wrong", "sm_90")


# ------------------------------------------------------------------------------------------ text

GOLDEN: dict[str, Callable[..., Any]] = {
    "gpu_pointwise": lambda x, y: ops.add(ops.mul(x, y), x),
    "gpu_reduction": lambda x, y: ops.sum(ops.mul(x, y), dims=(1,), keepdim=False),
    "gpu_product": lambda x, y: ops.matmul(x, ops.permute(y, dims=(1, 0))),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_text(name: str, golden: Callable[[str, str], None]) -> None:
    inputs = [Value(Type(f32, (6, 40)), name=n) for n in "xy"]
    unit = Unit()
    compiler.build(Graph(name, inputs, [GOLDEN[name](*inputs)]), unit)
    golden(name, unit.text())
