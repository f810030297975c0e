"""What schedules look at in a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels.machine import Machine
from ..kernels.program.lowering import Lowering


@dataclass(frozen=True)
class Gpu(Machine):
    """A GPU: no vectors; a task is a thread, or a block of threads. Default: a large one.

    Attributes:
        multiprocessors: how many parts run blocks by themselves.
        ordered: sums of floats are added in one order, whatever that takes.
    """

    vector_bytes: int = 1
    registers: int = 64
    caches: tuple[int, ...] = (64 << 10, 4 << 20, 32 << 20)
    multiply_adds: int = 1
    task_ns: float = 0.0
    multiprocessors: int = 132
    ordered: bool = False


LARGE = Gpu()


def gpu_of(lowering: Lowering) -> Gpu:
    """The GPU that a program is lowered for."""
    machine = lowering.machine
    assert isinstance(machine, Gpu)
    return machine
