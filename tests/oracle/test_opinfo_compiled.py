"""A part of PyTorch's operator samples inside compiled functions, forward and gradient.

`python tools/oracle/opinfo.py --compiled [--dtype complex64]` runs all of them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

ORACLE = Path(__file__).parents[2] / "tools" / "oracle"
sys.path.insert(0, str(ORACLE))
opinfo = importlib.import_module("opinfo")
sys.path.remove(str(ORACLE))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_compiled_samples(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample in ten of one entry in sixteen."""
    monkeypatch.setattr(opinfo.Compiled, "every", 10)
    tally = opinfo.Tally()
    for op in opinfo.entries(None, None)[::16]:
        if dtype in op.supported_dtypes("cpu"):
            opinfo.Compiled(op, dtype, tally, False).run()
    wrong = {entry: reasons for entry, reasons in tally.reasons.items() if "compiled" in entry}
    assert not wrong
    assert tally.counts["compiled forward"] > 20 and tally.counts["compiled gradient"] > 10
    assert tally.counts["replayed"] > 0.6 * tally.counts["compiled forward"]
