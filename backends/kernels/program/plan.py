"""Memory planning: where the temporaries of a program lie in its one arena.

A temporary lives from its first launch to its last; two that live at the same time may not overlap.
Static sizes are packed by size, largest first, each at the lowest offset that is free for its whole
life. So are sizes that are numbers times the same symbols, a batch most of all, in units of these.
Other symbolic sizes share *shelves*: slots with disjoint lives and comparable sizes use the same
shelf, whose size is the largest of theirs, and shelves stand one after the other. Every offset is
an expression over the symbols that compiled code evaluates at each call.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.shape import Dim, SymInt, bounds, unit

from ...dataclass import dataclass, field
from .program import Branch, Item, Loop, Program, Slot, touched

ALIGNMENT = 64


@dataclass(frozen=True)
class Life:
    """The first and the last launch that touch a slot, counted from the prologue's first."""

    first: int
    last: int

    def meets(self, other: Life) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """Byte offsets of the temporary slots in the arena, and the arena's size in bytes."""

    offsets: dict[Slot, Dim]
    size: Dim
    lives: dict[Slot, Life]


@dataclass
class Shelf:
    """A stretch of the arena used by several slots, one after the other."""

    size: Dim
    slots: list[Slot] = field(default_factory=list)


def plan(program: Program) -> Plan:
    """Place the temporaries of `program`."""
    lives = lifetimes(program)
    static = {s: n for s in lives if isinstance(n := slot_bytes(s), int)}
    unit, common = _multiples([s for s in lives if s not in static])
    offsets: dict[Slot, Dim] = {}
    total: Dim = 0
    for slots, one in ((static, 1), (common, unit)):
        places, end = _pack(slots, lives)
        offsets.update((slot, total + place * one) for slot, place in places.items())
        total = total + end * one
    for shelf in _shelves([s for s in lives if s not in offsets], lives):
        offsets.update(dict.fromkeys(shelf.slots, total))
        total = total + shelf.size
    return Plan(offsets, total, lives)


def slot_bytes(slot: Slot) -> Dim:
    """Bytes to reserve for a slot: whole cache lines."""
    return (slot.elements * slot.dtype.itemsize + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def lifetimes(program: Program) -> dict[Slot, Life]:
    """When each temporary is in use, in the order of first use."""
    items: list[Item] = [*program.prologue, *program.launches]
    lives: dict[Slot, Life] = {}
    _live(items, 0, lives)
    return lives


def _live(items: Sequence[Item], time: int, lives: dict[Slot, Life]) -> int:
    """Enter what `items` touch from `time` on, and return the time after them."""
    for item in items:
        start = time
        if isinstance(item, (Loop, Branch)):
            for block in item.blocks():
                time = _live(block, time + 1, lives)
        slots = (
            touched(item) if not isinstance(item, Loop) else _kept_over_steps(item, start, lives)
        )
        for slot in slots:
            if slot.kind == "temporary":
                _extend(lives, slot, start)
                _extend(lives, slot, time)
        time += 1
    return time


def _kept_over_steps(loop: Loop, start: int, lives: dict[Slot, Life]) -> dict[Slot, None]:
    """Slots that live for the whole loop: all but those that a step makes for itself.

    Parts of a loop run at the same time: what one of them no longer needs another still does.
    """
    if loop.parts > 1:
        return touched(loop)
    return loop.own_roots() | dict.fromkeys(
        s for s in touched(loop) if s not in lives or lives[s].first < start
    )


def _extend(lives: dict[Slot, Life], slot: Slot, time: int) -> None:
    known = lives.get(slot, Life(time, time))
    lives[slot] = Life(min(known.first, time), max(known.last, time))


def _multiples(slots: Sequence[Slot]) -> tuple[Dim, dict[Slot, int]]:
    """A product of symbols, and the slots whose bytes are multiples of it with what they are
    multiplied by: none unless these are most of them."""
    found: dict[Dim, dict[Slot, int]] = {}
    for slot in slots:
        size = slot.elements * slot.dtype.itemsize
        factor = unit(size)
        product = size // factor if factor else 0
        if isinstance(product, SymInt) and len(product.terms) == 1:
            whole = -(-factor // ALIGNMENT) * ALIGNMENT
            found.setdefault(product, {})[slot] = whole
    product, most = max(found.items(), key=lambda item: len(item[1]), default=(0, {}))
    return (product, most) if 2 * len(most) > len(slots) else (0, {})


def _pack(sizes: dict[Slot, int], lives: dict[Slot, Life]) -> tuple[dict[Slot, int], int]:
    """Offsets of slots of known sizes, and the end of the highest."""
    offsets: dict[Slot, int] = {}
    placed = Placed(lives)
    for slot in sorted(sizes, key=lambda s: (-sizes[s], lives[s].first)):
        size = sizes[slot]
        taken = placed.during(lives[slot])
        at = 0
        for start, stop in taken:
            if at + size <= start:
                break
            at = max(at, stop)
        offsets[slot] = at
        placed.add(at, at + size, slot)
    return offsets, placed.end


class Placed:
    """Slots that have a place: long-lived ones, and by stretch of time the others, most of them."""

    STRETCH = 32  # launches

    def __init__(self, lives: dict[Slot, Life]):
        self.end = 0
        self._lives = lives
        # each with the first and the last launch of its life
        self._long: list[tuple[int, int, tuple[int, int]]] = []
        self._short: dict[int, list[tuple[int, int, tuple[int, int]]]] = {}

    def add(self, start: int, stop: int, slot: Slot) -> None:
        self.end = max(self.end, stop)
        life = self._lives[slot]
        group = (
            self._long
            if self._is_long(life)
            else self._short.setdefault(life.first // self.STRETCH, [])
        )
        group.append((life.first, life.last, (start, stop)))

    def during(self, life: Life) -> list[tuple[int, int]]:
        """Where something lies at some time of `life`, from low to high."""
        begin, end = life.first, life.last
        low, high = begin // self.STRETCH - 1, end // self.STRETCH
        stretches = self._short if high - low > len(self._short) else range(low, high + 1)
        groups = (self._long, *(self._short.get(i, ()) for i in stretches))
        others = [other for group in groups for other in group]
        return sorted([place for first, last, place in others if first <= end and begin <= last])

    def _is_long(self, life: Life) -> bool:
        return life.last - life.first >= self.STRETCH


def _shelves(slots: Sequence[Slot], lives: dict[Slot, Life]) -> list[Shelf]:
    """Shelves for slots of symbolic size; each goes to the first shelf that is free and
    comparable."""
    shelves: list[Shelf] = []
    for slot in slots:
        size = slot_bytes(slot)
        for shelf in shelves:
            larger = _larger(shelf.size, size)
            if larger is not None and not any(lives[s].meets(lives[slot]) for s in shelf.slots):
                shelf.size = larger
                shelf.slots.append(slot)
                break
        else:
            shelves.append(Shelf(size, [slot]))
    return shelves


def _larger(a: Dim, b: Dim) -> Dim | None:
    """The larger of two sizes where one is at least the other for every run."""
    if bounds(a - b)[0] >= 0:
        return a
    return b if bounds(b - a)[0] >= 0 else None
