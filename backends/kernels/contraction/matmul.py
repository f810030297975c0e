"""Matrix products as contractions, of numbers and of words of narrow numbers."""

from __future__ import annotations

from dataclasses import replace

from graphtorch.ir.dtype import i32
from graphtorch.ir.graph import Node, Value

from ..body.access import broadcast_to
from ..body.space import Space, depends
from ..ir import WORDS
from ..program.lowering import Lowering, Region
from .operands import accumulator, plain_source, source_of
from .problem import Axis, Contraction, Source, axis

WORD_BYTES = 4
# of `Dot`, by the dtypes of the operands
KINDS = {(a, b): kind for kind, (a, b, _) in WORDS.items()}


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


def narrow_problem(node: Node, region: Region, lowering: Lowering) -> Contraction:
    """``C[*lead, n]`` of `narrow_linear`. Where both operands are narrow k counts words of 32 bits,
    of which their rows are made."""
    space = Space()
    x, w = node.operands
    kind = KINDS.get((x.dtype, w.dtype), "")
    parts = WORD_BYTES // x.dtype.itemsize if kind else 1
    depth = x.shape[-1] // parts
    shape = node.types[0].shape
    rows = [axis(space, d) for d in shape[:-1]]
    n, k = axis(space, shape[-1]), axis(space, depth)

    def rows_of(value: Value, *at: Axis) -> Source:
        source = plain_source(region, lowering, value)
        lead = value.shape[:-1]
        address = space.linear([*(a.variable for a in at), k.variable], (*lead, depth))
        return replace(source, dtype=i32 if kind else value.dtype, address=address)

    index = (*(m.variable for m in rows), n.variable)
    left, right = rows_of(x, *rows), rows_of(w, n)
    address, acc = space.linear(index, shape), node.types[0].dtype
    return Contraction(
        node, space, [], rows, [n], [k], left, right, index, address, shape, acc, words=kind
    )
