"""Products that feed a loop, computed in its steps where threads have rows of the loop to
themselves.

A recurrent net multiplies the inputs of all steps with one matrix before its loop. Outside of the
loop the result is an array of all steps, which one core writes and another may read. In the step it
is a few rows that stay in the nearest caches of the core that needs them, and threads meet for the
loop alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.control import RegionAttrs
from graphtorch.ir.ops.scan_grad import ScanAttrs
from graphtorch.ir.ops.shape import ReshapeAttrs
from graphtorch.ir.rewrite import substituted
from graphtorch.ir.shape import Dim

from ...dataclass import dataclass
from ...kernels.program.lowering import region_of
from .parts import Meet, cut, parted


@dataclass(frozen=True)
class Projection:
    """What a step computes instead of reading its slice: `node` of `body` on the step's slice of
    `source`, a value of all steps, and on `fixed`, the same in all steps."""

    body: Graph
    node: Node
    source: Value
    fixed: Sequence[Value]


def with_projections(graph: Graph) -> Graph:
    """The fused `graph` with such products in the bodies of its loops."""
    uses = Counter(v for node in graph.nodes for v in node.operands)
    uses.update(graph.outputs)
    replaced: dict[Value, Value] = {}
    for node in graph.nodes:
        made = substituted(_with_projections(node, uses), replaced)
        if made is not node:
            replaced.update(zip(node.results(), made.results(), strict=True))
    if not replaced:
        return graph
    return graph.with_outputs([replaced.get(v, v) for v in graph.outputs])


def _with_projections(node: Node, uses: Counter[Value]) -> Node:
    """A node of the graph; a region that is a scan in parts has its products inside."""
    region = region_of(node)
    if region.kind != "control" or region.nodes[0].op is not ops.scan:
        return node
    (scan,) = region.nodes
    attrs = attrs_of(scan, ScanAttrs)
    outer = dict(zip(region.body.inputs, region.operands, strict=True))
    operands, before = [outer[v] for v in scan.operands], attrs
    if parted(attrs) is None:
        return node
    for i in range(attrs.carries, attrs.carries + attrs.stacked):
        found = _projection(operands[i], attrs.body.inputs[i], uses)
        if found is not None and operands.count(operands[i]) == 1:
            inside = replace(attrs, body=_inside(attrs.body, i, found))
            if parted(inside) is not None:
                attrs = inside
                operands[i : i + 1] = [found.source]
                operands += found.fixed
    return node if attrs is before else _region(scan, attrs, operands, region.body.outputs, node)


def _region(
    scan: Node, attrs: ScanAttrs, operands: Sequence[Value], outputs: Sequence[Value], node: Node
) -> Node:
    """The control region of a scan with other attributes and operands, in place of `node`."""
    given = tuple(dict.fromkeys(operands))
    inputs = [Value(v.type, name=f"x{i}") for i, v in enumerate(given)]
    inner = ops.scan.node(
        tuple(inputs[given.index(v)] for v in operands), attrs, scan.location
    ).results()
    body = Graph("body", inputs, [inner[v.index] for v in outputs])
    return ops.region.node(given, RegionAttrs("control", body), node.location)


def _projection(value: Value, step: Value, uses: Counter[Value]) -> Projection | None:
    """What computes a step's slice of a stacked `value`, if it is a product's result that nothing
    else reads."""
    shaped = value.node
    if shaped is None or uses[value] != 1 or shaped.op not in (ops.region, ops.reshape):
        return None
    region = region_of(shaped)
    if [n.op for n in region.nodes] != [ops.reshape]:
        return None
    (product,) = region.operands
    node = product.node
    if node is None or uses[product] != 1 or len(node.types) != 1 or product.rank != 2:
        return None
    return _of_a_step(node, step, product.shape[0])


def _of_a_step(node: Node, step: Value, all_rows: Dim) -> Projection | None:
    """The contraction `node`, with a row for each row of each step, for the rows of a step."""
    region = region_of(node)
    if region.kind != "contraction":
        return None
    rows = step.shape[0]
    for i, x in enumerate(region.body.inputs):
        flat = _flattened(region.body, x, all_rows, rows)
        if flat is None:
            continue
        moving = [j == i for j in range(len(region.operands))]
        try:
            body, flags = cut(_without(region.body, i, flat), moving, all_rows, rows)
        except Meet:
            return None
        if flags == [True] and body.outputs[0].type == step.type:
            fixed = [v for v in region.operands if v is not region.operands[i]]
            return Projection(body, node, region.operands[i], fixed)
    return None


def _flattened(body: Graph, x: Value, all_rows: Dim, rows: Dim) -> Node | None:
    """The reshape that joins the steps and the rows of `x`, if that is all that is done with it."""
    users = [n for n in body.nodes if x in n.operands]
    if len(users) != 1 or users[0].op is not ops.reshape or x in body.outputs or x.rank < 2:
        return None
    joined = attrs_of(users[0], ReshapeAttrs).shape == (all_rows, *x.shape[2:])
    return users[0] if joined and x.shape[1] == rows else None


def _without(body: Graph, index: int, flat: Node) -> Graph:
    """`body` whose input number `index` is what `flat` made of it."""
    x = Value(flat.types[0], name=body.inputs[index].name)
    inputs = [x if i == index else v for i, v in enumerate(body.inputs)]
    table = {flat.result(): x}
    for node in body.nodes:
        made = substituted(node, table)
        if made is not node:
            table.update(zip(node.results(), made.results(), strict=True))
    return Graph(body.name, inputs, [table.get(v, v) for v in body.outputs])


def _inside(body: Graph, index: int, found: Projection) -> Graph:
    """A loop's body that computes its input number `index` from a slice of the projection's
    source."""
    inputs = [Value(v.type, name=v.name) for v in body.inputs]
    table = dict(zip(body.inputs, inputs, strict=True))
    given = []
    for value, inner in zip(found.node.operands, found.body.inputs, strict=True):
        given.append(Value(inner.type, name=inner.name))
        if value is found.source:
            inputs[index] = given[-1]
        else:
            inputs.append(given[-1])
    node = ops.region.node(
        tuple(given), RegionAttrs("contraction", found.body), found.node.location
    )
    table[body.inputs[index]] = node.result()
    for old in body.nodes:
        made = old.with_operands(tuple(table[v] for v in old.operands))
        table.update(zip(old.results(), made.results(), strict=True))
    return Graph(body.name, inputs, [table[v] for v in body.outputs])
