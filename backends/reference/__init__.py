"""The reference backend: a graph run op by op by each op's NumPy reference.

It is the oracle for the backends that generate code, and it runs every graph at every stage of the
pipeline, fused ones included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph

__all__ = ["run"]


def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs, row-major contiguous, for one array for each input.

    Args:
        arrays: of the inputs' dtypes; symbolic sizes are read off their shapes.

    Raises:
        TypeError: wrong number or dtype of arrays.
        RuntimeError: a shape that the graph does not take.
        IndexError: a data-dependent index out of range.
    """
    return evaluate(graph, arrays)
