"""Usual programs are replayed, and what keeps changing is not recorded again and again."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

from ..helpers.both_ways import Plain, vector


def recordings(function: Any, calls: Any) -> int:
    run = torch.compile(function)
    for arguments in calls:
        run(*arguments)
    compiled = getattr(run, "_compiled", run)
    assert not compiled._vain
    return compiled.recorded


def test_usual_programs_are_replayed() -> None:
    x, model = torch.ones(2, 3, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
    average = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trainer = Plain(model=model, optimizer=optimizer, count=0, log=[])

    def step(x: Any) -> Any:
        trainer.optimizer.zero_grad()
        loss = trainer.model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def follow() -> None:
        for a, b in zip(average.parameters(), model.parameters(), strict=True):
            a.mul_(0.9).add_(b, alpha=0.1)

    def elements(x: Any, y: Any) -> Any:
        z = torch.zeros(3)
        z[0], z[1] = y, 2.0
        return z * x

    for function in (model, encoder, lambda x: encoder(x, mask=torch.ones(3, 3)), nn.LSTM(4, 3)):
        assert recordings(function, [(x,)] * 4) == 1
    assert recordings(follow, [()] * 4) == 1
    assert recordings(elements, [(torch.ones(3), torch.tensor(2.0))] * 4) == 1
    run = torch.compile(step)
    schedule = torch.optim.lr_scheduler.OneCycleLR(trainer.optimizer, 0.1, total_steps=20)
    for _ in range(8):
        trainer.log.append(run(x).item())
        trainer.count += 1
        schedule.step()
    assert run.recorded <= 2


def test_batches_of_a_data_set_are_replayed() -> None:
    data, model = torch.arange(400.0).reshape(50, 8), nn.Linear(8, 2)
    assert recordings(model, [(data[4 * i : 4 * i + 4],) for i in range(8)]) == 1
    windows = [(data[:, i : i + 3], data[:, i + 1 : i + 4]) for i in range(4)]
    assert recordings(lambda x, y: (x * y).sum(), windows) == 1


def test_states_with_a_history_are_replayed() -> None:
    cell, x = nn.LSTMCell(2, 3), torch.ones(1, 2)
    run = torch.compile(cell)
    state = torch.zeros(1, 3), torch.zeros(1, 3)
    plain = state
    for _ in range(5):
        state, plain = run(x, state), cell(x, plain)
    assert run.recorded == 2  # the first state has no history
    state[0].sum().backward()
    found = [p.grad.clone() for p in cell.parameters()]
    cell.zero_grad()
    plain[0].sum().backward()
    for p, gradient in zip(cell.parameters(), found, strict=True):
        assert torch.allclose(p.grad, gradient, atol=1e-6)


def test_what_keeps_changing_runs_line_by_line() -> None:
    one = Plain(n=0)

    def f(x: Any) -> Any:
        one.n += 1
        return x * one.n

    run = torch.compile(f)
    assert [run(vector(1)).item() for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert run.recorded == 0 and "runs line by line" in run.explain()
    reads = torch.compile(lambda x: x * x.sum().item())
    assert [reads(vector(v)).item() for v in (1, -1, 2)] == [1, 1, 4]
    assert "a value needed in Python at" in reads.explain()


def test_results_of_one_call_do_not_hold_on_to_arguments() -> None:
    import gc
    import weakref

    run = torch.compile(lambda pair: pair[0] * pair[1])
    x = torch.ones(3)
    alive = weakref.ref(x)
    run([x, torch.ones(3)])
    run([torch.ones(3), torch.ones(3)])
    del x
    gc.collect()
    assert alive() is None


def test_sizes_given_as_dims_are_no_way_around() -> None:
    one, size = Plain(n=0, k=1.0), torch.Dim("n", min=1, max=64)

    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return (a + b) * one.k

    def counting(a: Any, b: Any) -> Any:
        one.n += 1
        return a * one.n

    axes = {"a": {0: size}, "b": {0: size}}
    run = torch.compile(f, dynamic=axes)
    for n in (3, 4, 5):
        one.k = n / 2
        assert run(torch.zeros(n), torch.ones(n)).tolist() == [n] * n
        both = torch.zeros(n)
        assert run(both, both).tolist() == [n] * n
    counted = torch.compile(counting, dynamic=axes)
    with pytest.warns(UserWarning, match="a replay could not repeat"):
        counted(torch.ones(2), torch.ones(2))
    before = one.n
    assert [counted(torch.ones(n), torch.ones(n))[0].item() for n in (2, 3, 4, 2, 2)] == list(
        range(before + 1, before + 6)
    )


def test_copies_of_compiled_functions() -> None:
    model = nn.Linear(2, 2)
    compiled = torch.compile(model)
    x = torch.ones(1, 2)
    compiled(x)
    other = copy.deepcopy(compiled)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.fill_(3.0)
    assert other(x).tolist() == [[3.0, 3.0]] and torch.allclose(compiled(x), model(x))
    assert other.recorded == 1


def test_methods_compiled_in_their_class() -> None:
    class Scale:
        def __init__(self, k: float) -> None:
            self.k = k

        @torch.compile
        def forward(self, x: Any) -> Any:
            return x * self.k

        @classmethod
        @torch.compile
        def named(cls, x: Any) -> Any:
            return x * len(cls.__name__)

    a, b = Scale(2.0), Scale(3.0)
    for _ in range(2):
        assert [
            a.forward(vector(1)).item(),
            b.forward(vector(1)).item(),
            Scale.named(vector(1)).item(),
        ] == [2, 3, 5]
    a.k = 7.0
    assert a.forward(vector(1)).item() == 7
