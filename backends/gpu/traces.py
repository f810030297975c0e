"""What the emulated device saw a kernel do to memory: races, sectors of 32 bytes, conflicts of
banks.

A GPU takes the accesses of a warp's 32 lanes in one instruction as one *request*: of device memory
it moves whole sectors of 32 bytes, in shared memory each of 32 banks gives one word of 4 bytes at a
time. See https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#device-memory-accesses
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from ..dataclass import dataclass, field

SECTOR = 32  # bytes
BANKS, WORD = 32, 4
LANES = 32
STORE, SHARED, ATOMIC = 1, 2, 4  # of an access's kind

Access = np.dtype(
    [
        ("at", np.uint64),
        ("line", np.uint32),
        ("block", np.uint32),
        ("phase", np.uint32),
        ("thread", np.uint16),
        ("size", np.uint8),
        ("kind", np.uint8),
    ]
)


@dataclass
class Turns:
    """What one line of a kernel's text did to shared memory, or several.

    Attributes:
        shared: instructions of warps that touch shared memory; `turns`: in how many turns the banks
            gave it; `least`: in how many without conflicts.
    """

    shared: int = 0
    turns: int = 0
    least: int = 0

    def add(self, other: Turns) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Counts:
    """What the launches of a kernel did.

    Attributes:
        launches, barriers: how many; a barrier counts once a block.
        requests: instructions of warps that touch device memory.
        sectors: how many these moved; `ideal` is the least for as many bytes.
        touched: different sectors that a launch read, and that it wrote: what the memory behind all
            caches moves at least.
        lines: what each line of the kernel's text did to shared memory.
    """

    launches: int = 0
    barriers: int = 0
    requests: int = 0
    sectors: int = 0
    ideal: int = 0
    touched: int = 0
    lines: dict[int, Turns] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            if name != "lines":
                setattr(self, name, getattr(self, name) + value)
        for line, turns in other.lines.items():
            self.lines.setdefault(line, Turns()).add(turns)

    @property
    def shared(self) -> int:
        return self.within().shared

    @property
    def turns(self) -> int:
        return self.within().turns

    @property
    def least(self) -> int:
        return self.within().least

    def within(self, lines: Container[int] | None = None) -> Turns:
        """What these lines did to shared memory; None: all."""
        total = Turns()
        for line, turns in self.lines.items():
            if lines is None or line in lines:
                total.add(turns)
        return total


def main_loops(text: str) -> set[int]:
    """Lines of a unit's text that stand in loops whose steps wait for the whole block, other than
    the loop over blocks: where kernels of products and of attention spend their time."""
    found, opened = set[int](), list[_Block]()
    before = ""
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if line.startswith("}"):
            block = opened.pop()
            if block.rolled and block.waits:
                found.update(range(block.first, number))
            elif block.waits and opened:
                opened[-1].waits = True
        if line.endswith("{"):
            opened.append(_Block(number, before == "#pragma unroll 1"))
        if line == "__syncthreads();":
            opened[-1].waits = True
        before = line
    return found


@dataclass
class _Block:
    """A block of a text: its first line, whether it is the body of a loop that is not unrolled, and
    whether a barrier stands in it."""

    first: int
    rolled: bool
    waits: bool = False


def requests(trace: np.ndarray) -> np.ndarray:
    """For each access the number of its request: a warp's lanes that do one thing for the same
    time."""
    thread = trace["block"].astype(np.int64) * 1024 + trace["thread"]
    place = _keys(thread, trace["line"], trace["kind"])
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    new = np.append(True, ordered[1:] != ordered[:-1])[: len(trace)]
    start = np.maximum.accumulate(np.where(new, np.arange(len(trace)), 0))
    times = np.empty(len(trace), np.int64)
    times[order] = np.arange(len(trace)) - start  # the how manieth of its kind in its thread
    return _ranks(_keys(thread // LANES, trace["line"], trace["kind"], times))


def _ranks(keys: np.ndarray) -> np.ndarray:
    """Which of the different keys each is, in order."""
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def _keys(*columns: np.ndarray) -> np.ndarray:
    """One number for each row of several columns, another one for another row."""
    keys = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        added = column.astype(np.int64)
        if len(added):
            added -= added.min()  # addresses lie close together
        width = int(added.max(initial=0)) + 1
        if (int(keys.max(initial=0)) + 1) * width >= 1 << 62:
            keys, added = _ranks(keys), _ranks(added)
            width = int(added.max(initial=0)) + 1
        keys = keys * width + added
    return keys


def counts(trace: np.ndarray, barriers: int) -> Counts:
    """What one launch did."""
    found = Counts(launches=1, barriers=barriers)
    number = requests(trace)
    apart = trace["kind"] & SHARED == 0
    found.requests, found.sectors, found.ideal = _sectors(trace[apart], number[apart])
    found.touched = _touched(trace[apart])
    found.lines = _turns(trace[~apart], number[~apart])
    return found


def _touched(trace: np.ndarray) -> int:
    store = (trace["kind"] & STORE).astype(np.uint64)
    ends = trace["at"], trace["at"] + np.maximum(trace["size"], 1) - 1
    return len(np.unique(np.concatenate([end // SECTOR * 2 + store for end in ends])))


def _sectors(trace: np.ndarray, number: np.ndarray) -> tuple[int, int, int]:
    if not len(trace):
        return 0, 0, 0
    ends = trace["at"], trace["at"] + trace["size"] - 1
    pairs = _keys(np.concatenate([number, number]), np.concatenate([end // SECTOR for end in ends]))
    # bytes that a request asks for, each counted once: a number read by all lanes is one
    _, asked = np.unique(_keys(number, trace["at"], trace["size"]), return_index=True)
    size = np.bincount(number[asked], trace["size"][asked])
    least = -(-size[size > 0].astype(np.int64) // SECTOR)
    return len(least), len(np.unique(pairs)), int(least.sum())


def _turns(trace: np.ndarray, number: np.ndarray) -> dict[int, Turns]:
    """What each line did to shared memory."""
    if not len(trace):
        return {}
    # wider accesses are taken by halves and quarters of a warp
    wide = np.maximum(trace["size"].astype(np.int64) // WORD, 1)
    part = number * 8 + (trace["thread"].astype(np.int64) % LANES) * wide // LANES
    of_part = np.concatenate([part[wide > i] for i in range(int(wide.max()))])
    first = trace["at"].astype(np.int64) // WORD
    word = np.concatenate([(first + i)[wide > i] for i in range(int(wide.max()))])
    _, different = np.unique(_keys(of_part, word), return_index=True)
    of_part, word = of_part[different], word[different]
    _, at, per_bank = np.unique(_keys(of_part, word % BANKS), return_index=True, return_counts=True)
    parts, where = np.unique(of_part[at], return_inverse=True)
    most = np.zeros(len(parts), np.int64)
    np.maximum.at(most, where.reshape(-1), per_bank)
    requested, one = np.unique(number, return_index=True)
    line_of = trace["line"][one]
    line_of_part = line_of[np.searchsorted(requested, parts // 8)]
    return {
        int(line): Turns(
            int((line_of == line).sum()),
            int(most[line_of_part == line].sum()),
            int((line_of_part == line).sum()),
        )
        for line in np.unique(line_of)
    }


def race(trace: np.ndarray) -> tuple[int, str] | None:
    """A line, and what it does that another thread may do at the same time; None where nothing is.

    Threads of different blocks always may, those of a block unless a barrier stands between.
    """
    trace = trace[trace["kind"] & SHARED == 0]
    step = np.minimum(trace["size"], 4).astype(np.int64)
    pieces = int((trace["size"] // np.maximum(step, 1)).max(initial=0))
    at = (
        np.concatenate(
            [
                (trace["at"].astype(np.int64) + i * step)[trace["size"] > i * step]
                for i in range(pieces)
            ]
        )
        if pieces
        else np.zeros(0, np.int64)
    )
    every = (
        np.concatenate([trace[trace["size"] > i * step] for i in range(pieces)])
        if pieces
        else trace
    )
    order = np.argsort(at, kind="stable")
    at, every = at[order], every[order]
    cell = np.cumsum(np.append(True, at[1:] != at[:-1])) - 1 if len(at) else at
    stored = np.zeros(cell[-1] + 1 if len(cell) else 0, bool)
    np.logical_or.at(stored, cell, every["kind"] & STORE != 0)
    plain = np.zeros(len(stored), bool)
    # additions at once may meet each other
    np.logical_or.at(plain, cell, every["kind"] & ATOMIC == 0)
    kept = (stored & plain)[cell]
    cell, every = cell[kept], every[kept]
    for wrong, what in (
        (_in_other_blocks(cell, every), "another block"),
        (_in_other_threads(cell, every), "another thread of the block"),
    ):
        if wrong is not None:
            does = "writes to" if wrong["kind"] & STORE else "reads"
            rest = "in the same launch" if what == "another block" else "with no barrier between"
            return int(wrong["line"]), f"a race: it {does} an element that {what} touches {rest}"
    return None


def _in_other_blocks(cell: np.ndarray, every: np.ndarray) -> np.void | None:
    return _first_of_two(cell, every["block"].astype(np.int64), every)


def _in_other_threads(cell: np.ndarray, every: np.ndarray) -> np.void | None:
    phases = _ranks(_keys(cell, every["phase"]))
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
