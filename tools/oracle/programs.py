"""Runs whole programs on PyTorch and on graphtorch, plain and compiled: do they print the same
lines?

    python tools/oracle/programs.py                       those of tests/programs
    python tools/oracle/programs.py --folder DIR gan vae  some of another folder
    python tools/oracle/programs.py --steps 50            losses of more steps (20)

All generators are seeded before a program, whether it does so or not; its numbers are printed at
four digits, and so are the values of the first steps on which it calls ``backward()``. Compiled,
each module that is called outside of others goes through ``torch.compile``. A program whose lines
part is listed with the first line that does, and by how much numbers differ there. Needs ``pip
install -e ".[oracle]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import random
import re
import runpy
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("torch", "plain", "compiled")
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?|-?\d+(?:e[-+]?\d+)")
TIME = re.compile(r"\d+(?:\.\d+)? ?(?:s|ms|seconds)\b")


def main() -> int:
    """Compare; 1 where lines part."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parents[2] / "tests" / "programs"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit", type=int, default=600, help="seconds for a program")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(*options.run, options.steps)
        return 0
    parted = 0
    for script in sorted(options.folder.glob("*.py")):
        if options.names and script.stem not in options.names:
            continue
        expected, *others = [lines_of(script, way, options) for way in WAYS]
        found = [difference(expected, other) for other in others]
        parted += any(found)
        print(
            f"{script.stem:24s} {len(expected):3d} lines, plain {found[0] or 'the same'}, "
            f"compiled {found[1] or 'the same'}",
            flush=True,
        )
    print(f"{parted} part")
    return int(bool(parted))


def lines_of(script: Path, way: str, options: argparse.Namespace) -> list[str]:
    """What a program prints, numbers at four digits, and its losses."""
    command = [sys.executable, __file__, "--run", way, str(script), "--steps", str(options.steps)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return [f"no end in {options.limit} s"]
    failed = [] if done.returncode == 0 else ["FAILED " + done.stderr.strip().splitlines()[-1]]
    return [
        NUMBER.sub(_rounded, TIME.sub("# s", line)) for line in done.stdout.splitlines()
    ] + failed


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.4g}"


def difference(expected: list[str], found: list[str]) -> str:
    """How lines part; "" where they do not."""
    for number, (a, b) in enumerate(zip(expected, found, strict=False)):
        if a != b:
            pairs = [
                (float(x), float(y))
                for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=False)
            ]
            largest = max((abs(x - y) / max(abs(x), 1e-6) for x, y in pairs), default=0.0)
            return f"part at line {number + 1} by {largest:.1e}: {a!r} -> {b!r}"
    return "" if len(expected) == len(found) else f"{len(found)} lines for {len(expected)}"


def run(way: str, script: str, steps: int) -> None:
    """Run a program in this process, then print its first losses."""
    warnings.simplefilter("ignore")
    if way != "torch":
        import graphtorch

        graphtorch.install_as_torch()
    import torch

    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)
    losses = _listen(torch, steps)
    if way == "compiled":
        _compile_modules(torch)
    printed = io.StringIO()
    sys.argv = [script]
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            runpy.run_path(script, run_name="__main__")
    finally:
        print(printed.getvalue())
        print("\n".join(f"loss {i}: {loss:.4g}" for i, loss in enumerate(losses)))


def _listen(torch: Any, steps: int) -> list[float]:
    """The values of the first tensors on which ``backward()`` will be called."""
    losses: list[float] = []
    backward = torch.Tensor.backward

    @functools.wraps(backward)
    def listening(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(losses) < steps and self.numel() == 1:
            losses.append(float(self.detach()))
        return backward(self, *args, **kwargs)

    torch.Tensor.backward = listening
    return losses


def _compile_modules(torch: Any) -> None:
    """Let calls of modules that are not made by another module go through `torch.compile`."""
    inside = threading.local()
    called = torch.nn.Module.__call__

    def through(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(inside, "depth", 0):
            return called(self, *args, **kwargs)
        function = self.__dict__.get("_through")
        if function is None:
            function = self.__dict__["_through"] = torch.compile(functools.partial(called, self))
        inside.depth = 1
        try:
            return function(*args, **kwargs)
        finally:
            inside.depth = 0

    torch.nn.Module.__call__ = through


if __name__ == "__main__":
    sys.exit(main())
