"""What must hold of the data: ops that pass a value on and fail the run where it is not what it has
to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import i32
from ..graph import Node, Type, Value
from ..op import Attrs, Kind, Op, Weight
from ..shape import Dim
from .batching import Mapped, Values, unchanged, whole
from .checks import attrs_of
from .common import Expr, ops, quiet, wide

__all__ = ["require", "within"]


class LinAlgError(RuntimeError):
    """A matrix does not have what was asked of it: it is singular, or not positive-definite."""


# What a failed run raises, by the `kind` of its cause.
FAILURES: dict[str, type[Exception]] = {
    "index": IndexError,
    "linalg": LinAlgError,
    "runtime": RuntimeError,
    "value": ValueError,
}
RAISED = tuple(FAILURES.values())

# Which elements break a rule, in operators that arrays and expressions share. NaN breaks all but
# one.
RULES: dict[str, Callable[[Any], Any]] = {
    "divides": lambda x: ~((x > 0) | (x < 0)),
    "probability": lambda x: ~((x >= 0) & (x <= 1)),
    "not negative": lambda x: ~(x >= 0),
    "not below zero": lambda x: x < 0,
    "finite": lambda x: ~((x > float("-inf")) & (x < float("inf"))),
    "finite and not negative": lambda x: ~((x >= 0) & (x < float("inf"))),
    "positive": lambda x: ~(x > 0),
}


@dataclass(frozen=True)
class RequireAttrs(Attrs):
    """message: what is wrong where info is not 0; kind: one of FAILURES."""

    message: str
    kind: str = "linalg"


def _require_infer(attrs: RequireAttrs, x: Type, info: Type) -> tuple[Type, ...]:
    if info.dtype is not i32:
        raise RuntimeError(f"require: info is i32, but got {info}")
    return (x,)


def _require_reference(attrs: RequireAttrs, x: np.ndarray, info: np.ndarray) -> np.ndarray:
    if np.any(info):
        raise FAILURES[attrs.kind](attrs.message)
    return x


def _require_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    x, info = values
    return require.node((whole(x, mapped[0], size), info), node.attrs).results()


require = Op(
    "require",
    "x, once it is known that every info is 0; the run fails with `message` otherwise.",
    ("x", "info"),
    infer=_require_infer,
    vjp=lambda node, g: (g, None),
    reference=_require_reference,
    attrs=RequireAttrs,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    raises=True,
    batch=_require_batch,
)


@dataclass(frozen=True)
class WithinAttrs(Attrs):
    """rule: one of RULES; message and kind as for `require`."""

    rule: str
    message: str
    kind: str = "runtime"


def _within_infer(attrs: WithinAttrs, x: Type) -> tuple[Type, ...]:
    if attrs.rule not in RULES or x.dtype.is_complex or x.dtype.is_bool:
        raise RuntimeError(f"within: there is no rule {attrs.rule!r} for {x}")
    return (x,)


@quiet
def breaks(rule: str, x: np.ndarray) -> bool:
    """Whether an element of `x` breaks one of RULES."""
    return bool(np.any(RULES[rule](wide(x))))


def _within_reference(attrs: WithinAttrs, x: np.ndarray) -> np.ndarray:
    if breaks(attrs.rule, x):
        raise FAILURES[attrs.kind](attrs.message)
    return x


def _within_parts(node: Node) -> tuple[Value]:
    (x,) = node.operands
    attrs = attrs_of(node, WithinAttrs)
    broken = ops.any(RULES[attrs.rule](Expr(x)).value, dims=tuple(range(x.rank)), keepdim=False)
    return (ops.require(x, ops.cast(broken, dtype=i32), message=attrs.message, kind=attrs.kind),)


within = Op(
    "within",
    "x, once it is known that all its elements obey a rule; the run fails with `message` "
    "otherwise.",
    ("x",),
    infer=_within_infer,
    vjp=lambda node, g: (g,),
    decompose=_within_parts,
    reference=_within_reference,
    attrs=WithinAttrs,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    raises=True,
    batch=unchanged,
)
