"""Gradients of what a write replaced: zeros, not nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch

WRITES: dict[str, Callable[[Any], Any]] = {
    "fill_": lambda y: y.fill_(3.0),
    "zero_": lambda y: y.zero_(),
    "copy_": lambda y: y.copy_(torch.ones(3)),
    "ellipsis": lambda y: y.__setitem__(..., 2.0),
    "none": lambda y: y.__setitem__(None, 2.0),
    "slice": lambda y: y.__setitem__(slice(None), torch.ones(3)),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_was_replaced_gets_zeros(name: str) -> None:
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    WRITES[name](y)
    assert y.requires_grad
    (y * y).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_what_was_copied_gets_its_gradient() -> None:
    x, source = (torch.ones(3, requires_grad=True) for _ in range(2))
    y = x * 2
    y.copy_(source)
    (y * 3).sum().backward()
    assert (x.grad.tolist(), source.grad.tolist()) == ([0, 0, 0], [3, 3, 3])


def test_writes_to_tensors_without_elements() -> None:
    y = torch.ones(5, 0)
    y[::2] = torch.ones(3, 0)
    y[()] = torch.zeros(5, 0)
    assert y.shape == (5, 0)
