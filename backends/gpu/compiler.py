"""From a graph to an executable on a device: passes, lowering, memory plan, CUDA text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline

from ..cpu.lower import lower
from ..kernels.program.donation import assign_aliases
from ..kernels.program.plan import Plan, plan
from ..kernels.program.program import Program
from ..kernels.program.table import Table, record_of, tabulate
from .device import Device
from .executable import Built, Executable
from .supports import supports
from .types import register
from .unit import Unit
from .walk import Kernel


@dataclass(frozen=True)
class Machine:
    """What lowering looks at: no vectors, a task for each element, or a block of threads."""

    name: str = "cuda"
    vector_bytes: int = 1
    registers: int = 64
    caches: tuple[int, ...] = (64 << 10, 4 << 20, 32 << 20)
    multiply_adds: int = 1
    task_ns: float = 0.0
    block_threads: int = 256


def compile(graph: Graph, device: Device, stable: Sequence[int] = ()) -> Executable:
    """An executable of `graph` on `device`.

    Args: stable: as `backends.compile` takes it; but what is packed of them is packed again at each call.
    Raises: TypeError, NotImplementedError: an op or dtype that has no kernel, naming node and line.
    """
    unit = Unit()
    built = build(graph, unit, stable)
    return Executable(built, device.load(unit.pieces(device.compilers)), device)


def build(graph: Graph, unit: Unit, stable: Sequence[int] = ()) -> Built:
    """What a host needs of `graph`; its kernels are written into `unit`, which other graphs may share."""
    program, placed = lower_graph(graph, stable)
    with failure.stage("code generation", graph):
        table = tabulate(program, placed)
        kernels = written(table, unit)
    names = tuple(kernel.name for kernel, _ in table.kernels)
    return Built(record_of(program, placed, table, names, "", {}), table.constants, kernels)


def lower_graph(graph: Graph, stable: Sequence[int] = ()) -> tuple[Program, Plan]:
    """`graph` as a program for GPUs, and the placement of its temporaries."""
    final = pipeline.run(graph, supports, "cuda")
    with failure.stage("lowering", final):
        program = lower(final, Machine(), stable)
        assign_aliases(program, graph.donates)
        program.take_types(graph)
        return program, plan(program)


def written(table: Table, unit: Unit) -> tuple[Kernel, ...]:
    """The kernels of a table, by number, as stages in `unit`."""
    return tuple(Kernel(tuple(unit.kernel(kernel, shared)), len(kernel.buffers),
                        tuple(register(n.type) for n in kernel.sizes)) for kernel, shared in table.kernels)


__all__ = ["Machine", "build", "compile", "lower_graph", "written"]
