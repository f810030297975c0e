"""tools/replay.py: equal texts in every process, and a changed kernel shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ["tiny", "tiny_step", "op_softmax"]
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import replay
only = ["--only", *sys.argv[3:]]
"""
FIRST = RUN + "sys.exit(replay.main([sys.argv[1], *only]))"
AGAIN = (
    RUN
    + """
from graphtorch.backends.cpu import lower
from graphtorch.backends.kernels.ir import Const, KType, Store

before, again = sys.argv[1:3]
assert replay.main([again, "--against", before, *only]) == 0
share = lower.share_kernels

def change(program):
    share(program)
    kernel = program.kernels()[-1]
    out = next(b for b in kernel.buffers if b.access != "read")
    kernel.body.append(Store(out, Const(0), Const(41.5, KType(out.dtype))))

lower.share_kernels = change
sys.exit(replay.main([again, "--against", before, *only]))
"""
)


def run(code: str, seed: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tools"), *map(str, arguments), *GRAPHS],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_two_processes_agree_and_a_change_is_seen(tmp_path: Path) -> None:
    first = run(FIRST, 1, tmp_path / "a", "-")
    assert first.returncode == 0, first.stderr
    passes = (tmp_path / "a" / "tiny" / "avx2" / "passes.txt").read_text()
    assert (
        passes.startswith("== recorded\ngraph main(")
        and "== fuse\n" in passes
        and ".py" not in passes
    )
    wide, narrow = (
        (tmp_path / "a" / "tiny" / machine / "code.txt").read_text()
        for machine in ("avx512", "avx2")
    )
    assert wide != narrow
    again = run(AGAIN, 2, tmp_path / "a", tmp_path / "b")
    assert again.returncode == 1, again.stderr
    counted, same, *shown = again.stdout.splitlines()
    assert counted.startswith("3 graphs for 2 machines in ") and same == "no difference"
    text = "\n".join(shown)
    assert "--- before/op_softmax/avx2/kernels.txt\n+++ after/op_softmax/avx2/kernels.txt" in text
    assert "+  y[0] = 41.5:f32" in text
    assert shown[-1] == "12 of 24 files differ, of 3 graphs: op_softmax, tiny, tiny_step"
