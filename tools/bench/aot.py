"""Libraries compiled ahead of time beside the same models compiled in this process, by turns.

    python -m tools.bench aot                      mlp, resnet18, resnet50, bertbase
    python -m tools.bench aot mlp --seconds 0.3

Each library has its weights in a file of their own. `jit` and `library` are median milliseconds of
a call: of the compiled model, from NumPy arrays to such, and of `NAME_run` on tensors that stay, as
a C program calls it, but through ctypes. `create` is the median time of `NAME_create`, `first` that
of the first one. Results have to be equal, bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphtorch as torch
import zoo
from _timing import medians_in_turn
from graphtorch.aot import loader

MODELS = ("mlp", "resnet18", "resnet50", "bertbase")


def library_call(
    library: loader.Library, arrays: list[np.ndarray], threads: int
) -> tuple[Callable[[], int], list[np.ndarray]]:
    """A call of the library's function on memory that stays, which gives its code; what it writes
    to."""
    library._library[f"{library.name}_set_num_threads"](threads)
    outputs = library._outputs(arrays)
    ins, outs = loader._tensors(arrays), loader._tensors(outputs)
    counts = len(arrays), len(outputs)

    def call() -> int:  # which keeps the library
        return int(library._run(library._context, ins, counts[0], outs, counts[1]))

    return call, outputs


def creations(made: Any, times: int = 9) -> list[float]:
    """Seconds that `create` takes, with the library's pages in memory from the second on."""
    library = made.load()
    create, destroy = library._library[f"{made.name}_create"], library._destroy
    create.restype, create.argtypes = library._destroy.argtypes[0], [loader.ctypes.c_char_p]
    seen = []
    for _ in range(times):
        start = time.perf_counter()
        context = create(str(made.weights).encode())
        seen.append(time.perf_counter() - start)
        destroy(context)
    library.close()
    return seen


def measured(name: str, threads: int, rounds: int, seconds: float) -> dict[str, float]:
    source = zoo.MODELS[name]
    arrays = list(source.arrays())
    inputs = [torch.from_numpy(a) for a in arrays]
    model = zoo.lively(torch, source.build(torch), inputs)
    compiled = torch.compile(model)

    def jit() -> list[np.ndarray]:
        with torch.no_grad():
            return [t.numpy() for t in zoo.flat(compiled(*map(torch.from_numpy, arrays)))]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.so"
        start = time.perf_counter()
        made = torch.aot.compile(model, tuple(inputs), path, weights="external")
        row = {"build": time.perf_counter() - start}
        created = creations(made)
        row |= {"first": created[0], "create": statistics.median(created)}
        with made.load() as library:
            call, outputs = library_call(library, arrays, threads)
            if call():
                raise SystemExit(library._error(library._context))
            for ours, theirs in zip(jit(), outputs, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            row |= medians_in_turn({"jit": jit, "library": call}, rounds, seconds)
        assert made.weights is not None
        row["megabytes"] = (path.stat().st_size + made.weights.stat().st_size) / 1e6
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench aot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(zoo.MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="turns of the two")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each in a turn")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.models or MODELS:
        torch.manual_seed(0)
        row = measured(name, options.threads, options.rounds, options.seconds)
        print(
            f"{name:10s} jit {1e3 * row['jit']:.4g} ms, library {1e3 * row['library']:.4g} ms, "
            f"ratio {row['jit'] / row['library']:.3f}; create {1e3 * row['create']:.2f} ms, "
            f"first {1e3 * row['first']:.2f} ms; built in {row['build']:.1f} s, "
            f"{row['megabytes']:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
