"""Constant folding: what depends on constants only is computed now, by the ops' references.

Values without elements are constants too: loops over them never run, and what they would read is
not there.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from ..graph import Graph, Node, Value
from ..literal import Literal
from ..op import Kind
from ..ops.checks import attrs_of
from ..ops.shape import ConstantAttrs
from ..rewrite import rewrite

# elements of a result: more would make the graph's text and the compiled file large
LIMIT = 1 << 14


def run(graph: Graph) -> Graph:
    """`graph` with constants in the place of small nodes whose operands are all constants.

    A result whose elements are all the same becomes an expanded scalar: it needs no memory. A
    reference that raises (an index out of range) is left to raise at run time.
    """
    return rewrite(graph, _folded)


def _folded(node: Node) -> tuple[Value, ...] | None:
    if not _is_foldable(node):
        return None
    try:
        with np.errstate(all="ignore"):
            found = node.op.reference(node.attrs, *map(_array, node.operands))
    except (IndexError, ValueError, RuntimeError):
        return None
    arrays = found if isinstance(found, (tuple, list)) else (found,)
    return tuple(_constant(np.asarray(a)) for a in arrays)


def _is_foldable(node: Node) -> bool:
    if not node.operands or not all(_is_constant(v) or _is_empty(v) for v in node.operands):
        return False
    if node.op.kind is Kind.CONTROL or node.op is ops.region:  # their work has no bound
        return False
    if any(not t.is_static or t.numel > LIMIT for t in node.types):
        return False
    return not (node.op is ops.expand and node.operands[0].rank == 0)


def _is_constant(value: Value) -> bool:
    return value.node is not None and value.node.op is ops.constant


def _is_empty(value: Value) -> bool:
    return value.type.is_static and 0 in value.shape


def _array(value: Value) -> np.ndarray:
    if value.node is None or not _is_constant(value):
        return np.empty(tuple(map(int, value.shape)), value.dtype.numpy)  # type: ignore[arg-type]
    return attrs_of(value.node, ConstantAttrs).value.numpy()


def _constant(array: np.ndarray) -> Value:
    literal = Literal.of(array)
    first = literal.data[: literal.dtype.itemsize]
    if literal.shape and array.size and literal.data == first * array.size:
        scalar = ops.constant(value=Literal(literal.dtype, (), first))
        return ops.expand(scalar, shape=literal.shape)
    return ops.constant(value=literal)
