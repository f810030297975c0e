"""From a graph to an executable: passes, lowering, memory plan, LLVM, object cache."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline
from graphtorch.ir.printer import print_graph

from ..kernels.lower import lower
from ..kernels.plan import Plan, plan
from ..kernels.program import Program
from ..kernels.supports import supports
from ..kernels.text import print_program
from . import cache, debug
from .entry import emit_program
from .executable import Executable
from .explain import explain, statistics
from .native import compile_assembly, compile_object
from .record import Record, record_of
from .target import Target, host

LOCATION = re.compile(r' @ "(?:[^"\\]|\\.)*":\d+$', re.MULTILINE)
CHECKED = re.compile(r"= (?:index|gather|scatter|nll_loss|cross_entropy|max_pool_grad)")  # ops whose errors name a line


def compile(graph: Graph, stable: Sequence[int] = ()) -> Executable:
    """Native code for `graph` on this machine, from the cache where it was compiled before.

    Args:
        graph: as recorded.
        stable: positions of inputs that seldom change: what is packed from them is kept between calls.

    Raises:
        NotImplementedError: an op or dtype that has no native code, naming it and the user's line.
    """
    target = host()
    name = cache.key(cache_text(graph), repr(target), repr(tuple(stable)))
    found = None if debug.wanted() else cache.load(name)
    if found is not None:
        return Executable(Record.from_json(found[0]), found[1])
    program, placed, final = lower_graph(graph, target, stable)
    text = emit_program(program, placed, target)
    debug.show("llvm", graph.name, lambda: text)
    debug.show("asm", graph.name, lambda: compile_assembly(text, target))
    obj = compile_object(text, target)
    counts = statistics(graph, final, program, placed, len(obj))
    record = record_of(program, placed, explain(program, placed, target, counts), counts)
    cache.store(name, record.to_json(), obj)
    return Executable(record, obj)


def lower_graph(graph: Graph, target: Target, stable: Sequence[int] = ()) -> tuple[Program, Plan, Graph]:
    """`graph` as a program for `target`, the placement of its temporaries, and the graph of regions."""
    debug.show("graph", graph.name, lambda: print_graph(graph))
    final = pipeline.run(graph, supports, "llvm", on_stage=_show_pass)
    program = lower(final, target, stable)
    debug.show("kernels", graph.name, lambda: print_program(program))
    return program, plan(program), final


def _show_pass(stage: str, graph: Graph) -> None:
    debug.show("passes", f"{graph.name} after {stage}", lambda: print_graph(graph))


def cache_text(graph: Graph) -> str:
    """The graph's text without the user's lines, except where an error would name them."""
    return "\n".join(line if CHECKED.search(line) else LOCATION.sub("", line)
                     for line in print_graph(graph).split("\n"))
