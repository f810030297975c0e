"""From a graph to a table of launches and object code: passes, lowering, memory plan, LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes.limits import Exactness
from graphtorch.ir.printer import print_graph

from ..cpu.choices import Choices
from ..cpu.lower import lower
from ..cpu.supports import limits, supports
from ..explain import explain, statistics
from ..kernels.program.plan import Plan
from ..kernels.program.program import Program
from ..kernels.program.table import Table, record_of, tabulate
from ..kernels.text import print_program
from ..record import Record
from ..target import Target, lowered
from . import debug
from .processor import Processor
from .units import Image, images, unit

# the names of kernels, and object code that defines them
Code: TypeAlias = tuple[list[str], list[Image]]


def target_of(processor: Processor, name: str = "", choices: Choices | None = None) -> Target[Code]:
    """Kernels as object code for `processor`.

    Args:
        name: of the program, for messages.
        choices: of schedules; None: all are the cost model's.
    """
    own = limits(processor.machine)

    def emit(table: Table) -> Code:
        units = [
            unit(kernel, memory, processor, i in table.once)
            for i, (kernel, memory) in enumerate(table.kernels)
        ]
        return [u.name for u in units], images(units, processor, name)

    return Target(
        "llvm",
        processor.machine,
        supports,
        choices.limits(own) if choices else own,
        choices.lower if choices else lower,
        emit,
        "cpu",
    )


def build(
    graph: Graph,
    processor: Processor,
    stable: Sequence[int] = (),
    exact: Exactness = Exactness.NONE,
    choices: Choices | None = None,
) -> tuple[Record, bytes, list[Image]]:
    """The record of `graph`, its constants, and object code that defines its kernels."""
    program, placed, final = lower_graph(graph, processor, stable, exact, choices)
    with failure.stage("code generation", graph):
        table = tabulate(program, placed)
        names, made = target_of(processor, graph.name).emit(table)
    counts = statistics(graph, final, program, placed, sum(len(image.code) for image in made))
    text = explain(program, placed, processor.describe(), counts)
    if choices is not None:
        text += choices.describe() + "\n"
    return record_of(program, placed, table, names, text, counts), table.constants, made


def lower_graph(
    graph: Graph,
    processor: Processor,
    stable: Sequence[int] = (),
    exact: Exactness = Exactness.NONE,
    choices: Choices | None = None,
) -> tuple[Program, Plan, Graph]:
    """`graph` as a program for `processor`, the placement of its temporaries, and the graph of
    regions."""
    debug.show("graph", graph.name, lambda: print_graph(graph))
    target = target_of(processor, choices=choices)
    program, placed, final = lowered(graph, target, stable, exact, _show_pass)
    debug.show("kernels", graph.name, lambda: print_program(program))
    return program, placed, final


def _show_pass(stage: str, graph: Graph) -> None:
    debug.show("passes", f"{graph.name} after {stage}", lambda: print_graph(graph))
