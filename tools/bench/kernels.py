"""Where a compiled graph spends its time: every kernel call timed by itself, in the order of the
program.

    python tools/bench/kernels.py [lenet_step] [mlp_step] [lenet] [--threads N] [--rounds N]

Other tools call `measure` with any graph and its inputs.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends import Buffer
from graphtorch.backends.kernels.program import abi
from graphtorch.backends.kernels.program.program import Item, counted
from graphtorch.backends.kernels.program.table import Writer, packed_layout
from graphtorch.backends.llvm.build import lower_graph
from graphtorch.backends.llvm.code import Code
from graphtorch.backends.llvm.processor import host
from graphtorch.backends.llvm.runtime import pool
from graphtorch.backends.llvm.units import images, unit
from graphtorch.ir.graph import Graph
from graphtorch.ir.shape import Dim, SymInt, evaluate, symbols
from graphtorch.nn import functional as F


class Timed(NamedTuple):
    """One kernel call, or a loop of some, and its median time in microseconds.

    `flops` and `bytes` are what it computes and moves at least; `once`: only when weights change.
    """

    label: str
    flops: int
    bytes: int
    microseconds: float
    once: bool


def measure(
    graph: Graph, inputs: Sequence[Buffer], rounds: int = 300, stable: Sequence[int] = ()
) -> list[Timed]:
    """The kernel calls of `graph` compiled for this machine, run on copies of `inputs`."""
    return Calls(graph, inputs, stable).timed(rounds)


class Calls:
    """The kernel calls of a graph, which run one by one on copies of `inputs`; their shapes tell
    the sizes that are symbols."""

    def __init__(self, graph: Graph, inputs: Sequence[Buffer], stable: Sequence[int] = ()):
        program, plan, _ = lower_graph(graph, host(), stable)
        self.program, self.values = program, _values(graph, inputs)
        writer = Writer(program, plan)
        self._prologue, self._launches = (
            _alone(writer, items) for items in (program.prologue, program.launches)
        )
        self._frame = self._frame_of(writer, plan.size, inputs)
        self._seen: list[list[float]] = [[] for _ in self._launches]

    def _size(self, dim: Dim) -> int:
        return int(evaluate(dim, self.values))

    def _frame_of(self, writer: Writer, arena_size: Dim, inputs: Sequence[Buffer]) -> Any:
        table, program = writer.table, self.program
        held = [Buffer.of(b.numpy().copy()) for b in inputs]
        outputs = [
            held[s.alias.index]
            if s.alias
            else Buffer.empty(s.dtype, tuple(map(self._size, s.shape)))
            for s in program.outputs
        ]
        arena = Buffer.empty(torch.uint8, (self._size(arena_size) + 64,))
        packed = Buffer.empty(torch.uint8, (self._size(packed_layout(program)[1]) + 64,))
        constants = Buffer.of(np.frombuffer(table.constants + bytes(64), np.uint8))
        sizes = (ctypes.c_int64 * len(table.sizes))(*map(self._size, table.sizes))
        units = [unit(kernel, memory, host()) for kernel, memory in table.kernels]
        code = Code(
            [image.code for image in images(units, host())], [u.name for u in units], pool().address
        )
        functions = (ctypes.c_void_p * len(units))(*(code.address(u.name) for u in units))
        frame = (ctypes.c_int64 * table.words)()
        frame[abi.OPERANDS], frame[abi.WORDS], frame[abi.FUNCTIONS] = (
            table.operands,
            table.words,
            ctypes.addressof(functions),
        )
        words = [constants.address, ctypes.addressof(sizes)]
        words += [b.address for b in (*held, *outputs, arena, packed)]
        frame[abi.CONSTANTS : abi.CONSTANTS + len(words)] = words
        self._memory = held, outputs, arena, packed, constants, sizes, code, functions
        return frame

    def timed(self, rounds: int) -> list[Timed]:
        """Medians of all rounds so far, of which `rounds` are run now."""
        once = _times(self._prologue, self._frame, min(rounds, 3))
        for seen, times in zip(self._seen, _each(self._launches, self._frame, rounds), strict=True):
            seen += times
        return [
            *_timed(self.program.prologue, once, self.values, True),
            *_timed(self.program.launches, _medians(self._seen), self.values, False),
        ]


def _values(graph: Graph, inputs: Sequence[Buffer]) -> dict[str, int]:
    """The sizes that stand alone in a shape of an input, by their symbols' names."""
    return {
        symbol.name: size
        for value, buffer in zip(graph.inputs, inputs, strict=True)
        for dim, size in zip(value.shape, buffer.shape, strict=True)
        for symbol in symbols([dim])
        if dim == SymInt.atom(symbol)
    }


