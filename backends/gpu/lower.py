"""From a fused graph to a program for a GPU: as for CPUs, but where blocks of threads do better."""

from __future__ import annotations

from collections.abc import Iterable

from graphtorch.ir.graph import Graph

from ..cpu import lower as shared
from ..cpu.loops.places import lower_value
from ..cpu.whole.running import SCANS
from ..kernels.body.windows import WINDOWS
from ..kernels.machine import Machine
from ..kernels.program.lowering import Schedules
from ..kernels.program.program import Program
from .schedules.atomics import apply
from .schedules.attention import lower_attention
from .schedules.attention_grad import lower_attention_grad
from .schedules.contraction import contract
from .schedules.depthwise import way_of
from .schedules.maps import ThreadMap
from .schedules.rows import reduce
from .schedules.running import lower_running

WHOLE = {
    "attention": lower_attention,
    "attention_grad": lower_attention_grad,
    "dropped_attention": lower_attention,
    "dropped_attention_grad": lower_attention_grad,
    **dict.fromkeys(SCANS, lower_running),
}
# Pools have a thread for each element, or some neighbours: a row or a plane each would be few
# threads, and none that read side by side.
SCHEDULES = Schedules(
    ThreadMap, reduce, contract, apply, WHOLE, frozenset(WINDOWS), lower_value, way_of
)


def lower(graph: Graph, machine: Machine, stable: Iterable[int] = ()) -> Program:
    """The program that computes `graph` on a GPU. Raises: TypeError: as `cpu.lower.lower`."""
    return shared.lower(graph, machine, stable, SCHEDULES)
