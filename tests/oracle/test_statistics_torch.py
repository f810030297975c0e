"""Statistics against PyTorch: results, dtypes and the types of errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6)).astype(np.float32)
K = RNG.integers(0, 4, (5, 9))
N = X.copy()
N[1, 2:4] = np.nan
COUNTS, WEIGHTS = RNG.integers(1, 4, 6), RNG.random(6).astype(np.float32)

CASES: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "cov": (lambda t, x: t.cov(x), (X,)),
    "cov of a vector": (lambda t, x: t.cov(x[0], correction=0), (X,)),
    "cov of integers": (lambda t, x: t.cov(x), (K,)),
    "cov with counts": (lambda t, x, c: t.cov(x, fweights=c), (X, COUNTS)),
    "cov with weights": (lambda t, x, w: t.cov(x, aweights=w), (X, WEIGHTS)),
    "cov with both": (lambda t, x, c, w: t.cov(x, fweights=c, aweights=w), (X, COUNTS, WEIGHTS)),
    "cov of 3 dims": (lambda t, x: t.cov(x[None]), (X,)),
    "corrcoef": (lambda t, x: t.corrcoef(x), (X,)),
    "corrcoef of a vector": (lambda t, x: t.corrcoef(x[0]), (X,)),
    **{
        f"histc {b} {lo} {hi}": (lambda t, x, b=b, lo=lo, hi=hi: t.histc(x, b, lo, hi), (X,))
        for b, lo, hi in ((10, 0, 0), (4, -1, 1), (5, 0, 2), (3, 1, 1), (0, 0, 1), (3, 2, 1))
    },
    "histc of a constant": (lambda t, x: t.histc(x * 0 + 2, 4), (X,)),
    "histc of nothing": (lambda t, x: t.histc(x[:0], 4), (X,)),
    "mode": (lambda t, x: t.mode(x), (K,)),
    "mode of columns": (lambda t, x: x.mode(0, True), (K,)),
    "nanmedian": (lambda t, x: t.nanmedian(x), (N,)),
    "nanmedian of rows": (lambda t, x: t.nanmedian(x, 1), (N,)),
    "nanmedian of columns": (lambda t, x: t.nanmedian(x, 0, True), (N,)),
    **{
        f"nanquantile {way}": (
            lambda t, x, way=way: t.nanquantile(x, 0.3, 1, interpolation=way),
            (N,),
        )
        for way in ("linear", "lower", "higher", "midpoint", "nearest")
    },
    "nanquantiles": (lambda t, x: t.nanquantile(x, t.tensor([0.0, 0.5, 1]), 0, keepdim=True), (N,)),
    "nanquantile of all": (lambda t, x: t.nanquantile(x, 0.6), (N,)),
    "nanquantile of none": (lambda t, x: t.nanquantile(x, 1.5), (N,)),
    "trapezoid": (lambda t, x: t.trapezoid(x, dx=2, dim=0), (X,)),
    "trapz": (lambda t, x, at: t.trapz(x, at), (X, WEIGHTS)),
    "cumulative_trapezoid": (lambda t, x: t.cumulative_trapezoid(x, x), (X,)),
    **{
        f"combinations {r}": (lambda t, x, r=r: t.combinations(x[0], r, r == 2), (X,))
        for r in range(4)
    },
    "isin": (lambda t, x: t.isin(x, t.tensor([1, 3])), (K,)),
    "isin inverted": (lambda t, x: t.isin(x, 2, invert=True), (K,)),
    "isin nothing": (lambda t, x: t.isin(x, x[:0]), (K,)),
    "unravel_index": (lambda t, x: t.unravel_index(x, (2, 2)), (K,)),
    **{
        f"cdist {p}": (lambda t, x, p=p: t.cdist(x, x[:2] + 1, p), (X,))
        for p in (0, 1, 2, 3, np.inf)
    },
    "cdist of batches": (lambda t, x: t.cdist(x[None], t.stack([x, x * 2])), (X,)),
    "cdist of vectors": (lambda t, x: t.cdist(x[0], x), (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str) -> None:
    call, arrays = CASES[name]
    try:
        theirs = call(torch, *map(torch.tensor, arrays))
    except Exception as error:
        with pytest.raises(type(error)):
            call(gt, *map(gt.tensor, arrays))
        return
    ours = call(gt, *map(gt.tensor, arrays))
    pairs = zip(theirs, ours, strict=True) if isinstance(theirs, tuple) else [(theirs, ours)]
    for want, got in pairs:
        assert got.dtype is gt.__dict__[str(want.dtype).removeprefix("torch.")]
        np.testing.assert_allclose(got.numpy(), want.numpy(), 1e-5, 1e-6)
