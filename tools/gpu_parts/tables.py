"""PyTorch's own tables of samples, replayed by tools/oracle with our tensors on the GPU."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from collections.abc import Sequence
from typing import Any

from graphtorch.backends.gpu import devices

from .common import Row

if importlib.util.find_spec("expecttest") is None:
    # PyTorch's helpers of tests import it, and the tables, which import those, use nothing of it.
    sys.modules["expecttest"] = types.ModuleType("expecttest")
    sys.modules["expecttest"].TestCase = unittest.TestCase  # type: ignore[attr-defined]

from conversion import use
from opinfo import KINDS, Tally

use("cuda")
SHOWN = 40


def row(tally: Tally) -> Row:
    """What a tally counted; wrong where a sample differs."""
    counts = [tally.counts[kind] for kind in KINDS]
    found: Row = {"compared": sum(counts), "equal": sum(tally.counts[f"{k} equal"] for k in KINDS)}
    if tally.reasons:
        devices.device().synchronize()  # errors of a broken GPU were noted as those of samples
    reasons = [f"{at}: {reason}" for at, seen in tally.reasons.items() for reason in seen]
    return found | ({"ok": False, "error": "; ".join(reasons)[:300]} if reasons else {})


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    wrong = [f"  {row['name']}: {row['error']}" for row in rows if not row["ok"]]
    compared, equal = (sum(row.get(key, 0) for row in rows) for key in ("compared", "equal"))
    return [*wrong[:SHOWN], f"  {compared} results and gradients compared, {equal} equal"]
