"""Loops whose rows do not meet: the batch is cut into parts, and each thread runs whole loops over
its parts.

Threads then meet once for the loop and not once for each kernel of each step, and what a step hands
to the next stays in the core that made it. Possible where row i of everything that is carried or
stacked depends on row i of what a step reads only: products with weights, pointwise work, slices
and sums along other dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Type, Value
from graphtorch.ir.op import Kind
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.control import RegionAttrs
from graphtorch.ir.ops.reduce import Reduce
from graphtorch.ir.ops.scan_grad import ScanAttrs
from graphtorch.ir.ops.shape import DimAttrs, DimsAttrs, PadAttrs, ReshapeAttrs, SliceAttrs
from graphtorch.ir.shape import Dim, numel

from .. import cost

ROWS = (16, 8)  # of a part: enough for a register tile; the first that divides the batch
STEP_WORK = 150_000  # multiply-adds of a step: with fewer the loop is quick on one thread
LOOP_WORK = 4_000_000  # and of all steps
# bytes of a matrix that all parts read in each step: more does not stay in a core's cache
WEIGHT_LIMIT = 1 << 19


class Meet(Exception):
    """Rows of the body depend on each other, or it cannot be seen that they do not."""


def parted(attrs: ScanAttrs) -> tuple[Graph, int] | None:
    """The body of a scan for a part of the rows, and the number of parts; None where it stays
    whole."""
    body, n = attrs.body, attrs.carries
    shapes = {v.shape[:1] for v in body.inputs[:n]}
    (batch,) = next(iter(shapes)) if len(shapes) == 1 and shapes != {()} else (0,)
    if not isinstance(batch, int):
        return None
    rows = next((r for r in ROWS if batch % r == 0 and batch > r), 0)
    if not rows or not _is_worth(attrs):
        return None
    moving = [i < n + attrs.stacked and v.shape[:1] == (batch,) for i, v in enumerate(body.inputs)]
    try:
        made, flags = cut(body, moving, batch, rows)
    except Meet:
        return None
    return (made, batch // rows) if all(flags) else None


def _is_worth(attrs: ScanAttrs) -> bool:
    products = [n for r in attrs.body.nodes for n in _inner(r) if n.op is ops.matmul]
    step = sum(cost.guess(n.types[0].numel) * cost.guess(n.operands[0].shape[-1]) for n in products)
    fixed = attrs.body.inputs[attrs.carries + attrs.stacked :]
    weights = max((cost.guess(numel(v.shape)) * v.dtype.itemsize for v in fixed), default=0)
    return (
        step >= STEP_WORK
        and step * cost.guess(attrs.length) >= LOOP_WORK
        and weights <= WEIGHT_LIMIT
    )


def _inner(node: Node) -> Sequence[Node]:
    return attrs_of(node, RegionAttrs).body.nodes if node.op is ops.region else (node,)


def cut(graph: Graph, moving: Sequence[bool], batch: Dim, rows: Dim) -> tuple[Graph, list[bool]]:
    """`graph` for `rows` of `batch` rows of the inputs that are `moving`, and which outputs have
    rows."""
    table: dict[Value, Value] = {}
    flags: dict[Value, bool] = {}
    for value, flag in zip(graph.inputs, moving, strict=True):
        type = value.type.with_shape((rows, *value.shape[1:])) if flag else value.type
        table[value], flags[value] = Value(type, name=value.name), flag
    nodes: list[Node] = []
    for node in graph.nodes:
        operands, mine = [table[v] for v in node.operands], [flags[v] for v in node.operands]
        made, has_rows = _cut_node(node, operands, mine, batch, rows)
        _check(node, made, has_rows, rows)
        nodes.append(made)
        for old, new, flag in zip(node.results(), made.results(), has_rows, strict=True):
            table[old], flags[old] = new, flag
    inputs, outputs = ([table[v] for v in values] for values in (graph.inputs, graph.outputs))
    return Graph(graph.name, inputs, outputs, nodes), [flags[v] for v in graph.outputs]


def _cut_node(
    node: Node, operands: list[Value], mine: list[bool], batch: Dim, rows: Dim
) -> tuple[Node, list[bool]]:
    if node.op is ops.region and any(mine):
        attrs = attrs_of(node, RegionAttrs)
        body, flags = cut(attrs.body, mine, batch, rows)
        types = tuple(v.type for v in body.outputs)
        return Node(
            node.op, tuple(operands), replace(attrs, body=body), types, node.location
        ), flags
    repeats = (
        node.op is ops.expand
        and node.types[0].shape[:1] == (batch,)
        and (any(mine) or operands[0].rank < node.types[0].rank or operands[0].shape[0] == 1)
    )
    if not any(mine) and not repeats:
        return node.op.node(tuple(operands), node.attrs, node.location), [False] * len(node.types)
    attrs_now = _attrs(node, mine, batch, rows)
    return node.op.node(tuple(operands), attrs_now, node.location), [True] * len(node.types)


def _attrs(node: Node, mine: list[bool], batch: Dim, rows: Dim) -> Any:
    """The attributes for fewer rows.

    Raises:
        Meet: the op is not one that treats rows apart.
    """
    name, attrs, result = node.op.name, node.attrs, node.types[0]
    whole = node.operands[0].shape[:1] == (batch,)
    if node.op.kind is Kind.POINTWISE:
        apart = all(
            v.rank == result.rank if flag else v.rank < result.rank or v.shape[0] == 1
            for v, flag in zip(node.operands, mine, strict=True)
        )
    elif name == "matmul":
        apart = mine == [True, False] and all(v.rank == 2 for v in node.operands)
    elif isinstance(attrs, SliceAttrs) and name == "slice":
        apart = (attrs.start[0], attrs.stop[0], attrs.step[0]) == (0, batch, 1)
        attrs = replace(attrs, stop=(rows, *attrs.stop[1:]))
    elif isinstance(attrs, ReshapeAttrs) and name in ("reshape", "expand"):
        apart = attrs.shape[:1] == (batch,) and (whole or name == "expand")
        attrs = replace(attrs, shape=(rows, *attrs.shape[1:]))
    elif isinstance(attrs, DimsAttrs) and name == "permute":
        apart = attrs.dims[0] == 0
    elif isinstance(attrs, PadAttrs) and name == "pad":
        apart = attrs.low[0] == attrs.high[0] == 0
    elif isinstance(attrs, DimAttrs) and name == "concat":
        apart = attrs.dim != 0 and all(mine)
    else:
        apart = isinstance(attrs, Reduce) and 0 not in attrs.dims and name in ("sum", "max", "min")
    if not apart:
        raise Meet(node.op.name)
    return attrs


def _check(node: Node, made: Node, has_rows: Sequence[bool], rows: Dim) -> None:
    """Everything but the number of rows is as before."""
    for before, after, flag in zip(node.types, made.types, has_rows, strict=True):
        if after != (Type(before.dtype, (rows, *before.shape[1:])) if flag else before):
            raise Meet(node.op.name)
