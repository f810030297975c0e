"""Every example runs by itself and is listed in examples/README.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example prints what it found"
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_readme_lists_every_file() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[([^]]+)\]\(\1\) \|", text, re.M)
    files = [*PROGRAMS, *EXAMPLES.glob("*/*.c")]
    present = [p.relative_to(EXAMPLES).as_posix() for p in files]
    assert sorted(listed) == sorted(present)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_example_is_short_and_self_contained(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "import graphtorch as torch" in lines
    assert len(lines) <= 60
    assert any("assert " in line for line in lines)
