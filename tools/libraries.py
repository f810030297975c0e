#!/usr/bin/env python3
"""Run the libraries around PyTorch on graphtorch and on PyTorch, and write what came out to
docs/libraries.md.

    python3 tools/libraries.py                            all cases (half an hour on two cores)
    python3 tools/libraries.py language                   of one module in tests/helpers/libraries
    python3 tools/libraries.py vision resnet18 operators  some of them; the other rows stay
    python3 tools/libraries.py imports                    how long their imports take

It needs the extras `oracle` and `libraries`, and for the module `training` tensorboard, accelerate
and pytorch-lightning.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "docs" / "libraries.md"
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
# module of cases: the packages that it runs, and the tolerance
MODULES: dict[str, tuple[str, float]] = {
    "vision": ("torchvision", 1e-4),
    "augmentation": ("torchvision pillow", 1e-6),
    "language": ("transformers tokenizers huggingface_hub", 1e-3),
    "generation": ("transformers tokenizers", 1e-3),
    "exporting": ("transformers onnx onnxruntime", 1e-4),
    "metrics": ("torchmetrics", 1e-4),
    "training": ("einops safetensors tensorboard accelerate pytorch-lightning", 1e-4),
}
IMPORTS = {
    "torchvision": "import torchvision",
    "transformers": "from transformers import BertModel",
    "torchmetrics": "import torchmetrics",
    "einops": "import einops",
    "pytorch-lightning": "import pytorch_lightning",
    "accelerate": "import accelerate",
    "safetensors": "import safetensors.torch",
    "tensorboard": "from torch.utils.tensorboard import SummaryWriter",
}
FIRST = {
    "graphtorch": "import graphtorch; graphtorch.install_as_torch()",
    "torch": "import torch; from libraries.oracle_vision import declare_schemas; "
    "declare_schemas(torch)",
}
IMPORTS_HEAD = (
    "| what | graphtorch: median of 5 | PyTorch: median | graphtorch: least | PyTorch: least |"
)
INTRODUCTION = """# Libraries around PyTorch

What ran unmodified under `graphtorch.install_as_torch()`, and how far its results were from those
on PyTorch {torch}, on the CPU: the largest difference of a tensor, relative to its largest
element. Weights are the same numbers on both; models of `language` are compared with their losses,
gradients and greedy generations, those of `generation` with the tokens that they draw and search
for in a dozen ways; those of `exporting` are files for ONNX Runtime and libraries with a C
interface, one of each for all sizes of batches and lengths.
Detections are selections by thresholds and ranks: of boxes whose scores differ in the last digits
alone another one may be chosen. `augmentation` has torchvision's transforms, first and second
version, with equal seeds of PyTorch's, Python's and NumPy's streams, on Pillow images, bytes,
floats, batches and on boxes, masks and key points; of bytes the number is the share of those that
differ. Written by `tools/libraries.py`; the cases are in `tests/helpers/libraries`.

Of the ways to generate, offloaded caches need an accelerator, as on PyTorch, quantized ones
packages of their own or 8-bit floats (which are not here), and contrastive search, DoLa,
constrained and grouped beams code from the Hub: each raises an error that says so.
"""


def main(arguments: list[str]) -> int:
    """Run cases and write their rows; 1 where one differs."""
    module, names = (arguments[0], arguments[1:]) if arguments else ("", [])
    times = import_times(names or list(IMPORTS)) if module in ("", "imports") else {}
    found = {m: compare(m, names) for m in ([module] if module else MODULES) if m != "imports"}
    rows = written()
    rows["imports"] = {**rows.get("imports", {}), **times}
    for one, results in found.items():
        rows.setdefault(one, {}).update(
            (n, text_of(r, MODULES[one][1])) for n, r in results.items()
        )
    PLACE.write_text(document(rows), encoding="utf-8")
    bad = [
        f"{n}: {r}"
        for one, results in found.items()
        for n, r in results.items()
        if isinstance(r, str) or r > MODULES[one][1]
    ]
    print("\n".join(bad) or "all are equal")
    return int(bool(bad))


def written() -> dict[str, dict[str, str]]:
    """The rows that the document has, by module."""
    rows: dict[str, dict[str, str]] = {}
    for line in PLACE.read_text(encoding="utf-8").splitlines() if PLACE.exists() else []:
        if line.startswith("## "):
            rows[line.removeprefix("## ").partition(":")[0]] = current = {}
        elif line.startswith("| ") and not line.startswith("| what"):
            name, text = line.strip("| ").split(" | ", 1)
            current[name] = text
    return rows


def import_times(names: list[str], times: int = 5) -> dict[str, str]:
    """Rows of seconds for a program that imports the framework and a library, by fresh processes in
    turn."""
    rows = {}
    for name in names:
        taken: dict[str, list[float]] = {framework: [] for framework in FIRST}
        for _ in range(times):
            for framework, first in FIRST.items():
                taken[framework].append(_seconds(f"{first}; {IMPORTS[name]}"))
        cells = [f"{at(taken[f]):.2f}" for at in (statistics.median, min) for f in FIRST]
        rows[name] = " | ".join(cells)
    return rows


def _seconds(lines: str) -> float:
    """The time of a process that imports, without the start of Python itself."""
    place = str(ROOT / "tests" / "helpers")
    program = (
        f"import sys, time; sys.path.insert(0, {place!r}); start = time.perf_counter(); {lines}; "
        "print(time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def compare(module: str, names: list[str]) -> dict[str, Any]:
    """For each case the difference, or the last line of an error. One process for each
    framework."""
    running = importlib.import_module("libraries.running")
    chosen = names or list(importlib.import_module(f"libraries.{module}").CASES)
    mine, other = (
        running.run(framework, module, chosen, timeout=7200)
        for framework in ("graphtorch", "torch")
    )
    found: dict[str, Any] = {}
    for name in chosen:
        wrong = next((r[name] for r in (mine, other) if isinstance(r[name], str)), None)
        found[name] = (
            running.difference(mine[name], other[name])
            if wrong is None
            else wrong.strip().splitlines()[-1]
        )
    return found


def text_of(found: Any, tolerance: float) -> str:
    """One result in words."""
    if isinstance(found, str):
        return found
    return ("" if found <= tolerance else "differs: ") + f"{found:.1e}"


def document(rows: dict[str, dict[str, str]]) -> str:
    """docs/libraries.md."""
    parts = [INTRODUCTION.format(torch=importlib.metadata.version("torch").partition("+")[0])]
    for module in MODULES:
        if module in rows:
            versions = [f"{p} {importlib.metadata.version(p)}" for p in MODULES[module][0].split()]
            lines = [f"| {name} | {text} |" for name, text in rows[module].items()]
            parts.append(f"## {module}: {', '.join(versions)}\n")
            parts.append("\n".join(["| what | difference |", "|---|---|", *lines]) + "\n")
    if rows.get("imports"):
        parts.append("## imports: seconds until the framework and the library are there\n")
        lines = [f"| {name} | {text} |" for name, text in rows["imports"].items()]
        parts.append("\n".join([IMPORTS_HEAD, "|---|---|---|---|---|", *lines]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
