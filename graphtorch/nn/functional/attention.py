"""Scaled dot product attention."""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import broadcast

from ..._deferred.tensor import Tensor
from ..._ops.autocast import lower_precision
from ..._ops.base import rounded_once, run
from ..._random import draw
from ...autograd.keeps import keeps
from ._common import call, constant_like, where
from .activation import softmax
from .dropouts import dropout


@keeps("AttentionOfParts", (2,), (2,), ())
@lower_precision
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q K^T scale + mask) V for Q [*, L, E], K [*, S, E], V [*, S, Ev]; result [*, L, Ev].

    A row that sees no position gives zeros. The scores are not kept for the backward pass, except
    with dropout on a CPU.

    Args:
        attn_mask: boolean (True takes part) or additive, broadcast to [*, L, S].
        dropout_p: probability with which a share is dropped; applied whenever it is not 0.
        is_causal: let position i see positions 0..i only; excludes `attn_mask`.
        scale: default 1 / sqrt(E).
        enable_gqa: heads (dim -3) of K and V are shared by groups of Q's heads, whose number theirs
            divides.

    Raises:
        RuntimeError: dtypes or sizes do not fit, or a mask is given with `is_causal`.
    """
    _check(query, key, value, attn_mask, is_causal)
    if not 0.0 <= dropout_p <= 1.0:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    shape = (*query.shape[:-1], value.shape[-1])
    if enable_gqa:
        query, key, value, attn_mask = _grouped(query, key, value, attn_mask)
    factor = _default_scale(query.shape[-1]) if scale is None else float(scale)
    masks = () if attn_mask is None else (attn_mask,)
    name = "Attention" if _is_fused(query, key, value) else "AttentionOfParts"
    how: Any = {"scale": factor, "is_causal": bool(is_causal)}
    drawn = _drawn_by_position(query, key, value, attn_mask, dropout_p)
    if dropout_p == 0:
        out = run(name, ops.attention, query, key, value, *masks, **how)[0]
    elif drawn is None:
        out = _with_dropout(query, key, value, attn_mask, dropout_p, is_causal, factor)
    else:
        operands = (query, key, value, *drawn, *masks)
        out = run(name, ops.dropped_attention, *operands, kept=1 - float(dropout_p), **how)[0]
    return out.reshape(shape) if enable_gqa else out


def _drawn_by_position(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float
) -> tuple[Value, Value] | None:
    """Seed and offset for shares that one kernel may drop: on a GPU, whose stream has numbers by
    their positions. None: the scores' dropout draws them, the same ones."""
    if not 0.0 < p < 1.0 or query.device.type != "cuda":
        return None
    generator = draw.source_beside(query, None)
    if generator is None or generator.stream.name != "philox":
        return None
    if 0 in (*query.shape, *key.shape, *value.shape):
        return None
    scores = broadcast(tuple(query.shape[:-2]), tuple(key.shape[:-2]))
    others = (value, key if mask is None else mask)
    if broadcast(scores, *[tuple(t.shape[:-2]) for t in others]) != scores:
        return None  # the scores that are drawn for have another shape than the result's rows
    return draw.place(generator, (*scores, query.shape[-2], key.shape[-2]))


def _is_fused(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether PyTorch has one kernel for these; else its products keep scaled copies of queries and
    keys."""
    first = query.shape
    return len(first) == 4 and all(
        len(t.shape) == 4 and t.shape[:2] == first[:2] and t.shape[-1] == first[-1]
        for t in (key, value)
    )


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool) -> None:
    given = (query, key, value)
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} "
            "instead."
        )
    if not query.dtype.is_floating_point:
        raise RuntimeError(
            f"scaled_dot_product_attention: expected scalar type Float but found "
            f"{query.dtype}: convert query, key and value with .float()"
        )
    if min(t.dim() for t in given) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be at least 2 dimensional, but got "
            f"query.dim: {query.dim()} key.dim: {key.dim()} and value.dim: "
            f"{value.dim()} instead."
        )
    if mask is None:
        return
    if is_causal:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
            "is_causal=True"
        )
    if mask.dtype.name not in ("bool", "float32") and mask.dtype != query.dtype:
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {mask.dtype} and query.dtype: {query.dtype} instead."
        )


def _default_scale(size: int) -> float:
    return 1.0 / math.sqrt(size) if size else 1.0


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The heads as [groups, heads of a group]: one head of key and value is broadcast to its
    group."""
    for t in (query, key, value):
        t.size(-3)
    heads, k_heads, v_heads = (t.shape[-3] for t in (query, key, value))
    if not k_heads or not v_heads or heads % k_heads or heads % v_heads:
        raise RuntimeError(
            "Number of heads in key and value must divide the number of heads in query: got "
            f"{k_heads}, {v_heads} and {heads}"
        )
    groups = k_heads if k_heads == v_heads else heads
    key, value = (
        t if t.shape[-3] == groups else t.repeat_interleave(groups // t.shape[-3], -3)
        for t in (key, value)
    )
    if mask is not None and mask.dim() >= 3:
        split = (1, 1) if mask.shape[-3] == 1 else (groups, heads // groups)
        mask = mask.reshape((*mask.shape[:-3], *split, *mask.shape[-2:]))
    query = query.reshape((*query.shape[:-3], groups, heads // groups, *query.shape[-2:]))
    return query, key.unsqueeze(-3), value.unsqueeze(-3), mask


@rounded_once
def _with_dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    p: float,
    is_causal: bool,
    factor: float,
) -> Tensor:
    scores = (query * factor).matmul(key.transpose(-2, -1))
    if is_causal:
        mask = call("tril", scores.detach().new_ones(tuple(scores.shape[-2:])), diagonal=0) > 0
    if mask is not None:
        is_bool = mask.dtype.name == "bool"
        scores = where(mask, scores, constant_like(scores, -math.inf)) if is_bool else scores + mask
    # rows that see nothing: their shares are zero
    blind = (scores == -math.inf).all(-1, keepdim=True)
    zero = constant_like(scores, 0)
    shares = where(blind, zero, softmax(where(blind, zero, scores), -1))
    return dropout(shares, p).matmul(value.to(shares.dtype)).to(value.dtype)
