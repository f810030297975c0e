"""Training steps of the zoo's models beside PyTorch eager: line by line and as one function.

    python -m tools.bench train                        all that read images, batches of 4
    python -m tools.bench train unet yolo --size 128   two of them
    python -m tools.bench train --small --batch 2      their small versions

A step is zero_grad, the forward pass, the mean of squares of all that it gives, backward, and SGD
with momentum. Milliseconds are medians of calls by turns, after the steps that ran while graphtorch
still compiled what it met line by line: "first" is what these took, beside as many of PyTorch's
(the first included). Both start from the same weights; the losses of the first step are compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphtorch
import zoo
from _timing import medians_in_turn
from graphtorch._deferred import programs

Step = Callable[[], float]
QUIET = 4  # steps without a new program after which none is expected
PATIENCE = 90.0  # seconds to wait for that
LOSS_BOUND = 1e-4  # relative
MODELS = [name for name in zoo.MODELS if name not in ("mlp", "bertbase", "gpt2", "t5_encoder")]


def batch_of(source: zoo.Model, small: bool, batch: int, size: int | None) -> zoo.Arrays:
    """Its inputs with `batch` entries, images of `size` x `size`."""
    rng, made = np.random.default_rng(0), []
    for a in source.arrays(small):
        image = a.ndim == 4 and size is not None
        shape = (batch, a.shape[1], size, size) if image else (batch, *a.shape[1:])
        made.append(rng.standard_normal(shape).astype(np.float32))
    return tuple(made)


def step_of(lib: Any, model: Any, arrays: zoo.Arrays, compiled: bool) -> Step:
    """A training step, giving its loss."""
    optimizer = lib.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    inputs = [lib.from_numpy(a) for a in arrays]

    def step(*inputs: Any) -> Any:
        optimizer.zero_grad()
        loss = sum((t.float() ** 2).mean() for t in zoo.flat(model(*inputs)))
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        return loss

    run = lib.compile(step) if compiled else step
    return lambda: float(run(*inputs).item())


def settled(step: Step, patience: float) -> int:
    """Run steps until they compile nothing any more, or for so many seconds: how many it took."""
    end, quiet, count = time.perf_counter() + patience, 0, 0
    known = -1
    while quiet < QUIET and time.perf_counter() < end:
        step()
        count += 1
        now = sum(len(s.fixed) + len(s.symbolic) for s in programs.structures())
        quiet = quiet + 1 if now == known and now > 0 else 0
        known = now
    return count


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of each way, what came before, and the losses."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(graphtorch.get_num_threads())
    source = zoo.MODELS[name]
    arrays = batch_of(source, options.small, options.batch, options.size)
    theirs = source.build(torch, options.small).train()
    steps: dict[str, Step] = {}
    losses: dict[str, float] = {}
    first: dict[str, float] = {}
    state = {k: v.numpy().copy() for k, v in theirs.state_dict().items()}
    programs.clear()
    for way in ("line by line", "compiled"):
        mine = source.build(graphtorch, options.small)
        mine.load_state_dict({k: graphtorch.from_numpy(v.copy()) for k, v in state.items()})
        start = time.perf_counter()
        steps[way] = step_of(graphtorch, mine.train(), arrays, way == "compiled")
        losses[way] = steps[way]()
        count = 1 + (settled(steps[way], options.patience) if way == "line by line" else 0)
        first[way] = time.perf_counter() - start
        if way == "line by line":
            first["steps"] = count
    steps["eager"] = step_of(torch, theirs, arrays, False)
    start = time.perf_counter()
    losses["eager"] = steps["eager"]()
    for _ in range(int(first["steps"]) - 1):
        steps["eager"]()
    first["eager"] = time.perf_counter() - start
    times = medians_in_turn(steps, options.rounds, options.seconds)
    return {
        "milliseconds": {k: 1e3 * t for k, t in times.items()},
        "ratio": times["eager"] / times["compiled"],
        "plain_ratio": times["eager"] / times["line by line"],
        "first_s": first,
        "losses": losses,
    }


def wrong(row: dict[str, Any]) -> bool:
    """Whether a first loss is not PyTorch's."""
    exact = row["losses"]["eager"]
    return not all(abs(v - exact) <= LOSS_BOUND * abs(exact) for v in row["losses"].values())


def line(name: str, row: dict[str, Any]) -> str:
    times = "  ".join(f"{k} {v:.4g}" for k, v in row["milliseconds"].items())
    first = row["first_s"]
    mark = f"  WRONG: losses {row['losses']}" if wrong(row) else ""
    return (
        f"{name:16s} ms: {times}  ratio {row['ratio']:.2f}, line by line {row['plain_ratio']:.2f}"
        f"  first {int(first['steps'])} steps: {first['line by line']:.1f} s, PyTorch "
        f"{first['eager']:.1f} s; compiled: {first['compiled']:.1f} s{mark}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--small", action="store_true", help="their small versions")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, help="of images; the models' own if not given")
    parser.add_argument("--rounds", type=int, default=5, help="turns of the ways")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each way in a turn")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, help="seconds to wait for programs line by line"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are: {', '.join(MODELS)}")
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("train compares with PyTorch: install it (pip install -e .[oracle])")
    rows = {}
    for name in options.models or MODELS:
        rows[name] = measured(name, options)
        print(line(name, rows[name]), flush=True)
    means = {
        kind: statistics.geometric_mean(row[kind] for row in rows.values())
        for kind in ("ratio", "plain_ratio")
    }
    print(f"geometric mean {means['ratio']:.2f}, line by line {means['plain_ratio']:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"models": rows, **means}, indent=1))
    if any(map(wrong, rows.values())):
        raise SystemExit("a loss is not PyTorch's")


if __name__ == "__main__":
    main()
