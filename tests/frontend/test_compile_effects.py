"""Compiled functions that change what Python sees, or look at values in it, do what the plain ones
do."""

from __future__ import annotations

import contextlib
import gc
import io
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.utils.checkpoint import checkpoint

from ..helpers.both_ways import Compile, Plain, agrees, filled, vector


def counters(compile: Compile) -> Any:
    world, one, n = {"n": 0}, Plain(n=0), 0
    exec("def f(x):\n    global n\n    n += 1\n    return x * 2", world)

    class Model(nn.Module):
        n = 0

        def forward(self, x: Any) -> Any:
            self.n += 1
            return x * self.n

    def on_object(x: Any) -> Any:
        one.n += 1
        return x * one.n

    def outside(x: Any) -> Any:
        nonlocal n
        n += 1
        return x

    model = Model()
    runs = [compile(f) for f in (world["f"], on_object, outside, model)]
    found = [[f(vector(1)) for f in runs] for _ in range(5)]
    return [found, world["n"], one.n, n, model.n]


def containers(compile: Compile) -> Any:
    log: list[Any] = []
    seen: dict[Any, Any] = {}

    def f(x: Any, k: int, out: list[Any]) -> Any:
        log.append("called")
        seen[k] = len(log)
        out.append(x * k)
        return x

    run, out = compile(f), []
    for k in (1, 2, 1, 1, 1):
        run(vector(1), k, out)
    found = [len(log), sorted(seen.items()), list(out)]
    seen.clear()
    run(vector(1), 1, out)
    return [*found, sorted(seen.items()), len(out)]


def kept_results(compile: Compile) -> Any:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            self.h = x * 3
            return x + 1

    model, one = Model(), Plain(mode="before")

    def f(x: Any) -> Any:
        one.h, one.mode = x * 2, "after"
        return x + 1

    first, second, found = compile(model), compile(f), []
    for k in range(5):
        first(vector(k)), second(vector(k))
        found.append([model.h, one.h, one.mode])
    one.mode = "reset"
    second(vector(1))
    return [*found, one.mode]


def random_numbers(compile: Compile) -> Any:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    generator = np.random.default_rng(1)
    runs = [
        compile(f)
        for f in (
            lambda x: x * random.random(),
            lambda x: x * float(np.random.rand()),
            lambda x: x * generator.normal(),
            lambda x: x + torch.rand(2),
        )
    ]
    return [[f(vector(1, 2)) for f in runs] for _ in range(4)]


def a_seed_inside(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        torch.manual_seed(3)
        return x + torch.rand(2)

    run = compile(f)
    return [run(vector(1, 1)) for _ in range(3)] + [torch.rand(2)]


def printing(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        print("called")
        return x * 2

    run = compile(f)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for _ in range(4):
            run(vector(1))
    return printed.getvalue()


def failures(compile: Compile) -> Any:
    count = torch.zeros(1)

    def f(x: Any) -> Any:
        count.add_(1)
        if x.shape[0] > 2:
            raise KeyError("too long")
        return x + count

    run, found = compile(f), []
    for size in (1, 3, 1, 3, 3):
        try:
            found.append(run(torch.ones(size)))
        except KeyError as error:
            found.append(str(error))
    return [*found, count]


def generators(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        yield x * 2
        yield x * 3

    run = compile(f)
    return [list(run(vector(1))) for _ in range(3)]


# -- values needed in Python


def branches(compile: Compile) -> Any:
    model, total = filled(nn.Linear(1, 1)), torch.zeros(1)

    def f(x: Any) -> Any:
        total.add_(x)
        y = model(x)
        if y.sum().item() > 0:
            y = y * 2
        if total.item() > 2:
            total.zero_()
        while y.norm() < 4:
            y = y * 2
        return y * torch.zeros(int(x.abs().item()) + 1).numel()

    run, found = compile(f), []
    for v in (1.0, -5.0, 2.0, 1.0):
        model.zero_grad()
        y = run(vector(v))
        y.sum().backward()
        found += [y, model.weight.grad, total]
    return found


PROGRAMS = [
    counters,
    containers,
    kept_results,
    random_numbers,
    a_seed_inside,
    printing,
    failures,
    generators,
    branches,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_what_it_does_in_python_is_done(program: Callable[[Compile], Any]) -> None:
    agrees(program)


LOG: list[int] = []
FACTORS = [1.0, 2.0]


class Counting(torch.autograd.Function):  # type: ignore[misc]
    """Its backward pass notes that it ran, and reads a list."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        LOG.append(len(LOG))
        return g * len(FACTORS)


class Reading(Counting):
    """Only reads."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g * sum(FACTORS)


def test_what_a_backward_pass_does_in_python_happens_each_time() -> None:
    function = torch.compile(lambda x: (Counting.apply(x * 1), x + 1))
    LOG.clear()
    for i in range(5):
        x = torch.ones(2, requires_grad=True)
        first, second = function(x)
        (first.sum() + second.sum()).backward()
        assert len(LOG) == i + 1 and x.grad.tolist() == [3, 3]
    assert "backward pass" in function.explain()


def test_a_backward_pass_in_python_runs_when_it_is_asked_for() -> None:
    class Noting(Counting):
        pass

    for dynamic in (None, True):
        function = torch.compile(lambda x: Noting.apply(x * 1) * 3, dynamic=dynamic)
        x = torch.ones(2, requires_grad=True)
        LOG.clear()
        results = [function(x) for _ in range(3)]
        assert not LOG, "nobody has asked for a gradient"
        results[0].sum().backward()
        assert len(LOG) == 1 and x.grad.tolist() == [6, 6]


def test_a_backward_pass_is_recorded_once_it_was_seen_to_change_nothing() -> None:
    class Harmless(Reading):
        pass

    for dynamic in (None, True):
        function = torch.compile(lambda x: Harmless.apply(x * 1), dynamic=dynamic)
        for i in range(3):
            x = torch.ones(2 + i, requires_grad=True)
            y = function(x)
            if dynamic is None and not i:
                assert "Harmless" in function.explain() and not function.recorded
            y.sum().backward()
            assert x.grad.tolist() == [sum(FACTORS)] * (2 + i)
        assert function.recorded


def test_a_checkpointed_backward_pass_happens_once() -> None:
    class Kept(Counting):
        pass

    def inside(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(Kept.apply, x * 1, use_reentrant=False) * 2

    function = torch.compile(inside)
    LOG.clear()
    for i in range(3):
        function(torch.ones(2, requires_grad=True)).sum().backward()
        assert len(LOG) == i + 1


def test_what_a_backward_pass_reads_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "FACTORS", [1.0, 2.0])
    function = torch.compile(Reading.apply)
    for i in range(4):
        for _ in range(2):
            x = torch.ones(2, requires_grad=True)
            function(x).sum().backward()
            assert x.grad.tolist() == [sum(FACTORS)] * 2
        assert function.recorded == i + 1
        FACTORS.append(i)


def test_callbacks_of_the_garbage_collector_are_nobodys_code() -> None:
    """They run wherever memory happens to be swept, and are no part of the function."""
    times: list[float] = []

    def swept(phase: str, info: dict[str, int]) -> None:
        times.append(time.perf_counter())

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x * 2).sum()

    compiled, before = torch.compile(f), gc.get_threshold()
    gc.callbacks.append(swept)
    gc.set_threshold(1, 1, 1)
    try:
        results = [compiled(torch.ones(3)).item() for _ in range(3)]
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(swept)
    assert times and results == [6.0] * 3 and compiled.recorded == 1
