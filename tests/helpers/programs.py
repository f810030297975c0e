"""Runs lowered programs kernel by kernel, without memory plan or entry function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphtorch.backends.cpu.loops.stages import lower_loops
from graphtorch.backends.cpu.lower import SCHEDULES
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.program.lowering import Lowering, Region
from graphtorch.backends.kernels.program.program import Program, Slot
from graphtorch.backends.llvm.jit import run_kernel
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.shape import evaluate, numel


def lowered(graph: Graph, machine: Machine | None = None) -> Program:
    """`graph` as one loop region."""
    lowering = Lowering(graph, machine or Machine(), SCHEDULES)
    lower_loops(Region("loop", graph, graph.inputs, graph.outputs, graph.nodes[-1]), lowering)
    return lowering.program


def run_program(
    program: Program, inputs: Sequence[np.ndarray], sizes: dict[str, int]
) -> tuple[list[np.ndarray], int]:
    """The outputs and the error status (0: none)."""
    arrays: dict[Slot, np.ndarray] = dict(
        zip(program.inputs, map(np.ascontiguousarray, inputs), strict=True)
    )
    status = 0
    for launch in (*program.prologue, *program.launches):
        for slot in launch.slots:
            if slot not in arrays:
                arrays[slot] = allocate(slot, sizes)
        given = [int(evaluate(d, sizes)) for d in launch.sizes]
        status = run_kernel(launch.kernel, [arrays[s] for s in launch.slots], given) or status
    return [arrays[s] if s in arrays else allocate(s, sizes) for s in program.outputs], status


def allocate(slot: Slot, sizes: dict[str, int]) -> np.ndarray:
    if slot.kind == "constant":
        array = aligned(slot.literal.numpy().size, slot.dtype.numpy)
        array[...] = slot.literal.numpy().reshape(-1)
        return array
    shape = tuple(int(evaluate(d, sizes)) for d in slot.shape)
    count = int(evaluate(slot.elements, sizes))
    memory = aligned(count, slot.dtype.numpy)
    return memory.reshape(shape) if count == numel(shape) else memory


def aligned(count: int, dtype: np.dtype) -> np.ndarray:
    """`count` elements at an address kernels may rely on; what is never written shows."""
    raw = np.full(count * dtype.itemsize + 64, 0xCD, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * dtype.itemsize].view(dtype)


def run_loops(
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    arrays: Sequence[np.ndarray],
    sizes: dict[str, int] | None = None,
) -> list[np.ndarray]:
    """Lower the values as one region and run it."""
    results, status = run_program(lowered(Graph("g", inputs, outputs)), arrays, sizes or {})
    assert status == 0
    return results
