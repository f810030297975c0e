"""f16 and bf16 at both ends of their range: compositions are computed in f32 and rounded once, as
PyTorch's.

`python tools/oracle/opinfo.py --dtype float16 --ends` does the same for every operation there is.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import graphtorch as gt
from graphtorch.nn import functional as F

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

ORACLE = Path(__file__).parents[2] / "tools" / "oracle"
COMPOSED = (
    "norm",
    "linalg.norm",
    "linalg.vector_norm",
    "dist",
    "renorm",
    "std",
    "std_mean",
    "nanmean",
    "logcumsumexp",
    "addmm",
    "addmv",
    "addbmm",
    "baddbmm",
    "addr",
    "addcmul",
    "addcdiv",
    "lerp",
    "sinc",
    "logit",
    "cov",
    "trapezoid",
    "round",
    "logaddexp2",
    "div",
    "nn.functional.normalize",
    "nn.functional.cosine_similarity",
    "nn.functional.pairwise_distance",
    "nn.functional.rms_norm",
    "nn.functional.instance_norm",
    "nn.functional.local_response_norm",
    "nn.functional.interpolate",
    "nn.functional.grid_sample",
    "nn.functional.linear",
    "nn.functional.bilinear",
    "nn.functional.glu",
    "nn.functional.mse_loss",
    "nn.functional.huber_loss",
    "nn.functional.binary_cross_entropy",
    "nn.functional.triplet_margin_loss",
    "nn.functional.gaussian_nll_loss",
    "nn.functional.cosine_embedding_loss",
    "nn.functional.margin_ranking_loss",
)
CANCELLING = ("nn.functional.normalize", "nn.functional.instance_norm")  # whose gradients do


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    sys.path.insert(0, str(ORACLE))
    module = importlib.import_module("opinfo")
    sys.path.remove(str(ORACLE))
    monkeypatch.setattr(module, "SAMPLES", 2)
    return module


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", COMPOSED)
def test_both_ends(audit: Any, name: str, dtype: str) -> None:
    tally = audit.replay(getattr(torch, dtype), name, None, False, kind=audit.Ends)
    assert tally.counts["forward"] or tally.counts["refused by PyTorch"]
    kinds = ("forward",) if name in CANCELLING else ("forward", "gradient")
    assert {k: v for k, v in tally.reasons.items() if k.endswith(kinds)} == {}


@pytest.mark.parametrize("framework", [gt, torch])
def test_lengths_of_a_hundred_times_the_largest_square_root(framework: Any) -> None:
    x = framework.full((400,), 1000.0, dtype=framework.float16)
    weight = framework.zeros(400, dtype=framework.float16, requires_grad=True)
    weight.grad = x.clone()
    total = framework.nn.utils.clip_grad_norm_([weight], 10.0)
    assert float(total) == pytest.approx(20000.0, rel=1e-3) and total.dtype is framework.float16
    assert weight.grad.float().norm().item() == pytest.approx(10.0, rel=1e-2)


def test_a_result_in_a_wider_dtype_is_not_rounded() -> None:
    x = gt.full((400,), 1000.0, dtype=gt.float16)
    assert gt.linalg.vector_norm(x * 30, dtype=gt.float32).item() == pytest.approx(
        600000.0, rel=1e-3
    )
    mixed = F.mse_loss(x * 30, gt.zeros(400))
    assert mixed.dtype is gt.float32 and math.isfinite(mixed.item())
