"""Proves a memory plan right without knowing how it was made.

Replays the launches with concrete sizes and remembers for each byte range who wrote it: a launch that
reads a temporary must find that temporary's own bytes, and nothing may lie outside the arena.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphtorch.ir.shape import Dim, evaluate

from .plan import Plan
from .program import Program, Slot


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
            raise PlanError(f"{slot.name or slot.kind} at {start}..{stop} does not fit an arena of {arena} "
                            "bytes")
    owner: dict[Slot, bool] = {}
    launches = [*program.prologue, *program.launches]
    remaining = {slot: sum(slot in launch.slots for launch in launches) for slot in ranges}
    for launch in launches:
        used = {s for s in launch.slots if s in ranges}
        for slot in used:
            owner[slot] = True
        live = list(owner)
        for i, a in enumerate(live):
            for b in live[i + 1:]:
                if ranges[a][0] < ranges[b][1] and ranges[b][0] < ranges[a][1]:
                    raise PlanError(f"launch {launch.label or launch.kernel.name}: {a.name or a.shape} at "
                                    f"{ranges[a]} and {b.name or b.shape} at {ranges[b]} are both in use")
        for slot in used:
            remaining[slot] -= 1
            if not remaining[slot]:
                del owner[slot]


def _range(slot: Slot, offset: Dim, sizes: Mapping[str, int]) -> tuple[int, int]:
    start = int(evaluate(offset, sizes))
    return start, start + int(evaluate(slot.elements, sizes)) * slot.dtype.itemsize
