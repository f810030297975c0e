"""First and second derivatives of attention, bags, adaptive softmax, CTC and fractional pooling, in
f64."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as gt
from graphtorch import nn
from graphtorch.autograd import gradcheck, gradgradcheck

F = nn.functional
F64 = gt.float64


def x(*shape: int) -> Any:
    return gt.randn(*shape, dtype=F64)


def heads(query: Any, key: Any, weight: Any) -> Any:
    out = gt.eye(4, dtype=F64)
    return F.multi_head_attention_forward(
        query, key, key, 4, 2, weight, None, None, None, True, 0.0, out, None, need_weights=False
    )[0]


INDEX, STARTS = gt.tensor([1, 4, 2, 2, 0, 1]), gt.tensor([0, 2, 2])
SEEN = gt.tensor([[True, False, True, True]] * 3)
LAYER = {"dim_feedforward": 6, "dropout": 0.0, "activation": "gelu", "dtype": F64}
CASES: dict[str, Any] = {
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SEEN),
        (3, 3),
        (4, 3),
        (4, 2),
    ),
    "causal attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (2, 4, 3),
        (2, 4, 3),
        (2, 4, 2),
    ),
    "added mask": (F.scaled_dot_product_attention, (3, 3), (4, 3), (4, 2), (3, 4)),
    "heads": (heads, (3, 2, 4), (2, 2, 4), (12, 4)),
    "encoder": (nn.TransformerEncoderLayer(4, 2, **LAYER), (3, 2, 4)),
    "decoder": (nn.TransformerDecoderLayer(4, 2, norm_first=True, **LAYER), (3, 2, 4), (2, 2, 4)),
    "bags": (
        lambda w, p: F.embedding_bag(INDEX, w, STARTS, mode="sum", per_sample_weights=p),
        (5, 3),
        (6,),
    ),
    "means of bags": (lambda w: F.embedding_bag(INDEX, w, STARTS, padding_idx=1), (5, 3)),
    "maxima of bags": (lambda w: F.embedding_bag(INDEX, w, STARTS, mode="max"), (5, 3)),
    "adaptive softmax": (lambda y: ADAPTIVE(y, gt.tensor([0, 4, 8])).output, (3, 6)),
    "fractional pool": (
        lambda y: F.fractional_max_pool2d(y, 2, 3, _random_samples=SAMPLES),
        (1, 2, 5, 5),
    ),
}
ADAPTIVE = nn.AdaptiveLogSoftmaxWithLoss(6, 9, [3, 6], div_value=2.0, dtype=F64)
SAMPLES = gt.rand(1, 2, 2, dtype=F64)


@pytest.mark.parametrize(("function", "shapes"), [(c[0], c[1:]) for c in CASES.values()], ids=CASES)
def test_derivatives(function: Any, shapes: tuple[tuple[int, ...], ...]) -> None:
    gt.manual_seed(1)
    tensors = tuple(x(*s).requires_grad_() for s in shapes)
    assert gradcheck(function, tensors, fast_mode=True)
    assert gradgradcheck(function, tensors, fast_mode=True)


def test_ctc() -> None:
    """Its gradient is right where the softmax is part of the function; as PyTorch's it has no
    second one."""
    targets, scores = gt.tensor([[1, 2], [2, 2]]), x(5, 2, 4).requires_grad_()

    def loss(y: Any) -> Any:
        return F.ctc_loss(y.log_softmax(-1), targets, (5, 4), (2, 1), reduction="none")

    assert gradcheck(loss, (scores,), fast_mode=True)
    (gradient,) = gt.autograd.grad(loss(scores).sum(), scores, create_graph=True)
    with pytest.raises(
        RuntimeError, match="derivative for the gradient of ctc_loss is not implemented"
    ):
        gradient.sum().backward()
