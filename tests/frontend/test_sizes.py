"""Large tensors: more elements than 32 bits count, and more bytes than there can be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch.nn import functional as F

MANY = (1 << 31) + 100
TOO_MANY: dict[str, Callable[[], Any]] = {
    "zeros": lambda: torch.zeros(1 << 62)[0].item(),
    "ones": lambda: torch.ones(1 << 61).sum().item(),
    "beyond 64 bits": lambda: str(torch.zeros(1 << 63)),
    "a product that wraps to 0": lambda: torch.zeros(1 << 32, 1 << 32)[0, 0].item(),
    "bytes that wrap to 0": lambda: torch.zeros(1 << 31, 1 << 31)[0, 0].item(),
    "rand": lambda: torch.rand(1 << 64),
    "randperm": lambda: torch.randperm(1 << 62),
    "eye": lambda: torch.eye(1 << 40)[0, 0].item(),
    "arange": lambda: torch.arange(0, 1e30),
    "linspace": lambda: torch.linspace(0, 1, 1 << 62),
    "repeat": lambda: torch.ones(4).repeat(1 << 60)[0].item(),
    "repeat_interleave": lambda: torch.zeros(2).repeat_interleave(1 << 61)[0].item(),
    "expand": lambda: torch.ones(1).expand(1 << 62).sum().item(),
    "broadcast": lambda: torch.zeros(1 << 30, 1) + torch.zeros(1, 1 << 32),
    "outer product": lambda: torch.zeros(1 << 31, 1) @ torch.zeros(1, 1 << 31),
    "pad": lambda: F.pad(torch.zeros(3), ((1 << 62) - 3, 0))[0].item(),
    "one_hot": lambda: F.one_hot(torch.tensor([0]), 1 << 62),
    "cat": lambda: torch.cat([torch.zeros(1 << 60)] * 4)[0].item(),
    "resize_": lambda: torch.zeros(3).resize_(1 << 62),
    "empty_strided": lambda: torch.empty_strided((2,), (1 << 62,)),
    "Linear": lambda: torch.nn.Linear(1 << 40, 1 << 40),
    "compiled": lambda: torch.compile(lambda x: x.repeat(1 << 61))(torch.zeros(3)),
    "more than the memory": lambda: torch.zeros(1 << 58)[0].item(),
    "as NumPy": lambda: torch.zeros(1 << 57, dtype=torch.float64).numpy(),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_sizes_beyond_memory_are_errors(name: str) -> None:
    with pytest.raises((RuntimeError, MemoryError)):
        TOO_MANY[name]()


def test_empty_tensors_of_any_size() -> None:
    assert torch.zeros(0, 1 << 40).sum().item() == 0 and torch.zeros(1 << 40, 0).shape == (
        1 << 40,
        0,
    )


def free_gigabytes() -> float:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return 0.0


@pytest.mark.skipif(free_gigabytes() < 8, reason="takes six gigabytes of memory")
def test_more_elements_than_32_bits_count() -> None:
    x = torch.zeros(MANY, dtype=torch.uint8)
    x[-3:] = torch.tensor([5, 6, 7], dtype=torch.uint8)
    assert (x[MANY - 2].item(), x[-1].item(), x[torch.tensor([MANY - 3])].item()) == (6, 7, 5)
    assert x[(1 << 31) + 90 :].sum().item() == 18 and x.sum().item() == 18
    assert x.max().item() == 7 and x.argmax().item() == MANY - 1
    copy = x.clone()
    assert copy[MANY - 3 :].tolist() == [5, 6, 7]
    del copy
    x += 1
    assert x[:: 1 << 30].tolist() == [1, 1, 1] and x[-2:].tolist() == [7, 8]
    rows = x[:-100].reshape(-1, 1 << 20)
    assert rows.shape == (2048, 1 << 20) and rows[-1, :4].tolist() == [1] * 4
