"""Index functions: where a view op finds the element that its result has at an index."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, Shape, bounds, numel

from .space import Space

Index = tuple[Dim, ...]
VIEWS = frozenset(["reshape", "permute", "expand", "slice", "flip"])


def operand_index(space: Space, node: Node, index: Index) -> Index:
    """The operand's index for result index `index` of one of VIEWS."""
    shape = node.operands[0].shape
    attrs = node.attrs
    if node.op.name == "reshape":
        return reshape_index(space, index, node.types[0].shape, shape)
    if node.op.name == "permute":
        return tuple(index[attrs.dims.index(axis)] for axis in range(len(shape)))
    if node.op.name == "expand":
        return broadcast_index(index, node.types[0].shape, shape)
    if node.op.name == "slice":
        return tuple(
            start + i * step for start, i, step in zip(attrs.start, index, attrs.step, strict=True)
        )
    return tuple(
        size - 1 - i if axis in attrs.dims else i
        for axis, (i, size) in enumerate(zip(index, shape, strict=True))
    )


def result_index(space: Space, node: Node, index: Index) -> Index:
    """The result's index of operand index `index` of a reshape or permute: where its element is
    stored."""
    if node.op.name == "permute":
        return tuple(index[d] for d in node.attrs.dims)
    return reshape_index(space, index, node.operands[0].shape, node.types[0].shape)


def broadcast_index(index: Sequence[Dim], shape: Shape, operand: Shape) -> Index:
    """`index` into `shape` as an index of an operand that broadcasts to it."""
    lead = len(shape) - len(operand)
    return tuple(0 if size == 1 else index[lead + axis] for axis, size in enumerate(operand))


def reshape_index(space: Space, index: Index, shape: Shape, target: Shape) -> Index:
    """`index` into `shape` as the index of the same element in `target`, group by group of equal
    products."""
    result: list[Dim] = []
    for i, sources, j, targets in _groups(tuple(shape), tuple(target)):
        part = index[i : i + sources]
        if sources == 1 and targets == 1:
            result += part
        elif targets:
            result += space.delinear(
                space.linear(part, shape[i : i + sources]), target[j : j + targets]
            )
    return tuple(result)


@functools.lru_cache(1024)
def _groups(shape: Shape, target: Shape) -> tuple[tuple[int, int, int, int], ...]:
    """Where the groups of equal products begin and how many sizes they have, in `shape` and in
    `target`."""
    found = []
    i = j = 0
    while i < len(shape) or j < len(target):
        sources, targets = _group(shape, target, i, j)
        found.append((i, sources, j, targets))
        i, j = i + sources, j + targets
    return tuple(found)


def _group(shape: Shape, target: Shape, i: int, j: int) -> tuple[int, int]:
    """How many sizes from `i` and from `j` on have the same product (the fewest possible)."""
    if any(size == 0 for size in shape):
        return len(shape) - i, len(target) - j
    if i < len(shape) and shape[i] == 1:
        return 1, 0
    if j < len(target) and target[j] == 1:
        return 0, 1
    for sources in range(1, len(shape) - i + 1):
        product = numel(shape[i : i + sources])
        for targets in range(1, len(target) - j + 1):
            if numel(target[j : j + targets]) == product and _exact(product):
                return sources, targets
    return len(shape) - i, len(target) - j


def _exact(product: Dim) -> bool:
    return isinstance(product, int) or bounds(product)[1] > 0
