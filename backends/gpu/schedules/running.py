"""Running reductions (cumsum, cumprod, cummax, cummin) by threads that share lines.

Where the elements of a line are neighbours in memory some threads of a warp, or a block, go along
it together. Each takes as many neighbours as an access of 16 bytes has and combines them; threads
and warps combine what stands before each of them, in the order of the line; each goes over its own
elements once more. Where neighbours belong to different lines each thread walks down one, and adds
f32 in f64.

Few long lines are cut into pieces: one kernel finds the total of each, the next one begins its
pieces with the totals of those before. How elements are grouped depends on sizes alone, so sums
are the same in each call.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from graphtorch.ir.dtype import DType, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, bounds

from ...cpu import cost
from ...cpu.loops.nest import ACCESS
from ...cpu.loops.places import Places
from ...cpu.whole.lines import Lines
from ...cpu.whole.running import beats, lower_scan, running_dtype, start, walked_dtype
from ...dataclass import dataclass
from ...kernels.body.pointwise import logical_not
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.ir import Buffer, Const, Expr, Name, binary, cast, from_lane, load, select
from ...kernels.program.program import Slot
from ...kernels.uniform import WARP
from ..machine import Gpu, gpu_of
from .rows import BLOCKS, FEW_BLOCKS, ceildiv

NEAR = 8  # lines side by side that are worth a thread each
MEDIUM = 4  # vectors of each thread of a warp; longer lines are a block's
THREADS, LEAST_THREADS = 256, 64  # of a block that has a line
WARPS_THREADS = 128  # of a block whose warps have lines of their own
TILES = 4  # of a piece, at least
STEPS, MOST_WALKS = 32, 64  # elements of a piece that one thread walks through, at least; pieces
RESIDENT = 1024  # threads that keep a multiprocessor busy

State = tuple[Expr, ...]  # a running value, and where it was found if that is asked for


@dataclass(frozen=True)
class Plan:
    """How threads share the lines.

    Attributes:
        threads: of a block; 0 where each thread has lines of its own.
        width: threads that share a line.
        lanes: neighbours that a thread takes at once.
        pieces: parts of a line, of `size` elements each.
    """

    threads: int
    width: int
    lanes: int
    pieces: int
    size: Dim

    @property
    def tile(self) -> int:
        """Elements of a line that its threads take at once."""
        return self.width * self.lanes


def choose(lines: Lines, itemsize: int, gpu: Gpu) -> Plan:
    """Args: itemsize: bytes of the largest elements that are read or written."""
    length, count = cost.guess(lines.length), max(1, cost.guess(lines.count))
    if bounds(lines.inner)[1] >= NEAR:
        plan = Plan(0, 1, 1, 1, lines.length)
        wanted = min(gpu.multiprocessors * RESIDENT // count, length // STEPS, MOST_WALKS)
        return _cut(plan, lines.length, wanted)
    lanes = ACCESS // itemsize if lines.inner == 1 else 1
    while isinstance(lines.length, int) and lines.length % lanes:
        lanes //= 2
    vectors = -(-length // lanes)
    if vectors <= MEDIUM * WARP:
        width = min(WARP, 1 << (vectors - 1).bit_length())
        return Plan(WARPS_THREADS, width, lanes, 1, lines.length)
    threads = min(THREADS, max(LEAST_THREADS, -(-vectors // (TILES * WARP)) * WARP))
    plan = Plan(threads, threads, lanes, 1, lines.length)
    if count >= FEW_BLOCKS * gpu.multiprocessors:
        return plan
    wanted = min(BLOCKS * gpu.multiprocessors // count, length // (TILES * plan.tile), threads)
    return _cut(plan, lines.length, wanted)


def _cut(plan: Plan, length: Dim, pieces: int) -> Plan:
    """`plan` with lines in about as many pieces, of whole tiles."""
    if pieces < 2:
        return plan
    size = ceildiv(ceildiv(length, pieces), plan.tile) * plan.tile
    count = ceildiv(length, size) if isinstance(size, int) else pieces
    return replace(plan, pieces=int(count), size=size)


def lower_running(places: Places, node: Node) -> None:
    """The kernel of a running reduction, or two where its lines are cut."""
    lower_scan(places, node, SharedLines)


class SharedLines:
    """The kernels of one running reduction."""

    def __init__(
        self, places: Places, node: Node, source: Slot, lines: Lines, results: dict[int, Slot]
    ):
        self.lowering, self.node, self.source = places.lowering, node, source
        self.lines, self.results = lines, results
        sizes = [s.dtype.itemsize for s in (source, *results.values())]
        self.moved: Dim = lines.elements * sum(sizes)
        self.plan = choose(lines, max(sizes), gpu_of(places.lowering))
        # sums of a few elements each are exact enough, but not products: of numbers near 1 each
        # rounding drops the same
        in_parts = self.plan.threads and node.op.name == "cumsum"
        first = running_dtype if in_parts else functools.partial(walked_dtype, node)
        self.dtypes: list[DType] = [first(source.dtype), i64][: len(results)]

    def emit(self) -> None:
        kernel = BlockLines if self.plan.threads else ThreadLines
        totals: list[Slot] = []
        if self.plan.pieces > 1:
            shape = (self.lines.count, self.plan.pieces)
            totals = [self.lowering.temporary(dtype, shape) for dtype in self.dtypes]
            kernel(self, totals, True).emit()
        kernel(self, totals, False).emit()


class Kernel:
    """A kernel that stores the running results; or (`ends`) the totals of all pieces."""

    def __init__(self, scan: SharedLines, totals: Sequence[Slot], ends: bool):
        self.scan, self.node, self.lines, self.plan = scan, scan.node, scan.lines, scan.plan
        self.ends = ends
        hint = f"{self.node.op.name}_totals" if ends else self.node.op.name
        self.scope = scope = Scope(scan.lowering, hint)
        self.b = scope.b
        written = totals if ends else scan.results.values()
        self.outputs = [scope.buffer(slot, "write") for slot in written]
        self.totals = [scope.buffer(slot) for slot in totals] if not ends else []
        self.source = scope.buffer(scan.source)

    def launch(self) -> None:
        scan = self.scan
        self.scope.launch(self.scope.hint, scan.lines.elements, scan.moved)

    # ---- running values

    def identity(self) -> State:
        """What stands before the first element."""
        return (start(self.node, self.scan.dtypes[0]), Const(0))[: len(self.scan.dtypes)]

    def combine(self, left: State, right: State) -> State:
        """Of neighbouring parts of a line."""
        b, name = self.b, self.node.op.name
        if name in ("cumsum", "cumprod"):
            op = "add" if name == "cumsum" else "mul"
            return (b.let(binary(op, left[0], right[0]), "total"),)
        taken = b.let(beats(self.node, right[0], left[0]), "taken")
        return self.select(taken, right, left)

    def select(self, condition: Expr, a: State, b: State) -> State:
        return tuple(self.b.let(select(condition, x, y), "kept") for x, y in zip(a, b, strict=True))

    def element(self, x: Expr, k: Expr) -> State:
        """Element `k` of a line, as it was read."""
        value = self.b.let(cast(x, self.scan.dtypes[0]), "x")
        return (value, k)[: len(self.scan.dtypes)]

    def register(self, state: State) -> tuple[Name, ...]:
        return tuple(self.b.var(x, "running") for x in state)

    def assign(self, registers: Sequence[Name], state: State) -> None:
        for name, value in zip(registers, state, strict=True):
            self.b.assign(name, value)

    def load(self, buffers: Sequence[Buffer], at: Expr, mask: Expr | None = None) -> State:
        return tuple(self.b.let(load(x, at, mask=mask), "held") for x in buffers)

    def store(self, buffers: Sequence[Buffer], at: Expr, state: State) -> None:
        for buffer, value in zip(buffers, state, strict=True):
            self.b.store(buffer, at, cast(value, buffer.dtype))

    def ends_of(self, piece: Expr) -> tuple[Expr, Expr]:
        """The first element of a piece, and the one after its last."""
        length = self.scope.expr(self.lines.length)
        if self.plan.pieces == 1:
            return Const(0), length
        size = self.scope.expr(self.plan.size)
        low = self.b.let(piece * size, "low")
        return low, self.b.let(upper_bound(low + size, length), "high")


class ThreadLines(Kernel):
    """A thread for each line, or piece of one; neighbours walk side by side."""

    def emit(self) -> None:
        b, lines, pieces = self.b, self.lines, self.plan.pieces
        inner, length = self.scope.expr(lines.inner), self.scope.expr(lines.length)
        with b.loop(self.scope.expr(lines.count * pieces), "parallel", "line") as line:
            column, rest = b.let(line % inner, "c"), b.let(line // inner, "rest")
            piece, outer = b.let(rest % pieces, "piece"), b.let(rest // pieces, "outer")
            low, high = self.ends_of(piece)
            running = self.register(self.identity())
            if self.totals:
                with b.loop(piece, name="before") as before:
                    at = b.let((outer * pieces + before) * inner + column, "at")
                    self.assign(running, self.combine(running, self.load(self.totals, at)))
            base = b.let(outer * length * inner + column, "base")
            with b.loop(high, name="k", lo=low) as k:
                at = b.let(base + k * inner, "at")
                x = self.element(load(self.source, at), k)
                self.assign(running, self.combine(running, x))
                if not self.ends:
                    self.store(self.outputs, at, running)
            if self.ends:
                self.store(self.outputs, line, running)
        self.launch()


class BlockLines(Kernel):
    """A block, or some threads of a warp, for each line or piece of one."""

    def emit(self) -> None:
        b, plan = self.b, self.plan
        own = plan.threads // plan.width
        count = self.scope.expr(self.lines.count * plan.pieces)
        blocks = b.let((count + (own - 1)) // own, "blocks")
        with b.block_loop(blocks, plan.threads) as block:
            self.begin(block, own, count)
            tiles = ceildiv(plan.size, plan.tile)
            carry = self.register(self.before())
            with b.loop(self.scope.expr(tiles), "rolled", "tile") as tile:
                self.take(tile, carry)
            if self.ends:
                with b.when(binary("eq", self.lane, 0)):
                    self.store(self.outputs, self.row, carry)
        self.launch()

    def begin(self, block: Expr, own: int, count: Expr) -> None:
        """Where the thread stands: in its block, and in its line."""
        b, plan, scope = self.b, self.plan, self.scope
        warps = plan.width // WARP
        self.shared = [
            b.shared(dtype, 2 * warps, "warps") for dtype in self.scan.dtypes if warps > 1
        ]
        number = b.var(Const(0), "thread")
        with b.loop(plan.threads, "thread", "t") as t:
            b.assign(number, t)
        self.thread: Expr = number
        self.lane = b.let(number % plan.width, "lane")
        row, high = block * own + number // plan.width if own > 1 else block, None
        if own > 1:
            row = b.let(row, "row")
            high = b.let(binary("lt", row, count), "inside")
            row = b.let(upper_bound(row, count - 1), "row")
        self.row = row
        self.piece = b.let(row % plan.pieces, "piece")
        line = b.let(row // plan.pieces, "line")
        self.low, end = self.ends_of(self.piece)
        # threads that have no line find nothing in it
        self.high = end if high is None else b.let(select(high, end, Const(0)), "end")
        length, inner = scope.expr(self.lines.length), scope.expr(self.lines.inner)
        self.step = inner
        self.base = b.let(line // inner * length * inner + line % inner, "base")

    def before(self) -> State:
        """What stands before the piece: the totals of the earlier ones, of which each thread has
        one."""
        if not self.totals:
            return self.identity()
        earlier = self.b.let(binary("lt", self.thread, self.piece), "earlier")
        at = self.b.let(self.row - self.piece + self.thread, "at")
        held = self.load(self.totals, at, earlier)
        return self.across(self.select(earlier, held, self.identity()), Const(1))[1]

    def take(self, tile: Expr, carry: tuple[Name, ...]) -> None:
        """The thread's elements of a tile; `carry` is what stands before it, and then after it."""
        b, plan = self.b, self.plan
        first = b.let(self.low + tile * plan.tile + self.lane * plan.lanes, "first")
        line = b.scratch(self.source.dtype, plan.lanes, "line")
        self.move(line, self.source, first, True)
        held = [b.scratch(dtype, plan.lanes, "held") for dtype in self.scan.dtypes]
        running = self.register(self.identity())
        with b.loop(plan.lanes, "unroll", "u") as u:
            k = b.let(first + u, "k")
            there = b.let(binary("lt", k, self.high), "there")
            x = self.select(there, self.element(load(line, u), k), self.identity())
            self.assign(running, self.combine(running, x))
            self.store(held, u, running)
        before, total = self.across(running, b.let(tile % 2, "half"))
        prefix = self.combine(carry, before)
        if not self.ends:
            self.finish(first, held, prefix)
        self.assign(carry, self.combine(carry, total))

    def finish(self, first: Expr, held: Sequence[Buffer], prefix: State) -> None:
        """Store the results of the thread's elements."""
        b, lanes = self.b, self.plan.lanes
        lines = [b.scratch(x.dtype, lanes, "out") for x in self.outputs]
        with b.loop(lanes, "unroll", "u") as u:
            self.store(lines, u, self.combine(prefix, self.load(held, u)))
        for buffer, line in zip(self.outputs, lines, strict=True):
            self.move(buffer, line, first, False)

    def move(self, to: Buffer, source: Buffer, first: Expr, read: bool) -> None:
        """Copy the thread's elements from or to memory; those beyond the line are 0, or stay."""
        b, lanes, last = self.b, self.plan.lanes, self.high
        at = b.let(self.base + first * self.step, "at")

        def one(u: Expr) -> None:
            there = binary("lt", first + u, last)
            place = at + u * self.step
            if read:
                b.store(to, u, load(source, place, mask=there))
            else:
                b.store(to, place, load(source, u), there)

        if lanes == 1:
            one(Const(0))
            return
        full = b.let(binary("le", first + lanes, last), "full")
        with b.when(full):
            places = (Const(0), at) if read else (at, Const(0))
            b.store(to, places[0], load(source, places[1], lanes))
        with b.when(logical_not(full)), b.loop(lanes, "unroll", "u") as u:
            one(u)

    # ---- threads that share a line

    def across(self, mine: State, half: Expr) -> tuple[State, State]:
        """What the threads before this one have, and what all of them have.

        Args: half: of the shared memory, another one than the last time: so one barrier will do.
        """
        b, width = self.b, min(self.plan.width, WARP)
        lane = b.let(self.thread % WARP, "lane")
        within = b.let(lane % width, "within")
        inclusive, distance = mine, 1
        while distance < width:
            other = self.from_lane(inclusive, binary("and", lane - distance, Const(WARP - 1)))
            after = b.let(binary("ge", within, Const(distance)), "after")
            inclusive = self.select(after, self.combine(other, inclusive), inclusive)
            distance *= 2
        before = self.identity()
        if width > 1:
            other = self.from_lane(inclusive, binary("and", lane - 1, Const(WARP - 1)))
            before = self.select(b.let(binary("gt", within, 0), "after"), other, before)
        if self.shared:
            return self.across_warps(inclusive, before, lane, half)
        return before, self.from_lane(inclusive, lane - within + (width - 1))

    def across_warps(
        self, inclusive: State, before: State, lane: Expr, half: Expr
    ) -> tuple[State, State]:
        b, warps = self.b, self.plan.width // WARP
        warp, base = b.let(self.thread // WARP, "warp"), b.let(half * warps, "base")
        with b.when(binary("eq", lane, WARP - 1)):
            self.store(self.shared, base + warp, inclusive)
        b.barrier()
        total, earlier = self.identity(), self.identity()
        for i in range(warps):
            held = self.load(self.shared, base + i)
            total = self.combine(total, held) if i else held
            if i + 1 < warps:
                is_earlier = b.let(binary("lt", Const(i), warp), "earlier")
                earlier = self.select(is_earlier, total, earlier)
        return self.combine(earlier, before), total

    def from_lane(self, state: State, lane: Expr) -> State:
        at = self.b.let(lane, "from")
        return tuple(self.b.let(from_lane(x, at), "other") for x in state)


__all__ = ["lower_running"]
