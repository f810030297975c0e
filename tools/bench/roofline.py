"""How near each kernel of a model comes to the machine's limits, measured in the same run.

    python -m tools.bench roofline resnet50
    python -m tools.bench roofline swin_t --threads 1 --rounds 50 --json FILE --png FILE

A line is one kernel call: time, GFLOP/s and GB/s, and their shares of the peak of multiply-adds
and of a copy in the nearest memory ("in") that holds all that the kernel moves. Kernels are timed
one by one in the order of the program, so that each finds in the caches what the one before left.
"best" is the time that the nearer limit asks for, in per cent of the time taken; above 100 % where
a kernel finds its data nearer than assumed, or where Winograd's convolutions, counted as direct
ones, pass the peak. What is computed from weights once has no line. --png needs matplotlib (extra
"bench").
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import graphtorch as torch
import zoo
from contraction import Bound, aligned, peak_kernel
from graphtorch.backends import Buffer
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer as Array
from graphtorch.backends.kernels.ir import Const, Expr, Kernel, binary, load
from graphtorch.backends.llvm.processor import host
from graphtorch.ir.dtype import f32
from kernels import Timed, measure

MEMORY = 64 << 20  # bytes at least that are copied in memory; three times the last cache if more
CHUNK = 1024  # elements that are written past the caches at a time
LEAST = 0.1  # microseconds: of a kernel that takes less than the clock's own noise
COPIED = 256 << 20  # bytes that one measurement of a level copies


class Level(NamedTuple):
    """What copies bytes (read and written) at which rate, if all of them fit into `size`."""

    name: str
    size: int
    rate: float


class Limits(NamedTuple):
    """What the machine can do a second, on the threads in use: FLOPs, and copies by level."""

    flops: float
    levels: list[Level]

    def level(self, moved: int) -> Level:
        """The nearest memory that holds the bytes which a kernel moves."""
        return next((level for level in self.levels if moved <= level.size), self.levels[-1])


def limits(threads: int) -> Limits:
    """Measure the limits on `threads` threads."""
    compute, flops = peak_kernel(threads, rounds=200_000)
    _, second, last = host().caches
    sizes = [("L2", second * threads, second * threads // 2), ("L3", last, last // 2)]
    sizes.append(("memory", 0, max(MEMORY, 3 * last)))
    levels = []
    for name, size, used in sizes:
        copy, moved = copy_kernel(threads, used)
        levels.append(Level(name, size, moved / _quick(copy)))
    return Limits(flops / _quick(compute), levels)


def together(a: Limits, b: Limits) -> Limits:
    """The better of two measurements: others' work can only make them worse."""
    levels = [x if x.rate > y.rate else y for x, y in zip(a.levels, b.levels, strict=True)]
    return Limits(max(a.flops, b.flops), levels)


def _quick(call: Callable[[], None], times: int = 9) -> float:
    """Seconds of a call: a limit is the best of what was seen."""
    seen = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seen.append(time.perf_counter() - start)
    return min(seen)


