"""Which nodes the code-generating backends take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.graph import Node


def supports(node: Node) -> bool:
    """Core ops on real types."""
    types = (*(v.type for v in node.operands), *node.types)
    return node.op.is_core and not any(t.dtype.is_complex for t in types)
