"""What `tools.bench cuda` says of kernels: operations, sectors, turns, registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphtorch.backends.gpu import compiler, nvrtc
from graphtorch.backends.gpu.emulated import compiler as cxx
from graphtorch.backends.gpu.operations import Operations, operations
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Symbol, SymInt

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"


def found(make: Any, *shapes: tuple[Any, ...], dtype: str = "f32") -> Operations:
    """Of all kernels of a graph."""
    inputs = [Value(Type(DType.named(dtype), s), name=f"x{i}") for i, s in enumerate(shapes)]
    unit, total = Unit(), Operations()
    compiler.build(Graph("g", inputs, [make(*inputs)]), unit)
    for kernel, _ in unit.kernels():
        for one in operations(kernel, ()):
            assert one is not None
            total.add(one)
    return total


def test_operations_of_pointwise_kernels_and_reductions() -> None:
    assert found(lambda x, y: ops.add(ops.mul(x, y), x), (64, 32), (64, 32)).plain == 2 * 64 * 32
    sums = found(lambda x: ops.sum(x, dims=(1,), keepdim=False), (40, 64)).plain
    assert 63 * 40 <= sums <= 3 * 64 * 40  # in the end every thread of a warp adds
    exp = found(ops.exp, (1000,)).plain
    assert 8 * 1000 < exp < 30 * 1000  # a polynomial and what is around it
    assert found(lambda x: ops.permute(x, dims=(1, 0)), (64, 64)) == Operations()


@pytest.mark.parametrize(("dtype", "kind"), [("f32", "plain"), ("bf16", "matrices")])
def test_operations_of_products(dtype: str, kind: str) -> None:
    total = found(ops.matmul, (128, 256), (256, 64), dtype=dtype)
    assert 2 * 128 * 256 * 64 <= getattr(total, kind) <= 2.1 * 128 * 256 * 64
    assert total.matrices == 0 or total.plain < total.matrices / 10


def test_sizes_that_are_told_at_the_launch() -> None:
    rows = SymInt.atom(Symbol("rows", 1, 100))
    inputs = [Value(Type(DType.named("f32"), (rows, 8)), name="x")]
    unit = Unit()
    compiler.build(Graph("g", inputs, [ops.mul(inputs[0], inputs[0])]), unit)
    ((kernel, _),) = unit.kernels()
    for count in (8, 80):
        assert operations(kernel, [count]) == [Operations(8 * count)]


@pytest.mark.skipif(cxx() is None, reason="the emulated CUDA device needs a C++ compiler")
def test_the_table_of_counts(tmp_path: Path) -> None:
    """Pointwise kernels, transposes and convolutions with channels last move no more than they
    have to."""
    rows = tmp_path / "rows.json"
    names = ("x*", "transpose f32", "conv 1x1*")
    command = [sys.executable, BENCH, "cuda", "--emulated", *names, "--json", rows]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    listed = json.loads(rows.read_text())
    cases = ["x * y + x f32", "transpose f32", "conv 1x1 + add warpgroups"]
    assert [r["case"] for r in listed] == cases
    for row in listed:
        assert row["sectors"] <= 1.05 * row["ideal"] and row["limit"] == "memory"
        assert row["kernel"] in done.stdout
    pointwise, transpose, conv = listed
    assert pointwise["touched"] * 32 == 3 * 4 * 256 * 256 and pointwise["flops"] == 2 * 256 * 256
    assert transpose["turns"] == transpose["least"] > 0 and transpose["barriers"] > 0
    assert conv["loop_turns"] == conv["loop_least"] > 0
    # what its epilogue stores in lines of shared memory is the only thing with conflicts
    assert conv["lines"] and not any(line["loop"] for line in conv["lines"])
    assert all(line["text"][:100] in done.stdout for line in conv["lines"])


@pytest.mark.skipif(cxx() is None, reason="the emulated CUDA device needs a C++ compiler")
def test_blocks_of_some_kernels_have_no_races() -> None:
    """The whole set is run by hand: it takes a minute."""
    names = ("transpose bf16", "softmax f32", "matmul 256 tf32", "attention 128x64 bf16")
    command = [sys.executable, BENCH, "cuda", "--races", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kernels without a race") == len(names)


def test_without_a_compiler_one_line_says_why_tests_are_skipped(tmp_path: Path) -> None:
    files = [Path(__file__).with_name(f"test_gpu_{n}.py") for n in ("pools", "traces", "counts")]
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *files]
    command += ["-k", "not one_line"]
    bare = {**os.environ, "CXX": "none", "PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=bare)
    said = [x for x in done.stdout.splitlines() if "the emulated CUDA device needs" in x]
    assert len(said) == 1 and int(said[0].split("[")[1].split("]")[0]) > 40, done.stdout


@pytest.mark.skipif(
    nvrtc.library() is None, reason="pip install nvidia-cuda-nvrtc compiles kernels for GPUs"
)
def test_what_kernels_take() -> None:
    text = """
extern "C" __global__ void light(float* x, gt_i32* status) { x[threadIdx.x] += 1.0f; }
extern "C" __global__ void __launch_bounds__(1024) heavy(float* x, gt_i32* status) {
  __shared__ float s[256];
  float v[96];
  for (int i = 0; i < 96; i++) v[i] = x[i * 1024 + threadIdx.x];
  s[threadIdx.x % 256] = v[3];
  __syncthreads();
  for (int r = 0; r < 3; r++)
#pragma unroll
    for (int i = 0; i < 96; i++) v[i] = v[i] * v[(i + 7) % 96] + s[i];
#pragma unroll
  for (int i = 0; i < 96; i++) x[i * 1024 + threadIdx.x] = v[i];
}"""
    uses = nvrtc.resources(text, "sm_80")
    assert uses == nvrtc.resources(text, "sm_80")
    light, heavy = uses["light"], uses["heavy"]
    assert 0 < light.registers < 20 and (light.spilled, light.stack, light.shared) == (0, 0, 0)
    assert heavy.registers == 64 and heavy.spilled > 0 and heavy.stack > 0 and heavy.shared == 1024


@pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC tells registers")
def test_registers_of_what_has_no_kernel_for_an_architecture() -> None:
    """Kernels by warpgroups are made for one architecture alone: others have a line all the
    same."""
    command = [sys.executable, BENCH, "cuda", "--resources", "cumsum of rows f32"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert "cumsum of rows f32: k_cumsum" in said
