"""The attention kernel: blocks of queries and keys of all sizes, masks, dtypes, symbolic sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiled import check, graph_of, lowered_text, run
from graphtorch.backends.cpu.supports import supports
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol

RNG = np.random.default_rng(1)


def attend(*operands: Any, **attrs: Any) -> Any:
    out, lse = ops.attention(*operands, scale=0.25, **attrs)
    assert supports(out.node), "the kernel takes it whole"
    return out, lse


def qkv(
    batch: tuple[int, ...], length: int, keys: int, size: int, width: int, dtype: Any = np.float32
) -> list[Any]:
    shapes = (*batch, length, size), (*batch, keys, size), (*batch, keys, width)
    return [RNG.standard_normal(s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("length", "keys", "size", "width"),
    [
        (4, 1, 1, 1),
        (7, 5, 8, 3),
        (16, 128, 16, 16),
        (33, 140, 8, 20),
        (40, 300, 12, 64),
        (64, 256, 4, 8),
    ],
)
def test_sizes(length: int, keys: int, size: int, width: int, causal: bool) -> None:
    check(lambda *x: attend(*x, is_causal=causal), qkv((2,), length, keys, size, width))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    arrays = qkv((1, 2), 20, 150, 8, 12, kind)
    check(lambda *x: attend(*x, is_causal=True), arrays)
    check(attend, [*arrays, RNG.standard_normal((20, 150)).astype(kind)])


MASKS = {
    "padding": RNG.random((2, 1, 1, 150)) > 0.5,
    "each": RNG.random((2, 3, 37, 150)) > 0.5,
    "rows": RNG.random((37, 1)) > 0.5,
    "added": RNG.standard_normal((3, 37, 150)).astype(np.float32),
    "infinite": np.where(RNG.random((37, 150)) > 0.9, 0, -np.inf).astype(np.float32),
}
# a blind row, and a blind first block
MASKS["each"][0, 0, 5] = MASKS["each"][1, 2, :, :128] = False


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks(mask: np.ndarray) -> None:
    check(attend, [*qkv((2, 3), 37, 150, 8, 8), mask])


def test_large_scores_do_not_overflow_and_nan_stays_in_its_rows() -> None:
    q, k, v = qkv((1,), 5, 140, 4, 4)
    check(attend, [q * 1e4, k * 1e4, v])
    q[0, 2, 1] = np.nan
    out, lse = run(graph_of(attend, [(f32, a.shape) for a in (q, k, v)]), [q, k, v])
    assert np.isnan(out[0, 2]).all() and np.isnan(lse[0, 2])
    assert np.isfinite(np.delete(out[0], 2, 0)).all()


def test_batches_broadcast() -> None:
    q, k, v = (
        RNG.standard_normal(s).astype(np.float32) for s in ((2, 1, 9, 4), (3, 11, 4), (1, 3, 11, 5))
    )
    check(attend, [q, k, v])


@pytest.mark.parametrize("causal", [False, True])
def test_symbolic_sizes(causal: bool) -> None:
    n, length, keys = symbol("n", 1, 8), symbol("l", 1, 999), symbol("s", 1, 999)
    shapes = (n, 2, length, 8), (n, 2, keys, 8), (n, 2, keys, 8), (n, 1, length, keys)
    graph = graph_of(
        lambda *x: attend(*x[: 3 if causal else 4], is_causal=causal), [(f32, s) for s in shapes]
    )
    for a, b, c in ((1, 1, 1), (2, 33, 300), (3, 5, 128)):
        arrays = [*qkv((a, 2), b, c, 8, 8), RNG.standard_normal((a, 1, b, c)).astype(np.float32)]
        for found, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def gradients(*operands: Any, **attrs: Any) -> Any:
    """Of the sum of the squares of the result."""
    out, _ = attend(*operands, **attrs)
    found = vjp([out], [out], operands[:3])
    assert all(
        g is not None and supports(g.node) and g.node.op.name == "attention_grad" for g in found
    )
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("length", "keys", "size", "width"),
    [(4, 1, 1, 1), (7, 5, 8, 3), (16, 128, 16, 32), (70, 40, 8, 20), (130, 65, 12, 16)],
)
def test_gradients(length: int, keys: int, size: int, width: int, causal: bool) -> None:
    check(lambda *x: gradients(*x, is_causal=causal), qkv((2, 2), length, keys, size, width))
    check(
        lambda *x: gradients(*x, is_causal=causal), qkv((1,), length, keys, size, width, np.float64)
    )


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_gradients_with_masks(mask: np.ndarray) -> None:
    check(gradients, [*qkv((2, 3), 37, 150, 8, 8), mask])


def test_gradients_of_symbolic_sizes() -> None:
    n, length, keys = symbol("n", 1, 8), symbol("l", 1, 999), symbol("s", 1, 999)
    graph = graph_of(gradients, [(f32, s) for s in ((n, length, 8), (n, keys, 8), (n, keys, 8))])
    for a, b, c in ((1, 1, 1), (2, 133, 70)):
        arrays = qkv((a,), b, c, 8, 8)
        for found, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(found, expected, 1e-4, 1e-5)


def split_heads(x: Any, features: int = 8) -> list[Any]:
    """Queries, keys and values [n, 2, l, features] as they lie in a projection [n, l, 6 *
    features]."""
    n, length, width = x.shape
    parts = [
        ops.slice(x, start=(0, 0, i), stop=(n, length, i + width // 3), step=(1, 1, 1))
        for i in range(0, width, width // 3)
    ]
    return [
        ops.permute(ops.reshape(p, shape=(n, length, 2, features)), dims=(0, 2, 1, 3))
        for p in parts
    ]


@pytest.mark.parametrize("what", [attend, gradients], ids=["result", "gradients"])
def test_views_are_read_where_they_lie(what: Any) -> None:
    x = RNG.standard_normal((2, 37, 48)).astype(np.float32)
    check(lambda x: what(*split_heads(x)), [x])
    n = symbol("n", 1, 64)
    check(lambda x: what(*split_heads(x)), [x], [(n, 37, 48)])
    text = lowered_text(lambda x: attend(*split_heads(x)), [(f32, x.shape)])
    assert next(x for x in text.splitlines() if x.startswith("kernel")).startswith(
        "kernel attention"
    )


def test_views_that_are_not_contiguous_at_the_end_are_copied() -> None:
    q, k, v = (RNG.standard_normal((2, 8, n)).astype(np.float32) for n in (20, 30, 30))
    check(lambda *x: attend(*(ops.permute(y, dims=(0, 2, 1)) for y in x)), [q, k, v])
    mask = RNG.random((30, 20)) > 0.5
    check(
        lambda *x: attend(
            *(ops.permute(y, dims=(0, 2, 1)) for y in x[:3]), ops.permute(x[3], dims=(1, 0))
        ),
        [q, k, v, mask],
    )


def test_what_is_left_to_other_kernels() -> None:
    for shapes in (
        ((1, 4), (9, 4), (9, 4)),
        ((9, 4), (0, 4), (0, 4)),
        ((9, 1000), (9, 1000), (9, 4)),
    ):
        arrays = [RNG.standard_normal(s).astype(np.float32) for s in shapes]
        check(lambda *x: ops.attention(*x, scale=0.5), arrays)


def test_text(golden: Any) -> None:
    golden(
        "attention_causal",
        lowered_text(
            lambda *x: ops.attention(*x, scale=0.5, is_causal=True)[0],
            [(f32, (2, 64, 16)), (f32, (2, 64, 16)), (f32, (2, 64, 16))],
        ),
    )
