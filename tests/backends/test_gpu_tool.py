"""tools/gpu.py on the emulated device: rows for each case, and what becomes of processes that
break."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphtorch.backends.gpu import emulated
from sampling import without

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu.py"
SAMPLES = {"modules": "nn.Linear", "optims": "ASGD", "samples": "sinc"}


needs_compiler = pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)


def parts(folder: Path, *arguments: str) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """The rows of each part that the tool runs on the emulated device, and what it prints."""
    found = folder / "rows.json"
    done = subprocess.run(
        [sys.executable, TOOL, *arguments, "--json", found],
        text=True,
        env={**os.environ, "GRAPHTORCH_CUDA": "emulated"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(found.read_text())["parts"], done.stdout


@needs_compiler
def test_op_samples_have_rows(tmp_path: Path) -> None:
    found, printed = parts(tmp_path, "ops", "--only", "f32 softmax")
    rows = found["ops"]
    assert {row["name"].split()[0] for row in rows} == {"f32"}
    assert all(row["ok"] and row["worst"] < 1e-5 for row in rows)
    assert f"{len(rows)} samples compared, 0 wrong" in printed


@needs_compiler
@pytest.mark.parametrize("part", without(SAMPLES, ["modules", "optims"]))
def test_samples_of_pytorch_have_rows(part: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    name = SAMPLES[part]
    found, _ = parts(tmp_path, part, "--only", name, "--seconds", "2000")
    (row,) = found[part]
    assert row["name"] == name and row["ok"] and row["compared"] == row["equal"] > 1


@needs_compiler
def test_whole_nets_have_times(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    names = "train mlp", "infer bert-base 2x12"
    found, printed = parts(tmp_path, "models", "--only", *names, "--seconds", "2000")
    train, infer = found["models"]
    assert (train["name"], infer["name"]) == names
    assert infer["worst"] < 1e-5 and train["worst"] < 1e-5
    assert infer.keys() >= {"seconds", "plain", "torch"} and train.keys() >= {"seconds", "net"}
    assert printed.count("PyTorch") == 2


def test_it_needs_no_pytest() -> None:
    """A machine that is lent has what graphtorch depends on, and no more."""
    code = (
        "import sys; sys.modules['pytest'] = None; sys.path.insert(0, sys.argv[1]); import gpu; "
        "gpu.use_source_tree(); import gpu_parts.ops, gpu_parts.sanitizer"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, TOOL.parent], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return importlib.import_module("gpu")


def test_a_part_goes_on_behind_a_case_that_broke_it(
    tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes end after a fault of the GPU, by a signal, in silence, and at the end of the
    cases."""
    ends = {0: (2, tool.BROKEN), 2: (4, -11), 5: (6, "no answer in time"), 7: (8, 0)}

    def rows_of(part: str, options: Any, skip: int, end: float) -> Iterator[dict[str, Any]]:
        last, status = ends[skip]
        for i in range(skip, last):
            yield {"case": i, "begins": f"case {i}"}
            yield {"case": i, "name": f"case {i}", "ok": i + 1 < last or status != tool.BROKEN}
        if status not in (0, tool.BROKEN):
            yield {"case": last, "begins": f"case {last}"}
        yield {"status": status}

    monkeypatch.setattr(tool, "rows_of", rows_of)
    rows = list(tool.run("ops", None, 1e18))
    assert [row["name"] for row in rows] == [f"case {i}" for i in range(8)]
    assert [row["case"] for row in rows if not row["ok"]] == [1, 4, 6]
    assert rows[4]["error"] == "the process ended: -11"


def test_a_part_that_time_ends_says_what_is_left(
    tool: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows_of(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"case": 7, "begins": "matmul f16"}
        yield {"status": "no answer in time"}

    monkeypatch.setattr(tool, "rows_of", rows_of)
    assert list(tool.run("ops", None, 0.0)) == []
    assert capsys.readouterr().out == "ops: no time for the cases from number 7 on, matmul f16\n"


def test_what_pytorch_alone_does_not_finish_is_not_wrong(
    tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.use_source_tree()
    models = importlib.import_module("gpu_parts.models")

    def rows_of(part: str, options: Any, skip: int, end: float) -> Iterator[dict[str, Any]]:
        if skip == 0:
            yield {"case": 0, "name": "infer net", "ok": True, "seconds": 0.002, "torch": 0.003}
            yield {"case": 1, "begins": "peer infer net"}
        yield {"status": 0 if skip else "no answer in time"}

    monkeypatch.setattr(tool, "rows_of", rows_of)
    rows = list(tool.run("models", None, 1e18))
    assert [row["ok"] for row in rows] == [True, True]
    (line,) = models.table(rows)
    assert "1.50x" in line and "no answer in time" in line
