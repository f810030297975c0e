"""Pointwise loop nests: one kernel for all results of a region that have the same iteration space.

A result is stored where its last reshapes and permutes put it, and a concatenation piece by piece,
so what iterates is the value under them. A dry run of the body finds every position read and
written as a polynomial; loops that all of them walk through without a gap are merged, so the
innermost loop is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir.graph import Value
from graphtorch.ir.op import Kind
from graphtorch.ir.shape import Dim, Shape, numel

from ...dataclass import dataclass
from ...kernels.body.evaluate import Evaluator, Leaf
from ...kernels.body.scope import Scope, ceildiv, clamp_min, upper_bound
from ...kernels.body.space import coefficient, depends, name_of
from ...kernels.body.views import Index, result_index
from ...kernels.ir import Const, Expr, load
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .. import cost

# from so many on, kernels of different sizes are worth being one: updates of weights
MANY_NODES = 8
ACCESS = 16  # bytes of a GPU's widest access
PEELED = ("reshape", "permute")  # views whose elements can be stored where the result has them
TILE = 32  # edge of the square tiles in which a transpose walks through memory


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
    place = row_major(value)
    for target in _peel(value, slot, place):
        target.plain = target.place is place
        yield target


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
        scope = Scope(self.lowering, self.region.label)
        for target in self.targets:
            scope.buffer(target.slot, "write")
        index = tuple(scope.space.variable(extent) for extent in self.shape)
        nest = Nest(
            scope,
            [(loop.extent, index[loop.axis]) for loop in loops],
            self.grain(),
            self.tiled(loops),
            len(self.region.nodes) >= MANY_NODES,
        )
        for axis, variable in enumerate(index):
            if axis not in {loop.axis for loop in loops}:
                scope.space.bind(variable, Const(0))
        with nest.open():
            self.body(scope, index)
        self.finish(scope)

    def body(self, scope: Scope, index: Index) -> None:
        evaluator = Evaluator(scope, self.leaves)
        for target in self.targets:
            value = evaluator.at(target.value, index)
            scope.b.store(
                scope.buffer(target.slot, "write"), scope.expr(target.place(scope, index)), value
            )

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
        self.traced = scope.trace
        positions = [p for _, p in scope.trace] + places
        loops = merge(
            [Loop(axis, extent, [axis]) for axis, extent in enumerate(self.shape) if extent != 1],
            index,
            positions,
            scope.conditions,
        )
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


class Nest:
    """Opens the loops of a kernel: tasks outside, a long vectorisable loop inside.

    A task has at least `grain` elements, so small kernels have one task and run without a fork.
    With `shared` the number of elements of a single loop is a parameter.
    """

    def __init__(
        self,
        scope: Scope,
        loops: list[tuple[Dim, Dim]],
        grain: int,
        tile: int | None = None,
        shared: bool = False,
    ):
        self.shared = shared
        self.scope = scope
        self.loops = loops
        self.grain = grain
        self.tile = tile

    @contextmanager
    def open(self) -> Iterator[None]:
        if not self.loops:
            yield
        elif len(self.loops) == 1:
            with self.line():
                yield
        else:
            with self.rows():
                yield

    @contextmanager
    def line(self) -> Iterator[None]:
        """One loop, cut into chunks of `grain`."""
        ((extent, variable),) = self.loops
        if self.grain == 1:
            with self.scope.loop(extent, "parallel", variable=variable):
                yield
            return
        shared = self.shared and isinstance(extent, int) and extent > 1
        n, b = self.scope.count(int(extent)) if shared else self.scope.expr(extent), self.scope.b
        if isinstance(extent, int) and extent <= self.grain:
            with self.scope.loop(extent, "vector", hi=n, variable=variable):
                yield
            return
        with b.loop(ceildiv(n, self.grain), "parallel", "task") as task:
            lo = b.let(task * self.grain, "lo")
            hi = b.let(upper_bound(lo + self.grain, n), "hi")
            with self.scope.loop(extent, "vector", lo=lo, hi=hi, variable=variable):
                yield

    @contextmanager
    def rows(self) -> Iterator[None]:
        """Outer loops flattened into rows that tasks share, inner loops nested."""
        flat = self.flattened()
        rows = numel(tuple(extent for extent, _ in self.loops[:flat]))
        work = numel(tuple(extent for extent, _ in self.loops[flat:]))
        with task_rows(self.scope, rows, work, self.grain) as row:
            self.bind_rows(row, flat)
            with self.inner(flat):
                yield

    def flattened(self) -> int:
        """How many outer loops become rows: enough that a row is not much more than a task."""
        if self.grain == 1:
            return len(self.loops)
        if self.tile is not None:
            return self.tile
        for count in range(1, len(self.loops)):
            if cost.elements(tuple(extent for extent, _ in self.loops[count:])) <= self.grain:
                return count
        return len(self.loops) - 1

    def bind_rows(self, row: Expr, flat: int) -> None:
        b, space = self.scope.b, self.scope.space
        rest = row
        for extent, variable in reversed(self.loops[1:flat]):
            size = self.scope.expr(extent)
            space.bind(variable, b.let(rest % size, "i"), b.depth)
            rest = b.let(rest // size, "row")
        if flat:
            space.bind(self.loops[0][1], rest, b.depth)

    @contextmanager
    def inner(self, flat: int) -> Iterator[None]:
        if self.tile is not None and flat < len(self.loops):
            with self.tiles(flat):
                yield
            return
        with self.scope.nested(self.loops[flat:], "vector"):
            yield

    @contextmanager
    def tiles(self, flat: int) -> Iterator[None]:
        """Square tiles over the outermost and the innermost of the loops left, the others between
        them."""
        scope, b = self.scope, self.scope.b
        (rows, i), *middle, (columns, j) = self.loops[flat:]
        kind = (
            "parallel"
            if b.depth == 0 and cost.elements(tuple(e for e, _ in self.loops)) > self.grain
            else "serial"
        )
        with (
            b.loop(scope.expr(rows), kind, "ti", 0, TILE) as ti,
            scope.nested(middle),
            b.loop(scope.expr(columns), "serial", "tj", 0, TILE) as tj,
        ):
            top = b.let(upper_bound(ti + TILE, scope.expr(rows)), "hi")
            right = b.let(upper_bound(tj + TILE, scope.expr(columns)), "hj")
            with (
                scope.loop(rows, "serial", "i", ti, top, variable=i),
                scope.loop(columns, "vector", "j", tj, right, variable=j),
            ):
                yield


@contextmanager
def task_rows(scope: Scope, rows: Dim, work: Dim, grain: int) -> Iterator[Expr]:
    """A loop over `rows` of `work` elements each, shared between tasks of at least `grain`
    elements; where tasks cost nothing each row is one."""
    b = scope.b
    if rows == 1:
        yield Const(0)
        return
    if not scope.lowering.task_ns:
        with b.loop(scope.expr(rows), "parallel", "row") as row:
            yield row
        return
    if isinstance(rows, int) and isinstance(work, int) and rows * work <= grain:
        with b.loop(rows, "serial", "row") as row:
            yield row
        return
    count = b.let(clamp_min(Const(grain) // clamp_min(scope.expr(work), 1), 1), "rows")
    n = scope.expr(rows)
    with b.loop((n + count - 1) // count, "parallel", "task") as task:
        lo = b.let(task * count, "lo")
        with b.loop(b.let(upper_bound(lo + count, n), "hi"), "serial", "row", lo) as row:
            yield row
