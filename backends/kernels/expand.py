"""Rewrites the body of a region in the ops that have a lowering of their own."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.op import CORE
from graphtorch.ir.rewrite import rewrite_until_stable

from .evaluate import SPECIAL
from .pointwise import is_pointwise
from .reductions import REDUCTIONS
from .views import VIEWS

ELEMENTWISE = frozenset((*VIEWS, *SPECIAL))


def expanded(body: Graph, opaque: frozenset[str]) -> Graph:
    """`body` without composites: pointwise ops, views, reductions and the `opaque` ops are left."""
    def change(node: Node) -> Value | Sequence[Value] | None:
        name = node.op.name
        if name in ("argmax", "argmin"):
            return position_of_extremum(node)
        if is_pointwise(node) or name in ELEMENTWISE or name in REDUCTIONS or name in opaque:
            return None
        if node.op.decompose is CORE:
            raise TypeError(f"op {name} on {', '.join(str(v.type) for v in node.operands)} has no kernel"
                            f"{f' (recorded at {node.location})' if node.location else ''}: run it on the reference "
                            "backend")
        return node.op.decompose(node)
    return rewrite_until_stable(body, change)


def position_of_extremum(node: Node) -> Value:
    """The first position of the extremum (or of a NaN) as two reductions, both of which vectorise."""
    x, = node.operands
    if x.rank == 0:
        return ops.constant(value=Literal.of(0, i64))
    dim, keepdim = node.attrs.dim, node.attrs.keepdim
    extremum = (ops.max if node.op.name == "argmax" else ops.min)(x, dims=(dim,), keepdim=True)
    found = ops.eq(x, extremum)
    if x.dtype.is_floating_point:
        found = ops.logical_or(found, ops.isnan(x))
    place = ops.iota(shape=x.shape, dim=dim, dtype=i64)
    nowhere = ops.constant(value=Literal.of(2**62, i64))
    return ops.min(ops.where(found, place, nowhere), dims=(dim,), keepdim=keepdim)
