"""Attention by blocks of threads, with an online softmax: scores are never in memory.

A block owns some queries and goes through the keys, block by block: scores, their exponentials, and
the weighted values, added to what the blocks before gave after scaling that to the new maximum
(https://arxiv.org/abs/2307.08691). The next keys and values are on their way while these are worked
on. With a causal mask, blocks of keys that no query of the block sees are not visited. Exponentials
are powers of two, with the scale of the scores in the same multiply-add where that can be.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from graphtorch.ir.dtype import DType, bf16, f16, f32, f64, i32
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, evaluate, numel

from ...cpu.contraction.choice import guess
from ...cpu.cost import traffic
from ...cpu.loops.places import Places
from ...kernels.body.access import broadcast_to, resolve
from ...kernels.body.pointwise import logical_not
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space
from ...kernels.contraction.problem import Axis, Source, axis, stride
from ...kernels.ir import (
    TILE,
    Await,
    Buffer,
    Const,
    Expr,
    KType,
    Name,
    Publish,
    Settle,
    binary,
    cast,
    fma,
    load,
    select,
    unary,
    warp_reduce,
)
from ...kernels.program.program import Slot
from ..machine import gpu_of
from .dropping import Dropping, Kept
from .operands import bind
from .panels import (
    Panel,
    Products,
    Sizes,
    clear,
    each,
    padded,
    products_of,
    stored,
    sums_of,
)
from .parts import both, is_multiple
from .products import thread_of
from .tile_panels import LINE, TilePanel, TileProducts
from .warpgroup_tiles import GROUP

WIDEST = {f64: 128, f32: 256, f16: 256, bf16: 256}  # features for which a block's memory is enough
FEW = 4  # queries: so few have no more scores than keys have elements
LOG2E, LN2 = math.log2(math.e), math.log(2)


def fits(node: Node) -> bool:
    """Whether the kernel takes an attention node."""
    return fits_blocks(node, WIDEST)


def fits_blocks(node: Node, widest: dict[DType, int]) -> bool:
    """Whether blocks of threads compute attention: floats, heads of known, moderate size."""
    q, k, v = node.operands[:3]
    sizes = q.shape[-1], v.shape[-1]
    few = isinstance(q.shape[-2], int) and q.shape[-2] < FEW
    known = all(isinstance(d, int) and 0 < d <= widest.get(q.dtype, 0) for d in sizes)
    return known and not few and 0 not in k.shape


def lower_attention(places: Places, node: Node) -> None:
    """One kernel for the result and the rows' log-sum-exp."""
    results = [places.result_slot(r) for r in node.results()]
    if 0 in node.types[0].shape:
        return
    problem = AttentionProblem(places, node, "attention")
    out = [
        problem.result(slot, r, index)
        for slot, r, index in zip(
            results, node.results(), (problem.of_out, problem.of_query), strict=True
        )
    ]
    by_groups = grouped(problem)
    sizes = sizes_of_groups(problem) if by_groups else sizes_of(problem)
    (_Pipelined if by_groups else _Forward)(problem, sizes, out[0], out[1]).emit()
    problem.launch(f"attention [blocks {sizes}]", 2)


