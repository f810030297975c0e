"""Writes at computed positions: scatter, scatter_add, index_put (and with it the gradient of an
embedding).

The result starts as a copy of x. Updates are applied in their row-major order, so that sums and the
last of several writes are the same on any number of threads: tasks share the *result*, by
dimensions that updates and result have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir import ops
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, Shape, broadcast, numel

from ...dataclass import dataclass
from ...kernels.body.evaluate import Evaluator, Mask, bounded, first_indexed
from ...kernels.body.pointwise import maximum, minimum, wide
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.body.views import Index, broadcast_index
from ...kernels.ir import Buffer, Const, Expr, binary, cast, load
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows

Place = Callable[[Index], Index]
Combine = Callable[[Expr, Expr], Expr]

BLOCK = 512  # neighbouring elements of the result that a task takes at least
THREADS = 1 << 17  # that share the result of a scatter on a GPU
SPREAD = 31  # what indices are multiplied by to tell the threads' places apart
MOST_SHARES = 1024  # each of them goes through all updates


def added(old: Expr, update: Expr) -> Expr:
    return binary("or" if old.type.dtype.is_bool else "add", old, update)


COMBINED: dict[str, Combine | None] = {
    "scatter": None,
    "scatter_add": added,
    "scatter_max": maximum,
    "scatter_min": minimum,
    "scatter_mul": lambda old, update: binary("mul", old, update),
}
SCATTERS = (*COMBINED, "index_put")


@dataclass(eq=False)
class Updates:
    """The updates of one op.

    Attributes:
        shape: the sizes updates run through.
        free: those of its axes that are dimensions of the result too.
        inner: whether the last axis is free and no position depends on it.
        combine: what an update makes of what is there; None: it takes its place.
    """

    node: Node
    shape: Shape
    free: tuple[int, ...]
    inner: bool
    combine: Combine | None

    @property
    def x(self) -> Value:
        return self.node.operands[0]

    @property
    def source(self) -> Value:
        return self.node.operands[1 if self.node.op.name == "index_put" else 2]


def scatter_updates(node: Node) -> Updates:
    shape, dim = node.operands[1].shape, node.attrs.dim
    free = tuple(a for a in range(len(shape)) if a != dim)
    return Updates(node, shape, free, False, COMBINED[node.op.name])


def put_updates(node: Node) -> Updates:
    x, _, *positions = node.operands
    dims = node.attrs.dims
    rank = max(p.rank for p in positions)
    first = first_indexed(dims)
    block = broadcast(*(p.shape for p in positions))
    rest = [size for axis, size in enumerate(x.shape) if axis not in dims]
    shape = (*rest[:first], *block, *rest[first:])
    free = tuple(a for a in range(len(shape)) if not first <= a < first + rank)
    return Updates(
        node,
        shape,
        free,
        bool(free) and free[-1] == len(shape) - 1,
        added if node.attrs.accumulate else None,
    )


class ScatterKernel:
    """One kernel that applies `updates` to `out`, which holds x."""

    def __init__(self, places: Places, updates: Updates, out: Slot):
        self.updates = updates
        self.out = out
        self.scope = Scope(places.lowering, updates.node.op.name)
        self.evaluator = Evaluator(self.scope, places.leaves())
        self.lo: Expr = Const(0)
        self.hi: Expr = Const(1)
        self.share: Expr | None = None
        self.shares = self.threads() if places.lowering.machine.tasks_are_threads else 1

    def threads(self) -> int:
        """How many threads share the updates of one free element, each with the places that are its
        own."""
        bound = tuple(d for a, d in enumerate(self.updates.shape) if a not in self.updates.free)
        free = tuple(self.updates.shape[a] for a in self.updates.free)
        return max(
            1, min(MOST_SHARES, cost.elements(bound), THREADS // max(1, cost.elements(free)))
        )

    def emit(self) -> None:
        updates, scope = self.updates, self.scope
        if 0 in updates.shape:  # nothing to apply, and nothing there to read
            return
        buffer = scope.buffer(self.out, "readwrite")
        self.index: Index = tuple(scope.space.variable(extent) for extent in updates.shape)
        bound = [a for a in range(len(updates.shape)) if a not in updates.free]
        with self.tasks():
            if updates.inner:
                with self.serial(bound):
                    place, mask = self.place()
                    with scope.b.when(mask.expr), self.line():
                        self.update(buffer, place(self.index), mask)
            else:
                with self.in_memory_order(bound):
                    place, mask = self.place()
                    with scope.b.when(mask.expr):
                        self.update(buffer, place(self.index), mask)
        moved = cost.traffic([updates.source]) * 2
        scope.launch(updates.node.op.name, numel(updates.shape), moved)

    @contextmanager
    def tasks(self) -> Iterator[None]:
        """Free axes shared between tasks, the last one in blocks. Without any, one task does
        everything."""
        scope, b, updates = self.scope, self.scope.b, self.updates
        outer = [a for a in updates.free[:-1] if updates.shape[a] != 1]
        extent = updates.shape[updates.free[-1]] if updates.free else 1
        others = numel(tuple(d for a, d in enumerate(updates.shape) if a not in updates.free))
        grain = cost.grain([updates.node], 12.0)
        single = scope.lowering.machine.tasks_are_threads
        width = 1 if single else max(BLOCK, grain // max(1, cost.guess(others)))
        blocks = (
            1 if isinstance(extent, int) and extent <= width else (extent + (width - 1)) // width
        )
        rows = numel(tuple(updates.shape[a] for a in outer)) * blocks * self.shares
        length = extent if blocks == 1 else width
        with task_rows(scope, rows, length * others, grain) as rest:
            self.hi = scope.expr(extent)
            if blocks != 1:
                self.lo = b.let((rest % scope.expr(blocks)) * width, "lo")
                self.hi = b.let(upper_bound(self.lo + width, self.hi), "hi")
                rest = b.let(rest // scope.expr(blocks), "rest")
            if self.shares > 1:
                self.share = b.let(rest % self.shares, "share")
                rest = b.let(rest // self.shares, "rest")
            for axis in reversed(outer[1:]):
                size = scope.expr(updates.shape[axis])
                scope.space.bind(self.index[axis], b.let(rest % size, "i"), b.depth)
                rest = b.let(rest // size, "rest")
            for axis in outer[:1]:
                scope.space.bind(self.index[axis], rest, b.depth)
            yield

    @contextmanager
    def in_memory_order(self, bound: list[int]) -> Iterator[None]:
        """The block of the last free axis and the axes that are not free, neighbours innermost."""
        if self.updates.free and bound and self.updates.free[-1] < bound[0]:
            with self.line(), self.serial(bound):
                yield
        else:
            with self.serial(bound), self.line():
                yield

    @contextmanager
    def serial(self, axes: list[int]) -> Iterator[None]:
        if not axes:
            yield
            return
        axis, *rest = axes
        with (
            self.scope.loop(self.updates.shape[axis], variable=self.index[axis]),
            self.serial(rest),
        ):
            yield

    @contextmanager
    def line(self) -> Iterator[None]:
        """The block of the last free axis."""
        if not self.updates.free or isinstance(self.index[self.updates.free[-1]], int):
            yield
            return
        axis = self.updates.free[-1]
        with self.scope.loop(
            self.updates.shape[axis],
            "vector" if self.updates.inner else "serial",
            "j",
            self.lo,
            self.hi,
            variable=self.index[axis],
        ):
            yield

    def place(self) -> tuple[Place, Mask]:
        """Where an update goes, as a function of its index, and whether it goes anywhere."""
        node = self.updates.node
        if node.op.name == "index_put":
            return self._put_place(node)
        dim = node.attrs.dim
        at = self.evaluator.result(node.operands[1], self.index, None)
        variable, mask = bounded(
            self.evaluator, node, at, self.updates.x.shape[dim], dim, None, wraps=False
        )
        mask = self.own([variable], mask)
        return (lambda index: tuple(variable if a == dim else i for a, i in enumerate(index))), mask

    def own(self, found: Sequence[Dim], mask: Mask) -> Mask:
        """The mask narrowed to the places that are this thread's: all updates of a place are one
        thread's."""
        if self.share is None:
            return mask
        number: Dim = 0
        for at in found:
            number = number * SPREAD + at
        depth = max(mask.depth, self.scope.space.depth((number,)))
        with self.scope.b.hoisted(depth):
            hit = binary("eq", self.scope.expr(number) % self.shares, self.share)
        return self.evaluator.both(mask, hit, depth)

    def _put_place(self, node: Node) -> tuple[Place, Mask]:
        x, _, *positions = node.operands
        dims, updates = node.attrs.dims, self.updates
        first = first_indexed(dims)
        block = tuple(i for a, i in enumerate(self.index) if a not in updates.free)
        sizes = tuple(s for a, s in enumerate(updates.shape) if a not in updates.free)
        found: dict[int, Dim] = {}
        mask: Mask | None = None
        for axis, source in zip(dims, positions, strict=True):
            at = self.evaluator.result(source, broadcast_index(block, sizes, source.shape), None)
            found[axis], mask = bounded(
                self.evaluator, node, at, x.shape[axis], axis, mask, wraps=True
            )
        assert mask is not None
        mask = self.own(list(found.values()), mask)

        def place(index: Index) -> Index:
            rest = [*index[:first], *index[first + len(block) :]]
            return tuple(found[a] if a in found else rest.pop(0) for a in range(x.rank))

        return place, mask

    def update(self, buffer: Buffer, where: Index, mask: Mask) -> None:
        b, updates = self.scope.b, self.updates
        position = b.let(self.scope.expr(self.scope.space.linear(where, updates.x.shape)), "place")
        source = updates.source
        index = (
            self.index
            if updates.node.op.name != "index_put"
            else broadcast_index(self.index, updates.shape, source.shape)
        )
        value = cast(self.evaluator.at(source, index), self.out.dtype)
        self.combine(buffer, position, value)

    def combine(self, buffer: Buffer, position: Expr, value: Expr) -> None:
        """Take an update into the result."""
        if self.updates.combine:
            value = self.updates.combine(load(buffer, position), value)
        self.scope.b.store(buffer, position, value)


def apply(places: Places, updates: Updates, out: Slot) -> None:
    """Launch the kernel that applies `updates` to `out`, where x is."""
    ScatterKernel(places, updates, out).emit()


def lower_scatter(places: Places, node: Node) -> None:
    """x copied to the result, then the updates; 16-bit sums are kept in f32 until the end."""
    updates = put_updates(node) if node.op.name == "index_put" else scatter_updates(node)
    dtype = wide(updates.x.dtype) if updates.combine else updates.x.dtype
    result = node.result()
    if dtype is updates.x.dtype:
        out = places.result_slot(result)
        places.fill(updates.x, out)
        places.lowering.schedules.scatter(places, updates, out)
        return
    out = places.lowering.temporary(dtype, updates.x.shape)
    places.fill(ops.cast(updates.x, dtype=dtype), out)
    places.lowering.schedules.scatter(places, updates, out)
    sums = Value(updates.x.type.with_dtype(dtype), name="sums")
    places.slots[sums] = out
    places.fill(ops.cast(sums, dtype=updates.x.dtype), places.result_slot(result))
