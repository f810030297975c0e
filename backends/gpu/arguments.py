"""The arguments of a series of launches: words side by side, filled in by two array operations for
all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .device import Launch

WORD = 8


class Arguments:
    """The words of each launch, one an argument, the status word's address last; and pointers to
    them.

    Attributes:
        starts: for each launch the address of the pointers to its arguments, as the CUDA driver
            takes them.
    """

    def __init__(self, launches: Sequence[Launch]):
        # what each word adds its offset to; 0: nothing, -1: the status word
        memories: list[int] = []
        offsets: list[int] = []
        firsts: list[int] = []
        for launch in launches:
            firsts.append(len(memories))
            memories += [memory + 1 for memory, _ in launch.buffers]
            offsets += [offset for _, offset in launch.buffers]
            memories += [0] * len(launch.sizes) + [-1]
            # of a narrow one the low bytes count
            offsets += [size for _, size in launch.sizes] + [0]
        self._memories = np.array(memories, np.intp)
        self._offsets = np.array(offsets, np.int64)
        self._words = np.empty(len(memories), np.int64)
        places = self._words.ctypes.data + WORD * np.arange(len(memories), dtype=np.int64)
        self._pointers = places  # kept: the driver reads it
        self.firsts = firsts
        self.starts = [places.ctypes.data + WORD * first for first in firsts]

    def fill(self, addresses: Sequence[int]) -> None:
        """Write the words. Args: addresses: of the memories; that of the status word last."""
        table = np.array((0, *addresses), np.int64)
        np.add(table[self._memories], self._offsets, out=self._words)

    def extents(self, sizes: Sequence[int]) -> np.ndarray:
        """How many bytes of its memory follow each word's address: int64[words]."""
        return np.array((0, *sizes), np.int64)[self._memories] - self._offsets

    def word(self, i: int) -> int:
        """The word of that number, as filled in."""
        return int(self._words[i])
