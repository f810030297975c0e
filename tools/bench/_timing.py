"""What the benchmarks share: medians, and a fresh Python process to measure what happens only
once."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping


def median_seconds(call: Callable[[], object], seconds: float = 1.0, least: int = 9) -> float:
    """Median time of one call, after two that do not count."""
    call()
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def medians_in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int = 5, seconds: float = 0.3
) -> dict[str, float]:
    """Median time of each call; they run in turn, so that a slow moment of the machine hits all
    alike."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seen[name].append(median_seconds(call, seconds))
    return {name: statistics.median(times) for name, times in seen.items()}


def in_new_process(code: str, environment: Mapping[str, str], times: int = 5) -> float:
    """Median of the number that `code` prints last, over fresh interpreters."""
    results = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", code], env=dict(environment), capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"benchmark process failed:\n{done.stderr}")
        results.append(float(done.stdout.split()[-1]))
    return statistics.median(results)


def row(name: str, value: str, goal: str = "", met: bool | None = None) -> None:
    """Print one line of a table."""
    mark = "" if met is None else "ok" if met else "MISSED"
    print(f"{name:48s} {value:>16s}   {goal:24s} {mark}", flush=True)
