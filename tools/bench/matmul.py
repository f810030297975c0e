"""A 1024 x 1024 x 1024 product through the public interface, packing included, against the multiply-add peak.

    python tools/bench matmul

The peak is that of one core, measured before and after each case; threads share it evenly.
"""

from __future__ import annotations

import statistics
import time

import graphtorch as torch
from _timing import row
from contraction import peak

SIZE, CALLS, GOAL = 1024, 31, 0.85


def main() -> None:
    x, y = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    compiled = torch.compile(lambda a, b: a @ b)
    available = torch.get_num_threads()
    compiled(x, y)
    for threads in dict.fromkeys((1, available)):
        torch.set_num_threads(threads)
        before, times = peak(), []
        for _ in range(CALLS):
            start = time.perf_counter()
            compiled(x, y)
            times.append(time.perf_counter() - start)
        best = max(before, peak())
        speed = 2 * SIZE**3 / statistics.median(times)
        share = speed / best / threads
        row(f"matmul {SIZE}^3 f32, {threads} thread{'s' * (threads > 1)}", f"{speed / 1e9:.1f} GFLOP/s",
            f"{share:.1%} of {best * threads / 1e9:.0f}", share >= GOAL)
    torch.set_num_threads(available)


if __name__ == "__main__":
    main()
