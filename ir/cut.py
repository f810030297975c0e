"""Minimum cuts: the cheapest way to divide things that cost where two neighbours are on different
sides.

By shortest augmenting paths, level by level (E. A. Dinic, "Algorithm for solution of a problem of
maximum flow in networks with power estimation", 1970). A graph library would do as well, but takes
longer to import than most programs take to compile.
"""

from __future__ import annotations

from collections import deque

ENDLESS = float("inf")


class Cut:
    """A network between `source` and `sink`, to be cut where its edges are cheapest."""

    source, sink = 0, 1

    def __init__(self) -> None:
        self._ends: list[int] = []  # of an edge; number ^ 1 is the edge back
        self._room: list[float] = []
        self._edges: list[list[int]] = [[], []]

    def node(self) -> int:
        """A new node."""
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, start: int, end: int, cost: float) -> None:
        """What it costs to have `start` on the source's side and `end` on the sink's."""
        for at, to, room in ((start, end, cost), (end, start, 0.0)):
            self._edges[at].append(len(self._ends))
            self._ends.append(to)
            self._room.append(room)

    def sink_side(self) -> set[int]:
        """The nodes on the sink's side of a cheapest cut: the smallest such set."""
        while (levels := self._levels(self.source, 0))[self.sink] >= 0:
            self._fill(levels)
        return {i for i, level in enumerate(self._levels(self.sink, 1)) if level >= 0}

    def _levels(self, start: int, back: int) -> list[int]:
        """Distances from `start` over edges with room (`back`: to it), -1 where there is no way."""
        levels = [-1] * len(self._edges)
        levels[start] = 0
        waiting = deque([start])
        while waiting:
            at = waiting.popleft()
            for edge in self._edges[at]:
                to = self._ends[edge]
                if levels[to] < 0 and self._room[edge ^ back] > 0:
                    levels[to] = levels[at] + 1
                    waiting.append(to)
        return levels

    def _fill(self, levels: list[int]) -> None:
        """Fill shortest paths until none is left."""
        following = [0] * len(self._edges)  # of each node the edge to look at next
        path: list[int] = []
        at = self.source
        while True:
            if at == self.sink:
                self._augment(path)
                path, at = [], self.source
            edge = self._next(at, levels, following)
            if edge is not None:
                path.append(edge)
                at = self._ends[edge]
            elif path:
                at = self._ends[path.pop() ^ 1]
                following[at] += 1
            else:
                return

    def _next(self, at: int, levels: list[int], following: list[int]) -> int | None:
        edges = self._edges[at]
        while following[at] < len(edges):
            edge = edges[following[at]]
            if self._room[edge] > 0 and levels[self._ends[edge]] == levels[at] + 1:
                return edge
            following[at] += 1
        return None

    def _augment(self, path: list[int]) -> None:
        room = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= room
            self._room[edge ^ 1] += room
