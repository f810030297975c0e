"""Views as strides: which chains of shape ops only re-address memory that is already there.

Whoever reads an operand through strides (packing for a contraction) reads such a chain for free;
the fuse pass and the lowering ask the same question here, so what one absorbs the other can read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from .dataclass import dataclass
from .graph import Node, Value
from .ops.checks import attrs_of
from .ops.shape import DimsAttrs, SliceAttrs
from .shape import Dim, Shape, contiguous_strides, numel


@dataclass(frozen=True)
class StridedView:
    """Element ``i`` of the view is element ``offset + sum(i[d] * strides[d])`` of `root`,
    row-major."""

    root: Value
    shape: Shape
    offset: Dim
    strides: Shape


def strided_view(
    value: Value, is_root: Callable[[Value], bool] = lambda v: False
) -> StridedView | None:
    """`value` as a strided view of the nearest value below it that is no view op, or for which
    `is_root` holds. None where the chain is not expressible by strides (a reshape that needs a
    copy)."""
    if value.node is None or is_root(value) or value.node.op.name not in STRIDED:
        return StridedView(value, value.shape, 0, contiguous_strides(value.shape))
    below = strided_view(value.node.operands[0], is_root)
    return None if below is None else STRIDED[value.node.op.name](value.node, below)


def _permuted(node: Node, view: StridedView) -> StridedView:
    strides = tuple(view.strides[d] for d in attrs_of(node, DimsAttrs).dims)
    return StridedView(view.root, node.types[0].shape, view.offset, strides)


def _expanded(node: Node, view: StridedView) -> StridedView:
    shape = node.types[0].shape
    lead = len(shape) - len(view.shape)
    sizes = zip(view.strides, view.shape, shape[lead:], strict=True)
    kept = tuple(stride if before == after else 0 for stride, before, after in sizes)
    return StridedView(view.root, shape, view.offset, (0,) * lead + kept)


def _sliced(node: Node, view: StridedView) -> StridedView:
    attrs, offset = attrs_of(node, SliceAttrs), view.offset
    for start, stride in zip(attrs.start, view.strides, strict=True):
        offset = offset + start * stride
    strides = tuple(s * step for s, step in zip(view.strides, attrs.step, strict=True))
    return StridedView(view.root, node.types[0].shape, offset, strides)


def _flipped(node: Node, view: StridedView) -> StridedView:
    offset, strides = view.offset, list(view.strides)
    for d in attrs_of(node, DimsAttrs).dims:
        offset = offset + (view.shape[d] - 1) * strides[d]
        strides[d] = strides[d] * -1
    return StridedView(view.root, view.shape, offset, tuple(strides))


def _reshaped(node: Node, view: StridedView) -> StridedView | None:
    shape = node.types[0].shape
    strides = reshaped_strides(view.shape, view.strides, shape)
    return None if strides is None else StridedView(view.root, shape, view.offset, strides)


STRIDED: dict[str, Callable[[Node, StridedView], StridedView | None]] = {
    "permute": _permuted,
    "expand": _expanded,
    "slice": _sliced,
    "flip": _flipped,
    "reshape": _reshaped,
    "detach": lambda node, view: view,
}


def reshaped_strides(shape: Shape, strides: Shape, target: Shape) -> Shape | None:
    """The strides of an array of `shape` and `strides` seen as `target`; None where that needs a
    copy.

    Sizes of 1 are put aside. Then both shapes are read from the right: as many sizes as needed for
    equal products form a pair of blocks, and inside a block of the array each stride has to follow
    from the next.
    """
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    new = [d for d in target if d != 1]
    if _is_linear(old[::-1]):
        step = old[-1][1] if old else 1
        return tuple(s * step for s in contiguous_strides(target))
    found: list[Dim] = []
    while old and new:
        block, sizes = [old.pop()], [new.pop()]
        while numel(tuple(d for d, _ in block)) != numel(tuple(sizes)):
            grow_new = _smaller(sizes, [d for d, _ in block])
            if grow_new is None or not (new if grow_new else old):
                return None
            if grow_new:
                sizes.append(new.pop())
            else:
                block.append(old.pop())
        if not _is_linear(block):
            return None
        step = block[0][1]  # of the innermost size
        for size in sizes:
            found.append(step)
            step = step * size
    if old or new:
        return None
    left = iter(reversed(found))
    return tuple(0 if d == 1 else next(left) for d in target)


def _smaller(a: Sequence[Dim], b: Sequence[Dim]) -> bool | None:
    """Whether the product of `a` is known to be below that of `b`; None where symbols hide it."""
    left, right = numel(tuple(a)), numel(tuple(b))
    try:
        return bool(left < right)
    except TypeError:
        return None


def _is_linear(block: Sequence[tuple[Dim, Dim]]) -> bool:
    """Whether a block of (size, stride), innermost first, is one run of evenly spaced elements."""
    return all(outer[1] == inner[0] * inner[1] for inner, outer in itertools.pairwise(block))
