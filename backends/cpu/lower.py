"""From a fused graph to a program: slots for its values, and the kernels of each region.

Every node of the graph is a `region` (made by ir/passes/fuse.py) or a single op, which is a region
of its own. Regions are lowered one by one in graph order; what a region needs beyond its operands
(partial sums, packed operands) it asks of the `Lowering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline

from ..kernels.machine import Machine
from ..kernels.program.lowering import Lowering, Region, Schedules, region_of
from ..kernels.program.program import Program
from ..kernels.program.repeat import lower_once
from ..kernels.program.share import share_kernels
from ..kernels.verify import verify_program
from .contraction.lower import contract, lower_contraction
from .contraction.packing import PACKED, rearranged
from .control.projections import with_projections
from .control.steps import lower_control
from .loops.nest import MapKernel, lower_copy
from .loops.pieces import concat_of, cut_values, lower_pieces, place_parts, with_pieces
from .loops.stages import lower_loops, reduce_rows
from .whole.scatter import apply

__all__ = ["SCHEDULES", "lower", "lower_region"]

SCHEDULES = Schedules(MapKernel, reduce_rows, contract, apply)


def lower(
    graph: Graph,
    machine: Machine | None = None,
    stable: Iterable[int] = (),
    schedules: Schedules = SCHEDULES,
) -> Program:
    """The program that computes `graph` on `machine`.

    Args:
        graph: fused; nodes are regions, or single ops that become regions of their own.
        machine: None for a wide x86 core.
        stable: positions of inputs that seldom change (weights): what is packed from them is kept.
        schedules: what is done the target's own way.

    Raises:
        TypeError: an op or dtype that has no kernel, naming node and line.
    """
    machine = machine or Machine()
    if not machine.tasks_are_threads:
        graph = with_projections(graph)
    lowering = Lowering(graph, machine, schedules, stable)
    place_parts(graph, lowering)
    lowering.cut = cut_values(graph)
    for node in graph.nodes:
        if node.op.name != "constant":
            region = region_of(node)
            if is_seldom_needed(region, lowering):
                lower_in_prologue(region, lowering)
            else:
                lower_region(region, lowering)
    copy_outputs(lowering)
    lowering.forget()
    note_rearranged(lowering)
    share_kernels(lowering.program)
    if pipeline.checks_every_pass():
        verify_program(lowering.program)
    return lowering.program


def is_seldom_needed(region: Region, lowering: Lowering) -> bool:
    """Whether a region has the same results until weights change (a batch norm's 1 / sqrt(var +
    eps))."""
    computed = region.kind in ("loop", "contraction") and bool(region.operands)
    if not computed or not all(map(lowering.is_stable, region.operands)):
        return False
    leaves = any(lowering.has_slot(v) for v in region.results)  # for whoever called
    return (
        not leaves
        and all(v.type.is_static for v in region.results)
        and not any(n.op.raises for n in region.nodes)
    )


def lower_in_prologue(region: Region, lowering: Lowering) -> None:
    """Lower a region to what is computed when weights change, and kept."""
    with lowering.kept():
        way_of(region, lowering)(region, lowering)
    for value in region.results:
        lowering.keep(value)


def lower_region(region: Region, lowering: Lowering) -> None:
    """Dispatch on the region's kind."""
    if region.kind == "control":
        lower_control(region, lowering, lower_region)
    elif (concat := concat_of(region)) is not None:
        lower_pieces(region, concat, lowering)
    else:
        region = with_pieces(region, lowering)
        lower = way_of(region, lowering)
        if lowering.machine.tasks_are_threads and any(map(lowering.twins, region.results)):
            lower(region, lowering)
        else:
            lower_once(region, lowering, lower)


def way_of(region: Region, lowering: Lowering) -> Callable[[Region, Lowering], None]:
    """What lowers a region that is computed in one go."""
    own = lowering.schedules.own(region)
    return own or (lower_contraction if region.kind == "contraction" else lower_loops)


def note_rearranged(lowering: Lowering) -> None:
    """Tell the program which packed copies have all elements of a weight."""
    for key, copy in lowering.copies.items():
        if isinstance(key, tuple) and key[0] == PACKED and copy.kind == "packed":
            parts = rearranged(key, copy)
            if parts is not None:
                lowering.program.rearranged[copy] = key[1], parts


def copy_outputs(lowering: Lowering) -> None:
    """Fill the outputs that are an input, a constant, or the same value as another output."""
    for value, slot in zip(lowering.graph.outputs, lowering.outputs, strict=True):
        source = lowering.slot(value)
        if source is not slot and slot not in lowering.stored:
            lower_copy(source, slot, lowering)
