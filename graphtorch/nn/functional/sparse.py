"""Look-up of rows by index."""

from __future__ import annotations

from typing import Any

from ..._deferred.storage import recorder
from ..._deferred.tensor import Tensor
from ..._ops.base import check_places, elements_for_size
from ..._ops.sparse import row_gradient
from ...autograd import Function, no_grad
from ...autograd.keeps import shown_as
from ._common import constant_like, vector_norm, where


@shown_as("Embedding")
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` [V, D] picked by integer `input` of any shape: [*input.shape, D].

    Args:
        padding_idx: a row that gets no gradient.
        max_norm: rows that are looked up are first scaled down, in place, to this `norm_type` norm.
        scale_grad_by_freq: divide a row's gradient by how often it occurs in `input`.
        sparse: the gradient of `weight` is a sparse tensor with the looked-up rows (dense where the
            forward pass alone was compiled).

    An index out of range raises IndexError when the graph runs.
    """
    if input.dtype.is_floating_point or input.dtype.is_complex or str(input.dtype).endswith("bool"):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar "
            f"types: Long, Int; but got {input.dtype} instead (while checking "
            "arguments for embedding)"
        )
    if weight.dim() != 2:
        raise RuntimeError(f"'weight' must be 2-D, got {list(weight.shape)}")
    padding_idx = _row(padding_idx, weight.shape[0])
    flat = input.reshape(-1)
    if max_norm is not None:
        renormalize(weight, flat, max_norm, norm_type)
    if sparse and weight.requires_grad:
        if scale_grad_by_freq:
            raise RuntimeError(
                "embedding_backward: scale_grad_by_freq not supported with sparse gradients"
            )
        rows = SparseRows.apply(weight, flat, padding_idx)
        return rows.reshape((*input.shape, weight.shape[1]))
    rows = weight.index_select(0, flat)
    if padding_idx is not None:
        rows = where((flat == padding_idx).unsqueeze(1), rows.detach(), rows)
    if scale_grad_by_freq:
        counts = (flat.unsqueeze(0) == flat.unsqueeze(1)).to(weight.dtype).sum(1, keepdim=True)
        rows = rows.detach() + (rows - rows.detach()) / counts
    return rows.reshape((*input.shape, weight.shape[1]))


class SparseRows(Function):
    """Rows of `weight` [V, D] at `index` [n], with a sparse gradient; none for the row
    `padding`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor, padding: int | None) -> Tensor:
        ctx.index, ctx.padding, ctx.size = index, padding, tuple(weight.shape)
        return weight.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        index = ctx.index
        if ctx.padding is not None:
            kept = index != ctx.padding
            if recorder.capture is None:
                index, gradient = index[kept], gradient[kept]
            else:  # how many are kept depends on data: zeros stay in
                gradient = where(kept.unsqueeze(1), gradient, constant_like(gradient, 0))
        return row_gradient(gradient, index, ctx.size), None, None


def _row(padding_idx: int | None, count: int) -> int | None:
    if padding_idx is None:
        return None
    if not -count <= padding_idx < count:
        raise AssertionError(
            f"Padding_idx must be within num_embeddings: got {padding_idx} for {count} rows"
        )
    return padding_idx % count


def renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows at `index` whose norm exceeds `max_norm` down to it, in place."""
    with no_grad():
        rows = weight.detach().index_select(0, index)
        norm = vector_norm(rows, norm_type, 1, True)
        scale = where(norm > max_norm, max_norm / (norm + 1e-7), constant_like(norm, 1))
        weight.detach().index_copy_(0, index, rows * scale)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """i64 [*, num_classes] with a one at each index; -1 takes the largest index plus one.

    Raises RuntimeError for indices that are not int64, negative or too large, and for an unknown
    number of classes of an empty tensor.
    """
    if not str(tensor.dtype).endswith("int64"):
        raise RuntimeError(
            f"one_hot is only applicable to index tensor of type LongTensor, got {tensor.dtype}"
        )
    if tensor.numel() == 0:
        if num_classes <= 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        return tensor.new_zeros((*tensor.shape, num_classes))
    if num_classes == -1:
        num_classes = int(elements_for_size("one_hot", tensor, "give num_classes").max()) + 1
    if num_classes < 1:
        raise RuntimeError(f"num_classes should be positive, got {num_classes}")
    check_places(
        tensor,
        num_classes,
        "Class values must be non-negative and smaller than num_classes: got {}"
        f" for num_classes={num_classes}",
        "runtime",
    )
    zeros = tensor.new_zeros((*tensor.shape, num_classes))
    return zeros.scatter(-1, tensor.unsqueeze(-1), 1)
