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

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu.py"


@pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)
def test_op_samples_have_rows(tmp_path: Path) -> None:
    found = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, TOOL, "ops", "--only", "f32 softmax", "--json", found],
        text=True,
        env={**os.environ, "GRAPHTORCH_CUDA": "emulated"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(found.read_text())["parts"]["ops"]
    assert {row["name"].split()[0] for row in rows} == {"f32"}
    assert all(row["ok"] and row["worst"] < 1e-5 for row in rows)
    assert f"{len(rows)} samples compared, 0 wrong" in done.stdout


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
