"""Sampling at coordinates, and its gradients, against PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

CASES = [
    ((2, 3, 5, 7), (2, 4, 6, 2)),
    ((1, 2, 1, 4), (1, 3, 3, 2)),
    ((2, 2, 3, 4, 5), (2, 2, 3, 4, 3)),
]
MODES, PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
WAYS = list(itertools.product(MODES, PADDINGS, (False, True)))


@pytest.mark.parametrize(("mode", "padding", "aligned"), WAYS)
def test_grid_sample(mode: str, padding: str, aligned: bool) -> None:
    rng = np.random.default_rng(0)
    for shape, target in CASES:
        if mode == "bicubic" and len(shape) == 5:
            continue
        image, grid = rng.standard_normal(shape), rng.uniform(-1.6, 1.6, target)
        grid.flat[:4] = [-1, 1, 1, -1]
        found = []
        for lib in (torch, gt):
            x, g = lib.tensor(image, requires_grad=True), lib.tensor(grid, requires_grad=True)
            y = lib.nn.functional.grid_sample(x, g, mode, padding, aligned)
            weight = np.cos(np.arange(y.numel())).reshape(tuple(y.shape))
            (y * lib.tensor(weight)).sum().backward()
            found.append((y, x.grad, g.grad))
        for theirs, ours in zip(*found, strict=True):
            want = theirs.detach().numpy()
            got = np.zeros_like(want) if ours is None else ours.detach().numpy()
            np.testing.assert_allclose(got, want, 1e-9, 1e-9)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 3, 4, 2)])
def test_affine_grid(size: tuple[int, ...], aligned: bool) -> None:
    theta = np.random.default_rng(1).standard_normal((size[0], len(size) - 2, len(size) - 1))
    want = torch.nn.functional.affine_grid(torch.tensor(theta), list(size), aligned).numpy()
    got = gt.nn.functional.affine_grid(gt.tensor(theta), size, aligned).numpy()
    np.testing.assert_allclose(got, want, 1e-12, 1e-12)


ERRORS = [
    lambda t: t.nn.functional.grid_sample(t.ones(1, 1, 2, 2), t.ones(1, 2, 2, 2), "linear"),
    lambda t: t.nn.functional.grid_sample(
        t.ones(1, 1, 2, 2), t.ones(1, 2, 2, 2), padding_mode="no"
    ),
    lambda t: t.nn.functional.grid_sample(
        t.ones(1, 1, 2, 2), t.ones(1, 2, 2, 3), align_corners=True
    ),
    lambda t: t.nn.functional.grid_sample(
        t.ones(2, 1, 2, 2), t.ones(1, 2, 2, 2), align_corners=True
    ),
    lambda t: t.nn.functional.grid_sample(t.ones(1, 1, 2), t.ones(1, 2, 2), align_corners=True),
    lambda t: t.nn.functional.affine_grid(t.ones(1, 2, 2), (1, 1, 2, 2), True),
    lambda t: t.nn.functional.affine_grid(t.ones(1, 2, 3), (1, 1, 2, 0), True),
]


@pytest.mark.filterwarnings("ignore:Default grid_sample")
@pytest.mark.parametrize("call", ERRORS)
def test_errors(call: object) -> None:
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(theirs.type):
        call(gt)
