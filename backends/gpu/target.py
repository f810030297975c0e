"""The target "cuda": graphs compiled for one of the GPUs of this process."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.graph import Graph

from . import compiler, devices
from .executable import Executable
from .machine import Tf32


def compile(
    graph: Graph,
    stable: Sequence[int] = (),
    device: int = 0,
    ordered: bool = False,
    tf32: Sequence[bool] = (),
) -> Executable:
    """An executable on the GPU number `device`, whose sums of floats have one order if `ordered`.

    Args: tf32: fields of `machine.Tf32`.
    Raises: RuntimeError: there is no such GPU. TypeError, NotImplementedError: an op that has no
        kernel.
    """
    return compiler.compile(graph, devices.device(device), stable, ordered, Tf32(*tf32))
