"""Training steps that are read in the middle, run op by op and as programs by chance, beside
PyTorch: what one run keeps for the gradient must serve the other."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import graphtorch
from graphtorch._deferred import programs

STEPS = 5


def scaled(lib: Any, a: Any, b: Any, weights: Any, choice: int) -> Any:
    """One of a few ops on 4 x 6 numbers that stay near 1."""
    functions = (
        lambda: a.tanh(),
        lambda: a.sigmoid() * a,
        lambda: (a - a.mean(0)) / (a.var(0) + 1e-3).sqrt(),
        lambda: a @ weights[1],
        lambda: lib.nn.functional.softmax(a, 1),
        lambda: lib.nn.functional.layer_norm(a, (6,)),
        lambda: a + b,
        lambda: a.reshape(6, 4).t().reshape(4, 6) * weights[2],
        lambda: lib.where(a > 0.1, a, a * 0.2),
        lambda: a.cumsum(1) * 0.3,
        lambda: a.max(1, keepdim=True)[0] - a,
    )
    return functions[choice % len(functions)]()


def trained(lib: Any, seed: int) -> list[float]:
    """What the steps of a random program read, and its weights in the end."""
    numbers = np.random.default_rng(seed)
    shapes = (5, 6), (6, 6), (6,)
    weights = [lib.tensor(numbers.standard_normal(s) * 0.7, requires_grad=True) for s in shapes]
    x, read = lib.tensor(numbers.standard_normal((4, 5))), list[float]()
    for _ in range(STEPS):
        plan = random.Random(seed)  # the same program in each step
        pool = [x @ weights[0]]
        for _ in range(12):
            a, b, choice = plan.choice(pool), plan.choice(pool), plan.randrange(11)
            pool.append(scaled(lib, a, b, weights, choice))
            if plan.random() < 0.25:
                read.append(plan.choice(pool).sum().item())
        loss = sum(p.square().mean() for p in pool[-4:])
        if plan.random() < 0.5:
            read.append(loss.item())
        for w in weights:
            w.grad = None
        loss.backward()
        with lib.no_grad():
            for w in weights:
                if w.grad is not None:
                    w.sub_(0.05 * w.grad / (1 + w.grad.norm()))
    return read + [float(v) for w in weights for v in w.detach().numpy().ravel()]


@pytest.mark.parametrize("seed", range(24))
def test_steps_that_are_read_in_the_middle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    patience = chance.choice([0.0, 1.0, 2.5]) * 1e5
    monkeypatch.setattr(programs, "LOAD_NS", 0.0)
    monkeypatch.setattr(
        programs, "compiling_ns", lambda rows, types: patience * chance.random() * len(rows)
    )
    programs.clear()
    np.testing.assert_allclose(
        trained(graphtorch, seed), trained(torch, seed), rtol=1e-7, atol=1e-7
    )
    programs.clear()
