"""What a traced emulated device says of kernels: counts of sectors and turns, and races."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.device import DeviceError, Launch, Piece
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.traces import Counts
from graphtorch.backends.gpu.unit import Unit
from op_samples import with_kernels

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

HEAD = 'extern "C" __global__ void k(float* x, gt_i32* status) {\n'


def run(body: str, blocks: int = 1, threads: int = 64) -> Counts:
    """`body` over an array of as many floats as there are threads, twice."""
    device = EmulatedDevice(traced=True)
    x = DeviceBuffer.of(np.zeros(2 * blocks * threads, np.float32), device)
    status = DeviceBuffer.of(np.zeros(1, np.int32), device)
    module = device.load([Piece(HEAD + body + "\n}\n", ("k",))])
    series = module.series([Launch("k", blocks, threads, ((0, 0),))])
    series([x.address, status.address], [x.nbytes, status.nbytes])
    return device.counts["k"]


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
