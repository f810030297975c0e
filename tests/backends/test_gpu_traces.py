"""What a traced emulated device says of kernels: counts of sectors and turns, and races."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.device import DeviceError, Launch, Piece
from graphtorch.backends.gpu.emulated import ORDERS, EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.traces import Counts
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value
from op_samples import with_kernels

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

BARRIER = "__syncthreads();"
HEAD = 'extern "C" __global__ void k(float* x, gt_i32* status) {\n'


def run(body: str, blocks: int = 1, threads: int = 64) -> Counts:
    """`body` over an array of as many floats as there are threads, twice."""
    device = EmulatedDevice(traced=True)
    launch(device, body, blocks, threads)
    return device.counts["k"]


def launch(device: EmulatedDevice, body: str, blocks: int = 1, threads: int = 64) -> None:
    x = DeviceBuffer.of(np.zeros(2 * blocks * threads, np.float32), device)
    status = DeviceBuffer.of(np.zeros(1, np.int32), device)
    module = device.load([Piece(HEAD + body + "\n}\n", ("k",))])
    series = module.series([Launch("k", blocks, threads, ((0, 0),))])
    series([x.address, status.address], [x.nbytes, status.nbytes])


SELF = "int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
ACCESSES: dict[str, tuple[str, int, int]] = {  # body, sectors, least sectors: of two warps
    "neighbours": ("GT_TO(x, i) = GT_AT(x, i) + 1.0f;", 16, 16),
    "every other": ("GT_TO(x, 2 * i) = 1.0f;", 16, 8),
    "far apart": ("float v = GT_AT(x, (i * 8) % 127); if (v == 1.0f) GT_TO(x, i) = v;", 32, 8),
    "one for all": ("float v = GT_AT(x, 5); GT_TO(x, 64 + i) = v;", 10, 10),
}


@pytest.mark.parametrize("name", ACCESSES)
def test_sectors(name: str) -> None:
    body, sectors, ideal = ACCESSES[name]
    found = run(SELF + body)
    assert (found.sectors, found.ideal, found.launches) == (sectors, ideal, 1)


@pytest.mark.parametrize(
    ("index", "turns"), [("i", 2), ("i * 2", 4), ("i * 32 % 2048", 64), ("0", 2)]
)
def test_conflicts_of_banks(index: str, turns: int) -> None:
    """Of two warps: neighbours lie in different banks, a column of 32 floats in one; a word serves
    all."""
    shared = "GT_SHARED(float, s, 2048, 16);\nint i = threadIdx.x;\n__syncthreads();\n"
    found = run(f"{shared}float v = GT_GOT(s, 2048, {index});\nif (v == 1.0f) GT_TO(x, i) = v;")
    assert (found.shared, found.turns, found.barriers) == (2, turns, 1)


RACES: dict[str, tuple[str, str | None]] = {
    "own elements": ("GT_TO(x, i) = 1.0f;", None),
    "the next block's": (
        "GT_TO(x, i + 1) = 1.0f;\nfloat v = GT_AT(x, i);\nif (v == 2.0f) GT_TO(x, i) = v;",
        "another block touches in the same launch",
    ),
    "one for all": ("GT_TO(x, 0) = 1.0f;", "it writes to an element that another block"),
    "the neighbour's": (
        "GT_TO(x, i ^ 1) = 1.0f;\nfloat v = GT_AT(x, i);\nif (v == 2.0f) GT_TO(x, 0) = v;",
        "another thread of the block touches with no barrier between",
    ),
    "behind a barrier": (
        "GT_TO(x, i ^ 1) = 1.0f;\n__syncthreads();\nfloat v = GT_AT(x, i);\n"
        "if (v == 2.0f) GT_TO(x, 0) = v;",
        None,
    ),
}


@pytest.mark.parametrize("name", RACES)
def test_races(name: str) -> None:
    body, message = RACES[name]
    if message is None:
        run(SELF + body, 2)
        return
    with pytest.raises(DeviceError, match=f"kernel k, line [2-5]: a race: .*{message}"):
        run(SELF + body, 2)


MINE = "__shared__ float s[64];\nint i = threadIdx.x;\n"
RAW: dict[str, tuple[str, str]] = {  # body, what stands where a barrier is missing: lines 4 to 7
    "an array": ("s[i] = x[i];\n%s\nx[i] = s[63 - i];", "__syncthreads();"),
    "a pointer": ("float* p = s;\np[i] = x[i];\n%s\nx[i] = p[i ^ 1];", "__syncthreads();"),
    "halves of words": (
        "s[i] = x[i];\n%s\ngt_u16 half = ((gt_u16*)s)[2 * i ^ 3];\nx[i] = half;",
        "__syncthreads();",
    ),
    "written again": ("s[i] = x[i];\n%s\ns[63 - i] += 1.0f;\nx[i] = 0.0f;", "__syncthreads();"),
    "read before": ("float v = s[i / 2];\n%s\ns[i] = 1.0f;\nx[i] = v;", "__syncthreads();"),
}


@pytest.mark.parametrize("order", range(ORDERS))
@pytest.mark.parametrize("name", RAW)
def test_a_missing_barrier_in_raw_shared_memory_is_a_race(name: str, order: int) -> None:
    """Whatever way an access goes, and in any order of threads."""
    body, barrier = RAW[name]
    launch(EmulatedDevice(order, watched=True), MINE + body % barrier)
    with pytest.raises(DeviceError, match=r"kernel k, line [4-7]: .* with no barrier between"):
        launch(EmulatedDevice(order, watched=True), MINE + body % "")


PLANTED = {  # a graph, and which of its kernel's barriers it cannot do without
    "products": (lambda x: ops.matmul(x, x), (64, 64), (0, 1)),
    "rows": (lambda x: ops.softmax(x, dim=1), (4, 5120), (0, 1)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_barrier_taken_from_a_kernel_of_ours_is_missed(name: str) -> None:
    make, shape, needed = PLANTED[name]
    x, unit = Value(Type(f32, shape), name="x"), Unit()
    made = build(Graph("g", [x], [make(x)]), unit)
    (piece,) = unit.pieces(1)
    parts = piece.text.split(BARRIER)
    for i in needed:
        text = BARRIER.join(parts[: i + 1]) + BARRIER.join(["", *parts[i + 1 :]])[len(BARRIER) :]
        device = EmulatedDevice(watched=True)
        module = device.load([Piece(text, piece.kernels)])
        with pytest.raises(DeviceError, match=r"kernel k_\w+, line \d+: .* no barrier between"):
            Executable(made, module, device)([DeviceBuffer.of(np.ones(shape, np.float32), device)])


def test_no_kernel_of_ours_has_a_race() -> None:
    device, unit = EmulatedDevice(traced=True), Unit()
    chosen = list(with_kernels())[::23]
    built = [build(sample.graph(), unit) for sample in chosen]
    module = device.load(unit.pieces(device.compilers))
    for sample, made in zip(chosen, built, strict=True):
        Executable(made, module, device)(
            [DeviceBuffer.of(np.asarray(x), device) for x in sample.arrays]
        )
    assert len(device.counts) > 25
