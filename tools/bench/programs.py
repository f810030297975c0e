"""Whole programs on PyTorch and on graphtorch, each in a process of its own: time, memory, what
they print.

    python tools/bench programs                        all of tests/programs whose steps change
    python tools/bench programs maml_sines replay_dqn  these; --repeat 3 takes medians
    python tools/bench programs --folder ELSEWHERE     the programs of another folder

Cold is a run on an empty cache folder, warm the next one on the folder which that left. Seconds are
those of the process, imports included (--cpu: those its threads ran, for a machine that does other
work too). Ratios are PyTorch's seconds to graphtorch's: above 1 is faster. Memory is the largest
resident set. The printed lines of both have to be equal; programs round what they print so that
they can be.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[2] / "tests" / "programs"
# An installed package has its .pyc files; some environments keep a source tree from getting them.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Run:
    """One process: how long it took, the largest memory it held, what it printed, and how it
    failed."""

    seconds: float
    cpu: float
    mib: float
    printed: str
    error: str = ""


def run(command: Sequence[str], environment: dict[str, str], limit: float) -> Run:
    """Run `command` to its end, or to that of its time."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env={**ENVIRONMENT, **environment}
        )
        late = threading.Event()
        watch = threading.Timer(limit, lambda: (late.set(), process.kill()))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)  # resources of this one child alone
        seconds = time.perf_counter() - start
        watch.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    unit = 1 if sys.platform == "darwin" else 1024
    error = ""
    if late.is_set():
        error = f"no end in {limit:g} s"
    elif process.returncode:
        error = (texts[1].strip().splitlines() or [f"exit status {process.returncode}"])[-1][:200]
    return Run(
        seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 2**20, texts[0], error
    )


@dataclass
class Runs:
    """All runs of one program. Those of graphtorch end with the first that fails."""

    torch: list[Run]
    cold: list[Run]
    warm: list[Run]

    def error(self) -> str:
        """What went wrong, if something did."""
        for who, runs in (("PyTorch", self.torch), ("cold", self.cold), ("warm", self.warm)):
            failed = next((r.error for r in runs if r.error), "")
            if failed:
                return f"{who}: {failed}"
        expected = self.torch[0].printed
        for one in (*self.cold, *self.warm):
            if one.printed != expected:
                return "PRINTED " + different_line(one.printed, expected)
        return ""


def different_line(printed: str, expected: str) -> str:
    """The first line that differs, and what it should be."""
    ours, theirs = printed.splitlines(), expected.splitlines()
    for i in range(max(len(ours), len(theirs))):
        a, b = (lines[i] if i < len(lines) else None for lines in (ours, theirs))
        if a != b:
            return f"{a!r}, PyTorch {b!r}"
    return "other white space"


def measure(script: Path, repeat: int, limit: float) -> Runs:
    """The runs of one program: PyTorch, cold and warm in turn."""
    runs = Runs([], [], [])
    for _ in range(repeat):
        runs.torch.append(run([sys.executable, str(script)], {}, limit))
        with tempfile.TemporaryDirectory() as cache:
            for kept in (runs.cold, runs.warm):
                kept.append(
                    run(
                        [sys.executable, "-m", "graphtorch", "run", str(script)],
                        {"GRAPHTORCH_CACHE": cache},
                        limit,
                    )
                )
                if kept[-1].error:
                    return runs
    return runs


def seconds_of(runs: Iterable[Run], cpu: bool) -> float:
    """The median, NaN of none."""
    return statistics.median([r.cpu if cpu else r.seconds for r in runs] or [float("nan")])


def mib_of(runs: Iterable[Run]) -> float:
    return max([r.mib for r in runs], default=float("nan"))


def geometric_mean(values: Iterable[float]) -> float:
    known = [v for v in values if v == v]
    return statistics.geometric_mean(known) if known else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python tools/bench programs", description=__doc__.splitlines()[0]
    )  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", help="programs, by the names of their files")
    parser.add_argument(
        "--repeat", type=int, default=1, help="runs of each kind; the median counts"
    )
    parser.add_argument(
        "--limit", type=float, default=300, help="seconds after which a run is ended"
    )
    parser.add_argument("--cpu", action="store_true", help="count processor time instead of time")
    parser.add_argument("--folder", type=Path, help="where the programs are")
    options = parser.parse_args()
    folder: Path = options.folder or PROGRAMS
    # those with --init are compared by their weights, in tests/oracle/test_programs_torch.py
    found = sorted(
        p.stem for p in folder.glob("*.py") if "--init" not in p.read_text(encoding="utf-8")
    )
    unknown = [n for n in options.names if not (folder / f"{n}.py").exists()]
    if unknown:
        raise SystemExit(
            f"no program {', '.join(unknown)} in {folder}; there are: {', '.join(found)}"
        )
    ratios: dict[str, list[float]] = {"cold": [], "warm": []}
    memory, failed = [], []
    for name in options.names or found:
        runs = measure(folder / f"{name}.py", options.repeat, options.limit)
        peer, error = seconds_of(runs.torch, options.cpu), runs.error()
        line = f"{name:22s} torch {peer:6.2f} s"
        for kind, of in (("cold", runs.cold), ("warm", runs.warm)):
            own = seconds_of(of, options.cpu)
            ratios[kind].append(peer / own)
            line += f"  {kind} {own:6.2f} s ({peer / own:5.2f} x)"
        theirs, ours = mib_of(runs.torch), mib_of([*runs.cold, *runs.warm])
        memory.append(theirs / ours)
        failed += [name] if error else []
        print(f"{line}  MiB {theirs:5.0f} / {ours:5.0f}  {error}".rstrip(), flush=True)
    for kind, values in ratios.items():
        known = [v for v in values if v == v]
        worst = min(known, default=float("nan"))
        print(f"{kind}: geometric mean {geometric_mean(values):.2f} x, worst {worst:.2f} x")
    print(f"memory: PyTorch's to ours, geometric mean {geometric_mean(memory):.2f} x")
    if failed:
        raise SystemExit(f"failed or printed something else: {', '.join(failed)}")


if __name__ == "__main__":
    main()
