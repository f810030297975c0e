"""How a graph runs: `compile` makes an executable of it for one of TARGETS."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

from graphtorch.ir.graph import Graph
from graphtorch.ir.judge import assuming
from graphtorch.ir.passes.limits import Exactness
from graphtorch.ir.shape import Condition, Known

from . import cpu
from .buffer import Buffer

__all__ = ["TARGETS", "Buffer", "Executable", "compile", "cpu"]

# Name of a target: the module below this one whose `compile(graph, stable)` serves it; that of GPUs
# takes the number of one as well. Imported at first use.
TARGETS = {"llvm": ".llvm.compiler", "reference": ".reference.compiler", "cuda": ".gpu.target"}


class Executable(Protocol):
    """A compiled graph."""

    def __call__(self, inputs: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
        """The graph's outputs. Inputs that an output takes over (`Graph.donates`) are no longer
        valid.

        Args:
            more: the inputs after `inputs`; what never changes, so that the same object brings the
                same buffers.

        Raises:
            TypeError, RuntimeError: an input's dtype or shape is not what the graph was compiled
                for.
            IndexError: an index in the data is out of range.
        """

    def explain(self) -> str:
        """What runs: kernels, memory, FLOPs and bytes."""


def compile(
    graph: Graph,
    target: str = "llvm",
    stable: Sequence[int] = (),
    conditions: Sequence[Condition] = (),
    device: int = 0,
    exact: Exactness = Exactness.NONE,
    tf32: Sequence[bool] = (),
    tune: float = 0.0,
) -> Executable:
    """An executable of `graph`.

    Args:
        graph: as recorded or read; it is verified and optimised here.
        target: a name of TARGETS.
        stable: positions of inputs that seldom change (weights): what a target derives from them,
            such as packed copies, is kept as long as a call brings the same buffer.
        device: the number of the GPU, for the target "cuda"; there buffers are
            `gpu.buffer.DeviceBuffer`.
        conditions: what the graph assumes of its symbols beyond their ranges; whoever calls tests
            it.
        exact: what results have to be alike with.
        tf32: for the target "cuda": whether factors of f32 may be rounded to TF32, 10 bits of
            fraction, in products and in convolutions. As a rule neither.
        tune: for the target "llvm": seconds for measuring schedules of kernels; 0: none are.

    Raises:
        ValueError: no such target.
        NotImplementedError: an op or dtype the target has no code for, naming it and the user's
            line.
    """
    if target not in TARGETS:
        raise ValueError(f"no target {target!r}: expected one of {', '.join(TARGETS)}")
    with assuming(Known(conditions)) if conditions else nullcontext():
        options = {"cuda": (device, exact is Exactness.BITS, tf32), "llvm": (exact, tune)}
        more = options.get(target, ())
        return importlib.import_module(TARGETS[target], __name__).compile(
            graph, tuple(stable), *more
        )
