"""Loops and branches: the kernels of their bodies, and what moves from one step to the next.

A step reads and writes its part of each stacked buffer in place. What it hands on is not copied:
the next step reads it where this one wrote it, in the stacked result where there is one of the same
value, else in one of two halves by turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.control import CondAttrs, WhileAttrs
from graphtorch.ir.ops.scan_grad import ScanAttrs

from ...kernels.program.lowering import Lowering, Region, region_of
from ...kernels.program.program import Branch, Carry, Item, Launch, Loop, Slot, flat, touched
from ..loops.nest import lower_copy
from .parts import parted

LowerRegion = Callable[[Region, Lowering], None]


def lower_control(region: Region, lowering: Lowering, lower_region: LowerRegion) -> None:
    """A loop or branch, with the regions of its body lowered by `lower_region`."""
    (node,) = region.nodes
    outer = dict(zip(region.body.inputs, region.operands, strict=True))
    operands = [outer[v] for v in node.operands]
    results = {v.index: r for v, r in zip(region.body.outputs, region.results, strict=True)}
    Control(node, operands, results, lowering, lower_region).lower()


class Control:
    """One node that holds graphs: its operands and results as values of the graph around it."""

    def __init__(
        self,
        node: Node,
        operands: Sequence[Value],
        results: dict[int, Value],
        lowering: Lowering,
        lower_region: LowerRegion,
    ):
        self.node = node
        self.operands = operands
        self.results = results
        self.lowering = lowering
        self.lower_region = lower_region

    def lower(self) -> None:
        match self.node.op.name:
            case "scan":
                self.scan(attrs_of(self.node, ScanAttrs))
            case "while_loop":
                self.while_loop(attrs_of(self.node, WhileAttrs))
            case _:
                self.cond(attrs_of(self.node, CondAttrs))

    def graph(self, body: Graph, targets: Sequence[tuple[Value, Slot]]) -> list[Item]:
        """The launches of a body, its results stored to `targets`."""
        lowering = self.lowering
        copies: list[tuple[Value, Slot]] = []
        for value, slot in targets:
            constant = value.node is None or value.node.op.name == "constant"
            if constant or lowering.has_slot(value):
                copies.append((value, slot))
            else:
                lowering.assign(value, slot)
        with lowering.block() as block:
            for node in body.nodes:
                if node.op.name != "constant":
                    self.lower_region(region_of(node), lowering)
            for value, slot in copies:
                lower_copy(lowering.slot(value), slot, lowering)
        return block

    # -- scan -----------------------------------------------------------------------------------

    def scan(self, attrs: ScanAttrs) -> None:
        body, n, last = attrs.body, attrs.carries, attrs.carries + attrs.stacked
        loop = Loop([], attrs.length, attrs.reverse)
        cut = None if self.lowering.in_block else parted(attrs)
        if cut is not None:
            body, loop.parts = cut
        for i in range(n, last):
            self.lowering.assign(body.inputs[i], self.part(loop, self.operands[i], body.inputs[i]))
        targets = [
            (body.outputs[i], self.part(loop, self.results[i], body.outputs[i]))
            for i in sorted(self.results)
            if i >= n
        ]
        self.bind(body, last)
        self.hand_on(loop, body, n, targets)
        self.lowering.serial = loop.parts > 1
        loop.body = self.graph(body, targets)
        self.lowering.serial = False
        self.finish(loop)

    def part(self, loop: Loop, whole: Value, value: Value) -> Slot:
        """Where a step finds its slice of a stacked value."""
        base = self.lowering.slot(whole)
        slot = Slot(
            "step",
            value.dtype,
            value.shape,
            value.type.numel,
            name=base.name,
            parts=(base,),
            stride=value.type.numel * loop.parts,
        )
        loop.moving.append(slot)
        return slot

    def bind(self, body: Graph, first: int) -> None:
        """Let the operands from `first` on, the same in all steps, be read where they lie."""
        for inner, outer in zip(body.inputs[first:], self.operands[first:], strict=True):
            self.lowering.bind(inner, outer, fixed=True)

    def hand_on(
        self, loop: Loop, body: Graph, carries: int, targets: list[tuple[Value, Slot]]
    ) -> None:
        """The carries of a loop. Adds to `targets` those values that no other target stores
        already."""
        places = {value: slot for value, slot in reversed(targets) if value.node is not None}
        for i in range(carries):
            value = body.outputs[i]
            following = places.get(value)
            if following is None:
                following = self.halves(loop, value)
                targets.append((value, following))
                if value.node is not None:
                    places[value] = following
            loop.carries.append(self.carry(i, body.inputs[i], following))
            self.lowering.assign(body.inputs[i], loop.carries[i].now)

    def halves(self, loop: Loop, value: Value) -> Slot:
        """Room for a value of this step and of the one before."""
        numel = value.type.numel
        both = self.lowering.temporary(value.dtype, (2 * loop.parts, *value.shape), name="carried")
        slot = Slot(
            "half", value.dtype, value.shape, numel, parts=(both,), stride=numel * loop.parts
        )
        loop.moving.append(slot)
        return slot

    def carry(self, index: int, value: Value, following: Slot) -> Carry:
        parts = self.lowering.slot(self.operands[index]), following
        now, final = (
            Slot(kind, value.dtype, value.shape, value.type.numel, parts=parts)
            for kind in ("carry", "final")
        )
        return Carry(now, following, final)

    def finish(self, loop: Loop) -> None:
        """Append the loop, what is the same in all its steps before it, and store what it
        leaves."""
        for item in hoisted(loop):
            self.lowering.append(item)
        self.lowering.append(loop)
        finals = [
            (c.final, self.lowering.slot(self.results[i]))
            for i, c in enumerate(loop.carries)
            if i in self.results
        ]
        if loop.parts == 1:
            for final, result in finals:
                lower_copy(final, result, self.lowering)
            return
        give_each_its_own(loop)
        with self.lowering.block() as loop.after:
            for final, result in finals:
                piece = Slot("step", final.dtype, final.shape, final.elements, parts=(result,))
                loop.stored.append(piece)
                lower_copy(final, piece, self.lowering)

    # -- while, cond ----------------------------------------------------------------------------

    def while_loop(self, attrs: WhileAttrs) -> None:
        test, body = attrs.test, attrs.body
        flag = self.lowering.temporary(test.outputs[0].dtype, (), name="again")
        loop, targets = Loop([]), list[tuple[Value, Slot]]()
        for graph in (test, body):
            self.bind(graph, attrs.carries)
        self.hand_on(loop, body, attrs.carries, targets)
        for inner, carry in zip(test.inputs, loop.carries, strict=False):
            self.lowering.assign(inner, carry.now)
        loop.test = self.graph(test, [(test.outputs[0], flag)]), flag
        loop.body = self.graph(body, targets)
        self.finish(loop)

    def cond(self, attrs: CondAttrs) -> None:
        lowering = self.lowering
        blocks = []
        slots = {i: lowering.slot(r) for i, r in self.results.items()}
        for body in (attrs.then, attrs.orelse):
            for inner, outer in zip(body.inputs, self.operands[1:], strict=True):
                lowering.bind(inner, outer)
            known = dict(lowering.copies)
            blocks.append(self.graph(body, [(body.outputs[i], slot) for i, slot in slots.items()]))
            lowering.copies.clear()  # what one side packs is not there on the other, nor afterwards
            lowering.copies.update(known)
        lowering.append(Branch(lowering.slot(self.operands[0]), *blocks))


def hoisted(loop: Loop) -> list[Launch]:
    """Takes out of a loop's body the launches that do the same in each step (packing a weight), in
    order."""
    moving = {*loop.moving, *(c.now for c in loop.carries)}
    writers: dict[Slot, int] = {}
    for launch in flat(loop.body):
        for slot in written(launch):
            writers[slot] = writers.get(slot, 0) + 1
    found: list[Launch] = []
    for item in loop.body:
        if (
            isinstance(item, Launch)
            and not moving & {r for s in item.slots for r in (s, *s.roots())}
            and all(s.kind == "temporary" and writers[s] == 1 for s in written(item))
        ):
            found.append(item)
        elif isinstance(item, Launch):
            moving.update(written(item))
        else:
            moving.update(touched(item))
    loop.body[:] = [item for item in loop.body if item not in found]
    return found


def give_each_its_own(loop: Loop) -> None:
    """Room in each temporary of a step for all parts of the loop, each from a cache line of its own
    on."""
    for slot in {s for launch in flat(loop.body) for s in written(launch) if s.kind == "temporary"}:
        line = 64 // slot.dtype.itemsize
        slot.each = -(-int(slot.elements) // line) * line  # type: ignore[arg-type]
        slot.elements = slot.each * loop.parts


def written(launch: Launch) -> list[Slot]:
    """The slots that a launch writes, whole ones."""
    return [
        s.whole
        for s, b in zip(launch.slots, launch.kernel.buffers, strict=True)
        if b.access != "read"
    ]
