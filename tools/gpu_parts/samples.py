"""PyTorch's samples of operators: results and gradients beside PyTorch's on the CPU."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from typing import Any

from .common import Case, Row, guarded
from .tables import Tally, row, table

__all__ = ["cases", "table"]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """A case an entry of PyTorch's table, of one small sample; of more under `--full`."""
    import opinfo
    import torch

    opinfo.Some.most = 8 if options.full else 1
    for op in opinfo.entries(None, None):
        if torch.float32 in op.supported_dtypes("cpu"):
            yield op.full_name, functools.partial(guarded, functools.partial(replay, op))


def replay(op: Any) -> Row:
    import opinfo
    import torch

    tally = Tally()
    opinfo.Some(op, torch.float32, tally, False).run()
    return row(tally)
