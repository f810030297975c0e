"""What compiling takes: models cold and from the disk cache, and how it grows with samples and
layers.

    python -m tools.bench compile_time               all tables (minutes)
    python -m tools.bench compile_time NAME ...      some models, or `samples`, `layers`

Every row is a new Python process. "cold" has an empty cache folder, "cached" what the cold one
left. Seconds of the first call: `wall` by the clock, `cpu` of all threads. The process' own start
and the making of the model's weights are not in them; programs that were compiled for those are not
counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import graphtorch as torch
import zoo
from graphtorch import nn
from graphtorch.nn import functional as F
from zoo import parts

GOALS = {
    "resnet50": 3.0,
    "mobilenetv2": 2.0,
    "vit_s16": 2.0,
    "bertbase": 2.0,
    "densenet121": 5.0,
    "lenet_step": 0.5,
}
CACHED_GOAL = 0.3
SAMPLES, LAYERS = (16, 64, 256, 1024), (2, 8, 24, 96)
ENCODED = zoo.floats((1, 64, 128), (1, 64, 128))
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


# ------------------------------------------------------------------------------------------ models


def inference(source: zoo.Model) -> Callable[[], Any]:
    """The first call of a compiled model."""
    model, inputs = source.build(torch), [torch.from_numpy(a) for a in source.arrays()]
    settle(model, *inputs)
    run = torch.compile(model)

    def call() -> Any:
        with torch.no_grad():
            return [t.numpy() for t in zoo.flat(run(*inputs))]

    return call


def layers(count: int) -> Callable[[], Any]:
    """The first call of an encoder of many layers."""
    encoder = zoo.Model(lambda library, _: parts.encoder(library, count, 128, 4), ENCODED)
    return inference(encoder)


def lenet_step() -> Callable[[], Any]:
    """The first training step of LeNet."""
    model = nn.Sequential(
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
    x, y = torch.randn(64, 1, 32, 32), torch.randint(0, 10, (64,))
    optimizer = torch.optim.Adam(model.parameters())
    settle(model, x, y)

    @torch.compile
    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return lambda: step(x, y).item()


def samples(count: int) -> Callable[[], Any]:
    """A batch that is stacked from samples, each prepared by itself."""
    batch = [torch.randn(3, 32, 32) for _ in range(count)]
    settle(None, *batch)

    def prepared(x: torch.Tensor) -> torch.Tensor:
        return F.pad((x - 0.3) / 0.38, (2, 2, 2, 2))[:, 1:33, 1:33]

    run = torch.compile(lambda batch: torch.stack([prepared(x) for x in batch]))
    return lambda: run(batch).numpy()


def settle(model: nn.Module | None, *tensors: torch.Tensor) -> None:
    """Compute weights and data before the clock starts."""
    for tensor in (*tensors, *(model.parameters() if model is not None else ())):
        tensor.detach().numpy()


MODELS: dict[str, Callable[[], Callable[[], Any]]] = {
    **{name: partial(inference, source) for name, source in zoo.MODELS.items()},
    "lenet_step": lenet_step,
}
USUAL = (*zoo.STANDARD, "densenet121", "unet", "lenet_step")  # unless others are asked for


# ---------------------------------------------------------------------------------------- measuring


def first_call(name: str) -> dict[str, float]:
    """In a process of its own: what the first call takes, and what it compiled."""
    kind, _, count = name.partition(":")
    growing = {"samples": samples, "layers": layers}
    call = growing[kind](int(count)) if kind in growing else MODELS[name]()
    made = watch()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found.update({key: sum(s[key] for s in made) for key in ("launches", "kernels", "code_bytes")})
    return found


def watch() -> list[dict[str, int]]:
    """The statistics of the programs that are made from now on."""
    from graphtorch.backends.llvm import compiler

    made: list[dict[str, int]] = []

    def noted(record: Any, *rest: Any) -> Any:
        made.append(record.statistics)
        return plain(record, *rest)

    plain, compiler.Executable = compiler.Executable, noted  # type: ignore[assignment,misc]
    return made


def measured(name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Cold and cached."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**ENVIRONMENT, "GRAPHTORCH_CACHE": folder}
        rows = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, __file__, "--one", name],
                env=environment,
                text=True,
                capture_output=True,
            )
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows[0], rows[1]


def table(title: str, names: list[str]) -> None:
    print(
        f"{title:14s} {'cold wall':>9} {'cpu':>7} {'goal':>5}   {'cached wall':>11} {'cpu':>7} "
        f"{'goal':>5}   {'launches':>8} {'kernels':>7} {'code KiB':>8}"
    )
    for name in names:
        cold, cached = measured(name)
        goal = f"{GOALS[name]:.1f}" if name in GOALS else ""
        print(
            f"{name:14s} {cold['wall']:9.2f} {cold['cpu']:7.2f} {goal:>5}   {cached['wall']:11.2f} "
            f"{cached['cpu']:7.2f} {CACHED_GOAL if goal else '':>5}   {cold['launches']:8.0f} "
            f"{cold['kernels']:7.0f} {cold['code_bytes'] / 1024:8.0f}",
            flush=True,
        )


def main() -> None:
    names = sys.argv[1:] or [*USUAL, "samples", "layers"]
    models = [n for n in names if n not in ("samples", "layers")]
    if models:
        table("model", models)
    if "samples" in names:
        table("stacked", [f"samples:{n}" for n in SAMPLES])
    if "layers" in names:
        table("encoder", [f"layers:{n}" for n in LAYERS])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(first_call(sys.argv[2])))
    else:
        main()
