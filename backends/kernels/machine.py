"""What schedules look at in a machine: registers, caches, and what a task has to be worth."""

from __future__ import annotations

from ..dataclass import dataclass

# multiply-adds below which starting threads costs more than it gives (about 10 us)
SERIAL_WORK = 600_000
# that take as long as a byte from beyond the L1 cache, which a matrix with one vector is bound by
BYTE_WORK = 2
TASK_NS = 16_000.0  # a task is worth handing to another thread from about this much work on
# the same in a loop over time, where the threads are awake from the step before
STEP_TASK_NS = 4_000.0


@dataclass(frozen=True)
class Machine:
    """A core of a CPU and its threads, by default a wide x86 core. Machines of other kinds derive
    from it.

    Attributes:
        vector_bytes: of a vector register; 1 where there are no vectors.
        registers: number of them.
        caches: bytes of L1 data, L2 (of a core) and L3 (shared) cache.
        multiply_adds: of whole vectors a cycle.
        fused: whether a multiply-add is one instruction.
        quads: whether it multiplies quads of u8 and i8 at once, and adds them to sums; else pairs
            of i16 are.
        bfloat: whether it multiplies pairs of bf16 so.
        task_ns: nanoseconds of work that make a task worth handing to another thread; 0 where tasks
            are threads of their own, as on a GPU.
    """

    vector_bytes: int = 64
    registers: int = 32
    caches: tuple[int, ...] = (32 << 10, 1 << 20, 16 << 20)
    multiply_adds: int = 2
    fused: bool = True
    task_ns: float = TASK_NS
    quads: bool = False
    bfloat: bool = False

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in a vector register, at least 1."""
        return max(1, self.vector_bytes // itemsize)

    @property
    def masks(self) -> bool:
        """Whether masked stores are cheap: AVX2 has them, but slow ones."""
        return self.vector_bytes >= 64

    @property
    def narrow_cost(self) -> float:
        """Time of a vector of half width or less, against a full one that may take two units."""
        return 0.5 if self.vector_bytes >= 64 and self.multiply_adds == 1 else 1.0

    @property
    def tasks_are_threads(self) -> bool:
        """Whether a task costs nothing to start, so that each element, or row, may be one."""
        return not self.task_ns
