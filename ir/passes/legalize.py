"""Expands composites that a target does not take whole.

One mechanism for all targets: each says by a predicate which nodes it takes (an op, or an op with
some attributes and types only), and everything else is replaced by its decomposition, repeatedly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..graph import Graph, Node, Value
from ..op import Core
from ..printer import print_node
from ..rewrite import rewrite_until_stable

Supports: TypeAlias = Callable[[Node], bool]


def run(graph: Graph, supports: Supports, target: str = "the target") -> Graph:
    """`graph` in terms of nodes for which `supports` holds; `target` is a name for messages.

    Raises:
        NotImplementedError: a core op is not supported; names the op, the target and the user's
            line.
    """

    def expand(node: Node) -> tuple[Value, ...] | None:
        if supports(node):
            return None
        if isinstance(node.op.decompose, Core):
            place = f" (recorded at {node.location})" if node.location else ""
            raise NotImplementedError(
                f"legalize: {target} has no op {node.op.name} of these types: "
                f"{print_node(node)}{place}"
            )
        return tuple(node.op.decompose(node))

    return rewrite_until_stable(graph, expand)
