"""Where elements of tensors live, and how graphs become programs: the front end's one door to backends."""

from __future__ import annotations

import os
from collections.abc import Sequence

from graphtorch.backends import Buffer, Executable
from graphtorch.backends import compile as _compile
from graphtorch.backends.buffer import Block, Exposed
from graphtorch.ir.graph import Graph

_CHOSEN = os.environ.get("GRAPHTORCH_TARGET")


def pending_program(graph: Graph) -> Executable:
    """What runs a graph that was recorded line by line: interpreted while it is small and new."""
    return _compile(graph, _CHOSEN or "tiered")


def captured_program(graph: Graph, stable: Sequence[int] = ()) -> Executable:
    """What runs a graph that the user asked to compile; `stable` inputs seldom change."""
    return _compile(graph, _CHOSEN or "llvm", stable)


__all__ = ["Block", "Buffer", "Executable", "Exposed", "captured_program", "pending_program"]
