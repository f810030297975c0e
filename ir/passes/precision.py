"""Products with weights become products of few digits, where the user asked for that.

    x w^T [+ b]  ->  low_linear(x, w) [+ b]        also x @ w, with w transposed

for f32 matrices w that depend on nothing but what seldom changes, so that they are rounded once.
Everything else stays as it is: products of two activations, convolutions, what is in loops and
branches, sums that int8 could overflow. The new nodes say how they are computed: whoever keeps
programs by what is in their graphs tells those of different precisions apart.
"""

from __future__ import annotations

from collections.abc import Container

from .. import ops
from ..dtype import f32
from ..graph import Graph, Node, Value
from ..op import Op
from ..ops.common import swap_last
from ..ops.narrow import INT8, LONGEST
from ..rewrite import rewrite
from .affine import seldom_changed

PRODUCTS: tuple[Op, ...] = (ops.linear, ops.affine, ops.matmul)


def run(graph: Graph, stable: Container[Value], precision: str) -> Graph:
    """`graph` with products at `precision`, one of `ops.narrow.PRECISIONS`; `stable` are inputs
    that seldom change."""
    seldom = seldom_changed(graph, stable)

    def change(node: Node) -> Value | None:
        x, w = node.operands[-2:]
        # what is made of weights alone is never replaced: a weight is who it was
        if w not in seldom or x in seldom or not _fits(x, w, precision):
            return None
        if node.op is ops.matmul:
            w = swap_last(w)
        product: Value = ops.low_linear(x, w, precision=precision)
        return ops.add(product, node.operands[0]) if node.op is ops.affine else product

    return rewrite(graph, change, PRODUCTS)


def _fits(x: Value, w: Value, precision: str) -> bool:
    if x.dtype is not f32 or w.dtype is not f32 or w.rank != 2:
        return False
    depth = x.shape[-1]
    return precision != INT8 or (isinstance(depth, int) and 0 < depth <= LONGEST)
