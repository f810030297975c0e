"""Inference of code for several processors, each in a process of its own, by turns.

    python -m tools.bench targets                        x86-64-v2 beside x86-64-v3, six models
    python -m tools.bench targets resnet18 --targets x86-64-v2 native --seconds 0.3

A target is what GRAPHTORCH_TARGET_CPU takes. Of each there are the median milliseconds of a call,
GFLOP/s of the fastest turn, and their share of the most that multiply-adds in registers reached in
any turn. `ratio`: the first target's time over the others'; `off`: how far their results are apart,
relative to the largest number.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any, cast

import numpy as np

import zoo
from _timing import median_seconds

MODELS = ("mlp", "lenet", "resnet18", "mobilenetv2", "vit_s16", "bertbase")
SHOWN = 4096  # numbers of a result that are compared


class Worker:
    """A process that runs one model's code for one target."""

    def __init__(self, target: str, name: str, threads: int):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--threads", str(threads)],
            env={**os.environ, "GRAPHTORCH_TARGET_CPU": target},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, seconds: float) -> Any:
        """What it answers: of a measurement that takes so many seconds, or first for 0."""
        asked = cast("IO[str]", self._process.stdin)
        print(seconds, file=asked, flush=True)
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            raise SystemExit("a worker ended: see its message above")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


def work(name: str, threads: int) -> None:
    """Answer the questions that come in, a line each: seconds to measure for, 0 for the results."""
    import graphtorch as torch
    from contraction import peak_kernel
    from infer import kernels_made
    from roofline import _quick

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    source = zoo.MODELS[name]
    inputs = [torch.from_numpy(a) for a in source.arrays()]
    model = torch.compile(zoo.lively(torch, source.build(torch), inputs))

    def call() -> list[np.ndarray]:
        with torch.no_grad():
            return [t.numpy() for t in zoo.flat(model(*inputs))]

    with kernels_made() as made:
        first = [a.ravel()[:SHOWN].tolist() for a in call()]
    done = sum(int(n.replace(",", "")) for n in re.findall(r"total: ([\d,]+) FLOPs", "".join(made)))
    compute, flops = peak_kernel(threads, rounds=100_000)
    for line in sys.stdin:
        seconds = float(line)
        answer: Any = {"results": first, "flops": done}
        if seconds:
            answer = [median_seconds(call, seconds, 3), flops / _quick(compute, 3)]
        print(json.dumps(answer), flush=True)


def measured(
    name: str, targets: Sequence[str], threads: int, rounds: int, seconds: float
) -> list[dict[str, float]]:
    """A row of numbers for each target."""
    workers = [Worker(target, name, threads) for target in targets]
    told = [worker.ask(0) for worker in workers]
    seen: list[list[tuple[float, float]]] = [[] for _ in workers]
    for _ in range(rounds):
        for worker, times in zip(workers, seen, strict=True):
            times.append(worker.ask(seconds))
    for worker in workers:
        worker.close()
    rows = []
    for about, times in zip(told, seen, strict=True):
        call = statistics.median(t for t, _ in times)
        rate, peak = about["flops"] / min(t for t, _ in times), max(p for _, p in times)
        off = max(map(_apart, told[0]["results"], about["results"]))
        rows.append({"ms": 1e3 * call, "gflops": rate / 1e9, "share": rate / peak, "off": off})
    return rows


def _apart(a: list[float], b: list[float]) -> float:
    x, y = np.array(a), np.array(b)
    return float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-30))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench targets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(zoo.MODELS))
    parser.add_argument("--targets", nargs="+", default=["x86-64-v2", "x86-64-v3"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="turns of the targets")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each target in a turn")
    parser.add_argument("--worker", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads)
        return
    for name in options.models or MODELS:
        rows = measured(name, options.targets, options.threads, options.rounds, options.seconds)
        cells = [
            f"{target} {row['ms']:.4g} ms, {row['gflops']:.1f} GFLOP/s, {row['share']:.0%} of peak"
            for target, row in zip(options.targets, rows, strict=True)
        ]
        ratios = ", ".join(f"{rows[0]['ms'] / row['ms']:.2f}" for row in rows[1:])
        off = max(row["off"] for row in rows)
        print(f"{name:12s} {'; '.join(cells)}; ratio {ratios}; off {off:.1e}", flush=True)


if __name__ == "__main__":
    main()
