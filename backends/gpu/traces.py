"""What the emulated device saw a kernel do to memory: races, sectors of 32 bytes, conflicts of banks.

A GPU takes the accesses of a warp's 32 lanes in one instruction as one *request*: of device memory it moves
whole sectors of 32 bytes, in shared memory each of 32 banks gives one word of 4 bytes at a time.
See https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#device-memory-accesses
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SECTOR = 32  # bytes
BANKS, WORD = 32, 4
LANES = 32
STORE, SHARED = 1, 2  # of an access's kind

Access = np.dtype([("at", np.uint64), ("line", np.uint32), ("block", np.uint32), ("phase", np.uint32),
                   ("thread", np.uint16), ("size", np.uint8), ("kind", np.uint8)])


@dataclass
class Counts:
    """What the launches of a kernel did.

    Attributes:
        launches, barriers: how many; a barrier counts once a block.
        requests: instructions of warps that touch device memory.
        sectors: how many these moved; `ideal` is the least for as many bytes.
        shared: instructions of warps that touch shared memory; `turns`: in how many turns the banks gave it.
    """

    launches: int = 0
    barriers: int = 0
    requests: int = 0
    sectors: int = 0
    ideal: int = 0
    shared: int = 0
    turns: int = 0

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def requests(trace: np.ndarray) -> np.ndarray:
    """For each access the number of its request: a warp's lanes that do one thing for the same time."""
    thread = trace["block"].astype(np.int64) * 1024 + trace["thread"]
    place = np.stack([thread, trace["line"].astype(np.int64), trace["kind"].astype(np.int64)])
    order = np.lexsort(place)
    sorted_places = place[:, order]
    new = np.append(True, (sorted_places[:, 1:] != sorted_places[:, :-1]).any(0)) if len(trace) else \
        np.zeros(0, bool)
    start = np.maximum.accumulate(np.where(new, np.arange(len(trace)), 0))
    times = np.empty(len(trace), np.int64)
    times[order] = np.arange(len(trace)) - start  # the how manieth of its kind in its thread
    keys = np.stack([thread // LANES, place[1], place[2], times], 1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def counts(trace: np.ndarray, barriers: int) -> Counts:
    """What one launch did."""
    found = Counts(launches=1, barriers=barriers)
    number = requests(trace)
    apart = trace["kind"] & SHARED == 0
    found.requests, found.sectors, found.ideal = _sectors(trace[apart], number[apart])
    found.shared, found.turns = _turns(trace[~apart], number[~apart])
    return found


def _sectors(trace: np.ndarray, number: np.ndarray) -> tuple[int, int, int]:
    if not len(trace):
        return 0, 0, 0
    first, last = trace["at"] // SECTOR, (trace["at"] + trace["size"] - 1) // SECTOR
    pairs = np.concatenate([np.stack([number, s.astype(np.int64)], 1) for s in (first, last)])
    # bytes that a request asks for, each counted once: a number read by all lanes is one
    fields = number, trace["at"].astype(np.int64), trace["size"].astype(np.int64)
    asked = np.unique(np.stack(fields, 1), axis=0)
    size = np.bincount(asked[:, 0], asked[:, 2])
    least = -(-size[size > 0].astype(np.int64) // SECTOR)
    return len(least), len(np.unique(pairs, axis=0)), int(least.sum())


def _turns(trace: np.ndarray, number: np.ndarray) -> tuple[int, int]:
    if not len(trace):
        return 0, 0
    # wider accesses are taken by halves and quarters of a warp
    wide = np.maximum(trace["size"].astype(np.int64) // WORD, 1)
    part = number * 8 + (trace["thread"].astype(np.int64) % LANES) * wide // LANES
    words = np.concatenate([np.stack([part, trace["at"].astype(np.int64) // WORD + i], 1)[wide > i]
                            for i in range(int(wide.max()))])
    words = np.unique(words, axis=0)
    _, at, per_bank = np.unique(np.stack([words[:, 0], words[:, 1] % BANKS], 1), axis=0, return_index=True,
                                return_counts=True)
    parts, where = np.unique(words[at, 0], return_inverse=True)
    most = np.zeros(len(parts), np.int64)
    np.maximum.at(most, where.reshape(-1), per_bank)
    return len(np.unique(number)), int(most.sum())


def race(trace: np.ndarray) -> tuple[int, str] | None:
    """A line, and what it does that another thread may do at the same time; None where nothing is.

    Threads of different blocks always may, those of a block unless a barrier stands between.
    """
    trace = trace[trace["kind"] & SHARED == 0]
    step = np.minimum(trace["size"], 4).astype(np.int64)
    pieces = int((trace["size"] // np.maximum(step, 1)).max(initial=0))
    at = np.concatenate([(trace["at"].astype(np.int64) + i * step)[trace["size"] > i * step]
                         for i in range(pieces)]) if pieces else np.zeros(0, np.int64)
    every = np.concatenate([trace[trace["size"] > i * step] for i in range(pieces)]) if pieces else trace
    order = np.argsort(at, kind="stable")
    at, every = at[order], every[order]
    cell = np.cumsum(np.append(True, at[1:] != at[:-1])) - 1 if len(at) else at
    stored = np.zeros(cell[-1] + 1 if len(cell) else 0, bool)
    np.logical_or.at(stored, cell, every["kind"] & STORE != 0)
    kept = stored[cell]
    cell, every = cell[kept], every[kept]
    for wrong, what in ((_in_other_blocks(cell, every), "another block"),
                        (_in_other_threads(cell, every), "another thread of the block")):
        if wrong is not None:
            does = "writes to" if wrong["kind"] & STORE else "reads"
            rest = "in the same launch" if what == "another block" else "with no barrier between"
            return int(wrong["line"]), f"a race: it {does} an element that {what} touches {rest}"
    return None


def _in_other_blocks(cell: np.ndarray, every: np.ndarray) -> np.void | None:
    return _first_of_two(cell, every["block"].astype(np.int64), every)


def _in_other_threads(cell: np.ndarray, every: np.ndarray) -> np.void | None:
    phases = np.unique(np.stack([cell, every["phase"].astype(np.int64)], 1), axis=0, return_inverse=True)[1]
    phases = phases.reshape(-1)
    stored = np.zeros(phases.max(initial=-1) + 1, bool)
    np.logical_or.at(stored, phases, every["kind"] & STORE != 0)
    kept = stored[phases]
    return _first_of_two(phases[kept], every["thread"][kept].astype(np.int64), every[kept])


def _first_of_two(cell: np.ndarray, who: np.ndarray, every: np.ndarray) -> np.void | None:
    """An access to a cell that not all accesses come from one of: the last of them."""
    if not len(cell):
        return None
    count = cell.max() + 1
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(low, cell, who)
    np.maximum.at(high, cell, who)
    wrong = np.flatnonzero((low < high)[cell])
    return every[wrong[-1]] if len(wrong) else None  # type: ignore[no-any-return]
