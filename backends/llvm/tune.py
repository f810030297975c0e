"""Schedules by measurement: what a graph's kernels offer is compiled, run in turn on buffers of the
right sizes, and the fastest is kept.

A kernel that runs again and again by itself finds its weights in the caches, which in a network the
layers in between have taken. So before each run as much memory is read as these touch, and what the
kernel reads is written anew by all threads, as the layer before it does.

Kernels are looked at one by one, in the order of the work that they stand for, each for its part of
the time that is left; of what no time is left for, the cost model decides. What was found is kept
on disk by what the kernel computes, the machine and the number of threads, so that it is measured
once for all programs and processes; a kernel that many layers share is measured once as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.limits import Exactness

from .. import cache
from ..buffer import Buffer
from ..cpu.choices import Choices, Tunable
from ..cpu.cost import guess, traffic
from ..kernels.program.plan import Plan
from ..kernels.program.program import Program
from ..kernels.program.table import Table, record_of, tabulate
from ..target import lowered, placed_program
from . import debug
from .build import target_of
from .compiler import compile_native
from .executable import Executable
from .processor import Processor, available_cpus
from .runtime import pool

Call = Callable[[], object]

ROUNDS = 8  # turns of each offer at least
MOST_ROUNDS = 60
BLOCK = 1 << 18  # numbers of f32 that are read at a time
SLOW = 1.2  # times the fastest so far: an offer that takes longer gets no more turns
LEAST = 0.05  # seconds that a kernel is measured for, if there is time
COMPILING = 0.06  # seconds that an offer takes to be compiled, until it is known better
BAR = 20  # characters
KNOWN_BOUND = 4096  # kernels remembered; the oldest goes first

clock = time.perf_counter
measured_count = 0  # kernels measured so far in this process
# by key, machine and threads: for processes without a cache folder
_known: dict[str, str] = {}


def tune(
    graph: Graph, processor: Processor, stable: Sequence[int], exact: Exactness, seconds: float
) -> tuple[Choices, int]:
    """Measured schedules for the kernels of `graph`, as far as `seconds` go; and how many kernels
    were not measured for lack of time.

    Args:
        graph: as recorded, with `stable` and `exact` as `compile` takes them.
        processor: this machine.
    """
    search = _Search(graph.name, processor, exact, clock() + seconds)
    if exact is Exactness.NONE:  # before the rest: it decides which contractions there are
        search.look(*_met(graph, processor, stable, exact, search.chosen), by_tiles=True)
    search.look(*_met(graph, processor, stable, exact, search.chosen), by_tiles=False)
    return Choices(search.chosen, exact), search.left


def _met(
    graph: Graph,
    processor: Processor,
    stable: Sequence[int],
    exact: Exactness,
    chosen: Mapping[str, str],
) -> tuple[list[Tunable], int]:
    """What has a choice, and the bytes of all that the graph's regions read and write."""
    choices = Choices(chosen, exact)
    _, _, final = lowered(graph, target_of(processor, choices=choices), stable, exact)
    values = [*final.inputs, *(v for node in final.nodes for v in node.results())]
    return list(choices.met.values()), guess(traffic(values))


class _Search:
    """Measures until its time is over."""

    def __init__(self, name: str, processor: Processor, exact: Exactness, deadline: float):
        self._name, self._processor, self._exact = name, processor, exact
        self._deadline = deadline
        self._threads = pool().get_num_threads()
        self._compiling = COMPILING
        self.chosen: dict[str, str] = {}
        self.left = 0

    def look(self, kernels: Iterable[Tunable], touched: int, by_tiles: bool) -> None:
        """Add what is known of those of `kernels` that are `by_tiles`, and what is found out about
        the others. `touched`: bytes that the whole graph reads and writes."""
        new = []
        for kernel in kernels:
            if kernel.by_tiles is by_tiles:
                found = self._load(kernel)
                if found is None:
                    new.append(kernel)
                else:
                    self.chosen[kernel.key] = found
        self._touched = touched
        new.sort(key=lambda kernel: -kernel.work)
        total = sum(kernel.work for kernel in new)
        with progress(f"tuning {self._name}", len(new)) as step:
            for done, kernel in enumerate(new):
                step(done)
                room = self._deadline - clock()
                if room < self._compiling * len(kernel.offers):
                    self.left += 1
                    continue
                self._choose(kernel, max(LEAST, room * kernel.work / total))
                total -= kernel.work

    def _choose(self, kernel: Tunable, seconds: float) -> None:
        global measured_count
        end = clock() + seconds
        calls, between = self._calls(kernel)
        each = (clock() - end + seconds) / len(calls)
        self._compiling += 0.3 * (each - self._compiling)
        times = measure(calls, between, max(LEAST, end - clock()))
        measured_count += 1
        best = self.chosen[kernel.key] = kernel.best(times)
        self._store(kernel, best)
        debug.show("tuning", self._name, lambda: _table(kernel, times, best))

    def _calls(self, kernel: Tunable) -> tuple[list[Call], Call]:
        """A call for each offer, each with a program of its own, and what runs before each."""
        made = [self._lowered(kernel, name) for name in kernel.offers]
        emit = target_of(self._processor, kernel.label).emit
        with ThreadPoolExecutor(available_cpus(), "graphtorch-tune") as threads:
            codes = list(threads.map(emit, [table for *_, table in made]))
        around = Surroundings(kernel, self._others(kernel))
        calls: list[Call] = []
        for (program, placed, table), (names, code) in zip(made, codes, strict=True):
            record = record_of(program, placed, table, names, "", {})
            run = Executable(record, table.constants, code, kernel.stable)
            calls.append(partial(around.call, run))
        return calls, around.pass_by

    def _others(self, kernel: Tunable) -> int:
        """Bytes that are touched between two calls of a kernel, as far as a cache notices."""
        own = guess(traffic([*kernel.graph.inputs, *kernel.graph.outputs]))
        return max(0, min(self._touched - own, self._processor.caches[2]))

    def _lowered(self, kernel: Tunable, name: str) -> tuple[Program, Plan, Table]:
        target = target_of(self._processor, kernel.label, Choices({kernel.key: name}, self._exact))
        graph, stable = kernel.graph, kernel.stable
        if kernel.by_tiles:
            program, placed, _ = lowered(graph, target, stable, self._exact)
        else:
            program, placed = placed_program(graph, graph, target, stable)
        return program, placed, tabulate(program, placed)

    # ---- what is known

    def _name_of(self, kernel: Tunable) -> str:
        return cache.key("schedule", kernel.key, repr(self._processor), str(self._threads))

    def _load(self, kernel: Tunable) -> str | None:
        if "tuning" in debug.wanted():  # somebody wants to see how it is found
            return None
        name = self._name_of(kernel)
        known = _known.get(name)
        if known is None:
            stored = cache.load(name)
            known = None if stored is None else stored[0]["schedule"]
        return known if known in kernel.offers else None

    def _store(self, kernel: Tunable, best: str) -> None:
        name = self._name_of(kernel)
        if len(_known) >= KNOWN_BOUND:
            _known.pop(next(iter(_known)))
        _known[name] = best
        cache.store(name, {"kernel": kernel.label, "schedule": best}, b"")


