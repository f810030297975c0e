"""What optimizers do with a parameter at each step, as one node: so a step of a model of many
parameters is recorded in a fraction of the time.

They are composites: the nodes that they stand for are those of the formulas in their docs, in that
order. Their kind is WHOLE, though an element depends on those in its place alone: passes take
pointwise nodes to have one result.
"""

from __future__ import annotations

import numpy as np

from ..dataclass import dataclass
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from .checks import attrs_of, listed
from .common import REAL_FLOATING, check_domain, check_same_dtype, ops

__all__ = ["adam_update", "momentum_update"]


@dataclass(frozen=True)
class MomentumAttrs(Attrs):
    """nesterov: the step is g + momentum v instead of v."""

    nesterov: bool = False


def _check(name: str, tensors: tuple[Type, ...], scalars: tuple[Type, ...]) -> None:
    """Raises RuntimeError where not all have one floating dtype, and the shapes are not those of
    one tensor and of numbers."""
    check_domain(name, tensors[0], REAL_FLOATING)
    check_same_dtype(name, *tensors, *scalars)
    shapes = [t.shape for t in (*tensors, *scalars)]
    if shapes != [tensors[0].shape] * len(tensors) + [()] * len(scalars):
        raise RuntimeError(
            f"{name}: expected {len(tensors)} tensors of one shape and {len(scalars)} numbers, but "
            f"got shapes {', '.join(map(listed, shapes))}"
        )


def _adam_infer(attrs: Attrs, *types: Type) -> tuple[Type, ...]:
    _check("adam_update", types[:4], types[4:])
    p, _, first, second, *_ = types
    return p, first, second


def _adam_decompose(node: Node) -> tuple[Value, Value, Value]:
    p, g, first, second, new1, keep2, new2, size, root, eps, *shrink = node.operands
    first = ops.add(first, ops.mul(new1, ops.sub(g, first)))
    second = ops.add(ops.mul(keep2, second), ops.mul(ops.mul(new2, g), g))
    kept = ops.mul(p, shrink[0]) if shrink else p
    scale = ops.add(ops.div(ops.sqrt(second), root), eps)
    return ops.sub(kept, ops.div(ops.mul(size, first), scale)), first, second


def _adam_reference(
    attrs: Attrs,
    p: np.ndarray,
    g: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *numbers: np.ndarray,
) -> tuple[np.ndarray, ...]:
    new1, keep2, new2, size, root, eps, *shrink = numbers
    with np.errstate(all="ignore"):
        first = first + new1 * (g - first)
        second = keep2 * second + new2 * g * g
        kept = p * shrink[0] if shrink else p
        made = kept - size * first / (np.sqrt(second) / root + eps), first, second
    return tuple(np.asarray(x, p.dtype) for x in made)


def _momentum_infer(attrs: MomentumAttrs, *types: Type) -> tuple[Type, ...]:
    _check("momentum_update", types[:3], types[3:])
    return types[0], types[2]


def _momentum_decompose(node: Node) -> tuple[Value, Value]:
    p, g, v, lr, momentum = node.operands
    v = ops.add(ops.mul(momentum, v), g)
    step = ops.add(g, ops.mul(momentum, v)) if attrs_of(node, MomentumAttrs).nesterov else v
    return ops.sub(p, ops.mul(lr, step)), v


def _momentum_reference(
    attrs: MomentumAttrs,
    p: np.ndarray,
    g: np.ndarray,
    v: np.ndarray,
    lr: np.ndarray,
    momentum: np.ndarray,
) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        v = momentum * v + g
        made = p - lr * (g + momentum * v if attrs.nesterov else v), v
    return tuple(np.asarray(x, p.dtype) for x in made)


adam_update = Op(
    "adam_update",
    "m' = m + new1 (g - m); v' = keep2 v + new2 g g; p' = p [shrink] - size m' / (sqrt(v') / root "
    "+ eps): p', m', v'.",
    ("p", "g", "m", "v", "new1", "keep2", "new2", "size", "root", "eps", "shrink?"),
    infer=_adam_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_adam_decompose,
    reference=_adam_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)
momentum_update = Op(
    "momentum_update",
    "v' = momentum v + g; p' = p - lr v', or with `nesterov` p - lr (g + momentum v'): p', v'.",
    ("p", "g", "v", "lr", "momentum"),
    attrs=MomentumAttrs,
    infer=_momentum_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_momentum_decompose,
    reference=_momentum_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=BY_DECOMPOSITION,
)
