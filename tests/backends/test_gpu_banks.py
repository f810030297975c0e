"""Main loops of products and of attention take the banks of shared memory without conflicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracting import graph_of, sample
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import LARGE, Tf32
from graphtorch.backends.gpu.traces import Counts, Turns, main_loops
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f16, f32, f64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.ops.common import cast_to
from sampling import without

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

PLAIN = LARGE
ROUNDED = replace(LARGE, tf32=Tf32(True, True))
GROUPS = replace(ROUNDED, warpgroups=True)


def product(m: int, k: int, n: int, dtype: DType, left: bool = False, right: bool = False) -> Graph:
    """Args: left, right: whether that operand's rows and columns are exchanged in memory."""

    def call(a: Value, b: Value) -> Value:
        a, b = (
            ops.permute(x, dims=(1, 0)) if t else x
            for x, t in zip((a, b), (left, right), strict=True)
        )
        return ops.matmul(a, b)

    return graph_of(call, [(k, m) if left else (m, k), (n, k) if right else (k, n)], dtype)


def convolution(dtype: DType) -> Graph:
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    return graph_of(lambda x, w: ops.conv(x, w, **window), [(2, 8, 9, 9), (24, 8, 3, 3)], dtype)


def attention(dtype: DType, features: int, causal: bool = False) -> Graph:
    """Attention and its gradients."""
    shape = (1, 2, 150, features)
    q, k, v, g = (Value(Type(dtype, shape), name=n) for n in "qkvg")
    out, lse = ops.attention(q, k, v, is_causal=causal, scale=0.25)
    delta = cast_to(ops.sum(ops.mul(g, out), dims=(3,), keepdim=False), lse.dtype)
    grads = ops.attention_grad(q, k, v, g, lse, delta, is_causal=causal, scale=0.25)
    return Graph("attention", [q, k, v, g], [out, *grads])


LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]
PRODUCTS = {
    f"{dtype.name} {depth}{' a turned' * left}{' b turned' * right}": (
        dtype,
        depth,
        left,
        right,
    )
    for dtype in (f32, f64)
    for depth in (64, 41)  # 16 bytes at once, and element by element
    for left, right in LAYOUTS
}
Make = Callable[[], Graph]
CASES: dict[str, tuple[Make, object]] = {
    **{
        f"product {name}": (lambda d=d, k=k, x=x, y=y: product(70, k, 50, d, x, y), PLAIN)
        for name, (d, k, x, y) in PRODUCTS.items()
    },
    **{
        f"product {what} {dtype.name}{' a turned' * x}{' b turned' * y}": (
            lambda d=dtype, x=x, y=y: product(128, 72, 136, d, x, y),
            machine,
        )
        for what, dtype, machine in (
            ("warps", bf16, PLAIN),
            ("warps rounded", f32, ROUNDED),
            ("groups", f16, GROUPS),
            ("groups rounded", f32, GROUPS),
        )
        for x, y in LAYOUTS
    },
    "convolution f32": (lambda: convolution(f32), PLAIN),
    "convolution bf16": (lambda: convolution(bf16), PLAIN),
    "convolution rounded": (lambda: convolution(f32), ROUNDED),
    "attention f32": (lambda: attention(f32, 64, causal=True), PLAIN),
    "attention f32 groups": (lambda: attention(f32, 128), GROUPS),
    "attention f64": (lambda: attention(f64, 64), PLAIN),
    "attention bf16": (lambda: attention(bf16, 64, causal=True), PLAIN),
    "attention bf16 wide": (lambda: attention(bf16, 192), PLAIN),
    "attention f16 groups": (lambda: attention(f16, 128, causal=True), GROUPS),
}
# counted for a fifth of a minute each
LONG = ("attention f64", "attention f32 groups")


def loops_of(make: Make, machine: object) -> dict[str, Turns]:
    """What the main loops of each kernel did, of those that have one."""
    device, unit, graph = EmulatedDevice(traced=True), Unit(), make()
    built = build(graph, unit, machine=machine)  # type: ignore[arg-type]
    module = device.load(unit.pieces(device.compilers))
    given = [sample([int(d) for d in v.shape], v.dtype, i) for i, v in enumerate(graph.inputs)]
    Executable(built, module, device)([DeviceBuffer.of(x, device) for x in given])
    found = {
        kernel: counts.within(main_loops(module.pieces[kernel].text))
        for kernel, counts in device.counts.items()
    }
    return {kernel: turns for kernel, turns in found.items() if turns.shared}


@pytest.mark.parametrize("name", without(CASES, LONG))
def test_main_loops_have_no_conflicts(name: str) -> None:
    found = loops_of(*CASES[name])
    assert found
    for kernel, turns in found.items():
        assert turns.turns == turns.least, kernel


@pytest.mark.parametrize(("depth", "loops"), [(12, False), (32, False), (33, True)])
def test_a_slice_that_is_the_only_one_is_no_loop(depth: int, loops: bool) -> None:
    unit = Unit()
    build(product(70, depth, 50, f64), unit, machine=PLAIN)
    (piece,) = unit.pieces(1)
    assert bool(main_loops(piece.text)) == loops


def test_lines_of_main_loops() -> None:
    """Those of the outermost loop that is not unrolled, holds a barrier, and is not over blocks."""
    text = """for (blocks) {
  head();
  #pragma unroll 1
  for (steps) {
    one();
    #pragma unroll
    for (lanes) {
      two();
    }
    __syncthreads();
  }
  #pragma unroll 1
  for (results) {
    three();
  }
  __syncthreads();
}"""
    lines = text.split("\n")
    inside = {lines[n - 1].strip() for n in main_loops(text)}
    assert {"one();", "two();"} <= inside and inside.isdisjoint({"head();", "three();"})


def test_counts_of_lines_add_up() -> None:
    one, other = (Counts(lines={n: Turns(1, 4, 2), 7: Turns(1, 1, 1)}) for n in (3, 4))
    one.add(other)
    assert (one.shared, one.turns, one.least) == (4, 10, 6)
    assert one.within({3, 7}) == Turns(3, 6, 4)
