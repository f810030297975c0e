"""Results whose last digit is seen further on: the same bits as on PyTorch, plain and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

Case = Callable[..., Any]
DRAW = np.random.default_rng(0)
X, Y, Z = (DRAW.standard_normal(1000).astype(np.float32) for _ in range(3))
U = DRAW.uniform(size=1000).astype(np.float32)
BYTES = DRAW.integers(0, 256, (2, 1000)).astype(np.uint8)
ONCE: dict[str, Case] = {
    "add alpha": lambda t, x, y, z, u, b: x.add(y, alpha=0.3),
    "sub alpha": lambda t, x, y, z, u, b: x.sub(y, alpha=0.3),
    "rsub": lambda t, x, y, z, u, b: t.rsub(x, y, alpha=0.3),
    "addcmul": lambda t, x, y, z, u, b: t.addcmul(x, y, z, value=0.3),
    "addcdiv": lambda t, x, y, z, u, b: t.addcdiv(x, y, z, value=-0.3),
    "lerp near": lambda t, x, y, z, u, b: t.lerp(x, y, 0.3),
    "lerp far": lambda t, x, y, z, u, b: t.lerp(x, y, 0.7),
    "lerp by a tensor": lambda t, x, y, z, u, b: t.lerp(x, y, u),
    "number over tensor": lambda t, x, y, z, u, b: 255 / x,
    "to bytes": lambda t, x, y, z, u, b: (x * 900).to(t.uint8),
    "to short integers": lambda t, x, y, z, u, b: (x * 90000).to(t.int16),
    "a blend of bytes": lambda t, x, y, z, u, b: (
        (0.439 * b[0] + 0.561 * b[1]).clamp(0, 255).to(t.uint8)
    ),
}


@pytest.mark.parametrize("name", ONCE)
def test_the_same_bits(name: str) -> None:
    case, arrays = ONCE[name], (X, Y, Z, U, BYTES)
    expected = case(torch, *map(torch.from_numpy, arrays)).numpy()
    given = [*map(gt.from_numpy, arrays)]
    np.testing.assert_array_equal(case(gt, *given).numpy(), expected)
    compiled = gt.compile(lambda *tensors: case(gt, *tensors))
    for _ in range(2):
        np.testing.assert_array_equal(compiled(*given).numpy(), expected)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_same_pixel_is_the_nearest(mode: str) -> None:
    for size in (9, 18, 26, 34):
        places = np.arange(size, dtype=np.float32)[None, None]
        for out in (5, 7, 13, 29, 60):
            expected = torch.nn.functional.interpolate(
                torch.from_numpy(places), out, mode=mode
            ).numpy()
            found = gt.nn.functional.interpolate(gt.from_numpy(places), out, mode=mode)
            np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", [(13, 40), (25, 33), (7, 9)])
def test_filtered_images_are_the_same(size: tuple[int, int]) -> None:
    image = DRAW.integers(0, 256, (1, 3, 26, 34)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image), size, mode="bilinear", antialias=True
    )
    found = gt.nn.functional.interpolate(
        gt.from_numpy(image), size, mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-7)


def test_a_sampled_image_has_the_same_coordinates() -> None:
    image = DRAW.uniform(size=(1, 2, 26, 34)).astype(np.float32)
    grid = DRAW.uniform(-1.1, 1.1, (1, 20, 30, 2)).astype(np.float32)
    given = {"align_corners": False}
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(image), torch.from_numpy(grid), **given
    )
    found = gt.nn.functional.grid_sample(gt.from_numpy(image), gt.from_numpy(grid), **given)
    assert np.abs(found.numpy() - expected.numpy()).max() <= 2.5e-7


@pytest.mark.parametrize("cut", [3, [1, 4]], ids=str)
def test_pieces_of_tensor_split_are_slices_to_write_to(cut: Any) -> None:
    gradients = []
    for t in (torch, gt):
        leaf = t.ones(6, 2, requires_grad=True)
        x = leaf * 2
        t.tensor_split(x, cut)[1].mul_(5)
        (x * x).sum().backward()
        gradients.append(leaf.grad.numpy())
    np.testing.assert_array_equal(*gradients)
