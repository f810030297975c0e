"""`scatter_reduce` beside PyTorch's: results and gradients where places have several entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch

torch: Any = pytest.importorskip("torch")


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "complex64"])
def test_scatter_reduce_with_ties_and_zeros(dtype: str, reduce: str, include_self: bool) -> None:
    """Whole numbers, so that places have several extremes, and products one zero or more."""
    draw = np.random.default_rng(1)
    x, src = (draw.integers(-2, 3, n) for n in (9, 60))
    index = draw.integers(0, 7, 60)
    found = []
    for t in (torch, graphtorch):
        kind = getattr(t, dtype)
        a, b = t.tensor(x).to(kind), t.tensor(src).to(kind)
        differentiable = kind.is_floating_point
        a.requires_grad_(differentiable)
        b.requires_grad_(differentiable)
        options = {"include_self": include_self}
        if dtype == "complex64" and reduce in ("amax", "amin"):
            with pytest.raises(NotImplementedError, match="not implemented for"):
                a.scatter_reduce(0, t.tensor(index), b, reduce, **options)
            continue
        result = a.scatter_reduce(0, t.tensor(index), b, reduce, **options)
        found.append([result.detach().numpy()])
        if differentiable:
            (result * result).sum().backward()
            found[-1] += [a.grad.numpy(), b.grad.numpy()]
    for ours, theirs in zip(*found[::-1], strict=True) if found else ():
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduce", ["amax", "amin"])
@pytest.mark.parametrize("name", ["scatter_reduce", "index_reduce"])
def test_elements_that_take_no_part_keep_their_share_of_a_gradient(name: str, reduce: str) -> None:
    """Where an old element equals the extreme, PyTorch counts it among the ties."""

    def outcome(t: Any) -> Any:
        x = t.tensor([2.0, 2.0, 9.0, 5.0], requires_grad=True)
        src = t.tensor([2.0, 2.0, 2.0, 1.0, 7.0], requires_grad=True)
        where = t.tensor([0, 1, 1, 2, 2])
        y = getattr(x, name)(0, where, src, reduce, include_self=False)
        (y * t.tensor([1.0, 10.0, 100.0, 3.0])).sum().backward()
        return y.tolist(), x.grad.tolist(), src.grad.tolist(), y.grad_fn.name()

    assert outcome(graphtorch) == outcome(torch)
