"""Batch rules that families share: how an op works on several entries at once (`vmap`).

A rule gets the node of one entry, the operands, which of them are `mapped` (have the entries along
a new first dimension; others are the same for all entries), and the number of entries. All its
results have the entries along their first dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ..graph import Node, Value
from ..op import Attrs
from ..shape import Dim, Shape
from .common import ops, zeros

Values: TypeAlias = tuple[Value, ...]
Mapped: TypeAlias = Sequence[bool]
Rule: TypeAlias = Callable[[Node, Values, Mapped, Dim], Values]

# ------------------------------ operands


def whole(x: Value, mapped: bool, size: Dim) -> Value:
    """`x` with its entries along the first dimension: the same one again and again, if it is not
    mapped."""
    return x if mapped else ops.expand(x, shape=(size, *x.shape))


def wholes(values: Values, mapped: Mapped, size: Dim) -> Values:
    """`whole` of each."""
    return tuple([whole(x, m, size) for x, m in zip(values, mapped, strict=True)])


def reshaped(x: Value, shape: Shape) -> Value:
    """`x` under another shape; itself where it has that shape."""
    return x if x.shape == tuple(shape) else ops.reshape(x, shape=tuple(shape))


def lifted(x: Value, mapped: bool, rank: int) -> Value:
    """`x`, whose entries broadcast against others of up to `rank` dimensions, aligned right."""
    missing = rank + 1 - x.rank
    return (
        ops.reshape(x, shape=(x.shape[0], *(1,) * missing, *x.shape[1:]))
        if mapped and missing
        else x
    )


def to_front(x: Value, axis: int) -> Value:
    """`x` with dimension `axis` as the first."""
    return ops.permute(x, dims=(axis, *(d for d in range(x.rank) if d != axis))) if axis else x


def from_front(x: Value, axis: int) -> Value:
    """`x` with its first dimension as dimension `axis`."""
    rest = range(1, x.rank)
    return ops.permute(x, dims=(*rest[:axis], 0, *rest[axis:])) if axis else x


def merged(x: Value, axis: int) -> Value:
    """Entries as further parts of their dimension `axis`: [size, *s] as s with ``size * s[axis]``
    there."""
    moved = from_front(x, axis)
    shape = moved.shape
    return ops.reshape(
        moved, shape=(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    )


def parted(x: Value, axis: int, size: Dim, entry: Shape) -> Value:
    """What `merged` of entries of shape `entry` gave, with the entries along the first dimension
    again."""
    return to_front(ops.reshape(x, shape=(*entry[:axis], size, *entry[axis:])), axis)


# ------------------------------ rules


def pointwise(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Of ops whose operands broadcast against one another."""
    rank = max(v.rank for v in node.operands)
    operands = [lifted(x, m, rank) for x, m in zip(values, mapped, strict=True)]
    return node.op.node(tuple(operands), node.attrs).results()


def leading(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Of ops on the last dimensions, which take any others before them."""
    return node.op.node(wholes(values, mapped, size), node.attrs).results()


def unchanged(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Of ops that map anything to its like, where what is not mapped need not be repeated."""
    return node.op.node(values, node.attrs).results()


def along(field: str) -> Rule:
    """Of ops along one or several dimensions, which are the attribute `field`."""

    def rule(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
        operands = wholes(values, mapped, size)
        if not node.operands[0].rank:  # which dimension 0 may name all the same
            operands = tuple([ops.reshape(x, shape=(size, 1)) for x in operands])
        made = node.op.node(operands, behind(node.attrs, field)).results()
        return tuple([reshaped(y, (size, *t.shape)) for y, t in zip(made, node.types, strict=True)])

    return rule


def behind(attrs: Attrs, *fields: str) -> Any:
    """The attributes with each dimension named in `fields` one further back."""
    moved: dict[str, Any] = {}
    for name in fields:
        dims = getattr(attrs, name)
        moved[name] = tuple([d + 1 for d in dims]) if isinstance(dims, tuple) else dims + 1
    return replace(attrs, **moved)


def folding(axis: int) -> Rule:
    """Of ops whose results at each place of dimension `axis` depend on that place of the operands
    only."""

    def rule(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
        operands = [merged(x, axis) for x in wholes(values, mapped, size)]
        made = node.op.node(tuple(operands), node.attrs).results()
        return tuple(
            [parted(y, axis, size, t.shape) for y, t in zip(made, node.types, strict=True)]
        )

    return rule


def entry_by_entry(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Of ops that have no way to work on several entries at once: on one after the other."""
    if not isinstance(size, int):
        raise RuntimeError(
            f"{node.op.name}: vmap computes it entry by entry, so that their number has to be "
            f"known, but it is {size}: do not mark that dimension as dynamic"
        )
    if not size:
        return tuple([zeros(t.with_shape((0, *t.shape))) for t in node.types])
    rows = []
    for i in range(size):
        operands = [_entry(v, i) if m else v for v, m in zip(values, mapped, strict=True)]
        rows.append(node.op.node(tuple(operands), node.attrs).results())
    columns = [[reshaped(v, (1, *v.shape)) for v in column] for column in zip(*rows, strict=True)]
    return tuple([ops.concat(*column, dim=0) for column in columns])


def _entry(x: Value, i: int) -> Value:
    rest = x.shape[1:]
    start, stop = (i, *(0,) * len(rest)), (i + 1, *rest)
    return ops.reshape(ops.slice(x, start=start, stop=stop, step=(1,) * x.rank), shape=rest)
