"""Scaled dot product attention, as
https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html.

The gradient is FlashAttention-2's (https://arxiv.org/abs/2307.08691): each row's log-sum-exp is a
result of its own, and from it the backward pass finds the probabilities again, so that no scores
are kept. 16-bit floats are computed in f32 and rounded once, at the end.
"""

from __future__ import annotations

import math

import numpy as np

from ..dataclass import dataclass
from ..dtype import boolean, i64
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..shape import Dim, Shape, broadcast
from .batching import Mapped, Values, lifted, pointwise, reshaped, whole, wholes
from .checks import attrs_of, listed
from .common import (
    REAL_FLOATING,
    Expr,
    algebra,
    cast_to,
    check_domain,
    check_same_dtype,
    fn,
    full,
    ops,
    quiet,
    sum_to,
    swap_last,
    wide,
    wide_dtype,
    zeros,
    zeros_like,
)
from .timing import attention_ns

__all__ = ["attention", "attention_grad"]


@dataclass(frozen=True)
class AttentionAttrs(Attrs):
    """scale: the factor of the scores. is_causal: position i of q sees the positions 0..i of k
    only."""

    scale: float
    is_causal: bool = False


# types --------------------------------------------------------------------------------------------


def _check(q: Type, k: Type, v: Type) -> None:
    check_domain("attention", q, REAL_FLOATING)
    check_same_dtype("attention", q, k, v)
    if min(q.rank, k.rank, v.rank) < 2:
        raise RuntimeError(
            "attention: expected query, key and value of at least 2 dimensions, got "
            f"{listed(q.shape)}, {listed(k.shape)} and {listed(v.shape)}"
        )
    if q.shape[-1] != k.shape[-1]:
        raise RuntimeError(
            "attention: expected query and key of the same size in the last dimension, got "
            f"{listed(q.shape)} and {listed(k.shape)}"
        )
    if k.shape[-2] != v.shape[-2]:
        raise RuntimeError(
            "attention: expected key and value of the same length (dimension -2), got "
            f"{listed(k.shape)} and {listed(v.shape)}"
        )


def _scores_shape(q: Type | Value, k: Type | Value, v: Type | Value) -> Shape:
    batch = broadcast(broadcast(q.shape[:-2], k.shape[:-2]), v.shape[:-2])
    return (*batch, q.shape[-2], k.shape[-2])


def _check_mask(mask: Type, q: Type, scores: Shape) -> None:
    if mask.dtype not in (boolean, q.dtype, wide_dtype(q.dtype)):
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {mask.dtype} and query.dtype: {q.dtype} instead."
        )
    if broadcast(mask.shape, scores) != scores:
        raise RuntimeError(
            f"attention: expected a mask that broadcasts to the scores {listed(scores)}, got "
            f"{listed(mask.shape)}"
        )


def attention_infer(
    attrs: AttentionAttrs, q: Type, k: Type, v: Type, *mask: Type
) -> tuple[Type, ...]:
    _check(q, k, v)
    scores = _scores_shape(q, k, v)
    for m in mask:
        _check_mask(m, q, scores)
    return q.with_shape((*scores[:-1], v.shape[-1])), Type(wide_dtype(q.dtype), scores[:-1])


def attention_grad_infer(
    attrs: AttentionAttrs, q: Type, k: Type, v: Type, g: Type, lse: Type, delta: Type, *mask: Type
) -> tuple[Type, ...]:
    out, rows = attention_infer(attrs, q, k, v, *mask)
    for name, given, expected in (("g", g, out), ("lse", lse, rows), ("delta", delta, rows)):
        if given is not expected:
            raise RuntimeError(f"attention_grad: expected {name} {expected}, got {given}")
    return q, k, v


# algebra ------------------------------------------------------------------------------------------


def widened(value: Value) -> Expr:
    return Expr(cast_to(value, wide_dtype(value.dtype)))


def scores_of(attrs: AttentionAttrs, q: Value, k: Value, mask: tuple[Value, ...]) -> Expr:
    """q k^T scale + mask; -inf where a position is not seen."""
    scores = fn.matmul(widened(q) * attrs.scale, Expr(swap_last(widened(k).value)))
    if attrs.is_causal:
        shape = scores.shape[-2:]
        row, column = (fn.iota(shape=shape, dim=d, dtype=i64) for d in (0, 1))
        scores = fn.where(row >= column, scores, -math.inf)
    for m in mask:
        scores = fn.where(Expr(m), scores, -math.inf) if m.dtype is boolean else scores + widened(m)
    return scores


def _finite(row: Expr) -> Expr:
    """What is subtracted from a row of scores: 0 where all of them are -inf, so that exp gives
    zeros."""
    return fn.where(fn.eq(row, -math.inf), 0, row)


def _column(rows: Value) -> Expr:
    return Expr(ops.reshape(rows, shape=(*rows.shape, 1)))


