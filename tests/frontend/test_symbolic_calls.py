"""Sizes as symbols of a compiled function: a recording for each branch that Python takes by
them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred import programs

F = nn.functional
SIZES = (6, 9, 7, 12, 10, 14)


def doubled(x: Any) -> Any:
    k = 1
    while k < x.shape[0]:
        x, k = x * 2, k * 2
    return x


def even(x: Any) -> Any:
    assert x.size(0) % 2 == 0, "an odd number of rows"
    return x.view(-1, 2).sum(1)


def counted(x: Any) -> Any:
    for i in range(x.shape[0]):
        x = x + i * x[i]
    return x


def in_blocks(x: Any) -> Any:
    missing = -x.shape[0] % 4
    return F.pad(x, (0, 0, 0, missing)) if missing else x


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.ones(16, 16).tril()

    def forward(self, x: Any) -> Any:
        t = x.shape[0]
        return torch.softmax((x @ x.t()).masked_fill(self.mask[:t, :t] == 0, float("-inf")), -1) @ x


class Pool(nn.Module):
    def forward(self, x: Any) -> Any:
        return F.avg_pool1d(x.t(), 3).t() if x.shape[0] >= 9 else x.mean(0, keepdim=True)


# What reads an [n, 3], and how many recordings serve the six sizes of n.
CASES: dict[str, tuple[Callable[..., Any], int]] = {
    "last": (lambda x: x[:, -1] + x[-1].sum(), 1),
    "first rows": (lambda x: x[:3] * 2, 1),
    "half": (lambda x: x[: x.shape[0] // 2], 1),
    "mask": (Causal(), 1),
    "if": (lambda x: x * 2 if x.shape[0] > 9 else -x, 2),
    "min": (lambda x: x[: min(x.shape[0], 8)], 2),
    "max of two": (lambda x: x.sum() * max(x.shape[0], 10), 2),
    "equal": (lambda x: x + 1 if x.shape[0] == 9 else x - 1, 2),
    "shapes equal": (lambda x: x + 1 if x.shape == (9, 3) else x - 1, 2),
    "one of": (lambda x: x + 1 if x.size(0) in (9, 12) else x - 1, 3),
    "odd": (lambda x: x * 3 if x.shape[0] % 2 else x, 2),
    "loop on comparisons": (doubled, 2),
    "assert": (lambda x: even(torch.cat([x[:, 0], x[:, 1]])), 1),
    "topk": (lambda x: x.topk(2, 0).values, 1),
    "interpolate": (lambda x: F.interpolate(x.t()[None], scale_factor=2), 1),
    "chunk": (lambda x: x.chunk(2)[0] * 2, 2),
    "unfold": (lambda x: x.unfold(0, 3, 1).sum(-1), 1),
    "arithmetic": (lambda x: x.reshape(x.shape[0] * 3).view(-1, 1), 1),
    "as a number": (lambda x: x / x.shape[0], 1),
    "count": (lambda x: x.sum() / x.numel(), 1),
    "arange": (lambda x: x + torch.arange(x.shape[0])[:, None], 1),
    "new": (lambda x: torch.cat([x, x.new_zeros(1, x.shape[1])]), 1),
    "standard": (lambda x: (x - x.mean(0)) / x.std(0), 1),
    "an int": (lambda x: x * 2 if isinstance(x.shape[0], int) else x.nothing, 1),
    "sizes returned": (lambda x: (x * 2, x.shape[0], x.shape, x.size(0) // 2), 1),
    "pooling": (Pool(), 2),
    "blocks": (in_blocks, 4),
    # what has to be a number of Python is recorded for each
    "len": (lambda x: x * len(x), 6),
    "range": (counted, 6),
    "root": (lambda x: x / x.shape[0] ** 0.5, 6),
    "key": (lambda x: x * {9: 2.0, 12: 3.0}.get(x.shape[0], 1.0), 6),
    "text": (lambda x: x if f"{x.shape[0]}" == "9" else -x, 6),
}


def values(result: Any) -> list[Any]:
    """Tensors as they are, gradients behind them; others by value."""
    return [result] if isinstance(result, torch.Tensor) else list(result)


def agree(function: Any, compiled: Any, x: Any) -> None:
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    found = [values(f(i)) for f, i in zip((function, compiled), inputs, strict=True)]
    for want, got in zip(*found, strict=True):
        if isinstance(want, torch.Tensor):
            assert want.shape == got.shape and torch.allclose(want, got, rtol=1e-4, atol=1e-5)
        else:
            assert type(want) is type(got) and want == got
    for results in found:
        sum(r.square().sum() for r in results if isinstance(r, torch.Tensor)).backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(CASES))
def test_a_recording_for_each_branch(name: str) -> None:
    function, branches = CASES[name]
    compiled = torch.compile(function, dynamic=True)
    torch.manual_seed(0)
    for n in (*SIZES, *SIZES[:3]):
        agree(function, compiled, torch.randn(n, 3))
    assert compiled.recorded == branches


@pytest.mark.parametrize("name", ["last", "if", "mask", "as a number", "loop on comparisons"])
def test_the_second_size_is_a_symbol(name: str) -> None:
    """Without being asked: the first recording is for its size alone."""
    function, branches = CASES[name]
    compiled = torch.compile(function)
    for n in (*SIZES, *SIZES[:3]):
        agree(function, compiled, torch.randn(n, 3))
    assert compiled.recorded <= branches + 1


def model() -> Any:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 2))


def test_models_and_their_training() -> None:
    torch.manual_seed(0)
    net = model()
    compiled = torch.compile(net, dynamic=True)
    for n in SIZES:
        gradients = []
        x = torch.randn(n, 3)
        for f in (net, compiled):
            net.zero_grad()
            f(x).square().mean().backward()
            gradients.append([p.grad.clone() for p in net.parameters()])
        for a, b in zip(*gradients, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    # features have to be 3: only the first sizes are symbols all over
    assert compiled.recorded <= 2


def test_second_gradients() -> None:
    compiled = torch.compile(lambda x: (x**3).sum() / x.shape[0], dynamic=True)
    for n in SIZES:
        x = torch.randn(n, requires_grad=True)
        (first,) = torch.autograd.grad(compiled(x), x, create_graph=True)
        first.sum().backward()
        assert torch.allclose(x.grad, 6 * x / n)
    assert compiled.recorded == 1


def test_marks() -> None:
    def f(x: Any) -> Any:
        return x.sum(0) * 2 if x.shape[0] > 9 else x.sum(0)

    compiled = torch.compile(f)
    for n in SIZES:
        x = torch.randn(n, 3)
        torch._dynamo.mark_dynamic(x, 0)
        assert torch.allclose(compiled(x), f(x), atol=1e-5)
    assert compiled.recorded == 2
    assert "[s0, 3]" in str(compiled.graphs[0])

    needs = torch.compile(lambda x: x * len(x))
    x = torch.ones(5)
    torch._dynamo.mark_dynamic(x, 0)
    with pytest.raises(RuntimeError, match=r"axis 0 of tensor 0 .* marked as dynamic.*which was 5"):
        needs(x)
    for n in (5, 6, 7):
        x = torch.ones(n)
        torch._dynamo.maybe_mark_dynamic(x, 0)
        assert torch.compile(lambda x: x * len(x))(x).tolist() == [n] * n
    kept = torch.compile(lambda x: x + 1, dynamic=True)
    for n in (3, 4):
        x = torch.ones(n, 6)
        torch._dynamo.mark_static(x, 1)
        kept(x)
    assert [str(g.inputs[0].type) for g in kept.graphs] == ["f32[s0, 6]"]
    with pytest.raises(IndexError, match="Dimension out of range"):
        torch._dynamo.mark_dynamic(x, 2)


def test_equal_sizes_are_one_symbol_until_they_differ() -> None:
    compiled = torch.compile(lambda x, y: (x * y).sum(), dynamic=True)
    for n in SIZES:
        compiled(torch.ones(n, 3), torch.ones(n, 3))
    assert compiled.recorded == 1
    with pytest.raises(RuntimeError, match="must match"):
        compiled(torch.ones(6, 3), torch.ones(7, 3))
    assert compiled(torch.ones(6, 3), torch.ones(1, 3)).item() == 18  # a size of 1 is apart


def test_what_happens_in_python_happens_once() -> None:
    seen: list[Any] = []

    def kept(x: Any) -> Any:
        seen.append(1)
        return x + 1

    class Counter:
        calls = 0

    counter = Counter()

    def counted_calls(x: Any) -> Any:
        counter.calls += 1
        return x + counter.calls

    for function in (kept, counted_calls):
        compiled = torch.compile(function, dynamic=True)
        for n in SIZES:
            compiled(torch.zeros(n))
    assert len(seen) == counter.calls == len(SIZES)


def test_errors_are_those_of_the_plain_call() -> None:
    compiled = torch.compile(even, dynamic=True)
    with pytest.raises(AssertionError, match="odd"):
        compiled(torch.ones(7))
    for n in (4, 6, 8):
        assert compiled(torch.ones(n)).tolist() == [2] * (n // 2)
    assert compiled.recorded == 1
    with pytest.raises(RuntimeError):
        torch.compile(lambda x: x @ torch.ones(3, 2), dynamic=True)(torch.ones(2, 4))


def test_numbers_beside_sizes_make_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []
    original = programs.captured_program

    def counting(graph: Any, *rest: Any, **options: Any) -> Any:
        graphs.append(graph)
        return original(graph, *rest, **options)

    monkeypatch.setattr(programs, "captured_program", counting)
    compiled = torch.compile(lambda x, k: (x * k).relu() + k, dynamic=True)
    for i, n in enumerate((*SIZES, *SIZES)):
        x = torch.randn(n, 3)
        assert torch.allclose(compiled(x, i + 0.25), (x * (i + 0.25)).relu() + i + 0.25)
    assert compiled.recorded == 12 and len(graphs) <= 3


def test_values_that_python_reads_are_recorded_for_each_size() -> None:
    def f(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else -x

    compiled = torch.compile(f, dynamic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in SIZES:
            for sign in (1.0, -1.0):
                x = torch.full((n,), sign)
                assert compiled(x).tolist() == f(x).tolist()


def test_sizes_that_come_back_keep_their_programs() -> None:
    """The size that came first has a program of its own, which is the faster one."""
    compiled = torch.compile(lambda x: x.relu().sum(0))
    for n in (*SIZES, *SIZES):
        compiled(torch.ones(n, 3))
    assert compiled.recorded == 2
    assert sorted(str(g.inputs[0].type) for g in compiled.graphs) == ["f32[6, 3]", "f32[s0, 3]"]


def test_deterministic_calls_do_not_depend_on_earlier_ones() -> None:
    compiled = torch.compile(lambda x: x.sum(0), dynamic=True)
    torch.use_deterministic_algorithms(True)
    try:
        for n in SIZES[:3]:
            compiled(torch.ones(n, 3))
    finally:
        torch.use_deterministic_algorithms(False)
    assert not any(g.symbols() for g in compiled.graphs)


def test_views_of_arguments_whose_strides_are_symbols() -> None:
    compiled = torch.compile(lambda x: x[:, 0], dynamic=True)
    for n in (3, 4, 5):
        x = torch.randn(2, n, 3)
        view = compiled(x)
        assert torch.equal(view, x[:, 0]) and view.stride() == (3 * n, 1)
        x[:, 0] = 7
        assert view.tolist() == [[7] * 3] * 2
    assert compiled.recorded <= 2


def test_gradients_of_arguments_that_have_some() -> None:
    def step(x: Any) -> Any:
        x.square().sum().backward()
        return x.grad * 1

    compiled = torch.compile(step, dynamic=True)
    for n in (3, 4, 5):
        x, y = torch.ones(n, requires_grad=True), torch.ones(n, requires_grad=True)
        for _ in range(2):
            assert compiled(x).tolist() == step(y).tolist()
        assert x.grad.tolist() == y.grad.tolist() == [4] * n


def test_what_cannot_be_symbolic_is_not_handled_by_the_function() -> None:
    def handled(x: Any) -> Any:
        try:
            return x * x.sum().item()
        except RuntimeError:
            return x

    compiled = torch.compile(handled, dynamic=True)
    for n in SIZES[:3]:
        assert compiled(torch.ones(n)).tolist() == [n] * n

    fired: list[int] = []
    weight = torch.ones(1, requires_grad=True)

    def hooked(x: Any) -> Any:
        weight.register_hook(lambda g: fired.append(1))
        return (x * weight).sum()

    torch.compile(hooked, dynamic=True)(torch.ones(3)).backward()
    assert fired == [1]

    def seeded(x: Any) -> Any:
        torch.manual_seed(x.shape[0])
        return torch.rand(2) + x.sum()

    compiled = torch.compile(seeded, dynamic=True)
    for n in (3, 4, 3, 4):
        assert compiled(torch.ones(n)).tolist() == seeded(torch.ones(n)).tolist()


class Joined(nn.Module):
    """A level of a U-Net: down, up again, beside what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.up = nn.Conv2d(4, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.up(torch.relu(self.inner(nn.functional.max_pool2d(x, 2))))
        return torch.cat([x, inside], 1)


def test_images_that_are_halved_and_joined_again_state_that_they_can_be() -> None:
    torch.manual_seed(0)
    model, dims = Joined(), {2: torch.Dim("height", min=2), 3: torch.Dim("width", min=2)}
    x = torch.randn(2, 4, 8, 6)
    traced = torch.trace(model, x, dynamic={0: dims})
    assert {"height-2*(height//2)", "-height+2*(height//2)"} <= set(map(str, traced.conditions))
    called = torch.compile(model, dynamic=True)
    for height, width in ((8, 6), (4, 10), (2, 2), (16, 16)):
        x = torch.randn(3, 4, height, width)
        assert torch.allclose(called(x), model(x), atol=1e-6)
    for f in (model, called):
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
            f(torch.randn(1, 4, 5, 6))
