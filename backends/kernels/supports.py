"""Which nodes the code-generating backends take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.graph import Node

# Composites with a kernel that is better than what they decompose into.
WHOLE = frozenset(["relu", "silu", "gelu", "softplus", "log_sigmoid", "elu", "leaky_relu", "hardtanh", "hardsigmoid", "hardswish", "mish", "softsign", "square", "reciprocal", "rsqrt", "max_pool_grad"])


def supports(node: Node) -> bool:
    """Core ops, and some composites, on real types."""
    types = (*(v.type for v in node.operands), *node.types)
    return (node.op.is_core or node.op.name in WHOLE) and not any(t.dtype.is_complex for t in types)
