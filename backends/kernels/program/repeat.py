"""Equal regions are lowered once: what the first one launches is repeated on the slots of the
others.

A network has its layers many times, a batch its samples. Two regions are equal if their bodies are,
and if lowering knows the same of their operands and results. What a region asks for beyond them is
either made for it (temporaries, packed operands) or was made before by another one (a copy that
several read); it is looked up again by what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ir.exact import exact
from graphtorch.ir.graph import Graph, Value

from ...dataclass import dataclass
from .lowering import Lowering, Region
from .program import Launch, Slot

LowerRegion = Callable[[Region, Lowering], object]


@dataclass
class Lowered:
    """What lowering a region did, in terms of slots: those it was given, and those of `recipes` it
    made."""

    given: list[Slot]
    made: list[tuple[Slot, tuple[Any, ...]]]
    found: dict[Slot, tuple[Any, ...]]  # copies that were there already, by what they hold
    copies: list[tuple[tuple[Any, ...], Slot]]
    launches: list[Launch]
    prologue: list[Launch]
    results: list[Slot]

    def repeat(self, region: Region, lowering: Lowering, given: Sequence[Slot]) -> bool:
        """Do the same for an equal region; False where copies that it needs are not there, or are
        already."""
        slots = dict(zip(self.given, given, strict=True))
        for slot, key in self.found.items():
            there = lowering.copies.get(_on(key, slots))
            if there is None:
                return False
            slots[slot] = there
        if any(_on(key, slots) in lowering.copies for key, _ in self.copies):
            return False
        slots.update((slot, Slot(*recipe)) for slot, recipe in self.made)
        lowering.copies.update((_on(key, slots), slots[slot]) for key, slot in self.copies)
        for source, prologue in ((self.prologue, True), (self.launches, False)):
            for la in source:
                places = tuple(slots.get(s, s) for s in la.slots)
                lowering.add(
                    Launch(la.kernel, places, la.sizes, la.label, la.flops, la.bytes), prologue
                )
        for value, slot in zip(region.results, self.results, strict=True):
            lowering.assign(value, slots.get(slot, slot))
        return True


def lower_once(region: Region, lowering: Lowering, lower: LowerRegion) -> None:
    """Lower `region` by `lower`, or repeat what was done for an equal one."""
    operands = [lowering.slot(v) for v in region.operands]
    results = [lowering.slot(v) if lowering.has_slot(v) else None for v in region.results]
    given = list(dict.fromkeys([*operands, *(s for s in results if s is not None)]))
    key = (
        structure(region),
        lowering.setting,
        tuple(_facts(v, s, lowering) for v, s in zip(region.operands, operands, strict=True)),
        tuple(None if s is None else s.kind for s in results),
        tuple(given.index(s) for s in operands),
        tuple(None if s is None else given.index(s) for s in results),
    )
    known = lowering.repeats.get(key)
    if known is not None and known.repeat(region, lowering, given):
        return
    with lowering.watched() as watch:
        lower(region, lowering)
    done = _lowered(region, lowering, given, watch)
    if done is not None:
        lowering.repeats[key] = done


def _lowered(region: Region, lowering: Lowering, given: list[Slot], watch: Any) -> Lowered | None:
    """What was done while watched, if it can be repeated."""
    launches, prologue, made, copies, errors = watch()
    if errors or not all(isinstance(item, Launch) for item in launches):
        return None
    results = [lowering.slot(v) for v in region.results]
    own = {*given, *made}
    before: dict[Slot, Any] = {slot: key for key, slot in lowering.copies.items()}
    found: dict[Slot, tuple[Any, ...]] = {}
    for slot in {*results, *(s for la in (*launches, *prologue) for s in la.slots)}:
        if slot in own or slot.kind == "constant":
            continue
        if slot not in before:
            return None
        found[slot] = before[slot]
    recipes = [(s, (s.kind, s.dtype, s.shape, s.elements, 0, None, None, s.name)) for s in made]
    return Lowered(given, recipes, found, copies, launches, prologue, results)


def _on(key: tuple[Any, ...], slots: dict[Slot, Slot]) -> tuple[Any, ...]:
    """What a copy holds, with other slots in place of those it was made from."""
    return tuple(slots.get(part, part) if isinstance(part, Slot) else part for part in key)


def _facts(value: Value, slot: Slot, lowering: Lowering) -> tuple[Any, ...]:
    """What lowering may know of an operand."""
    return (
        slot.kind,
        slot.literal,
        slot.elements,
        lowering.is_stable(value),
        lowering.is_fixed(value),
    )


def structure(region: Region) -> tuple[Any, ...]:
    """What two equal regions have in common, as a key."""
    body: Graph = region.body
    number: dict[Value, int] = {v: i for i, v in enumerate(body.inputs)}
    nodes = []
    for node in body.nodes:
        nodes.append(
            (node.op.name, exact(node.attrs), node.types, tuple(number[v] for v in node.operands))
        )
        number.update((v, len(number) + i) for i, v in enumerate(node.results()))
    return (
        region.kind,
        tuple(v.type for v in body.inputs),
        tuple(nodes),
        tuple(number[v] for v in body.outputs),
    )
