"""The cross entropy of a linear layer's output.

https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear_cross_entropy.html
"""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.accept import accepting
from .conv import linear
from .loss import IGNORE, cross_entropy


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``.

    Args:
        input: [in_features] or [n, in_features].
        linear_weight: [classes, *rest, in_features]; linear_bias: [classes, *rest].
        target: [*rest] or [n, *rest] integers, or probabilities of the logits' shape, [n, classes,
            *rest].
        ignore_index: a class that does not count, -100 unless given.
        options: how PyTorch computes it piece by piece; numbers do not depend on it here.

    Raises: RuntimeError: shapes that do not fit; `ignore_index` with probabilities.
    """
    _check_shapes(input, linear_weight, linear_bias)
    classes, rest = linear_weight.shape[0], tuple(linear_weight.shape[1:-1])
    shape = (*input.shape[:-1], classes, *rest)
    if tuple(target.shape) == shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    logits = linear(
        input,
        linear_weight.reshape(-1, input.shape[-1]),
        None if linear_bias is None else linear_bias.reshape(-1),
    )
    return cross_entropy(
        logits.reshape(shape),
        target,
        weight=weight,
        reduction=reduction,
        ignore_index=IGNORE if ignore_index is None else ignore_index,
        label_smoothing=label_smoothing,
    )


def _check_shapes(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if input.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    if weight.dim() < 2:
        raise RuntimeError(
            f"expected linear_weight with dimensionality at least 2, got {weight.dim()}"
        )
    if input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), got "
            f"{input.shape[-1]} and {weight.shape[-1]}, respectively"
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise RuntimeError(
            f"expected linear_bias shape {tuple(weight.shape[:-1])}, got {tuple(bias.shape)}"
        )
    if weight.dim() > 2 and input.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(weight.shape)} requires "
            f"batched input, (N, {input.shape[-1]}), got unbatched input with shape "
            f"{tuple(input.shape)}"
        )


linear_cross_entropy = accepting(
    "linear_cross_entropy", linear_cross_entropy, "graphtorch.nn.functional"
)
