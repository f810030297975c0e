#!/usr/bin/env python3
"""What a machine with an NVIDIA GPU says of us: right results, and how fast. Nothing is downloaded.

    python3 tools/gpu.py                            op samples, programs, and PyTorch's own samples
                                                    of modules, optimizers and operators
    python3 tools/gpu.py ops front                  two of these parts
    python3 tools/gpu.py --bench                    kernels and whole nets beside PyTorch's
    python3 tools/gpu.py sanitizer                  compute-sanitizer over some op samples
    python3 tools/gpu.py ops --seconds 100 --json FILE --only 'soft*' --dtypes own f32

The source tree it lies in is used as it is; needed are CuPy, an NVRTC, NumPy and what graphtorch
depends on, and PyTorch for all that is compared with it. With GRAPHTORCH_CUDA=emulated it runs
without a GPU, slowly.

Each part runs its cases in a process of its own, which is started again behind a case that broke
the GPU's context or hung, so every case that there is time for gets its row. What is wrong is
printed, with what each part found, at the end; all rows go to the JSON file. The status is 1 where
something is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"graphtorch": "graphtorch", "graphtorch.ir": "ir", "graphtorch.backends": "backends"}
CHECKS = ("ops", "front", "modules", "optims", "samples")
BENCHES = ("bench", "models")
PARTS = (*CHECKS, *BENCHES, "sanitizer")
SECONDS = 540
PATIENCE = 150  # seconds for one case, before it counts as hung
FULL_PATIENCE = 400  # with --full: PyTorch tunes its kernels
BROKEN = 3  # status of a process whose GPU cannot be used any more
RESTARTS = 8


class Finder:
    """Finds the three folders of the source tree as one package, as an installation would lay them
    out."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> Any:
        if name not in FOLDERS:
            return None
        folder = ROOT / FOLDERS[name]
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def use_source_tree() -> None:
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
    sys.path[:0] = [str(ROOT / folder) for folder in ("tools", "tools/oracle", "tests/helpers")]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    use_source_tree()
    if options.child:
        child(options)
    end = time.monotonic() + options.seconds
    report: dict[str, Any] = {"parts": {}}
    parts = [part for part in PARTS if part in options.parts]
    wrong = 0
    for i, part in enumerate(parts):
        left = end - time.monotonic()
        rows = report["parts"][part] = []
        for row in run(part, options, time.monotonic() + left / (len(parts) - i)):
            rows.append(row)
            if options.json:  # after each row: what follows may never end
                Path(options.json).write_text(json.dumps(report, indent=1))
        wrong += sum(not row["ok"] for row in rows)
    for part in parts:
        module = importlib.import_module(f"gpu_parts.{part}")
        print(f"== {part}", *module.table(report["parts"][part]), sep="\n")
    return int(wrong > 0)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--bench", action="store_true", help=f"the parts {' and '.join(BENCHES)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--json", help="where all rows are written to")
    parser.add_argument(
        "--only", nargs="*", default=[], help="cases whose names match one of these patterns"
    )
    parser.add_argument(
        "--dtypes", nargs="*", default=["own", "f32"], help="of the op samples, or all"
    )
    parser.add_argument("--full", action="store_true", help="larger models, more samples")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.bench:
        options.parts = [*options.parts, *BENCHES]
    if not options.parts and not options.child:
        options.parts = list(CHECKS)
    return options


# ---------------------------------------------------------------------------------------- processes


def run(part: str, options: argparse.Namespace, end: float) -> Iterator[dict[str, Any]]:
    """The rows of a part's cases, in one process or several."""
    skip, name = 0, ""
    for _ in range(RESTARTS):
        status = 0
        for row in rows_of(part, options, skip, end):
            if "status" in row:
                status = row["status"]
            elif "begins" in row:
                skip, name = row["case"], row["begins"]
            else:
                skip = row["case"] + 1
                yield row
        if status == 0:
            return
        if time.monotonic() > end:
            print(f"{part}: no time for the cases from number {skip} on, {name}", flush=True)
            return
        if status != BROKEN:
            yield {"case": skip, "name": name, **failed(name, f"the process ended: {status}")}
            skip += 1


def rows_of(
    part: str, options: argparse.Namespace, skip: int, end: float
) -> Iterator[dict[str, Any]]:
    """The rows that one process writes; the last one says how it ended."""
    command = [
        sys.executable,
        __file__,
        "--child",
        part,
        "--skip",
        str(skip),
        "--end",
        str(end),
        *(["--full"] if options.full else []),
        "--only",
        *options.only,
        "--dtypes",
        *options.dtypes,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    patience = FULL_PATIENCE if options.full else PATIENCE
    try:
        while (
            line := lines.get(timeout=min(patience, max(1.0, end + 20 - time.monotonic())))
        ) is not None:
            if line.startswith("{"):
                yield json.loads(line)
            else:
                print(line, end="", flush=True)
        yield {"status": process.wait(timeout=30)}
    except (queue.Empty, subprocess.TimeoutExpired):
        yield {"status": "no answer in time"}
    finally:
        process.kill()
        process.wait()


def child(options: argparse.Namespace) -> NoReturn:
    """Run the cases of a part, from number `--skip` on, and write a row for each."""
    from gpu_parts.common import Broken, say, selected

    part = importlib.import_module(f"gpu_parts.{options.child}")
    for number, (name, case) in enumerate(selected(part.cases(options), options.only)):
        if number < options.skip:
            continue
        if time.monotonic() > options.end:
            say(f"{options.child}: no time for the cases from number {number} on")
            break
        say(json.dumps({"case": number, "begins": name}))
        row: dict[str, Any] = {"case": number, "name": name, "ok": True}
        broken = False
        try:
            row |= case()
        except Broken as error:
            row |= {"ok": False, "error": str(error)}
            broken = True
        except Exception as error:
            row |= failed(name, last_line(error))
        say(json.dumps(row))
        if broken:
            os._exit(BROKEN)  # what lives on the GPU cannot be freed any more
    os._exit(0)  # what threads still compile is not waited for


def failed(name: str, error: str) -> dict[str, Any]:
    """What a row says of a case without a result: wrong unless it was PyTorch's alone."""
    from gpu_parts.common import PEER

    return {"ok": name.startswith(PEER), "error": error}


def last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().replace("\n", " | ")[:300]


if __name__ == "__main__":
    sys.exit(main())
