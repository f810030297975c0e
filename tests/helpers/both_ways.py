"""Programs that take `compile`, call what it made several times, and return what they saw: compiled
and plain must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

Compile = Callable[[Any], Any]


class Plain:
    """An object with attributes."""

    def __init__(self, **attributes: Any):
        self.__dict__.update(attributes)


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def filled(model: nn.Module, number: float = 0.5) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(number)
    return model


def flat(found: Any) -> list[Any]:
    if isinstance(found, (list, tuple)):
        return [v for one in found for v in flat(one)]
    return flat(found.tolist()) if isinstance(found, torch.Tensor) else [found]


def agrees(program: Callable[[Compile], Any]) -> None:
    """Run a program both ways and compare the numbers, flags and texts that it returns."""
    plain, compiled = flat(program(lambda f: f)), flat(program(torch.compile))
    assert len(plain) == len(compiled)
    for a, b in zip(plain, compiled, strict=True):
        assert b == (pytest.approx(a, rel=1e-5, abs=1e-6) if isinstance(a, float) else a), (
            plain,
            compiled,
        )
