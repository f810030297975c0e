"""Runs cases of one module on one of the two frameworks, in a process of its own.

    python running.py graphtorch vision results.npz resnet18 fcn_resnet50
    python running.py torch language+generation results.npz gpt2 "gpt2 generates"

A case is a function that takes the framework and returns tensors, in dicts and lists. Weights are
filled by the names of parameters, so that both frameworks have the same ones.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()


def fill(torch: Any, model: Any) -> Any:
    """Parameters and buffers of `model` as numbers that follow from their names."""
    with torch.no_grad():
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            if t.dtype.is_floating_point:
                t.copy_(torch.from_numpy(_numbers(name, tuple(t.shape))))
    return model


def _numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return np.asarray(draw.uniform(0.5, 1.5, shape), np.float32)
    if len(shape) < 2:
        ones = 1.0 if "weight" in name or "scale" in name else 0.0
        return np.asarray(draw.normal(0, 0.05, shape) + ones, np.float32)
    return np.asarray(draw.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape), np.float32)


def rand(torch: Any, *shape: int, seed: int = 0) -> Any:
    """Normal numbers, the same on both frameworks."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def integers(torch: Any, high: int, *shape: int, seed: int = 0) -> Any:
    """Integers below `high`, the same on both frameworks."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, shape))


def flat(x: Any, path: str = "") -> dict[str, np.ndarray]:
    """The tensors and numbers in nested containers, by path."""
    if hasattr(x, "detach"):
        x = x.detach()
        return {path: np.array(x.float() if str(x.dtype).endswith("bfloat16") else x)}
    if isinstance(x, str):
        return {path: np.frombuffer(x.encode(), np.uint8)}
    if isinstance(x, (bool, int, float, np.ndarray)):
        return {path: np.asarray(x)}
    if x is None:
        return {}
    if not hasattr(x, "items") and not isinstance(x, (list, tuple)):
        return {path: np.array(x)}  # an image
    pairs = x.items() if hasattr(x, "items") else enumerate(x)
    return {
        k: v
        for name, part in pairs
        for k, v in flat(part, f"{path}.{name}".replace("/", "|")).items()
    }


def difference(mine: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference, relative to the largest number of its array; inf where shapes or
    dtypes differ."""
    if set(mine) != set(other):
        return float("inf")
    worst = 0.0
    for name, a in mine.items():
        b = other[name]
        if (
            a.shape != b.shape
            or a.dtype != b.dtype
            or (a.dtype.kind in "fc" and not _same_kinds(a, b))
        ):
            return float("inf")
        if a.dtype.kind in "fc":
            fine = np.isfinite(b)
            a, b = a[fine], b[fine]
            worst = max(
                worst, float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1))
            )
        else:
            worst = max(worst, float((a != b).mean()) if a.size else 0.0)
    return worst


def _same_kinds(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.isfinite(a) == np.isfinite(b)).all())


def run(framework: str, module: str, names: Sequence[str], timeout: float = 600) -> dict[str, Any]:
    """For each case what it returned, or the text of its error."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "results.npz"
        done = subprocess.run(
            [sys.executable, str(HERE), framework, module, str(place), *names],
            timeout=timeout,
            capture_output=True,
            text=True,
        )
        if not place.exists():
            return dict.fromkeys(names, done.stderr[-2000:])
        with np.load(place) as stored:
            arrays = dict(stored)
    found: dict[str, Any] = {}
    for name in names:
        error = arrays.get(f"{name}!error")
        found[name] = (
            str(error)
            if error is not None
            else {k.partition("!")[2]: v for k, v in arrays.items() if k.partition("!")[0] == name}
        )
    return found


def main(framework: str, module: str, place: str, names: list[str]) -> None:
    """Run cases and store what they return."""
    warnings.simplefilter("ignore")
    if framework == "graphtorch":
        importlib.import_module("graphtorch").install_as_torch()
    torch = importlib.import_module("torch")
    if framework == "torch":
        importlib.import_module("libraries.oracle_vision").declare(torch)
    cases: dict[str, Any] = {}
    for one in module.split("+"):
        cases.update(importlib.import_module(f"libraries.{one}").CASES)
    stored: dict[str, Any] = {}
    for name in names or list(cases):
        torch.manual_seed(0)
        try:
            stored.update((f"{name}!{k}", v) for k, v in flat(cases[name](torch)).items())
        except Exception:
            stored[f"{name}!error"] = np.array(traceback.format_exc()[-2000:])
    np.savez(place, **stored)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
