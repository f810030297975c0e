"""From a graph to a table of launches and object code: passes, lowering, memory plan, LLVM."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline
from graphtorch.ir.printer import print_graph

from ..kernels.donation import assign_aliases
from ..kernels.lower import lower
from ..kernels.plan import Plan, plan
from ..kernels.program import Program, Slot
from ..kernels.supports import supports
from ..kernels.table import Table, packed_layout, tabulate
from ..kernels.text import print_program
from ..record import Array, Launches, Record, Site
from . import debug
from .explain import explain, statistics
from .target import Target
from .units import Image, images, unit


def build(graph: Graph, target: Target, stable: Sequence[int] = ()) -> tuple[Record, bytes, list[Image]]:
    """The record of `graph`, its constants, and object code that defines its kernels."""
    program, placed, final = lower_graph(graph, target, stable)
    with failure.stage("code generation", graph):
        table = tabulate(program, placed)
        units = [unit(kernel, memory, target, i in table.once) for i, (kernel, memory) in
                 enumerate(table.kernels)]
        made = images(units, target, graph.name)
    counts = statistics(graph, final, program, placed, sum(len(image.code) for image in made))
    text = explain(program, placed, target, counts)
    return record_of(program, placed, table, [u.name for u in units], text, counts), table.constants, made


def lower_graph(graph: Graph, target: Target, stable: Sequence[int] = ()) -> tuple[Program, Plan, Graph]:
    """`graph` as a program for `target`, the placement of its temporaries, and the graph of regions."""
    debug.show("graph", graph.name, lambda: print_graph(graph))
    final = pipeline.run(graph, supports, "llvm", on_stage=_show_pass)
    with failure.stage("lowering", final):
        program = lower(final, target, stable)
        assign_aliases(program, graph.donates)
        debug.show("kernels", graph.name, lambda: print_program(program))
        _name_complex(program, graph)
        return program, plan(program), final


def _name_complex(program: Program, graph: Graph) -> None:
    """Kernels see pairs of reals where a caller gives and gets complex numbers: the bytes are the same."""
    for slots, values in ((program.inputs, graph.inputs), (program.outputs, graph.outputs)):
        for slot, value in zip(slots, values, strict=True):
            slot.dtype, slot.shape, slot.elements = value.dtype, value.shape, value.type.numel


def _show_pass(stage: str, graph: Graph) -> None:
    debug.show("passes", f"{graph.name} after {stage}", lambda: print_graph(graph))


def record_of(program: Program, plan: Plan, table: Table, functions: Sequence[str], explanation: str,
              statistics: dict[str, int]) -> Record:
    """The record of a lowered program, whose kernels are called `functions`."""
    read = sorted({s.index for launch in program.prologue for s in launch.slots if s.kind == "input"})
    errors = tuple(Site(e.op, e.message, e.location.file if e.location else "",
                        e.location.line if e.location else 0, e.kind) for e in program.errors)
    launches = Launches(tuple(table.launches), tuple(table.prologue), tuple(functions), tuple(table.sizes),
                        table.words, table.operands)
    return Record(program.name, _arrays(program.inputs), _arrays(program.outputs), program.symbols, plan.size,
                  packed_layout(program)[1], tuple(read) if program.prologue else None, launches, errors,
                  explanation, statistics)


def _arrays(slots: Sequence[Slot]) -> tuple[Array, ...]:
    return tuple(
        Array(s.dtype.name, s.shape, s.name, None if s.alias is None else s.alias.index) for s in slots
    )