def _attention_decompose(node: Node) -> tuple[Value, ...]:
    q, k, v, *mask = node.operands
    if k.shape[-2] == 0:
        return zeros(node.types[0]), full(node.types[1].shape, -math.inf, node.types[1].dtype)
    scores = scores_of(attrs_of(node, AttentionAttrs), q, k, tuple(mask))
    shares, lse = softmax_of(scores, node.types[1].shape)
    return cast_to(fn.matmul(shares, widened(v)).value, q.dtype), lse


def softmax_of(scores: Expr, rows: Shape) -> tuple[Expr, Value]:
    """The softmax of scores, and the log-sum-exp of their rows, expanded to the shape `rows`."""
    last = (len(scores.shape) - 1,)
    most = _finite(fn.max(scores, dims=last, keepdim=True))
    e = fn.exp(scores - most)
    total = fn.sum(e, dims=last, keepdim=True)
    lse = fn.expand(fn.reshape(most + fn.log(total), shape=scores.shape[:-1]), shape=rows)
    return e / fn.where(fn.eq(total, 0), 1, total), lse.value


def _shares(attrs: AttentionAttrs, q: Value, k: Value, lse: Value, mask: tuple[Value, ...]) -> Expr:
    """The softmax of the scores, from their log-sum-exp."""
    return fn.exp(scores_of(attrs, q, k, mask) - _finite(_column(lse)))


def grads_of_scores(
    attrs: AttentionAttrs,
    q: Value,
    k: Value,
    v: Value,
    g: Value,
    lse: Value,
    delta: Value,
    mask: tuple[Value, ...],
    noise: Expr | None = None,
) -> tuple[Expr, Expr]:
    """The shares p and the gradient of the scores, p (g v^T - delta). Args: noise: what the shares
    were multiplied by."""
    p = _shares(attrs, q, k, lse, mask)
    arrived = fn.matmul(widened(g), Expr(swap_last(widened(v).value)))
    arrived = arrived if noise is None else arrived * noise
    return p, p * (arrived - _column(delta))


def _attention_grad_decompose(node: Node) -> tuple[Value, ...]:
    q, k, v, g, lse, delta, *mask = node.operands
    attrs = attrs_of(node, AttentionAttrs)
    p, ds = grads_of_scores(attrs, q, k, v, g, lse, delta, tuple(mask))
    return grads_of_shares(attrs, (q, k, v), g, p, ds)


def grads_of_shares(
    attrs: AttentionAttrs, operands: tuple[Value, ...], g: Value, p: Expr, ds: Expr
) -> tuple[Value, ...]:
    """The gradients of q, k and v, of the shares p that weigh v and of the scores' gradient."""
    q, k, v = operands
    scaled = ds * attrs.scale
    found = (
        fn.matmul(scaled, widened(k)),
        fn.matmul(Expr(swap_last(scaled.value)), widened(q)),
        fn.matmul(Expr(swap_last(p.value)), widened(g)),
    )
    return tuple(
        cast_to(sum_to(e.value, x.shape), x.dtype) for e, x in zip(found, (q, k, v), strict=True)
    )


def _attention_vjp(node: Node, g: Value | None, g_lse: Value | None) -> tuple[Value | None, ...]:
    q, k, v, *mask = node.operands
    attrs = attrs_of(node, AttentionAttrs)
    out, lse = node.results()
    g = zeros_like(out) if g is None else g
    delta = delta_of(out, g, g_lse)
    found: list[Value | None] = list(
        ops.attention_grad(
            q, k, v, g, lse, delta, *mask, scale=attrs.scale, is_causal=attrs.is_causal
        )
    )
    for m in mask:
        is_added = m.dtype is not boolean
        found.append(mask_grad(attrs, (q, k, v), g, lse, delta, m) if is_added else None)
    return tuple(found)


def delta_of(out: Value, g: Value, g_lse: Value | None) -> Value:
    """What the gradient of each row's scores is shifted by: the row sums of g * out, less what
    arrives at the log-sum-exp."""
    delta = algebra(
        lambda a, b: fn.sum(a * b, dims=(out.rank - 1,), keepdim=False),
        widened(g).value,
        widened(out).value,
    )
    return delta if g_lse is None else ops.sub(delta, g_lse)


def mask_grad(
    attrs: AttentionAttrs,
    operands: tuple[Value, ...],
    g: Value,
    lse: Value,
    delta: Value,
    mask: Value,
    noise: Expr | None = None,
) -> Value:
    """The gradient of an additive mask. Args: noise: as `grads_of_scores` has it."""
    q, k, v = operands
    _, ds = grads_of_scores(attrs, q, k, v, g, lse, delta, (mask,), noise)
    return cast_to(sum_to(ds.value, mask.shape), mask.dtype)


# NumPy --------------------------------------------------------------------------------------------


