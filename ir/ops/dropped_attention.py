"""Scaled dot product attention some of whose shares are dropped, and the others scaled.

What is dropped is drawn by position from (seed, offset), as `random_uniform` in f32 of the scores'
shape has it: nothing of the scores' size is kept between the result and its gradient, which draws
the same again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import boolean, f32
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Kind, Op, Weight
from ..shape import Shape
from .attention import (
    AttentionAttrs,
    attention_grad_infer,
    attention_infer,
    delta_of,
    grads_of_scores,
    grads_of_shares,
    mask_grad,
    reference_grads,
    reference_shares,
    scores_of,
    softmax_of,
    widened,
)
from .checks import attrs_of
from .common import Expr, cast_to, fn, full, ops, quiet, wide, wide_dtype, zeros, zeros_like
from .random import RandomFloat, check_state, random_uniform
from .timing import attention_ns

__all__ = ["dropped_attention", "dropped_attention_grad"]


@dataclass(frozen=True)
class DroppedAttentionAttrs(AttentionAttrs):
    """kept: the probability with which a share is kept, and then divided by it."""

    kept: float = 1.0


def _infer(
    attrs: DroppedAttentionAttrs, q: Type, k: Type, v: Type, seed: Type, offset: Type, *mask: Type
) -> tuple[Type, ...]:
    _check(attrs, seed, offset)
    return attention_infer(attrs, q, k, v, *mask)


def _grad_infer(attrs: DroppedAttentionAttrs, *given: Type) -> tuple[Type, ...]:
    _check(attrs, *given[6:8])
    return attention_grad_infer(attrs, *given[:6], *given[8:])


def _check(attrs: DroppedAttentionAttrs, seed: Type, offset: Type) -> None:
    check_state("dropped_attention", seed, offset)
    if not 0.0 < attrs.kept <= 1.0:
        raise RuntimeError(
            f"dropped_attention: expected a probability in (0, 1] of keeping, got {attrs.kept}"
        )


def _noise(node: Node, shape: Shape, seed: Value, offset: Value) -> Expr:
    """What shares are multiplied by: 1 / kept, or 0."""
    kept, dtype = attrs_of(node, DroppedAttentionAttrs).kept, wide_dtype(node.operands[0].dtype)
    unit = ops.random_uniform(seed, offset, shape=shape, dtype=f32)
    below = ops.lt(unit, full(shape, kept, f32))
    return Expr(ops.div(cast_to(below, dtype), full(shape, kept, dtype)))


def _decompose(node: Node) -> tuple[Value, ...]:
    q, k, v, seed, offset, *mask = node.operands
    rows = node.types[1]
    if k.shape[-2] == 0:
        return zeros(node.types[0]), full(rows.shape, -np.inf, rows.dtype)
    scores = scores_of(attrs_of(node, AttentionAttrs), q, k, tuple(mask))
    shares, lse = softmax_of(scores, rows.shape)
    noise = _noise(node, (*rows.shape, k.shape[-2]), seed, offset)
    return cast_to(fn.matmul(shares * noise, widened(v)).value, q.dtype), lse


def _grad_decompose(node: Node) -> tuple[Value, ...]:
    q, k, v, g, lse, delta, seed, offset, *mask = node.operands
    attrs = attrs_of(node, AttentionAttrs)
    noise = _noise(node, (*lse.shape, k.shape[-2]), seed, offset)
    p, ds = grads_of_scores(attrs, q, k, v, g, lse, delta, tuple(mask), noise)
    return grads_of_shares(attrs, (q, k, v), g, p * noise, ds)


def _vjp(node: Node, g: Value | None, g_lse: Value | None) -> tuple[Value | None, ...]:
    q, k, v, seed, offset, *masks = node.operands
    attrs = attrs_of(node, DroppedAttentionAttrs)
    out, lse = node.results()
    g = zeros_like(out) if g is None else g
    delta = delta_of(out, g, g_lse)
    same: dict[str, Any] = {"scale": attrs.scale, "is_causal": attrs.is_causal, "kept": attrs.kept}
    grads = ops.dropped_attention_grad(q, k, v, g, lse, delta, seed, offset, *masks, **same)
    found: list[Value | None] = [*grads, None, None]
    for m in masks:
        if m.dtype is boolean:
            found.append(None)
            continue
        noise = _noise(node, (*lse.shape, k.shape[-2]), seed, offset)
        found.append(mask_grad(attrs, (q, k, v), g, lse, delta, m, noise))
    return tuple(found)


# NumPy --------------------------------------------------------------------------------------------


def _reference_noise(
    attrs: DroppedAttentionAttrs, like: np.ndarray, seed: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    drawn = RandomFloat(like.shape, f32)
    unit = random_uniform.reference(drawn, seed, offset)
    return (unit < np.float32(attrs.kept)).astype(like.dtype) / like.dtype.type(attrs.kept)


@quiet
def _reference(
    attrs: DroppedAttentionAttrs,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    seed: np.ndarray,
    offset: np.ndarray,
    *mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    shares, lse = reference_shares(attrs, q, k, mask)
    batch = np.broadcast_shapes(shares.shape[:-2], v.shape[:-2])
    shares = np.broadcast_to(shares, (*batch, *shares.shape[-2:]))
    out = np.matmul(shares * _reference_noise(attrs, shares, seed, offset), wide(v))
    return out.astype(q.dtype), np.broadcast_to(lse, out.shape[:-1]).copy()


@quiet
def _grad_reference(
    attrs: DroppedAttentionAttrs,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    g: np.ndarray,
    lse: np.ndarray,
    delta: np.ndarray,
    seed: np.ndarray,
    offset: np.ndarray,
    *mask: np.ndarray,
) -> tuple[np.ndarray, ...]:
    like = np.broadcast_to(lse[..., None], (*lse.shape, k.shape[-2]))
    noise = _reference_noise(attrs, like, seed, offset)
    return reference_grads(attrs, (q, k, v), g, lse, delta, mask, noise)


dropped_attention = Op(
    "dropped_attention",
    "`attention` whose shares are multiplied by 1 / kept with the probability kept, else by 0; "
    "also the rows' log-sum-exp, of all scores.",
    ("q", "k", "v", "seed", "offset", "mask?"),
    attrs=DroppedAttentionAttrs,
    infer=_infer,
    vjp=_vjp,
    decompose=_decompose,
    reference=_reference,
    kind=Kind.WHOLE,
    weight=Weight.CONTRACTION,
    reference_ns=attention_ns,
    batch=BY_DECOMPOSITION,
)
dropped_attention_grad = Op(
    "dropped_attention_grad",
    "Gradients of dropped_attention's q, k and v, as attention_grad; what is dropped is drawn "
    "again.",
    ("q", "k", "v", "g", "lse", "delta", "seed", "offset", "mask?"),
    attrs=DroppedAttentionAttrs,
    infer=_grad_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_grad_decompose,
    reference=_grad_reference,
    kind=Kind.WHOLE,
    weight=Weight.CONTRACTION,
    reference_ns=attention_ns,
    batch=BY_DECOMPOSITION,
)