class Surroundings:
    """What a kernel finds around it: its operands, and caches that others have used since."""

    def __init__(self, kernel: Tunable, others: int):
        """Args: others: bytes that are touched between two calls."""
        inputs = kernel.graph.inputs
        first = len(inputs) - len(kernel.stable)
        self._given = [_filled(v.type) for v in inputs[:first]]
        self._more = [_filled(v.type) for v in inputs[first:]]
        self._own = self._given
        self._copy = compile_native(Graph("copy", inputs[:first], inputs[:first]))
        block = Value(Type(f32, (BLOCK,)), name="x")
        self._read = compile_native(
            Graph("read", [block], [ops.sum(block, dims=(0,), keepdim=False)])
        )
        self._blocks = [_filled(block.type) for _ in range(others // (4 * BLOCK))]

    def pass_by(self) -> None:
        """Do as the layers between two calls do: read other memory, then write the operands."""
        for block in self._blocks:
            self._read([block])
        self._own = self._copy(self._given)

    def call(self, run: Executable) -> object:
        """Call a kernel on its operands."""
        return run(self._own, self._more)


def _filled(type: Type) -> Buffer:
    """Numbers as a network has them; zeros of what may be indices or flags."""
    shape, dtype = tuple(map(guess, type.shape)), type.dtype.numpy
    if not type.dtype.is_floating_point:
        return Buffer.of(np.zeros(shape, dtype))
    numbers = np.random.default_rng(0).random(shape, np.float32)
    return Buffer.of((numbers - np.float32(0.5)).astype(dtype))


def measure(calls: Sequence[Call], between: Call, seconds: float) -> list[float]:
    """Seconds of each call, in turn, after `between` each time.

    Of the turns of a call the one counts that three quarters are slower than: what other programs
    on the machine take away only ever adds. Calls that take far longer than the fastest get no more
    than the first few turns.
    """
    end = clock() + seconds
    for call in calls:
        between()
        call()
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(MOST_ROUNDS):
        found = list(map(_quarter, times))
        if turn >= ROUNDS and clock() >= end:
            break
        for i, call in enumerate(calls):
            if turn < ROUNDS or found[i] <= SLOW * min(found):
                between()
                start = clock()
                call()
                times[i].append(clock() - start)
    return list(map(_quarter, times))


def _quarter(times: Sequence[float]) -> float:
    return sorted(times)[len(times) // 4] if times else 0.0


def _table(kernel: Tunable, times: Sequence[float], best: str) -> str:
    """What was measured, for people."""
    rows = [
        f"{'*' if name == best else ' '} {1e6 * time:10.1f} us  {name}"
        for name, time in zip(kernel.offers, times, strict=True)
    ]
    types = ", ".join(str(v.type) for v in kernel.graph.inputs)
    return "\n".join([f"{kernel.label} of {types}", *rows])


@contextmanager
def progress(what: str, count: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that shows how many of `count` are done, on standard error where that is a
    terminal."""
    start, shown = clock(), count > 0 and sys.stderr.isatty()

    def step(done: int) -> None:
        if shown:
            filled = BAR * done // count
            bar = "#" * filled + "-" * (BAR - filled)
            text = f"{what} [{bar}] {done}/{count} kernels, {clock() - start:.0f} s"
            print(f"\r{text}", end="", file=sys.stderr, flush=True)

    try:
        yield step
        step(count)
    finally:
        if shown:
            print(file=sys.stderr)
