"""Where the values of a region's body are while it is lowered: in memory, or not yet computed."""

from __future__ import annotations

from graphtorch.ir.graph import Graph, Value

from ...kernels.body.evaluate import Leaf, memory
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .nest import Target, lower_map, targets_of


def reshaped(value: Value) -> Value:
    """What `value` is only another shape of."""
    while value.node is not None and value.node.op.name == "reshape":
        value = value.node.operands[0]
    return value


class Places:
    """What is in memory of a region, and what is still to be stored.

    Attributes:
        slots: values of the body that are in memory.
        targets: what is still to be stored.
    """

    def __init__(
        self, region: Region, lowering: Lowering, slots: dict[Value, Slot], targets: list[Target]
    ):
        self.region = region
        self.lowering = lowering
        self.slots = dict(slots)
        self.targets = targets

    def leaves(self) -> dict[Value, Leaf]:
        return {value: memory(slot, value.shape) for value, slot in self.slots.items()}

    def materialise(self, value: Value) -> Slot:
        """The slot that holds `value`, computed now where it is nowhere yet."""
        found = self.slots.get(value)
        if found is None and value.node is not None and value.node.op.name == "constant":
            found = self.slots[value] = self.lowering.constant(value.node.attrs.value)
        source = reshaped(value)
        if found is None and source is not value:
            found = self.slots[value] = self.materialise(source)
        if found is None:
            found = self.lowering.temporary(value.dtype, value.shape)
            self.fill(value, found)
            self.slots[value] = found
        return found

    def result_slot(self, value: Value) -> Slot:
        """Where a barrier stores its result: the region's own result where it is one."""
        for target in self.targets:
            if target.value == value and target.plain:
                self.targets.remove(target)
                self.slots[value] = target.slot
                return target.slot
        found = self.slots[value] = self.lowering.temporary(value.dtype, value.shape)
        return found

    def fill(self, value: Value, slot: Slot) -> None:
        """Compute `value` into `slot`."""
        self.map(list(targets_of(value, slot)))

    def map(self, targets: list[Target]) -> None:
        """Kernels that compute `targets` element by element."""
        lower_map(self.region, self.lowering, targets, self.leaves())


def lower_value(region: Region, lowering: Lowering, value: Value, slot: Slot) -> None:
    """Compute a value of a region's body into `slot`, element by element."""
    body = Graph("operand", region.body.inputs, [value])
    slots = dict(zip(body.inputs, map(lowering.slot, region.operands), strict=True))
    Places(Region("loop", body, region.operands, (value,), region.node), lowering, slots, []).fill(
        value, slot
    )
