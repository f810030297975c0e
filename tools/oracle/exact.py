"""Whether a result or a gradient that is not PyTorch's is the better one.

PyTorch's of float32 have errors of their own (7e-3 in the gradient of `logcumsumexp` on one of its
own samples), a few gradients are wrong in any precision, which its own tests say
(`as_strided_scatter`), and others are given for elements that are not read (`cholesky_solve`).
"""

from __future__ import annotations

import unittest
from typing import Any

import numpy as np
import torch
from conversion import tensors

STEP = 1e-6  # of central differences


def doubled(x: Any) -> Any:
    """`x` in double precision."""
    real = isinstance(x, torch.Tensor) and x.is_floating_point() and x.layout is torch.strided
    return x.detach().double().requires_grad_(x.requires_grad) if real else x


def said_to_fail(op: Any) -> bool:
    """Whether PyTorch's own tests expect the gradient of an entry to differ from finite
    differences."""
    return any(
        d.cls_name == "TestBwdGradients"
        and d.test_name == "test_fn_grad"
        and any(f is unittest.expectedFailure for f in d.decorators)
        for d in op.decorators
        if hasattr(d, "test_name")
    )


def results(op: Any, sample: Any) -> list[np.ndarray]:
    """The results of a sample in double precision."""
    exact = sample.transform(doubled)
    found = exact.output_process_fn_grad(op(exact.input, *exact.args, **exact.kwargs))
    return [t.detach().numpy() for t in tensors(found)]


def gradients(op: Any, sample: Any, seeds: list[torch.Tensor]) -> list[np.ndarray]:
    """The gradients of a sample's leaves in double precision: PyTorch's, or central differences
    where those are said to be wrong."""
    exact = sample.transform(doubled)
    leaves = [t for t in tensors([exact.input, exact.args, exact.kwargs]) if t.requires_grad]
    weights = [s.double() for s in seeds]

    def total() -> torch.Tensor:
        # to the wrapper elements that the operation does not read are no variables
        found = op.gradcheck_wrapper(op, exact.input, *exact.args, **exact.kwargs)
        found = exact.output_process_fn_grad(found)
        outs = [t for t in tensors(found) if t.requires_grad]
        return sum((o * w).sum() for o, w in zip(outs, weights, strict=True))

    if not said_to_fail(op):
        found = torch.autograd.grad(total(), leaves, allow_unused=True)
        pairs = zip(found, leaves, strict=True)
        return [(torch.zeros_like(x) if g is None else g).numpy() for g, x in pairs]
    return [differences(total, x) for x in leaves]


def differences(total: Any, leaf: torch.Tensor) -> np.ndarray:
    """The gradient of `total` by central differences."""
    slopes = np.zeros(leaf.shape)
    data = leaf.detach()
    for place in np.ndindex(*leaf.shape):
        here = data[place].item()
        ends = []
        for step in (STEP, -STEP):
            data[place] = here + step
            ends.append(total().item())
        data[place] = here
        slopes[place] = (ends[0] - ends[1]) / (2 * STEP)
    return slopes


def nearer(
    mine: list[np.ndarray], theirs: list[np.ndarray], exact: list[np.ndarray], floor: float
) -> bool:
    """Whether ours are no further from the exact ones than PyTorch's are; `floor` is added to what
    errors are relative to."""
    found = [[off(g, e, floor) for g, e in zip(got, exact, strict=True)] for got in (mine, theirs)]
    return all(a <= b for a, b in zip(*found, strict=True))


def off(got: np.ndarray, exact: np.ndarray, floor: float) -> float:
    if not np.array_equal(np.isnan(got), np.isnan(exact)):
        return np.inf
    with np.errstate(all="ignore"):
        return float(np.nanmax(np.abs(got - exact) / (np.abs(exact) + floor), initial=0.0))
