"""Runs one contraction through lowering and native code, launch by launch, next to its
reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.program.program import Program, Slot
from graphtorch.backends.llvm.jit import run_kernel
from graphtorch.backends.llvm.processor import host
from graphtorch.ir.dtype import DType, f32, i32
from graphtorch.ir.evaluate import evaluate as interpret
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import fuse
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.shape import Dim, evaluate, symbols

Build = Callable[..., Value]
TOLERANCE = {"bf16": 2e-2, "f16": 2e-3, "f32": 2e-5, "f64": 1e-12}


def graph_of(build: Build, shapes: Sequence[Sequence[Dim]], dtype: DType = f32) -> Graph:
    """`build` applied to inputs of these shapes."""
    values = [Value(Type(dtype, tuple(shape)), name=f"x{i}") for i, shape in enumerate(shapes)]
    return Graph("case", values, [build(*values)])


def program_of(graph: Graph, stable: Sequence[int] = (), machine: Machine | None = None) -> Program:
    return lower(fuse.run(graph, Limits()), machine or host().machine, stable)


def sample(shape: Sequence[int], dtype: DType, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.is_floating_point:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(0, 10, shape).astype(dtype.numpy)


def run(
    program: Program, arrays: Sequence[np.ndarray], sizes: Mapping[str, int]
) -> list[np.ndarray]:
    """Every launch in order. Memory that kernels fill starts as garbage."""
    memory: dict[Slot, np.ndarray] = dict(
        zip(program.inputs, map(np.ascontiguousarray, arrays), strict=True)
    )

    def array(slot: Slot) -> np.ndarray:
        slot = slot.alias or slot
        if slot not in memory:
            memory[slot] = (
                slot.literal.numpy().copy()
                if slot.literal
                else garbage(int(evaluate(slot.elements, sizes)), slot.dtype)
            )
        return memory[slot]

    for launch in (*program.prologue, *program.launches):
        values = [int(evaluate(d, sizes)) for d in launch.sizes]
        given = zip(launch.slots, launch.kernel.buffers, strict=True)
        run_kernel(launch.kernel, [words(array(s), b.dtype) for s, b in given], values)
    shapes = [tuple(int(evaluate(d, sizes)) for d in s.shape) for s in program.outputs]
    slots = zip(program.outputs, shapes, strict=True)
    return [array(slot)[: int(np.prod(shape))].reshape(shape) for slot, shape in slots]


def words(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Narrow numbers as a kernel that multiplies words of 32 bits takes them."""
    narrow = dtype is i32 and array.dtype.itemsize < 4
    return array.reshape(-1).view(np.int32) if narrow else array


def garbage(elements: int, dtype: DType) -> np.ndarray:
    raw = np.full(elements * dtype.itemsize + 64, 0xAB, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + elements * dtype.itemsize].view(dtype.numpy)


def check(
    build: Build,
    shapes: Sequence[Sequence[Dim]],
    dtype: DType = f32,
    stable: Sequence[int] = (),
    machine: Machine | None = None,
    **sizes: int,
) -> Program:
    """Compare native code with the reference; returns the program that ran.

    Args: sizes: of the shapes' symbols.
    """
    assert set(sizes) <= {s.name for shape in shapes for s in symbols(shape)}, sizes
    graph = graph_of(build, shapes, dtype)
    arrays = [
        sample([int(evaluate(d, sizes)) for d in shape], dtype, i) for i, shape in enumerate(shapes)
    ]
    program = program_of(graph, stable, machine)
    for got, expected in zip(run(program, arrays, sizes), interpret(graph, arrays), strict=True):
        assert got.shape == expected.shape
        scale = max(1.0, float(np.abs(expected.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(
            got.astype(np.float64) / scale,
            expected.astype(np.float64) / scale,
            rtol=0,
            atol=TOLERANCE.get(dtype.name, 0),
        )
    return program
