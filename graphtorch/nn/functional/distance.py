"""Distances and similarities between vectors."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.autocast import single_precision_on_gpus
from ..._ops.base import FUNCTIONS, check_tensor, rounded_once
from ...autograd.keeps import keeps_as_one
from ._common import vector_norm


@rounded_once
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """||x1 - x2 + eps||_p along the last dim."""
    check_tensor("pairwise_distance", "x1", x1)
    check_tensor("pairwise_distance", "x2", x2, 2)
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


@single_precision_on_gpus
@rounded_once
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(||x1||, eps) max(||x2||, eps)) along `dim`."""
    for x in (x1, x2):
        if not x.dtype.is_floating_point:
            raise RuntimeError(
                f"expected common dtype to be floating point, yet common dtype is {x.dtype}"
            )
    x1, x2 = FUNCTIONS["broadcast_tensors"](x1, x2)
    norms = [vector_norm(x, 2, dim, True).clamp(min=eps) for x in (x1, x2)]
    return ((x1 / norms[0]) * (x2 / norms[1])).sum(dim)


@single_precision_on_gpus
def normalize(
    input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """x / max(||x||_p, eps) along `dim`."""
    result = _normalized(input, p, dim, eps)
    return result if out is None else out.copy_(result)


@rounded_once
def _normalized(x: Tensor, p: float, dim: Any, eps: float) -> Tensor:
    return x / vector_norm(x, p, dim, True).clamp(min=eps)


@keeps_as_one("input result")
@single_precision_on_gpus
@rounded_once
def pdist(input: Tensor, p: float = 2) -> Tensor:
    """p-norm distances between all pairs of rows of [N, M], in the order (0,1), (0,2), ..., (1,2),
    ..."""
    if input.dim() != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.dim()}D")
    if p < 0:
        raise RuntimeError(f"pdist only supports non-negative p values, got {p}")
    n = input.shape[0]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    if not pairs:
        return input.new_zeros(0) + input.sum() * 0  # of a graph, as every result
    rows, columns = FUNCTIONS["tensor"](pairs, device=input.device).unbind(1)
    return vector_norm(input.index_select(0, rows) - input.index_select(0, columns), p, -1, False)
