"""`rearrange`: dimensions in another order, joined and split, as a pattern says.

Patterns are those of einops (A. Rogozhnikov, "Einops: clear and reliable tensor manipulations with
Einstein-like notation", ICLR 2022): ``b (h p) c -> b h (p c)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .._deferred.tensor import Tensor
from .base import FUNCTIONS

ELLIPSIS = "..."
Group = list[str]  # names of the dimensions that are one


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Tensor:
    """A tensor with its dimensions named, ordered, joined and split by `pattern`.

    Args:
        tensor: a tensor, or a list of tensors, which are stacked along a first dimension.
        pattern: names of the dimensions, ``->``, and the names as the result has them; names in
            parentheses are one dimension, ``...`` stands for any number, ``1`` and ``()`` for one
            of size 1.
        axes_lengths: sizes of names that are part of a dimension; one of each may be left out.

    Raises:
        ValueError: the pattern is wrong, names do not fit, or sizes do not divide.
    """
    if isinstance(tensor, (list, tuple)):
        tensor = FUNCTIONS["stack"](tensor)
    if pattern.count("->") != 1:
        raise ValueError("Pattern must contain a single '->' separator")
    left, right = (_groups(side) for side in pattern.split("->"))
    left, right = _spelled_out(left, right, tensor.ndim, pattern)
    _check_names(left, right, axes_lengths)
    if len(left) != tensor.ndim:
        raise ValueError(
            f"Number of dimensions in pattern ({len(left)}) must be equal to the number of "
            f"dimensions in the tensor ({tensor.ndim})"
        )
    sizes = _sizes(left, tensor.shape, axes_lengths)
    names = [n for group in left for n in group]
    parts = tensor.reshape(tuple(sizes[n] for n in names))
    order = [names.index(n) for group in right for n in group]
    found = parts.permute(tuple(order)) if order else parts
    return found.reshape(  # type: ignore[no-any-return]
        tuple(math.prod(sizes[n] for n in group) for group in right)
    )


def _groups(side: str) -> list[Group]:
    """The names of a side, those of one dimension together; none for a size of 1."""
    groups: list[Group] = []
    inside: Group | None = None
    for word in re.findall(r"\(|\)|\.\.\.|[^\s()]+", side):
        if word == "(":
            if inside is not None:
                raise ValueError(
                    "Axis composition is one-level (brackets inside brackets not allowed)"
                )
            inside = []
        elif word == ")":
            if inside is None:
                raise ValueError(f"Imbalanced parentheses in expression: '{side}'")
            groups.append(inside)
            inside = None
        else:
            name = [] if word == "1" else [_checked(word)]
            if inside is None:
                groups.append(name)
            else:
                inside += name
    if inside is not None:
        raise ValueError(f"Imbalanced parentheses in expression: '{side}'")
    names = [n for group in groups for n in group]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ValueError(f"Indexing expression contains duplicate dimension '{twice}'")
    return groups


def _checked(word: str) -> str:
    if word.isdigit():
        raise ValueError(f"rearrange only supports unnamed axes of size 1, not {word}")
    if word != ELLIPSIS and not word.isidentifier():
        raise ValueError(f"Invalid axis identifier: {word}: not a valid python identifier")
    return word


def _spelled_out(
    left: list[Group], right: list[Group], rank: int, pattern: str
) -> tuple[list[Group], list[Group]]:
    """Both sides with a name for each dimension that ``...`` stands for."""
    if re.search(r"\([^)]*\.\.\.", pattern.split("->")[0]):
        raise ValueError(f"Ellipsis is parenthesis in the left side is not allowed: {pattern}")
    if [ELLIPSIS] not in left:
        return left, right
    named = [f"...{i}" for i in range(rank - len(left) + 1)]
    at = left.index([ELLIPSIS])
    left = [*left[:at], *([n] for n in named), *left[at + 1 :]]
    result: list[Group] = []
    for group in right:
        if group == [ELLIPSIS]:
            result += [[n] for n in named]
        else:
            result.append([m for n in group for m in (named if n == ELLIPSIS else [n])])
    return left, result


def _check_names(left: Sequence[Group], right: Sequence[Group], given: Mapping[str, int]) -> None:
    before, after = ({n for group in side for n in group} for side in (left, right))
    if before != after:
        raise ValueError(
            "Identifiers only on one side of rearrange expression (should be on both): "
            f"{before ^ after}"
        )
    unknown = given.keys() - before
    if unknown:
        raise ValueError(f"Identifiers not found in rearrange expression: {unknown}")


def _sizes(left: Sequence[Group], shape: Sequence[Any], given: Mapping[str, int]) -> dict[str, Any]:
    """The size of each name."""
    sizes: dict[str, Any] = dict(given)
    for group, size in zip(left, shape, strict=True):
        open_names = [n for n in group if n not in given]
        known = math.prod(given[n] for n in group if n in given)
        if len(open_names) > 1:
            raise ValueError(
                f"cannot infer the sizes of two dimensions at once: {', '.join(open_names)}"
            )
        if size % known if open_names else size != known:
            raise ValueError(
                f"inferred dimension does not evenly fit into larger dimension: {size} vs {known}"
            )
        sizes.update((n, size // known) for n in open_names)
    return sizes
