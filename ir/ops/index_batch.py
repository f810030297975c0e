"""Batch rules of ops whose element positions are data.

Where positions differ from entry to entry, the number of the entry is one more position:
`x[i, index[i]]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dtype import DType
from ..graph import Node, Value
from ..shape import Dim, numel
from .batching import Mapped, Values, behind, lifted, reshaped, to_front, whole, wholes
from .common import ops

__all__: list[str] = []


def index_select_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    (x, index), dim = values, node.attrs.dim  # type: ignore[attr-defined]
    if not mapped[1]:
        return (ops.index_select(x, index, dim=dim + 1),)
    count = index.shape[1]
    if not mapped[0]:
        rows = ops.index_select(x, ops.reshape(index, shape=(size * count,)), dim=dim)
        shape = node.types[0].shape
        return (to_front(ops.reshape(rows, shape=(*shape[:dim], size, *shape[dim:])), dim),)
    found = ops.index(x, _entry_numbers(size, 1, index.dtype), index, dims=(0, dim + 1))
    # [entries, index, the other dimensions]
    order = (0, *range(2, dim + 2), 1, *range(dim + 2, found.rank))
    return (ops.permute(found, dims=order) if dim else found,)


def _entry_numbers(size: Dim, rank: int, dtype: DType) -> Value:
    """0, 1, ... along the first of ``1 + rank`` dimensions."""
    shape = (size, *(1,) * rank)
    return ops.iota(shape=shape, dim=0, dtype=dtype)


def _block(node: Node, indices: Sequence[Value]) -> tuple[int, int]:
    """Where the dimensions of the positions stand in what is read of one entry, and how many they
    are."""
    dims = node.attrs.dims  # type: ignore[attr-defined]
    adjacent = dims[-1] - dims[0] == len(dims) - 1
    return dims[0] if adjacent else 0, max(v.rank for v in indices)


def _positions(
    node: Node, values: Values, mapped: Mapped, size: Dim, first: int
) -> tuple[list[Value], Any]:
    """The positions with the entry's number before them, and their dimensions."""
    entry = node.operands[first:]
    rank = max(v.rank for v in entry)
    lines = [lifted(v, m, rank) for v, m in zip(values[first:], mapped[first:], strict=True)]
    numbers = _entry_numbers(size, rank, entry[0].dtype)
    return [numbers, *lines], (0, *(d + 1 for d in node.attrs.dims))  # type: ignore[attr-defined]


def index_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    place, rank = _block(node, node.operands[1:])
    dims = node.attrs.dims  # type: ignore[attr-defined]
    adjacent = dims[-1] - dims[0] == len(dims) - 1
    if not any(mapped[1:]) and adjacent:
        return ops.index.node(values, behind(node.attrs, "dims")).results()
    if not mapped[0]:
        lines = [lifted(v, m, rank) for v, m in zip(values[1:], mapped[1:], strict=True)]
        return (to_front(ops.index(values[0], *lines, dims=dims), place),)
    lines, moved = _positions(node, values, mapped, size, 1)
    found = ops.index(values[0], *lines, dims=moved)  # [entries, positions, the other dimensions]
    order = (
        0,
        *range(1 + rank, 1 + rank + place),
        *range(1, 1 + rank),
        *range(1 + rank + place, found.rank),
    )
    return (ops.permute(found, dims=order) if place else found,)


def index_put_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    x, src = whole(values[0], mapped[0], size), values[1]
    place, rank = _block(node, node.operands[2:])
    total = rank + node.operands[0].rank - len(node.attrs.dims)  # type: ignore[attr-defined]
    src = lifted(src, mapped[1], total)
    if not mapped[1]:
        src = reshaped(src, (*(1,) * (total + 1 - src.rank), *src.shape))
    if place:  # the dimensions of the positions come first, behind that of the entries
        after = 1 + place + rank
        order = (0, *range(1 + place, after), *range(1, 1 + place), *range(after, src.rank))
        src = ops.permute(src, dims=order)
    lines, moved = _positions(node, values, mapped, size, 2)
    return (ops.index_put(x, src, *lines, dims=moved, accumulate=node.attrs.accumulate),)  # type: ignore[attr-defined]


def searchsorted_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    if not mapped[0] and values[0].rank == 1:
        return ops.searchsorted.node(values, node.attrs).results()
    line, x = wholes(values, mapped, size)
    if node.operands[0].rank == 1:  # which takes values of any shape
        x = ops.reshape(x, shape=(size, numel(x.shape[1:])))
    (found,) = ops.searchsorted.node((line, x), node.attrs).results()
    return (reshaped(found, (size, *node.types[0].shape)),)
