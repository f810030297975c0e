"""Attention."""

from __future__ import annotations

import math

from ...tensor import Tensor
from ._common import call, constant_like, where
from .activation import softmax
from .dropouts import dropout


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(Q K^T scale + mask) V for Q [*, L, E], K [*, S, E], V [*, S, Ev]; result [*, L, Ev].

    Args:
        attn_mask: boolean (True takes part) or additive, broadcast to [*, L, S].
        is_causal: let position i see positions 0..i only; excludes `attn_mask`.
        scale: default 1 / sqrt(E).
        enable_gqa: repeat the heads (dim -3) of K and V to the number of Q's.
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when "
                           "is_causal=True")
    if query.dim() < 2 or key.dim() < 2 or value.dim() < 2:
        raise RuntimeError("scaled_dot_product_attention: expected query, key and value of at least 2 "
                           f"dimensions, got {query.dim()}, {key.dim()} and {value.dim()}")
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor).matmul(key.transpose(-2, -1))
    if is_causal:
        attn_mask = call("tril", scores.detach().new_ones(tuple(scores.shape[-2:])), diagonal=0) > 0
    if attn_mask is not None:
        scores = _masked(scores, attn_mask)
    return dropout(softmax(scores, -1), dropout_p).matmul(value)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if not str(mask.dtype).endswith("bool"):
        return scores + mask
    return where(mask, scores, constant_like(scores, -math.inf))
