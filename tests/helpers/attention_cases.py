"""Cases of the attention ops for the table of tensor ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import cast_to, full, wide_dtype
from tensor_cases import Case, T

SCALE = 0.4
SEEN = np.array([[True, False, True, False], [False, True, False, False], [True] * 4])


def in_torch(causal: bool) -> Any:
    def attention(q: Any, k: Any, v: Any, *mask: Any) -> Any:
        torch = T()
        scores = q @ k.transpose(-1, -2) * SCALE
        seen = torch.ones_like(scores[0, 0], dtype=torch.bool).tril() if causal else None
        for m in mask:
            seen, scores = (m, scores) if m.dtype is torch.bool else (None, scores + m)
        if seen is not None:
            scores = scores.masked_fill(~seen, -math.inf)
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, *mask, is_causal=causal, scale=SCALE
        )
        return out, scores.logsumexp(-1)

    return attention


def out_and_lse(*x: Value, causal: bool) -> tuple[Value, Value]:
    """Both in the dtype of the operands, so that each gets a cotangent or none does."""
    out, lse = ops.attention(*x, scale=SCALE, is_causal=causal)
    return out, cast_to(lse, out.dtype)


def grad(q: Value, k: Value, v: Value, g: Value, *rows: Value) -> Any:
    rows = tuple(cast_to(r, wide_dtype(q.dtype)) for r in rows)
    return ops.attention_grad(q, k, v, g, *rows, scale=SCALE, is_causal=True)


def dropped(q: Value, k: Value, v: Value, *mask: Value) -> tuple[Value, Value]:
    """Both in the dtype of the operands, as above."""
    out, lse = ops.dropped_attention(q, k, v, *drawn(), *mask, scale=SCALE, kept=0.7)
    return out, cast_to(lse, out.dtype)


def dropped_grad(q: Value, k: Value, v: Value, g: Value, *rows: Value) -> Any:
    rows = tuple(cast_to(r, wide_dtype(q.dtype)) for r in rows)
    given = (q, k, v, g, *rows, *drawn())
    return ops.dropped_attention_grad(*given, scale=SCALE, is_causal=True, kept=0.7)


def drawn() -> tuple[Value, Value]:
    """A seed and an offset."""
    return full((), 5, i64), full((), 8, i64)


def attention(
    name: str,
    *shapes: tuple[int, ...],
    causal: bool = False,
    masks: tuple[Any, ...] = (),
    symbolic: tuple[tuple[int, int], ...] = (),
) -> Case:
    return Case(
        f"attention {name}".strip(),
        shapes,
        lambda *x: out_and_lse(*x, causal=causal),
        in_torch(causal),
        masks,
        symbolic,
    )


LENGTHS = (0, 2), (1, 2), (2, 2)
ATTENTION = [
    attention("", (2, 1, 3, 2), (1, 2, 4, 2), (2, 2, 4, 3), symbolic=(*LENGTHS, (0, 0), (2, 0))),
    attention("causal", (1, 2, 4, 2), (1, 2, 3, 2), (1, 2, 3, 2), causal=True, symbolic=LENGTHS),
    attention(
        "boolean mask",
        (1, 2, 3, 2),
        (1, 2, 4, 2),
        (1, 2, 4, 3),
        masks=(SEEN,),
        symbolic=((0, 0), (1, 0)),
    ),
    attention("added mask", (1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 3), (2, 1, 4)),
    Case(
        "attention_grad",
        ((2, 2, 3, 2), (2, 1, 4, 2), (2, 2, 4, 3), (2, 2, 3, 3), (2, 2, 3), (2, 2, 3)),
        grad,
        symbolic=tuple((i, 0) for i in range(6)),
    ),
    Case("dropped_attention", ((2, 1, 3, 2), (1, 2, 4, 2), (2, 2, 4, 3)), dropped),
    Case(
        "dropped_attention added mask",
        ((1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 3), (2, 1, 4)),
        dropped,
    ),
    Case(
        "dropped_attention_grad",
        ((2, 2, 3, 2), (2, 1, 4, 2), (2, 2, 4, 3), (2, 2, 3, 3), (2, 2, 3), (2, 2, 3)),
        dropped_grad,
    ),
]
