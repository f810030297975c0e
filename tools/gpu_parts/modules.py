"""PyTorch's samples of modules: outputs, gradients and statistics beside PyTorch's on the CPU."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from typing import Any

from .common import Case, Row, guarded
from .tables import Tally, row, table

__all__ = ["cases", "table"]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """A case a class, of one sample in each mode; of all under `--full`."""
    from torch.testing._internal.common_modules import module_db

    for info in module_db:
        replayed = functools.partial(replay, info, None if options.full else 1)
        yield info.name, functools.partial(guarded, replayed)


def replay(info: Any, most: int | None) -> Row:
    import modules
    import torch

    tally = Tally()
    for training in modules.modes(info):
        modules.Replay(info, torch.float32, training, tally, False, most=most).run()
    return row(tally)
