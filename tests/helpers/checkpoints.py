"""A ResNet-18-like model in either library, and steps of training on fixed data."""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCE = 1e-4


def block_of(t: Any, inputs: int, width: int, stride: int) -> Any:
    nn = t.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.down = None
            if stride != 1 or inputs != width:
                conv = nn.Conv2d(inputs, width, 1, stride, bias=False)
                self.down = nn.Sequential(conv, nn.BatchNorm2d(width))

        def forward(self, x: Any) -> Any:
            kept = x if self.down is None else self.down(x)
            x = nn.functional.relu(self.bn1(self.conv1(x)))
            return nn.functional.relu(self.bn2(self.conv2(x)) + kept)

    return Block()


def model_of(t: Any, width: int = 64, blocks: int = 2, stages: int = 4) -> Any:
    """Stages of residual blocks (He et al. 2015) for small pictures, with weights that do not
    depend on the library."""
    nn, layers, inputs = t.nn, [], width
    for stage in range(stages):
        for i in range(blocks):
            layers.append(block_of(t, inputs, width << stage, 2 if stage and i == 0 else 1))
            inputs = width << stage
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, 10),
    )
    r = np.random.default_rng(7)
    with t.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                scale = (2 / np.prod(p.shape[1:])) ** 0.5
                p.copy_(t.tensor((r.standard_normal(tuple(p.shape)) * scale).astype(np.float32)))
    return net


def optimizer_of(t: Any, kind: str, net: Any) -> Any:
    """At rates where rounding stays rounding: with the usual ones, weights that differ by 1e-7 give
    losses that differ by 1e-2 after 20 steps, in PyTorch alone. (In double precision any rate would
    do.)"""
    if kind == "adam":
        return t.optim.Adam(net.parameters(), lr=1e-5, eps=1e-3)
    return t.optim.SGD(net.parameters(), lr=3e-5, momentum=0.9, weight_decay=1e-4)


def continued(
    t: Any, net: Any, optimizer: Any, steps: int, seed: int, size: int = 32
) -> list[float]:
    """Losses of `steps` steps on data of `seed`."""
    r, losses = np.random.default_rng(seed), []
    for _ in range(steps):
        x = t.tensor(r.standard_normal((8, 3, size, size)).astype(np.float32))
        y = t.tensor(r.integers(0, 10, 8))
        loss = t.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_losses(first: list[float], second: list[float]) -> None:
    np.testing.assert_allclose(second, first, rtol=TOLERANCE, atol=TOLERANCE)
