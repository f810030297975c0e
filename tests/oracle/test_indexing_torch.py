"""A sample of random index expressions against PyTorch; the command itself replays thousands."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
TOOL = Path(__file__).resolve().parents[2] / "tools" / "oracle" / "indexing.py"


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("indexing_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(4))
def test_random_expressions(seed: int) -> None:
    assert tool().compare(60, seed + 100) == []


def test_a_difference_is_found() -> None:
    found = tool()
    key = (np.array([0, 2]), None)
    a, b = (found.outcome(found.reading(np.arange(float(n)), key), found.torch) for n in (3, 4))
    assert not found.same(a, b)
