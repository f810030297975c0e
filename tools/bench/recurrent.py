"""Recurrent nets: inference against ONNX Runtime and PyTorch, training against PyTorch, and compile
time.

    python tools/bench recurrent
"""

from __future__ import annotations

import io
import time
from typing import Any

import onnxruntime
import torch

import graphtorch as gt
from _timing import medians_in_turn, row
from graphtorch.backends.llvm import build
from graphtorch.backends.llvm.processor import host

# kind, steps, batch
INFERENCE = [("LSTM", 20, 64), ("LSTM", 20, 1), ("GRU", 20, 64), ("GRU", 20, 1)]
COMPILE_LIMIT = 3.0  # seconds for an LSTM of 1,000 steps


def model_of(lib: Any, kind: str) -> Any:
    """Two layers of 128 units over 64 inputs, and a classifier on the last step."""

    class Recurrent(lib.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(lib.nn, kind)(64, 128, 2)
            self.out = lib.nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.out(self.rnn(x)[0][-1])

    return Recurrent()


def runtime(model: Any, x: Any) -> Any:
    """PyTorch's own export of `model` in ONNX Runtime, with as many threads as the others."""
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = gt.get_num_threads()
    session = onnxruntime.InferenceSession(file.getvalue(), options)
    given = {"x": x.numpy()}
    return lambda: session.run(None, given)


def inference() -> None:
    for kind, steps, batch in INFERENCE:
        theirs, mine = model_of(torch, kind), model_of(gt, kind)
        mine.load_state_dict(
            {k: gt.from_numpy(v.numpy().copy()) for k, v in theirs.state_dict().items()}
        )
        x = torch.randn(steps, batch, 64)
        y, compiled = gt.from_numpy(x.numpy()), gt.compile(mine)
        with torch.inference_mode(), gt.no_grad():
            times = medians_in_turn(
                {
                    "ort": runtime(theirs, x),
                    "torch": lambda f=theirs, x=x: f(x),
                    "mine": lambda f=compiled, y=y: f(y).numpy(),
                }
            )
        best = min(times["ort"], times["torch"])
        row(
            f"{kind} {steps} steps, batch {batch}",
            f"{times['mine'] * 1e3:.3f} ms",
            f"ONNX Runtime {times['ort'] * 1e3:.3f}, PyTorch {times['torch'] * 1e3:.3f} ms  "
            f"{best / times['mine']:.2f}x",
            best >= times["mine"],
        )


def step_of(lib: Any, kind: str) -> Any:
    """A training step on a batch of 64, as a function without arguments."""
    lib.manual_seed(0)
    model = model_of(lib, kind)
    optimizer = lib.optim.Adam(model.parameters(), 1e-3)
    x, y = lib.randn(20, 64, 64), lib.randint(0, 10, (64,))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = lib.compile(step) if lib is gt else step
    return lambda: run(x, y).item()


def training() -> None:
    for kind in ("LSTM", "GRU"):
        times = medians_in_turn({"torch": step_of(torch, kind), "mine": step_of(gt, kind)})
        row(
            f"{kind} training step, 20 steps, batch 64",
            f"{times['mine'] * 1e3:.2f} ms",
            f"PyTorch {times['torch'] * 1e3:.2f} ms  {times['torch'] / times['mine']:.2f}x",
            times["torch"] >= times["mine"],
        )


def compilation() -> None:
    model = gt.nn.LSTM(64, 128).eval()
    for steps in (10, 100, 1000, 10_000):
        graph = gt.trace(model, gt.zeros(steps, 8, 64)).graph
        start = time.perf_counter()
        build.build(graph, host())
        seconds = time.perf_counter() - start
        row(
            f"compiling an LSTM of {steps} steps",
            f"{seconds:.2f} s",
            f"at most {COMPILE_LIMIT} s",
            seconds <= COMPILE_LIMIT,
        )


def main() -> None:
    torch.set_num_threads(gt.get_num_threads())
    inference()
    training()
    compilation()


if __name__ == "__main__":
    main()
