"""Reductions for targets whose tasks are blocks of threads.

Short rows are shared by some threads of a warp, longer ones by a whole warp or a block. Each thread
takes every so many groups of elements of a row, so that neighbours read neighbours, and the
threads' totals are combined in a fixed order; what lies side by side in memory is read and written
as one vector. What several passes over a row need, and was read from memory or is costly, stays in
registers. Columns are taken by blocks of neighbouring columns, whose threads go down them side by
side. Where all this makes few blocks, rows are cut into pieces, and the pieces' results are reduced
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, bounds, numel

from ...cpu import cost
from ...cpu.loops.nest import ACCESS, Loop, Target
from ...cpu.loops.reductions import (
    Group,
    Layout,
    Output,
    RowKernel,
    accumulator,
    combination,
    combine,
    identity,
    kept_index,
)
from ...cpu.loops.stages import Stages
from ...dataclass import dataclass
from ...kernels.body.evaluate import Evaluator, Mask, Result
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.body.views import Index
from ...kernels.ir import (
    Buffer,
    Const,
    Expr,
    Name,
    binary,
    fma,
    load,
    select,
    unary,
    warp_reduce,
)
from ...kernels.program.program import Slot
from ...kernels.uniform import WARP
from ..machine import gpu_of
from .wide import WideEvaluator, WideScope

BLOCKS = 4  # of a multiprocessor: so many keep it busy
FEW_BLOCKS = 2  # less than so many do not
LINE = 256  # elements: pieces of rows begin where lines of caches do
PIECE = 2048  # elements, the fewest that are worth a piece
SHORT, MEDIUM = 4, 512  # longest rows of a thread, and of a warp
KEPT = 1024  # longest rows of a warp that keeps them: without barriers between the passes
FEW_ROWS = 16  # which a block each is not too many for
WARPS_THREADS = 128  # of a block whose warps have rows of their own
MOST_THREADS = 512
ELEMENTS = 8  # of a thread, in a block that has a row
REGISTERS = 64  # of 4 bytes, for what is kept of a row
MANY_OUTPUTS = 1 << 15  # columns from which on each thread has one
FEW_STEPS = 32  # rows of columns that are not worth more than a thread
MOVES = ("reshape", "permute", "slice")


@dataclass(frozen=True)
class Plan:
    """How the threads share the work of a group.

    Attributes:
        kind: threads (each has a row or a column), rows, or columns.
        threads: of a block.
        width: threads that share a row; columns that a block takes.
        lanes: neighbours in a row that a thread takes at once.
        pieces: how many parts of each row, and elements of a part; None for whole rows.
    """

    kind: str
    threads: int = 0
    width: int = 1
    lanes: int = 1
    pieces: tuple[Dim, Dim] | None = None

    @property
    def stride(self) -> int:
        """Elements of a row that its threads take at once."""
        return self.width * self.lanes


def choose(group: Group, layout: Layout, multiprocessors: int, passes: int) -> Plan:
    """The plan for a group's rows or columns, which the kernel goes over so many times."""
    length = numel(tuple(loop.extent for loop in layout.reduced))
    outputs = numel(tuple(loop.extent for loop in layout.kept))
    plan = (
        _columns(length, outputs, layout)
        if layout.columns
        else _rows(length, outputs, lanes_of(layout), passes)
    )
    if plan.kind == "threads" or 0 in group.shape:
        return Plan("threads")
    pieces = _pieces(plan, length, outputs, layout, len(group.levels), multiprocessors)
    return replace(plan, pieces=pieces)


def lanes_of(layout: Layout) -> int:
    """Neighbours in a row that make an access of up to 16 bytes: rows are whole numbers of them."""
    lanes = ACCESS // layout.near if 0 < layout.near <= ACCESS else 1
    while lanes > 1 and layout.reduced[-1].extent % lanes != 0:
        lanes //= 2
    return lanes


