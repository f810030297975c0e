"""Multi-head attention (https://arxiv.org/abs/1706.03762, section 3.2.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..._deferred.tensor import Tensor
from ..._settings import warn_user
from ._common import cat
from .activation import softmax
from .attention import scaled_dot_product_attention
from .conv import linear
from .dropouts import dropout
from .padding import pad


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of query [L, N, E] to key [S, N, Ek] and value [S, N, Ev], or of all without N.

    Args:
        in_proj_weight, in_proj_bias: [3E, E] and [3E], for query, key and value in that order; with
            `use_separate_proj_weight` the weights are `q_proj_weight` [E, E], `k_proj_weight` [E,
            Ek] and `v_proj_weight` [E, Ev] instead.
        bias_k, bias_v: [1, 1, E], one more position of key and value, after projection.
        add_zero_attn: one more position of key and value, of zeros.
        key_padding_mask: [N, S] (or [S]); attn_mask: [L, S] or [N num_heads, L, S]. Boolean (True
            does not take part) or additive.
        static_k, static_v: [N num_heads, S, E / num_heads] in the place of what projection gives.
        is_causal: says that `attn_mask` is the causal mask.

    Returns:
        The result [L, N, E] (or [L, E]), and with `need_weights` the shares [N, L, S], averaged
        over heads, or [N, num_heads, L, S].

    Raises:
        AssertionError, RuntimeError: shapes or dtypes do not fit; the messages name them.
    """
    return attend(
        query,
        key,
        value,
        embed_dim_to_check,
        num_heads,
        Projections(
            in_proj_weight,
            in_proj_bias,
            q_proj_weight,
            k_proj_weight,
            v_proj_weight,
            use_separate_proj_weight,
            out_proj_weight,
            out_proj_bias,
            bias_k,
            bias_v,
            static_k,
            static_v,
        ),
        add_zero_attn,
        dropout_p if training else 0.0,
        key_padding_mask,
        need_weights,
        attn_mask,
        average_attn_weights,
        is_causal,
    )


class Projections(NamedTuple):
    """The parameters of `multi_head_attention_forward`."""

    weight: Tensor | None
    bias: Tensor | None
    q_weight: Tensor | None
    k_weight: Tensor | None
    v_weight: Tensor | None
    separate: bool
    out_weight: Tensor
    out_bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    static_k: Tensor | None = None
    static_v: Tensor | None = None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    own: Projections,
    add_zero_attn: bool,
    dropout_p: float,
    key_padding_mask: Tensor | None,
    need_weights: bool,
    attn_mask: Tensor | None,
    average_attn_weights: bool,
    is_causal: bool,
    batch_first: bool = False,
    steps_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`multi_head_attention_forward` where the batch may be the first dim of query, key and value.

    Args:
        steps_first: whether the result's memory is ordered by steps, the batch second, in any case.
            PyTorch's is while it trains, and dropout draws in the order of memory.
    """
    batched = _is_batched(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = _batch_of_one(query, key, value)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    batch_axis = 0 if batch_first and batched else 1
    n, length, embed = query.shape[batch_axis], query.shape[1 - batch_axis], query.shape[2]
    source = key.shape[1 - batch_axis]
    key_padding_mask = additive_mask(
        key_padding_mask, "key_padding_mask", query, attn_mask, "attn_mask"
    )
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer "
            "module method `generate_square_subsequent_mask` to create this mask."
        )
    causal = is_causal and key_padding_mask is None and not need_weights
    attn_mask = None if causal else additive_mask(attn_mask, "attn_mask", query)
    _check_embedding(embed, embed_dim, num_heads)
    q, k, v = (_separate if own.separate else _packed)(query, key, value, own)
    mask = _merged(attn_mask, key_padding_mask, (n, num_heads, length, source))
    k, v, mask = _with_bias(k, v, mask, own, batch_axis)
    q = _heads(q, num_heads, batch_axis)
    k, v = (
        _heads(t, num_heads, batch_axis) if s is None else _static(s, name, n, num_heads, embed)
        for t, s, name in ((k, own.static_k, "static_k"), (v, own.static_v, "static_v"))
    )
    if add_zero_attn:
        k, v = (cat([t, t.new_zeros((*t.shape[:2], 1, t.shape[3]))], 2) for t in (k, v))
        mask = _one_more(mask)
    if need_weights:
        weights = _shares(q, k, mask)
        weights = dropout(weights, dropout_p) if dropout_p > 0 else weights
        out = weights.matmul(v)
    else:
        weights = None
        out = scaled_dot_product_attention(q, k, v, mask, dropout_p, causal)
    turned = batch_axis == 0 and steps_first
    shape = (length, n, embed) if turned else tuple(query.shape)
    joined = out.permute((0, 2, 1, 3) if batch_axis == 0 and not turned else (2, 0, 1, 3)).reshape(
        shape
    )
    out = linear(joined, own.out_weight, own.out_bias)
    if turned:
        out = out.transpose(0, 1)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    if not batched:
        return out.squeeze(1), None if weights is None else weights.squeeze(0)
    return out, weights


# masks --------------------------------------------------------------------------------------------


def additive_mask(
    mask: Tensor | None, name: str, like: Tensor, other: Tensor | None = None, other_name: str = ""
) -> Tensor | None:
    """A mask as what is added to scores of the dtype of `like`: a boolean one as -inf where it is
    True."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} must be None or a Tensor, not {type(mask).__name__}")
    if other is not None and not isinstance(other, Tensor):
        raise RuntimeError(f"{other_name} must be None or a Tensor, not {type(other).__name__}")
    is_bool = mask.dtype.name == "bool"
    if not is_bool and not mask.dtype.is_floating_point:
        raise AssertionError(
            f"only bool and floating types of {name} are supported, got {mask.dtype}"
        )
    if other is not None and other.dtype != mask.dtype:
        warn_user(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both "
            "instead.",
        )
    if not is_bool:
        return mask
    return like.new_zeros(tuple(mask.shape)).masked_fill(mask, -math.inf)


