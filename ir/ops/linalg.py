"""Matrix products."""

from __future__ import annotations

import numpy as np

from ..graph import Node, Type, Value
from ..op import Attrs, Op
from ..shape import broadcast
from .checks import listed
from .common import NUMERIC, check_domain, check_same_dtype, conj, ops, sum_to, swap_last, wide

__all__ = ["matmul"]


def _matmul_infer(attrs: Attrs, a: Type, b: Type) -> tuple[Type, ...]:
    check_domain("matmul", a, NUMERIC)
    check_same_dtype("matmul", a, b)
    if a.rank < 2 or b.rank < 2:
        raise RuntimeError(
            f"matmul: both arguments need at least 2 dimensions, but they have shapes {listed(a.shape)} "
            f"and {listed(b.shape)}: reshape vectors to matrices"
        )
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({a.shape[-2]}x{a.shape[-1]} and "
            f"{b.shape[-2]}x{b.shape[-1]}): got {listed(a.shape)} and {listed(b.shape)}"
        )
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return (a.with_shape((*batch, a.shape[-2], b.shape[-1])),)


def _matmul_vjp(node: Node, g: Value) -> tuple[Value, Value]:
    a, b = node.operands
    ga = ops.matmul(g, swap_last(conj(b)))
    gb = ops.matmul(swap_last(conj(a)), g)
    return sum_to(ga, a.shape), sum_to(gb, b.shape)


matmul = Op(
    "matmul",
    "Matrix products of a [*B, m, k] and b [*B, k, n]; batch dimensions broadcast.",
    ("a", "b"),
    infer=_matmul_infer,
    vjp=_matmul_vjp,
    reference=lambda attrs, a, b: np.matmul(wide(a), wide(b)).astype(a.dtype),
)
