"""Programs written for ``device="cuda"``, trained some steps by graphtorch and by PyTorch on the
same GPU."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import graphtorch

from .common import Case, Row, guarded, torch_device
from .programs import SMALL, Program, Training

STEPS = 5
TOLERANCE = 1e-4  # of losses, relative


def cases(options: argparse.Namespace) -> Iterator[Case]:
    for name, program in SMALL.items():
        yield f"train {name}", functools.partial(guarded, functools.partial(train, program, False))
        yield (
            f"train {name} compiled",
            functools.partial(guarded, functools.partial(train, program, True)),
        )


@contextmanager
def exact(library: Any) -> Iterator[None]:
    """Nothing is rounded to TF32."""
    switches = library.backends.cuda.matmul, library.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


def train(program: Program, compiled: bool) -> Row:
    """The losses of both; wrong where they differ."""
    import torch

    with exact(torch), exact(graphtorch):
        theirs = Training(torch, program, torch_device()).losses(STEPS)
        mine = Training(graphtorch, program, "cuda")
        if compiled:
            mine.model = graphtorch.compile(mine.model)
        found = mine.losses(STEPS)
    worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, theirs, strict=True))
    placed = {str(p.device) for p in mine.model.parameters()}
    row: Row = {"worst": worst, "losses": found, "torch": theirs}
    if not worst <= TOLERANCE or not np.isfinite(found).all():
        row |= {"ok": False, "error": f"losses {found} instead of {theirs}"}
    if placed != {"cuda:0"}:
        row |= {"ok": False, "error": f"parameters are on {sorted(placed)} after training"}
    return row


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"  {row['name']}: " + (f"losses within {row['worst']:.1e}" if row["ok"] else row["error"])
        for row in rows
    ]
