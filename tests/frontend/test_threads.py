"""Threads, forks and interrupts: what one of them does is never part of what another one
records."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch._deferred import programs
from graphtorch.ir.structure import skeleton

TOOLS = Path(__file__).parent.parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
fuzz = importlib.import_module("fuzz_threads")
sys.path.remove(str(TOOLS))
THREADS = 8


def together(works: list[Callable[[], Any]]) -> list[Any]:
    """What each returns, all of them started at the same moment in threads of their own."""
    results: list[Any] = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(i: int) -> None:
        start.wait()
        try:
            results[i] = works[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
        assert not t.is_alive(), "a thread hangs"
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns all the time, so that what can go wrong between them does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


# --------------------------------------------------------------------------------- programs at once


def test_programs_of_threads_give_what_each_gives_alone(switching: None) -> None:
    assert not fuzz.differences(range(THREADS), 40)


def test_first_calls_of_one_compiled_function_at_once(switching: None) -> None:
    weight = torch.randn(5, 7)
    compiled = torch.compile(lambda x: torch.softmax(x @ weight, 1).cumsum(1))
    inputs = [torch.randn(3, 5) for _ in range(THREADS)]
    found = together([lambda x=x: [compiled(x).numpy() for _ in range(5)] for x in inputs])  # type: ignore[misc]
    for x, results in zip(inputs, found, strict=True):
        expected = torch.softmax(x @ weight, 1).cumsum(1).numpy()
        for result in results:
            np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_gradients_of_threads_add_up(switching: None) -> None:
    weight = torch.ones(4, requires_grad=True)

    def work() -> None:
        for _ in range(25):
            (weight * 2).sum().backward()

    together([work] * THREADS)
    assert weight.grad.tolist() == [2.0 * 25 * THREADS] * 4


def test_a_graph_still_compiling_does_not_stop_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return original(*args, **options)

    original = programs.captured_program
    monkeypatch.setattr(programs, "captured_program", slow)
    compiled = torch.compile(lambda x: x.exp() * 3)
    thread = threading.Thread(target=compiled, args=(torch.ones(3),))
    thread.start()
    assert entered.wait(60)
    try:
        assert (torch.arange(4.0).reshape(2, 2) @ torch.ones(2, 2)).tolist() == [[1, 1], [5, 5]]
    finally:
        leave.set()
        thread.join()


def test_structures_never_share_a_number(switching: None) -> None:
    keys = [[("structure", i, k) for k in range(300)] for i in range(THREADS)]
    found = together([lambda own=own: [skeleton(k) for k in own] for own in keys])  # type: ignore[misc]
    numbers = [n for own in found for n in own]
    assert len(set(numbers)) == len(numbers)


def test_threads_that_share_a_generator_draw_different_numbers(switching: None) -> None:
    def draw() -> list[float]:
        return [torch.rand(1).item() for _ in range(40)]

    numbers = [n for own in together([draw] * THREADS) for n in own]
    assert len(set(numbers)) > 0.99 * len(numbers)


# --------------------------------------------------------------------------------- during a capture


def during_a_capture(
    function: Callable[..., Any], other: Callable[[], Any], x: Any
) -> tuple[Any, Any]:
    """A compiled `function`, and what `other` returned in another thread in the middle of its
    recording.

    `function` takes a callable that lets the other thread run, and `x`.
    """
    seen: list[Any] = []

    def let() -> None:
        if not seen:
            thread = threading.Thread(target=lambda: seen.append(other()))
            thread.start()
            thread.join(60)
            assert not thread.is_alive()

    compiled = torch.compile(lambda x: function(let, x))
    compiled(x)
    return compiled, seen[0]


def test_writes_of_another_thread_are_not_recorded() -> None:
    counter = torch.zeros(1)

    def other() -> float:
        for _ in range(3):
            counter.add_(1)
        return counter.item()

    def function(let: Callable[[], None], x: Any) -> Any:
        let()
        return x * 2

    compiled, seen = during_a_capture(function, other, torch.ones(2))
    for _ in range(3):
        assert compiled(torch.ones(2)).tolist() == [2, 2]
    assert seen == 3 and counter.item() == 3


def test_another_thread_does_not_see_what_a_capture_has_not_run() -> None:
    state = torch.ones(2)

    def function(let: Callable[[], None], x: Any) -> Any:
        state.mul_(x.sum())
        let()
        return state + x

    compiled, seen = during_a_capture(function, state.tolist, torch.ones(2))
    assert seen == [1, 1] and state.tolist() == [2, 2]
    assert compiled(torch.ones(2)).tolist() == [5, 5]
    assert state.tolist() == [4, 4]


def test_a_write_of_another_thread_during_a_capture_is_kept() -> None:
    state, mine = torch.ones(2), torch.zeros(2)

    def other() -> None:
        state[1] = 7.0
        mine.add_(1)

    def function(let: Callable[[], None], x: Any) -> Any:
        let()
        return state + x

    compiled, _ = during_a_capture(function, other, torch.ones(2))
    assert state.tolist() == [1, 7] and mine.tolist() == [1, 1]
    assert compiled(torch.ones(2)).tolist() == [2, 8]


def test_pending_work_of_another_thread_is_read() -> None:
    made: list[Any] = []
    weight = torch.ones(3)
    thread = threading.Thread(target=lambda: made.append(weight * 3 + 1))
    thread.start()
    thread.join()
    compiled = torch.compile(lambda x: x + made[0])
    assert compiled(torch.ones(3)).tolist() == [5, 5, 5]
    assert compiled(torch.zeros(3)).tolist() == [4, 4, 4]
    assert made[0].tolist() == [4, 4, 4]


def test_random_numbers_of_another_thread_are_not_drawn_again() -> None:
    drawn: list[Any] = []
    torch.manual_seed(3)

    def function(let: Callable[[], None], x: Any) -> Any:
        made = x + torch.rand(3)
        let()
        return made

    compiled, seen = during_a_capture(function, lambda: torch.rand(3).tolist(), torch.zeros(3))
    drawn = [compiled(torch.zeros(3)).tolist(), torch.rand(3).tolist(), seen]
    assert len({tuple(d) for d in drawn}) == 3


# ---------------------------------------------------------------------------- processes, interrupts


SCRIPT = """
import multiprocessing, os
import graphtorch as torch
from graphtorch import nn

