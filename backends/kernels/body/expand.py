"""Rewrites the body of a region in the ops that have a lowering of their own."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.op import CORE
from graphtorch.ir.rewrite import rewrite_until_stable

from . import depthwise as depthwise  # its rules are among SPECIAL
from .pointwise import is_pointwise
from .views import VIEWS
from .windows import SPECIAL

# Of each reduction that others are made of, the op of the kernel IR that takes one more element.
REDUCTIONS = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}
ELEMENTWISE = frozenset((*VIEWS, *SPECIAL))


def expanded(body: Graph, opaque: frozenset[str]) -> Graph:
    """`body` without composites: pointwise ops, views, reductions and the `opaque` ops are left."""

    def change(node: Node) -> Value | Sequence[Value] | None:
        name = node.op.name
        if name in ("argmax", "argmin"):
            return position_of_extremum(node)
        if name in ("adaptive_avg_pool", "adaptive_avg_pool_grad"):
            return even_windows(node)
        if is_pointwise(node) or name in ELEMENTWISE or name in REDUCTIONS or name in opaque:
            return None
        if node.op.decompose is CORE:
            raise TypeError(
                f"op {name} on {', '.join(str(v.type) for v in node.operands)} has no kernel"
                f"{f' (recorded at {node.location})' if node.location else ''}: run it on the "
                "reference backend"
            )
        return node.op.decompose(node)

    return rewrite_until_stable(body, change)


def position_of_extremum(node: Node) -> Value:
    """The first position of the extremum (or of a NaN) as two reductions, both of which
    vectorise."""
    (x,) = node.operands
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


def even_windows(node: Node) -> Value | None:
    """An adaptive average pool whose windows have one size is a mean or a pool with constant
    windows."""
    (x,) = node.operands
    large, small = (x.shape[2:], node.types[0].shape[2:])
    if node.op.name == "adaptive_avg_pool_grad":
        large, small = small, large
    if node.op.name == "adaptive_avg_pool" and all(size == 1 for size in small):
        return ops.mean(x, dims=tuple(range(2, x.rank)), keepdim=True)
    if not all(
        isinstance(a, int) and isinstance(b, int) and b and a % b == 0
        for a, b in zip(large, small, strict=True)
    ):
        return None
    kernel = tuple(int(a) // int(b) for a, b in zip(large, small, strict=True))
    window = {
        "kernel": kernel,
        "stride": kernel,
        "padding": (0,) * len(kernel),
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor": None,
    }
    if node.op.name == "adaptive_avg_pool":
        return ops.avg_pool(x, **window)
    return ops.avg_pool_grad(x, spatial=large, **window)
