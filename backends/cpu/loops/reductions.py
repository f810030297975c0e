"""Reductions, and the elementwise work that feeds on them, in as few passes over memory as
possible.

A `RowKernel` gives each task some *rows*: the elements reduced to one result. It goes over a row
once for each level of reductions (a softmax: maximum, sum, quotient), keeping in scratch what was
costly and comes back. Where neighbours in memory belong to different results (the sum of each
column), a task takes a block of columns instead and accumulates a scratch line. Few long rows are
cut into pieces whose partial results a second kernel combines in a fixed order, whatever the number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

from graphtorch.ir.dtype import DType, boolean, f32, f64
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, Shape, numel

from ...dataclass import dataclass
from ...kernels.body.evaluate import Evaluator, Leaf, Mask, Result, Unready
from ...kernels.body.expand import REDUCTIONS
from ...kernels.body.pointwise import maximum, minimum
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.body.space import name_of
from ...kernels.body.views import Index
from ...kernels.ir import Buffer, Const, Expr, KType, Name, binary, cast, load
from ...kernels.program.lowering import Lowering, Region
from ...kernels.program.program import Slot
from .. import cost
from .nest import Loop, Target
from .streams import StreamScope
from .tasks import task_rows

# of REDUCTIONS
ON_BOOLS = {"add": "or", "mul": "and", "max": "or", "min": "and", "or": "or", "and": "and"}
COLUMNS = 1024  # columns of a block: its accumulators stay in the nearest cache
ROW_SCRATCH = 1 << 14  # longest row kept in scratch, in elements
MANY_TASKS = 6  # from so many independent pieces on, rows are not cut
LEAST_COLUMNS = 64  # of a block: a few lines of the cache, one after the other
TOGETHER = 4  # rows that are added to a line of sums on one way through it
FEW_NODES = 6  # of a pass over a row, for which that is worth its code
PART = 96  # rows of columns that are added one after the other; a multiple of TOGETHER
LONG_PART = 1024  # elements of a row, of which vectors add some side by side
Ends = tuple[Expr, Expr]  # the first step of a loop, and that after its last


def accumulator(node: Node) -> DType:
    """The dtype a reduction accumulates in."""
    dtype = node.types[0].dtype
    if node.op.name == "prod" and dtype is f32:
        return f64  # of numbers near 1 each rounding drops the same
    return f32 if dtype.is_floating_point and dtype.itemsize == 2 else dtype


def combination(node: Node) -> str:
    """The op of the kernel IR by which a reduction takes one more element."""
    op = REDUCTIONS[node.op.name]
    return ON_BOOLS[op] if accumulator(node) is boolean else op


def identity(node: Node) -> Const:
    """What a reduction over no elements gives."""
    dtype, op = accumulator(node), combination(node)
    if dtype is boolean:
        return Const(op == "and", KType(boolean))
    value = dtype.ends[op == "min"] if op in ("max", "min") else int(op == "mul")
    return Const(float(value) if dtype.is_floating_point else value, KType(dtype))


def combine(node: Node, total: Expr, x: Expr) -> Expr:
    """One more element."""
    op = combination(node)
    if op in ("max", "min"):
        return maximum(total, x) if op == "max" else minimum(total, x)
    return binary(op, total, x)


def is_rounded(node: Node) -> bool:
    """Whether what a reduction adds is rounded."""
    return combination(node) == "add" and accumulator(node) is f32


@dataclass(eq=False)
class Group:
    """Reductions of the same axes of the same shape, by level: those of a level do not need each
    other."""

    shape: Shape
    dims: tuple[int, ...]
    levels: list[list[Node]]

    @property
    def nodes(self) -> list[Node]:
        return [n for level in self.levels for n in level]

    @property
    def kept(self) -> Shape:
        return tuple(d for i, d in enumerate(self.shape) if i not in self.dims)

    @property
    def reduced(self) -> Shape:
        return tuple(d for i, d in enumerate(self.shape) if i in self.dims)


@dataclass(eq=False)
class Output:
    """What to store of a row: `target`, whose shape is the whole shape or (`per_row`) the kept one.

    `level` is the pass that has all it depends on: the number of levels of reductions it needs.
    """

    target: Target
    per_row: bool
    level: int


@dataclass(eq=False)
class Layout:
    """How the loops of a group lie in memory: merged loops over kept and over reduced axes.

    `near`: bytes of the largest elements that lie side by side along the innermost reduced loop;
    0 where none do. `width`: columns of a block.
    """

    kept: list[Loop]
    reduced: list[Loop]
    columns: bool
    near: int = 0
    width: int = COLUMNS

    def rows(self) -> Dim:
        """Independent pieces of work."""
        count = numel(tuple(loop.extent for loop in self.kept[: -1 if self.columns else None]))
        return count * self.blocks() if self.columns else count

    def blocks(self) -> Dim:
        """Blocks of columns."""
        return (self.kept[-1].extent + (self.width - 1)) // self.width

    def of_block(self) -> int:
        """Columns of the longest block."""
        extent = self.kept[-1].extent
        return min(extent, self.width) if isinstance(extent, int) else self.width

    def shared(self, work: int) -> Layout:
        """The same in narrower blocks where there are few, of `work` elements at least."""
        extent, length = (numel(tuple(x.extent for x in xs)) for xs in (self.kept, self.reduced))
        if not self.columns or not isinstance(extent, int) or not isinstance(length, int):
            return self
        tasks = min(extent * length // work, MANY_TASKS)
        columns = int(self.kept[-1].extent)
        wanted = -(-tasks * columns // extent)
        if wanted <= int(self.blocks()):
            return self
        width = -(-columns // (wanted * LEAST_COLUMNS)) * LEAST_COLUMNS
        return replace(self, width=width)

    def work(self) -> Dim:
        """Elements of one pass over a piece."""
        length = numel(tuple(loop.extent for loop in self.reduced))
        return length * self.of_block() if self.columns else length


class RowKernel:
    """One kernel for the reductions of `group` and the `outputs` that need no other.

    `pieces` (an extent and a length) cuts the first reduced loop: the kernel then stores partial
    results of the group's only level, one for each piece and row.
    """

    def __init__(
        self,
        region: Region,
        lowering: Lowering,
        leaves: dict[Value, Leaf],
        group: Group,
        outputs: Sequence[Output],
        layout: Layout,
        stores: dict[Node, Slot],
        pieces: tuple[Dim, Dim] | None = None,
    ):
        self.region = region
        self.lowering = lowering
        self.group = group
        self.outputs = list(outputs)
        self.layout = layout
        self.stores = stores
        self.pieces = pieces
        self.scope = self.new_scope()
        self.registers: dict[Node, Expr | Buffer] = {}
        self.kept_rows: dict[Value, Buffer] = {}
        self.leaves = dict(leaves)
        self.index: Index = ()
        self.first_column: Expr = Const(0)
        self.row_depth = 0
        self.first_pass: dict[Value, int] = {}

    def emit(self) -> None:
        scope = self.scope
        for slot in (*(o.target.slot for o in self.outputs), *self.stores.values()):
            scope.buffer(slot, "write")
        self.index = tuple(scope.space.variable(extent) for extent in self.group.shape)
        self.bind_merged()
        for node in self.group.nodes:
            self.leaves[node.result()] = self.reduction_leaf(node)
        self.evaluator = self.new_evaluator()
        with self.open_rows():
            self.row_depth = scope.b.depth
            self.plan_kept_rows()
            for level, nodes in enumerate(self.group.levels):
                self.reduce(level, nodes)
            self.finish_row()
        moved = cost.traffic([*self.region.operands, *self.region.results])
        scope.launch(self.region.label, cost.flops(self.region.nodes), moved)

    def new_scope(self) -> Scope:
        whole = [o.target.slot for o in self.outputs if not o.per_row]
        return StreamScope(self.lowering, self.region.label, whole)

    def new_evaluator(self) -> Evaluator:
        return Evaluator(self.scope, self.leaves)

    # Loops ----------------------------------------------------------------------------------------

    def bind_merged(self) -> None:
        """Axes that were merged into another one contribute nothing themselves."""
        bound = {loop.axis for loop in (*self.layout.kept, *self.layout.reduced)}
        for axis, variable in enumerate(self.index):
            if axis not in bound:
                self.scope.space.bind(variable, Const(0))

    @contextmanager
    def open_rows(self) -> Iterator[None]:
        """The loop over rows (or blocks of columns), shared between tasks."""
        scope = self.scope
        outer = self.layout.kept[:-1] if self.layout.columns else self.layout.kept
        sizes: list[tuple[Dim, Callable[[Expr], None]]] = [
            (loop.extent, self.scope.binder(self.index[loop.axis])) for loop in outer
        ]
        if self.pieces is not None:
            sizes.insert(0, (self.pieces[0], self._bind_piece))
        if self.layout.columns:
            sizes.append((self.layout.blocks(), self._bind_block))
        rows = numel(tuple(extent for extent, _ in sizes))
        work = self.layout.work() if self.pieces is None else self._piece_work()
        with task_rows(scope, rows, work * (len(self.group.levels) + 1), self.grain()) as row:
            self.bind_row(row, sizes)
            yield

    def bind_row(self, row: Expr, sizes: Sequence[tuple[Dim, Callable[[Expr], None]]]) -> None:
        """Cut the number of a row into an index for each of `sizes`."""
        b, rest = self.scope.b, row
        for extent, bind in reversed(sizes[1:]):
            if extent == 1:
                bind(Const(0))
                continue
            size = self.scope.expr(extent)
            bind(b.let(rest % size, "i"))
            rest = b.let(rest // size, "rest")
        if sizes:
            sizes[0][1](rest)

    def _bind_piece(self, value: Expr) -> None:
        assert self.pieces is not None
        b = self.scope.b
        self.piece = value
        length = self.scope.expr(self.pieces[1])
        self.piece_lo = b.let(value * length, "from")
        end = self.scope.expr(self.layout.reduced[0].extent)
        self.piece_hi = b.let(upper_bound(self.piece_lo + length, end), "to")

    def _bind_block(self, value: Expr) -> None:
        b, width = self.scope.b, self.layout.width
        self.first_column = b.let(value * width, "c0")
        end = self.scope.expr(self.layout.kept[-1].extent)
        self.last_column = b.let(upper_bound(self.first_column + width, end), "c1")

    def _piece_work(self) -> Dim:
        assert self.pieces is not None
        inner = numel(tuple(loop.extent for loop in self.layout.reduced[1:]))
        return self.pieces[1] * inner * (self.layout.width if self.layout.columns else 1)

    @contextmanager
    def over_row(self) -> Iterator[None]:
        """Loops over the reduced axes, and over the columns of the block inside."""
        loops = [(loop.extent, self.index[loop.axis]) for loop in self.layout.reduced]
        last = "serial" if self.layout.columns else "vector"
        with self.cut_first(loops, last), self.over_columns():
            yield

    @contextmanager
    def over_columns(self) -> Iterator[None]:
        if not self.layout.columns:
            yield
            return
        loop = self.layout.kept[-1]
        with self.scope.loop(
            loop.extent,
            "vector",
            "c",
            self.first_column,
            self.last_column,
            variable=self.index[loop.axis],
        ):
            yield

    def column(self) -> Expr:
        """The position of the current column in its block."""
        return (
            self.scope.space.env[name_of(self.index[self.layout.kept[-1].axis])] - self.first_column
        )

    def grain(self) -> int:
        return cost.grain(self.region.nodes, 4.0)

    # Reductions -----------------------------------------------------------------------------------

    def reduce(self, level: int, nodes: Sequence[Node]) -> None:
        b = self.scope.b
        accumulators = {node: self.start(node) for node in nodes}
        with self.in_parts(accumulators) as (totals, ends):
            if self.takes_several(level):
                self.reduce_several(totals, ends)
            else:
                with self.over_row() if ends is None else self.over_rows(*ends):
                    for node in nodes:
                        x = cast(self.evaluator.at(node.operands[0], self.index), accumulator(node))
                        self.add(node, totals[node], b.let(x, "x"))
                    self.store(self.stored(level), self.index)
                    self.keep(level)
        for node in nodes:
            self.complete(node, accumulators[node])

    @contextmanager
    def in_parts(
        self, totals: dict[Node, Name | Buffer]
    ) -> Iterator[tuple[dict[Node, Name | Buffer], Ends | None]]:
        """What a pass adds to, and between which steps of the innermost reduced loop where it is
        made once for each part of a row.

        Long rows are summed part by part: added one after the other, numbers that are alike, such
        as the zeros of a ReLU less their mean, are all rounded to the same side.
        """
        sums = [n for n in totals if is_rounded(n)]
        if not sums or not self.has_parts():
            yield totals, None
            return
        with self.row_parts() as ends:
            own = {n: self.start(n) for n in sums}
            yield {**totals, **own}, ends
            with self.over_columns():
                for n, part in own.items():
                    self.add(n, totals[n], self.held(part))

    def has_parts(self) -> bool:
        """Whether rows are so long that they are summed in parts."""
        if self.lowering.machine.tasks_are_threads:
            return False
        *outer, last = [cost.guess(loop.extent) for loop in self.layout.reduced] or [0]
        size = self.part_size()
        # vectors of a row are added up after each of its innermost loops anyway
        least = PART // 8 if self.layout.columns else 8
        return last > 2 * size or (bool(outer) and last >= least)

    def part_size(self) -> int:
        return PART if self.layout.columns else LONG_PART

    @contextmanager
    def row_parts(self) -> Iterator[Ends]:
        """The loops over the parts of a row."""
        *outer, last = self.layout.reduced
        loops = [(loop.extent, self.index[loop.axis]) for loop in outer]
        size = self.part_size()
        with self.cut_first(loops) if outer else nullcontext():
            low, high = self.row_ends()
            if cost.guess(last.extent) <= 2 * size:
                yield low, high
                return
            with self.scope.b.loop(high, name="part", lo=low, step=size) as first:
                yield first, self.scope.b.let(upper_bound(first + size, high), "end")

    @contextmanager
    def cut_first(self, loops: Sequence[tuple[Dim, Dim]], last: str = "serial") -> Iterator[None]:
        """Loops (extent, variable) over reduced axes, the outermost over a piece where rows are
        cut."""
        if self.pieces is None:
            with self.scope.nested(loops, last):
                yield
            return
        (extent, variable), *rest = loops
        with (
            self.scope.loop(
                extent,
                "serial" if rest else last,
                lo=self.piece_lo,
                hi=self.piece_hi,
                variable=variable,
            ),
            self.scope.nested(rest, last),
        ):
            yield

    def row_ends(self) -> Ends:
        """The steps of the innermost reduced loop."""
        if self.pieces is not None and len(self.layout.reduced) == 1:
            return self.piece_lo, self.piece_hi
        return Const(0), self.scope.expr(self.layout.reduced[-1].extent)

    @contextmanager
    def over_rows(self, low: Expr, high: Expr) -> Iterator[None]:
        """Some steps of the innermost reduced loop, and the columns of the block inside."""
        loop = self.layout.reduced[-1]
        kind = "serial" if self.layout.columns else "vector"
        with (
            self.scope.loop(loop.extent, kind, lo=low, hi=high, variable=self.index[loop.axis]),
            self.over_columns(),
        ):
            yield

    def stored(self, level: int) -> list[Target]:
        """What a pass stores for each element."""
        return [o.target for o in self.outputs if not o.per_row and o.level == level]

    def takes_several(self, level: int) -> bool:
        """Whether a pass adds several rows to its sums at once: where these lie in memory, and are
        most of what it reads and writes."""
        if not self.layout.columns or self.lowering.machine.tasks_are_threads:
            return False
        *outer, last = self.layout.reduced or [Loop(0, 0, [])]
        nodes = [v.node for v in self.passes()[level] if v.node is not None]
        return (
            isinstance(last.extent, int)
            and last.extent >= TOGETHER
            and (self.pieces is None or (not outer and self.pieces[1] % TOGETHER == 0))
            and not self.stored(level)
            and len(nodes) <= FEW_NODES
            and not any(map(cost.is_slow, nodes))
        )

    def reduce_several(self, totals: Mapping[Node, Name | Buffer], ends: Ends | None) -> None:
        """A pass of which each way through the columns takes several rows, one after the other."""
        scope, b = self.scope, self.scope.b
        *outer, last = self.layout.reduced
        if ends is not None:
            outer = []  # are around it already
        low, high = ends or self.row_ends()
        whole = b.let(high // TOGETHER, "whole")
        count = int(last.extent) // TOGETHER
        groups = scope.space.variable(count)
        with scope.nested([(loop.extent, self.index[loop.axis]) for loop in outer]):
            with (
                scope.loop(count, lo=low // TOGETHER, hi=whole, variable=groups),
                self.over_columns(),
            ):
                self.add_rows(totals, [groups * TOGETHER + u for u in range(TOGETHER)])
            if last.extent % TOGETHER:
                with self.over_rows(whole * TOGETHER, high):
                    self.add_rows(totals, [self.index[last.axis]])

    def add_rows(self, totals: Mapping[Node, Name | Buffer], rows: Sequence[Dim]) -> None:
        """Add the elements of a column at `rows` of the innermost reduced axis."""
        axis = self.layout.reduced[-1].axis
        lines = {node: line for node, line in totals.items() if isinstance(line, Buffer)}
        sums: dict[Node, Expr] = {
            node: self.scope.b.let(load(line, self.column()), "sum") for node, line in lines.items()
        }
        for row in rows:
            index = tuple(row if i == axis else at for i, at in enumerate(self.index))
            for node in lines:
                x = cast(self.evaluator.at(node.operands[0], index), accumulator(node))
                sums[node] = self.scope.b.let(combine(node, x, sums[node]), "sum")
        for node, total in sums.items():
            self.scope.b.store(lines[node], self.column(), total)

    def start(self, node: Node) -> Name | Buffer:
        b, dtype = self.scope.b, accumulator(node)
        if not self.layout.columns:
            return b.var(identity(node), node.op.name)
        line = b.scratch(dtype, self.layout.of_block(), node.op.name)
        with self.over_columns():
            b.store(line, self.column(), identity(node))
        return line

    def add(self, node: Node, total: Name | Buffer, x: Expr) -> None:
        b = self.scope.b
        if isinstance(total, Name):
            b.assign(total, combine(node, total, x))
        else:
            # The total comes last: of a maximum that begins with what is in memory x86's code is
            # a store under a mask of those that are no NaN, which takes ten times as long.
            b.store(total, self.column(), combine(node, x, load(total, self.column())))

    def complete(self, node: Node, total: Name | Buffer) -> None:
        self.registers[node] = total
        if node in self.stores:
            slot = self.stores[node]
            with self.over_columns():
                self.write(slot, self.row_position(), cast(self.reduced_value(node), slot.dtype))

    def write(self, slot: Slot, position: Expr, value: Expr) -> None:
        self.scope.b.store(self.scope.buffer(slot, "write"), position, value)

    def put(self, slot: Slot, position: Dim, value: Expr) -> None:
        self.scope.put(slot, position, value)

    def row_position(self) -> Expr:
        kept = tuple(i for axis, i in enumerate(self.index) if axis not in self.group.dims)
        position = self.scope.expr(self.scope.space.linear(kept, self.group.kept))
        if self.pieces is None:
            return position
        return self.piece * self.scope.expr(numel(self.group.kept)) + position

    def reduced_value(self, node: Node) -> Expr:
        return self.held(self.registers[node])

    def held(self, total: Expr | Buffer) -> Expr:
        """A sum, of the current column."""
        return load(total, self.column()) if isinstance(total, Buffer) else total

    def reduction_leaf(self, node: Node) -> Leaf:
        """A finished reduction, which is at hand for the current row only."""
        own = kept_index(node, self.index)

        def read(e: Evaluator, index: Index, mask: Mask | None) -> Result:
            if index != own or node not in self.registers:
                raise Unready(node.result())
            depth = self.scope.b.depth if self.layout.columns else self.row_depth
            with e.scope.b.hoisted(depth):
                return Result(
                    e.scope.b.let(cast(self.reduced_value(node), node.types[0].dtype)), depth
                )

        return read

    # What a later pass needs again ----------------------------------------------------------------

    def plan_kept_rows(self) -> None:
        """Costly values of the whole row that more than one pass asks for get a scratch row."""
        length = numel(self.group.reduced)
        if not isinstance(length, int) or self.pieces:
            return
        if self.layout.columns:
            length *= self.layout.of_block()
        if not 0 < length <= ROW_SCRATCH:
            return
        passes = self.passes()
        for value in [
            n.result() for n in self.region.nodes if n.types[0].shape == self.group.shape
        ]:
            users = [i for i, seen in enumerate(passes) if value in seen]
            if len(users) > 1 and value.node is not None and cost.is_slow(value.node):
                self.keep_row(value, users[0], length)

    def passes(self) -> list[set[Value]]:
        """What each pass over a row computes."""
        return [self.reach(values) for values in self.roots()]

    def roots(self) -> list[list[Value]]:
        """What each pass over a row is made for."""
        roots = [[n.operands[0] for n in level] for level in self.group.levels] + [[]]
        for output in self.outputs:
            if not output.per_row:
                roots[output.level].append(output.target.value)
        return roots

    def reach(self, values: Sequence[Value]) -> set[Value]:
        """Values computed for `values`, without what lies behind reductions and leaves."""
        seen: set[Value] = set()
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in seen or value in self.leaves or value.node is None:
                continue
            seen.add(value)
            stack.extend(value.node.operands)
        return seen

    def keep_row(self, value: Value, first: int, length: int) -> None:
        line = self.scope.b.scratch(value.dtype, length, "row")
        self.kept_rows[value] = line
        self.first_pass[value] = first

    def row_offset(self) -> Dim:
        inner = tuple(i for axis, i in enumerate(self.index) if axis in self.group.dims)
        return self.scope.space.linear(inner, self.group.reduced)

    def place_in_row(self) -> Expr:
        """Where a scratch row has the current element: of a block of columns, beside its
        neighbours."""
        place = self.scope.expr(self.row_offset())
        return place * self.layout.of_block() + self.column() if self.layout.columns else place

    def keep(self, level: int) -> None:
        """Fill the scratch rows whose values this pass computed; later passes read them."""
        for value, line in self.kept_rows.items():
            if self.first_pass[value] == level:
                self.scope.b.store(line, self.place_in_row(), self.evaluator.at(value, self.index))
        for value, line in self.kept_rows.items():
            if self.first_pass[value] == level:
                self.leaves[value] = self.row_leaf(value, line)

    def row_leaf(self, value: Value, line: Buffer) -> Leaf:
        def read(e: Evaluator, index: Index, mask: Mask | None) -> Result:
            if index != self.index:
                return e.compute(value, index, mask)
            depth = max(e.scope.space.depth((self.row_offset(),)), self.row_depth)
            if self.layout.columns:
                depth = self.scope.b.depth
            with e.scope.b.hoisted(depth):
                return Result(e.scope.b.let(load(line, self.place_in_row()), "kept"), depth)

        return read

    # Results --------------------------------------------------------------------------------------

    def finish_row(self) -> None:
        last = len(self.group.levels)
        whole = [o.target for o in self.outputs if not o.per_row and o.level == last]
        per_row = [o.target for o in self.outputs if o.per_row]
        if whole:
            with self.past_caches(), self.over_row():
                self.store(whole, self.index)
        if per_row:
            with self.over_columns():
                for target in per_row:
                    self.store([target], row_index(target.shape, self.group, self.index))

    def past_caches(self) -> AbstractContextManager[None]:
        """Around the loops that store what is left of a row."""
        scope = self.scope
        return scope.past_caches() if isinstance(scope, StreamScope) else nullcontext()

    def store(self, targets: Sequence[Target], index: Index) -> None:
        scope = self.scope
        for target in targets:
            value = self.evaluator.at(target.value, index)
            self.put(target.slot, target.place(scope, index), value)


def kept_index(node: Node, index: Index) -> Index:
    """The index of a reduction's result where its operand has `index`."""
    dims = dims_of(node)
    if node.attrs.keepdim:
        return tuple(0 if axis in dims else i for axis, i in enumerate(index))
    return tuple(i for axis, i in enumerate(index) if axis not in dims)


def row_index(shape: Shape, group: Group, index: Index) -> Index:
    """The index of the current row in a result of `shape`: the kept axes only, or 1 for the
    others."""
    if len(shape) == len(group.shape):
        return tuple(0 if axis in group.dims else i for axis, i in enumerate(index))
    return tuple(i for axis, i in enumerate(index) if axis not in group.dims)


def dims_of(node: Node) -> tuple[int, ...]:
    return tuple(sorted(node.attrs.dims))
