"""``torch._foreach_*``: one operation on each tensor of a list. What fuses them here is the
graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._deferred.tensor import Tensor
from .base import FUNCTIONS, METHODS

UNARY = (
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "floor",
    "frac",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "neg",
    "reciprocal",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
)
# name: how many lists (or numbers) it takes beside the first one
SEVERAL = {
    "add": 1,
    "sub": 1,
    "mul": 1,
    "div": 1,
    "maximum": 1,
    "minimum": 1,
    "clamp_min": 1,
    "clamp_max": 1,
    "pow": 1,
    "lerp": 2,
    "addcmul": 2,
    "addcdiv": 2,
}
# under these names the operations take a number in the place of the second tensor
TAKES_NUMBERS = {"maximum": "clamp_min", "minimum": "clamp_max"}


def _lists(name: str, first: Any, others: Sequence[Any]) -> list[tuple[Any, ...]]:
    """For each tensor its operands: entries of lists, and what is no list as it is."""
    if not isinstance(first, (tuple, list)) or not all(isinstance(x, Tensor) for x in first):
        raise TypeError(f"{name}(): argument 'self' (position 1) must be tuple of Tensors")
    if not first:
        raise RuntimeError("Tensor list must have at least one tensor.")
    columns = []
    for x in others:
        if isinstance(x, (tuple, list)) and len(x) != len(first):
            raise RuntimeError(
                f"Tensor lists must have the same number of tensors, got {len(first)} and {len(x)}"
            )
        columns.append(x if isinstance(x, (tuple, list)) else [x] * len(first))
    return list(zip(first, *columns, strict=True))


def _foreach(name: str, apply: Callable[..., Any], inplace: bool) -> Callable[..., Any]:
    full = f"_foreach_{name}" + ("_" if inplace else "")
    scales = name in ("addcmul", "addcdiv")

    def call(
        self: Any, *others: Any, scalars: Any = None, value: Any = None, **options: Any
    ) -> Any:
        if scales:  # the last argument scales the product: a number, or one for each
            factors = others[2] if len(others) > 2 else scalars if scalars is not None else value
            rows = _lists(full, self, (*others[:2], 1 if factors is None else factors))
            made = [apply(x, a, b, value=f) for x, a, b, f in rows]
        else:
            made = [apply(*row, **options) for row in _lists(full, self, others)]
        return self if inplace else tuple(made)

    call.__name__ = call.__qualname__ = full
    call.__doc__ = f"``{name}`` of each tensor of a list{', in place' if inplace else ''}."
    return call


def _foreach_norm(self: Any, ord: Any = 2, dtype: Any = None) -> tuple[Tensor, ...]:
    """The norm of each tensor of a list."""
    return tuple(
        FUNCTIONS["norm"](x, ord, dtype=dtype) for (x,) in _lists("_foreach_norm", self, ())
    )


def _foreach_zero_(self: Any) -> None:
    """Zero each tensor of a list."""
    for (x,) in _lists("_foreach_zero_", self, ()):
        METHODS["zero_"](x)


def _foreach_copy_(self: Any, src: Any, non_blocking: bool = False) -> None:
    """Copy one list of tensors into another."""
    for x, y in _lists("_foreach_copy_", self, (src,)):
        METHODS["copy_"](x, y)


def _table() -> dict[str, Callable[..., Any]]:
    own: tuple[Callable[..., Any], ...] = (_foreach_norm, _foreach_zero_, _foreach_copy_)
    found = {f.__name__: f for f in own}
    for name in (*UNARY, *SEVERAL):
        for inplace in (False, True):
            ending = "_" if inplace else ""
            spelled = TAKES_NUMBERS.get(name, name) + ending
            apply = METHODS.get(spelled) or FUNCTIONS[spelled]
            found[f"_foreach_{name}{ending}"] = _foreach(name, apply, inplace)
    return found


PUBLIC = _table()
