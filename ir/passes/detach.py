"""Removes `detach`: after differentiation it is the identity, and no target knows it."""

from __future__ import annotations

from .. import ops
from ..graph import Graph
from ..rewrite import rewrite


def run(graph: Graph) -> Graph:
    """`graph` without `detach`. Its gradient is another: run this after autodiff only."""
    return rewrite(graph, lambda node: node.operands[0], (ops.detach,))
