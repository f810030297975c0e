"""From a graph to object code: passes, lowering, memory plan, LLVM."""

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
from ..kernels.text import print_program
from . import debug
from .entry import emit_program, packed_layout
from .explain import explain, statistics
from .native import compile_assembly, compile_object
from .record import Array, Record, Site
from .target import Target


def build(graph: Graph, target: Target, stable: Sequence[int] = ()) -> tuple[Record, bytes]:
    """The record and the object code of `graph`."""
    program, placed, final = lower_graph(graph, target, stable)
    with failure.stage("code generation", graph):
        text = emit_program(program, placed, target)
        debug.show("llvm", graph.name, lambda: text)
        debug.show("asm", graph.name, lambda: compile_assembly(text, target))
        obj = compile_object(text, target)
    counts = statistics(graph, final, program, placed, len(obj))
    return record_of(program, placed, explain(program, placed, target, counts), counts), obj


def lower_graph(graph: Graph, target: Target, stable: Sequence[int] = ()) -> tuple[Program, Plan, Graph]:
    """`graph` as a program for `target`, the placement of its temporaries, and the graph of regions."""
    debug.show("graph", graph.name, lambda: print_graph(graph))
    final = pipeline.run(graph, supports, "llvm", on_stage=_show_pass)
    with failure.stage("lowering", final):
        program = lower(final, target, stable)
        assign_aliases(program, graph.donates)
        debug.show("kernels", graph.name, lambda: print_program(program))
        return program, plan(program), final


def _show_pass(stage: str, graph: Graph) -> None:
    debug.show("passes", f"{graph.name} after {stage}", lambda: print_graph(graph))


def record_of(program: Program, plan: Plan, explanation: str, statistics: dict[str, int]) -> Record:
    """The record of a lowered program."""
    read = sorted({s.index for launch in program.prologue for s in launch.slots if s.kind == "input"})
    errors = tuple(Site(e.op, e.message, e.location.file if e.location else "",
                        e.location.line if e.location else 0, e.kind) for e in program.errors)
    return Record(program.name, _arrays(program.inputs), _arrays(program.outputs), program.symbols, plan.size,
                  packed_layout(program)[1], tuple(read) if program.prologue else None, errors, explanation,
                  statistics)


def _arrays(slots: Sequence[Slot]) -> tuple[Array, ...]:
    return tuple(
        Array(s.dtype.name, s.shape, s.name, None if s.alias is None else s.alias.index) for s in slots
    )
