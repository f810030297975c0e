"""From a graph to an executable on a device: passes, lowering, memory plan, CUDA text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph

from ..kernels.program.table import Table, record_of, tabulate
from ..target import Target, lowered
from .device import Device
from .executable import Built, Executable
from .lower import lower
from .machine import EXACT, HAVE_TF32, HAVE_WARPGROUPS, LARGE, Gpu, Tf32
from .supports import LIMITS, supports
from .types import register
from .unit import Unit
from .walk import Kernel


def target_of(unit: Unit, machine: Gpu = LARGE) -> Target[tuple[Kernel, ...]]:
    """Kernels as stages in `unit`."""
    taken = partial(supports, gpu=machine)
    return Target("cuda", machine, taken, LIMITS, lower, partial(written, unit=unit), "cuda")


def compile(
    graph: Graph,
    device: Device,
    stable: Sequence[int] = (),
    ordered: bool = False,
    tf32: Tf32 = EXACT,
) -> Executable:
    """An executable of `graph` on `device`.

    Args:
        stable: as `backends.compile` takes it.
        ordered, tf32: as `Gpu` has them; a GPU without TF32 rounds nothing.
    Raises: TypeError, NotImplementedError: an op or dtype that has no kernel, naming node and line.
    """
    unit = Unit()
    known = device.properties
    tf32 = tf32 if known.capability >= HAVE_TF32 else EXACT
    gpu = Gpu(
        multiprocessors=known.multiprocessors,
        ordered=ordered,
        tf32=tf32,
        warpgroups=known.capability[0] == HAVE_WARPGROUPS,
    )
    built = build(graph, unit, stable, gpu)
    return Executable(built, device.load(unit.pieces(device.compilers)), device)


def build(graph: Graph, unit: Unit, stable: Sequence[int] = (), machine: Gpu = LARGE) -> Built:
    """What a host needs of `graph`; its kernels are written into `unit`, which other graphs may
    share."""
    target = target_of(unit, machine)
    program, placed, _ = lowered(graph, target, stable)
    with failure.stage("code generation", graph):
        table = tabulate(program, placed)
        kernels = target.emit(table)
    names = tuple(kernel.name for kernel, _ in table.kernels)
    return Built(record_of(program, placed, table, names, "", {}), table.constants, kernels)


def written(table: Table, unit: Unit) -> tuple[Kernel, ...]:
    """The kernels of a table, by number, as stages in `unit`."""
    return tuple(
        Kernel(
            tuple(unit.kernel(kernel, shared)),
            len(kernel.buffers),
            tuple(register(n.type) for n in kernel.sizes),
        )
        for kernel, shared in table.kernels
    )


__all__ = ["build", "compile", "target_of", "written"]
