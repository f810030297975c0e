"""Folds what scales and shifts the channels of a convolution's result into its filters and its
bias.

A batch norm that is not training, a scale of a layer: with vectors s and t over output channels,

    conv(x, w) * s + t  =  conv(x, w * s) + t

where w, s and t depend on nothing but what seldom changes, so that they are computed once. The
products are rounded in another order than they were recorded in.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from .. import ops
from ..dataclass import dataclass, field
from ..graph import Graph, Node, Value, located
from ..op import Kind, Op
from ..ops.common import full
from ..rewrite import substituted

# the dimension of channels in a result of this rank
CONVOLUTIONS: dict[Op, Callable[[int], int]] = {
    ops.conv: lambda rank: 1,
    ops.channels_last_conv: lambda rank: rank - 1,
}
FOLDED = (ops.add, ops.sub, ops.mul, ops.div)
SPOILT = (Kind.DRAW, Kind.CONTROL, Kind.WHOLE)  # never computed ahead of time


@dataclass
class Chain:
    """A convolution, and the nodes after it that scale and shift its channels: of each the only
    reader."""

    conv: Node
    nodes: list[Node] = field(default_factory=list)


def run(graph: Graph, stable: Container[Value]) -> Graph:
    """`graph` with folded filters; `stable` are inputs that seldom change."""
    if not any(n.op in CONVOLUTIONS for n in graph.nodes):
        return graph
    seldom = seldom_changed(graph, stable)
    chains = {c.nodes[-1]: c for c in _chains(graph, seldom)}
    if not chains:
        return graph
    replaced: dict[Value, Value] = {}
    for node in graph.nodes:
        with located(node.location):
            if node in chains:
                replaced[node.result()] = _folded(chains[node], replaced)
            else:
                made = substituted(node, replaced)
                if made is not node:
                    replaced.update(zip(node.results(), made.results(), strict=True))
    return graph.with_outputs([replaced.get(v, v) for v in graph.outputs])


def seldom_changed(graph: Graph, stable: Container[Value]) -> set[Value]:
    """What depends on nothing but constants and inputs of `stable`."""
    found = {v for v in graph.inputs if v in stable}
    for node in graph.nodes:
        computed = bool(node.operands) and node.op.kind not in SPOILT and not node.op.raises
        if node.op is ops.constant or (computed and all(v in found for v in node.operands)):
            found.update(node.results())
    return found


def _chains(graph: Graph, seldom: set[Value]) -> list[Chain]:
    users = graph.users()
    leaving = set(graph.outputs)
    found = []
    for conv in graph.nodes:
        if conv.op not in CONVOLUTIONS or conv.types[0].dtype.itemsize < 4:
            continue
        if not all(v in seldom for v in conv.operands[1:]):
            continue
        chain, value = Chain(conv), conv.result()
        while len(users[value]) == 1 and value not in leaving:
            if not _is_folded(users[value][0], value, conv, seldom):
                break
            chain.nodes.append(users[value][0])
            value = chain.nodes[-1].result()
        if any(n.op in (ops.mul, ops.div) for n in chain.nodes):
            found.append(chain)
    return found


def _is_folded(node: Node, value: Value, conv: Node, seldom: set[Value]) -> bool:
    """Whether a node scales or shifts each channel of `value`, and does so seldom by another
    number."""
    if node.op not in FOLDED or node.types[0] != value.type or node.operands.count(value) != 1:
        return False
    if node.op in (ops.sub, ops.div) and node.operands[0] != value:
        return False
    other = _other(node, value)
    channel = CONVOLUTIONS[conv.op](value.rank)
    lead = value.rank - other.rank
    return other in seldom and all(d == 1 or lead + i == channel for i, d in enumerate(other.shape))


def _other(node: Node, value: Value) -> Value:
    return node.operands[1] if node.operands[0] == value else node.operands[0]


def _folded(chain: Chain, replaced: dict[Value, Value]) -> Value:
    conv = chain.conv
    x, w, *bias = (replaced.get(v, v) for v in conv.operands)
    filters = w.shape[0]
    scale: Value | None = None
    shift: Value | None = bias[0] if bias else None
    value = conv.result()
    for node in chain.nodes:
        other = replaced.get(_other(node, value), _other(node, value))
        number = ops.expand(ops.reshape(other, shape=(other.type.numel,)), shape=(filters,))
        value = node.result()
        if node.op in (ops.mul, ops.div):
            scale = (
                number
                if scale is None and node.op is ops.mul
                else node.op(full((filters,), 1, w.dtype) if scale is None else scale, number)
            )
            shift = None if shift is None else node.op(shift, number)
        elif shift is None:
            shift = number if node.op is ops.add else ops.neg(number)
        else:
            shift = node.op(shift, number)
    assert scale is not None, "a chain has a product"
    scaled = ops.mul(w, ops.reshape(scale, shape=(filters, *[1] * (w.rank - 1))))
    operands = (x, scaled) if shift is None else (x, scaled, shift)
    return conv.op.node(operands, conv.attrs).result()
