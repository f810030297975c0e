"""Which nodes the code-generating backends take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.graph import Graph, Node

# Composites with a kernel that is better than what they decompose into.
WHOLE = frozenset("relu silu gelu softplus log_sigmoid elu leaky_relu hardtanh hardsigmoid hardswish mish softsign "
                  "square reciprocal rsqrt max_pool_grad".split())


def supports(node: Node) -> bool:
    """Core ops, and some composites, on real types."""
    types = (*(v.type for v in node.operands), *node.types)
    return (node.op.is_core or node.op.name in WHOLE) and not any(t.dtype.is_complex for t in types)


def has_native_types(graph: Graph) -> bool:
    """Whether every value of `graph` has a type that code is generated for."""
    return not any(v.dtype.is_complex for v in graph.values())
