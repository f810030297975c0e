#!/usr/bin/env python3
"""Random programs of views, writes in place, hooks and gradients, line by line on graphtorch and on
PyTorch.

    python3 tools/fuzz_autograd.py [--count 2000] [--first 0] [--show 20]

Compared: values, versions, who requires grad, the gradients of first and second order, those that
tensors keep, what hooks saw, and the type of every exception. A seed names a program:
`--first SEED --count 1 --trace` prints it. Left out: views made under no_grad, which PyTorch 2.13
treats otherwise than documented, functions of several views, whose results PyTorch refuses to
look at after a write, and views of which one
side is given other memory, which PyTorch still takes for views.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure("oracle")

import argparse
import faulthandler
import math
import os
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

SHAPES = [(2, 3), (3, 2), (6,), (2, 2, 3), (4,)]
LINES = (
    ["view"] * 4
    + ["arithmetic"] * 3
    + ["write"] * 3
    + ["hook"] * 2
    + [
        "item",
        "copy",
        "detach",
        "data",
        "data_write",
        "set_data",
        "no_grad",
        "matmul",
        "cat",
    ]
)
THEIRS, OURS = 7, 8  # how a child ends where a program failed in a way that is no refusal
LIMITS = ("modified by an inplace operation", "refers to a single memory location")
REFUSALS = (RuntimeError, IndexError, ValueError, TypeError)


class Program:
    """The program of one seed, run with the module `torch`."""

    def __init__(self, seed: int, torch: Any, trace: bool = False):
        self.torch, self.trace = torch, trace
        self.random = random.Random(seed)
        self.pool: list[Any] = []
        self.seen: list[tuple[int, float]] = []  # what hooks were given
        self.outcomes: list[Any] = []  # of each line
        self.results: list[Any] = []
        self.refused = False  # a gradient, as what it needs was written to
        self._leaves(seed)
        for number in range(self.random.randint(4, 14)):
            self._line(number)
        self._gradients()

    def _leaves(self, seed: int) -> None:
        for i in range(self.random.randint(1, 3)):
            shape = self.random.choice(SHAPES)
            flat = self.torch.arange(math.prod(shape), dtype=self.torch.float64)
            x = (flat * 0.37 + i + seed % 7).cos().reshape(shape).clone()
            self.pool.append(x.requires_grad_() if self.random.random() < 0.75 else x)
        self.leaves = list(self.pool)
        for x in self.leaves:
            if x.requires_grad and self.random.random() < 0.7:
                self.pool.append(x * 1.0)

    def _line(self, number: int) -> None:
        kind = self.random.choice(LINES)
        x, y = self.random.choice(self.pool), self.random.choice(self.pool)
        c = round(self.random.uniform(-1.5, 1.5), 2)
        a, b = self.random.randint(0, 5), self.random.randint(0, 5)
        which = self.random.randint(0, 11)
        if self.trace:
            places = [next(i for i, p in enumerate(self.pool) if p is t) for t in (x, y)]
            print(f"  {number}: {kind} {which} of {places}, {c}, {a}, {b}")
        try:
            made = getattr(self, "_" + kind)(number, x, y, c, a, b, which)
            if made is not None:
                self.pool.append(made)
            self.outcomes.append((number, "ok"))
        except REFUSALS as error:
            if self.trace:
                print(f"    {type(error).__name__}: {str(error)[:100]}")
            self.outcomes.append((number, type(error).__name__))

    # -- kinds of lines: each gives a new tensor, or None

    def _view(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        if not x.dim():
            return None
        dim = a % x.dim()
        size = max(1, x.shape[dim])
        views: list[Callable[[], Any]] = [
            lambda: x.reshape(-1), lambda: x.transpose(0, x.dim() - 1),
            lambda: x.select(dim, b % size),
            lambda: x.narrow(dim, b % size, max(1, (size - b % size) // 2)),
            lambda: x.unsqueeze(dim), lambda: x[..., ::2], lambda: x.view(x.shape),
            lambda: x.movedim(dim, 0), lambda: x[b % size :],
            lambda: x.diagonal() if x.dim() == 2 else x.flatten(), lambda: x.expand(2, *x.shape),
            lambda: x.flatten(),
        ]  # fmt: skip
        return views[which]()

    def _arithmetic(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        made: list[Callable[[], Any]] = [
            lambda: x.sin(), lambda: x * c, lambda: x + y, lambda: x * y, lambda: x.exp(),
            lambda: x.relu(), lambda: (x - y).tanh(), lambda: x * x, lambda: x.sum(),
            lambda: x.mean(-1, keepdim=True), lambda: self.torch.where(x > 0, x, x * c),
            lambda: x.cumsum(0),
        ]  # fmt: skip
        return made[which]()

    def _write(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> None:
        writes: list[Callable[[], Any]] = [
            lambda: x.mul_(c), lambda: x.add_(y), lambda: x.mul_(y) if y is not x else None,
            lambda: x.zero_(), lambda: x.sin_(),
            lambda: x.fill_(c), lambda: x.copy_(y), lambda: x.sub_(1), lambda: x.relu_(),
            lambda: x.exp_(), lambda: x.div_(2), lambda: x.add_(x),
        ]  # fmt: skip
        writes[which]()

    def _item(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> None:
        if not x.dim():
            return
        if which % 4 == 0:
            x[b % x.shape[0]] = c
        elif which % 4 == 1:
            x[b % x.shape[0]] = y if y.shape == x.shape[1:] else y.sum()
        elif which % 4 == 2:
            x[..., -1:] = c
        else:
            x[x > 0.2] = c

    def _hook(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> None:
        if which % 3 == 1:
            x.retain_grad()
            return

        def hook(g: Any) -> Any:
            self.seen.append((number, g.sum().item()))
            return g * c if which % 3 == 0 else None

        x.register_hook(hook)

    def _copy(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        if which % 3 == 0:
            return x.clone()
        if which % 3 == 1:
            return x.contiguous()
        return x.clone() if x.requires_grad else x.clone().requires_grad_()

    def _detach(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        return x.detach()

    def _data(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        return x.data

    def _data_write(
        self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int
    ) -> None:
        writes: list[Callable[[], Any]] = [
            lambda: x.data.mul_(c), lambda: x.data.copy_(y.detach()), lambda: x.data.zero_(),
        ]  # fmt: skip
        writes[which % 3]()

    def _set_data(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> None:
        if x._base is None and all(v._base is not x for v in self.pool):
            x.data = (x.detach() * c).clone() if which % 3 else y.detach().clone().reshape(x.shape)

    def _no_grad(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        with self.torch.no_grad():
            return x.mul_(c) and None if which % 2 and x.numel() == 1 else x * c

    def _matmul(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        rows = x if x.dim() == 2 else x.reshape(1, -1)
        return rows @ rows.t()

    def _cat(self, number: int, x: Any, y: Any, c: float, a: int, b: int, which: int) -> Any:
        x = x if x.dim() else x.reshape(1)
        if which % 2:
            return self.torch.cat([x, x * c], -1)
        return self.torch.stack([x, y if y.shape == x.shape else x])

    # -- gradients

    def _gradients(self) -> None:
        for x in self.pool:
            self._note("value", x.detach(), x.requires_grad, x.is_leaf, x._version)
        outs = [x for x in self.pool if x.requires_grad and x.numel()]
        if not outs:
            return
        chosen = [self.random.choice(outs) for _ in range(min(3, len(outs)))]
        wanted = [x for x in outs if self.random.random() < 0.6] or outs[:1]
        way = self.random.randint(0, 3)
        try:
            loss = sum(
                (o * o).sum() if self.random.random() < 0.5 else (o * 1.3).sum() for o in chosen
            )
            if way == 0:
                loss.backward()
            elif way == 1:
                loss.backward(retain_graph=True)
                loss.backward()
            else:
                self._asked_for(loss, wanted, second=way == 3)
            self.results.append("done")
        except REFUSALS as error:
            if self.trace:
                print(f"  {type(error).__name__}: {str(error)[:200]}")
            self.results.append(type(error).__name__)
            self.refused = any(words in str(error) for words in LIMITS)
            return  # how far a pass came before it failed is nobody's business
        for x in self.pool:
            if x.is_leaf or x.retains_grad:
                self._note("kept", x.grad)
        self.results.append(("hooks", [n for n, _ in sorted(self.seen)]))
        self.results.append(np.array([g for _, g in sorted(self.seen)]))

    def _asked_for(self, loss: Any, wanted: list[Any], second: bool) -> None:
        found = self.torch.autograd.grad(loss, wanted, allow_unused=True, create_graph=second)
        for g in found:
            self._note("asked for", g)
        # A gradient that is constant has no history there, and perhaps one here: of the sum both
        # have one.
        pairs = zip(found, wanted, strict=True)
        again = [(g * x * x).sum() for g, x in pairs if g is not None] if second else []
        leaves = [x for x in self.leaves if x.requires_grad]
        if second and self.random.random() < 0.4:
            self._write_between()
        if again and leaves:
            for g in self.torch.autograd.grad(sum(again), leaves, allow_unused=True):
                self._note("second", g)

    def _write_between(self) -> None:
        """A write after the first gradients, which the second ones may refuse to read."""
        x = self.random.choice([x for x in self.pool if x.requires_grad])
        with self.torch.no_grad():
            x.mul_(round(self.random.uniform(-1.5, 1.5), 2))

    def _note(self, what: str, tensor: Any, *facts: Any) -> None:
        self.results.append((what, *facts))
        self.results.append(None if tensor is None else np.array(tensor.detach().numpy()))


def difference(ours: Program, theirs: Program) -> str | None:
    """Where two runs of a program come apart."""
    for a, b in zip(ours.outcomes, theirs.outcomes, strict=True):
        if a != b:
            return f"line {a[0]}: {a[1]}, PyTorch: {b[1]}"
    if theirs.refused and not ours.refused:
        return None  # it keeps less than we do
    if len(ours.results) != len(theirs.results):
        return f"{len(ours.results)} results, PyTorch: {len(theirs.results)}"
    about = ""
    for a, b in zip(ours.results, theirs.results, strict=True):
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if a.shape != b.shape or not np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True):
                return f"{about}: {a.tolist()}, PyTorch: {b.tolist()}"
        elif about == "('second',)" and a is None and b is not None and not b.any():
            continue  # nothing arrives, or zeros
        elif isinstance(a, np.ndarray) or isinstance(b, np.ndarray) or a != b:
            return f"{about}: {a}, PyTorch: {b}"
        else:
            about = str(a)
    return None


def compare(seed: int, trace: bool = False) -> str | None:
    """The difference between graphtorch and PyTorch on a seed's program.

    It runs in a process of its own: some of them end PyTorch's, and then there is nothing to
    compare with.
    """
    import torch

    import graphtorch

    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            began, _, found = pipe.read().decode().partition("\n")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if began and status:
            return f"graphtorch failed, or ended the process with {status}: {found}"
        return found or None
    status = THEIRS
    try:
        faulthandler.disable()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = Program(seed, torch, trace)
            status = OURS
            os.write(writing, b"PyTorch is done\n")
            found = difference(Program(seed, graphtorch, trace), theirs) or ""
        status = 0
    except BaseException as error:
        found = f"{type(error).__name__}: {error}" if status == OURS else ""
    os.write(writing, found[:60_000].encode())
    sys.stdout.flush()
    os._exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", type=int, default=20)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    differing = 0
    for seed in range(options.first, options.first + options.count):
        found = compare(seed, options.trace)
        if found is not None:
            differing += 1
            if differing <= options.show:
                print(f"{seed}: {found[:300]}", flush=True)
    print(f"{options.count} programs, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
