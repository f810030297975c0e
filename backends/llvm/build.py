"""From a graph to a table of launches and object code: passes, lowering, memory plan, LLVM."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline
from graphtorch.ir.printer import print_graph

from ..cpu.lower import lower
from ..cpu.supports import supports
from ..explain import explain, statistics
from ..kernels.program.donation import assign_aliases
from ..kernels.program.plan import Plan, plan
from ..kernels.program.program import Program
from ..kernels.program.table import record_of, tabulate
from ..kernels.text import print_program
from ..record import Record
from . import debug
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
        program.take_types(graph)
        return program, plan(program), final


def _show_pass(stage: str, graph: Graph) -> None:
    debug.show("passes", f"{graph.name} after {stage}", lambda: print_graph(graph))
