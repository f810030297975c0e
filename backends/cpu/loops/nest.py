"""Pointwise loop nests: one kernel for all results of a region that have the same iteration space.

A result is stored where its last reshapes and permutes put it, and a concatenation piece by piece,
so what iterates is the value under them. A dry run of the body finds every position read and
written as a polynomial; loops that all of them walk through without a gap are merged, so the
innermost loop is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphtorch.ir.graph import Value
from graphtorch.ir.op import Kind
from graphtorch.ir.shape import Dim, Shape, numel

from ...dataclass import dataclass
from ...kernels.body.evaluate import Evaluator, Leaf
from ...kernels.body.scope import Scope
from ...kernels.body.space import coefficient, depends, name_of
from ...kernels.body.views import Index, result_index
from ...kernels.ir import Const, load
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .. import cost
from .streams import StreamScope
from .tasks import Nest
from .transposes import TileScope, edge_for

# from so many on, kernels of different sizes are worth being one: updates of weights
MANY_NODES = 8
ACCESS = 16  # bytes of a GPU's widest access
PEELED = ("reshape", "permute")  # views whose elements can be stored where the result has them


@dataclass(eq=False)
class Target:
    """A value of the body to compute everywhere and where its elements go.

    `plain`: it fills the slot in row-major order.
    """

    value: Value
    slot: Slot
    place: Callable[[Scope, Index], Dim]
    plain: bool = False

    @property
    def shape(self) -> Shape:
        return self.value.shape


def targets_of(value: Value, slot: Slot) -> Iterator[Target]:
    """The stores that fill `slot` with `value`: what iterates lies under its last views."""
    value = _before_reshapes(value)
    place = row_major(value)
    for target in _peel(value, slot, place):
        target.plain = target.place is place
        yield target


def _before_reshapes(value: Value) -> Value:
    """What `value` is only another shape of: it fills memory in the same order."""
    node = value.node
    if node is not None and node.op.name == "reshape" and _worth_peeling(node.operands[0]):
        return _before_reshapes(node.operands[0])
    return value


def row_major(value: Value) -> Callable[[Scope, Index], Dim]:
    """The places of a value's elements in memory of its own."""
    return lambda scope, index: scope.space.linear(index, value.shape)


def _peel(value: Value, slot: Slot, place: Callable[[Scope, Index], Dim]) -> Iterator[Target]:
    node = value.node
    if node is not None and node.op.name in PEELED and _worth_peeling(node.operands[0]):
        yield from _peel(
            node.operands[0], slot, lambda s, i: place(s, result_index(s.space, node, i))
        )
    elif node is not None and node.op.name == "concat":
        start: Dim = 0
        for x in node.operands:
            yield from _peel(x, slot, _shifted(place, node.attrs.dim, start))
            start = start + x.shape[node.attrs.dim]
    else:
        yield Target(value, slot, place)


def _worth_peeling(value: Value) -> bool:
    """A view of memory is read through the view instead: stores in order are better than loads in
    order."""
    node = value.node
    if node is None or not node.operands:
        return False
    return node.op.kind is not Kind.VIEW or node.op.name in PEELED


def _shifted(
    place: Callable[[Scope, Index], Dim], dim: int, start: Dim
) -> Callable[[Scope, Index], Dim]:
    return lambda s, i: place(s, tuple(x + start if d == dim else x for d, x in enumerate(i)))


def lower_map(
    region: Region, lowering: Lowering, targets: Sequence[Target], leaves: dict[Value, Leaf]
) -> None:
    """Compute `targets` element by element, one kernel for each iteration space.

    Raises:
        Unready: one of them depends on a value that is not elementwise and not among `leaves`.
    """
    groups: dict[Shape, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.shape, []).append(target)
    for shape, group in groups.items():
        if 0 not in shape:
            lowering.schedules.map(region, lowering, leaves, shape, group).emit()