def copy_kernel(threads: int, used: int, past_caches: bool = False) -> tuple[Bound, int]:
    """Copies of one half of `used` bytes to the other, a part each thread; and the bytes moved."""
    b, lanes = Builder(), host().machine.lanes(4)
    source, target = Array("x", f32, "read", 64), Array("out", f32, "readwrite", 64)
    each = used // 8 // threads // (4 * lanes) * (4 * lanes)
    rounds = max(1, COPIED // (8 * each * threads))
    with b.loop(threads, "parallel", "task") as task, b.loop(rounds):
        first = b.let(task * each, "first")
        (_write_past_caches if past_caches else _write)(b, source, target, first, each, lanes)
    memory = aligned(2 * each * threads, np.dtype(np.float32))
    memory[:] = 1.0  # the system has no pages for memory that was never written
    addresses = [memory.ctypes.data, memory[each * threads :].ctypes.data]
    bound = Bound(Kernel("copy", (source, target), (), b.body), addresses, [])
    bound.memory = memory
    return bound, 8 * each * threads * rounds


def _write(b: Builder, source: Array, target: Array, first: Expr, each: int, lanes: int) -> None:
    with b.loop(each // lanes // 4) as i:
        for part in range(4):
            place = b.let(first + (i * 4 + part) * lanes, "place")
            b.store(target, place, load(source, place, lanes))


def _write_past_caches(
    b: Builder, source: Array, target: Array, first: Expr, each: int, lanes: int
) -> None:
    line = b.scratch(f32, CHUNK, "line")
    with b.loop(each, "serial", "at", 0, CHUNK) as at:
        count = b.let(binary("min", Const(each) - at, Const(CHUNK)), "count")
        with b.loop(count, "vector") as i:
            b.store(line, i, load(source, first + at + i))
        b.stream(target, first + at, count, line)


class Row(NamedTuple):
    """A kernel call beside the limits; shares are 1 at the limit. `level` is where its copy is."""

    kernel: str
    microseconds: float
    level: str
    gflops: float
    gbytes: float
    of_peak: float
    of_copy: float
    best: float


def row(timed: Timed, limit: Limits) -> Row:
    seconds = max(timed.microseconds, LEAST) * 1e-6
    flops, moved = timed.flops / seconds, timed.bytes / seconds
    level = limit.level(timed.bytes)
    shares = flops / limit.flops, moved / level.rate
    rates = flops / 1e9, moved / 1e9
    return Row(timed.label, timed.microseconds, level.name, *rates, *shares, max(shares))


def recorded(name: str, small: bool) -> tuple[Any, list[Buffer], list[int]]:
    """A model's graph, its inputs, and which of them are weights."""
    torch.manual_seed(0)
    source = zoo.MODELS[name]
    given = [torch.from_numpy(a) for a in source.arrays(small)]
    model = zoo.lively(torch, source.build(torch, small), given)
    with torch.no_grad():
        traced = torch.trace(model, *given)
    tensors = dict(zip((v.name for v in traced.graph.inputs), given, strict=False))
    tensors |= traced.parameters
    names = [v.name for v in traced.graph.inputs]
    buffers = [Buffer.of(np.ascontiguousarray(tensors[n].detach().numpy())) for n in names]
    return traced.graph, buffers, [i for i, n in enumerate(names) if n in traced.parameters]


def report(name: str, rows: Sequence[Row], limit: Limits, threads: int) -> None:
    total = sum(r.microseconds for r in rows)
    print(
        f"{name} on {threads} threads: {len(rows)} kernel calls, {total / 1e3:.3f} ms; limits "
        f"{limit.flops / 1e9:.1f} GFLOP/s, copies of "
        + ", ".join(f"{level.rate / 1e9:.1f} GB/s in {level.name}" for level in limit.levels)
    )
    print(
        f"{'us':>9} {'share':>6} {'GFLOP/s':>8} {'GB/s':>7} {'peak':>6} {'copy':>6} {'in':>6} "
        f"{'best':>6}  kernel"
    )
    for r in rows:
        print(
            f"{r.microseconds:9.1f} {r.microseconds / total:6.1%} {r.gflops:8.1f} {r.gbytes:7.1f} "
            f"{r.of_peak:6.1%} {r.of_copy:6.1%} {r.level:>6} {r.best:6.1%}  {r.kernel[:90]}"
        )
    least = sum(min(1.0, r.best) * r.microseconds for r in rows)
    print(f"{total:9.1f}  total; {least:.1f} us at the limits, {least / total:.1%}")


def draw(path: Path, name: str, rows: Sequence[Row], limit: Limits) -> None:
    """The kernels between the two limits: areas are shares of the time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [r for r in rows if r.gflops > 0 and r.gbytes > 0]
    intensity = [r.gflops / r.gbytes for r in shown]
    total = sum(r.microseconds for r in rows)
    figure, axes = plt.subplots(figsize=(8, 5))
    axes.scatter(
        intensity,
        [r.gflops for r in shown],
        s=[10 + 3000 * r.microseconds / total for r in shown],
        alpha=0.5,
    )
    line = np.geomspace(min([*intensity, 0.1]) / 2, max([*intensity, 100]) * 2, 200)
    for level in limit.levels:
        axes.loglog(line, np.minimum(limit.flops, line * level.rate) / 1e9, label=level.name)
    axes.legend(title="copies in")
    axes.set_xlabel("FLOPs a byte moved")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{name}: kernels by share of the time, and the machine's limits")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench roofline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", choices=list(zoo.MODELS), metavar="MODEL", help=", ".join(zoo.MODELS)
    )
    parser.add_argument("--threads", type=int, help="all there are if not given")
    parser.add_argument("--rounds", type=int, default=30, help="calls of each kernel")
    parser.add_argument("--small", action="store_true", help="the model's small version")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.png and importlib.util.find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib: pip install 'graphtorch[bench]'")
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    graph, buffers, stable = recorded(options.model, options.small)
    before = limits(threads)
    timed = measure(graph, buffers, options.rounds, stable)
    limit = together(before, limits(threads))
    rows = [row(t, limit) for t in timed if not t.once]
    report(options.model, rows, limit, threads)
    if options.json:
        about = {"model": options.model, "threads": threads, "machine": host().describe()}
        measured = {"flops": limit.flops, "copies": {v.name: v.rate for v in limit.levels}}
        found = {**about, "limits": measured, "kernels": [r._asdict() for r in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.png:
        draw(options.png, options.model, rows, limit)


if __name__ == "__main__":
    main()
