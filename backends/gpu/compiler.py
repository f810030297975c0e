"""From a graph to an executable on a device: passes, lowering, memory plan, CUDA text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline

from ..kernels.donation import assign_aliases
from ..kernels.lower import lower
from ..kernels.plan import plan
from ..kernels.table import record_of, tabulate
from .device import Device
from .executable import Executable, Kernel
from .supports import supports
from .types import register
from .unit import Unit


@dataclass(frozen=True)
class Machine:
    """What lowering looks at: no vectors, a task for each element."""

    name: str = "cuda"
    vector_bytes: int = 1
    registers: int = 64
    caches: tuple[int, ...] = (64 << 10, 4 << 20, 32 << 20)
    multiply_adds: int = 1
    task_ns: float = 0.0


def compile(graph: Graph, device: Device, stable: Sequence[int] = ()) -> Executable:
    """An executable of `graph` on `device`.

    Raises: TypeError, NotImplementedError: an op or dtype that has no kernel, naming node and line.
    """
    final = pipeline.run(graph, supports, "cuda")
    with failure.stage("lowering", final):
        program = lower(final, Machine(), stable)
        assign_aliases(program, graph.donates)
        program.take_types(graph)
        placed = plan(program)
    with failure.stage("code generation", graph):
        table = tabulate(program, placed)
        unit = Unit()
        kernels = []
        for kernel, shared in table.kernels:
            sizes = tuple(register(n.type) for n in kernel.sizes)
            kernels.append(Kernel(tuple(unit.kernel(kernel, shared)), len(kernel.buffers), sizes))
    names = tuple(kernel.name for kernel, _ in table.kernels)
    record = record_of(program, placed, table, names, "", {})
    return Executable(record, table.constants, kernels, device.load(unit.text(), unit.exports), device)


__all__ = ["Machine", "compile"]
