"""A program's table of launches (kernels/program/abi.py), walked from the host to a list of
launches.

An address is a place: the number of a memory, and how many bytes after its beginning. So what the
walk finds depends on the sizes alone, and serves all calls of the same shapes, until an instruction
looks at what is in the device's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..dataclass import dataclass
from ..kernels.program.abi import (
    BELOW,
    CALL,
    CONSTANTS,
    END,
    HALF,
    HEADER,
    JUMP,
    PART,
    PARTS,
    SET,
    STEP,
    TEST,
    ZERO,
)
from .device import Launch
from .unit import Stage

THREADS = 256  # of a block
MOST_BLOCKS = 1 << 20  # more are not launched: each thread takes several tasks then
UNKNOWN_BLOCKS = 256  # where the number of tasks is known to the device alone
NUMBER = -1  # the memory of what is no address

Place = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """A kernel as the host launches it: its stages, how many buffers it has, the C types of its
    sizes."""

    stages: tuple[Stage, ...]
    buffers: int
    sizes: tuple[str, ...]

    def launches(self, buffers: Sequence[Place], sizes: Sequence[int]) -> Iterator[Launch]:
        """The launches of its stages, one after the other."""
        given = tuple(zip(self.sizes, sizes, strict=True))
        for stage in self.stages:
            blocks, threads = 1, 1
            if stage.tasks is not None:
                count = stage.tasks.count(sizes)
                if count == 0:
                    continue
                blocks, threads = _grid(stage, count)
            yield Launch(stage.function, blocks, threads, tuple(buffers), given, stage.shared)


def _grid(stage: Stage, count: int | None) -> tuple[int, int]:
    """Blocks and their threads for a loop of `count` iterations; None where only the device
    knows."""
    if stage.threads:
        return UNKNOWN_BLOCKS if count is None else min(count, MOST_BLOCKS), stage.threads
    threads = THREADS if count is None else min(THREADS, -(-count // 32) * 32)
    return UNKNOWN_BLOCKS if count is None else min(-(-count // threads), MOST_BLOCKS), threads


class Walk:
    """A walk of a table for certain sizes.

    Attributes:
        launches: what it found so far.
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        sizes: Sequence[int],
        memories: int,
        test: Callable[[Walk, Place], bool],
    ):
        """Args:
        sizes: the values of the program's `Launches.sizes`.
        memories: how many memories the frame begins with; that of the constants follows them.
        test: whether the byte at a place is not 0.
        """
        self.launches: list[Launch] = []
        self._kernels = kernels
        self._sizes = sizes
        self._test = test
        self._frame: dict[int, Place] = {
            ZERO: (NUMBER, 0),
            PART: (NUMBER, 0),
            CONSTANTS: (memories, 0),
        }
        self._frame.update({HEADER + i: (i, 0) for i in range(memories)})

    def _place(self, word: int, size: int) -> Place:
        memory, offset = self._frame[word]
        return memory, offset + self._sizes[size]

    def _call(self, number: int, operands: Sequence[int]) -> None:
        places = [self._place(*pair) for pair in zip(operands[::2], operands[1::2], strict=True)]
        kernel = self._kernels[number]
        self.launches += kernel.launches(
            places[: kernel.buffers], [n for _, n in places[kernel.buffers :]]
        )

    def run(self, code: Sequence[int], at: int = 0) -> None:
        """The instructions from `at` on, up to END."""
        frame = self._frame
        while (op := code[at]) != END:
            if op == CALL:
                end = at + 3 + 2 * code[at + 2]
                self._call(code[at + 1], code[at + 3 : end])
                at = end
            elif op == SET:
                frame[code[at + 1]] = self._place(code[at + 2], code[at + 3])
                at += 4
            elif op in (STEP, HALF):
                memory, offset = frame[code[at + 2]]
                steps = frame[code[at + 3]][1] % (2 if op == HALF else 1 << 62)
                frame[code[at + 1]] = memory, offset + steps * self._sizes[code[at + 4]]
                at += 5
            elif op == BELOW:
                at += 4 if frame[code[at + 1]][1] < self._sizes[code[at + 2]] else code[at + 3]
            elif op == TEST:
                at += (
                    4 if self._test(self, self._place(code[at + 1], code[at + 2])) else code[at + 3]
                )
            elif op == JUMP:
                at += code[at + 1]
            elif op == PARTS:
                for part in range(code[at + 1]):
                    frame[PART] = NUMBER, part
                    self.run(code, at + 3)
                frame[PART] = NUMBER, 0
                at += code[at + 2]
            else:
                raise ValueError(f"no instruction {op} in a table of launches")
