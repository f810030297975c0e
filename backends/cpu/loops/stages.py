"""The kernels of a region, in order: reductions and opaque ops first, then what depends on them.

What a kernel cannot compute at the index where it is needed is stored: a reduction read for another
row, an operand of a sort. Everything else is computed where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Type, Value
from graphtorch.ir.shape import Dim, Shape, bounds, numel

from ...kernels.body.evaluate import Evaluator, Mask, Result, Unready
from ...kernels.body.expand import REDUCTIONS, expanded
from ...kernels.body.scope import Scope
from ...kernels.body.space import coefficient, name_of
from ...kernels.body.views import Index
from ...kernels.ir import KType, Name
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .. import cost
from ..whole.table import OPAQUE, is_opaque
from .nest import Loop, Target, merge, targets_of
from .places import Places, reshaped
from .reductions import (
    MANY_TASKS,
    Group,
    Layout,
    Output,
    RowKernel,
    accumulator,
    dims_of,
    kept_index,
    row_index,
)


def lower_loops(
    region: Region, lowering: Lowering, stages: Callable[..., Stages] | None = None
) -> None:
    """Kernels for a loop, window or opaque region. Args: stages: what orders them."""
    body = expanded(region.body, frozenset(OPAQUE) | lowering.schedules.whole.keys())
    region = Region(region.kind, body, region.operands, region.results, region.node)
    slots = dict(zip(body.inputs, map(lowering.slot, region.operands), strict=True))
    targets: list[Target] = []
    for value, result in zip(body.outputs, region.results, strict=True):
        source = reshaped(value)
        if source in slots and not lowering.has_slot(result):
            lowering.assign(result, slots[source])  # the same bytes under another shape
        else:
            targets += targets_of(value, lowering.slot(result))
            # another store costs less there than another launch
            if lowering.machine.tasks_are_threads:
                for twin in lowering.twins(result):
                    lowering.stored.add(twin)
                    targets += targets_of(value, twin)
    (stages or Stages)(region, lowering, slots, targets).run()


class Stages(Places):
    """The order of the kernels of one region."""

    def __init__(
        self, region: Region, lowering: Lowering, slots: dict[Value, Slot], targets: list[Target]
    ):
        super().__init__(region, lowering, slots, targets)
        self._upstream: dict[Value, frozenset[Node]] = {}
        self._order = {n: i for i, n in enumerate(region.nodes)}
        self.combines = False  # partial results, which are few

    def run(self) -> None:
        while True:
            pending = self.pending()
            if not pending:
                break
            if pending[0].op.name in REDUCTIONS:
                self.reduce(pending[0], pending)
            else:
                name, own = pending[0].op.name, self.lowering.schedules.whole
                (own[name] if name in own else OPAQUE[name])(self, pending[0])
        self.map(self.targets)

    # Dependencies ---------------------------------------------------------------------------------

    def upstream(self, value: Value) -> frozenset[Node]:
        """The barriers that `value` needs and that are not in memory."""
        if value in self.slots or value.node is None:
            return frozenset()
        found = self._upstream.get(value)
        if found is None:
            node = value.node
            found = frozenset().union(*map(self.upstream, node.operands))
            if self.is_barrier(node):
                found |= {node}
            self._upstream[value] = found
        return found

    def is_barrier(self, node: Node) -> bool:
        """Whether a node needs a kernel of its own before what reads it is computed."""
        name, schedules = node.op.name, self.lowering.schedules
        return name in REDUCTIONS or (
            name not in schedules.elementwise and (name in schedules.whole or is_opaque(node))
        )

    def pending(self) -> list[Node]:
        """Barriers still needed, producers first."""
        self._upstream.clear()
        needed = (
            frozenset().union(*(self.upstream(t.value) for t in self.targets))
            if self.targets
            else frozenset()
        )
        return sorted(needed, key=self._order.__getitem__)

    # Reductions -----------------------------------------------------------------------------------

    def reduce(self, first: Node, pending: Sequence[Node]) -> None:
        """One kernel (or two, where rows are cut) for `first` and what goes with it."""
        group, probe = self.probe_group(first, pending)
        outputs = self.fitting(group, probe)
        self.lowering.schedules.reduce(self, group, outputs, choose_layout(group, probe))

    def probe_group(self, first: Node, pending: Sequence[Node]) -> tuple[Group, Probe]:
        """The reductions that can share a kernel with `first`."""
        group = Group(first.operands[0].shape, dims_of(first), [])
        probe = Probe(self, group)
        levels: dict[Node, int] = {}
        for node in pending:
            if (
                node.op.name not in REDUCTIONS
                or node.operands[0].shape != group.shape
                or dims_of(node) != group.dims
            ):
                continue
            needs = self.upstream(node.operands[0])
            if needs <= levels.keys() and probe.accepts(node.operands[0], probe.index):
                levels[node] = 1 + max((levels[n] for n in needs), default=-1)
                probe.add(node)
        depth = 1 + max(levels.values())
        group.levels += [[n for n, level in levels.items() if level == i] for i in range(depth)]
        return group, probe

    def fitting(self, group: Group, probe: Probe) -> list[Output]:
        """The targets that the group's kernel can store as well."""
        level = {n: i for i, nodes in enumerate(group.levels) for n in nodes}
        found = []
        for target in self.targets:
            needs = self.upstream(target.value)
            if not needs <= level.keys():
                continue
            whole = target.shape == group.shape
            if not whole and (not needs or not is_per_row(target.shape, group)):
                continue
            index = probe.index if whole else row_index(target.shape, group, probe.index)
            if probe.accepts(target.value, index, target if whole else None):
                found.append(
                    Output(target, not whole, 1 + max((level[n] for n in needs), default=-1))
                )
        return found

    def whole_rows(
        self,
        group: Group,
        outputs: list[Output],
        layout: Layout,
        kernel: Callable[..., RowKernel] = RowKernel,
    ) -> None:
        taken = {id(o.target) for o in outputs}
        leaves = self.leaves()
        self.targets = [t for t in self.targets if id(t) not in taken]
        stores = {n: self.result_slot(n.result()) for n in self.needed_later(group)}
        if 0 not in group.kept:
            kernel(self.region, self.lowering, leaves, group, outputs, layout, stores).emit()

    def needed_later(self, group: Group) -> list[Node]:
        """Reductions of the group that what is left depends on."""
        members = set(group.nodes)
        rest = [v for t in self.targets for v in (t.value,)]
        self._upstream.clear()
        needed = frozenset().union(*map(self.upstream, rest)) if rest else frozenset()
        return [n for n in group.nodes if n in needed & members]

    def cut_rows(
        self,
        group: Group,
        outputs: list[Output],
        layout: Layout,
        pieces: tuple[Dim, Dim],
        kernel: Callable[..., RowKernel] = RowKernel,
    ) -> None:
        """Partial results of the first level, and their combination. `pieces`: as `RowKernel` takes
        it."""
        level = group.levels[0]
        outputs = [o for o in outputs if not o.per_row and o.level == 0]
        stores = {
            n: self.lowering.temporary(accumulator(n), (pieces[0], *group.kept)) for n in level
        }
        taken = {id(o.target) for o in outputs}
        self.targets = [t for t in self.targets if id(t) not in taken]
        only = Group(group.shape, group.dims, [level])
        kernel(
            self.region, self.lowering, self.leaves(), only, outputs, layout, stores, pieces
        ).emit()
        self.combine(stores)

    def combine(self, partials: dict[Node, Slot]) -> None:
        """Reduce partial results to the results."""
        inputs = [
            Value(Type(slot.dtype, slot.shape), name=f"p{i}")
            for i, slot in enumerate(partials.values())
        ]
        results: list[Value] = []
        targets: list[Target] = []
        for node, partial in zip(partials, inputs, strict=True):
            total = node.op(partial, dims=(0,), keepdim=False)
            total = (
                total
                if total.dtype is node.types[0].dtype
                else ops.cast(total, dtype=node.types[0].dtype)
            )
            if total.shape != node.types[0].shape:
                total = ops.reshape(total, shape=node.types[0].shape)
            results.append(total)
            targets += targets_of(total, self.result_slot(node.result()))
        body = Graph("combine", inputs, results)
        region = Region("loop", body, self.region.operands, self.region.results, self.region.node)
        slots = dict(zip(inputs, partials.values(), strict=True))
        stages = Stages(region, self.lowering, slots, targets)
        stages.combines = True
        stages.run()


