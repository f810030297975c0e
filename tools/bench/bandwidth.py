"""Kernels that memory bounds beside PyTorch's, and beside a copy of the same bytes.

    python -m tools.bench bandwidth
    python -m tools.bench bandwidth softmax gelu --sizes DRAM --inductor --rounds 5

Arrays are of f32, input and result together as large as half of the caches of a level: of "L2" (a
core's, times the threads) and of "L3", or several times the last of them: "DRAM". "copy" is the
share of the speed of a copy that a case reaches: bytes that have to move (the input is read once,
the result written once) in the time that the copy takes to move as many. The copy is the fastest
of three, on all threads, from one existing array to another: NumPy's copyto and a kernel of ours,
with ordinary stores and with those that pass by the caches. PyTorch asks libc for the memory of
each result; here libc keeps what it frees, so that fresh pages are nobody's time. Everything runs
in turn, case by case, so that a slow moment of the machine hits all alike; medians.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

import graphtorch as gt
from _timing import medians_in_turn
from graphtorch.backends.llvm.processor import host
from roofline import copy_kernel

COLUMNS = {"L2": 256, "L3": 1024, "DRAM": 4096}


class Case(NamedTuple):
    """`call` takes the package and the input. `shape` makes the input's of rows and columns."""

    call: Callable[[Any, Any], Any]
    shape: Callable[[int, int], tuple[int, ...]] = lambda rows, columns: (rows, columns)


def heads(rows: int, columns: int) -> tuple[int, ...]:
    """[batch, positions, heads, size of a head]"""
    return 4, rows // 4, columns // 64, 64


def images(rows: int, columns: int) -> tuple[int, ...]:
    """[batch, channels, height, width]"""
    return rows * columns // (64 * 32 * 32), 64, 32, 32


def channels_last(rows: int, columns: int) -> tuple[int, ...]:
    return rows * columns // (64 * 32 * 32), 32, 32, 64


def middle(rows: int, columns: int) -> tuple[int, ...]:
    return 16, rows // 16, columns


CASES = {
    "x * 2 + 1, relu": Case(lambda t, x: t.relu(x * 2 + 1)),
    "exp": Case(lambda t, x: t.exp(x)),
    "gelu": Case(lambda t, x: t.nn.functional.gelu(x)),
    "gelu, tanh": Case(lambda t, x: t.nn.functional.gelu(x, approximate="tanh")),
    "silu": Case(lambda t, x: t.nn.functional.silu(x)),
    "softmax of rows": Case(lambda t, x: t.softmax(x, 1)),
    "softmax of columns": Case(lambda t, x: t.softmax(x, 0)),
    "layer norm": Case(lambda t, x: t.nn.functional.layer_norm(x, x.shape[-1:])),
    "sum of all": Case(lambda t, x: x.sum()),
    "sum of rows": Case(lambda t, x: x.sum(1)),
    "sum of columns": Case(lambda t, x: x.sum(0)),
    "sum of a middle axis": Case(lambda t, x: x.sum(1), middle),
    "max of rows": Case(lambda t, x: t.amax(x, 1)),
    "max of columns": Case(lambda t, x: t.amax(x, 0)),
    "transpose": Case(lambda t, x: x.t().contiguous()),
    "heads forward": Case(lambda t, x: x.transpose(1, 2).contiguous(), heads),
    "channels last": Case(lambda t, x: x.permute(0, 2, 3, 1).contiguous(), images),
    "channels first": Case(lambda t, x: x.permute(0, 3, 1, 2).contiguous(), channels_last),
}


