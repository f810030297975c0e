"""The one way in which passes change a graph: walk the nodes in order and say what replaces each.

Values are immutable, so a change at one node makes every node after it that depends on it anew. The
new graph holds what its outputs need; a pass never has to remove what it left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TypeAlias

from .graph import Graph, Node, Value, _location, located, topological
from .op import Op

Change: TypeAlias = Callable[[Node], "Value | Sequence[Value] | None"]

SWEEP_LIMIT = 64  # a pass that still changes something after this many sweeps does not terminate


def rewrite(graph: Graph, change: Change, ops: Container[Op] | None = None) -> Graph:
    """`graph` with each node replaced by what `change` returns for it.

    Args:
        change: gets each node, producers first, with operands already replaced. Returns None to
            keep the node, or the values (a single one for a node with one result) that stand for
            its results. Nodes it makes get the location of the node they replace.
        ops: those whose nodes `change` wants to see; None for all.

    Returns:
        A new graph with the same inputs and donations, or `graph` itself where nothing changed.

    Raises:
        TypeError: a replacement does not have the type of the result it stands for.
    """
    replaced: dict[Value, Value] = {}
    with located(None):
        for node in graph.nodes:
            current = substituted(node, replaced) if replaced else node
            found = None
            if ops is None or node.op in ops:
                _location.set(node.location)
                found = change(current)
            if found is not None:
                values = (found,) if isinstance(found, Value) else tuple(found)
                _check_types(node, values)
            elif current is not node:
                values = current.results()
            else:
                continue
            replaced.update(zip(node.results(), values, strict=True))
    if not replaced:
        return graph
    return graph.with_outputs([replaced.get(v, v) for v in graph.outputs])


def rewrite_until_stable(graph: Graph, change: Change, ops: Container[Op] | None = None) -> Graph:
    """Sweeps of `rewrite` until one changes nothing; `change` therefore also sees the nodes it
    made."""
    for _ in range(SWEEP_LIMIT):
        before, graph = graph, rewrite(graph, change, ops)
        if graph is before:
            return graph
    raise RuntimeError(
        f"rewriting graph {graph.name} does not end: {change} still changes it after "
        f"{SWEEP_LIMIT} sweeps"
    )


def inline(body: Graph, operands: tuple[Value, ...]) -> tuple[Value, ...]:
    """The body's outputs computed from `operands`, as nodes of the graph that surrounds it."""
    table: dict[Value, Value] = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        made = node.with_operands(tuple(table[v] for v in node.operands))
        table.update(zip(node.results(), made.results(), strict=True))
    return tuple(table[v] for v in body.outputs)


def in_terms_of(
    values: Sequence[Value | None], given: Mapping[Value, Value], border: Iterable[Value]
) -> list[Value | None]:
    """`values` computed again from those that stand for others, as far as they depend on these.

    Nothing is looked at behind the values of `border`, nor behind those replaced. None stays None.
    """
    table: dict[Value, Value] = dict(given)
    for node in topological([v for v in values if v is not None], {*border, *given}):
        made = substituted(node, table)
        if made is not node:
            for old, new in zip(node.results(), made.results(), strict=True):
                table.setdefault(old, new)
    return [None if v is None else table.get(v, v) for v in values]


def substituted(node: Node, replaced: Mapping[Value, Value]) -> Node:
    """`node` on the values that stand for its operands."""
    for value in node.operands:
        if value in replaced:
            return node.with_operands(tuple([replaced.get(v, v) for v in node.operands]))
    return node


def _check_types(node: Node, values: Sequence[Value]) -> None:
    types = tuple(v.type for v in values)
    if types != node.types:
        raise TypeError(
            f"a rewrite of op {node.op.name} with results {node.types} gave {types}: "
            "a replacement keeps the types"
        )
