"""A device's memory that programs hold and give back: recycled by size class, at addresses asked
for.

A call that is given the memory of an earlier call replays its graph (executable.py), so who
allocates may say which addresses it would like again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

from ..dataclass import dataclass

GRAIN = 512  # bytes: sizes are multiples of it
LARGE, LARGE_GRAIN = 1 << 30, 2 << 20  # from here on classes are finer, since what they lose counts


class Block(Protocol):
    """Memory as the system gives it; it goes back when nobody holds it."""

    address: int


@dataclass
class Statistics:
    """A device's memory in bytes: what programs hold, what was taken for them; and the most of
    each."""

    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    allocations: int = 0


@functools.lru_cache(maxsize=1 << 14)
def rounded(size: int) -> int:
    """The class of a size: few different ones occur, and at most an eighth is lost."""
    grain = LARGE_GRAIN if size >= LARGE else max(GRAIN, 1 << max(0, size.bit_length() - 4))
    return max(1, -(-size // grain)) * grain


class Pool:
    """Blocks that were taken from the system, and those of them that nobody holds, by size class
    and address.

    Blocks belong to the pool, never to what holds them: a block in a circle of objects would be
    finalized by the collector of garbage although the pool gives it to others.
    """

    def __init__(self, take: Callable[[int], Block], limit: int | None = None):
        """Args:
        take: new memory of the system. Raises: MemoryError.
        limit: bytes that are kept for nobody at most; None: all are kept.
        """
        self.statistics = Statistics()
        self._take = take
        self._limit = limit
        self._blocks: dict[int, Block] = {}
        self._free: dict[int, dict[int, None]] = {}

    def allocate(self, size: int) -> PooledMemory:
        """Memory of at least `size` bytes. Raises: MemoryError: the system has none."""
        size = rounded(size)
        try:
            # what was given back last may still be in a cache
            address, _ = self._free[size].popitem()
        except KeyError:
            address = self._new(size)
        return PooledMemory(self, address, size)

    def _new(self, size: int) -> int:
        block = self._take(size)
        self._blocks[block.address] = block
        s = self.statistics
        s.reserved += size
        s.peak_reserved = max(s.peak_reserved, s.reserved)
        return block.address

    def allocate_all(
        self, sizes: Sequence[int], wishes: Sequence[Sequence[int]]
    ) -> list[PooledMemory]:
        """Memory of these sizes: each at the first of the addresses wished for it that is free.

        Those that find none come last, so that they take no address that another one wishes for.
        """
        found = [
            self._again(rounded(size), wished) for size, wished in zip(sizes, wishes, strict=True)
        ]
        return [memory or self.allocate(size) for memory, size in zip(found, sizes, strict=True)]

    def _again(self, size: int, wished: Sequence[int]) -> PooledMemory | None:
        free = self._free.get(size)
        if free:
            for address in wished:
                if free.pop(address, self) is None:
                    return PooledMemory(self, address, size)
        return None

    def give(self, address: int, size: int) -> None:
        """Memory that nobody holds any more."""
        self._free.setdefault(size, {})[address] = None
        s = self.statistics
        s.allocated -= size
        if self._limit is not None and s.reserved - s.allocated > self._limit:
            self.release()

    def release(self) -> None:
        """Give the system what nobody holds."""
        for size, free in list(self._free.items()):
            while free:
                try:
                    address, _ = free.popitem()
                except KeyError:
                    break  # another thread took the last
                self.statistics.reserved -= size
                del self._blocks[address]

    def reset_peaks(self) -> None:
        """Let the peaks begin anew at what is used now."""
        self.statistics.peak_allocated = self.statistics.allocated
        self.statistics.peak_reserved = self.statistics.reserved


class PooledMemory:
    """Memory of a pool while it is held."""

    __slots__ = ("_pool", "address", "size")

    def __init__(self, pool: Pool, address: int, size: int):
        self._pool = pool
        self.address = address
        self.size = size
        s = pool.statistics
        s.allocations += 1
        s.allocated += size
        if s.allocated > s.peak_allocated:
            s.peak_allocated = s.allocated

    def __del__(self) -> None:
        self._pool.give(self.address, self.size)
