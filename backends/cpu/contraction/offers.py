"""The schedules of a contraction that are worth trying: what the cost model takes, and what may
turn out to be faster where it is measured.

The model ranks tiles well but knows little of what a machine does besides multiplying: which level
of its caches a packed copy comes from, what the order of tasks leaves there, what cutting k costs.
So beside the next best tiles the first one is offered with these turned round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ...kernels.contraction.problem import Contraction, extent_of
from ...kernels.machine import Machine
from .choice import blocked, choose, finished, guess, repacked_columns, repacked_rows, ways
from .diagonal import diagonal, diagonal_schedule
from .schedule import TASKS, Schedule
from .split import SHORT, in_parts, parts_of, tasks_of

MOST = 8  # offers a contraction
NEXT_BEST = 3  # tiles of the model's ranking beside its first
WORSE = 2.0  # times the first's cost: beyond it the model is not that wrong
FEW_TASKS = 4  # with fewer, k is tried in parts


class Offer(NamedTuple):
    """A contraction, its operands perhaps exchanged, and a schedule for it."""

    problem: Contraction
    schedule: Schedule


def planned(p: Contraction, machine: Machine) -> Offer:
    """What the cost model takes, with the parts that k is cut into."""
    across = None if machine.tasks_are_threads else diagonal(p)
    if across is not None:
        return _cut(across, diagonal_schedule(across, machine), machine)
    return _cut(*choose(p, machine), machine)


def _cut(p: Contraction, s: Schedule, machine: Machine) -> Offer:
    return Offer(p, replace(s, split=1 if p.gated else parts_of(p, s, machine)))


def offers(p: Contraction, machine: Machine, same_bits: bool = False) -> list[Offer]:
    """What `planned` takes, then what else is worth trying, no two alike.

    Args: same_bits: only what gives the first one's results to the last bit: the same tile, so that
        the same instructions add the same numbers in the same order.
    """
    first = planned(p, machine)
    found = {str(first.schedule): first}
    if first.schedule.kind == "loops" or p.words:  # words of narrow numbers are packed one way
        return [first]
    others = _rearranged(first, machine)
    if not same_bits:
        others = (*others, *_other_tiles(p, first, machine), *_otherwise_cut(first, machine))
    for offer in others:
        found.setdefault(str(offer.schedule), offer)
    return list(found.values())[:MOST]


def _rearranged(first: Offer, machine: Machine) -> tuple[Offer, ...]:
    """The same tile in another order of tasks, and in fewer ones."""
    p, s = first
    if s.kind == "diagonal" or not s.parallel:
        return ()
    made = [replace(s, columns_first=not s.columns_first)] if tasks_of(p, s) > 1 else []
    if s.split == 1:
        made.append(blocked(p, s, machine, TASKS // 4))
    return tuple(Offer(p, other) for other in made)


def _other_tiles(p: Contraction, first: Offer, machine: Machine) -> Iterator[Offer]:
    """The next best tiles, and the best ones that read an operand otherwise: in place instead of
    packed, or the other way round."""
    ranked = sorted(ways(p, machine), key=lambda way: way[0])
    count = 0
    for cost, oriented, schedule in ranked:
        offer = _cut(oriented, finished(oriented, schedule, machine), machine)
        if count == NEXT_BEST or cost > WORSE * ranked[0][0]:
            break
        if str(offer.schedule) != str(first.schedule):
            count += 1
            yield offer
    for feed in (repacked_columns, repacked_rows):
        best = min(ways(p, machine, feed), key=lambda way: way[0], default=None)
        if best is not None:
            yield _cut(best[1], finished(*best[1:], machine), machine)


def _otherwise_cut(first: Offer, machine: Machine) -> Iterator[Offer]:
    """All of k in one where the first one cuts it, and parts where that has few tasks."""
    p, s = first
    if p.gated or s.kind == "diagonal" or not p.k or (s.kind == "dot" and len(p.k) == 1):
        return
    if s.split > 1:
        yield Offer(p, replace(s, split=1))
    elif s.parallel and tasks_of(p, s) < FEW_TASKS and guess(extent_of(p.k)) >= FEW_TASKS * SHORT:
        yield Offer(p, replace(s, split=in_parts(p, FEW_TASKS)))
