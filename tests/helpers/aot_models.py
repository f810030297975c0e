"""Small models as libraries, for the tests of `aot`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import aot, nn

BATCH = torch.Dim("batch", min=1, max=64)
CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler here")


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.second(nn.functional.gelu(self.first(x)))


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Linear(64, 5),
        )

    def forward(self, x: Any) -> Any:
        x = nn.functional.max_pool2d(nn.functional.relu(self.norm(self.conv(x))), 2)
        return nn.functional.softmax(self.head(torch.flatten(x, 1)), -1)


class Words(nn.Module):
    """Data-dependent indices, two inputs of which one is a mask, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, words: Any, keep: Any) -> Any:
        found = self.table(words) * keep.unsqueeze(-1)
        return found.sum(1), words + 1


def model(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().eval()


def library(
    folder: Path, name: str, kind: type[nn.Module], example: Any, **options: Any
) -> tuple[Any, aot.Compiled]:
    made = model(kind)
    return made, aot.compile(made, example, folder / name, **options)


def mlp_of(folder: Path) -> tuple[Any, aot.Compiled]:
    return library(
        folder, "mlp.so", Mlp, torch.zeros(2, 6), dynamic={"x": {0: BATCH}}, weights="external"
    )


def cnn_of(folder: Path) -> tuple[Any, aot.Compiled]:
    return library(
        folder,
        "cnn.so",
        Cnn,
        torch.zeros(2, 1, 8, 8),
        dynamic={0: {0: BATCH}},
        output_names=["scores"],
    )


def words_of(folder: Path) -> tuple[Any, aot.Compiled]:
    return library(
        folder, "words.so", Words, (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3))
    )


def assert_close(found: np.ndarray, want: Any) -> None:
    np.testing.assert_allclose(found, want.detach().numpy(), rtol=1e-5, atol=1e-6)


def image(n: int = 2) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 1, 8, 8)).astype(np.float32)


def scores(n: int = 2) -> np.ndarray:
    return np.empty((n, 5), np.float32)
