"""Sizes and numbers that change from call to call of a compiled function become symbols by
themselves."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred import programs
from graphtorch.nn import functional as F


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs of compiled functions for which programs were made."""
    graphs: list[Any] = []
    original = programs.captured_program

    def counting(graph: Any, *rest: Any, **options: Any) -> Any:
        graphs.append(graph)
        return original(graph, *rest, **options)

    monkeypatch.setattr(programs, "captured_program", counting)
    programs.clear()
    torch.manual_seed(0)
    yield graphs
    programs.clear()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inputs, self.output = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Any) -> Any:
        batch, time, width = x.shape
        heads = [
            p.view(batch, time, 2, 4).transpose(1, 2)
            for p in self.inputs(self.norm(x)).split(width, 2)
        ]
        y = (
            F.scaled_dot_product_attention(*heads, is_causal=True)
            .transpose(1, 2)
            .reshape(batch, time, width)
        )
        x = x + self.output(y)
        return x + self.mlp(x)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Parameter(torch.randn(64, 8))
        self.block, self.head = Block(), nn.Linear(8, 11)

    def forward(self, x: Any) -> Any:
        return self.head(self.block(self.words(x) + self.places[: x.shape[1]]))


def agree(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **options: Any) -> Any:
    run = torch.compile(function, **options)
    for arguments in calls:
        assert torch.allclose(run(*arguments), function(*arguments), rtol=1e-4, atol=1e-5)
    return run


def words(*shape: int) -> torch.Tensor:
    return torch.randint(0, 11, shape)


@pytest.mark.parametrize(
    "calls",
    [
        lambda: [(words(n, 6),) for n in random.Random(0).sample(range(2, 50), 20)],
        lambda: [(words(3, n),) for n in random.Random(1).sample(range(2, 64), 20)],
        lambda: [(words(1, n),) for n in range(2, 64)],
        lambda: [(words(n % 7 + 2, n * 3 + 2),) for n in range(20)],
    ],
    ids=["batches", "lengths", "growing", "both"],
)
def test_a_transformer_of_any_size(calls: Any, compiled: list[Any]) -> None:
    with torch.no_grad():
        agree(Language().eval(), calls())
    assert len(compiled) <= 4


def test_pictures_of_any_size(compiled: list[Any]) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    draw = random.Random(2)
    with torch.no_grad():
        agree(
            net, [(torch.randn(2, 2, draw.randint(9, 60), draw.randint(9, 60)),) for _ in range(16)]
        )
    assert len(compiled) <= 3


def test_python_numbers(compiled: list[Any]) -> None:
    agree(lambda x, k: (x * k + k).relu(), [(torch.randn(4), n + 0.25) for n in range(12)])
    assert len(compiled) == 2
    compiled.clear()
    agree(lambda x, n: (x[:n] * n).sum() / n, [(torch.arange(70.0), n) for n in range(3, 69, 5)])
    assert len(compiled) == 2


def test_a_training_step_inside(compiled: list[Any]) -> None:
    nets = [Language(), None]
    nets[1] = copy.deepcopy(nets[0])

    def stepper(net: Any) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            return loss

        return step

    plain, run, draw = stepper(nets[0]), torch.compile(stepper(nets[1])), random.Random(3)
    for _ in range(7):
        x = words(draw.randint(2, 9), draw.randint(4, 20))
        assert run(x).item() == pytest.approx(plain(x).item(), rel=1e-4)
    assert len(compiled) <= 3


def test_forward_inside_and_backward_outside(compiled: list[Any]) -> None:
    net, draw = Language(), random.Random(4)
    run = torch.compile(net)
    for _ in range(7):
        x = words(draw.randint(2, 9), draw.randint(4, 20))
        gradients = []
        for f in (net, run):
            net.zero_grad()
            F.cross_entropy(f(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).backward()
            gradients.append([p.grad.clone() for p in net.parameters()])
        for a, b in zip(*gradients, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    assert len(compiled) <= 6  # forward and backward, each at most 3


def test_dynamic_false_and_true(compiled: list[Any]) -> None:
    def f(x: Any) -> Any:
        return (x - x.mean(0)).relu().sum(0) / x.shape[0]

    calls = [(torch.randn(n, 3),) for n in range(2, 10)]
    agree(f, calls, dynamic=False)
    assert len(compiled) == len(calls) and not any(g.symbols() for g in compiled)
    compiled.clear()
    programs.clear()
    agree(f, calls, dynamic=True)
    assert len(compiled) == 1 and compiled[0].symbols()
    compiled.clear()
    programs.clear()
    agree(f, calls[:1] * 3, dynamic=True)  # sizes that never change get a program all the same
    assert len(compiled) == 1
    with pytest.raises(TypeError, match="dynamic must be True, False, None or"):
        torch.compile(f, dynamic="yes")


def test_a_wrong_guess_is_not_used(compiled: list[Any]) -> None:
    def f(x: Any, y: Any) -> Any:  # the first two calls look as if y were one longer than x
        return x.sum() * y.cumsum(0)[-1] if len(x) < 8 else y.sum() - x.prod()

    sizes = [(2, 3), (4, 5), (3, 9), (5, 5), (6, 2), (9, 10), (12, 13), (7, 7), (30, 3)]
    agree(f, [(torch.randn(a), torch.randn(b)) for a, b in sizes])
    assert len(compiled) <= 6


def test_recordings_are_bounded() -> None:
    run = torch.compile(lambda x, k: x * k)
    for n in range(300):
        assert run(torch.ones(2), float(n)).tolist() == [n, n]
    assert len(run._entries) <= 128


def test_what_one_recording_assumes_of_sizes_is_not_anothers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The smaller of two sizes is another one here and there."""
    monkeypatch.setattr(programs, "CHOSEN", "reference")
    programs.clear()
    for rows in (2, 3, 4, 7, 8):
        function = torch.compile(lambda x: torch.linalg.lu_factor(x))
        x = torch.arange(rows * 5.0).reshape(rows, 5) % 7 + torch.eye(rows, 5)
        for _ in range(3):
            found, wanted = function(x), torch.linalg.lu_factor(x)
            assert torch.allclose(found[0], wanted[0]) and found[1].tolist() == wanted[1].tolist()
    programs.clear()


def test_models_of_one_structure_keep_the_sizes_of_their_weights() -> None:
    """Sizes become symbols where they change from call to call of one function, not where another
    function has others: products of known sizes are faster."""
    reports = []
    for inner, outer in ((40, 24), (56, 72), (88, 16)):
        layer = torch.nn.Linear(inner, outer)
        compiled = torch.compile(layer)
        for rows in (3, 5, 9):
            x = torch.randn(rows, inner)
            with torch.no_grad():
                assert torch.allclose(compiled(x), x @ layer.weight.T + layer.bias, atol=1e-5)
        reports.append(compiled.explain())
    for report, (inner, outer) in zip(reports, ((40, 24), (56, 72), (88, 16)), strict=True):
        assert f"f32[{outer}, {inner}]" in report
