"""Whether containers hold the very objects that they held, asked of all of them at once."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

# What a row asks, and of what, see `identities`.
END, ITEM, LENGTH, PART, PART_LENGTH, LIST_LENGTH, LIST_ITEM, PART_VALUES = range(8)
LENGTHS = (LENGTH, PART_LENGTH, LIST_LENGTH)
PARTS = (PART, PART_LENGTH, PART_VALUES)
Row = tuple[int, Any, Any, Any, Any]


def identities(rows: Sequence[Row]) -> Callable[[], bool]:
    """A native function that says whether dictionaries and lists hold the objects that they held.

    Args: rows: of these forms; who calls the function keeps what they name.

        (ITEM, d, key, None, x)           d[key] is x
        (LENGTH, d, None, None, n)        len(d) == n
        (PART, d, key, inner, x)          d[key][inner] is x
        (PART_LENGTH, d, key, None, n)    len(d[key]) == n
        (PART_VALUES, d, key, None, l)    d[key] is a plain dict whose values are those of the list
                                          l, in its order
        (LIST_LENGTH, l, None, None, n)   len(l) == n
        (LIST_ITEM, l, i, None, x)        l[i] is x
    """
    # imported at first use, as targets are
    made = importlib.import_module(".llvm.builtin", __package__).holds(rows)
    return made  # type: ignore[no-any-return]
