"""Proves a memory plan right without knowing how it was made.

Replays the launches with concrete sizes, each loop twice, and remembers for each byte range who
wrote it: a launch that reads a temporary must find that temporary's own bytes, and nothing may lie
outside the arena.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from graphtorch.ir.shape import Dim, evaluate

from .plan import Plan
from .program import Item, Launch, Loop, Program, Slot, flat, touched

STEPS = 2  # of a loop: what one leaves for the next has to be there

# a label, and temporaries with the number of the step if fresh
Use = tuple[str, frozenset[tuple[Slot, int]]]


class PlanError(AssertionError):
    """Two live buffers overlap, or one lies outside the arena."""


def check_plan(program: Program, plan: Plan, sizes: Mapping[str, int] | None = None) -> None:
    """Check `plan` at these symbol values.

    Raises:
        PlanError: names the two slots, or the slot and the arena's size.
    """
    ranges = {slot: _range(slot, plan.offsets[slot], sizes or {}) for slot in program.temporaries()}
    arena = int(evaluate(plan.size, sizes or {}))
    for slot, (start, stop) in ranges.items():
        if start < 0 or stop > arena or start % 64:
            raise PlanError(
                f"{slot.name or slot.kind} at {start}..{stop} does not fit an arena of {arena} "
                "bytes"
            )
    uses = list(_replayed([*program.prologue, *program.launches], {}, itertools.count()))
    remaining = Counter(item for _, used in uses for item in used)
    live: dict[tuple[Slot, int], bool] = {}
    for label, used in uses:
        live.update(dict.fromkeys(used, True))
        _check_apart(label, [slot for slot, _ in live], ranges)
        for item in used:
            remaining[item] -= 1
            if not remaining[item]:
                del live[item]


def _check_apart(label: str, live: Sequence[Slot], ranges: Mapping[Slot, tuple[int, int]]) -> None:
    for i, a in enumerate(live):
        for b in live[i + 1 :]:
            if a is not b and ranges[a][0] < ranges[b][1] and ranges[b][0] < ranges[a][1]:
                raise PlanError(
                    f"launch {label}: {a.name or a.shape} at {ranges[a]} and "
                    f"{b.name or b.shape} at {ranges[b]} are both in use"
                )


def _replayed(
    items: Sequence[Item], fresh: Mapping[Slot, int], numbers: Iterator[int]
) -> Iterator[Use]:
    """What is in use at each launch. A slot of `fresh` is another one in each step, whose number it
    gives."""
    for item in items:
        if isinstance(item, Launch):
            slots = {r for s in item.slots for r in s.roots()}
            yield item.label or item.kernel.name, _named(slots, fresh)
        elif isinstance(item, Loop):
            made = _made_in_each_step(item, items)
            yield "loop", _named(item.own_roots(), fresh)
            for _ in range(STEPS):
                step = {**fresh, **dict.fromkeys(made, next(numbers))}
                for block in item.blocks():
                    yield from _replayed(block, step, numbers)
            yield "loop", _named(item.own_roots(), fresh)
        else:
            yield "branch", _named(set(item.predicate.roots()), fresh)
            for block in item.blocks():
                yield from _replayed(block, fresh, numbers)


def _named(slots: Iterable[Slot], fresh: Mapping[Slot, int]) -> frozenset[tuple[Slot, int]]:
    return frozenset((s, fresh.get(s, -1)) for s in slots if s.kind == "temporary")


def _made_in_each_step(loop: Loop, around: Sequence[Item]) -> set[Slot]:
    """Slots whose first use in a step is to be written, and that nothing outside the loop uses.

    Where parts of the loop run at the same time there are none.
    """
    if loop.parts > 1:
        return set()
    outside = {s for item in around if item is not loop for s in touched(item)} | set(
        loop.own_roots()
    )
    first: dict[Slot, bool] = {}
    for block in loop.blocks():
        for launch in flat(block):
            for slot, buffer in zip(launch.slots, launch.kernel.buffers, strict=True):
                # the first step of an inner loop reads what is carried where it was before the loop
                for root in (slot.parts[0] if slot.kind == "carry" else slot).roots():
                    first.setdefault(root, buffer.access == "write")
    return {s for s, writes in first.items() if writes and s not in outside}


def _range(slot: Slot, offset: Dim, sizes: Mapping[str, int]) -> tuple[int, int]:
    start = int(evaluate(offset, sizes))
    return start, start + int(evaluate(slot.elements, sizes)) * slot.dtype.itemsize