def lower_copy(source: Slot, to: Slot, lowering: Lowering) -> None:
    """`to` becomes a copy of `source`."""
    scope = Scope(lowering, "copy")
    out = scope.buffer(to, "write")
    count = numel(source.shape)
    if lowering.machine.tasks_are_threads:
        lanes = ACCESS // source.dtype.itemsize
        while count % lanes != 0:
            lanes //= 2
        with scope.b.loop(scope.expr(count // lanes), "parallel") as group:
            at = scope.b.let(group * lanes, "at")
            scope.b.store(out, at, load(scope.buffer(source), at, lanes))
    else:
        with scope.loop(count, "vector") as i:
            scope.b.store(out, scope.expr(i), scope.read(source, i))
    scope.launch("copy", 0, count * source.dtype.itemsize * 2)


class MapKernel:
    """One kernel that stores `targets`, all of which iterate over `shape`."""

    def __init__(
        self,
        region: Region,
        lowering: Lowering,
        leaves: dict[Value, Leaf],
        shape: Shape,
        targets: list[Target],
    ):
        self.region = region
        self.lowering = lowering
        self.leaves = leaves
        self.shape = shape
        self.targets = targets

    def emit(self) -> None:
        loops = self.analyse()
        across = self.tiled(loops)
        if across is None:
            self.emit_lines(loops)
        else:
            self.emit_squares(loops, across)

    def emit_lines(self, loops: list[Loop]) -> None:
        """All elements in the order of the loops."""
        scope = StreamScope(self.lowering, self.region.label, self.stored())
        index = self.begin(scope, loops)
        many = len(self.region.nodes) >= MANY_NODES
        nest = Nest(scope, variables(loops, index), self.grain(), many)
        with scope.past_caches(), nest.open():
            self.store_all(scope, Evaluator(scope, self.leaves), index)
        self.finish(scope)

    def emit_squares(self, loops: list[Loop], across: int) -> None:
        """Squares of the innermost loop and of the one numbered `across`."""
        edge = edge_for(self.lowering.machine, self.tiled_bytes(across))
        scope = TileScope(self.lowering, self.region.label, edge, self.stored())
        index = self.begin(scope, loops)
        with scope.squares(variables(loops, index), across, self.grain()):
            self.store_all(scope, Evaluator(scope, self.leaves), index)
        self.finish(scope)

    def begin(self, scope: Scope, loops: list[Loop]) -> Index:
        """The kernel's variables; those of axes without a loop are 0."""
        for target in self.targets:
            scope.buffer(target.slot, "write")
        index = tuple(scope.space.variable(extent) for extent in self.shape)
        for axis, variable in enumerate(index):
            if axis not in {loop.axis for loop in loops}:
                scope.space.bind(variable, Const(0))
        return index

    def store_all(self, scope: Scope, evaluator: Evaluator, index: Index) -> None:
        for target in self.targets:
            value = evaluator.at(target.value, index)
            scope.put(target.slot, target.place(scope, index), value)

    def stored(self) -> list[Slot]:
        return [target.slot for target in self.targets]

    def analyse(self) -> list[Loop]:
        """The loops that are left after merging, found by a dry run."""
        scope = Scope(self.lowering, "dry")
        index = tuple(scope.space.variable(extent) for extent in self.shape)
        for axis, variable in enumerate(index):
            with scope.b.loop(scope.expr(self.shape[axis])) as i:
                scope.space.bind(variable, i, 0)
        evaluator = Evaluator(scope, self.leaves)
        places = [target.place(scope, index) for target in self.targets]
        for target in self.targets:
            evaluator.at(target.value, index)
        positions = [p for _, p in scope.trace] + places
        loops = merge(
            [Loop(axis, extent, [axis]) for axis, extent in enumerate(self.shape) if extent != 1],
            index,
            positions,
            scope.conditions,
        )
        self.traced = scope.trace
        self.slots = [*(slot for slot, _ in scope.trace), *(t.slot for t in self.targets)]
        self.strides = [
            [coefficient(p, name_of(index[loop.axis])) for loop in loops] for p in positions
        ]
        last = name_of(index[loops[-1].axis]) if loops else ""
        read = sum(slot.dtype.itemsize for slot, p in scope.trace if depends(p, last))
        self.bytes_per_element = read + sum(target.slot.dtype.itemsize for target in self.targets)
        return loops

    def tiled(self, loops: list[Loop]) -> int | None:
        """The loop to tile against the innermost one: a transpose reads along it."""
        if len(loops) < 2 or cost.guess(loops[-1].extent) < 8:
            return None
        along = [row for row in self.strides if row[-1] not in (0, 1)]
        for axis in range(len(loops) - 2, -1, -1):
            if any(row[axis] == 1 for row in along) and cost.guess(loops[axis].extent) >= 8:
                return axis
        return None

    def tiled_bytes(self, across: int) -> int:
        """Bytes of an element in all that lies along the loop number `across`."""
        pairs = zip(self.slots, self.strides, strict=True)
        return sum(slot.dtype.itemsize for slot, strides in pairs if strides[across] == 1)

    def grain(self) -> int:
        return cost.grain(self.region.nodes, self.bytes_per_element, self.lowering.task_ns)

    def finish(self, scope: Scope) -> None:
        moved = cost.traffic([*self.region.operands, *self.region.results])
        scope.launch(self.region.label, cost.flops(self.region.nodes), moved)


@dataclass(eq=False)
class Loop:
    """A loop over the iteration axes `merged`, whose innermost one is `axis`."""

    axis: int
    extent: Dim
    merged: list[int]


def variables(loops: Sequence[Loop], index: Index) -> list[tuple[Dim, Dim]]:
    """The extent and the variable of each loop."""
    return [(loop.extent, index[loop.axis]) for loop in loops]


def merge(
    loops: list[Loop], index: Index, positions: Sequence[Dim], conditions: Sequence[Dim]
) -> list[Loop]:
    """Merge neighbours that every position walks through without a gap."""
    result: list[Loop] = []
    for loop in loops:
        if result and _mergeable(result[-1], loop, index, positions, conditions):
            outer = result.pop()
            loop = Loop(loop.axis, outer.extent * loop.extent, [*outer.merged, *loop.merged])
        result.append(loop)
    return result


def _mergeable(
    outer: Loop, inner: Loop, index: Index, positions: Sequence[Dim], conditions: Sequence[Dim]
) -> bool:
    a, b = name_of(index[outer.axis]), name_of(index[inner.axis])
    if any(depends(c, a) or depends(c, b) for c in conditions):
        return False
    for position in positions:
        stride, step = coefficient(position, a), coefficient(position, b)
        if stride is None or step is None or stride != step * inner.extent:
            return False
    return True
