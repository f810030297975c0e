"""Prefix sums of an associative function (Hillis and Steele 1986): log2(n) steps over the whole
length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._ops.base import FUNCTIONS
from .._torch.absent import attribute_of
from ..utils._pytree import tree_flatten, tree_unflatten


def associative_scan(
    combine_fn: Callable[[Any, Any], Any],
    xs: Any,
    dim: int,
    reverse: bool = False,
    combine_mode: str = "pointwise",
) -> Any:
    """``y[i] = combine_fn(y[i - 1], x[i])`` along `dim`, for a function that is associative.

    Args:
        xs: a tensor, or a tree of tensors of one size along `dim`.
        combine_fn: takes and gives such trees, of any length.
        reverse: from the end.

    Raises:
        ValueError: no tensors, or sizes that differ.
    """
    leaves, spec = tree_flatten(xs)
    if not leaves:
        raise ValueError("associative_scan: expected at least one tensor in xs")
    size = leaves[0].shape[dim]
    if any(x.shape[dim] != size for x in leaves):
        raise ValueError(
            f"associative_scan: expected tensors of one size along dim {dim}, got "
            f"{[x.shape[dim] for x in leaves]}"
        )
    found = [FUNCTIONS["flip"](x, (dim,)) for x in leaves] if reverse else leaves
    step = 1
    while step < size:
        before = tree_unflatten([x.narrow(dim, 0, size - step) for x in found], spec)
        here = tree_unflatten([x.narrow(dim, step, size - step) for x in found], spec)
        later = tree_flatten(combine_fn(before, here))[0]
        found = [
            FUNCTIONS["cat"]([x.narrow(dim, 0, step), y], dim)
            for x, y in zip(found, later, strict=True)
        ]
        step *= 2
    return tree_unflatten([FUNCTIONS["flip"](x, (dim,)) for x in found] if reverse else found, spec)


__all__ = ["associative_scan"]
__getattr__ = attribute_of(__name__)
