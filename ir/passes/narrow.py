"""Products of few digits in the numbers that the target multiplies (`ops.narrow.low_product`)."""

from __future__ import annotations

from .. import ops
from ..graph import Graph
from ..ops.narrow import low_product
from ..rewrite import rewrite
from .limits import Limits


def run(graph: Graph, limits: Limits) -> Graph:
    """`graph` with each `low_linear` as a product of the target's `integers`, or of bf16."""
    return rewrite(
        graph, lambda n: low_product(n, limits.integers, limits.floats), (ops.low_linear,)
    )
