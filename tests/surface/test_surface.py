"""Every row of the table of the surface resolves and is used by a check that passes."""

from __future__ import annotations

from pathlib import Path

import pytest

import surface


@pytest.mark.parametrize("check", surface.ran(), ids=lambda c: c.name)
def test_check(check: surface.Check) -> None:
    assert not check.error, check.error


def test_every_row_works(capsys: pytest.CaptureFixture[str]) -> None:
    rows = surface.rows()
    missing = [row.name for row in rows if not surface.checks_of(row)]
    with capsys.disabled():
        print(
            f"\nrows {len(rows)}, work {len(rows) - len(missing)} "
            f"({len(surface.ABSENT)} of them by being absent, as in PyTorch)"
        )
    assert len(rows) == 1147 and missing == []


FILE = """
import graphtorch as torch


def check_one():
    assert torch.zeros(2, dtype=torch.int8).sum() == 1


def check_two():
    x = torch.full((2,), fill_value=3.0)
    assert (2 * x).shape == (2,)
"""


def test_what_checks_use_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    one, two = surface.load(path)
    one.run()
    two.run()
    assert "AssertionError" in one.error and not two.error
    assert ("torch.full", "fill_value", None) in two.used and (
        "torch.full",
        "dtype",
        None,
    ) not in two.used
    assert ("torch.Tensor.__rmul__", None, None) in two.used
    assert ("torch.zeros", "dtype", None) in one.used
