"""What a graph is compiled for, as a record; and what all targets do alike with a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from graphtorch.ir import failure
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pipeline
from graphtorch.ir.passes.legalize import Supports
from graphtorch.ir.passes.limits import Exactness, Limits

from .dataclass import dataclass
from .kernels.machine import Machine
from .kernels.program.donation import assign_aliases
from .kernels.program.plan import Plan, plan
from .kernels.program.program import Program
from .kernels.program.table import Table

Code = TypeVar("Code")


@dataclass(frozen=True)
class Target(Generic[Code]):
    """A kind of machine, and how graphs become code for it.

    Attributes:
        name: as `backends.TARGETS` has it.
        machine: what schedules look at.
        supports: which nodes it takes whole; all else is decomposed.
        limits: how large its regions may become.
        lower: from a graph of regions, the machine and the inputs that seldom change to a program.
        emit: from a program's table to the code of its kernels.
        device: the type of the devices whose memory its programs work on.
    """

    name: str
    machine: Machine
    supports: Supports
    limits: Limits
    lower: Callable[[Graph, Machine, Sequence[int]], Program]
    emit: Callable[[Table], Code]
    device: str


def lowered(
    graph: Graph,
    target: Target[Code],
    stable: Sequence[int] = (),
    exact: Exactness = Exactness.NONE,
    on_stage: pipeline.Observer | None = None,
) -> tuple[Program, Plan, Graph]:
    """`graph` as a program for `target`, the placement of its temporaries, and the graph of
    regions.

    Args:
        graph: as recorded.
        stable: positions of inputs that seldom change.
        exact: what results have to be alike with.
        on_stage: as `pipeline.run` takes it.

    Raises: NotImplementedError, TypeError: an op or dtype that has no kernel, naming node and line.
    """
    final = pipeline.run(
        graph,
        target.supports,
        target.name,
        limits=target.limits,
        stable=stable,
        exact=exact,
        on_stage=on_stage,
    )
    program, placed = placed_program(graph, final, target, stable)
    return program, placed, final


def placed_program(
    graph: Graph, final: Graph, target: Target[Code], stable: Sequence[int] = ()
) -> tuple[Program, Plan]:
    """The program of `final`, the regions of `graph`, and the placement of its temporaries."""
    with failure.stage("lowering", final):
        program = target.lower(final, target.machine, stable)
        assign_aliases(program, graph.donates, stops=target.device == "cpu")
        program.take_types(graph)
        return program, plan(program)
