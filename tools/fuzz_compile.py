#!/usr/bin/env python3
"""Random functions under `torch.compile`, called several times with their world changed in between: do they
give what the plain functions give?

    python3 tools/fuzz_compile.py [--count 2000] [--first 0] [--show 5]

A function is made of ops, views, in-place writes, a module, a buffer, a parameter, Python numbers in an
object and a dict, branches on values and on numbers; it is called on tensors that overlap, that have a
history or that are leaves. Between calls numbers change, tensors are replaced, layers are frozen, optimizers
step. Compared are results, what shares memory (results are written to), gradients, flags, everything the
function can reach, and exceptions by their type. A seed names a program: `--first SEED --count 1 --show 1`.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure()

import argparse
import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch import nn

CALLS = 6
N = 3

VALUES = (
    "{v} + {v}", "{v} * {v}", "{v} - {v} * 0.5", "{v}.sin()", "({v} @ {v}).tanh()", "torch.relu({v})",
    "{v} * cfg.k", "{v} * table['k']", "{v} + buf", "{v} * w", "{v} * p", "net({v})", "{v}.t()",
    "{v}[1:].sum(0) + {v}",
    "{v}.reshape(9).view(3, 3)", "{v}.sum() * {v}", "{v}.detach() + {v}", "{v}.clone()", "helper({v})",
    "{v} * len(items)", "sum(items) * {v}", "{v}.view(3, 3)", "torch.stack([{v}[0], {v}[1], {v}[2]])",
    "{v}.softmax(1)", "{v} + torch.ones(3)", "{v}.data * 2", "{v} * cfg.inner.k", "{v}.cumsum(0) * 0.5",
)
WRITES = (
    "{t}.add_({v})", "{t}.mul_(0.5)", "{t}[0] = {v}[1]", "{t}.t().add_(1)", "{t}[1:].mul_({v}[1:])",
    "{t}.zero_()", "{t}.copy_({v})", "{t}.view(9)[2:5].add_(1)", "{t} += {v}",
)
RARE = (
    "cfg.n += 1", "if {v}.sum() > 0: {o} = {v} * 2", "if cfg.n > 1: {o} = {v} + 1", "items.append(1.0)",
    "cfg.kept = {v}", "{o} = {v} * float({v}.max().item() > 0.5)", "{v}.sum().backward()",
    "with torch.no_grad(): {o} = {v} * 3", "table['k'] = 0.5", "p.grad = None",
    "for one in items: {o} = {v} * one",
    "if {v}.sum().item() > 0: {o} = {v} * 2", "if {v}.mean() < 0: {t}.add_(1)",
    "for _ in range(int(({v}.sum() > 0).item()) + 1): {o} = {v} + 1", "cnt.add_(1)",
    "{o} = {v} * (cnt.item() % 2 + 1)", "{o} = {v} * int(({v} > 0).sum() % 3)", "k = cfg.k",
    "if ({v} > 0.5).any(): {v}.sum().backward()", "while {v}.norm().item() > k: {o} = {o} * 0.5; break",
    "if bool(({v} > 0).all()) or {v}[0, 0] > 0: {o} = {v}[:, :1] + {v}", "n = {v}.sum().item()",
    "{o} = {v} + torch.rand(3) if torch.rand(()) > 0.5 else {v}", "if {v}.sum(): optimizer.step()",
    "assert {v}.sum() < 3", "{o} = {v}[({v}[0] > 0)].sum() + {v}", "m = {v}.max().item()",
    "{o} = torch.cond(({v}.sum() > 0), lambda x: x * 2, lambda x: x - 1, ({v},))",
)
RESULTS = ("{v}", "{v}[1:]", "{v}.t()", "{v}.sum()", "{v}.view(9)", "{v}.detach()", "buf", "p", "w[0]", "a",
           "{v}[:, 1]", "{v}.sum().item()", "cnt", "{v}.argmax().item()")


def source(draw: random.Random) -> str:
    """The text of a function ``f(a, b)``."""
    names, lines = ["a", "b"], []

    def filled(text: str, out: str = "") -> str:
        for key, choices in (("{v}", names), ("{t}", [*names, "buf"])):
            while key in text:
                text = text.replace(key, draw.choice(choices), 1)
        return text.replace("{o}", out)

    for i in range(draw.randint(2, 7)):
        kind = draw.random()
        if kind < 0.65:
            lines.append(f"v{i} = " + filled(draw.choice(VALUES)))
            names.append(f"v{i}")
        elif kind < 0.85:
            lines.append(filled(draw.choice(WRITES)))
        else:
            lines.append(filled(draw.choice(RARE), draw.choice(names)))
    results = [filled(draw.choice(RESULTS)) for _ in range(draw.randint(1, 3))]
    lines.append(f"return {', '.join(results)}" + ("," if draw.random() < 0.3 else ""))
    return "def f(a, b):\n" + "\n".join(f"    {line}" for line in lines)


class Thing:
    """An object with attributes."""

    def __init__(self, **attributes: Any):
        self.__dict__.update(attributes)


def world(draw: random.Random, text: str) -> dict[str, Any]:
    """What a function can reach."""
    torch.manual_seed(draw.randrange(1000))
    made: dict[str, Any] = {
        "torch": torch, "cfg": Thing(k=1.5, n=0, inner=Thing(k=0.5)), "table": {"k": 2.0},
        "items": [1.0, 0.5], "buf": torch.randn(N, N), "w": torch.randn(N, N),
        "p": nn.Parameter(torch.randn(N, N)),
        "net": nn.Linear(N, N), "helper": lambda x: x * 0.5,
        "cnt": torch.zeros((), dtype=torch.int64), "k": 2.0,
    }
    made["optimizer"] = torch.optim.SGD([made["p"], *made["net"].parameters()], lr=0.1)
    exec(text, made)
    return made


def arguments(draw: random.Random, now: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Two tensors, and the tensors to look at afterwards."""
    seed = draw.randrange(1000)
    torch.manual_seed(seed)
    kind = draw.choice(["plain"] * 4 + [
        "same", "view", "views", "leaf", "history", "turned", "buffer", "detached"])
    x, y = torch.randn(N, N), torch.randn(N, N)
    if kind == "same":
        return [x, x], [x]
    if kind == "view":
        return [x.view(N, N), x], [x]
    if kind == "views":
        base = torch.randn(N + 1, N)
        return [base[1:], base[:-1]], [base]
    if kind == "leaf":
        x.requires_grad_()
    if kind == "history":
        leaf = x.requires_grad_()
        return [leaf * 2, y], [leaf, y]
    if kind == "turned":
        return [x.t(), y], [x, y]
    if kind == "buffer":
        return [now["buf"], y], [y]
    if kind == "detached":
        return [x.detach(), x], [x]
    return [x, y], [x, y]


