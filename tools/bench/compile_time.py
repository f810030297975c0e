"""What compiling takes: models cold and from the disk cache, and how it grows with samples and
layers.

    python tools/bench compile_time                  all tables (minutes)
    python tools/bench/compile_time.py NAME ...      some models, or `samples`, `layers`

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
from typing import Any

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

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
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


# ------------------------------------------------------------------------------------------ models


class Block(nn.Module):
    """A bottleneck block of a residual network."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *unit(channels, width, 1),
            *unit(width, width, 3, stride),
            *unit(width, out, 1, act=False),
        )
        self.short = (
            nn.Sequential(*unit(channels, out, 1, stride, act=False))
            if stride != 1 or channels != out
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.short(x))


class Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(self, channels: int, out: int, stride: int, factor: int):
        super().__init__()
        hidden = channels * factor
        self.residual = stride == 1 and channels == out
        self.body = nn.Sequential(
            *(unit(channels, hidden, 1) if factor != 1 else []),
            *unit(hidden, hidden, 3, stride, hidden),
            *unit(hidden, out, 1, act=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Dense(nn.Module):
    """A layer of a dense block, which adds 32 channels to what it reads."""

    def __init__(self, channels: int):
        super().__init__()
        narrow, wide = (
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.Conv2d(128, 32, 3, padding=1, bias=False),
        )
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), narrow, nn.BatchNorm2d(128), nn.ReLU(), wide
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], 1)


class Vit(nn.Module):
    """A small vision transformer."""

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 197, width))
        self.blocks, self.norm = encoder(depth, width, heads), nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Unet(nn.Module):
    """Four levels down and up again, with the levels' results concatenated on the way up."""

    def __init__(self, width: int = 32):
        super().__init__()
        sizes = [width << i for i in range(5)]
        self.down = nn.ModuleList(
            self._pair(i, o) for i, o in zip([3, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * s, s, 2, 2) for s in reversed(sizes[:-1]))
        self.merge = nn.ModuleList(self._pair(2 * s, s) for s in reversed(sizes[:-1]))
        self.head = nn.Conv2d(width, 1, 1)

    @staticmethod
    def _pair(channels: int, out: int) -> nn.Module:
        return nn.Sequential(*unit(channels, out, 3), *unit(out, out, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2))
            levels.append(x)
        for up, merge, level in zip(self.up, self.merge, reversed(levels[:-1]), strict=True):
            x = merge(torch.cat([level, up(x)], 1))
        return self.head(x)


def unit(
    channels: int, out: int, size: int, stride: int = 1, groups: int = 1, act: bool = True
) -> list[Any]:
    """Convolution, batch norm and activation."""
    conv = nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), *([nn.ReLU()] if act else [])]


def head(channels: int) -> list[Any]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]


def encoder(layers: int, width: int, heads: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def resnet50() -> nn.Module:
    layers, channels = [*unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for i in range(depth):
            layers.append(Block(channels, 64 << stage, 2 if i == 0 and stage else 1))
            channels = 256 << stage
    return nn.Sequential(*layers, *head(channels))


def mobilenetv2() -> nn.Module:
    layers, channels = unit(3, 32, 3, 2), 32
    for t, c, n, s in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(n):
            layers.append(Inverted(channels, c, s if i == 0 else 1, t))
            channels = c
    return nn.Sequential(*layers, *unit(channels, 1280, 1), *head(1280))


def densenet121() -> nn.Module:
    layers, channels = [*unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for i, depth in enumerate((6, 12, 24, 16)):
        for _ in range(depth):
            layers.append(Dense(channels))
            channels += 32
        if i < 3:
            layers += [
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *head(channels))


def inference(make: Callable[[], nn.Module], *shape: int) -> Callable[[], Any]:
    """The first call of a compiled model."""
    model, x = make().eval(), torch.randn(*shape)
    settle(model, x)
    run = torch.compile(model)

    def call() -> Any:
        with torch.no_grad():
            return run(x).numpy()

    return call


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
    "resnet50": lambda: inference(resnet50, 1, 3, 224, 224),
    "mobilenetv2": lambda: inference(mobilenetv2, 1, 3, 224, 224),
    "vit_s16": lambda: inference(Vit, 1, 3, 224, 224),
    "bertbase": lambda: inference(lambda: encoder(12, 768, 12), 1, 128, 768),
    "densenet121": lambda: inference(densenet121, 1, 3, 224, 224),
    "unet": lambda: inference(Unet, 1, 3, 128, 128),
    "lenet_step": lenet_step,
}


# ---------------------------------------------------------------------------------------- measuring


def first_call(name: str) -> dict[str, float]:
    """In a process of its own: what the first call takes, and what it compiled."""
    kind, _, count = name.partition(":")
    make = (
        MODELS.get(name)
        or {
            "samples": lambda: samples(int(count)),
            "layers": lambda: inference(lambda: encoder(int(count), 128, 4), 1, 64, 128),
        }[kind]
    )
    call, made = make(), watch()
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


def main(chosen: list[str] | None = None) -> None:
    names = chosen or [*MODELS, "samples", "layers"]
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
        main(sys.argv[1:])
