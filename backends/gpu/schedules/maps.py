"""Pointwise kernels for targets whose tasks are threads.

A thread computes some neighbours of the innermost loop. Those that lie side by side in memory are
read and written as one vector of up to 16 bytes, the widest access that a GPU has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.shape import numel

from ...cpu import cost
from ...cpu.loops.nest import ACCESS, MANY_NODES, Loop, MapKernel
from ...kernels.body.views import Index
from ...kernels.body.windows import is_looped
from ...kernels.program.program import Slot
from ..machine import gpu_of
from . import transposes as block_tiles
from .transposes import TileScope
from .wide import WideEvaluator, WideScope

ENOUGH = 1 << 15  # elements: fewer are given one to a thread, so that more of the GPU has work
# nanoseconds of an element, by cost.element_ns, from which on memory is not what is waited for
HEAVY = 2.0
LINES = 104  # registers for what a thread has read: those of many more spill


class ThreadMap(MapKernel):
    """Stores `targets`, some elements a thread."""

    def emit(self) -> None:
        loops = self.analyse()
        across = self.tiled(loops)
        if across is not None and cost.elements(self.shape) >= block_tiles.ENOUGH:
            tiles = TileScope(self.lowering, self.region.label, self.tile_lanes(loops, across))
            index = self.begin(tiles, loops)
            with tiles.squares(loops, index, across):
                self.store_all(tiles, WideEvaluator(tiles, self.leaves), index)
            self.finish(tiles)
            return
        lanes, whole = self.lanes(loops)
        if lanes == 1:
            self.emit_lines(loops)
            return
        scope = WideScope(self.lowering, self.region.label, lanes)
        index = self.begin(scope, loops)
        with self.open_groups(scope, loops, index, whole):
            self.store_all(scope, WideEvaluator(scope, self.leaves), index)
        self.finish(scope)

    def lanes(self, loops: list[Loop]) -> tuple[int, bool]:
        """Elements of a thread, and whether they always are as many."""
        nodes = self.region.nodes
        # a window's loop is run by a thread: its neighbours read side by side
        heavy = sum(map(cost.element_ns, nodes)) > HEAVY or any(map(is_looped, nodes))
        if heavy or not loops or cost.elements(self.shape) < ENOUGH:
            return 1, True
        lanes = ACCESS // max((slot.dtype.itemsize for slot in self.along(loops)), default=ACCESS)
        while lanes > 1 and lanes * self.words() > LINES:
            lanes //= 2
        extent, own = loops[-1].extent, lanes
        while own > 1 and extent % own != 0:
            own //= 2
        if own == lanes or len(loops) > 1 or self.updates():
            return own, True
        return lanes, False

    def tile_lanes(self, loops: list[Loop], across: int) -> int:
        """Neighbours that make 4 bytes in each direction of a tile, where all edges are whole
        numbers of them, and there are tiles enough."""
        lanes = 4 // min(4, max(slot.dtype.itemsize for slot in self.slots))
        edges = loops[across].extent, loops[-1].extent
        whole = all(isinstance(edge, int) and edge % lanes == 0 for edge in edges)
        tiles = cost.elements(self.shape) // block_tiles.edge(lanes) ** 2
        return lanes if whole and tiles >= gpu_of(self.lowering).multiprocessors else 1

    def words(self) -> int:
        """4 bytes of registers that all reads of an element take."""
        return sum(-(-slot.dtype.itemsize // 4) for slot, _ in set(self.traced))

    def along(self, loops: list[Loop]) -> Iterator[Slot]:
        """The slots whose elements lie side by side along the innermost loop."""
        pairs = zip(self.slots, self.strides, strict=True)
        return (slot for slot, strides in pairs if strides[-1] == 1)

    def updates(self) -> bool:
        """Whether a result may take over the memory of an input: that asks for one store of each
        element."""
        outputs = self.lowering.outputs
        taken = {outputs[output] for output, _ in self.lowering.graph.donates}
        return any(target.slot in taken for target in self.targets)

    @contextmanager
    def open_groups(
        self, scope: WideScope, loops: list[Loop], index: Index, whole: bool
    ) -> Iterator[None]:
        """A loop over groups of neighbours, and one over the elements of a group."""
        b, space = scope.b, scope.space
        *outer, last = loops
        groups = (last.extent + (scope.lanes - 1)) // scope.lanes
        count = numel(tuple(loop.extent for loop in outer)) * groups
        shared = len(self.region.nodes) >= MANY_NODES and isinstance(count, int) and not outer
        n = scope.count(int(count)) if shared else scope.expr(count)
        with b.loop(n, "parallel", "group") as rest:
            places = []
            for extent in reversed([*(x.extent for x in outer[1:]), groups] if outer else []):
                places.append(b.let(rest % scope.expr(extent), "i"))
                rest = b.let(rest // scope.expr(extent), "rest")
            group, *others = [*places, rest]
            for loop, at in zip(outer, reversed(others), strict=True):
                space.bind(index[loop.axis], at, b.depth)
            limit = None if whole else scope.expr(last.extent)
            scope.begin(index[last.axis], b.let(group * scope.lanes, "base"), limit)
            with b.loop(scope.lanes, "unroll", "u") as lane, scope.element(lane):
                yield
            scope.flush()
