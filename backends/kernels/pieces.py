"""Concatenations of many parts: each part by itself, so that equal parts are launches of one kernel.

A part is written to a *piece* of the result, a slot that begins where the part does. Where a part is
contiguous in the result, whoever computes it writes it there, and nothing is left to copy.
"""

from __future__ import annotations

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Value, topological
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.shape import DimAttrs
from graphtorch.ir.passes.fuse import in_pieces
from graphtorch.ir.shape import Dim, numel

from .loops import Target
from .lowering import Lowering, Region, region_of
from .program import Slot
from .repeat import lower_once
from .stages import Stages, lower_loops, reshaped


def concat_of(region: Region) -> Node | None:
    """The concatenation of many parts that a region consists of, beside views."""
    if not region.body.nodes:
        return None
    last = region.body.nodes[-1]
    return last if in_pieces(last) and list(region.body.outputs) == [last.result()] else None


def place_parts(graph: Graph, lowering: Lowering) -> None:
    """Let the parts of concatenations live in the result, before anything of `graph` is lowered."""
    for node in reversed(graph.nodes):  # of one concatenation in another the outer one is placed first
        if node.op not in (ops.region, ops.concat):
            continue
        region = region_of(node)
        concat = concat_of(region)
        if concat is not None and is_contiguous(concat):
            _place(region, concat, lowering)


def _place(region: Region, concat: Node, lowering: Lowering) -> None:
    operands = dict(zip(region.body.inputs, region.operands, strict=True))
    whole = lowering.slot(region.results[0])
    for part, start in zip(concat.operands, starts(concat), strict=True):
        value = operands.get(reshaped(part))
        computed = value is not None and value.node is not None and value.node.op is not ops.constant
        if value is not None and computed and not lowering.has_slot(value):
            lowering.assign(value, piece(whole, value, start))


def piece(whole: Slot, value: Value, start: Dim) -> Slot:
    """The slot of a part that begins at element `start` of `whole`."""
    return Slot("piece", value.dtype, value.shape, value.type.numel, parts=(whole,), offset=start)


def starts(concat: Node) -> list[Dim]:
    """The element of the result at which each part begins."""
    dim = attrs_of(concat, DimAttrs).dim
    inner, found, at = numel(concat.types[0].shape[dim + 1:]), list[Dim](), 0
    for part in concat.operands:
        found.append(at)
        at = at + part.shape[dim] * inner
    return found


def is_contiguous(concat: Node) -> bool:
    """Whether each part is one stretch of memory in the result."""
    return all(d == 1 for d in concat.types[0].shape[:attrs_of(concat, DimAttrs).dim])


def lower_pieces(region: Region, concat: Node, lowering: Lowering) -> None:
    """A launch for each part that does not lie in the result already; equal ones are one kernel."""
    operands = dict(zip(region.body.inputs, region.operands, strict=True))
    whole = lowering.slot(region.results[0])
    for part, start in zip(concat.operands, starts(concat), strict=True):
        source = operands.get(reshaped(part))
        if source is None or not _lies_in(lowering.slot(source), whole, start):
            _lower_part(region, concat, part, start, operands, lowering)


def _lies_in(slot: Slot, whole: Slot, start: Dim) -> bool:
    return slot.kind == "piece" and slot.parts[0] is whole and slot.offset == start


def _lower_part(region: Region, concat: Node, part: Value, start: Dim, operands: dict[Value, Value],
                lowering: Lowering) -> None:
    """Store one part, as a region of its own."""
    nodes = topological([part])
    inputs = [v for v in dict.fromkeys([*(v for n in nodes for v in n.operands), part]) if v.node is None]
    result = Value(part.type)
    slot = piece(lowering.slot(region.results[0]), result, start)
    lowering.assign(result, slot)
    shape = concat.types[0].shape

    def lower(own: Region, lowering: Lowering) -> None:
        if is_contiguous(concat):
            lower_loops(own, lowering)
            return
        leaves = dict(zip(own.body.inputs, map(lowering.slot, own.operands), strict=True))
        target = Target(own.body.outputs[0], lowering.slot(own.results[0]),
                        lambda scope, index: scope.space.linear(index, shape))
        Stages(own, lowering, leaves, [target]).run()
    kind = "loop" if is_contiguous(concat) else f"part of {shape}"
    own = Region(kind, Graph("part", inputs, [part]), tuple(operands[v] for v in inputs), (result,), region.node)
    lower_once(own, lowering, lower)
