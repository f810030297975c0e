"""Joins what gradients of slices take apart: a sum of values padded with zeros to lie side by side.

Each slice of a value (the gates of a recurrent step, the parts of `chunk` or `split`) contributes
its gradient padded to the whole. Where these lie one after the other their sum is a concatenation,
equal but for the sign of zeros, and needs no additions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from .. import ops
from ..graph import Graph, Node, Value
from ..ops.checks import attrs_of
from ..ops.shape import DimAttrs, PadAttrs
from ..rewrite import rewrite_until_stable

TERMS = 64  # of a sum that is looked at


class Part(NamedTuple):
    """A value that stands from `low` to `high` along the only dimension in which it was padded."""

    low: int
    high: int
    dim: int
    value: Value


def run(graph: Graph) -> Graph:
    """`graph` with concatenations in the place of sums of padded parts."""
    return rewrite_until_stable(graph, _joined, (ops.add,))


def _joined(node: Node) -> Value | None:
    parts: list[Part] = []
    for value in _terms(node):
        part = _part(value, node)
        if part is None or (parts and part.dim != parts[0].dim):
            return None
        parts.append(part)
    parts.sort(key=lambda p: p.low)
    if any(a.high != b.low for a, b in pairwise(parts)):
        return None
    dim = parts[0].dim
    return _padded(
        ops.concat(*(v for p in parts for v in _pieces(p.value, dim)), dim=dim), parts, node
    )


def _pieces(value: Value, dim: int) -> tuple[Value, ...]:
    """What `value` is a concatenation of along `dim`."""
    joined = (
        value.node is not None
        and value.node.op is ops.concat
        and attrs_of(value.node, DimAttrs).dim == dim
    )
    return value.node.operands if value.node is not None and joined else (value,)


def _terms(node: Node) -> list[Value]:
    """What a tree of additions adds."""
    found, waiting = list[Value](), list(node.operands)
    while waiting and len(found) < TERMS:
        value = waiting.pop()
        if value.node is not None and value.node.op is ops.add:
            waiting += value.node.operands
        else:
            found.append(value)
    return found + waiting


def _part(value: Value, total: Node) -> Part | None:
    if value.node is None or value.node.op is not ops.pad or value.shape != total.types[0].shape:
        return None
    attrs, inner = attrs_of(value.node, PadAttrs), value.node.operands[0]
    dims = [i for i in range(value.rank) if not (attrs.low[i] == 0 and attrs.high[i] == 0)]
    if attrs.value != 0 or len(dims) != 1:
        return None
    low, size = attrs.low[dims[0]], inner.shape[dims[0]]
    if not isinstance(low, int) or not isinstance(size, int):
        return None
    return Part(low, low + size, dims[0], inner)


def _padded(joined: Value, parts: list[Part], node: Node) -> Value:
    """The zeros that are left before the first part and after the last."""
    dim, whole = parts[0].dim, node.types[0].shape
    if joined.shape == whole:
        return joined
    low = tuple(parts[0].low if i == dim else 0 for i in range(joined.rank))
    high = tuple(whole[i] - parts[-1].high if i == dim else 0 for i in range(joined.rank))
    return ops.pad(joined, low=low, high=high, value=0)
