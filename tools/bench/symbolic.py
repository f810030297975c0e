"""Kernels for a symbolic batch against kernels for a fixed one, the same model and inputs.

    python tools/bench symbolic            all models
    python tools/bench/symbolic.py NAME ...

The batch is a `Dim`; everything else is fixed. Times are of the compiled program alone, called with
buffers: medians, the two in turn.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import graphtorch as torch
import zoo
from _timing import medians_in_turn, row
from graphtorch import nn
from graphtorch.backends import compile as compiled

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


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp_b1": (mlp, (1, 1000)),
    "mlp_b64": (mlp, (64, 1000)),
    "lenet_b1": (lenet, (1, 1, 32, 32)),
    "lenet_b64": (lenet, (64, 1, 32, 32)),
    "lstm_b16": (lambda: Recurrent("LSTM"), (16, 50, 64)),
    "gru_b1": (lambda: Recurrent("GRU"), (1, 50, 64)),
    "resnet50": (large("resnet50"), (1, 3, 224, 224)),
    "mobilenetv2": (large("mobilenetv2"), (1, 3, 224, 224)),
    "vit_s16": (large("vit_s16"), (1, 3, 224, 224)),
}


def measure(name: str) -> float:
    """Time of the symbolic program over that of the fixed one."""
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(*shape)
    calls: dict[str, Callable[[], Any]] = {}
    for kind, dynamic in (
        ("fixed", None),
        ("symbolic", {0: {0: torch.Dim("batch", min=1, max=256)}}),
    ):
        traced = torch.trace(model, x, dynamic=dynamic)
        program = compiled(traced.graph, stable=range(1, len(traced.graph.inputs)))
        parameters = [t.detach().contiguous() for t in traced.parameters.values()]
        tensors = [x, *parameters]
        for t in tensors:
            t.numpy()
        buffers = [t._storage.value.buffer for t in tensors]
        calls[kind] = lambda run=program, given=buffers: run(given)
    times = medians_in_turn(calls, rounds=7, seconds=0.25)
    ratio = times["symbolic"] / times["fixed"]
    label = f"{name}: fixed {1e3 * times['fixed']:.3f} ms, symbolic"
    row(label, f"{ratio:.2f} x", f"<= {LIMIT}", ratio <= LIMIT)
    return ratio


def main() -> None:
    ratios = [measure(name) for name in sys.argv[1:] or MODELS]
    row("geometric mean", f"{statistics.geometric_mean(ratios):.2f} x")


if __name__ == "__main__":
    main()
