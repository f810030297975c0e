"""Values put together from many parts, or cut into many: equal parts are launches of one kernel.

A part of a concatenation is written to a *piece* of the result, a slot that begins where the part
does. Where it is contiguous in the result, whoever computes it writes it there, and nothing is left
to copy. A slice of a value that has many is read as a piece of it likewise. Where a piece begins is
data of the launch; as an index of the kernel it would make each a kernel of its own.
"""

from __future__ import annotations

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Value, topological
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.shape import DimAttrs, SliceAttrs
from graphtorch.ir.passes.fuse import PIECES_LIMIT, in_pieces
from graphtorch.ir.rewrite import rewrite
from graphtorch.ir.shape import Dim, numel

from ...kernels.program.lowering import Lowering, Region, region_of
from ...kernels.program.program import Slot
from ...kernels.program.repeat import lower_once
from .nest import Target
from .stages import Stages, lower_loops, reshaped


def concat_of(region: Region) -> Node | None:
    """The concatenation of many parts that a region consists of, beside views."""
    if not region.body.nodes:
        return None
    last = region.body.nodes[-1]
    return last if in_pieces(last) and list(region.body.outputs) == [last.result()] else None


def place_parts(graph: Graph, lowering: Lowering) -> None:
    """Let the parts of concatenations live in the result, before anything of `graph` is lowered."""
    # of one concatenation in another the outer one is placed first
    for node in reversed(graph.nodes):
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
        computed = (
            value is not None and value.node is not None and value.node.op is not ops.constant
        )
        if value is not None and computed and not lowering.has_slot(value):
            lowering.assign(value, piece(whole, value, start))


def piece(whole: Slot, value: Value, start: Dim) -> Slot:
    """The slot of a part that begins at element `start` of `whole`."""
    return Slot("piece", value.dtype, value.shape, value.type.numel, parts=(whole,), offset=start)


def starts(concat: Node) -> list[Dim]:
    """The element of the result at which each part begins."""
    dim = attrs_of(concat, DimAttrs).dim
    inner, found, at = numel(concat.types[0].shape[dim + 1 :]), list[Dim](), 0
    for part in concat.operands:
        found.append(at)
        at = at + part.shape[dim] * inner
    return found


def is_contiguous(concat: Node) -> bool:
    """Whether each part is one stretch of memory in the result."""
    return all(d == 1 for d in concat.types[0].shape[: attrs_of(concat, DimAttrs).dim])


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


def _lower_part(
    region: Region,
    concat: Node,
    part: Value,
    start: Dim,
    operands: dict[Value, Value],
    lowering: Lowering,
) -> None:
    """Store one part, as a region of its own."""
    nodes = topological([part])
    inputs = [
        v for v in dict.fromkeys([*(v for n in nodes for v in n.operands), part]) if v.node is None
    ]
    result = Value(part.type)
    slot = piece(lowering.slot(region.results[0]), result, start)
    lowering.assign(result, slot)
    shape = concat.types[0].shape

    def lower(own: Region, lowering: Lowering) -> None:
        if is_contiguous(concat):
            lower_loops(own, lowering)
            return
        leaves = dict(zip(own.body.inputs, map(lowering.slot, own.operands), strict=True))
        target = Target(
            own.body.outputs[0],
            lowering.slot(own.results[0]),
            lambda scope, index: scope.space.linear(index, shape),
        )
        Stages(own, lowering, leaves, [target]).run()

    kind = "loop" if is_contiguous(concat) else f"part of {shape}"
    body, read = Graph("part", inputs, [part]), tuple(operands[v] for v in inputs)
    own = Region(kind, body, read, (result,), region.node)
    lower_once(own, lowering, lower)


# ------------------------------------------------------------------------------------------ slices


def cut_values(graph: Graph) -> set[Value]:
    """The values of which the regions of `graph` read many slices."""
    count: dict[Value, int] = {}
    for node in graph.nodes:
        if node.op is ops.region:
            region = region_of(node)
            outer = dict(zip(region.body.inputs, region.operands, strict=True))
            for inner in region.body.nodes:
                if _is_stretch(inner) and inner.operands[0] in outer:
                    value = outer[inner.operands[0]]
                    count[value] = count.get(value, 0) + 1
    return {value for value, n in count.items() if n > PIECES_LIMIT}


def with_pieces(region: Region, lowering: Lowering) -> Region:
    """`region` with slices of values that are cut into many as operands of their own."""
    cut = {
        x: v
        for x, v in zip(region.body.inputs, region.operands, strict=True)
        if v in lowering.cut and not lowering.is_stable(v)
    }
    if not cut:
        return region
    inputs: dict[Value, Value] = {}

    def change(node: Node) -> Value | None:
        if not (_is_stretch(node) and node.operands[0] in cut):
            return None
        made = Value(node.types[0], name=f"s{len(inputs)}")
        inputs[made] = Value(node.types[0])
        whole = lowering.slot(cut[node.operands[0]])
        lowering.assign(inputs[made], piece(whole, made, _start(node)))
        return made

    body = rewrite(region.body, change)
    read = {v for n in body.nodes for v in n.operands} | set(body.outputs)
    kept = {x: v for x, v in zip(region.body.inputs, region.operands, strict=True) if x in read}
    operands = {**kept, **inputs}
    body = Graph(body.name, list(operands), body.outputs)
    return Region(region.kind, body, tuple(operands.values()), region.results, region.node)


def _is_stretch(node: Node) -> bool:
    """Whether a node is a slice that is one stretch of memory of its operand."""
    if node.op is not ops.slice:
        return False
    attrs, shape, result = attrs_of(node, SliceAttrs), node.operands[0].shape, node.types[0].shape
    first = next((i for i, d in enumerate(shape) if d != 1), 0)
    return result[first + 1 :] == shape[first + 1 :] and all(s == 1 for s in attrs.step)


def _start(node: Node) -> Dim:
    """The element at which a stretch begins."""
    attrs, shape = attrs_of(node, SliceAttrs), node.operands[0].shape
    at: Dim = 0
    for axis, start in enumerate(attrs.start):
        at = at + start * numel(shape[axis + 1 :])
    return at
