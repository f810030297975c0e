#!/usr/bin/env python3
"""Random functions under `torch.compile`, called several times with their world changed in between:
do they give what the plain functions give, and what PyTorch gives?

    python3 tools/fuzz_compile.py [--count 2000] [--first 0] [--show 5] [--oracle]

A function is made of ops on real and complex numbers, views (of other dtypes as well), in-place
writes, modules and global state, closures, defaults, branches on values and on numbers,
autograd.Function, checkpoint, hooks, optimizer steps, nested compiled functions, exceptions
(`fuzz_programs.py` has the tables); it is called on tensors that overlap, that have a history or
that are leaves. Between calls numbers change, tensors are replaced, layers are frozen, hooks come
and go, optimizers step. Compared are results, what shares memory (results are written to),
gradients, flags, everything the function can reach, and exceptions by their type. A seed names a
program: `--first SEED --count 1`. `--oracle` compares plain functions with PyTorch's as well, where
    it is installed; `GRAPHTORCH_TARGET=reference` spares the time that compiling takes.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure()

import argparse
import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

import graphtorch
from fuzz_programs import Call, Program, draws, program

STATE = ("buf", "w", "p", "zp", "zc", "cnt", "k", "cfg", "table", "items", "log")


def run(made: Program, m: Any, wrap: Callable[[Any], Any]) -> list[Any]:
    """What a program gives: everything that can be seen after each call.

    Args:
        m: graphtorch, or PyTorch.
        wrap: what compiles the program's functions.
    """
    checkpoint = importlib.import_module(f"{m.__name__}.utils.checkpoint").checkpoint
    now: dict[str, Any] = {
        "torch": m,
        "nn": m.nn,
        "F": m.nn.functional,
        "wrap": wrap,
        "checkpoint": checkpoint,
        "choose": _chosen if m is not graphtorch else _cond,
        "randn": _numbers(made.seed, m),
    }
    try:
        exec(made.world, now)
        return [_step(call, m, now) for call in made.calls]
    finally:
        m.set_default_dtype(m.float32)


def _numbers(seed: int, m: Any) -> Callable[..., Any]:
    """The same normal numbers for graphtorch and PyTorch."""
    rng = np.random.default_rng(seed)

    def randn(*shape: int, complex64: bool = False) -> Any:
        found = rng.standard_normal(shape)
        if complex64:
            found = found + 1j * rng.standard_normal(shape)
        return m.tensor(found.astype(np.complex64 if complex64 else np.float32))

    return randn


def _chosen(test: Any, then: Any, orelse: Any, x: Any) -> Any:
    return then(x) if test else orelse(x)


def _cond(test: Any, then: Any, orelse: Any, x: Any) -> Any:
    return graphtorch.cond(test, then, orelse, (x,))


def _step(call: Call, m: Any, now: dict[str, Any]) -> list[Any]:
    """What was raised, the results, and the state after results were differentiated and written
    to."""
    m.manual_seed(call.seed)
    raised: list[Any] = []
    results = _caught(raised, lambda: _called(call, m, now))
    listed = list(_tensors(results))
    held = [now[name] for name in call.held.split(", ") if name in now]
    given = seen(results)
    leaves = [*held, *(now[k] for k in ("w", "p", "zp")), *now["net"].parameters()]
    if _caught(raised, lambda: _passes_back(listed)) is None:
        for leaf in leaves:
            leaf.grad = None  # how far a pass comes that fails is not compared
        now["log"].clear()
    for i, one in enumerate(listed):
        _caught(raised, lambda one=one, i=i: _written(one, i))
    state = {
        "arguments": held,
        "results": listed,
        **{k: now[k] for k in STATE},
        "net": now["net"].state_dict(),
        "gradients": [p.grad for p in now["net"].parameters()],
    }
    after = seen(state)
    _caught(raised, lambda: exec(f"buf = buf.detach()\n{call.change}", now))
    return [["raised", raised], ["results", given], *after]


def _called(call: Call, m: Any, now: dict[str, Any]) -> Any:
    exec(call.setup, now)
    given = eval(f"({call.given},)", now)
    with _mode(call.mode, m):
        return now["entry"](*given)


def _mode(name: str, m: Any) -> AbstractContextManager[Any]:
    return m.inference_mode() if name == "inference" else m.set_grad_enabled(name == "grad")  # type: ignore[no-any-return]


def _caught(found: list[Any], action: Callable[[], Any]) -> Any:
    """What an action gives; where it fails the exception's type is noted."""
    try:
        return action()
    except Exception as error:
        found.append(type(error).__name__.lstrip("_"))
        return None


