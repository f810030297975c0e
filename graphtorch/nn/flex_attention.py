"""``torch.nn.attention.flex_attention``: attention with a mask and a change of the scores given as
functions.

The functions take indices; here they are called once, with index tensors that broadcast to all
scores. https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._torch.absent import attribute_of
from .._torch.dataclass import dataclass
from .._types import CPU, check_device
from ..accelerator import current_accelerator

_DEFAULT_SPARSE_BLOCK_SIZE = 128
_score_mod_signature = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_mask_mod_signature = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class AuxRequest(NamedTuple):
    """What `flex_attention` is to return beside its output: the logarithm of the sums, the largest
    scores."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """What `AuxRequest` asked for, [B, H, Q] each; None for the rest."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


def noop_mask(batch: Tensor, head: Tensor, token_q: Tensor, token_kv: Tensor) -> Tensor:
    """The mask that keeps everything."""
    return FUNCTIONS["ones_like"](batch + token_q + token_kv).bool()  # type: ignore[no-any-return]


def and_masks(*mask_mods: _mask_mod_signature) -> _mask_mod_signature:
    """The mask that keeps what all of `mask_mods` keep."""
    return lambda b, h, q, kv: _joined([m(b, h, q, kv) for m in mask_mods], "logical_and")


def or_masks(*mask_mods: _mask_mod_signature) -> _mask_mod_signature:
    """The mask that keeps what one of `mask_mods` keeps."""
    return lambda b, h, q, kv: _joined([m(b, h, q, kv) for m in mask_mods], "logical_or")


def _joined(masks: list[Tensor], how: str) -> Tensor:
    found = masks[0]
    for one in masks[1:]:
        found = FUNCTIONS[how](found, one)
    return found


def _indices(sizes: Sequence[int], device: Any) -> list[Tensor]:
    """For each dimension its positions, shaped to broadcast with the others."""
    rank = len(sizes)
    return [
        FUNCTIONS["arange"](s, device=device).reshape(*(-1 if i == d else 1 for i in range(rank)))
        for d, s in enumerate(sizes)
    ]


@dataclass
class BlockMask:
    """Which scores count: ``mask_mod(b, h, q, kv)`` for `shape` [B, H, Q, KV], on a device."""

    shape: tuple[int, int, int, int]
    mask_mod: _mask_mod_signature
    BLOCK_SIZE: tuple[int, int] = (_DEFAULT_SPARSE_BLOCK_SIZE, _DEFAULT_SPARSE_BLOCK_SIZE)
    device: Any = CPU

    def to(self, device: Any) -> BlockMask:
        """For scores on another device; what `mask_mod` reads beside its arguments stays where it
        is."""
        return replace(self, device=check_device(device))

    @property
    def seq_lengths(self) -> tuple[int, int]:
        return self.shape[2], self.shape[3]

    def to_dense(self) -> Tensor:
        """Blocks that have a score that counts: i32 [B, H, blocks of Q, blocks of KV]."""
        b, h, q, kv = self.shape
        whole = [-(-n // size) * size for n, size in zip((q, kv), self.BLOCK_SIZE, strict=True)]
        dense = self.dense()
        mask = dense.new_zeros((b, h, *whole))
        mask[:, :, :q, :kv] = dense
        parts = mask.reshape(
            b, h, whole[0] // self.BLOCK_SIZE[0], self.BLOCK_SIZE[0], -1, self.BLOCK_SIZE[1]
        )
        return parts.any(-1).any(3).int()  # type: ignore[no-any-return]

    def dense(self) -> Tensor:
        """bool [B, H, Q, KV]."""
        return FUNCTIONS["broadcast_to"](
            self.mask_mod(*_indices(self.shape, self.device)), self.shape
        )  # type: ignore

    def sparsity(self) -> float:
        """How many of the blocks have nothing that counts, in percent."""
        return 100.0 * (1 - self.to_dense().float().mean().item())


def _place(given: Any) -> Any:
    """The device of a mask: where none is given, that of the accelerator if there is one."""
    return check_device(current_accelerator() if given is None else given)


def create_mask(
    mod_fn: _mask_mod_signature,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Any = None,
) -> Tensor:
    """The mask as a bool tensor [B, H, Q_LEN, KV_LEN]; None for a size of one."""
    return BlockMask((B or 1, H or 1, Q_LEN, KV_LEN), mod_fn, device=_place(device)).dense()


def create_block_mask(
    mask_mod: _mask_mod_signature,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Any = None,
    BLOCK_SIZE: int | tuple[int, int] = _DEFAULT_SPARSE_BLOCK_SIZE,
    _compile: bool = False,
) -> BlockMask:
    """A mask for `flex_attention`; None for a size of one, which broadcasts."""
    block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else tuple(BLOCK_SIZE)
    return BlockMask((B or 1, H or 1, Q_LEN, KV_LEN), mask_mod, block, _place(device))  # type: ignore[arg-type]


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: _score_mod_signature | None = None,
    block_mask: BlockMask | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: Any = None,
    *,
    return_aux: AuxRequest | None = None,
) -> Any:
    """``softmax(score_mod(query @ key.T * scale) where block_mask) @ value``.

    Args:
        query: [B, Hq, Q, E]. key: [B, Hkv, KV, E]. value: [B, Hkv, KV, Ev].
        scale: 1 / sqrt(E) by default.
        enable_gqa: groups of queries share a key head, Hq a multiple of Hkv.

    Returns:
        [B, Hq, Q, Ev]; rows without a score that counts are zero. With `return_lse` also the
        logarithms of the sums.

    Raises:
        ValueError: numbers of heads that do not fit.
    """
    if query.shape[1] != key.shape[1]:
        if not enable_gqa or query.shape[1] % key.shape[1]:
            raise ValueError(
                "flex_attention: Expect query and key/value to have the same number of heads but "
                f"got Hq={query.shape[1]} and Hkv={key.shape[1]}. Try setting enable_gqa=True for "
                "GQA."
            )
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query.float() @ key.float().transpose(-2, -1)) * (
        1 / math.sqrt(query.shape[-1]) if scale is None else scale
    )
    if score_mod is not None:
        scores = score_mod(scores, *_indices(scores.shape, scores.device))
    if block_mask is not None:
        scores = scores.masked_fill(
            ~block_mask.dense()[:, :, : scores.shape[2], : scores.shape[3]], -math.inf
        )
    best = scores.amax(-1, keepdim=True)
    best = best.masked_fill(best == -math.inf, 0).detach()
    weights = (scores - best).exp()
    total = weights.sum(-1, keepdim=True)
    found = ((weights / total.masked_fill(total == 0, 1)) @ value.float()).to(query.dtype)
    lse = (total.log() + best).squeeze(-1)
    if return_aux is not None:
        return found, AuxOutput(
            lse if return_aux.lse else None, scores.amax(-1) if return_aux.max_scores else None
        )
    return (found, lse) if return_lse else found


__all__ = [
    "AuxOutput",
    "AuxRequest",
    "BlockMask",
    "and_masks",
    "create_block_mask",
    "create_mask",
    "flex_attention",
    "noop_mask",
    "or_masks",
]
__getattr__ = attribute_of(__name__)
