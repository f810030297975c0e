"""Plain code whose sizes change: one program with symbols serves them, and gives what running op by
op gives."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred import programs
from graphtorch.backends import effort
from graphtorch.nn import functional as F

RUNS = 3.5  # op-by-op runs after which compiling pays in these tests, so that they meet both ways


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs compiled, in order; compiling pays after `RUNS` runs."""
    last = [0.0]

    def stepping(nodes: Any) -> float:
        last[0] = effort.stepping_ns(nodes)
        return last[0]

    graphs: list[Any] = []
    original = programs.pending_program

    def compiled(graph: Any, *rest: Any) -> Any:
        graphs.append(graph)
        return original(graph, *rest)

    monkeypatch.setattr(programs, "LOAD_NS", 0.0)
    monkeypatch.setattr(programs, "stepping_ns", stepping)
    monkeypatch.setattr(programs, "compiling_ns", lambda rows, types: RUNS * last[0])
    monkeypatch.setattr(programs, "pending_program", compiled)
    programs.clear()
    yield graphs
    programs.clear()


def attention(size: int) -> torch.Tensor:
    x = torch.arange(size * 16.0).reshape(1, size, 16).sin()
    q, k, v = (
        p.view(1, size, 4, 4).transpose(1, 2) for p in torch.cat([x, x + 1, x * 2], 2).split(16, 2)
    )
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, size, 16)
    mask = torch.tril(torch.ones(size, size))
    return (y[:, -1] + x[:, 1:].mean(1)).softmax(-1).sum() + mask.sum()


def padded(size: int) -> torch.Tensor:
    x = torch.arange(size * 2.0).reshape(size, 2)
    mask = torch.arange(40) < size
    return (F.pad(x, (0, 0, 0, 40 - size)) * mask[:, None]).sum() / size


def flattened(size: int) -> torch.Tensor:
    x = torch.arange(size * 12.0).reshape(size, 3, 4).cos()
    return (x.reshape(size * 3, 4) @ torch.ones(4, 2)).view(size, 6).std(0).sum()


def halves(size: int) -> torch.Tensor:
    x = torch.arange(2.0 * size * 3).reshape(1, 1, 2 * size, 3)
    y = F.interpolate(F.max_pool2d(x, (2, 1)), size=(2 * size, 3))
    return (y - x).abs().mean() + x[:, :, size // 2 :].sum()


def window(size: int) -> torch.Tensor:
    start = (size * 37) % 100
    part = (torch.arange(200.0) * 2)[start : start + size]
    return (part / part.shape[0]).sum()


@pytest.mark.parametrize("f", [attention, padded, flattened, halves, window])
def test_one_program_serves_many_sizes(
    f: Callable[[int], torch.Tensor], counted: list[Any]
) -> None:
    sizes = random.Random(0).sample(range(3, 38), 24)
    found = [f(n).item() for n in sizes]
    compiled = len(counted)
    assert 1 <= compiled <= 3 and all(g.symbols() for g in counted)
    programs.clear()
    counted.clear()
    expected = [f(n).item() for n in sizes[:3]] + [_alone(f, n) for n in sizes[3:]]
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-5)


def _alone(f: Callable[[int], torch.Tensor], size: int) -> float:
    programs.clear()  # nothing is known: it runs op by op
    return f(size).item()


def test_training_on_changing_batches_compiles_one_program(counted: list[Any]) -> None:
    def losses() -> list[float]:
        torch.manual_seed(0)
        draw = random.Random(1)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(1),
            nn.Linear(64, 3),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        found = []
        for step in range(14):
            n = draw.randint(3, 30) if step else 30  # by the first one compiling is valued
            x, y = torch.randn(n, 2, 4, 4), torch.randint(0, 3, (n,))
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    mixed = losses()
    steps = [g for g in counted if len(g.nodes) > 9]  # draws run by themselves
    assert 1 <= len(steps) <= 3 and all(g.symbols() for g in steps)
    programs.LONG, before = -1, programs.LONG  # sizes are not remembered: op by op to the end
    programs.clear()
    try:
        programs.compiling_ns = lambda rows, types: float("inf")  # type: ignore[assignment]
        assert mixed == pytest.approx(losses(), rel=1e-4)
    finally:
        programs.LONG = before


def test_a_wrong_guess_is_not_used(counted: list[Any]) -> None:
    """Two sizes that were equal until then, and come apart."""

    def f(a: int, b: int) -> float:
        return (torch.ones(a, 4).cumsum(0)[-1].sum() + torch.full((b, 3), 2.0).sum()).item()

    for n in (5, 9, 12, 7, 20, 31):
        assert f(n, n) == 4 * n + 6 * n
    assert counted
    for a, b in ((5, 6), (30, 8), (9, 9), (11, 4), (4, 11), (8, 30), (13, 19)):
        assert f(a, b) == 4 * a + 6 * b


def test_sizes_that_come_back_have_a_program_of_their_own(counted: list[Any]) -> None:
    for _ in range(6):
        assert torch.ones(7, 3).cumsum(0).sum().item() == 84
    assert len(counted) == 1 and not counted[0].symbols()


def test_a_number_that_changes_is_an_input(counted: list[Any]) -> None:
    """The gradient of a mean divides by a number that a rule writes into the graph."""
    for n in (4, 6, 9, 13, 5, 21, 17, 8):
        x = torch.ones(n, 2, requires_grad=True)
        (x * 3).mean().backward()
        assert x.grad is not None
        assert x.grad.sum().item() == pytest.approx(3)
    assert 1 <= len(counted) <= 2


def test_deterministic_code_never_runs_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "run_steps", lambda *a: pytest.fail("ran op by op"))
    torch.use_deterministic_algorithms(True)
    try:
        values = [torch.linspace(0, 3, 50).exp().sum().item() for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(set(values)) == 1


def test_rounds_of_a_loop_run_one_by_one() -> None:
    """Inference that reads nothing until the end: each round is the same structure, not a longer
    one."""
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(30)])
    programs.clear()
    x = torch.ones(2, 4)
    with torch.no_grad():
        for _ in range(40):
            x = model(x).tanh()
    x.sum().item()
    steps = sorted(s.steps + sum(p.runs for p in s.fixed.values()) for s in programs.structures())
    assert len(steps) <= 5 and steps[-1] >= 18  # a round is short: two of them run together


PROGRAM = """
import graphtorch as torch
for n in range(3, 9):
    print((torch.ones(n) * 2).sum().item())
for n in range(2):
    torch.ones(4).roll(n + 1).sum().item()
"""


def test_the_report_of_programs(tmp_path: Path) -> None:
    path = tmp_path / "loop.py"
    path.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"GRAPHTORCH_DEBUG": "programs", "GRAPHTORCH_CACHE": str(tmp_path / "c")},
    )
    assert done.stdout.split() == ["6.0", "8.0", "10.0", "12.0", "14.0", "16.0"]
    head, columns, *rows = done.stderr.splitlines()
    assert (
        head.startswith("graphtorch programs: ") and "compiled in" in head and "op by op" in columns
    )
    assert any(
        row.split()[0] == "6" and "loop.py:4" in row and "new structure" in row for row in rows
    )
