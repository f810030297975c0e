"""Gradients of functions of tensors, first and second, against differences along random directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphtorch as gt


def check_gradients(function: Callable[..., Any], tensors: Sequence[Any], second: bool = True) -> None:
    """`function` takes the f64 `tensors` and gives one tensor (of any shape)."""
    rng = np.random.default_rng(0)
    weight = gt.tensor(rng.standard_normal(tuple(function(*tensors).shape)))

    def value(*xs: Any) -> Any:
        return (function(*xs) * weight).sum()
    _check(value, tensors, rng)
    if second:
        weights = [gt.tensor(rng.standard_normal(tuple(t.shape))) for t in tensors]

        def of_gradients(*xs: Any) -> Any:
            found = gt.autograd.grad(value(*xs), xs, create_graph=True)
            return sum((g * w).sum() for g, w in zip(found, weights, strict=True))
        _check(of_gradients, tensors, rng)


def _check(value: Callable[..., Any], tensors: Sequence[Any], rng: np.random.Generator,
           step: float = 1e-5) -> None:
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value(*leaves).backward()
    directions = [rng.standard_normal(tuple(t.shape)) for t in tensors]
    found = sum(float((d * leaf.grad.numpy()).sum()) if leaf.grad is not None else 0.0
                for d, leaf in zip(directions, leaves, strict=True))
    ends = [value(*((t.detach() + sign * step * gt.tensor(d)).requires_grad_()
                    for t, d in zip(tensors, directions, strict=True))).item() for sign in (1, -1)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), 1e-6, 1e-7)
