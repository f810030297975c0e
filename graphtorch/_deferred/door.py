"""Where elements of tensors live, and how graphs become programs: the front end's one door to backends."""

from __future__ import annotations

import os
from collections.abc import Sequence

from graphtorch.backends import Buffer, Executable
from graphtorch.backends import compile as _compile
from graphtorch.backends.buffer import Block, Exposed
from graphtorch.ir.graph import Graph
from graphtorch.ir.shape import Condition

CHOSEN = os.environ.get("GRAPHTORCH_TARGET")  # how every graph runs; None: as it pays


def pending_program(graph: Graph, conditions: Sequence[Condition] = ()) -> Executable:
    """What runs a graph that was recorded line by line; `conditions` hold for its symbols."""
    return _compile(graph, CHOSEN or "llvm", conditions=conditions)


def captured_program(
    graph: Graph, stable: Sequence[int] = (), conditions: Sequence[Condition] = ()
) -> Executable:
    """What runs a graph that the user asked to compile; `stable` inputs seldom change."""
    return _compile(graph, CHOSEN or "llvm", stable, conditions)


__all__ = ["CHOSEN", "Block", "Buffer", "Executable", "Exposed", "captured_program", "pending_program"]
