"""From a fused graph to a program for a GPU: as for CPUs, but where blocks of threads do better."""

from __future__ import annotations

from collections.abc import Iterable

from graphtorch.ir.graph import Graph

from ..cpu import lower as shared
from ..kernels.machine import Machine
from ..kernels.program.lowering import Schedules
from ..kernels.program.program import Program
from .schedules.contraction import contract
from .schedules.maps import ThreadMap
from .schedules.rows import reduce

SCHEDULES = Schedules(ThreadMap, reduce, contract)


def lower(graph: Graph, machine: Machine, stable: Iterable[int] = ()) -> Program:
    """The program that computes `graph` on a GPU. Raises: TypeError: as `cpu.lower.lower`."""
    return shared.lower(graph, machine, stable, SCHEDULES)
