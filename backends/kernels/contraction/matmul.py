"""Matrix products as contractions."""

from __future__ import annotations

from graphtorch.ir.graph import Node

from ..body.access import broadcast_to
from ..body.space import Space, depends
from ..program.lowering import Lowering, Region
from .operands import accumulator, source_of
from .problem import Axis, Contraction, axis


def matmul_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    """``C[*batch, m, n]``; batch dims that only one operand has are more rows (or columns) of that
    one."""
    space = Space()
    a, b = node.operands
    shape = node.types[0].shape
    batch = [axis(space, d) for d in shape[:-2]]
    m, n, k = axis(space, shape[-2]), axis(space, shape[-1]), axis(space, a.shape[-1])
    at = [x.variable for x in batch]
    left = source_of(region, lowering, space, a, broadcast_to((*at, m.variable, k.variable), a))
    right = source_of(region, lowering, space, b, broadcast_to((*at, k.variable, n.variable), b))
    index = (*at, m.variable, n.variable)
    rows: list[Axis] = [m]
    while batch and not depends(right.address, batch[-1].name):
        rows.insert(0, batch.pop())
    return Contraction(
        node,
        space,
        batch,
        rows,
        [n],
        [k],
        left,
        right,
        index,
        space.linear(index, shape),
        shape,
        accumulator(node.types[0].dtype),
    )
