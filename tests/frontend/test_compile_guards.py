"""A compiled function records anew when the modules it uses changed."""

from __future__ import annotations

import graphtorch as torch
from graphtorch import nn


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.scale = 2.0
        self.register_buffer("shift", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.scale + self.shift


def agree(model: nn.Module, compiled: nn.Module, x: torch.Tensor) -> None:
    assert torch.allclose(compiled(x), model(x))


def test_module_changes_are_seen() -> None:
    model, x = Scaled().eval(), torch.ones(4, 3)
    compiled = torch.compile(model)
    with torch.no_grad():
        agree(model, compiled, x)
        agree(model, compiled, x)
        assert compiled.recorded == 1
        model.scale = 3.0
        agree(model, compiled, x)
        model.fc.weight = nn.Parameter(torch.ones(2, 3))
        agree(model, compiled, x)
        model.fc = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        agree(model, compiled, x)
        model.shift = torch.ones(2)
        agree(model, compiled, x)
        assert compiled.recorded == 5
        model.fc[0].weight.fill_(0.5)
        agree(model, compiled, x)
        assert compiled.recorded == 5


def test_assignments_that_change_nothing_record_nothing() -> None:
    model, x = Scaled(), torch.ones(4, 3)
    compiled = torch.compile(model)
    other = nn.Linear(2, 2)
    for _ in range(3):
        compiled(x)
        model.scale = 2.0
        other.bias = nn.Parameter(torch.zeros(2))
    assert compiled.recorded == 1


def test_weights_written_through_numpy_are_seen() -> None:
    model, x = nn.Linear(3, 2).eval(), torch.ones(4, 3)
    compiled = torch.compile(model)
    with torch.no_grad():
        agree(model, compiled, x)
        weights = model.weight.detach().numpy()
        weights[...] = 7.0
        agree(model, compiled, x)
        weights[...] = 8.0
        agree(model, compiled, x)
