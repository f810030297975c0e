"""Minimum cuts against all divisions of small networks."""

from __future__ import annotations

import itertools
import random

import pytest

from graphtorch.ir.cut import ENDLESS, Cut

Edges = list[tuple[int, int, float]]


def cost(edges: Edges, side: set[int]) -> float:
    return sum(c for a, b, c in edges if a not in side and b in side)


@pytest.mark.parametrize("seed", range(30))
def test_no_division_is_cheaper_or_as_cheap_with_fewer_nodes(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 7)
    edges: Edges = [
        (rng.randrange(count + 2), rng.randrange(count + 2), rng.choice((0, 1, 2, 5, 9)))
        for _ in range(rng.randint(1, 25))
    ]
    cut = Cut()
    nodes = [cut.node() for _ in range(count)]
    for edge in edges:
        cut.edge(*edge)
    side = cut.sink_side()
    others = [
        {1, *chosen} for size in range(count + 1) for chosen in itertools.combinations(nodes, size)
    ]
    best = min(cost(edges, other) for other in others)
    assert cost(edges, side) == best
    assert len(side) == min(len(other) for other in others if cost(edges, other) == best)


def test_endless_edges_are_not_cut() -> None:
    cut = Cut()
    a, b = cut.node(), cut.node()
    cut.edge(cut.source, a, 3)
    cut.edge(a, b, ENDLESS)
    cut.edge(b, cut.sink, 5)
    assert cut.sink_side() == {1, a, b}