def _merged(attn: Tensor | None, padding: Tensor | None, scores: tuple[int, ...]) -> Tensor | None:
    """Both masks as one that broadcasts to scores [N, heads, L, S]."""
    n, heads, length, source = scores
    if attn is not None:
        expected = (length, source) if attn.dim() == 2 else (n * heads, length, source)
        if tuple(attn.shape) != expected:
            raise RuntimeError(
                f"The shape of the {attn.dim()}D attn_mask is {attn.shape}, but should be "
                f"{expected}."
            )
        attn = attn.reshape((1, 1, length, source) if attn.dim() == 2 else scores)
    if padding is None:
        return attn
    for axis, expected_size in enumerate((n, source)):
        if padding.shape[axis] != expected_size:
            raise AssertionError(
                f"Expected key_padded_mask.shape[{axis}] to be {expected_size}, but got "
                f"{padding.shape[axis]}"
            )
    padding = padding.reshape((n, 1, 1, source))
    return padding if attn is None else attn + padding


def _one_more(mask: Tensor | None) -> Tensor | None:
    """The mask with a last position that everyone sees."""
    return None if mask is None else pad(mask, (0, 1))


# projections and heads ----------------------------------------------------------------------------


def _packed(
    query: Tensor, key: Tensor, value: Tensor, own: Projections
) -> tuple[Tensor, Tensor, Tensor]:
    """One product for those of query, key and value that are the same tensor."""
    weight, bias = own.weight, own.bias
    if tuple(key.shape) != tuple(value.shape):
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
    if weight is None:
        raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
    if query is key and key is value:
        q, k, v = linear(query, weight, bias).chunk(3, -1)
        return q, k, v
    embed = query.shape[-1]
    if key is value:
        w_q, w_kv = weight.split([embed, 2 * embed])
        b_q, b_kv = (None, None) if bias is None else bias.split([embed, 2 * embed])
        k, v = linear(key, w_kv, b_kv).chunk(2, -1)
        return linear(query, w_q, b_q), k, v
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    q, k, v = (
        linear(x, w, b)
        for x, w, b in zip((query, key, value), weight.chunk(3), biases, strict=True)
    )
    return q, k, v


