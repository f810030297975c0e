"""Which nodes kernels for GPUs take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.graph import Node

from ..cpu.supports import supports as shared

# Kernels made of vectors, or of blocks that one thread owns: attention's three products, each by blocks of
# threads, and a softmax between them take many times less than that, though scores are in memory.
LEFT_OUT = frozenset({"max_pool_input_grad", "attention", "attention_grad"})


def supports(node: Node) -> bool:
    """What kernels for CPUs take, but for those that blocks of threads do better in parts."""
    return node.op.name not in LEFT_OUT and shared(node)
