"""Op samples on the emulated device in other dtypes than their own, beside the reference.

Here a part of them: for each op one, in a dtype by its place among the ops. All are run by
`GRAPHTORCH_CUDA=emulated python3 tools/gpu.py ops --dtypes all`.
"""

from __future__ import annotations

import functools
from collections import defaultdict

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir.dtype import DType
from op_samples import Sample, differs, in_every_dtype, with_kernels

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

CHUNKS = 4  # of the samples; the kernels of each are one unit
# words of random bits, conditions, and products of dtypes of their own
OF_ONE_DTYPE = {"all", "any", "permutation", "low_linear", "narrow_linear"}
FAMILIES = ("logical_", "mersenne_", "words_to_")


@functools.cache
def by_op() -> dict[str, list[tuple[Sample, DType]]]:
    found = defaultdict(list)
    for sample, dtype in in_every_dtype():
        found[sample.name.split()[0]].append((sample, dtype))
    return found


def test_what_has_samples_of_one_dtype_only() -> None:
    names = {sample.name.split()[0] for sample in with_kernels()} - set(by_op())
    assert {n for n in names if not n.startswith(FAMILIES)} == OF_ONE_DTYPE


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_an_op_in_another_dtype(chunk: int) -> None:
    device, unit = EmulatedDevice(), Unit()
    chosen = [few[i % len(few)] for i, few in enumerate(by_op().values())][chunk::CHUNKS]
    built = [build(sample.graph(), unit) for sample, _ in chosen]
    module = device.load(unit.pieces(device.compilers))
    wrong = []
    for (sample, dtype), made in zip(chosen, built, strict=True):
        found = Executable(made, module, device)(
            [DeviceBuffer.of(x, device) for x in sample.arrays]
        )
        want = compile_reference(sample.graph(), "reference")([Buffer.of(x) for x in sample.arrays])
        if said := differs([x.numpy() for x in found], [x.numpy() for x in want], dtype):
            wrong.append(f"{dtype} {sample.name}: {said}")
    assert not wrong


@pytest.mark.parametrize("name", ["f16", "c64", "i8"])
def test_one_wrong_number_differs(name: str) -> None:
    dtype = DType.named(name)
    right = np.arange(1, 9).astype(dtype.numpy)
    wrong = right.copy()
    wrong[3] = wrong[3] + 1 if dtype.is_integer else wrong[3] * 1.05
    assert not differs([right], [right], dtype)
    assert "instead of" in differs([wrong], [right], dtype)
    assert "instead of" in differs([right.astype(np.complex128)], [right], dtype)


def test_infinities_differ_from_all_but_the_largest_numbers() -> None:
    infinite, largest, small = (np.array([x, 6e4], np.float16) for x in (np.inf, 65504, 1))
    f16 = DType.named("f16")
    assert not differs([infinite], [largest], f16) and not differs([largest], [infinite], f16)
    for found, want in ((infinite, small), (small, infinite), (-infinite, infinite)):
        assert "instead of" in differs([found], [want], f16)
    nothing = np.array([np.nan, 6e4], np.float16)
    assert "instead of" in differs([nothing], [infinite], f16)
