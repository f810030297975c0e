"""Results that are larger than the last cache are written past the caches.

An ordinary store reads the line that it changes, which is a third of what a copy moves, and pushes
out of the caches what somebody may still need. What a loop stores in order goes through a few lines
of scratch memory instead, which are copied on as wholes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from graphtorch.ir.shape import Dim

from ...kernels.body.scope import Scope, upper_bound
from ...kernels.body.space import coefficient, depends, name_of
from ...kernels.ir import Buffer, Const, Expr
from ...kernels.program.lowering import Lowering
from ...kernels.program.program import Slot
from .. import cost

# bytes, of the widest elements, that are copied on at a time: what buffers of a core take
CHUNK = 512
LEAST = 256  # bytes side by side for which that pays


def past_caches(lowering: Lowering, slots: Iterable[Slot]) -> frozenset[Slot]:
    """Those of `slots` whose elements should not go through the caches: nobody finds them there
    later, and they do not take over memory that is in the caches because it was read."""
    machine = lowering.machine
    if machine.tasks_are_threads:
        return frozenset()
    donated = {lowering.outputs[output] for output, _ in lowering.graph.donates}
    return frozenset(
        slot
        for slot in slots
        if cost.guess(slot.elements) * slot.dtype.itemsize >= machine.caches[-1]
        and donated.isdisjoint(slot.roots())
    )


class StreamScope(Scope):
    """A scope whose vector loops are cut into chunks while it is `streaming`: what they store in
    order to the large ones of `slots` is written past the caches."""

    def __init__(self, lowering: Lowering, hint: str, slots: Iterable[Slot]):
        super().__init__(lowering, hint)
        self.large = past_caches(lowering, slots)
        self.widest = max((slot.dtype.itemsize for slot in self.large), default=0)
        self.streaming = False
        self._along: Dim | None = None
        self._start: Expr = Const(0)  # of the chunk
        self._room = 0  # elements of it
        self._outside = 0  # depth of the block in which its loop is
        self._lines: list[tuple[Slot, Dim, Buffer]] = []

    @contextmanager
    def loop(
        self,
        extent: Dim,
        kind: str = "serial",
        name: str = "i",
        lo: Expr | int = 0,
        hi: Expr | None = None,
        step: int = 1,
        variable: Dim | None = None,
    ) -> Iterator[Dim]:
        """As `Scope.loop`."""
        if not (kind == "vector" and self.streaming and self.pays(extent)):
            with super().loop(extent, kind, name, lo, hi, step, variable) as along:
                yield along
            return
        variable = self.space.variable(extent) if variable is None else variable
        top, room = self.expr(extent) if hi is None else hi, CHUNK // self.widest
        with self.b.loop(top, "serial", "at", lo, room) as at:
            end = self.b.let(upper_bound(at + room, top), "end")
            with (
                self.chunk(variable, at, end - at, room),
                super().loop(extent, kind, name, at, end, step, variable) as along,
            ):
                yield along

    def pays(self, extent: Dim) -> bool:
        """Whether as many elements side by side are worth copying on."""
        return cost.guess(extent) * self.widest >= LEAST

    @contextmanager
    def past_caches(self) -> Iterator[None]:
        """Loops opened inside are `streaming`."""
        self.streaming = True
        yield
        self.streaming = False

    @contextmanager
    def chunk(self, along: Dim, start: Expr, count: Expr, room: int) -> Iterator[None]:
        """What is stored in order while `along` takes `count` steps from `start` on, at most
        `room`, is copied on behind that loop."""
        self._along, self._start, self._room, self._outside = along, start, room, self.b.depth
        yield
        for slot, position, line in self._lines:
            first = self.space.where(position, {name_of(along): start})
            self.b.stream(self.buffer(slot, "write"), first, count, line)
        self._along, self._lines = None, []

    def put(self, slot: Slot, position: Dim, value: Expr) -> None:
        if self._along is None or not self._in_order(slot, position, name_of(self._along)):
            super().put(slot, position, value)
            return
        with self.b.hoisted(self._outside):
            line = self.b.scratch(slot.dtype, self._room, "line")
        self._lines.append((slot, position, line))
        self.b.store(line, self.expr(self._along) - self._start, value)

    def _in_order(self, slot: Slot, position: Dim, along: str) -> bool:
        """Whether the chunk's loop stores neighbours one after another."""
        inner = {s for s, depth in self.space.depths.items() if depth > self._outside}
        return (
            slot in self.large
            and coefficient(position, along) == 1
            and not any(depends(position, s) for s in inner - {along})
        )
