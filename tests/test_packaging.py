"""The wheel holds every module, and puts nothing but `graphtorch` at top level."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SMOKE = """
import importlib.resources, importlib.util, sys
import graphtorch as torch
assert torch.__file__.startswith(sys.argv[1]), torch.__file__
assert not any(map(importlib.util.find_spec, ("ir", "backends"))), "ir or backends at top level"
model = torch.nn.Linear(3, 2)
loss = model(torch.ones(4, 3)).square().mean()
loss.backward()
assert model.weight.grad.shape == (2, 3)
import graphtorch.aot, graphtorch.onnx
assert (importlib.resources.files(torch) / "py.typed").is_file(), "type checkers look at nothing"
print(loss.item())
"""


def folders() -> list[str]:
    """Every package of the tree, under the name it is installed as."""
    found = []
    for root, name in (
        ("graphtorch", "graphtorch"),
        ("ir", "graphtorch.ir"),
        ("backends", "graphtorch.backends"),
    ):
        for init in (ROOT / root).rglob("__init__.py"):
            rest = init.parent.relative_to(ROOT / root).parts
            found.append(".".join((name, *rest)))
    return sorted(found)


def test_every_package_is_listed() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(table["packages"]) == folders()


def test_wheel_works_where_it_is_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = subprocess.run(
        [
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path / "wheel"),
            str(ROOT),
        ],
        capture_output=True,
        text=True,
    )
    if "No module named 'setuptools'" in built.stderr or "BackendUnavailable" in built.stderr:
        pytest.skip("setuptools is not installed here")
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheel").glob("graphtorch-*.whl")
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", SMOKE, str(target)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