def _separate(
    query: Tensor, key: Tensor, value: Tensor, own: Projections
) -> tuple[Tensor, Tensor, Tensor]:
    if tuple(key.shape[:2]) != tuple(value.shape[:2]):
        raise AssertionError(
            f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
        )
    biases = (None,) * 3 if own.bias is None else own.bias.chunk(3)
    weights = own.q_weight, own.k_weight, own.v_weight
    embed, found = query.shape[-1], []
    for name, x, w, b in zip(
        ("query", "key", "value"), (query, key, value), weights, biases, strict=True
    ):
        if w is None:
            raise AssertionError(
                f"use_separate_proj_weight is True but {name[0]}_proj_weight is None"
            )
        if tuple(w.shape) != (embed, x.shape[-1]):
            raise AssertionError(
                f"expecting {name} weights shape of {(embed, x.shape[-1])}, but got {w.shape}"
            )
        if b is not None and tuple(b.shape) != (embed,):
            raise AssertionError(f"expecting {name} bias shape of {(embed,)}, but got {b.shape}")
        found.append(linear(x, w, b))
    return found[0], found[1], found[2]


def _with_bias(
    k: Tensor, v: Tensor, mask: Tensor | None, own: Projections, batch_axis: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    bias_k, bias_v = own.bias_k, own.bias_v
    if bias_k is None or bias_v is None:
        if bias_k is not None or bias_v is not None:
            given, missing = ("bias_k", "bias_v") if bias_v is None else ("bias_v", "bias_k")
            raise AssertionError(f"{given} is set but {missing} is None")
        return k, v, mask
    for name, static in (("key", own.static_k), ("value", own.static_v)):
        if static is not None:
            raise AssertionError(f"bias cannot be added to static {name}.")
    places = [1, 1]
    places[batch_axis] = k.shape[batch_axis]
    k, v = (cat([t, b.repeat(*places, 1)], 1 - batch_axis) for t, b in ((k, bias_k), (v, bias_v)))
    return k, v, _one_more(mask)


def _heads(x: Tensor, heads: int, batch_axis: int) -> Tensor:
    """[L, N, E] or [N, L, E] as [N, heads, L, E / heads]."""
    split = x.reshape((*x.shape[:2], heads, x.shape[2] // heads))
    return split.permute((0, 2, 1, 3) if batch_axis == 0 else (1, 2, 0, 3))


def _static(given: Tensor, name: str, n: int, heads: int, embed: int) -> Tensor:
    for axis, expected in ((0, n * heads), (2, embed // heads)):
        if given.shape[axis] != expected:
            raise AssertionError(
                f"expecting {name}.size({axis}) of {expected}, but got {given.shape[axis]}"
            )
    return given.reshape((n, heads, *given.shape[1:]))


def _shares(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * math.sqrt(1.0 / q.shape[-1])).matmul(k.transpose(-2, -1))
    return softmax(scores if mask is None else scores + mask, -1)


# checks -------------------------------------------------------------------------------------------


def _batch_of_one(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each with a batch dim; what was one tensor stays one."""
    made = {id(t): t.unsqueeze(1) for t in tensors}
    return tuple(made[id(t)] for t in tensors)


def _is_batched(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    padding: Tensor | None,
    attn: Tensor | None,
    heads: int,
) -> bool:
    rank = query.dim()
    if rank not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor"
        )
    what = f"For {'batched' if rank == 3 else 'unbatched'} ({rank}-D) `query`, expected"
    if key.dim() != rank or value.dim() != rank:
        raise AssertionError(
            f"{what} `key` and `value` to be {rank}-D but found {key.dim()}-D and "
            f"{value.dim()}-D tensors respectively"
        )
    if padding is not None and padding.dim() != rank - 1:
        raise AssertionError(
            f"{what} `key_padding_mask` to be `None` or {rank - 1}-D but found "
            f"{padding.dim()}-D tensor instead"
        )
    if attn is not None and attn.dim() not in (2, 3):
        raise AssertionError(
            f"{what} `attn_mask` to be `None`, 2-D or 3-D but found {attn.dim()}-D tensor instead"
        )
    if attn is not None and rank == 2 and attn.dim() == 3:
        expected = (heads, query.shape[0], key.shape[0])
        if tuple(attn.shape) != expected:
            raise AssertionError(
                f"Expected `attn_mask` shape to be {expected} but got {attn.shape}"
            )
    return rank == 3


def _check_embedding(embed: int, expected: int, heads: int) -> None:
    if embed != expected:
        raise AssertionError(f"was expecting embedding dimension of {expected}, but got {embed}")
    if embed % heads:
        raise AssertionError(f"embed_dim {embed} not divisible by num_heads {heads}")
