"""Where the elements of tensors live, and how graphs become programs: the front end's one door to backends."""

from __future__ import annotations

import os
from collections.abc import Sequence

from graphtorch.backends import Buffer, Executable
from graphtorch.backends import compile as _compile
from graphtorch.ir.graph import Graph

TARGET = os.environ.get("GRAPHTORCH_TARGET", "reference")


def program(graph: Graph, stable: Sequence[int] = ()) -> Executable:
    """A graph compiled for this process's target; `stable` are the positions of inputs that seldom change."""
    return _compile(graph, TARGET, stable)


__all__ = ["TARGET", "Buffer", "Executable", "program"]