def reduce_rows(stages: Stages, group: Group, outputs: list[Output], layout: Layout) -> None:
    """Each row by one task, or by several where there are few rows, and perhaps long ones: one too
    many kernel costs little where they are short, one thread too few much where they are long."""
    grain = cost.grain(stages.region.nodes, 4.0)
    size = cost.guess if stages.combines else _most
    total = size(numel(group.shape))
    length, pieces = piece_length(layout, grain)
    whole = 0 in group.shape or cost.guess(layout.rows()) >= MANY_TASKS or total <= 2 * grain
    if whole or size(pieces) < 2:
        stages.whole_rows(group, outputs, layout.shared(grain // (len(group.levels) + 1)))
    else:
        stages.cut_rows(group, outputs, layout, (pieces, length))


def _most(dim: Dim) -> int:
    return bounds(dim)[1]


def piece_length(layout: Layout, grain: int) -> tuple[int, Dim]:
    """Steps of the first reduced loop in a piece of about `grain` elements, and the number of
    pieces."""
    if not layout.reduced:
        return 1, 1
    inner = numel(tuple(loop.extent for loop in layout.reduced[1:]))
    width = min(cost.guess(layout.kept[-1].extent), layout.width) if layout.columns else 1
    length = max(1, grain // max(1, cost.guess(inner) * width))
    return length, (layout.reduced[0].extent + (length - 1)) // length


def is_per_row(shape: Shape, group: Group) -> bool:
    kept = tuple(1 if i in group.dims else d for i, d in enumerate(group.shape))
    return shape in (kept, group.kept)


class Probe:
    """A dry run of a group's loop body: what fits, and which positions are accessed."""

    def __init__(self, stages: Stages, group: Group):
        self.group = group
        self.scope = Scope(stages.lowering, "dry")
        self.index: Index = tuple(self.scope.space.variable(extent) for extent in group.shape)
        for axis, variable in enumerate(self.index):
            with self.scope.b.loop(self.scope.expr(group.shape[axis])) as i:
                self.scope.space.bind(variable, i, 0)
        self.leaves = stages.leaves()
        self.evaluator = Evaluator(self.scope, self.leaves)
        self.places: list[tuple[Slot, Dim]] = []

    def accepts(self, value: Value, index: Index, target: Target | None = None) -> bool:
        """Whether `value` can be computed at `index` inside the kernel."""
        try:
            self.evaluator.at(value, index)
        except Unready:
            return False
        if target is not None:
            self.places.append((target.slot, target.place(self.scope, index)))
        return True

    def add(self, node: Node) -> None:
        """From now on the result of `node` is at hand for the current row."""
        own = kept_index(node, self.index)

        def read(e: Evaluator, index: Index, mask: Mask | None) -> Result:
            if index != own:
                raise Unready(node.result())
            return Result(Name("reduced", KType(node.types[0].dtype)), 0)

        self.leaves[node.result()] = read

    def accesses(self) -> list[tuple[Slot, Dim]]:
        """What is read and written, and where."""
        return self.scope.trace + self.places

    def positions(self) -> list[Dim]:
        return [p for _, p in self.accesses()]


def choose_layout(group: Group, probe: Probe) -> Layout:
    """Merged loops, with what is contiguous in memory innermost."""
    axes = [Loop(axis, extent, [axis]) for axis, extent in enumerate(group.shape) if extent != 1]
    positions, conditions = probe.positions(), probe.scope.conditions
    kept_offset = probe.scope.space.linear(
        tuple(i for a, i in enumerate(probe.index) if a not in group.dims), group.kept
    )
    reduced_offset = probe.scope.space.linear(
        tuple(i for a, i in enumerate(probe.index) if a in group.dims), group.reduced
    )
    kept = merge(
        [x for x in axes if x.axis not in group.dims],
        probe.index,
        [*positions, kept_offset],
        conditions,
    )
    reduced = merge(
        [x for x in axes if x.axis in group.dims],
        probe.index,
        [*positions, reduced_offset],
        conditions,
    )
    votes = {x.axis: contiguous(x, probe) for x in (*kept, *reduced)}
    # stable
    kept, reduced = (sorted(loops, key=lambda x: votes[x.axis]) for loops in (kept, reduced))
    columns = bool(kept) and (not reduced or votes[kept[-1].axis] > votes[reduced[-1].axis])
    if columns and not any(votes.values()):
        columns = bool(axes) and axes[-1].axis not in group.dims
    near = max((slot.dtype.itemsize for x in reduced[-1:] for slot in along(x, probe)), default=0)
    return Layout(kept, reduced, columns and cost.guess(kept[-1].extent) >= 4, near)


def contiguous(loop: Loop, probe: Probe) -> int:
    """How many accesses go to neighbours along a loop."""
    return sum(1 for _ in along(loop, probe))


def along(loop: Loop, probe: Probe) -> Iterator[Slot]:
    """For each access to neighbours along a loop what it is of."""
    name = name_of(probe.index[loop.axis])
    return (slot for slot, position in probe.accesses() if coefficient(position, name) == 1)
