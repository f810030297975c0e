"""Whole nets, in time: inference and training steps beside PyTorch's, eager and compiled.

A row of ours compares with PyTorch line by line. What PyTorch's compiler takes is a row of its own,
after all of ours: tuning takes it minutes, and its failures are none of ours. Times are medians by
the host's clock: of calls, and of many steps without a wait.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import graphtorch

from .common import PEER, TOLERANCE, Case, Row, difference, guarded, on_gpu, torch_device
from .programs import FULL, LARGE, SMALL, Program, Training

CALLS, ROUNDS = 10, 5
STEPS = 3  # of training, before times are taken
LOSS = 1e-2  # by which losses may differ after them
TUNED = {"mode": "max-autotune"}


def cases(options: argparse.Namespace) -> Iterator[Case]:
    programs = (LARGE if on_gpu() else SMALL) | (FULL if options.full else {})
    for name, program in programs.items():
        yield f"infer {name}", functools.partial(guarded, functools.partial(inference, program))
        yield f"train {name}", functools.partial(guarded, functools.partial(training, program))
    for name, program in programs.items():
        yield f"{PEER}infer {name}", functools.partial(tuned, program, inferring)
        yield f"{PEER}train {name}", functools.partial(tuned, program, stepping)


# ------------------------------------------------------------------------------------------ ours


def inference(program: Program) -> Row:
    """Seconds a call in eval mode: ours compiled, and line by line; PyTorch's eager."""
    row: Row = {}
    results = {}
    for name, library, compiled in variants():
        made = Training(library, program, device_of(library))
        if compiled:
            made.compile_net()
        call = inferring(library, made)
        start = time.monotonic()
        results[name] = array(call())
        row[f"first {name}"] = time.monotonic() - start
        row[name] = a_call(library, call)
    worst = max(difference(results[n], results["torch"]) for n in ("seconds", "plain"))
    limit = TOLERANCE["tf32"]  # PyTorch's convolutions round to it
    return row | {"worst": worst, "ok": worst <= limit, "error": f"differs by {worst:.1e}"}


def training(program: Program) -> Row:
    """Seconds a step: ours as one compiled function, with the net compiled alone, and line by
    line; PyTorch's eager."""
    row: Row = {}
    for name, library, compiled in (*variants(), ("net", graphtorch, True)):
        made = Training(library, program, device_of(library))
        if name == "net":
            made.compile_net()
        elif compiled:
            made.compile_step()
        start = time.monotonic()
        row[f"loss {name}"] = made.losses(STEPS)[-1]
        row[f"first {name}"] = time.monotonic() - start
        row[name] = a_call(library, stepping(library, made))
    worst = max(abs(row[f"loss {n}"] - row["loss torch"]) for n in ("seconds", "net", "plain"))
    return row | {"worst": worst, "ok": worst < LOSS, "error": f"the loss differs by {worst:.1e}"}


def variants() -> list[tuple[str, Any, bool]]:
    """Names of what is timed, the library that computes it, and whether it is compiled."""
    import torch

    return [("seconds", graphtorch, True), ("plain", graphtorch, False), ("torch", torch, False)]


def device_of(library: Any) -> str:
    return "cuda" if library is graphtorch else torch_device()


def inferring(library: Any, made: Training) -> Callable[[], Any]:
    """What calls a net in eval mode, and waits: a result that nobody waits for is not computed."""
    model, x = made.model.eval(), made.batch[0]

    def call() -> Any:
        with library.no_grad():
            result = model(x)
        wait(library)
        return result

    return call


def stepping(library: Any, made: Training) -> Callable[[], Any]:
    """What takes a step on one batch."""
    return lambda: made.step(made.batch)


def array(result: Any) -> Any:
    """A result as a tensor of PyTorch's on the host."""
    import torch

    return torch.from_numpy(result.detach().cpu().numpy())


# ------------------------------------------------------------------------------ PyTorch's compiler


def tuned(program: Program, calling: Callable[[Any, Training], Callable[[], Any]]) -> Row:
    """Seconds a call of PyTorch's, with the net compiled and its kernels chosen by measuring."""
    import torch

    made = Training(torch, program, torch_device())
    made.compile_net(**TUNED)
    call = calling(torch, made)
    start = time.monotonic()
    for _ in range(STEPS):
        call()
    first = wait(torch) - start
    return {"first": first, "inductor": a_call(torch, call)}


# ------------------------------------------------------------------------------------------ time


def a_call(library: Any, call: Callable[[], Any]) -> float:
    """Seconds of a call by the host's clock, many in a row."""
    found, calls = [], CALLS if on_gpu() else 1
    call()
    for _ in range(ROUNDS if on_gpu() else 1):
        start = wait(library)
        for _ in range(calls):
            call()
        found.append((wait(library) - start) / calls)
    return statistics.median(found)


def wait(library: Any) -> float:
    """The host's clock when all that was asked of the GPU is done."""
    if library.cuda.is_available():
        library.cuda.synchronize()
    return time.monotonic()


# ------------------------------------------------------------------------------------------ table


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    peers = {row["name"].removeprefix(PEER): row for row in rows if row["name"].startswith(PEER)}
    ours = [row for row in rows if not row["name"].startswith(PEER)]
    return [line(row, peers.get(row["name"])) for row in ours]


def line(row: Row, peer: Row | None) -> str:
    if "seconds" not in row:
        return f"  {row['name']}: {row['error']}"
    ms, eager = row["seconds"] * 1e3, row["torch"] * 1e3
    parts = [f"  {row['name']:<24} {ms:9.3f} ms, PyTorch {eager:9.3f} ms = {eager / ms:5.2f}x"]
    if peer is not None:
        parts.append(against(peer, ms))
    parts += [f"{name} {row[name] * 1e3:.3f} ms" for name in ("net", "plain") if name in row]
    return ", ".join(parts) + ("" if row["ok"] else f"  WRONG: {row['error']}")


def against(peer: Row, ms: float) -> str:
    if "inductor" not in peer:
        return f"max-autotune: {peer['error']}"
    return f"max-autotune {peer['inductor'] * 1e3:9.3f} ms = {peer['inductor'] * 1e3 / ms:5.2f}x"
