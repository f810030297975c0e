"""Attention's corners: rows that see nothing, no keys, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluation import apply
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, boolean, f16, f32, f64, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.autodiff import vjp

RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal((2, n, 2)) for n in (3, 4, 4))
# the middle row sees nothing
BLIND = np.array([[True, False, True, False], [False] * 4, [True] * 4])


@pytest.mark.parametrize("mask", [BLIND, np.where(BLIND, 0.5, -np.inf)], ids=["boolean", "added"])
def test_a_row_that_sees_nothing_is_zero_and_gives_no_gradient(mask: np.ndarray) -> None:
    arrays = [Q, K, V, mask]
    values = [Value(Type(DType.of(a.dtype), a.shape), name=f"x{i}") for i, a in enumerate(arrays)]
    out, lse = ops.attention(*values, scale=0.5)
    gradients = vjp([out], [out], values[:3])
    made, rows, gq, gk, gv = evaluate(Graph("g", values, [out, lse, *gradients]), arrays)
    assert (made[:, 1] == 0).all() and (rows[:, 1] == -np.inf).all() and (gq[:, 1] == 0).all()
    seeing = [0, 2]
    kept = [Q[:, seeing], K, V, mask[seeing]]
    values = [Value(Type(DType.of(a.dtype), a.shape), name=f"x{i}") for i, a in enumerate(kept)]
    out, lse = ops.attention(*values, scale=0.5)
    want = evaluate(Graph("g", values, [out, lse, *vjp([out], [out], values[:3])]), kept)
    for found, expected in zip(
        (made[:, seeing], rows[:, seeing], gq[:, seeing], gk, gv), want, strict=True
    ):
        np.testing.assert_allclose(found, expected, 1e-12, 1e-12)


def test_without_keys_the_result_is_zero() -> None:
    out, lse = apply(ops.attention, Q, K[:, :0], V[:, :0], scale=1.0)
    assert out.shape == (2, 3, 2) and (out == 0).all() and (lse == -np.inf).all()


def v(*shape: int, dtype: DType = f32) -> Value:
    return Value(Type(dtype, shape), name="x")


def attend(*operands: Value) -> Any:
    return ops.attention(*operands, scale=1.0)


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: attend(v(3), v(4, 2), v(4, 2)), RuntimeError, "at least 2 dimensions"),
    (lambda: attend(v(3, 2), v(4, 3), v(4, 2)), RuntimeError, "same size in the last dimension"),
    (
        lambda: attend(v(3, 2), v(4, 2), v(5, 2)),
        RuntimeError,
        r"same length .* \[4, 2\] and \[5, 2\]",
    ),
    (lambda: attend(v(3, 2), v(4, 2, dtype=f64), v(4, 2)), RuntimeError, "same dtype"),
    (lambda: attend(*[v(3, 2, dtype=i64)] * 3), NotImplementedError, "not implemented for 'Long'"),
    (lambda: attend(v(3, 2), v(4, 2), v(4, 2), v(3, 5)), RuntimeError, r"broadcast|size of tensor"),
    (
        lambda: attend(v(3, 2), v(4, 2), v(4, 2), v(2, 3, 4)),
        RuntimeError,
        r"broadcasts to .* \[3, 4\]",
    ),
    (
        lambda: attend(v(3, 2), v(4, 2), v(4, 2), v(3, 4, dtype=i64)),
        RuntimeError,
        "attn_mask dtype to be",
    ),
    (
        lambda: ops.attention_grad(v(3, 2), v(4, 2), v(4, 2), v(3, 2), v(4), v(3), scale=1.0),
        RuntimeError,
        r"expected lse f32\[3\]",
    ),
]


@pytest.mark.parametrize(("made", "kind", "words"), REFUSED, ids=[w[:30] for _, _, w in REFUSED])
def test_refused_while_recording(
    made: Callable[[], Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        made()


def test_masks_of_other_dtypes() -> None:
    half = [v(3, 2, dtype=f16), v(4, 2, dtype=f16), v(4, 5, dtype=f16)]
    for dtype in (boolean, f16, f32):
        out, lse = attend(*half, v(1, 4, dtype=dtype))
        assert (out.type, lse.type) == (Type(f16, (3, 5)), Type(f32, (3,)))
