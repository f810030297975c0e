#!/usr/bin/env python3
"""Set up `.venv` and run all tests; further arguments go to pytest.

python3 tools/test.py                     everything that needs no other framework, on all cores
python3 tools/test.py --oracle            also compare with PyTorch and ONNX Runtime
python3 tools/test.py --lint              ruff and mypy first
python3 tools/test.py --every-variant     more random programs and cases that are much alike
python3 tools/test.py tests/ir -k conv    a part of it
"""

from __future__ import annotations

import os
import subprocess
import sys

import _venv

MOST_WORKERS = 8  # processes that share the tests; each takes up to 2 GiB beside the oracles


def main() -> int:
    # tests start hundreds of processes, each of which would compile the package's modules again
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    options = {"--oracle", "--lint"} & set(sys.argv[1:])
    _venv.ensure("test", *(["oracle", "libraries"] if "--oracle" in options else []))
    if "--lint" in options:
        for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
            print("$", *command, flush=True)
            if subprocess.run([sys.executable, "-m", *command], cwd=_venv.ROOT).returncode:
                return 1
    arguments = [a for a in sys.argv[1:] if a not in options]
    if set(arguments) <= {"--every-variant"}:
        arguments += ["--numprocesses", str(min(_cores(), MOST_WORKERS)), "--dist", "worksteal"]
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=_venv.ROOT).returncode


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