def sizes(threads: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of an array of each level."""
    _, second, last = host().caches
    used = {"L2": second * threads // 2, "L3": last // 2, "DRAM": 8 * last}
    made = {}
    for name, both in used.items():
        elements = 1 << (both // 2 // 4).bit_length() - 1
        made[name] = elements // COLUMNS[name], COLUMNS[name]
    return made


def copies(elements: int, threads: int) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Copies of arrays of f32, and how many times each does it in a call."""
    source, target = (np.ones(elements, np.float32) for _ in range(2))
    workers = ThreadPoolExecutor(threads)
    parts = [*zip(np.split(target, threads), np.split(source, threads), strict=True)]

    def copyto() -> None:
        list(workers.map(lambda part: np.copyto(*part), parts))

    ours = {
        f"copy kernel{' past caches' * s}": copy_kernel(threads, 8 * elements, s) for s in (0, 1)
    }
    times = {name: moved / (8 * elements) for name, (_, moved) in ours.items()}
    return {"copyto": copyto, **{n: c for n, (c, _) in ours.items()}}, {"copyto": 1.0, **times}


def measured(
    case: Case, rows: int, columns: int, options: argparse.Namespace, threads: int
) -> tuple[dict[str, float], float, str]:
    """Seconds of each peer, the share of the fastest copy's speed that ours has, and its name."""
    x = torch.randn(case.shape(rows, columns))
    y = gt.from_numpy(x.numpy())
    ours = gt.compile(lambda a: case.call(gt, a), dynamic=False)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(y),
        "eager": lambda: case.call(torch, x),
    }
    if options.inductor:
        compiled = torch.compile(lambda a: case.call(torch, a), dynamic=False)
        calls["inductor"] = lambda: compiled(x)
    result = calls["eager"]()
    assert isinstance(result, torch.Tensor)
    np.testing.assert_allclose(ours(y).numpy(), result.numpy(), rtol=1e-3, atol=1e-4)
    copying, times = copies(x.numel(), threads)
    seconds = medians_in_turn({**calls, **copying}, options.rounds, options.seconds)
    copied = {name: seconds.pop(name) / times[name] for name in copying}
    fastest = min(copied, key=copied.__getitem__)
    share = (x.numel() + result.numel()) / (2 * x.numel()) * copied[fastest] / seconds["ours"]
    return seconds, share, fastest


def keep_memory() -> None:
    """Let libc hand out again what was freed, however large, instead of giving it back."""
    trim_threshold, most_mappings = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of glibc's malloc.h
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(most_mappings, 0) and libc.mallopt(trim_threshold, (1 << 31) - 1)):
        raise SystemExit("libc gives freed memory back: times of PyTorch would be those of pages")


def report(names: Sequence[str], options: argparse.Namespace) -> None:
    threads = gt.get_num_threads()
    peers = ["eager", *["inductor"] * options.inductor]
    print(f"{host().describe()}, {threads} threads; milliseconds; peers: theirs / ours")
    for level in options.sizes:
        rows, columns = sizes(threads)[level]
        print(f"\n{level}: {rows} x {columns}, {rows * columns * 4 / 2**20:.2f} MiB")
        print(f"{'':24}{'ours':>9}" + "".join(f"{p:>10}{'':>7}" for p in peers) + f"{'copy':>7}")
        for name in names:
            with torch.inference_mode(), gt.no_grad():
                seconds, share, fastest = measured(CASES[name], rows, columns, options, threads)
            ours = seconds["ours"]
            line = f"{name:24}{ours * 1e3:9.4g}"
            for peer in peers:
                line += f"{seconds[peer] * 1e3:10.4g}{seconds[peer] / ours:7.2f}"
            print(f"{line}{share:7.2f}  of {fastest}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench bandwidth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", help="parts of names: " + "; ".join(CASES))
    parser.add_argument("--sizes", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--inductor", action="store_true", help="beside torch.compile too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each peer in a round")
    options = parser.parse_args()
    torch.set_num_threads(gt.get_num_threads())
    keep_memory()
    chosen = [n for n in CASES if not options.cases or any(c in n for c in options.cases)]
    if not chosen:
        parser.error("no case has such a name")
    report(chosen, options)


if __name__ == "__main__":
    main()
