"""Sizes that may be symbolic as PyTorch names them, and the functions that take a number or such a
size."""

from __future__ import annotations

import functools
from typing import Any

from graphtorch.ir.shape import SymInt

__all__ = [
    "SymBool",
    "SymFloat",
    "SymInt",
    "sym_float",
    "sym_int",
    "sym_ite",
    "sym_max",
    "sym_min",
    "sym_not",
    "sym_sum",
]


class SymFloat:
    """PyTorch's class of symbolic floats, for ``isinstance``: there are none here.

    Raises: RuntimeError on construction.
    """

    def __init__(self, node: Any = None):
        raise RuntimeError(
            f"torch.{type(self).__name__}: only sizes are symbolic here, as torch.SymInt"
        )


class SymBool(SymFloat):
    """PyTorch's class of symbolic bools, for ``isinstance``: a comparison of sizes is decided, or
    guarded by."""


def sym_float(a: Any) -> Any:
    """`a` as a float."""
    return float(a)


def sym_int(a: Any) -> Any:
    """`a` towards zero; a symbolic size as it is."""
    return a if isinstance(a, SymInt) else int(a)


def sym_not(a: Any) -> bool:
    """Not `a`."""
    return not a


def sym_ite(b: Any, t: Any, f: Any) -> Any:
    """`t` where `b` holds, else `f`."""
    if type(t) is not type(f):
        raise AssertionError(f"sym_ite: type mismatch: {type(t)} vs {type(f)}")
    return t if b else f


def sym_max(a: Any, b: Any) -> Any:
    """The larger one; a float where one is a float."""
    return _as_floats(a, b, a if a >= b else b)


def sym_min(a: Any, b: Any) -> Any:
    """The smaller one; a float where one is a float."""
    return _as_floats(a, b, a if a <= b else b)


def _as_floats(a: Any, b: Any, found: Any) -> Any:
    return float(found) if isinstance(a, float) or isinstance(b, float) else found


def sym_sum(args: Any) -> Any:
    """The sum of numbers and sizes."""
    return functools.reduce(lambda a, b: a + b, args, 0)


PUBLIC = {name: globals()[name] for name in __all__}
