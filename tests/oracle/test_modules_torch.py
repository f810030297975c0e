"""A part of the replay of PyTorch's module samples; ``tools/oracle/modules.py`` runs all of
them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

TOOLS = Path(__file__).parent.parent.parent / "tools" / "oracle"
sys.path.insert(0, str(TOOLS))
modules = importlib.import_module("modules")
sys.path.remove(str(TOOLS))


@pytest.mark.filterwarnings("ignore")
def test_compiled_samples() -> None:
    tally = modules.replay(torch.float32, every=32, compiled=True)
    assert not tally.reasons
    assert tally.counts["forward"] > 20 and tally.counts["replayed"] > 15


@pytest.mark.filterwarnings("ignore")
def test_samples_of_every_twelfth_class() -> None:
    tally = modules.replay(torch.float32, every=12)
    assert not tally.reasons
    assert tally.counts["forward"] > 40 and tally.counts["gradient"] > 30
