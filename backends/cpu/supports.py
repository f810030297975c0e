"""Which nodes the code-generating backends take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.graph import Node

from .attention import backward as attention_grad
from .attention import forward as attention
from .pooling.disjoint import fits_vectors

# Composites with a kernel that is better than what they decompose into.
WHOLE = frozenset({
    "relu", "silu", "gelu", "softplus", "log_sigmoid", "elu", "leaky_relu", "hardtanh", "hardsigmoid",
    "hardswish", "mish", "softsign", "square", "reciprocal", "rsqrt", "max_pool_grad",
    "sample_bilinear", "sample_bilinear_grad"})


def _keeps_elements(node: Node) -> bool:
    """Whether a bitcast changes no sizes; bytes are cast."""
    source, target = node.operands[0].dtype, node.types[0].dtype
    return source.itemsize == target.itemsize > 1


CHOSEN = {"bitcast": _keeps_elements, "attention": attention.fits, "attention_grad": attention_grad.fits,
          "max_pool_input_grad": fits_vectors}  # taken whole where this says so


def supports(node: Node) -> bool:
    """Core ops, and some composites, on real types."""
    name = node.op.name
    if not (node.op.is_core or name in WHOLE or (name in CHOSEN and CHOSEN[name](node))):
        return False
    for value in node.operands:
        if value.type.dtype.is_complex:
            return False
    return not any(t.dtype.is_complex for t in node.types)
