"""What graphtorch costs beside its kernels: import, recording, calling, compiling.

python tools/bench overhead
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time

import graphtorch as torch
from _timing import in_new_process, median_seconds, row
from graphtorch import nn
from graphtorch.nn import functional as F

# An installed package has its .pyc files; some environments keep a source tree from getting them.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

IMPORT = "import time; t = time.perf_counter(); import graphtorch; print(time.perf_counter() - t)"

LENET = """
import time
import graphtorch as torch
from graphtorch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
                      nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                      nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
                      nn.Linear(84, 10))
x = torch.randn(64, 1, 32, 32)
[p.detach().numpy() for p in model.parameters()]; x.numpy()
start = time.perf_counter()
with torch.no_grad():
    torch.compile(model.eval())(x).numpy()
print(time.perf_counter() - start)
"""


def record_microseconds(gradient: bool, count: int = 300) -> float:
    """Cost of recording one op: add, relu and mul in turn, with or without a place in the autograd
    graph."""
    x = torch.ones(8, 8, requires_grad=gradient)
    y = torch.ones(8, 8)
    (x + y).sum().item()  # both are computed before the clock starts
    results = []
    for _ in range(60):  # each short of the bound at which a pending graph runs
        z = x
        start = time.perf_counter()
        for _ in range(count // 3):
            z = F.relu(z + y) * y
        results.append((time.perf_counter() - start) / (count // 3 * 3) * 1e6)
        del z
    return statistics.median(results)


def call_microseconds() -> float:
    """Calling a compiled function whose one kernel does next to nothing."""

    @torch.compile
    def double(x: torch.Tensor) -> torch.Tensor:
        return x + x

    x = torch.ones(16)
    x.sum().item()

    def call() -> None:
        for _ in range(100):
            double(x)

    return median_seconds(call) / 100 * 1e6


def model_microseconds(gradient: bool) -> float:
    """Calling a compiled model of three layers on one example: guards, kernels and the result."""
    model = torch.compile(
        nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    )
    x = torch.randn(1, 16).clone()
    x.sum().item()
    best = float("inf")  # the best of many: what is beside is noise
    with torch.set_grad_enabled(gradient):
        for _ in range(1000):
            start = time.perf_counter()
            for _ in range(40):
                model(x)
            best = min(best, (time.perf_counter() - start) / 40)
    return best * 1e6


def lenet_seconds() -> tuple[float, float]:
    """First compile of LeNet on an empty cache, and from the disk cache in a new process."""
    first = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(3):
            first.append(
                in_new_process(LENET, {**ENVIRONMENT, "GRAPHTORCH_CACHE": f"{folder}/{i}"}, 1)
            )
        cached = in_new_process(LENET, {**ENVIRONMENT, "GRAPHTORCH_CACHE": f"{folder}/0"}, 7)
    return statistics.median(first), cached


def main() -> None:
    in_new_process(IMPORT, ENVIRONMENT, 1)  # Python compiles the sources once
    seconds = in_new_process(IMPORT, ENVIRONMENT, 9)
    row("import graphtorch", f"{seconds:.3f} s", "<= 0.3 s", seconds <= 0.3)
    for name, gradient in (("recording an op", False), ("recording an op and its gradient", True)):
        microseconds = record_microseconds(gradient)
        row(name, f"{microseconds:.2f} us", "<= 8 us", microseconds <= 8)
    microseconds = call_microseconds()
    row(
        "calling a compiled function (16 floats)",
        f"{microseconds:.2f} us",
        "<= 12 us",
        microseconds <= 12,
    )
    for name, gradient in (("without gradients", False), ("with gradients", True)):
        microseconds = model_microseconds(gradient)
        row(
            f"calling a compiled MLP {name}", f"{microseconds:.2f} us", "<= 5 us", microseconds <= 5
        )
    first, cached = lenet_seconds()
    row("LeNet, first compile", f"{first:.2f} s", "<= 2 s", first <= 2)
    row(
        "LeNet, from the disk cache in a new process",
        f"{cached:.3f} s",
        "<= 0.15 s",
        cached <= 0.15,
    )


if __name__ == "__main__":
    main()
