"""Kernels that differ in a few numbers are one kernel, and compute what each of them would have."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile, reference
from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer as Memory
from graphtorch.backends.kernels.ir import Const, Kernel, KType, load
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.program.program import Launch, Program, Slot, flat
from graphtorch.backends.kernels.program.share import share_kernels
from graphtorch.backends.llvm.jit import run_kernel
from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean, f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import pipeline


def given(*shape: int, name: str = "x") -> Value:
    return Value(Type(f32, shape), name=name)


def narrowing(channels: list[int], size: int = 20) -> Graph:
    """1x1 convolutions of several widths with the batch norm and activation of each, as in a dense
    net."""
    inputs: list[Value] = []
    results = []
    for i, c in enumerate(channels):
        x, w = given(1, c, size, size, name=f"x{i}"), given(24, c, 1, 1, name=f"w{i}")
        scale = given(1, c, 1, 1, name=f"s{i}")
        y = ops.conv(
            ops.relu(ops.mul(x, scale)),
            w,
            stride=(1, 1),
            padding=((0, 0), (0, 0)),
            dilation=(1, 1),
            groups=1,
        )
        inputs += [x, w, scale]
        results.append(y)
    return Graph("narrowing", inputs, results)


def test_layers_of_several_widths_share_kernels():
    program = lower(
        pipeline.run(narrowing([96, 128, 160, 192]), supports), Machine(32, 16), range(1, 12, 3)
    )
    assert len(list(flat(program.launches))) == 8
    kinds = {la.kernel: la.label.split()[0] for la in flat(program.launches)}
    assert sorted(kinds.values()) == ["conv", "mul+relu"]
    assert len({la.sizes for la in flat(program.launches)}) == 8


def test_shared_kernels_compute_what_the_reference_does():
    graph = narrowing([32, 64, 96, 160])
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    got = compile(graph)([Buffer.of(a) for a in arrays])
    for a, b in zip(got, reference.run(graph, arrays), strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-4, atol=1e-4)


def rows(count: int, stride: int, divisor: int = 0, offsets: tuple[int, ...] = ()) -> Kernel:
    """``y[i * 8 + j] = x[i * stride + j]`` for `count` rows; more offsets are read and added up,
    and with a `divisor` the column is divided by it."""
    b = Builder()
    x, y = Memory("x", f32), Memory("y", f32, "write")
    with b.loop(count, "parallel") as i, b.loop(8, "vector", "j") as j:
        column = j // divisor if divisor else j
        value = load(x, i * stride + column)
        for offset in offsets:
            value = value + load(x, i * stride + (column + offset))
        b.store(y, i * 8 + j, value)
    return Kernel("rows", (x, y), (), b.body)


def split_rows(width: int, nested: bool) -> Kernel:
    """``y[r, c, j] = x[r, c, j]`` for rows of `width` columns; `nested`: in two loops a task."""
    b = Builder()
    x, y = Memory("x", f32), Memory("y", f32, "write")
    with b.loop(60, "parallel") as task:
        row, column = b.let(task // width), b.let(task % width)
        at = b.let((row * width + column) * 16)
        with b.loop(2, name="half") if nested else b.when(Const(True, KType(boolean))) as half:
            start = at + half * 8 if nested else at
            with b.loop(8 if nested else 16, "vector", "j") as j:
                b.store(y, start + j, load(x, start + j))
    return Kernel("rows", (x, y), (), b.body)


def program_of(*kernels: Kernel) -> Program:
    slots = [tuple(Slot(kind, f32, (4096,), 4096) for kind in ("input", "output")) for _ in kernels]
    launches = [Launch(k, s) for k, s in zip(kernels, slots, strict=True)]
    return Program("p", (), tuple(s[0] for s in slots), tuple(s[1] for s in slots), launches)


def test_counts_and_strides_of_outer_loops_become_parameters():
    program = program_of(rows(20, 16), rows(30, 24), rows(20, 16))
    share_kernels(program)
    (kernel,) = program.kernels()
    assert [la.sizes for la in program.launches] == [(20, 16), (30, 24), (20, 16)]
    x = np.arange(4096, dtype=np.float32)
    for count, stride in ((20, 16), (30, 24)):
        y = np.zeros(240, np.float32)
        run_kernel(kernel, [x, y], (count, stride))
        expected = (
            (np.arange(count)[:, None] * stride + np.arange(8)).astype(np.float32).reshape(-1)
        )
        np.testing.assert_array_equal(y[: count * 8], expected)


@pytest.mark.parametrize(
    "kernels",
    [
        pytest.param(
            (rows(20, 16, divisor=2), rows(20, 16, divisor=4)), id="divisors of an inner loop"
        ),
        pytest.param(
            (rows(20, 16, offsets=(5, 9)), rows(20, 16, offsets=(3, 11))), id="taps of a stencil"
        ),
        pytest.param((split_rows(5, False), split_rows(6, False)), id="divisors of short tasks"),
    ],
)
def test_what_shapes_the_code_of_inner_loops_stays_constant(kernels):
    program = program_of(*kernels)
    share_kernels(program)
    assert program.kernels() == list(kernels) and all(not la.sizes for la in program.launches)


def test_long_tasks_may_divide_by_parameters():
    program = program_of(split_rows(5, True), split_rows(6, True))
    share_kernels(program)
    (kernel,) = program.kernels()
    x = np.arange(960, dtype=np.float32)
    for launch in program.launches:
        y = np.zeros(960, np.float32)
        run_kernel(kernel, [x, y], launch.sizes)
        np.testing.assert_array_equal(y, x)


def test_kernels_that_are_alone_stay_as_they_are():
    kernel = rows(20, 16)
    program = program_of(kernel)
    share_kernels(program)
    assert program.kernels() == [kernel]
    assert any(isinstance(s.hi, Const) for s in kernel.body)
