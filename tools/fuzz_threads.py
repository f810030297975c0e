#!/usr/bin/env python3
"""Threads that each run a program of their own at once: does each get what it gets when it runs
alone?

    python3 tools/fuzz_threads.py [--threads 16] [--calls 1000] [--runs 1] [--first 0] [--switch
    0.005]

A program is a random sequence of plain and compiled calls, first calls of functions that other
threads call for the first time at the same moment, training steps, writes to parts, views, branches
on values, gradients and calls that fail. A few models and compiled functions are shared by all.
Each run is a process of its own, which is stopped, with where its threads stand, when it hangs.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure()

import argparse
import faulthandler
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch import nn

HANG_S = 500.0  # a run that takes longer hangs


class Shared:
    """What all threads use: two models in eval mode, compiled functions, and functions to
    compile."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 3),
        ).eval()
        self.compiled = [
            torch.compile(self.mlp),
            torch.compile(lambda x: torch.tanh(self.mlp(x)) * 2),
        ]
        # each thread calls each of these for the first time at about the same moment
        self.late = [
            torch.compile(lambda x, k=k: (x * k).exp() @ torch.ones(8, k + 1)) for k in range(9)
        ]


class Program:
    """A random program of one thread: the same seed gives the same results, whatever other threads
    do."""

    def __init__(self, seed: int, shared: Shared):
        torch.manual_seed(seed)
        self.shared = shared
        self.random = random.Random(seed)
        self.generator = torch.Generator()
        self.generator.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        self.compiled_model = torch.compile(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.state = torch.zeros(8)
        self.counting = torch.compile(self._count)

    def run(self, count: int) -> list[np.ndarray]:
        """The results of `count` calls."""
        kinds: Sequence[Callable[[Any], Any]] = (
            self.plain,
            self.convolve,
            self.replay,
            self.first_call,
            self.train,
            self.train_compiled,
            self.write,
            self.count,
            self.gradient,
            self.branch,
            self.view,
            self.fail,
            self.own_function,
        )
        return [np.array(self.random.choice(kinds)(self.batch())) for _ in range(count)]

    def batch(self) -> Any:
        return torch.randn(self.random.choice([2, 3, 8]), 8, generator=self.generator)

    def plain(self, x: Any) -> Any:
        return self.shared.mlp(x).detach().numpy()

    def convolve(self, x: Any) -> Any:
        return self.shared.net(x[:2].reshape(1, 1, 4, 4)).tolist()

    def replay(self, x: Any) -> Any:
        with torch.no_grad():
            return self.random.choice(self.shared.compiled)(x).numpy()

    def first_call(self, x: Any) -> Any:
        return self.random.choice(self.shared.late)(x).numpy()

    def own_function(self, x: Any) -> Any:
        factor = self.random.randrange(5)
        return torch.compile(lambda x: (x + factor).sum(1))(x).numpy()

    def train(self, x: Any, model: Any = None) -> Any:
        loss = ((self.model if model is None else model)(x) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def train_compiled(self, x: Any) -> Any:
        return self.train(x, self.compiled_model)

    def write(self, x: Any) -> Any:
        self.state.add_(x[0])
        self.state[0] = 1.0
        self.state[2:4].mul_(0.5)
        return self.state.tolist()

    def _count(self, x: Any) -> Any:
        self.state.add_(x.mean())
        return self.state * 2

    def count(self, x: Any) -> Any:
        return self.counting(x).numpy()

    def gradient(self, x: Any) -> Any:
        x.requires_grad_()
        return torch.autograd.grad((self.shared.mlp(x) ** 2).sum(), x)[0].numpy()

    def branch(self, x: Any) -> Any:
        return (x * 2 if x.sum() > 0 else x - 1).cumsum(0).numpy()

    def view(self, x: Any) -> Any:
        part = x.t()[1:3]
        part.fill_(2.0)
        return (x + part[0, 0]).numpy()

    def fail(self, x: Any) -> Any:
        for wrong in (
            lambda: x @ torch.ones(3, 3),
            lambda: self.shared.compiled[0](x[:, :3]).numpy(),
        ):
            try:
                wrong()
            except RuntimeError:
                continue
            raise AssertionError("shapes that do not fit were taken")
        return 0.0


def differences(seeds: Sequence[int], calls: int, seconds: float = HANG_S) -> list[str]:
    """What went wrong when programs of these seeds ran at once.

    Raises:
        TimeoutError: a thread still ran after `seconds`.
    """
    shared = Shared()
    programs = [Program(seed, shared) for seed in seeds]
    found: dict[int, Any] = {}
    start = threading.Barrier(len(seeds))

    def work(i: int) -> None:
        start.wait()
        try:
            found[i] = programs[i].run(calls)
        except BaseException:
            found[i] = traceback.format_exc()

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(seeds))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            raise TimeoutError(f"a thread still runs after {seconds} s")
    wrong = []
    alone = Shared()
    for i, seed in enumerate(seeds):
        if isinstance(found[i], str):
            wrong.append(f"seed {seed}: {found[i]}")
            continue
        expected = Program(seed, alone).run(calls)
        for call, (a, b) in enumerate(zip(found[i], expected, strict=True)):
            if a.shape != b.shape or not np.allclose(a, b, rtol=1e-4, atol=1e-5):
                wrong.append(f"seed {seed}, call {call}: {a} at once, {b} alone")
                break
    return wrong


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Threads at once against each alone.")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="seed of the first thread")
    parser.add_argument(
        "--switch", type=float, default=0.005, help="seconds after which threads take turns"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        sys.setswitchinterval(given.switch)
        faulthandler.enable()
        faulthandler.dump_traceback_later(HANG_S + 60, exit=True)
        wrong = differences(range(given.first, given.first + given.threads), given.calls)
        print(*wrong, sep="\n", flush=True)
        os._exit(bool(wrong))
    failed = 0
    for run in range(given.runs):
        first = given.first + run * given.threads
        options = [
            f"--threads={given.threads}",
            f"--calls={given.calls}",
            f"--switch={given.switch}",
        ]
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--inside", f"--first={first}", *options],
            capture_output=True,
            text=True,
        )
        failed += bool(done.returncode)
        result = f"ended with {done.returncode}" if done.returncode else "as alone"
        print(f"seeds from {first}: {result}, {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:], flush=True)
    print(
        f"{given.runs} runs of {given.threads} threads x {given.calls} calls: {failed} went wrong"
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