def sizes_of(p: AttentionProblem) -> Sizes:
    """Fewer queries where more would leave multiprocessors without work; fewer keys for wide heads.

    Masks take registers, of which more queries leave none.
    """
    wide, length = padded(max(p.inner.extent, p.feature.extent)), guess(p.query.extent)
    if p.dtype.itemsize > 2:
        room = wide * p.dtype.itemsize  # bytes of a row
        rows = 64 if room <= 512 else 32 if room <= 896 else 16
        # GPUs with groups of warps have shared memory for two blocks of twice the keys: each row of
        # queries that is read is multiplied by two of keys then
        much = gpu_of(p.e.lowering).warpgroups and p.dtype is f32 and room <= 512
        others = 64 if room <= 128 else 32 if room <= 256 or much else 16
        return Sizes(rows, others, resident=int(p.dtype is f64 or rows < 64))
    blocks = guess(numel(tuple(a.extent for a in p.batch))) * -(-length // 128)
    small = wide > 128 or length <= 64 or p.crowded or blocks < gpu_of(p.e.lowering).multiprocessors
    return Sizes(64 if small else 128, 64 if wide <= 64 else 32)


def grouped(p: AttentionProblem) -> bool:
    """Whether groups of four warps multiply: heads fill most of the lines that they are padded
    to."""
    narrow = min(int(p.inner.extent), int(p.feature.extent)) <= LINE // 2
    return gpu_of(p.e.lowering).warpgroups and p.dtype.itemsize == 2 and not narrow


def sizes_of_groups(p: AttentionProblem) -> Sizes:
    """One group where two would leave multiprocessors without work.

    Of narrow heads two blocks, which do not wait for each other, share a multiprocessor: but with
    masks they would have too few registers.
    """
    wide, length = max(int(p.inner.extent), int(p.feature.extent)), guess(p.query.extent)
    blocks = guess(numel(tuple(a.extent for a in p.batch))) * -(-length // (2 * TILE))
    groups = 1 if length <= TILE or blocks < gpu_of(p.e.lowering).multiprocessors else 2
    others = 2 * TILE if LINE < wide <= 2 * LINE and not p.crowded else TILE
    resident = 2 if wide <= LINE and not p.crowded else 1
    return Sizes(groups * TILE, others, groups * GROUP, resident)


class AttentionProblem:
    """The operands of attention, or of its gradient, by batch entry, query, key and feature; and a
    kernel.

    Attributes:
        batch, query, key, inner, feature: axes; `inner` of queries and keys, `feature` of values.
        masks: of the scores.
    """

    def __init__(self, places: Places, node: Node, hint: str):
        self.places, self.node = places, node
        q, k, v = node.operands[:3]
        grad = node.op.name.endswith("_grad")
        shape = node.operands[4].shape if grad else node.types[1].shape
        self.dtype = q.dtype
        self.acc = KType(f64 if q.dtype is f64 else f32)
        self.nothing = self.constant(-math.inf)
        self.power = (
            "exp2" if q.dtype is f64 else "near_exp2"
        )  # of 2: a share of all, denormal or 0
        self.space = space = Space()
        self.e = Scope(places.lowering, hint, space)
        self.batch = [axis(space, d) for d in shape[:-1]]
        self.query, self.key = axis(space, shape[-1]), axis(space, k.shape[-2])
        self.inner, self.feature = axis(space, q.shape[-1]), axis(space, v.shape[-1])
        at = tuple(a.variable for a in self.batch)
        self.of_query = (*at, self.query.variable)
        self.of_q, self.of_out = ((*self.of_query, x.variable) for x in (self.inner, self.feature))
        self.of_k, self.of_v = (
            (*at, self.key.variable, x.variable) for x in (self.inner, self.feature)
        )
        self.q, self.k, self.v = (
            self.operand(x, i) for x, i in ((q, self.of_q), (k, self.of_k), (v, self.of_v))
        )
        rest = node.operands[6:] if grad else node.operands[3:]
        self.dropping: Dropping | None = None
        masks = rest
        if node.op.name.startswith("dropped"):
            seed, offset, *masks = rest
            state = places.materialise(seed), places.materialise(offset)
            self.dropping = Dropping(self.e, state, float(node.attrs.kept), k.shape[-2])
            self.scores = Source(
                state[0],
                self.acc.dtype,
                space.linear((*self.of_query, self.key.variable), (*shape, k.shape[-2])),
            )
        # masks, and what is kept, take registers, of which more queries leave none
        self.crowded = bool(masks) or self.dropping is not None
        self.masks = [self.operand(m, (*self.of_query, self.key.variable)) for m in masks]
        self.is_causal, self.scale = bool(node.attrs.is_causal), float(node.attrs.scale)
        self.folded = self.scale > 0 and all(m.dtype.is_bool for m in self.masks)
        # what a score is multiplied by to be an exponent of 2, when it is taken to that power or
        # before
        self.late, self.early = (
            (self.scale * LOG2E, 1.0) if self.folded else (1.0, self.scale * LOG2E)
        )

    def constant(self, number: float) -> Const:
        """A number of the dtype of scores."""
        return Const(number, self.acc)

    def operand(self, value: Value, index: tuple[Dim, ...]) -> Source:
        """An operand at `index`, broadcast to it: where it lies, with any strides, or computed
        first."""
        index = broadcast_to(index, value)
        access = resolve(value, index)
        if access is not None and not access.casts and access.leaf in self.places.slots:
            slot = self.places.slots[access.leaf]
            return Source(slot, slot.dtype, access.address)
        slot = self.places.materialise(value)
        return Source(slot, slot.dtype, self.space.linear(index, value.shape))

    def result(self, slot: Slot, value: Value, index: tuple[Dim, ...]) -> Source:
        """What lies row-major in `slot`, at `index` broadcast to it."""
        return Source(slot, slot.dtype, self.space.linear(broadcast_to(index, value), value.shape))

    def launch(self, label: str, products: int) -> None:
        """Args: products: how many of the scores' size by a head's features the kernel computes."""
        work = numel((*(a.extent for a in self.batch), self.query.extent, self.key.extent))
        flops = products * work * (int(self.inner.extent) + int(self.feature.extent))
        self.e.launch(label, flops, traffic((*self.node.operands, *self.node.results())))

    @property
    def factor(self) -> float:
        """What shares that are kept are multiplied by."""
        return 1.0 if self.dropping is None else 1.0 / self.dropping.kept

    # -- the parts of kernels

    @contextmanager
    def blocks(
        self, rows: Axis, batch: list[Axis], sizes: Sizes, last_first: bool
    ) -> Iterator[tuple[Expr, Name]]:
        """The loop over blocks: of each the first of its rows, and the number of a thread.

        The variables of `batch` are bound. Args: last_first: the last rows are the most work.
        """
        e, b = self.e, self.e.b
        tiles = b.let((e.expr(rows.extent) + (sizes.rows - 1)) // sizes.rows, "tiles")
        total = tiles
        for a in batch:
            total = total * e.expr(a.extent)
        with b.block_loop(b.let(total, "total"), sizes.threads, resident=sizes.resident) as block:
            tile = block % tiles
            if last_first:
                tile = tiles - 1 - b.let(tile, "tile")
            if batch:
                bind(e, batch, b.let(block // tiles, "rest"))
            start = b.let(tile * sizes.rows, "start")
            if self.dropping is not None:
                self.dropping.begin()
            yield start, thread_of(e, sizes.threads)

    def base(self, source: Source) -> Expr:
        """Where the first element of the batch entry that is bound lies."""
        zero = {a.name: 0 for a in (self.query, self.key, self.inner, self.feature)}
        return self.e.expr(evaluate(source.address, zero))

    def place(self, source: Source, base: Expr, at: dict[Axis, Expr]) -> Expr:
        """How far from `base` on an element lies."""
        for a, index in at.items():
            base = base + index * self.e.expr(stride(source.address, a))
        return base

    def see(
        self,
        products: Products[Any],
        scores: Buffer,
        others: int,
        own: tuple[Axis, Expr],
        met: tuple[Axis, Expr],
        visible: Expr,
    ) -> None:
        """Apply masks to scores of `own` rows by `met` columns from these first ones on.

        Args: visible: whether all queries see all the keys, but for masks; it is the same for all
            threads.
        """
        e, b = self.e, self.e.b

        def indices(i: Expr, j: Expr) -> dict[Axis, Expr]:
            return {
                own[0]: b.let(own[1] + products.row(i), "row"),
                met[0]: b.let(met[1] + products.column(j), "column"),
            }

        if self.masks or self.early != 1.0:
            bases = [b.let(self.base(m), "base") for m in self.masks]
            sizes = {own[0]: products.sizes.rows, met[0]: others}
            with each(e, products, others) as (i, j, at):
                x: Expr = load(scores, at)
                if self.early != 1.0:
                    x = x * self.constant(self.early)
                for mask, base in zip(self.masks, bases, strict=True):
                    x = self._masked(x, mask, base, indices(i, j), sizes)
                b.store(scores, at, x)
        with b.when(logical_not(visible)):
            self._hide(products, scores, others, own, met)

    def kept(
        self,
        products: Products[Any],
        others: int,
        own: tuple[Axis, Expr],
        met: tuple[Axis, Expr],
    ) -> Kept | None:
        """Which of the scores of `own` rows by `met` columns from these first ones on are kept;
        None: all."""
        if self.dropping is None:
            return None
        first = self.e.b.let(self.base(self.scores), "scores")

        def position(i: Expr, j: Expr) -> Expr:
            at = {own[0]: own[1] + products.row(i), met[0]: met[1] + products.column(j)}
            return self.place(self.scores, first, at)

        return self.dropping.bits(products, others, position, met[0] is self.key)

    def _hide(
        self,
        products: Products[Any],
        scores: Buffer,
        others: int,
        own: tuple[Axis, Expr],
        met: tuple[Axis, Expr],
    ) -> None:
        """Scores become -inf beyond the last column, and where a query comes before a key.

        What a row sees lies between two columns, found once, as numbers of 32 bits.
        """
        e, b = self.e, self.e.b
        left = b.let(met[1] + products.column(Const(0)), "left")

        def number(column: Expr) -> Expr:
            near = binary("max", binary("min", column - left, others), -1)
            return b.let(cast(near, i32), "bound")

        with b.loop(products.own, "unroll") as i:
            row = b.let(own[1] + products.row(i), "row")
            low, high = None, e.expr(met[0].extent) - 1
            if self.is_causal and own[0] is self.query:
                high = binary("min", high, row)
            elif self.is_causal:
                low = number(row)
            high = number(high)
            with b.loop(products.columns(others), "unroll", "j") as j:
                column = b.let(cast(products.beyond(j), i32), "column")
                inside = binary("le", column, high)
                if low is not None:
                    inside = binary("and", inside, binary("le", low, column))
                at = products.at(i, j, others)
                b.store(scores, at, select(inside, load(scores, at), self.nothing))

    def _masked(
        self, x: Expr, mask: Source, base: Expr, at: dict[Axis, Expr], sizes: dict[Axis, int]
    ) -> Expr:
        """A score with a mask applied, at these indices, of tiles of these sizes."""
        e, b = self.e, self.e.b
        inside = both(
            [
                binary("lt", index, e.expr(a.extent))
                for a, index in at.items()
                if stride(mask.address, a) != 0 and not is_multiple(a.extent, sizes[a])
            ]
        )
        m = load(
            e.buffer(mask.slot, hint="mask"),
            b.let(self.place(mask, base, at), "at"),
            mask=None if inside is None else b.let(inside, "inside"),
        )
        if mask.dtype.is_bool:
            return select(m, x, self.nothing)
        return x + cast(m, self.acc.dtype) * self.constant(LOG2E)


P = TypeVar("P", Panel, TilePanel)


class _Kernel(ABC, Generic[P]):
    """The kernel of one attention node.

    Attributes:
        stages: of keys and of values.
        q, k, v: queries, keys and values in shared memory.
    """

    stages: tuple[int, int]
    products: Products[P]
    q: P
    k: P
    v: P

    def __init__(self, p: AttentionProblem, sizes: Sizes, out: Source, lse: Source):
        self.p, self.e, self.sizes, self.out, self.lse = p, p.e, sizes, out, lse

    def emit(self) -> None:
        p, e, b, sizes = self.p, self.e, self.e.b, self.sizes
        with p.blocks(p.query, p.batch, sizes, p.is_causal) as (start, thread):
            self.start, self.thread = start, thread
            self.products = products = self.made_products()
            self.q, self.k, self.v = self.panels()
            self.size = size = e.expr(p.key.extent)
            end = b.let(binary("min", size, start + sizes.rows), "end") if p.is_causal else size
            self.bases = [b.let(x.base(), "base") for x in (self.k, self.v)]
            self.q.fetch(b.let(self.q.base(), "base"), start, e.expr(p.query.extent), 0)
            self.steps = b.let((end + (sizes.others - 1)) // sizes.others, "steps")
            self.begin()
            own, acc = products.own, products.acc
            self.sums = sums_of(e, products, self.v.width, "sums")
            self.scores = b.scratch(acc, own * products.columns(sizes.others), "scores")
            self.weights = products.weights("weights")
            self.most, self.total = (b.scratch(acc, own, name) for name in ("most", "total"))
            clear(e, self.most, own, -math.inf)
            clear(e, self.total, own)
            self.through()
            self._finish()

    @abstractmethod
    def made_products(self) -> Products[P]:
        """How threads multiply."""

    @abstractmethod
    def panels(self) -> tuple[P, P, P]:
        """Queries, keys and values in shared memory."""

    @abstractmethod
    def begin(self) -> None:
        """Begin to bring what the first step needs."""

    @abstractmethod
    def through(self) -> None:
        """Go through the keys."""

    def fetch(self, step: Expr, *which: int) -> None:
        """Begin to bring a step's keys (0) and values (1)."""
        b = self.e.b
        first = b.let(step * self.sizes.others, "first")
        for i in which:
            (self.k, self.v)[i].fetch(self.bases[i], first, self.size, self.stage(step, i))

    def stage(self, step: Expr, which: int) -> Expr:
        """Where a step's keys (0) or values (1) are."""
        return self.e.b.let(step % self.stages[which], "stage")

    def see(self, step: Expr) -> None:
        """Apply masks to the scores of a step."""
        p, e, b, others = self.p, self.e, self.e.b, self.sizes.others
        first = b.let(step * others, "first")
        visible = binary("le", first + others, e.expr(p.key.extent))
        if p.is_causal:
            visible = binary("and", visible, binary("le", first + others, self.start + 1))
        own, met = (p.query, self.start), (p.key, first)
        p.see(self.products, self.scores, others, own, met, b.let(visible, "visible"))

    def _scale(self, i: Expr, factor: Expr) -> None:
        """Multiply the thread's row `i` of the sums so far."""
        b, width = self.e.b, self.v.width
        with b.loop(self.products.columns(width), "unroll", "j") as j:
            at = self.products.at(i, j, width)
            b.store(self.sums, at, load(self.sums, at) * factor)

    def _exponentials(self, scale: Callable[[Expr, Expr], None]) -> None:
        """The scores become exp(score - maximum); maxima and totals follow.

        Args: scale: takes a row and what the sums so far have to be multiplied by.
        """
        p, b, others = self.p, self.e.b, self.sizes.others
        products, scores, most, total = self.products, self.scores, self.most, self.total
        late = p.constant(p.late)
        with b.loop(products.own, "unroll") as i:
            new = b.var(load(most, i), "new")
            with b.loop(products.columns(others), "unroll", "j") as j:
                b.assign(new, binary("maxnum", new, load(scores, products.at(i, j, others))))
            all = b.let(warp_reduce("max", new, products.shared_by), "most")
            finite = b.let(
                select(binary("eq", all, p.nothing), p.constant(0.0), all) * late, "finite"
            )
            factor = b.let(unary(p.power, load(most, i) * late - finite), "factor")
            b.store(most, i, all)
            part = b.var(load(total, i) * factor, "part")
            with b.loop(products.columns(others), "unroll", "j") as j:
                at = products.at(i, j, others)
                x = b.let(unary(p.power, fma(load(scores, at), late, -finite)), "share")
                b.store(scores, at, x)
                b.assign(part, part + x)
            b.store(total, i, part)
            scale(i, factor)

    def drop(self, step: Expr) -> None:
        """Exponentials of a step become 0 where shares are dropped, after their row was summed."""
        p, b, others = self.p, self.e.b, self.sizes.others
        own, met = (p.query, self.start), (p.key, b.let(step * others, "first"))
        kept = p.kept(self.products, others, own, met)
        if kept is not None:
            columns = self.products.columns(others)
            with each(self.e, self.products, others) as (i, j, at):
                b.store(self.scores, at, kept.only(i * columns + j, load(self.scores, at)))

    def _finish(self) -> None:
        p, e, b, products = self.p, self.e, self.e.b, self.products
        out, lse = (
            e.buffer(s.slot, "write", name) for s, name in ((self.out, "out"), (self.lse, "lse"))
        )
        first, rows = b.let(p.base(self.out), "base"), b.let(p.base(self.lse), "base")
        with b.loop(products.own, "unroll") as i:
            row = b.let(self.start + products.row(i), "row")
            whole = b.let(warp_reduce("add", load(self.total, i), products.shared_by), "total")
            none, zero = binary("eq", whole, p.constant(0.0)), p.constant(0.0)
            factor = b.let(select(none, zero, p.constant(p.factor) / whole), "factor")
            with b.when(binary("lt", row, e.expr(p.query.extent))):
                stored(
                    e,
                    products,
                    self.sums,
                    int(p.feature.extent),
                    out,
                    b.let(p.place(self.out, first, {p.query: row}), "where"),
                    i,
                    factor,
                )
                with b.when(binary("lt", products.column(Const(0)), Const(products.near))):
                    logs = load(self.most, i) * p.constant(p.late * LN2) + unary("log", whole)
                    b.store(lse, p.place(self.lse, rows, {p.query: row}), logs)


class _Forward(_Kernel[Panel]):
    """The next keys and values are on their way while these are worked on."""

    stages = 2, 2

    def made_products(self) -> Products[Panel]:
        return products_of(self.e, self.thread, self.sizes, self.p.dtype)

    def panels(self) -> tuple[Panel, Panel, Panel]:
        p, sizes = self.p, self.sizes
        q, k, v = (
            Panel(self.e, self.thread, sizes.threads, source, row, feature, rows, stages, hint)
            for source, row, feature, rows, stages, hint in (
                (p.q, p.query, p.inner, sizes.rows, 1, "q"),
                (p.k, p.key, p.inner, sizes.others, self.stages[0], "k"),
                (p.v, p.key, p.feature, sizes.others, self.stages[1], "v"),
            )
        )
        return q, k, v

    def begin(self) -> None:
        self.fetch(Const(0), 0, 1)

    def through(self) -> None:
        b, products = self.e.b, self.products
        with b.loop(self.steps, "rolled", "step") as step:
            b.emit(Await(0))
            b.barrier()  # all have their part of this step, and are done with the last one
            self.fetch(b.let(step + 1, "ahead"), 0, 1)
            products.multiply(self.scores, self.q, self.k, self.stage(step, 0))
            self.see(step)
            self._exponentials(lambda i, factor: self._scale(i, factor))
            self.drop(step)
            products.hold(self.weights, self.scores)
            if products.staged:
                b.barrier()
            products.weigh(self.sums, self.weights, self.v, self.stage(step, 1))
        b.emit(Await(0))


class _Pipelined(_Kernel[TilePanel]):
    """By groups of four warps: scores of a step are computed, and made weights, while the values of
    the step before are weighed (https://arxiv.org/abs/2407.08608, section 3.2)."""

    products: TileProducts
    stages = 3, 2

    def made_products(self) -> TileProducts:
        return TileProducts(self.e, self.thread, self.sizes, self.p.dtype)

    def panels(self) -> tuple[TilePanel, TilePanel, TilePanel]:
        p, sizes = self.p, self.sizes
        q, k, v = (
            TilePanel(
                self.e, self.thread, sizes.threads, source, p.batch, row, feature, rows, n, block, h
            )
            for source, row, feature, rows, n, block, h in (
                (p.q, p.query, p.inner, sizes.rows, 1, TILE, "q"),
                (p.k, p.key, p.inner, sizes.others, self.stages[0], sizes.others, "k"),
                (p.v, p.key, p.feature, sizes.others, self.stages[1], TILE, "v"),
            )
        )
        return q, k, v

    def begin(self) -> None:
        b = self.e.b
        self.fetch(Const(0), 0)
        b.emit(Await(2))
        self._fetch_keys(Const(1))

    def through(self) -> None:
        b, p = self.e.b, self.products
        self.factors = b.scratch(p.acc, p.own, "factors")
        self._step(Const(0))
        with b.loop(self.steps, "rolled", "step", lo=1) as step:
            self._step(step)
        self._arrive(0)
        p.weigh(self.sums, self.weights, self.v, self.stage(self.steps - 1, 1))
        b.emit(Settle(0, self.sums))

    def _arrive(self, groups: int) -> None:
        """All have their part of what is multiplied next, and are done with what was before."""
        self.e.b.emit(Await(groups))
        self.e.b.emit(Publish())
        self.e.b.barrier()

    def _fetch_keys(self, step: Expr) -> None:
        with self.e.b.when(binary("lt", step, self.steps)):
            self.fetch(step, 0)

    def _step(self, step: Expr) -> None:
        b, p, later = self.e.b, self.products, not isinstance(step, Const)
        self._arrive(1)
        p.multiply(self.scores, self.q, self.k, self.stage(step, 0))
        if later:
            p.weigh(self.sums, self.weights, self.v, self.stage(step - 1, 1))
        self.fetch(step, 1)
        b.emit(Await(2))
        b.emit(Settle(p.weighing if later else 0, self.scores))
        self.see(step)
        self._exponentials(lambda i, factor: b.store(self.factors, i, factor))
        self.drop(step)
        if later:
            b.emit(Settle(p.weighing, self.scores))
        # under a condition, which the compiler does not move what stands before it beyond: not to
        # where the sums have to be there
        self._fetch_keys(b.let(step + 2, "ahead"))
        if later:
            b.emit(Settle(0, self.sums))
            b.emit(Settle(0, self.weights))
            with b.loop(p.own, "unroll") as i:
                self._scale(i, b.let(load(self.factors, i), "factor"))
        p.hold(self.weights, self.scores)


__all__ = ["AttentionProblem", "fits", "fits_blocks", "lower_attention"]
