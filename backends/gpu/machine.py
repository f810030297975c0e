"""What schedules look at in a GPU."""

from __future__ import annotations

from typing import NamedTuple

from graphtorch.ir import ops
from graphtorch.ir.graph import Node

from ..dataclass import dataclass
from ..kernels.machine import Machine
from ..kernels.program.lowering import Lowering


class Tf32(NamedTuple):
    """Which contractions of f32 may round their factors to TF32, which has 10 bits of fraction."""

    products: bool = False
    convolutions: bool = False


EXACT = Tf32()
HAVE_TF32 = 8, 0  # compute capability of the first GPUs that have it
HAVE_WARPGROUPS = 9  # major compute capability of the only GPUs that have them


@dataclass(frozen=True)
class Gpu(Machine):
    """A GPU: no vectors; a task is a thread, or a block of threads. Default: a large one.

    Attributes:
        multiprocessors: how many parts run blocks by themselves.
        ordered: sums of floats are added in one order, whatever that takes.
        tf32: what may be rounded; nothing else is.
        warpgroups: whether four warps multiply tiles together (`MultiplyTiles`).
    """

    vector_bytes: int = 1
    registers: int = 64
    caches: tuple[int, ...] = (64 << 10, 4 << 20, 32 << 20)
    multiply_adds: int = 1
    task_ns: float = 0.0
    multiprocessors: int = 132
    ordered: bool = False
    tf32: Tf32 = EXACT
    warpgroups: bool = False

    def rounds_factors(self, node: Node) -> bool:
        """Whether the factors of a contraction of f32 may be rounded to TF32."""
        return self.tf32.products if node.op is ops.matmul else self.tf32.convolutions


LARGE = Gpu()


def gpu_of(lowering: Lowering) -> Gpu:
    """The GPU that a program is lowered for."""
    machine = lowering.machine
    assert isinstance(machine, Gpu)
    return machine
