"""Ops that read and write whole values: each has a lowering of its own, found here by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphtorch.ir.graph import Node

from .pooling import by_rows, lower_pool
from .scan import SCANS, lower_scan
from .scatter import lower_scatter
from .sort import lower_sort

if TYPE_CHECKING:  # stages.py runs what is listed here
    from .stages import Stages

Lower = Callable[["Stages", Node], None]
OPAQUE: dict[str, Lower] = {
    **dict.fromkeys(SCANS, lower_scan),
    **dict.fromkeys(("scatter", "scatter_add", "index_put"), lower_scatter),
    "sort": lower_sort,
    **dict.fromkeys(("max_pool", "avg_pool"), lower_pool),
}


def is_opaque(node: Node) -> bool:
    """Whether a node is lowered by what OPAQUE lists; small pools are computed where they are used."""
    return node.op.name in OPAQUE and (node.op.name not in ("max_pool", "avg_pool") or by_rows(node))
