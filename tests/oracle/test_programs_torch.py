"""Programs written for PyTorch print the same losses under PyTorch and under ``python -m graphtorch
run``."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphtorch.backends.gpu import emulated

torch = pytest.importorskip("torch")

PROGRAMS = Path(__file__).parent.parent / "programs"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
COUNT = {"cnn": "--epochs", "vae": "--epochs"}  # how a program calls its number of steps
NAMES = sorted(
    path.stem for path in PROGRAMS.glob("*.py") if "--init" in path.read_text(encoding="utf-8")
)


def with_torch(monkeypatch: pytest.MonkeyPatch, script: Path, *arguments: object) -> str:
    """What the script prints under PyTorch, in this process."""
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


def with_graphtorch(script: Path, *arguments: object, **variables: str) -> str:
    """What the script prints here."""
    command = [sys.executable, "-m", "graphtorch", "run", str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("gpu_")])
def test_the_same_on_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that use a GPU where there is one, on the emulated device."""
    check(name, tmp_path, monkeypatch, GRAPHTORCH_CUDA="emulated")


@pytest.mark.parametrize("name", NAMES)
def test_same_losses_and_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, tmp_path, monkeypatch)


def check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Losses, other numbers and weights after training are PyTorch's; `variables` of the
    environment."""
    script = PROGRAMS / f"{name}.py"
    initial, theirs, ours = (tmp_path / file for file in ("initial.pt", "theirs.pt", "ours.pt"))
    with_torch(monkeypatch, script, "--save", initial, COUNT.get(name, "--steps"), 0)
    expected = with_torch(monkeypatch, script, "--init", initial, "--save", theirs)
    printed = with_graphtorch(script, "--init", initial, "--save", ours, **variables)
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    numbers = [np.array([float(n) for n in NUMBER.findall(text)]) for text in (printed, expected)]
    np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-4)
    trained, same = torch.load(theirs), torch.load(ours)  # PyTorch reads what graphtorch wrote
    assert list(trained) == list(same)
    for key, value in trained.items():
        torch.testing.assert_close(same[key], value, rtol=1e-2, atol=1e-2)
