"""PyTorch's configurations of optimizers: parameters after steps beside PyTorch's on the CPU."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator

from .common import Case, Row, guarded
from .tables import row, table

__all__ = ["cases", "table"]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """A case an optimizer."""
    import optims

    for name in optims.INFOS:
        yield name, functools.partial(guarded, functools.partial(replay, name))


def replay(name: str) -> Row:
    import optims

    return row(optims.replay(name, "cuda"))
