"""Memory of a plain training loop that prints its loss now and then: it has to stay flat; and of
inference beside ONNX Runtime.

  python -m tools.bench memory [--steps 10000] [--every 100]
  python -m tools.bench memory --infer [MODEL ...]

The first prints the resident memory at each tenth of the loop, and fails where the second half
grew by more than 1 MiB. The second runs each model in a process of its own and prints the most
that was resident by then, in MiB: after imports, with the weights there, after the first call and
after five; graphtorch with an empty cache folder, with what that run left there, and once more with
the weights mapped (``torch.load(file, mmap=True)``). ONNX Runtime reads the file that PyTorch
exports (extra "oracle").
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

GROWTH = 1.0  # MiB
MODELS = ("resnet50", "mobilenetv2", "bertbase")
PHASES = ("imports", "weights", "first call", "end")


def resident() -> float:
    """MiB of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def most_resident() -> float:
    """MiB of memory of this process when it had most."""
    text = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(text.split()[0]) / 1024


# --------------------------------------------------------------------------------------- inference


def ours(name: str, file: str, mapped: bool = False) -> Iterator[Callable[[], Any] | None]:
    """Pauses after each phase, where memory is looked at; the last gives a call."""
    import graphtorch as torch
    import zoo

    yield None
    source = zoo.MODELS[name]
    with torch.device("meta"):  # nobody draws numbers for weights that are read from a file
        model = source.build(torch)
    model.load_state_dict(torch.load(file, mmap=mapped), assign=True)
    inputs = [torch.from_numpy(a) for a in source.arrays()]
    yield None
    compiled = torch.compile(model)

    def call() -> Any:
        with torch.no_grad():
            return [t.numpy() for t in zoo.flat(compiled(*inputs))]

    yield call


def onnxruntime(name: str, file: str) -> Iterator[Callable[[], Any] | None]:
    import onnxruntime as runtime

    import zoo

    yield None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 2
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feeds = {f"x{i}": a for i, a in enumerate(zoo.MODELS[name].arrays())}
    yield None
    yield lambda: session.run(None, feeds)


ENGINES = {
    "graphtorch": ours,
    "graphtorch, mapped": partial(ours, mapped=True),
    "onnxruntime": onnxruntime,
}


def peaks(engine: str, name: str, file: str) -> list[float]:
    """In a process of its own: the most memory until the end of each phase."""
    seen = []
    phases = ENGINES[engine](name, file)
    for _ in PHASES[:2]:
        next(phases)
        seen.append(most_resident())
    call = next(phases)
    assert call is not None
    for times in (1, 4):
        for _ in range(times):
            call()
        seen.append(most_resident())
    return seen


def in_own_process(engine: str, name: str, file: str, cache: str) -> list[float]:
    command = [sys.executable, __file__, "--one", engine, name, file]
    environment = {**os.environ, "GRAPHTORCH_CACHE": cache}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{engine} on {name} failed:\n{done.stderr}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(names: list[str]) -> None:
    peer = all(importlib.util.find_spec(m) is not None for m in ("torch", "onnxruntime"))
    if not peer:
        print("onnxruntime is left out: it, or PyTorch to export with, is not installed")
    import graphtorch
    import zoo

    print(f"{'model':14s} {'engine':20s} " + " ".join(f"{p:>10s}" for p in PHASES))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            weights = f"{folder}/weights.pt"
            graphtorch.save(zoo.MODELS[name].build(graphtorch).state_dict(), weights)
            runs = [(f"graphtorch, {kind}", "graphtorch", weights) for kind in ("cold", "cached")]
            runs.append(("graphtorch, mapped", "graphtorch, mapped", weights))
            if peer:
                from infer import Case  # it needs PyTorch

                runs.append(("onnxruntime", "onnxruntime", Case(name, Path(folder)).onnx))
            for label, engine, file in runs:
                found = in_own_process(engine, name, file, f"{folder}/cache")
                print(
                    f"{name:14s} {label:20s} " + " ".join(f"{m:10.0f}" for m in found), flush=True
                )


# ---------------------------------------------------------------------------------------- training


def train(steps: int, every: int) -> float:
    """MiB by which the second half of a training loop grew."""
    import graphtorch as torch
    from graphtorch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1000, 0.9)
    seen = []
    for step in range(1, steps + 1):
        x = torch.randn(32, 16)
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % every == 0:
            value = loss.item()
        if step % max(1, steps // 10) == 0:
            seen.append(resident())
            print(f"step {step:6d}  loss {value:.4f}  {seen[-1]:.1f} MiB", flush=True)
    return seen[-1] - seen[len(seen) // 2 - 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--infer", nargs="*", metavar="MODEL", help="of tools/bench/zoo")
    options = parser.parse_known_args()[0]  # (the name of this benchmark may stand before)
    if options.infer is not None:
        compare(options.infer or list(MODELS))
        return 0
    growth = train(options.steps, options.every)
    print(f"growth over the second half: {growth:.2f} MiB")
    return int(growth > GROWTH)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(peaks(*sys.argv[2:5])))
        sys.exit()
    sys.exit(main())
