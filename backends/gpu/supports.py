"""Which nodes kernels for GPUs take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.graph import Node

from ..kernels.supports import supports as shared

VECTORS = frozenset({"max_pool_input_grad"})  # kernels that are made of vectors


def supports(node: Node) -> bool:
    """What kernels for CPUs take, but for those that need vectors."""
    return node.op.name not in VECTORS and shared(node)
