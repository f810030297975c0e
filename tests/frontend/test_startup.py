"""What `import graphtorch` loads: each of these takes a while, and few programs need it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import graphtorch as torch

PROGRAM = "import sys, graphtorch; print(*sys.modules)"
LATER = (
    *("base64", "cupy", "difflib", "json", "llvmlite", "networkx", "numpy.random", "onnx"),
    *("pkgutil", "shlex", "tempfile", "traceback", "zipfile"),
    *("graphtorch._captured", "graphtorch.cuda", "graphtorch.func", "graphtorch.ir.text"),
    *("graphtorch.nn.modules.rnn", "graphtorch.nn.utils", "graphtorch.optim"),
    "graphtorch.serialization",
)


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return set(done.stdout.split())


def test_the_names_of_what_is_loaded_later_are_there() -> None:
    homes = (torch, *(getattr(torch, name) for name in ("autograd", "nn", "optim")))
    for module in (*homes, torch.nn.modules):
        assert {name for name in module.__all__ if not hasattr(module, name)} == set()
        assert set(module.__all__) <= set(dir(module))
    assert torch.trace is importlib.import_module("graphtorch._captured.tracing").trace
    assert torch.nn.LSTM is torch.nn.modules.rnn.LSTM
    with pytest.raises(AttributeError, match=r"the nearest are .*Linear"):
        torch.nn.Linea  # noqa: B018
    assert "compile" in dir(torch) and "optim" in dir(torch)


def test_modules_are_few(loaded: set[str]) -> None:
    """Each costs some 0.1 ms on a fast machine."""
    assert len([name for name in loaded if name.partition(".")[0] == "graphtorch"]) <= 205


@pytest.mark.parametrize("name", LATER)
def test_is_not_loaded_by_the_import_alone(name: str, loaded: set[str]) -> None:
    assert "graphtorch.nn" in loaded
    assert name not in loaded
