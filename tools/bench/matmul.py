"""A 1024 x 1024 x 1024 product through the public interface, packing included, against the
multiply-add peak.

    python tools/bench matmul

Each call is paired with a measurement of the peak on the same threads just before and after it,
because the speed of a shared machine drifts; medians of the times and of the ratios are printed.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import graphtorch as torch
from _timing import row
from contraction import peak_kernel

SIZE, PAIRS, GOAL = 1024, 61, 0.85


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(threads: int) -> None:
    """Print speed and share of the peak on this many threads."""
    torch.set_num_threads(threads)
    x, y = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    compiled = torch.compile(lambda a, b: a @ b)
    compiled(x, y)
    # about 2 ms: a call's own cost disappears
    limit, flops = peak_kernel(threads, rounds=1_000_000)
    limit()
    times, peaks = [], [seconds(limit)]
    for _ in range(PAIRS):
        times.append(seconds(lambda: compiled(x, y)))
        peaks.append(seconds(limit))
    around = [2 / (1 / a + 1 / b) for a, b in itertools.pairwise(peaks)]
    share = statistics.median(
        2 * SIZE**3 / t / (flops / p) for t, p in zip(times, around, strict=True)
    )
    row(
        f"matmul {SIZE}^3 f32, {threads} thread{'s' * (threads > 1)}",
        f"{2 * SIZE**3 / statistics.median(times) / 1e9:.1f} GFLOP/s",
        f"{share:.1%} of {flops / statistics.median(peaks) / 1e9:.0f}",
        share >= GOAL,
    )


def main() -> None:
    available = torch.get_num_threads()
    for threads in dict.fromkeys((1, available)):
        measure(threads)
    torch.set_num_threads(available)


if __name__ == "__main__":
    main()