def change(draw: random.Random, now: dict[str, Any]) -> None:
    """Something is another before the next call."""
    kind = draw.choice([None] * 4 + [
        "k", "inner", "table", "items", "w", "flag", "freeze", "helper", "step", "data", "buffer", "clear",
        "weight"])
    if kind == "k":
        now["cfg"].k = draw.choice([0.5, 1.5, 3.0])
    elif kind == "inner":
        now["cfg"].inner = Thing(k=draw.choice([1.0, 2.0]))
    elif kind == "table":
        now["table"]["k"] = draw.choice([0.5, 2.0])
    elif kind == "items":
        now["items"][:] = [draw.choice([1.0, 2.0])] * draw.randint(1, 3)
    elif kind == "w":
        now["w"] = torch.ones(N, N) * draw.choice([0.5, 2.0])
    elif kind == "flag":
        now["w"].requires_grad_(draw.random() < 0.5)
    elif kind == "freeze":
        now["p"].requires_grad_(draw.random() < 0.5)
    elif kind == "helper":
        k = draw.choice([0.5, 2.0])
        now["helper"] = lambda x: x * k
    elif kind == "step":
        now["optimizer"].step()
    elif kind == "data":
        now["p"].data = torch.ones(N, N) * 0.5
    elif kind == "buffer":
        now["buf"] = torch.ones(N, N) * 0.25
    elif kind == "clear":
        now["optimizer"].zero_grad()
    elif kind == "weight":
        now["net"].weight = nn.Parameter(torch.ones(N, N) * 0.25)


def seen(found: Any) -> Any:
    """What of a value is compared."""
    if isinstance(found, torch.Tensor):
        gradient = None if found.grad_fn is not None or found.grad is None else found.grad.tolist()
        return [found.detach().numpy().copy(), found.requires_grad, list(found.shape), gradient]
    if isinstance(found, (list, tuple)):
        return [seen(v) for v in found]
    return seen(list(vars(found).values())) if isinstance(found, Thing) else found


def run(seed: int, wrap: Callable[[Any], Any]) -> list[Any]:
    """What a program gives: everything that can be seen after each call."""
    draw = random.Random(seed)
    text = source(draw)
    now = world(draw, text)
    function, found = wrap(now["f"]), []
    for _ in range(CALLS):
        given, held = arguments(draw, now)
        grad = draw.random() < 0.75
        try:
            with torch.set_grad_enabled(grad):
                results = function(*given)
            found.append(seen(results))
        except Exception as error:
            results = ()
            found.append(type(error).__name__)
        each = results if isinstance(results, tuple) else (results,)
        listed = [r for r in each if isinstance(r, torch.Tensor)]
        try:
            losses = [r.sum() for r in listed if r.requires_grad]
            if losses:
                sum(losses).backward()  # type: ignore[union-attr]
        except Exception as error:
            found.append(type(error).__name__)
            for leaf in (*held, now["w"], now["p"], *now["net"].parameters()):
                leaf.grad = None  # how far a pass comes that fails is not compared
        for i, one in enumerate(listed):
            one.detach()[...] = one.detach() * 0.5 + i * 0.125
        state = [now[k] for k in ("buf", "w", "p", "cfg", "table", "items", "cnt")]
        weights = list(now["net"].parameters())
        found.append(seen([held, listed, state, weights, sorted(now["table"].items())]))
        now["buf"] = now["buf"].detach()
        change(draw, now)
    return found


def differs(a: Any, b: Any) -> bool:
    """Whether two things that were seen are not the same, up to rounding."""
    if isinstance(a, np.ndarray):
        return not (isinstance(b, np.ndarray) and a.shape == b.shape and np.allclose(
            a, b, rtol=1e-3, atol=1e-4, equal_nan=True))
    if isinstance(a, list):
        return not isinstance(b, list) or len(a) != len(b) or any(map(differs, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return not np.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
    return bool(type(a) is not type(b) or (not callable(a) and not isinstance(a, dict) and a != b))


def failure(seed: int) -> str | None:
    """What is wrong with a program's compiled form, if anything is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = run(seed, lambda f: f)
        try:
            compiled = run(seed, torch.compile)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    for i, (a, b) in enumerate(zip(plain, compiled, strict=True)):
        if differs(a, b):
            return f"at step {i}: expected {copy.copy(a)}, got {b}"
    return None


def main() -> int:
    """Run programs; 1 if some differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", type=int, default=5)
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.first, options.first + options.count):
        problem = failure(seed)
        if problem is not None:
            wrong += 1
            if wrong <= options.show:
                print(f"seed {seed}: {problem[:1500]}\n{source(random.Random(seed))}\n", flush=True)
    print(f"{options.count} programs, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
