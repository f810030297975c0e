"""ONNX's `Attention` (opset 23), https://onnx.ai/onnx/operators/onnx__Attention.html."""

from __future__ import annotations

from graphtorch.ir.graph import Graph, Node

from .builder import ModelBuilder

SINCE = 23


def is_whole(graph: Graph, opset: int) -> bool:
    """Whether the attention nodes of `graph` can be ONNX's: it has no log-sum-exp to give."""
    read = {v for node in graph.nodes for v in node.operands} | set(graph.outputs)
    return opset >= SINCE and not any(
        n.op.name == "attention" and n.result(1) in read for n in graph.nodes
    )


def fits(node: Node) -> bool:
    """Whether ONNX takes the operands of an attention node as they are: [N, heads, length, size]
    each."""
    q, k, v = node.operands[:3]
    return node.op.name == "attention" and q.rank == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]


def emit_attention(b: ModelBuilder, node: Node, x: list[str]) -> list[str]:
    """The node's result; the log-sum-exp, which nobody reads, has no name."""
    if len(x) == 4:  # the last two dims of a mask do not broadcast
        q, k, _, mask = node.operands
        shape = (*mask.shape[:-2], q.shape[-2], k.shape[-2])
        if mask.shape != shape:
            x = [*x[:3], b.op("Expand", [x[3], b.shape(shape)], "mask")]
    attrs = node.attrs
    return [b.op("Attention", x, is_causal=int(attrs.is_causal), scale=attrs.scale), ""]
