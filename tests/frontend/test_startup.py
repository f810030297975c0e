"""What `import graphtorch` loads: each of these takes a while, and few programs need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "import sys, graphtorch; print(*sys.modules)"
LATER = ("cupy", "difflib", "llvmlite", "networkx", "numpy.random", "onnx", "tempfile", "zipfile")


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", LATER)
def test_is_not_loaded_by_the_import_alone(name: str, loaded: set[str]) -> None:
    assert "graphtorch.nn" in loaded
    assert name not in loaded
