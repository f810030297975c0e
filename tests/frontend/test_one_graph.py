"""What of a plain loop becomes one graph: a step of training is not cut, and its graphs stay the
same ones when those before them are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred import programs, running
from graphtorch.nn import functional as F


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was looked up of each graph that ran, in order."""
    every: list[Any] = []
    original = programs.find

    def find(*args: Any) -> Any:
        every.append(original(*args))
        return every[-1]

    monkeypatch.setattr(programs, "find", find)
    programs.clear()
    yield every
    programs.clear()


class Block(nn.Module):
    """Each line of it is passed by once for each block."""

    def __init__(self, size: int):
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        self.norm1, self.norm2 = nn.BatchNorm1d(size), nn.BatchNorm1d(size)

    def forward(self, x: Any) -> Any:
        y = self.norm1(self.first(x)).relu()
        y = self.norm2(self.second(y))
        return (x + y).relu()


def test_counting_batches_does_not_cut_a_step(found: list[Any]) -> None:
    """Norms write what they count without gradients, at lines that a net comes back to."""
    torch.manual_seed(0)
    net = nn.Sequential(*[Block(4) for _ in range(12)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(8, 4)
    for step in range(4):
        if step == 1:
            found.clear()  # weights are drawn and momenta made in graphs of their own
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    assert len(found) == 3 and len({f.key for f in found}) == 1
    assert net[11].norm2.num_batches_tracked.item() == 4


def step(net: Any, optimizer: Any, x: Any, y: Any) -> float:
    out = net(x)
    right = (out.argmax(1) == y).float().mean().item()  # before the gradient
    optimizer.zero_grad()
    F.cross_entropy(out, y).backward()
    optimizer.step()
    return right


@pytest.mark.parametrize("compiled_first", ["forward", "backward"])
def test_graphs_stay_the_same_when_others_are_compiled(
    found: list[Any], monkeypatch: pytest.MonkeyPatch, compiled_first: str
) -> None:
    """Op by op more is kept for the gradient than programs keep."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    for _ in range(3):
        step(net, optimizer, x, y)
    assert all(f.program is None for f in found)
    graphs = [f.key for f in found[-2:]]
    monkeypatch.setattr(programs, "LOAD_NS", 0.0)
    monkeypatch.setattr(
        programs,
        "compiling_ns",
        lambda rows, types: 0.0 if (len(rows) < 30) is (compiled_first == "forward") else 1e18,
    )
    for structure in programs.structures():
        structure.worth = 0.0
    for _ in range(3):
        step(net, optimizer, x, y)
    assert {f.program is not None for f in found[-2:]} == {True, False}
    assert [f.key for f in found[-2:]] == graphs


def test_what_was_kept_op_by_op_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    programs.clear()
    ran: list[str] = []
    original = programs.run_steps

    def run_steps(nodes: Any, *rest: Any) -> Any:
        ran.extend(node.op.name for node in nodes)
        return original(nodes, *rest)

    monkeypatch.setattr(programs, "run_steps", run_steps)
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    loss = x.sigmoid().tanh().sum()
    value = loss.item()
    loss.backward()
    assert x.grad is not None
    s = 1 / (1 + np.exp(-np.linspace(-2, 2, 9)))
    assert value == pytest.approx(np.tanh(s).sum(), rel=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), s * (1 - s) * (1 - np.tanh(s) ** 2), rtol=1e-5)
    assert ran.count("sigmoid") == 1 and ran.count("tanh") == 1


def test_long_graphs_are_not_cut(found: list[Any]) -> None:
    x = torch.ones(2)
    for _ in range(running.STRETCH * 4):
        x = x + 1
    assert not found
    assert x.sum().item() == 2 * running.STRETCH * 4 + 2
    assert len(found) == 1


def test_a_graph_that_nobody_reads_runs_in_the_end(found: list[Any]) -> None:
    x = torch.ones(2)
    for _ in range(running.LONGEST + 10):
        x = x + 1
    assert len(found) == 1


def test_pending_graphs_do_not_keep_all_memory(
    found: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_memory_size", lambda: 8 * 1000 * 4 * running.STRETCH // 2)
    kept = []
    for i in range(running.STRETCH):
        kept.append(torch.from_numpy(np.full(1000, i, np.float32)) * 2)
    assert len(found) == 1
    assert [t[0].item() for t in kept[:3]] == [0, 2, 4]