def _passes_back(listed: list[Any]) -> bool:
    losses = [
        (r.real.sum() + r.imag.sum()) if r.is_complex() else r.sum()
        for r in listed
        if needs_grad(r)
    ]
    if losses:
        sum(losses).backward()  # type: ignore[union-attr]
    return True


def _written(one: Any, i: int) -> None:
    one.detach()[...] = one.detach() * 0.5 + i * 0.125


def _tensors(x: Any) -> Iterator[Any]:
    if hasattr(type(x), "requires_grad"):
        yield x
    elif isinstance(x, (tuple, list, dict)):
        for v in x.values() if isinstance(x, dict) else x:
            yield from _tensors(v)


def seen(found: Any) -> Any:
    """What of a value is compared."""
    if hasattr(type(found), "requires_grad"):
        noted: list[Any] = []
        return [_caught(noted, lambda: _tensor(found)), noted]
    if isinstance(found, (list, tuple)):
        return [seen(v) for v in found]
    if isinstance(found, dict):
        return [[k, seen(v)] for k, v in sorted(found.items())]
    return seen(vars(found)) if type(found).__name__ == "Thing" else found


def _tensor(x: Any) -> list[Any]:
    has = x.grad is not None and _history(x) is None
    shown = x.detach().clone()
    shown = shown.resolve_conj().resolve_neg() if hasattr(shown, "resolve_neg") else shown
    order = [d for _, d in sorted((s, -d) for d, s in enumerate(x.stride()) if x.shape[d] > 1)]
    return [shown.numpy(), needs_grad(x), str(x.dtype), order, seen(x.grad) if has else None]


def needs_grad(x: Any) -> bool:
    """PyTorch says it of views made without gradients, which nothing flows through."""
    return bool(
        x.requires_grad and not (hasattr(x, "_is_view") and x._is_view() and _history(x) is None)
    )


def _history(x: Any) -> Any:
    try:
        return x.grad_fn
    except RuntimeError:  # PyTorch's, of a view made without gradients whose memory was written to
        return None


def difference(a: Any, b: Any, path: str = "") -> str | None:
    """Where two things that were seen are not the same, up to rounding; None if they are."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (
            None
            if a.shape == b.shape and _close(a, b)
            else f"{path}: {a.tolist()} is not {b.tolist()}"
        )
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{path}: {_brief(a)} is not {_brief(b)}"
        named = bool(a) and isinstance(a[0], str) and a[0] == b[0]
        found = (
            difference(x, y, f"{path}.{a[0] if named else i}")
            for i, (x, y) in enumerate(zip(a, b, strict=True))
        )
        return next((d for d in found if d), None)
    if isinstance(a, float) and isinstance(b, float):
        return None if _close(np.array(a), np.array(b)) else f"{path}: {a} is not {b}"
    same = type(a) is type(b) and (callable(a) or bool(a == b))
    return None if same else f"{path}: {_brief(a)} is not {_brief(b)}"


def _brief(x: Any) -> str:
    return str(x)[:200]


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Within rounding, counted from the largest element."""
    if a.dtype.kind not in "fc":
        return (
            bool(
                (np.abs(a.astype(np.float64) - b) <= 1 + 1e-4 * np.abs(b.astype(np.float64))).all()
            )
            if a.dtype == np.int32
            else np.array_equal(a, b)
        )
    top = np.abs(b[np.isfinite(b)]).max(initial=1)
    return np.allclose(a, b, rtol=1e-3, atol=1e-4 * top, equal_nan=True)


def failure(seed: int, oracle: Any = None) -> str | None:
    """What is wrong with a program's compiled form, or with its plain one beside PyTorch's
    (`oracle`)."""
    made = program(seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        plain = run(made, graphtorch, lambda f: f)
        if oracle is not None and not draws(seed):
            wrong = difference(run(made, oracle, lambda f: f), plain)
            if wrong:
                return f"PyTorch: {wrong}"
        try:
            compiled = run(made, graphtorch, graphtorch.compile)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return difference(plain, compiled)


def main() -> int:
    """Run programs; 1 if some differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", type=int, default=5)
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop then")
    options = parser.parse_args()
    oracle = importlib.import_module("torch") if options.oracle else None
    wrong = count = 0
    end = time.monotonic() + 60 * options.minutes
    for seed in range(options.first, options.first + options.count):
        if time.monotonic() > end:
            break
        count += 1
        problem = failure(seed, oracle)
        if problem is not None:
            wrong += 1
            if wrong <= options.show:
                print(f"seed {seed}: {problem[:1500]}\n{program(seed)}\n"[:4000], flush=True)
    print(f"{count} programs, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
