#!/usr/bin/env python3
"""Move the training of a ResNet-18-like network between PyTorch and graphtorch through checkpoint
files.

  python3 tools/checkpoints.py [--steps 20] [--width 64]

For SGD with momentum and for Adam: PyTorch trains some steps and saves model and optimizer;
graphtorch loads the file and both continue on the same data; graphtorch saves, PyTorch loads that
and both continue again. Prints the losses' largest differences, and fails where one is above 1e-4.
Needs PyTorch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import torch  # noqa: E402

import graphtorch  # noqa: E402
from checkpoints import TOLERANCE, continued, model_of, optimizer_of  # noqa: E402


def loaded(t: Any, kind: str, path: Path, width: int) -> tuple[Any, Any]:
    """Model and optimizer of library `t` from a checkpoint."""
    net = model_of(t, width)
    optimizer = optimizer_of(t, kind, net)
    read = t.load(path)
    net.load_state_dict(read["model"])
    optimizer.load_state_dict(read["optimizer"])
    return net, optimizer


def moved(kind: str, steps: int, width: int, path: Path) -> list[float]:
    """The largest differences of the losses after loading here, and after going back."""
    net = model_of(torch, width)
    state: tuple[Any, Any] = net, optimizer_of(torch, kind, net)
    continued(torch, *state, steps=3, seed=0)
    differences = []
    for seed, (save, load) in enumerate(((torch, graphtorch), (graphtorch, torch)), 1):
        save.save({"model": state[0].state_dict(), "optimizer": state[1].state_dict()}, path)
        other = loaded(load, kind, path, width)
        one, two = (
            continued(save, *state, steps=steps, seed=seed),
            continued(load, *other, steps, seed),
        )
        differences.append(max(abs(a - b) for a, b in zip(one, two, strict=True)))
        state = other
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("sgd", "adam"):
            there, back = moved(kind, options.steps, options.width, Path(folder) / "c.pt")
            print(
                f"{kind}: {options.steps} steps, losses differ by at most {there:.1e}, and "
                f"{back:.1e} back"
            )
            worst = max(worst, there, back)
    print("ok" if worst <= TOLERANCE else f"differences above {TOLERANCE}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
