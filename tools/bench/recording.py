"""What a line of a program costs that is not compiled, beside PyTorch (needs torch).

python tools/bench recording

Chains of operations on 8 x 8 numbers that end with ``.item()``: recording, finding the program and
running it, against running each operation. Then single operations: here they are only recorded, in
PyTorch they run. Medians of turns in one process; a ratio above 1 means that this is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch as pytorch

import graphtorch

LIBRARIES = {"pytorch": pytorch, "graphtorch": graphtorch}
BEFORE = 3000  # calls of a chain until it is compiled
Run = Callable[[], Any]


def chain(lib: Any, count: int, gradient: bool) -> Run:
    """`count` operations and a sum, of which the number is asked for; all of them differentiated
    where `gradient`."""
    a, b = lib.randn(8, 8), lib.randn(8)
    w = lib.randn(8, 8, requires_grad=gradient)

    def run() -> float:
        x = a
        for _ in range(count // 5):
            x = lib.tanh(x @ w + b) * 0.5 - a
        total = x.sum()
        if gradient:
            w.grad = None
            total.backward()
        return total.item()  # type: ignore[no-any-return]

    return run


def operations(lib: Any) -> dict[str, Run]:
    """Single operations as programs write them."""
    functional = lib.nn.functional
    a, b = lib.randn(8, 8), lib.randn(8)
    y = lib.randn(8, 8, requires_grad=True) * 1
    labels = lib.zeros(8, dtype=lib.int64)
    layer = lib.nn.Linear(8, 8)
    return {
        "a + a": lambda: a + a,
        "y + a, with its gradient": lambda: y + a,
        "a * 0.5": lambda: a * 0.5,
        "a @ a": lambda: a @ a,
        "a > 0": lambda: a > 0,
        "tanh(a)": lambda: lib.tanh(a),
        "a.sum()": lambda: a.sum(),
        "a.sum(1)": lambda: a.sum(1),
        "a.max(1)": lambda: a.max(1),
        "softmax(a, 1)": lambda: lib.softmax(a, 1),
        "cat([a, a])": lambda: lib.cat([a, a]),
        "where(a > 0, a, a)": lambda: lib.where(a > 0, a, a),
        "a.view(64)": lambda: a.view(64),
        "a.transpose(0, 1)": lambda: a.transpose(0, 1),
        "a[0]": lambda: a[0],
        "a[1:3, 2]": lambda: a[1:3, 2],
        "a.float()": lambda: a.float(),
        "zeros(3)": lambda: lib.zeros(3),
        "tensor(3.0)": lambda: lib.tensor(3.0),
        "linear(a, a, b)": lambda: functional.linear(a, a, b),
        "a Linear layer": lambda: layer(a),
        "mse_loss(y, a)": lambda: functional.mse_loss(y, a),
        "cross_entropy(y, labels)": lambda: functional.cross_entropy(y, labels),
    }


def microseconds(run: Run, seconds: float = 0.05) -> float:
    """Of one call: of ten at once, as one takes little more than reading the clock."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for _ in range(10):
            run()
        count += 10
    return spent / count * 1e6


def by_turns(runs: dict[str, Run], rounds: int = 11) -> dict[str, float]:
    """The median of each, microseconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(microseconds(run))
    return {name: statistics.median(found) for name, found in times.items()}


def show(name: str, found: dict[str, float]) -> None:
    theirs, ours = found["pytorch"], found["graphtorch"]
    print(f"{name:42s} {theirs:9.2f} {ours:9.2f} {theirs / ours:7.2f}")


def main() -> None:
    pytorch.set_num_threads(1)
    graphtorch.set_num_threads(1)
    print(f"{'microseconds':42s} {'PyTorch':>9s} {'here':>9s} {'ratio':>7s}")
    for gradient in (False, True):
        for count in (5, 25, 100):
            runs = {name: chain(lib, count, gradient) for name, lib in LIBRARIES.items()}
            for run in runs.values():
                for _ in range(BEFORE):
                    run()
            kind = "and their gradients, item" if gradient else "item"
            show(f"{count} operations, {kind}", by_turns(runs))
    tables = {name: operations(lib) for name, lib in LIBRARIES.items()}
    for name in tables["pytorch"]:
        runs = {library: table[name] for library, table in tables.items()}
        show(name, by_turns(runs))


if __name__ == "__main__":
    main()
