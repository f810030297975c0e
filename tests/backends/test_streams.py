"""Results that are written past the caches: the copies themselves, and kernels of machines whose
last cache is small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from compiled import assert_close, graph_of
from graphtorch.backends.buffer import Buffer as Memory
from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Kernel, Name, Stream, load, walk
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.program.program import flat
from graphtorch.backends.kernels.text import print_program
from graphtorch.backends.llvm.build import build
from graphtorch.backends.llvm.executable import Executable
from graphtorch.backends.llvm.jit import kernel_text, run_kernel
from graphtorch.backends.llvm.native import compile_assembly
from graphtorch.backends.llvm.processor import host, named
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, boolean, f16, f32, f64, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.passes import pipeline

SMALL = 2048  # bytes of the last cache
Build = Callable[..., Value]


def copying(dtype: DType, tasks: int = 3) -> Kernel:
    """y[first ..] = x, `count` elements a task."""
    x, y, first, count, b = (
        Buffer("x", dtype),
        Buffer("y", dtype, "readwrite"),
        Name("first"),
        Name("n"),
        Builder(),
    )
    with b.loop(tasks, "parallel", "task") as task:
        line = b.scratch(dtype, 256, "line")
        with b.loop(count, "vector") as i:
            b.store(line, i, load(x, task * count + i))
        b.stream(y, first + task * count, count, line)
    return Kernel("copying", (x, y), (first, count), b.body)


@pytest.mark.parametrize("dtype", [f32, f64, f16, boolean, i64])
@pytest.mark.parametrize("count", [0, 1, 3, 16, 63, 64, 65, 250, 256])
def test_a_copy_writes_its_elements_and_no_others(dtype: DType, count: int) -> None:
    rng, kernel = np.random.default_rng(0), copying(dtype)
    x = (rng.integers(0, 2, 3 * 256) * 3).astype(dtype.numpy)
    for first in (0, 1, 7, 32, 61):
        y = np.ones(3 * 256 + 64, dtype.numpy)
        expected = y.copy()
        expected[first : first + 3 * count] = x[: 3 * count]
        assert run_kernel(kernel, [x, y], [first, count]) == 0
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    "triple, cpu, store, fence",
    [
        ("x86_64-unknown-linux-gnu", "znver3", "vmovntps", "sfence"),
        ("x86_64-unknown-linux-gnu", "znver4", "zmm", "sfence"),
        ("x86_64-unknown-linux-gnu", "", "movntps", "sfence"),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "stnp", "ret"),
    ],
)
def test_copies_pass_by_the_caches_of_all_machines(
    triple: str, cpu: str, store: str, fence: str
) -> None:
    target = named(triple, cpu)
    text = compile_assembly(kernel_text(copying(f32), target), target)
    assert store in text and fence in text


# ---- kernels


def columns(x: Value) -> Value:
    return ops.softmax(x, dim=0)


def with_mask(x: Value, y: Value) -> list[Value]:
    return [ops.gt(x, y), ops.add(x, y)]


# What is computed of inputs of these shapes, and how many stores of it pass by the caches.
CASES: dict[str, tuple[Callable[..., object], list[tuple[int, ...]], int]] = {
    "chain": (lambda x: ops.relu(ops.add(ops.mul(x, x), x)), [(7, 1001)], 1),
    "bias": (lambda x, y: ops.add(x, y), [(33, 129), (129,)], 1),
    "several": (with_mask, [(77, 131), (77, 131)], 2),
    "gelu": (lambda x: ops.gelu(x), [(4099,)], 1),
    "softmax": (lambda x: ops.softmax(x, dim=1), [(9, 1003)], 1),
    "softmax of columns": (columns, [(19, 515)], 1),
    "layer norm": (lambda x: ops.layer_norm(x, axes=1, eps=1e-5), [(13, 777)], 1),
    "transpose": (lambda x: ops.permute(x, dims=(1, 0)), [(131, 257)], 1),
    "heads": (lambda x: ops.permute(x, dims=(0, 2, 1, 3)), [(3, 70, 5, 128)], 1),
    "channels last": (lambda x: ops.permute(x, dims=(0, 2, 3, 1)), [(2, 130, 9, 11)], 1),
    "stored turned": (lambda x: ops.permute(ops.exp(x), dims=(1, 0)), [(70, 130)], 0),
    "rows that are short": (lambda x, y: ops.add(x, y), [(400, 9, 3), (9, 1)], 0),
    "sums": (lambda x: ops.sum(x, dims=(1,)), [(1300, 9)], 0),
}


def numbers(shape: tuple[int, ...], seed: int, dtype: type = np.float32) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    x.reshape(-1)[[0, 5, x.size // 2, x.size // 3, -1]] = [np.nan, -0.0, np.inf, -np.inf, 1e-40]
    return x


def streams(graph: Graph, machine: Machine) -> int:
    """How many statements of a program write past the caches."""
    program = lower(pipeline.run(graph, supports, "llvm"), machine)
    kernels = [launch.kernel for launch in flat(program.launches)]
    return sum(isinstance(s, Stream) for kernel in kernels for s in walk(kernel.body))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [f32, f16, f64])
def test_results_are_those_of_the_references(name: str, dtype: DType) -> None:
    make, shapes, count = CASES[name]
    graph = graph_of(make, [(dtype, shape) for shape in shapes])
    processor = replace(host(), caches=(*host().caches[:2], SMALL))
    assert streams(graph, processor.machine) == count
    arrays = [numbers(shape, i, dtype.numpy) for i, shape in enumerate(shapes)]
    made = Executable(*build(graph, processor))
    found = made([Memory.of(a) for a in arrays])
    with np.errstate(all="ignore"):
        expected = evaluate(graph, arrays)
    for a, b in zip(found, expected, strict=True):
        assert_close(a.numpy(), b)
        zero = (b == 0) & (a.numpy() == 0) if b.dtype.kind == "f" else np.zeros(b.shape, bool)
        np.testing.assert_array_equal(np.signbit(a.numpy()[zero]), np.signbit(b[zero]))


def test_results_that_caches_hold_are_stored_as_usual() -> None:
    make, shapes, count = CASES["chain"]
    graph = graph_of(make, [(f32, shape) for shape in shapes])
    assert streams(graph, Machine(caches=(32 << 10, 1 << 20, SMALL))) == count
    assert streams(graph, Machine()) == 0


def test_what_takes_over_an_input_is_stored_as_usual() -> None:
    graph = graph_of(lambda x: ops.mul(x, x), [(f32, (5000,))])
    machine = Machine(caches=(32 << 10, 1 << 20, SMALL))
    assert streams(graph, machine) == 1
    donating = Graph("test", graph.inputs, graph.outputs, graph.nodes, ((0, 0),))
    assert streams(donating, machine) == 0


@pytest.mark.parametrize(
    "name, make, shape",
    [
        ("stream_chain", lambda x: ops.relu(ops.add(x, x)), (4096, 2048)),
        ("stream_softmax", lambda x: ops.softmax(x, dim=1), (4096, 2048)),
        ("stream_transpose", lambda x: ops.permute(x, dims=(1, 0)), (4096, 2048)),
    ],
)
def test_kernels(
    name: str, make: Build, shape: tuple[int, ...], golden: Callable[[str, str], None]
) -> None:
    graph = graph_of(make, [(f32, shape)])
    golden(name, print_program(lower(pipeline.run(graph, supports, "llvm"))))
