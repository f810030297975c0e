"""The order in which the dimensions of a result lie in memory.

PyTorch gives the result of a pointwise operation the order of its operands: ``relu(x.t())`` is,
like ``x.t()``, a transposed view of memory that is filled row by row. Random masks are drawn in
that order, and ``view`` and ``stride`` show it. Here such a result holds the permuted value and
shows it through a view.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from graphtorch.ir.graph import Type, Value
from graphtorch.ir.op import Kind
from graphtorch.ir.shape import Shape, contiguous_strides

from .._types import channels_last, channels_last_3d, preserve_format
from .._types import memory_format as Format
from .storage import Permute, View, is_contiguous

CHANNELS_LAST_RANK = {channels_last: 4, channels_last_3d: 5}
Order = tuple[int, ...]  # the dimensions, from the slowest to the fastest


def order_of(result: Any, operands: Sequence[Any]) -> Order | None:
    """The order of a pointwise result's memory; None for what other operations make, which is
    row-major."""
    if (
        isinstance(result, tuple)
        or result.node is None
        or len(result.shape) < 2
        or result.node.op.kind is not Kind.POINTWISE
    ):
        return None
    tensors = [x for x in operands if x is not None and not isinstance(x, Value)]
    # more than the last step was pointwise
    if any(len(x._type.shape) > len(result.shape) for x in tensors):
        return None
    return memory_order(tensors, result.shape)


def memory_order(tensors: Sequence[Any], shape: Shape) -> Order | None:
    """The order in which a result of `shape`, computed element by element of `tensors`, lies in
    memory.

    None where that is the order of the dimensions. The rule is PyTorch's (``TensorIterator``):
    dimensions are sorted by their strides in the first operand that tells them apart.
    """
    sized = [t for t in tensors if t._type.shape]
    if len(shape) < 2 or all(t._view is None for t in sized):
        return None
    if all(type(n) is int for t in sized for n in (*t._type.shape, *t._strides)):
        return _order_of_strides(tuple([(t._type.shape, t._strides) for t in sized]), shape)
    known = [s for s in (_ranks_in(t, shape) for t in sized) if s is not None]
    return _sorted(known, shape)


@functools.lru_cache(maxsize=4096)
def _order_of_strides(layouts: tuple[tuple[Shape, Shape], ...], shape: Shape) -> Order | None:
    """The same, of the operands' shapes and strides."""
    if all(own == shape and is_contiguous(shape, strides) for own, strides in layouts):
        return None
    return _sorted([_spread(own, strides, shape) for own, strides in layouts], shape)


def _sorted(known: Sequence[Shape], shape: Shape) -> Order | None:
    fastest: list[int] = []  # first
    for dim in reversed(range(len(shape))):
        place = at = len(fastest)
        while at:
            sign = _compare(fastest[at - 1], dim, shape, known)
            if sign < 0:
                break
            at -= 1
            if sign > 0:
                place = at
        fastest.insert(place, dim)
    order = tuple(reversed(fastest))
    return None if order == tuple(range(len(shape))) else order


def _compare(faster: int, dim: int, shape: Shape, known: Sequence[Shape]) -> int:
    """Whether `dim` belongs before `faster` (1), after it (-1), or nobody can tell (0)."""
    for strides in known:
        one, other = strides[faster], strides[dim]
        if one == 0 or other == 0:
            continue
        if one != other:
            return 1 if one > other else -1
        if shape[faster] > shape[dim]:
            return 1
    return 0


def _ranks_in(x: Any, shape: Shape) -> Shape | None:
    """What stands in the place of strides that are not numbers, as `_spread`; None where nothing
    is known."""
    ranks = _ranks(x)
    return None if ranks is None else _spread(x._type.shape, ranks, shape)


def _spread(own: Shape, strides: Shape, shape: Shape) -> Shape:
    """Strides of a tensor of the shape `own` expanded to `shape`: 0 where it is repeated."""
    missing = len(shape) - len(own)
    repeated = [
        type(d) is int and d == 1 and not (type(n) is int and n == 1)
        for d, n in zip(own, shape[missing:], strict=True)
    ]
    return (0,) * missing + tuple([0 if r else s for s, r in zip(strides, repeated, strict=True)])


def _ranks(x: Any) -> Shape | None:
    """In the place of strides that are not numbers: how slow each dimension is.

    None for views that are more than dimensions in another order.
    """
    order: Any = tuple(range(len(x._type.shape)))
    for step in () if x._view is None else x._view.steps:
        if type(step) is not Permute:
            return None
        order = tuple([order[d] for d in step.dims])
    return tuple([2 * len(order) - place for place in order])


def own_order(x: Any) -> Order | None:
    """The order of a tensor's dimensions in memory; None where it is that of the shape."""
    return None if x._view is None else memory_order((x,), x._type.shape)


def order_asked(name: str, memory_format: Any, like: Any) -> Order | None:
    """The order of memory that a `memory_format` argument asks for: by default that of the tensor
    `like`.

    Raises: TypeError where it is no memory format; RuntimeError where it is for tensors of another
        rank.
    """
    if memory_format is None or memory_format is preserve_format:
        return own_order(like)
    if not isinstance(memory_format, Format):
        raise TypeError(
            f"{name}(): argument 'memory_format' must be torch.memory_format, not "
            f"{type(memory_format).__name__}"
        )
    if memory_format not in CHANNELS_LAST_RANK:
        return None
    rank = CHANNELS_LAST_RANK[memory_format]
    if like.ndim != rank:
        raise RuntimeError(f"required rank {rank} tensor to use {memory_format.name} format")
    return (0, *range(2, rank), 1)


def channels_last_order(x: Any) -> Order | None:
    """The order of a tensor that lies in memory with its channels (dim 1) last; None for any other.

    As PyTorch's ``suggest_memory_format``: sizes of 1 leave open which it is, and count as
    row-major.
    """
    rank, strides = len(x._type.shape), x._strides
    if rank not in CHANNELS_LAST_RANK.values() or not all(
        type(n) is int for n in (*x._type.shape, *strides)
    ):
        return None
    if 0 in x._type.shape or not strides[1]:
        return None
    order = (0, *range(2, rank), 1)
    least = 0
    for dim in reversed(order):
        if strides[dim] < least or (dim == 0 and least == strides[1]):
            return None
        least = strides[dim] * x._type.shape[dim]
    return order


def order_shown(view: View) -> Order | None:
    """The order of which `view` is the `view_of`; None for any other view."""
    if len(view.steps) != 1 or type(view.steps[0]) is not Permute:
        return None
    back = view.steps[0].dims
    return tuple(sorted(range(len(back)), key=back.__getitem__))


def view_of(type_: Type, order: Order) -> View:
    """What shows memory filled in `order` as a tensor of `type_`."""
    sizes = contiguous_strides(tuple([type_.shape[d] for d in order]))
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return View((Permute(back),), type_, 0, tuple([sizes[d] for d in back]))
