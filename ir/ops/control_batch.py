"""Batch rules of ops that hold a graph: their bodies for several entries at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..graph import Graph, Node, Value, located
from ..passes.batch import batch
from ..rewrite import inline
from ..shape import Dim
from .batching import Mapped, Values, from_front, lifted, to_front, whole
from .common import ops

__all__: list[str] = []


def _carried(body: Graph, mapped: Mapped, size: Dim, count: int) -> list[bool]:
    """Which inputs of a body have entries, once those of its `count` carries have them that a step
    makes."""
    flags = list(mapped)
    while True:
        _, found = batch(body, flags, size)
        more = [a or b for a, b in zip(flags[:count], found[:count], strict=True)]
        if more == flags[:count]:
            return flags
        flags[:count] = more


def _as_flagged(values: Values, mapped: Mapped, flags: Mapped, size: Dim) -> Values:
    """`values` with entries where `flags` says so."""
    return tuple(
        [whole(v, m, size) if f else v for v, m, f in zip(values, mapped, flags, strict=True)]
    )


def scan_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Stacked operands and results have the steps first, in each step the entries."""
    attrs: Any = node.attrs
    first, last = attrs.carries, attrs.carries + attrs.stacked
    flags = _carried(attrs.body, mapped, size, first)
    wanted = [i < first and flags[i] for i in range(len(attrs.body.outputs))]
    body, has = batch(attrs.body, flags, size, wanted)
    operands = list(_as_flagged(values, mapped, flags, size))
    operands[first:last] = [
        from_front(x, 1) if m else x
        for x, m in zip(values[first:last], mapped[first:last], strict=True)
    ]
    made = node.op.node(tuple(operands), replace(attrs, body=body)).results()
    carries = [whole(y, f, size) for y, f in zip(made[:first], flags, strict=False)]
    stacks = [
        to_front(y, 1) if h else whole(y, False, size)
        for y, h in zip(made[first:], has[first:], strict=True)
    ]
    return (*carries, *stacks)


def _chosen(holds: Value, then: Value, orelse: Value) -> Value:
    """`then` for the entries whose condition holds."""
    return ops.where(lifted(holds, True, then.rank - 1), then, orelse)


def cond_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """One branch where all entries have one predicate; else both, and of each entry what it asks
    for."""
    attrs: Any = node.attrs
    wanted = [True] * len(node.types)
    then, orelse = (batch(g, mapped[1:], size, wanted)[0] for g in (attrs.then, attrs.orelse))
    if not mapped[0]:
        return node.op.node(values, replace(attrs, then=then, orelse=orelse)).results()
    found = zip(inline(then, values[1:]), inline(orelse, values[1:]), strict=True)
    return tuple([_chosen(values[0], a, b) for a, b in found])


def while_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Where entries end at different steps: on until the last one ends, and those that ended keep
    what they have."""
    attrs: Any = node.attrs
    count = attrs.carries
    flags = _carried(attrs.body, mapped, size, count)
    test, (apart,) = batch(attrs.test, flags, size)
    if apart:
        flags[:count] = [True] * count
        test, _ = batch(attrs.test, flags, size)
    body, _ = batch(attrs.body, flags, size, flags[:count])
    if apart:
        test, body = _until_all_end(test, body, count)
    operands = _as_flagged(values, mapped, flags, size)
    made = node.op.node(operands, replace(attrs, test=test, body=body)).results()
    return tuple([whole(y, f, size) for y, f in zip(made, flags, strict=False)])


def _until_all_end(test: Graph, body: Graph, count: int) -> tuple[Graph, Graph]:
    with located(None):
        (goes_on,) = test.outputs
        going = ops.any(goes_on, dims=(0,), keepdim=False)
        (own,) = inline(test, body.inputs)
        steps = zip(body.outputs, body.inputs[:count], strict=True)
        return test.with_outputs([going]), body.with_outputs(
            [_chosen(own, new, old) for new, old in steps]
        )
