"""Ops that read and write whole values: each has a lowering of its own, found here by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphtorch.ir.graph import Node

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
}
