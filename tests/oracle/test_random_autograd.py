"""Random programs of views, writes, hooks and gradients against PyTorch: a sample of
`fuzz_autograd.py`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from sampling import sampled

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
fuzz = importlib.import_module("fuzz_autograd")
sys.path.pop(0)

# PyTorch refuses or does by the order of writing what is well defined here: memory that overlaps
# partly
OVERLAPPING = frozenset({4094, 4187, 3190, 3202, 3409, 3676})


@pytest.mark.parametrize("first", sampled(range(3600, 4200, 50), 4))
def test_random_programs(first: int) -> None:
    found = {
        seed: fuzz.compare(seed) for seed in range(first, first + 50) if seed not in OVERLAPPING
    }
    assert {seed: text for seed, text in found.items() if text} == {}