def _rows(length: Dim, outputs: Dim, lanes: int, passes: int) -> Plan:
    most = bounds(length)[1]
    if most <= SHORT:
        return Plan("threads")
    kept = passes > 1 and isinstance(length, int)
    medium = WARP if bounds(outputs)[1] <= FEW_ROWS else KEPT if kept else MEDIUM
    if most <= medium:
        width = min(WARP, 1 << (-(-most // max(SHORT, lanes)) - 1).bit_length())
        return Plan("rows", WARPS_THREADS, width, lanes)
    if not isinstance(length, int) and bounds(length)[0] <= MEDIUM:
        return Plan("rows", MOST_THREADS // 2, MOST_THREADS // 2, lanes)
    threads = -(-cost.guess(length) // (max(ELEMENTS, 2 * lanes) * WARP)) * WARP
    threads = min(MOST_THREADS, max(WARPS_THREADS, threads))
    return Plan("rows", threads, threads, lanes)


def _columns(length: Dim, outputs: Dim, layout: Layout) -> Plan:
    if cost.guess(outputs) >= MANY_OUTPUTS or bounds(length)[1] < FEW_STEPS:
        return Plan("threads")
    wide = min(bounds(layout.kept[-1].extent)[1], WARP)
    return Plan("columns", 256, 1 << (wide - 1).bit_length())


def _pieces(
    plan: Plan, length: Dim, outputs: Dim, layout: Layout, levels: int, multiprocessors: int
) -> tuple[Dim, Dim] | None:
    """Parts of rows, where whole rows are too few blocks."""
    if plan.kind == "columns":
        outer = numel(tuple(x.extent for x in layout.kept[:-1]))
        blocks = outer * ceildiv(layout.kept[-1].extent, plan.width)
    else:
        blocks = ceildiv(outputs, plan.threads // plan.width)
    most, share = bounds(blocks)[1], plan.width if plan.kind == "columns" else 1
    if most >= FEW_BLOCKS * multiprocessors:
        return None
    if isinstance(length, int):
        wanted = min(-(-BLOCKS * multiprocessors // max(1, most)), length * share // PIECE)
        size = -(-length // max(1, wanted))
        size = size if plan.kind == "columns" else -(-size // LINE) * LINE
    else:
        size = max(1, 4 * PIECE // share)
    if bounds(length)[1] <= size or (levels > 1 and cost.guess(length) * share < 8 * PIECE):
        return None
    return ceildiv(length, size), size


def ceildiv(extent: Dim, size: int) -> Dim:
    return (extent + (size - 1)) // size


def reduce(stages: Stages, group: Group, outputs: list[Output], layout: Layout) -> None:
    """One kernel for a group of reductions, or two where rows are cut."""
    passes = len(group.levels) + any(not o.per_row for o in outputs)
    plan = choose(group, layout, gpu_of(stages.lowering).multiprocessors, passes)
    if plan.pieces is None:
        stages.whole_rows(group, outputs, layout, kernel_of(plan))
    else:
        stages.cut_rows(group, outputs, layout, plan.pieces, kernel_of(plan))


def kernel_of(plan: Plan) -> Callable[..., RowKernel]:
    """What makes the kernel of a plan, with the arguments of `RowKernel`."""
    if plan.kind == "threads":
        return ThreadRows
    made = (
        BlockColumns
        if plan.kind == "columns"
        else BlockRows
        if plan.width == plan.threads
        else WarpRows
    )
    return lambda *args, **kwargs: made(plan, *args, **kwargs)


class ThreadRows(RowKernel):
    """A row, or a column, for each thread."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.layout = Layout(self.layout.kept, self.layout.reduced, False)

    def plan_kept_rows(self) -> None:
        length = numel(self.group.reduced)
        if isinstance(length, int) and length <= 2 * SHORT:
            super().plan_kept_rows()


class SharedRows(RowKernel):
    """What kernels have in common in which several threads share a row."""

    def __init__(self, plan: Plan, *args: Any, **kwargs: Any):
        self.plan = plan
        super().__init__(*args, **kwargs)
        self.steps: int | None = None  # of a thread, where it keeps what it reads
        self.mask: Expr | None = None  # of threads that store
        self.at: Expr = Const(0)  # the number of the current element among the thread's

    def new_scope(self) -> Scope:
        if self.plan.lanes == 1:
            return super().new_scope()
        return WideScope(self.lowering, self.region.label, self.plan.lanes)

    def new_evaluator(self) -> Evaluator:
        made = WideEvaluator if isinstance(self.scope, WideScope) else Evaluator
        return made(self.scope, self.leaves)

    def row_sizes(self, kept: Sequence[Loop]) -> list[tuple[Dim, Callable[[Expr], None]]]:
        """What the number of a row is made of."""
        sizes = [(loop.extent, self.scope.binder(self.index[loop.axis])) for loop in kept]
        return sizes if self.pieces is None else [(self.pieces[0], self._bind_piece), *sizes]

    @property
    def length(self) -> Dim:
        return numel(tuple(loop.extent for loop in self.layout.reduced))

    def _bind_piece(self, value: Expr) -> None:
        assert self.pieces is not None
        b, size = self.scope.b, self.scope.expr(self.pieces[1])
        self.piece = value
        self.piece_lo = b.let(value * size, "from")
        self.piece_hi = b.let(upper_bound(self.piece_lo + size, self.scope.expr(self.length)), "to")

    @property
    def ends(self) -> tuple[Expr, Expr]:
        """Where the elements of the row, or of its piece, begin and end."""
        if self.pieces is not None:
            return self.piece_lo, self.piece_hi
        return Const(0), self.scope.expr(self.length)

    @contextmanager
    def elements(self, position: Expr, step: Expr | None = None) -> Iterator[None]:
        """The elements of the row from number `position` on that a thread takes at once.

        Args: step: the number of the group among the thread's, where these are kept.
        """
        scope, b = self.scope, self.scope.b
        *outer, last = self.layout.reduced
        sizes = [(loop.extent, scope.binder(self.index[loop.axis])) for loop in outer]
        variable = self.index[last.axis]
        if not isinstance(scope, WideScope):
            self.at = Const(0) if step is None else step
            self.bind_row(position, [*sizes, (last.extent, scope.binder(variable))])
            yield
            return
        self.bind_row(
            position, [*sizes, (last.extent, lambda first: scope.begin(variable, first, None))]
        )
        with b.loop(scope.lanes, "unroll", "u") as lane, scope.element(lane):
            self.at = lane if step is None else b.let(step * scope.lanes + lane, "own")
            yield
        self.flush(scope)

    def store(self, targets: Sequence[Target], index: Index) -> None:
        scope = self.scope
        if not isinstance(scope, WideScope):
            super().store(targets, index)
            return
        for target in targets:
            value = self.evaluator.at(target.value, index)
            scope.put(target.slot, target.place(scope, index), value, self.mask)

    def write(self, slot: Slot, position: Expr, value: Expr) -> None:
        self.scope.b.store(self.scope.buffer(slot, "write"), position, value, self.mask)

    def put(self, slot: Slot, position: Dim, value: Expr) -> None:
        self.write(slot, self.scope.expr(position), value)

    def flush(self, scope: WideScope) -> None:
        """Store what a group of elements has computed."""
        scope.flush()

    # What a later pass needs again ----------------------------------------------------------------

    def plan_kept_rows(self) -> None:
        """What several passes ask for, and is costly or in memory, stays in registers where it
        fits."""
        length = numel(self.group.reduced)
        if not isinstance(length, int) or self.pieces or len(self.passes()) < 2:
            return
        steps = -(-length // self.plan.stride)
        room = REGISTERS
        for value, first in self.worth_keeping():
            room -= steps * self.plan.lanes * -(-value.dtype.itemsize // 4)
            if room < 0:
                break
            self.steps = steps
            self.keep_row(value, first, steps * self.plan.lanes)

    def worth_keeping(self) -> Iterator[tuple[Value, int]]:
        """Values, and the pass that has them first."""
        full = [n.result() for n in self.region.nodes if n.types[0].shape == self.group.shape]
        read = [v for v in self.leaves if v.shape == self.group.shape and v not in full]
        roots, kept = self.roots(), dict[Value, int]()
        costly = [v for v in full if v.node is not None and cost.is_slow(v.node)]
        moved = [v for v in full if v.node is not None and v.node.op.name in MOVES]
        for value in (*costly, *read, *moved):
            if value in kept:
                continue
            users = [
                i
                for i, values in enumerate(roots)
                if value in self.needed(values, {v for v, first in kept.items() if first < i})
            ]
            if len(users) > 1:
                kept[value] = users[0]
                yield value, users[0]

    def needed(self, values: Sequence[Value], held: set[Value]) -> set[Value]:
        """What is computed or read for `values`, where `held` is at hand."""
        seen, stack = set[Value](), [v for v in values if v not in held]
        while stack:
            value = stack.pop()
            if value not in seen:
                seen.add(value)
                if value.node is not None and value not in self.leaves:
                    stack.extend(v for v in value.node.operands if v not in held)
        return seen

    def keep(self, level: int) -> None:
        chosen = [(v, line) for v, line in self.kept_rows.items() if self.first_pass[v] == level]
        for value, line in chosen:
            self.scope.b.store(line, self.at, self.evaluator.at(value, self.index))
        for value, line in chosen:
            self.leaves[value] = self.row_leaf(value, line)

    def row_leaf(
        self, value: Value, line: Buffer
    ) -> Callable[[Evaluator, Any, Mask | None], Result]:
        before = self.leaves.get(value)

        def read(e: Evaluator, index: Any, mask: Mask | None) -> Result:
            if index != self.index:
                return e.compute(value, index, mask) if before is None else before(e, index, mask)
            return Result(e.scope.b.let(load(line, self.at), "kept"), e.scope.b.depth)

        return read


class BlockRows(SharedRows):
    """A row for each block.

    A row that is not kept is read again from its other end, which caches still have. A maximum and
    the sum of powers of what is below it take one pass.
    """

    back = False  # whether the next pass goes from the end of the row to its beginning

    @contextmanager
    def open_rows(self) -> Iterator[None]:
        sizes = self.row_sizes(self.layout.kept)
        rows = numel(tuple(extent for extent, _ in sizes))
        with self.scope.b.block_loop(self.scope.expr(rows), self.plan.threads, "row") as row:
            self.bind_row(row, sizes)
            yield

    @contextmanager
    def over_row(self) -> Iterator[None]:
        b, threads, lanes = self.scope.b, self.plan.threads, self.plan.lanes
        low, high = self.ends
        if self.steps is None:
            back, self.back = self.back, not self.back
            with b.loop(high, "thread", "i", low, lanes) as i:
                at = b.let(low + (high - lanes) - i, "back") if back else i
                with self.elements(at):
                    yield
            return
        with b.loop(threads, "thread", "t") as t, self.kept_elements(t, high):
            yield

    @contextmanager
    def kept_elements(self, number: Expr, high: Expr) -> Iterator[None]:
        """The elements of a thread with this number in the row, which keeps what it has of them."""
        b, lanes = self.scope.b, self.plan.lanes
        assert self.steps is not None and isinstance(high, Const)
        with b.loop(self.steps, "unroll", "k") as step:
            position = b.let(step * self.plan.stride + number * lanes, "i")
            if self.steps * self.plan.stride == high.value:
                with self.elements(position, step):
                    yield
                return
            with b.when(binary("lt", position, high)), self.elements(position, step):
                yield

    def complete(self, node: Node, total: Name | Buffer) -> None:
        assert isinstance(total, Name)
        super().complete(node, self.combined(combination(node), total))

    def reduce(self, level: int, nodes: Sequence[Node]) -> None:
        below = self.sum_below_maximum()
        if below is None:
            super().reduce(level, nodes)
        elif level == 0:
            self.reduce_together(*below)

    def sum_below_maximum(self) -> tuple[Node, Node, Value] | None:
        """The maximum of x and the sum of exp(x - shift), and this shift, where these are all that
        two passes over a row would be made for: the shift is the maximum wherever that is finite.
        """
        if self.steps is not None or [len(level) for level in self.group.levels[:2]] != [1, 1]:
            return None
        most, total = self.group.levels[0][0], self.group.levels[1][0]
        power = total.operands[0].node
        apart = power.operands[0].node if power is not None and power.op is ops.exp else None
        early = any(not o.per_row and o.level < 2 for o in self.outputs)
        if apart is None or apart.op is not ops.sub or early:
            return None
        x, shift = apart.operands
        same = x == most.operands[0] and x.dtype is apart.types[0].dtype is accumulator(most)
        same = same and (most.op, total.op) == (ops.max, ops.sum) and x.dtype.is_floating_point
        return (most, total, shift) if same and is_finite_part(shift, most.result()) else None

    def reduce_together(self, most: Node, total: Node, shift: Value) -> None:
        """What is there of the sum is made smaller where the maximum grows."""
        b = self.scope.b
        highest, held = self.start(most), self.start(total)
        assert isinstance(highest, Name) and isinstance(held, Name)
        zero, one = (Const(float(n), held.type) for n in (0, 1))
        with self.over_row():
            x = b.let(self.evaluator.at(most.operands[0], self.index), "x")
            # equal infinities are nothing apart
            apart = b.let(select(binary("eq", x, highest), zero, x - highest), "apart")
            power = b.let(unary("exp", unary("neg", unary("abs", apart))), "power")
            grows = b.let(binary("gt", apart, zero), "grows")
            b.assign(held, fma(held, select(grows, power, one), select(grows, one, power)))
            b.assign(highest, combine(most, highest, x))
        self.complete(most, highest)
        top = self.reduced_value(most)
        apart = select(binary("eq", highest, top), zero, highest - top)
        b.assign(held, held * unary("exp", b.let(apart, "apart")))
        powers = self.combined("add", held)
        base = self.evaluator.at(shift, kept_index(most, self.index))
        finite = binary("lt", unary("abs", top), Const(math.inf, top.type))
        found = b.let(select(finite, powers, unary("exp", b.let(top - base, "apart"))), "total")
        assert isinstance(found, Name)
        super().complete(total, found)

    def combined(self, op: str, total: Name) -> Name:
        made = self.scope.b.block_reduce(op, total, self.plan.threads)
        assert isinstance(made, Name)
        return made

    @contextmanager
    def over_columns(self) -> Iterator[None]:
        """Where results of the row are stored: by one thread. Over the row it has nothing to do."""
        with self.scope.b.loop(1, "thread", "first"):
            yield


def is_finite_part(shift: Value, most: Value) -> bool:
    """Whether `shift` is `most`, or at least where that is finite."""
    node = shift.node
    if shift == most or node is None or node.op is not ops.where:
        return shift == most
    condition, _, otherwise = node.operands
    test = condition.node
    return (
        otherwise is most and test is not None and test.op is ops.isinf and test.operands[0] == most
    )


class WarpRows(BlockRows):
    """A row for each warp, or for 2, 4, 8 or 16 threads of one."""

    @contextmanager
    def open_rows(self) -> Iterator[None]:
        b, plan = self.scope.b, self.plan
        sizes = self.row_sizes(self.layout.kept)
        count, own = (
            self.scope.expr(numel(tuple(extent for extent, _ in sizes))),
            plan.threads // plan.width,
        )
        blocks = b.let((count + (own - 1)) // own, "blocks")
        with b.block_loop(blocks, plan.threads) as block, b.loop(plan.threads, "thread", "t") as t:
            row = b.let(block * own + t // plan.width, "row")
            self.inside = b.let(binary("lt", row, count), "inside")
            self.lane = b.let(t % plan.width, "lane")
            self.first = b.let(binary("and", self.inside, binary("eq", self.lane, 0)), "first")
            self.mask = self.inside
            self.bind_row(b.let(upper_bound(row, count - 1), "row"), sizes)
            yield

    @contextmanager
    def over_row(self) -> Iterator[None]:
        b, plan = self.scope.b, self.plan
        low, high = self.ends
        if self.steps is None:
            first = low + self.lane * plan.lanes
            with b.loop(high, "serial", "i", first, plan.stride) as i, self.elements(i):
                yield
            return
        with self.kept_elements(self.lane, high):
            yield

    def combined(self, op: str, total: Name) -> Name:
        made = self.scope.b.let(warp_reduce(op, total, self.plan.width), "total")
        assert isinstance(made, Name)
        return made

    @contextmanager
    def over_columns(self) -> Iterator[None]:
        self.mask = self.first
        yield
        self.mask = self.inside

    def flush(self, scope: WideScope) -> None:
        if scope.holds_results:
            with scope.b.when(self.inside):
                super().flush(scope)


class BlockColumns(SharedRows):
    """Neighbouring columns for each block: in each of them some threads go down side by side."""

    @contextmanager
    def open_rows(self) -> Iterator[None]:
        b, width = self.scope.b, self.plan.width
        self._parts: dict[DType, Buffer] = {}
        extent = self.layout.kept[-1].extent
        self.columns = self.scope.expr(extent)
        sizes = [
            *self.row_sizes(self.layout.kept[:-1]),
            (ceildiv(extent, width), self._bind_columns),
        ]
        count = numel(tuple(size for size, _ in sizes))
        with b.block_loop(self.scope.expr(count), self.plan.threads) as block:
            self.bind_row(block, sizes)
            yield

    def _bind_columns(self, value: Expr) -> None:
        self.first_column = self.scope.b.let(value * self.plan.width, "c0")

    def plan_kept_rows(self) -> None:
        """Nothing: a thread has as many elements as the columns are long."""

    @contextmanager
    def at_column(self, own: Expr) -> Iterator[None]:
        """Column `own` of the block, where there is one."""
        b = self.scope.b
        column = b.let(self.first_column + own, "c")
        with b.when(binary("lt", column, self.columns)):
            self.scope.binder(self.index[self.layout.kept[-1].axis])(column)
            self.own = own
            yield

    @contextmanager
    def over_row(self) -> Iterator[None]:
        b, width = self.scope.b, self.plan.width
        low, high = self.ends
        with (
            b.loop(self.plan.threads, "thread", "t") as t,
            self.at_column(b.let(t % width, "own")),
            b.loop(
                high, "serial", "i", b.let(low + t // width, "start"), self.plan.threads // width
            ) as i,
            self.elements(i),
        ):
            yield

    @contextmanager
    def over_columns(self) -> Iterator[None]:
        with self.scope.b.loop(self.plan.width, "thread", "own") as own, self.at_column(own):
            yield

    def column(self) -> Expr:
        return self.own

    def start(self, node: Node) -> Name | Buffer:
        return self.scope.b.var(identity(node), node.op.name)

    def complete(self, node: Node, total: Name | Buffer) -> None:
        """The totals of the threads of a column combined in a line of shared memory."""
        assert isinstance(total, Name)
        b, width, threads = self.scope.b, self.plan.width, self.plan.threads
        parts = self.parts(accumulator(node))
        line = b.shared(accumulator(node), width, node.op.name)
        with b.loop(threads, "thread", "t") as t:
            b.store(parts, t, total)
        b.barrier()
        with b.loop(width, "thread", "own") as own:
            found = b.let(load(parts, own), "total")
            for other in range(1, threads // width):
                found = b.let(combine(node, found, load(parts, own + other * width)), "total")
            b.store(line, own, found)
        b.barrier()
        super().complete(node, line)

    def parts(self, dtype: DType) -> Buffer:
        """A line of shared memory with a place for each thread, which all totals go through."""
        if dtype not in self._parts:
            self._parts[dtype] = self.scope.b.shared(dtype, self.plan.threads, "parts")
        return self._parts[dtype]
