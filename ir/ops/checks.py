"""Checks and message parts that the shape, index, contraction and window families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..graph import Node, Type
from ..op import Attrs
from ..shape import Dim, Shape, bounds

A = TypeVar("A", bound=Attrs)


def listed(shape: Shape) -> str:
    """A shape as messages show it: ``[2, n, 3]``."""
    return f"[{', '.join(map(str, shape))}]"


def check_axis(dim: int, x: Type, what: str) -> None:
    """Raise IndexError unless `dim` is a dimension of `x`, counted from the front."""
    if 0 <= dim < x.rank:
        return
    if x.rank == 0:
        raise IndexError(
            f"{what}: a tensor without dimensions has no dimension {dim}: reshape it to [1]"
        )
    raise IndexError(
        f"{what}: Dimension out of range (expected to be in range of [0, {x.rank - 1}], "
        f"but got {dim}) for shape {listed(x.shape)}"
    )


def check_axes(dims: Sequence[int], x: Type, what: str) -> None:
    """As `check_axis` for each; RuntimeError where one occurs twice."""
    for dim in dims:
        check_axis(dim, x, what)
    if len(set(dims)) != len(dims):
        repeated = next(d for d in dims if list(dims).count(d) > 1)
        raise RuntimeError(
            f"{what}: dim {repeated} appears multiple times in the list of dims {list(dims)}"
        )


def surely_less(a: Dim, b: Dim) -> bool:
    """Whether ``a < b`` for every value of the symbols: what cannot be decided here counts as
    no."""
    return bounds(a - b)[1] < 0


def attrs_of(node: Node, record: type[A]) -> A:
    """The attributes of a node whose op takes `record`."""
    assert isinstance(node.attrs, record), f"{node.op.name} has {type(node.attrs).__name__}"
    return node.attrs


def ints(shape: Shape) -> tuple[int, ...]:
    """Sizes as a reference sees them: symbols have been replaced by then."""
    return tuple(int(dim) for dim in shape)
