"""`tools/oracle/exact.py`: results that differ from PyTorch's count where they are the better
ones, and only there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import graphtorch

ORACLE = Path(__file__).parents[2] / "tools" / "oracle"
sys.path.insert(0, str(ORACLE))
opinfo = importlib.import_module("opinfo")
sys.path.remove(str(ORACLE))


def entry(name: str) -> Any:
    return next(op for op in opinfo.entries(name, None) if op.full_name == name)


@pytest.mark.parametrize(
    "name", ["as_strided_scatter", "logcumsumexp", "cholesky_solve", "cholesky_inverse"]
)
def test_better_than_pytorchs(name: str) -> None:
    tally = opinfo.Tally()
    opinfo.Replay(entry(name), torch.float32, tally, False).run()
    assert tally.reasons == {} and tally.counts["gradient"] > 3


@pytest.mark.parametrize("name", ["as_strided_scatter", "logcumsumexp"])
def test_worse_than_pytorchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(graphtorch, name)

    def wrong(x: Any, *args: Any, **kwargs: Any) -> Any:
        """A gradient that is three times the right one."""
        made = right(x, *args, **kwargs)
        return made * 3 - 2 * made.detach()

    monkeypatch.setattr(graphtorch, name, wrong)
    tally = opinfo.Tally()
    opinfo.Replay(entry(name), torch.float32, tally, False).run()
    assert tally.counts["forward equal"] == tally.counts["forward"]
    assert tally.counts["gradient equal"] == 0 < tally.counts["gradient"]