def _alone(writer: Writer, launches: Sequence[Item]) -> list[Any]:
    """The instructions of each launch by itself, then of none."""
    codes = []
    for items in (*([launch] for launch in launches), []):
        writer.code = []
        writer.items(items)
        codes.append((ctypes.c_int32 * (len(writer.code) + 1))(*writer.code, abi.END))
    return codes


def _timed(
    items: Sequence[Item], times: Sequence[float], values: dict[str, int], once: bool
) -> list[Timed]:
    """The items with their times, less that of nothing, which comes last."""
    found = []
    for item, time_ in zip(items, times[:-1], strict=True):
        calls = list(counted([item]))
        flops, moved = (
            sum(int(evaluate(one * count, values)) for one, count in amounts)
            for amounts in (
                [(launch.flops, count) for launch, count in calls],
                [(launch.bytes, count) for launch, count in calls],
            )
        )
        label = calls[0][0].label if len(calls) == 1 else f"loop of {len(calls)} kernels"
        found.append(Timed(label, flops, moved, max(0.0, time_ - times[-1]), once))
    return found


def _times(codes: Sequence[Any], frame: Any, rounds: int) -> list[float]:
    return _medians(_each(codes, frame, rounds))


def _medians(seen: Sequence[Sequence[float]]) -> list[float]:
    """In microseconds."""
    return [statistics.median(t) * 1e6 for t in seen]


def _each(codes: Sequence[Any], frame: Any, rounds: int) -> list[list[float]]:
    """Seconds of each in each round."""
    run, address = pool().run, ctypes.addressof(frame)
    seen: list[list[float]] = [[] for _ in codes]
    for _ in range(rounds):
        for code, times in zip(codes, seen, strict=True):
            frame[abi.CODE] = ctypes.addressof(code)
            start = time.perf_counter()
            run(address)
            times.append(time.perf_counter() - start)
    return seen


def report(name: str, timed: Sequence[Timed]) -> None:
    """A line a kernel call, and the sum."""
    print(f"== {name}\n{'us':>8}  {'GFLOP/s':>8}  {'GB/s':>6}  kernel")
    for label, flops, moved, us, once in timed:
        rate = [f"{n / us / 1e3:.1f}" if us else "-" for n in (flops, moved)]
        print(f"{us:8.1f}  {rate[0]:>8}  {rate[1]:>6}  {'once: ' * once}{label[:90]}")
    print(
        f"{sum(t.microseconds for t in timed):8.1f}  {'':>8}  {'':>6}  total of {len(timed)} "
        "calls\n"
    )


# ----------------------------------------------------------------------------------------- programs


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def step_of(model: nn.Module, loss: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
    """A training step."""

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value

    return step


def programs(name: str) -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    """A function and arguments to call it with."""
    torch.manual_seed(0)
    if name == "lenet":
        return lenet().eval(), (torch.randn(64, 1, 32, 32),)
    if name == "lenet_step":
        model = lenet()
        data = torch.randn(64, 1, 32, 32), torch.randint(0, 10, (64,))
        return step_of(model, F.cross_entropy, torch.optim.Adam(model.parameters())), data
    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    return step_of(model, F.mse_loss, sgd), (torch.randn(64, 1000), torch.randn(64, 10))


def captured(
    function: Callable[..., Any], arguments: tuple[torch.Tensor, ...]
) -> tuple[Graph, list[Buffer]]:
    """The graph that replays a compiled `function`, and the inputs of one replay."""
    compiled = torch.compile(function)
    with torch.set_grad_enabled(not isinstance(function, nn.Module)):
        for _ in range(3):
            compiled(*arguments)
        recorder = compiled._compiled if isinstance(function, nn.Module) else compiled
        entries = next(iter(recorder._entries.values())).entries
        replay, inputs = entries[0].replay, []

        def spy(given: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
            inputs[:] = [Buffer.of(b.numpy().copy()) for b in (*given, *more)]
            return replay.program(given, more)

        entries[0] = dataclasses.replace(
            entries[0], replay=dataclasses.replace(replay, program=spy)
        )
        compiled(*arguments)
    return replay.graph, inputs


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", help="lenet, lenet_step or mlp_step")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args(list(arguments))
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.programs or ["lenet_step"]:
        report(name, measure(*captured(*programs(name)), rounds=options.rounds))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
