"""Programs of sizes known at run time only against those of known sizes, the same model and inputs.

    python -m tools.bench symbolic                        all rows
    python -m tools.bench symbolic resnet18_b1 unet_hw    these
    python -m tools.bench symbolic resnet18_hw --kernels  ... kernel by kernel, side by side
    python -m tools.bench symbolic --threads 1

Rows called `_hw` have height and width of the images as symbols, the others the batch. Times are of
the compiled program alone, called with buffers: medians, the two in turn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import graphtorch as torch
import zoo
from _timing import medians_in_turn, row
from graphtorch import nn
from graphtorch.backends import Buffer
from graphtorch.backends import compile as compiled
from graphtorch.ir.graph import Graph
from graphtorch.ir.judge import assuming
from graphtorch.ir.shape import Condition, Known
from kernels import Calls, Timed

BATCH = {0: torch.Dim("batch", min=1, max=256)}
PIXELS = {2: torch.Dim("height", min=32, max=1024), 3: torch.Dim("width", min=32, max=1024)}
LIMIT = 1.15  # times the fixed program's time


class Recurrent(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.rnn, self.out = getattr(nn, kind)(64, 128, 2, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def large(name: str) -> Callable[[], nn.Module]:
    """A model of the zoo."""
    return lambda: zoo.MODELS[name].build(torch)


def segmenter() -> nn.Module:
    """Convolutions of all usual kinds, whose result is as large as the image."""
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(channels, 64, 3, padding=dilation, dilation=dilation),
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.Conv2d(64, 64, 5, padding=2, groups=64),
                nn.ReLU(),
                nn.Conv2d(64, 64, 1),
                nn.ReLU(),
            )
            for channels, dilation in ((3, 1), (64, 1), (64, 2), (64, 4))
        ),
        nn.Conv2d(64, 8, 1),
    )


class Case(NamedTuple):
    """A model, the shape of its input, and which of its sizes are symbols."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    dynamic: dict[int, torch.Dim]


def _cases(name: str, make: Callable[[], nn.Module], size: int) -> dict[str, Case]:
    """Of one net of images."""
    found = {f"{name}_b{n}": Case(make, (n, 3, size, size), BATCH) for n in (1, 4)}
    return found | {f"{name}_hw": Case(make, (1, 3, size, size), PIXELS)}


MODELS: dict[str, Case] = {
    "mlp_b1": Case(mlp, (1, 1000), BATCH),
    "mlp_b64": Case(mlp, (64, 1000), BATCH),
    "lenet_b1": Case(lenet, (1, 1, 32, 32), BATCH),
    "lenet_b64": Case(lenet, (64, 1, 32, 32), BATCH),
    "lstm_b16": Case(lambda: Recurrent("LSTM"), (16, 50, 64), BATCH),
    "gru_b1": Case(lambda: Recurrent("GRU"), (1, 50, 64), BATCH),
    **_cases("resnet18", large("resnet18"), 224),
    "resnet50_b1": Case(large("resnet50"), (1, 3, 224, 224), BATCH),
    **_cases("mobilenetv2", large("mobilenetv2"), 224),
    **_cases("unet", large("unet"), 128),
    "segmenter_hw": Case(segmenter, (1, 3, 120, 152), PIXELS),
    "vit_s16": Case(large("vit_s16"), (1, 3, 224, 224), BATCH),
}


class Traced(NamedTuple):
    """A graph, what its sizes have to be, its inputs, and which of them are weights."""

    graph: Graph
    conditions: Sequence[Condition]
    buffers: list[Buffer]
    stable: list[int]


def traced(case: Case, symbolic: bool) -> Traced:
    torch.manual_seed(0)
    model, x = case.make().eval(), torch.randn(*case.shape)
    with torch.no_grad():
        found = torch.trace(model, x, dynamic={0: case.dynamic} if symbolic else None)
    names = [v.name for v in found.graph.inputs]
    tensors = [x, *(found.parameters[n] for n in names[1:])]
    buffers = [Buffer.of(np.ascontiguousarray(t.detach().numpy())) for t in tensors]
    return Traced(found.graph, tuple(found.conditions), buffers, list(range(1, len(names))))


def measure(name: str) -> float:
    """Time of the symbolic program over that of the fixed one."""
    calls: dict[str, Callable[[], Any]] = {}
    for kind in ("fixed", "symbolic"):
        t = traced(MODELS[name], kind == "symbolic")
        program = compiled(t.graph, stable=t.stable, conditions=t.conditions)
        calls[kind] = functools.partial(program, t.buffers)
    times = medians_in_turn(calls, rounds=7, seconds=0.25)
    ratio = times["symbolic"] / times["fixed"]
    label = f"{name}: fixed {1e3 * times['fixed']:.3f} ms, symbolic"
    row(label, f"{ratio:.2f} x", f"<= {LIMIT}", ratio <= LIMIT)
    return ratio


def by_kernel(name: str, rounds: int = 8) -> None:
    """A line a kernel call of each program, in turn: microseconds, GFLOP/s, what it is."""
    calls = []
    for symbolic in (False, True):
        t = traced(MODELS[name], symbolic)
        with assuming(Known(t.conditions)):
            calls.append(Calls(t.graph, t.buffers, t.stable))
    for _ in range(rounds):
        for one in calls:
            one.timed(3)
    for kind, one in zip(("fixed", "symbolic"), calls, strict=True):
        lines = [t for t in one.timed(1) if not t.once]
        print(f"{name}, {kind}: {sum(t.microseconds for t in lines):.0f} us")
        print("\n".join(map(_line, lines)))


def _line(t: Timed) -> str:
    rate = t.flops / max(t.microseconds, 0.1) / 1e3
    return f"{t.microseconds:9.1f} us {rate:7.1f} GFLOP/s  {t.label[:90]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench symbolic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--kernels", action="store_true", help="kernel by kernel")
    parser.add_argument("--threads", type=int, help="all there are if not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = options.names or list(MODELS)
    if options.kernels:
        for name in names:
            by_kernel(name)
        return
    ratios = [measure(name) for name in names]
    row("geometric mean", f"{statistics.geometric_mean(ratios):.2f} x")


if __name__ == "__main__":
    main()