def _scores_reference(
    attrs: AttentionAttrs, q: np.ndarray, k: np.ndarray, mask: tuple[np.ndarray, ...]
) -> np.ndarray:
    a = wide(q)
    scores = np.matmul(a * a.dtype.type(attrs.scale), np.swapaxes(wide(k), -1, -2))
    if attrs.is_causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    for m in mask:
        scores = np.where(m, scores, -np.inf) if m.dtype == bool else scores + wide(m)
    return scores.astype(a.dtype)


@quiet
def _attention_reference(
    attrs: AttentionAttrs, q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shares, lse = reference_shares(attrs, q, k, mask)
    out = np.matmul(shares, wide(v))
    return out.astype(q.dtype), np.broadcast_to(lse, out.shape[:-1]).copy()


def reference_shares(
    attrs: AttentionAttrs, q: np.ndarray, k: np.ndarray, mask: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The softmax of the scores, and the log-sum-exp of their rows."""
    scores = _scores_reference(attrs, q, k, mask)
    most = scores.max(-1, keepdims=True, initial=-np.inf)
    most = np.where(most == -np.inf, 0, most)
    e = np.exp(scores - most)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total), (most + np.log(total))[..., 0].astype(scores.dtype)


def _summed_to(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    extra = x.ndim - like.ndim
    x = x.sum(tuple(range(extra)))
    kept = tuple(i for i, d in enumerate(like.shape) if d == 1 and x.shape[i] != 1)
    return x.sum(kept, keepdims=True).astype(like.dtype)


@quiet
def _attention_grad_reference(
    attrs: AttentionAttrs,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    g: np.ndarray,
    lse: np.ndarray,
    delta: np.ndarray,
    *mask: np.ndarray,
) -> tuple[np.ndarray, ...]:
    return reference_grads(attrs, (q, k, v), g, lse, delta, mask)


def reference_grads(
    attrs: AttentionAttrs,
    operands: tuple[np.ndarray, ...],
    g: np.ndarray,
    lse: np.ndarray,
    delta: np.ndarray,
    mask: tuple[np.ndarray, ...],
    noise: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, ...]:
    """The gradients of q, k and v. Args: noise: what the shares were multiplied by."""
    q, k, v = operands
    scores = _scores_reference(attrs, q, k, mask)
    p = np.exp(scores - np.where(lse == -np.inf, 0, lse)[..., None])
    ds = p * (np.matmul(wide(g), np.swapaxes(wide(v), -1, -2)) * noise - delta[..., None])
    ds = ds * ds.dtype.type(attrs.scale)
    turned = np.swapaxes(ds, -1, -2), np.swapaxes(p * noise, -1, -2)
    found = np.matmul(ds, wide(k)), np.matmul(turned[0], wide(q)), np.matmul(turned[1], wide(g))
    return tuple(_summed_to(x, like) for x, like in zip(found, (q, k, v), strict=True))


def _attention_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Entries are one more batch dimension."""
    if not any(mapped[:3]):  # a mask alone gives the scores none
        values, mapped = (whole(values[0], False, size), *values[1:]), (True, *mapped[1:])
    return pointwise(node, values, mapped, size)


def _attention_grad_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """As `_attention_batch`; an operand without entries would get the sum of their gradients."""
    rank = node.operands[3].rank
    several = [lifted(x, True, rank) for x in wholes(values[:3], mapped[:3], size)]
    masks = [lifted(x, m, rank) for x, m in zip(values[6:], mapped[6:], strict=True)]
    made = node.op.node(
        (*several, *wholes(values[3:6], mapped[3:6], size), *masks), node.attrs
    ).results()
    return tuple([reshaped(y, (size, *t.shape)) for y, t in zip(made, node.types, strict=True)])


attention = Op(
    "attention",
    "softmax(q k^T scale + mask) v of q [*B, L, E], k [*B, S, E], v [*B, S, F]; also the rows' "
    "log-sum-exp.",
    ("q", "k", "v", "mask?"),
    attrs=AttentionAttrs,
    infer=attention_infer,
    vjp=_attention_vjp,
    decompose=_attention_decompose,
    reference=_attention_reference,
    kind=Kind.WHOLE,
    weight=Weight.CONTRACTION,
    reference_ns=attention_ns,
    batch=_attention_batch,
)
attention_grad = Op(
    "attention_grad",
    "Gradients of attention's q, k and v from its log-sum-exp and delta [*B, L], the row sums of g "
    "* out.",
    ("q", "k", "v", "g", "lse", "delta", "mask?"),
    attrs=AttentionAttrs,
    infer=attention_grad_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_attention_grad_decompose,
    reference=_attention_grad_reference,
    kind=Kind.WHOLE,
    weight=Weight.CONTRACTION,
    reference_ns=attention_ns,
    batch=_attention_grad_batch,
)