model = nn.Linear(3, 2)
compiled = torch.compile(model)
state = torch.ones(3) * 2


def work(queue, seed):
    torch.manual_seed(seed)
    x = torch.ones(4, 3)
    loss = model(x).pow(2).sum()
    loss.backward()
    queue.put((compiled(x).sum().item(), loss.item(), (state * 2).tolist()))


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    x = torch.ones(4, 3)
    expected = compiled(x).sum().item(), model(x).pow(2).sum().item(), [4.0] * 3
    later = state + 1  # pending when the child is made
    context = multiprocessing.get_context(METHOD)
    queue = context.Queue()
    children = [context.Process(target=work, args=(queue, i)) for i in range(2)]
    for c in children:
        c.start()
    found = [queue.get(timeout=100) for _ in children]
    for c in children:
        c.join()
        assert c.exitcode == 0, c.exitcode
    if METHOD == "fork":
        assert found == [expected] * 2, (found, expected)
    else:
        assert [f[2] for f in found] == [[4.0] * 3] * 2
    assert later.tolist() == [3.0] * 3
    assert compiled(x).sum().item() == expected[0]
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_made_after_use(method: str, tmp_path: Any) -> None:
    path = tmp_path / "program.py"
    path.write_text(f"METHOD = {method!r}\n{SCRIPT}")
    subprocess.run([sys.executable, str(path)], check=True, timeout=200)


def test_a_fork_while_other_threads_run_and_compile() -> None:
    stop = threading.Event()

    def work(seed: int) -> None:
        size = 3
        while not stop.is_set():
            size += 1
            x = torch.ones(size, seed + 2)
            assert torch.compile(lambda x: (x * 2).sum())(x).item() == 2 * size * (seed + 2)
            assert (x @ x.T).sum().item() == size * size * (seed + 2)

    # imports what compiles: Python's own locks do not survive a fork
    torch.compile(torch.exp)(torch.ones(1))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    try:
        for size in range(6):
            time.sleep(0.02)
            child = os.fork()
            if child == 0:
                signal.alarm(110)
                total = torch.compile(lambda x: x.exp().sum())(torch.zeros(5, size + 1)).item()
                os._exit(0 if total == 5 * (size + 1) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for t in threads:
            t.join()


class Interrupt(KeyboardInterrupt):
    """Sent by a timer."""


# one that lands in a destructor is printed, not raised
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_calls_after_an_interrupt_work() -> None:
    armed = False

    def ring(*_: Any) -> None:
        if armed:
            raise Interrupt

    before = signal.signal(signal.SIGALRM, ring)
    choose = random.Random(0)
    hits = 0
    try:
        for trial in range(24):
            weight = torch.randn(trial + 2, 3)
            function = (
                torch.compile(lambda x, w=weight: torch.tanh(x @ w).sum(0))
                if trial % 2
                else (lambda x, w=weight: torch.tanh(x @ w).sum(0))
            )
            x = torch.randn(4, trial + 2)
            try:
                armed = True
                longest = choose.choice([0.0005, 0.004, 0.02])
                signal.setitimer(signal.ITIMER_REAL, longest * choose.random() + 1e-5)
                function(x).numpy()
                function(x).numpy()
            except Interrupt:
                hits += 1
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
            expected = np.tanh(x.numpy() @ weight.numpy()).sum(0)
            np.testing.assert_allclose(function(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert hits


def test_an_interrupt_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    state = torch.zeros(2)

    def function(x: Any) -> Any:
        state.add_(1)
        return x + state

    compiled = torch.compile(function)
    with monkeypatch.context() as patched:
        patched.setattr(programs, "captured_program", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compiled(torch.zeros(2))
    assert state.tolist() == [0, 0]
    assert compiled(torch.zeros(2)).tolist() == [1, 1]
    assert compiled(torch.zeros(2)).tolist() == [2, 2]
