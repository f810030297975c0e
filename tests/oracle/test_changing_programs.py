"""Programs whose steps differ (in sizes, structure or control flow) print the same under both
frameworks.

They print verdicts, counts and rounded numbers, so the lines have to be equal. They run as a user
runs them; the longest only with GRAPHTORCH_PROGRAMS=all, and
GRAPHTORCH_PROGRAMS=maml_sines,beam_search runs those. `python tools/bench programs` measures them.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

PROGRAMS = Path(__file__).parent.parent / "programs"
NAMES = sorted(
    p.stem for p in PROGRAMS.glob("*.py") if "--init" not in p.read_text(encoding="utf-8")
)
# Most of their time is spent recording: only when asked for.
LONG = {
    "names_rnn",
    "replay_dqn",
    "seq2seq_attention",
    "series_autoencoder",
    "small_gpt",
    "tree_lstm",
}
CHOSEN = os.environ.get("GRAPHTORCH_PROGRAMS", "")
SECONDS = 300


@pytest.fixture(autouse=True)
def settings_stay() -> Iterator[None]:
    """What programs set in this process does not reach other tests."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)  # test processes beside this one would wait for each other
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)


def with_torch(script: Path) -> str:
    """What the script prints under PyTorch, in this process."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


def with_graphtorch(script: Path) -> str:
    command = [sys.executable, "-m", "graphtorch", "run", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_prints_the_same(name: str) -> None:
    if CHOSEN not in ("", "all") and name not in CHOSEN.split(","):
        pytest.skip("GRAPHTORCH_PROGRAMS names others")
    if name in LONG and not CHOSEN:
        pytest.skip("GRAPHTORCH_PROGRAMS=all runs it")
    script = PROGRAMS / f"{name}.py"
    assert with_graphtorch(script) == with_torch(script)
