"""trace and compile: graphs, replay, state, dynamic sizes, guards, errors."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.ir import text


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def test_trace_names_inputs_and_parameters():
    m = model().eval()
    traced = torch.trace(m, torch.zeros(5, 4), dynamic={0: {0: torch.Dim("batch", min=1, max=64)}})
    assert [v.name for v in traced.graph.inputs] == [
        "input",
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    assert traced.inputs == ("input",) and set(traced.parameters) == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }
    assert str(traced.graph.inputs[0].type) == "f32[batch, 4]"
    assert text.parse(str(traced.graph)) == traced.graph


def test_trace_refuses_values_in_python():
    def f(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(RuntimeError, match=r"test_compile.py:\d+.*torch.where"):
        torch.trace(f, torch.ones(3))
    assert torch.ones(2).sum().item() == 2  # the capture is over


def test_compiled_module_is_differentiable():
    m = model()
    compiled = torch.compile(m)
    x = torch.randn(5, 4, requires_grad=True)
    for _ in range(2):
        want = m(x)
        want.square().sum().backward()
        grads = [p.grad.clone() for p in m.parameters()] + [x.grad.clone()]
        m.zero_grad()
        x.grad = None
        got = compiled(x)
        assert torch.allclose(got, want, atol=1e-6)
        got.square().sum().backward()
        for g, p in zip(grads, [*m.parameters(), x], strict=True):
            assert torch.allclose(g, p.grad, rtol=1e-4, atol=1e-6)
        m.zero_grad()
        x.grad = None
    assert compiled.recorded == 1


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.05)],
)
def test_compiled_training_step_equals_the_plain_one(make):
    x, t = torch.randn(6, 4), torch.arange(6) % 3

    def losses(compiled):
        m = model()
        opt = make(m.parameters())
        sched = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)

        def step(x, t):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(m(x), t)
            loss.backward()
            opt.step()
            return loss

        run = torch.compile(step) if compiled else step
        found = []
        for _ in range(6):
            found.append(run(x, t).item())
            sched.step()
        return found, getattr(run, "recorded", 0)

    plain, _ = losses(False)
    replayed, recorded = losses(True)
    assert replayed == pytest.approx(plain, rel=1e-4) and recorded <= 2


def test_one_recording_serves_all_sizes():
    m = model()
    compiled = torch.compile(m, dynamic={0: {0: torch.Dim("n", max=64)}})
    for n in (5, 1, 2, 7, 64):
        x = torch.randn(n, 4)
        assert torch.allclose(compiled(x), m(x), atol=1e-6)
    assert compiled.recorded == 1


def test_guards_record_anew():
    m = nn.Dropout(0.5)
    f = torch.compile(lambda x, k: m(x) * k)
    x = torch.ones(100)
    m.eval()
    assert f(x, 2).tolist() == [2.0] * 100 and f(x, 3).tolist() == [3.0] * 100
    m.train()
    a, b = f(x, 2), f(x, 2)
    assert 0 in a.tolist() and a.tolist() != b.tolist()
    assert f.recorded == 3
    assert f(torch.ones(3, dtype=torch.float64), 2).dtype is torch.float64


def test_random_numbers_in_a_compiled_call_move_on():
    f = torch.compile(lambda: torch.rand(4))
    torch.manual_seed(5)
    got = [f().tolist() for _ in range(3)]
    torch.manual_seed(5)
    assert got == [torch.rand(4).tolist() for _ in range(3)]


def test_compiled_call_updates_buffers_and_arguments():
    bn = nn.BatchNorm1d(3)
    f = torch.compile(bn)
    for _ in range(3):
        f(torch.randn(8, 3))
    assert int(bn.num_batches_tracked) == 3

    def bump(x):
        x += 1
        return x * 2

    x = torch.zeros(2)
    g = torch.compile(bump)
    assert g(x).tolist() == [2, 2] and g(x).tolist() == [4, 4] and x.tolist() == [2, 2]


def test_state_kept_outside_is_materialised():
    kept = []

    def f(x):
        if not kept:
            kept.append(x * 3)
        return x + kept[0]

    g = torch.compile(f)
    assert g(torch.ones(2)).tolist() == [4, 4] and kept[0].tolist() == [3, 3]
    assert g(torch.ones(2)).tolist() == [4, 4]
    # the first call ran line by line
    assert g(torch.ones(2)).tolist() == [4, 4] and g.recorded == 1


def test_a_symbolic_size_is_an_int_in_arithmetic() -> None:
    @torch.compile(dynamic={"x": {0: torch.Dim("n", min=1, max=8)}})
    def mean_and_twice(x, k):
        return x.sum() / x.shape[0], k * x.shape[0]

    for n in (1, 3, 8):
        mean, twice = mean_and_twice(torch.ones(n), torch.tensor(2))
        assert mean.dtype is torch.float32 and twice.dtype is torch.int64
        assert (mean.item(), twice.item()) == (1.0, 2 * n)
    assert mean_and_twice.recorded == 1


@pytest.mark.parametrize(
    "make", [torch.optim.Adam, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)]
)
def test_training_step_is_one_program_from_the_start(make):
    """Neither the optimizer's state nor the gradients exist before the first step."""
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        optimizer = make(net.parameters())

        def step(x, net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = net(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        run = torch.compile(step) if compiled else step
        losses.append([run(torch.ones(4, 3)).item() for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert (
        len({id(e.replay.program.program) for kind in run._entries.values() for e in kind.entries})
        == 1
    )


def test_positional_arguments_beside_keyword_only_ones() -> None:
    def total(a1: Any, *a: Any, scale: Any = 2.0, **more: Any) -> Any:
        return (a1 + sum(a)) * scale + sum(more.values())

    x = torch.ones(2)
    compiled = torch.compile(total, fullgraph=True)
    for _ in range(2):
        assert compiled(x, x, x, x).tolist() == [8, 8]
        assert compiled(x, x, x, scale=x, a2=x).tolist() == [4, 4]
