"""Sums, means and maxima over bags of rows of a table."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ..._deferred.storage import recorder
from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS, check_places
from ..._settings import warn_user
from ...autograd.keeps import keeps_as_one, shown_as
from ._common import constant_like, where
from .sparse import embedding, renormalize

FLOATS = ("float16", "bfloat16", "float32", "float64")


@shown_as("EmbeddingBag")
@keeps_as_one("input weight offsets per_sample_weights")
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """[B, D]: the rows of `weight` [V, D] that each of B bags of indices picks: their sum, mean or
    maximum.

    Args:
        input: indices [B, L], a bag a row, or [N] with `offsets`.
        offsets: [B], where in `input` each bag starts; the first is 0. With `include_last_offset`
            [B + 1], the last being where the last bag ends.
        max_norm: rows that are looked up are first scaled down, in place, to this `norm_type` norm.
        scale_grad_by_freq: divide a row's gradient by how often it occurs in `input`.
        mode: "sum", "mean" or "max"; an empty bag gives zeros.
        sparse: the gradient of `weight` is a sparse tensor, as that of `embedding`.
        per_sample_weights: of the shape of `input`, factors of the rows; mode "sum" only.
        padding_idx: an index that counts as not being there.

    Raises:
        ValueError, RuntimeError, NotImplementedError: shapes, dtypes or options do not fit.
        IndexError: an index is out of range; when the graph runs.
    """
    if weight.dtype.name == "int64" and input.dtype.is_floating_point:
        warn_user(
            "Argument order of nn.functional.embedding_bag was changed. Usage "
            "`embedding_bag(weight, input, ...)` is deprecated, and should now be "
            "`embedding_bag(input, weight, ...)`.",
        )
        weight, input = input, weight
    _check_shapes(input, weight, offsets, per_sample_weights)
    _check_options(mode, scale_grad_by_freq, sparse, per_sample_weights)
    _check_dtypes(input, weight, offsets, per_sample_weights)
    padding_idx = _padding_row(padding_idx, weight.shape[0])
    flat = input.reshape(-1)
    bags: Fixed | Ragged
    if offsets is None:
        bags = Fixed(input)
    else:
        _check_offsets(offsets, flat.shape[0])
        bags = Ragged(offsets.long(), flat.shape[0], include_last_offset)
    check_places(
        flat,
        weight.shape[0],
        f"Index {{}} of input is not in the valid range [0, {weight.shape[0]})",
        "runtime",
    )
    if max_norm is not None:
        renormalize(weight, flat, max_norm, norm_type)
    rows = embedding(flat, weight, padding_idx, None, norm_type, scale_grad_by_freq, sparse)
    # 16-bit floats are rounded once, at the end
    rows = rows.float() if rows.dtype.itemsize == 2 else rows
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape((-1, 1)).to(rows.dtype)
    kept = None if padding_idx is None else (flat != padding_idx).unsqueeze(1)
    if mode == "max":
        return _nothing_where_empty(bags.largest(rows, kept), bags, kept).to(weight.dtype)
    total = bags.total(rows if kept is None else where(kept, rows, constant_like(rows, 0)))
    if mode == "mean":
        total = total / bags.count(kept).clamp(min=1).to(total.dtype)
    return total.to(weight.dtype)


def _nothing_where_empty(values: Tensor, bags: Bags, kept: Tensor | None) -> Tensor:
    return where(bags.count(kept) > 0, values, constant_like(values, 0))


class Bags(Protocol):
    """How indices lie in bags. All take one row for each index."""

    def total(self, rows: Tensor) -> Tensor:
        """[B, D]: the sums over bags of rows [N, D]."""
        ...

    def count(self, kept: Tensor | None) -> Tensor:
        """[B, 1]: the number of indices in each bag; of those that `kept` [N, 1] says, if any."""
        ...

    def largest(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        """[B, D]: the maxima over bags; anything where a bag is empty."""
        ...


class Fixed:
    """Bags of one length, the rows of `input`."""

    def __init__(self, input: Tensor):
        self.bags, self.length = input.shape
        if self.length == 0:
            raise RuntimeError(
                "embedding_bag: step must be nonzero: the bags of a 2-D input have a length "
                "of 0; pass a 1-D input with offsets for empty bags"
            )
        self._place = input.device

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape((self.bags, self.length, x.shape[1]))

    def total(self, rows: Tensor) -> Tensor:
        return self._split(rows).sum(1)

    def count(self, kept: Tensor | None) -> Tensor:
        if kept is None:
            return FUNCTIONS["full"]((self.bags, 1), self.length, device=self._place)
        return self._split(kept.long()).sum(1)

    def largest(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        if kept is not None:
            rows = where(kept, rows, constant_like(rows, -math.inf))
        return self._split(rows).max(1).values


class Ragged:
    """Bags that start at `offsets`; what comes after the last bag belongs to none."""

    def __init__(self, offsets: Tensor, total: int, include_last: bool):
        self.length = total
        self.bags = offsets.shape[0] - 1 if include_last else offsets.shape[0]
        # one is added where a bag starts, so that a sum up to a position tells in which bag it is
        marks = offsets.new_zeros(total + 1).index_add(
            0, offsets, offsets.new_ones(offsets.shape[0])
        )
        self.bag = marks.cumsum(0)[:total] - 1
        if not self.bags and not include_last:
            self.bag = offsets.new_zeros(total)

    def total(self, rows: Tensor) -> Tensor:
        return rows.new_zeros((self.bags + 1, rows.shape[1])).index_add(0, self.bag, rows)[
            : self.bags
        ]

    def count(self, kept: Tensor | None) -> Tensor:
        ones = self.bag.new_ones((self.length, 1)) if kept is None else kept.long()
        return self.total(ones)

    def largest(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        """Sorted by value and then, keeping that order, by bag: the first of each bag is its
        maximum."""
        if not self.length or not self.bags:
            return rows.new_zeros((self.bags, rows.shape[1]))
        bag = self.bag.unsqueeze(1)
        if kept is not None:
            bag = where(kept, bag, self.bags)
        order = rows.detach().sort(0, True, stable=True).indices
        by_bag = bag.expand(rows.shape).gather(0, order).sort(0, stable=True).indices
        counts = self.count(kept)
        starts = (
            (counts.cumsum(0) - counts)
            .clamp(max=self.length - 1)
            .expand((self.bags, rows.shape[1]))
        )
        return rows.gather(0, order.gather(0, by_bag.gather(0, starts)))


# checks -------------------------------------------------------------------------------------------


def _check_shapes(input: Tensor, weight: Tensor, offsets: Any, weights: Tensor | None) -> None:
    if weights is not None and tuple(input.shape) != tuple(weights.shape):
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({weights.shape}) is not None, then it must "
            f"have the same shape as the input ({input.shape})"
        )
    if weight.dim() != 2:
        raise ValueError(
            f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}"
        )
    if input.dim() not in (1, 2):
        raise ValueError(
            f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}"
        )
    if input.dim() == 2 and offsets is not None:
        raise ValueError(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch "
            "of fixed length sequences. However, found offsets of type "
            f"{type(offsets)}"
        )
    if input.dim() == 1 and (offsets is None or offsets.dim() != 1):
        raise ValueError(
            "offsets has to be a 1D Tensor"
            + (" but got None" if offsets is None else f", got {offsets.dim()} dimensions")
        )


def _check_options(mode: str, by_frequency: bool, sparse: bool, weights: Tensor | None) -> None:
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode has to be one of sum, mean or max, got {mode!r}")
    if mode == "max" and by_frequency:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    if weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is "
            f"only supported for mode='sum' (got mode='{mode}')"
        )


def _check_dtypes(
    input: Tensor, weight: Tensor, offsets: Tensor | None, weights: Tensor | None
) -> None:
    for name, given, allowed in (
        ("indices", input, ("int64", "int32")),
        ("offsets", offsets, ("int64", "int32")),
        ("weight", weight, FLOATS),
    ):
        if given is not None and given.dtype.name not in allowed:
            raise RuntimeError(
                f"Expected tensor for argument #1 '{name}' to have one of the following "
                f"scalar types: {', '.join(allowed)}; but got {given.dtype} instead "
                "(while checking arguments for embedding_bag)"
            )
    if weights is not None and weights.dtype != weight.dtype:
        raise RuntimeError(
            "Expected tensor for argument #1 'weight' to have the same type as tensor for "
            f"argument #1 'per_sample_weights'; but type {weight.dtype} does not "
            f"equal {weights.dtype} (while checking arguments for embedding_bag)"
        )


def _padding_row(padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise RuntimeError(
            f"padding_idx must be within the number of embeddings, -{rows} through "
            f"{rows - 1}, but got {padding_idx}"
        )
    return padding_idx % rows


def _check_offsets(offsets: Tensor, length: int) -> None:
    """What the values of `offsets` have to be; inside a captured function an index out of range
    tells."""
    if recorder.capture is not None or not offsets.shape[0] or offsets.is_meta:
        return
    first, last = offsets[0].item(), offsets[-1].item()
    if first != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start "
            f"from position 0. However, got {first}"
        )
    if last > length:
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length {length} but got offsets[-1] "
            f"of {last}"
        )
