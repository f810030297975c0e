"""compute-sanitizer over some op samples: accesses out of bounds, and races in shared memory."""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .common import Case, Row

TOOLS = ("memcheck", "racecheck", "synccheck")
SAMPLE = [
    "f32 softmax*",
    "f32 sum*",
    "f32 matmul*",
    "f32 conv2d*",
    "f32 layer_norm*",
    "f32 index_select*",
]
SECONDS = 110


def cases(options: argparse.Namespace) -> Iterator[Case]:
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    for name in TOOLS:
        yield name, functools.partial(check, tool, name)


def check(tool: str | None, name: str) -> Row:
    """The summary that the tool prints; wrong where it counts errors."""
    if tool is None:
        return {"summary": "compute-sanitizer is not on this machine"}
    script = Path(__file__).resolve().parent.parent / "gpu.py"
    command = [
        tool,
        "--tool",
        name,
        sys.executable,
        str(script),
        "--child",
        "ops",
        "--end",
        str(1e18),
        "--dtypes",
        "f32",
        "--only",
        *SAMPLE,
    ]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False
        ).stdout
    except subprocess.TimeoutExpired:
        return {"summary": f"no answer in {SECONDS} s"}
    errors = re.findall(r"=+ (.*(?:ERROR SUMMARY|RACECHECK SUMMARY).*)", found)
    first = next(iter(re.findall(r"=+ ((?:Invalid|Error|Race|Barrier).*)", found)), "")
    counts = [int(n) for line in errors for n in re.findall(r"(\d+) (?:error|hazard)", line)]
    row: Row = {"summary": errors[-1] if errors else "no summary"}
    return row | (
        {"ok": False, "error": f"{row['summary']}: {first}"} if any(counts) or not errors else {}
    )


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [f"  {row['name']}: {row.get('error') or row['summary']}" for row in rows]
