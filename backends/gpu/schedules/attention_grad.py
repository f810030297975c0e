"""The gradients of attention by blocks of threads: two kernels, again without scores in memory.

The shares follow from the saved log-sum-exp (https://arxiv.org/abs/2307.08691, algorithm 2). One
kernel has the gradients of queries: a block owns some and meets the keys. The other one has those
of keys and values: a block owns keys and meets the queries, of all heads that share them. So each
sum belongs to one block, and is added up in a fixed order. Both compute, of own rows x by others y,
and u by w (values or what arrives at the result):

    shares    exp(x . y scale - lse), and
    moved     shares (u . w - delta): the gradient of the scores

which weigh the others: moved . y, and, for values, shares . w. Heads whose sums of both are too
many for the registers have a kernel for each of the two.
"""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.ir.dtype import bf16, f16, f32, f64
from graphtorch.ir.graph import Node

from ...cpu.loops.places import Places
from ...dataclass import dataclass
from ...kernels.contraction.problem import Axis, Source, stride
from ...kernels.ir import Await, Buffer, Const, Expr, binary, fma, load, select, unary
from ...kernels.program.program import Slot
from .attention import LOG2E, AttentionProblem, fits_blocks
from .dropping import Kept
from .operands import bind
from .panels import Panel, Products, Sizes, each, padded, products_of, stored, sums_of

STAGES = 2
WIDEST = {f64: 112, f32: 256, f16: 256, bf16: 256}
TOGETHER = 512  # bytes of a row up to which gradients of keys and of values are one kernel's


def fits(node: Node) -> bool:
    """Whether the kernels take an attention_grad node: query heads may share keys and values, not
    queries."""
    q, k, v = node.operands[:3]
    rows = node.operands[4].shape
    known = 0 not in rows and 0 not in q.shape and k.shape[:-2] == v.shape[:-2]
    return known and q.shape[:-2] == rows[:-1] and fits_blocks(node, WIDEST)


def lower_attention_grad(places: Places, node: Node) -> None:
    """One kernel for the gradient of queries, one or two for those of keys and values."""
    slots = [places.result_slot(r) for r in node.results()]
    p = AttentionProblem(places, node, "attention_grad_queries")
    sizes = sizes_of(p)
    gq = p.result(slots[0], node.operands[0], p.of_q)
    _Gradient(p, sizes, *sides(p), p.batch, []).emit(gq, None)
    p.launch(f"attention_grad of queries [blocks {sizes}]", 3)
    if row_bytes(p) <= TOGETHER:
        _lower_keys(places, node, slots[1], slots[2])
    else:
        _lower_keys(places, node, slots[1], None)
        _lower_keys(places, node, None, slots[2])


def _lower_keys(places: Places, node: Node, to_keys: Slot | None, to_values: Slot | None) -> None:
    """The kernel of one of the two gradients, or of both."""
    names = [x for x, slot in (("keys", to_keys), ("values", to_values)) if slot is not None]
    p = AttentionProblem(places, node, f"attention_grad_{names[0]}")
    sizes = sizes_of(p)
    shared = [
        a
        for a in p.batch
        if stride(p.k.address, a) == stride(p.v.address, a) == 0 and a.extent != 1
    ]
    queries, keys = sides(p)
    gk, gv = (
        None if slot is None else p.result(slot, x, index)
        for slot, x, index in zip(
            (to_keys, to_values), node.operands[1:3], (p.of_k, p.of_v), strict=True
        )
    )
    batch = [a for a in p.batch if a not in shared]
    _Gradient(p, sizes, keys, queries, batch, shared).emit(gk, gv)
    p.launch(f"attention_grad of {names[0]} [blocks {sizes}]", 2 + len(names))


def row_bytes(p: AttentionProblem) -> int:
    """Bytes of a row in shared memory, of the sums of a row where these are wider."""
    return padded(max(p.inner.extent, p.feature.extent)) * max(p.dtype.itemsize, 4)


def sizes_of(p: AttentionProblem) -> Sizes:
    """What registers and 99 KiB of shared memory hold."""
    room = row_bytes(p)
    if p.dtype.itemsize > 2:
        double = p.dtype is f64
        rows = 64 if room <= 256 and not double else 32 if room <= TOGETHER else 16
        threads = 64 if rows == 32 and not double else 128
        alone = double or room <= 128 or room > TOGETHER
        return Sizes(rows, 32 if room <= 256 else 16, threads, int(alone))
    return Sizes(64, 64 if room <= 256 else 32 if room <= TOGETHER else 16)


@dataclass(frozen=True)
class Side:
    """Queries, with what arrives at their results; or keys, with their values."""

    axis: Axis
    x: Source
    u: Source


def sides(p: AttentionProblem) -> tuple[Side, Side]:
    return Side(p.query, p.q, p.operand(p.node.operands[3], p.of_out)), Side(p.key, p.k, p.v)


class _Gradient:
    """A kernel that sums gradients of its own rows; heads along the axes `shared` have them in
    common."""

    def __init__(
        self,
        p: AttentionProblem,
        sizes: Sizes,
        own: Side,
        met: Side,
        batch: list[Axis],
        shared: list[Axis],
    ):
        self.p, self.e, self.sizes, self.own, self.met = p, p.e, sizes, own, met
        self.batch, self.shared = batch, shared
        self.by_queries = own.axis is p.query
        rows = p.node.operands[4:6]
        self.lse, self.delta = (p.result(p.places.materialise(x), x, p.of_query) for x in rows)

    def emit(self, to_x: Source | None, to_u: Source | None) -> None:
        """Args: to_x: for sums of what moved weighs; to_u: of what shares weigh."""
        p, e, b, sizes = self.p, self.e, self.e.b, self.sizes
        self.moves = to_x is not None
        with p.blocks(self.own.axis, self.batch, sizes, p.is_causal and self.by_queries) as (
            start,
            thread,
        ):
            products = products_of(e, thread, sizes, p.dtype)
            x, u, y, w = (
                Panel(e, thread, sizes.threads, source, side.axis, feature, rows, stages, hint)
                if self.moves or hint != "u"
                else None
                for side, rows, stages, hints in (
                    (self.own, sizes.rows, 1, "xu"),
                    (self.met, sizes.others, STAGES, "yw"),
                )
                for source, feature, hint in (
                    (side.x, p.inner, hints[0]),
                    (side.u, p.feature, hints[1]),
                )
            )
            assert x is not None and y is not None and w is not None
            for panel in (x, u):
                if panel is not None:
                    first = b.let(panel.base(), "base")
                    panel.fetch(first, start, e.expr(self.own.axis.extent), 0)
            self._count(start)
            self._fetch((y, w), Const(0))
            wanted = [
                (to, panel, factor)
                for to, panel, factor in ((to_x, y, p.scale), (to_u, w, p.factor))
                if to is not None
            ]
            sums = [sums_of(e, products, panel.width, "sums") for _, panel, _ in wanted]
            self._through(products, (x, u, y, w), sums, start)
            for source, (to, panel, factor) in zip(sums, wanted, strict=True):
                self._store(products, source, panel.depth, to, start, factor)

    def _count(self, start: Expr) -> None:
        """How many steps there are: those of a head, as often as heads share the rows."""
        p, e, b, others = self.p, self.e, self.e.b, self.sizes.others
        end: Expr = e.expr(self.met.axis.extent)
        self.lowest: Expr = Const(0)
        if p.is_causal and self.by_queries:
            end = binary("min", end, start + self.sizes.rows)
        elif p.is_causal:
            self.lowest = b.let(start // others, "lowest")
        steps = b.let((end + (others - 1)) // others, "steps") - self.lowest
        self.each = b.let(binary("max", steps, Const(0)) if p.is_causal else steps, "each")
        total = self.each
        for a in self.shared:
            total = total * e.expr(a.extent)
        self.steps = b.let(total, "steps")

    def _first(self, step: Expr) -> Expr:
        """The first of the others that a step meets; the axes that heads share are bound."""
        b = self.e.b
        if self.shared:
            bind(self.e, self.shared, b.let(step // self.each, "head"))
            step = step % self.each
        return b.let((self.lowest + step) * self.sizes.others, "first")

    def _fetch(self, panels: tuple[Panel, Panel], step: Expr) -> None:
        b, count = self.e.b, self.e.expr(self.met.axis.extent)
        first = self._first(step)
        if self.shared:
            count = b.let(select(binary("lt", step, self.steps), count, Const(0)), "count")
        for panel in panels:
            panel.fetch(b.let(panel.base(), "base"), first, count, step % STAGES)

    def _through(
        self,
        products: Products[Panel],
        panels: tuple[Panel, Panel | None, Panel, Panel],
        sums: list[Buffer],
        start: Expr,
    ) -> None:
        """Go through the others."""
        (x, u, y, w), p, b, others = panels, self.p, self.e.b, self.sizes.others
        count = products.own * products.columns(others)
        shares, moved = (b.scratch(self.p.acc.dtype, count, name) for name in ("shares", "moved"))
        weights = [products.weights("weights") for _ in sums]
        if self.by_queries:
            rows = self._rows(products.own, lambda i: start + products.row(i))
        with b.loop(self.steps, "rolled", "step") as step:
            b.emit(Await(0))
            b.barrier()  # all have their part of this step, and are done with the last one
            self._fetch((y, w), b.let(step + 1, "ahead"))
            first, stage = self._first(step), b.let(step % STAGES, "stage")
            products.multiply(shares, x, y, stage)
            p.see(
                products,
                shares,
                others,
                (self.own.axis, start),
                (self.met.axis, first),
                b.let(self._visible(start, first), "visible"),
            )
            if u is not None:
                products.multiply(moved, u, w, stage)
            if not self.by_queries:
                self.first = first
                rows = self._rows(
                    products.columns(others), lambda j: self.first + products.column(j)
                )
            kept = p.kept(products, others, (self.own.axis, start), (self.met.axis, first))
            self._moves(products, shares, moved, rows, kept)
            pairs = [(moved, y), (shares, w)][0 if self.moves else 1 :]
            for weight, (values, _) in zip(weights, pairs, strict=False):
                products.hold(weight, values)
            if products.staged:
                b.barrier()
            for sum_, weight, (_, panel) in zip(sums, weights, pairs, strict=False):
                products.weigh(sum_, weight, panel, stage)
        b.emit(Await(0))

    def _visible(self, start: Expr, first: Expr) -> Expr:
        """Whether a step's others all exist, and queries see all of the keys."""
        visible = binary("le", first + self.sizes.others, self.e.expr(self.met.axis.extent))
        if not self.p.is_causal:
            return visible
        end = first + self.sizes.others if self.by_queries else start + self.sizes.rows
        return binary("and", visible, binary("le", end, (start if self.by_queries else first) + 1))

    def _rows(self, count: int, query: Callable[[Expr], Expr]) -> tuple[Buffer, Buffer]:
        """Of the queries of a thread's rows (or columns) the log-sum-exp as a power of 2, and
        delta."""
        p, e, b = self.p, self.e, self.e.b
        lse, delta = (b.scratch(self.p.acc.dtype, count, name) for name in ("lse", "delta"))
        first = b.let(p.base(self.lse), "base")
        with b.loop(count, "unroll") as i:
            at = b.let(query(i), "query")
            inside = b.let(binary("lt", at, e.expr(p.query.extent)), "inside")
            where = b.let(p.place(self.lse, first, {p.query: at}), "at")
            x = b.let(load(e.buffer(self.lse.slot, hint="lse"), where, mask=inside), "x")
            b.store(
                lse, i, select(binary("eq", x, p.nothing), p.constant(0.0), x) * p.constant(LOG2E)
            )
            b.store(delta, i, load(e.buffer(self.delta.slot, hint="delta"), where, mask=inside))
        return lse, delta

    def _moves(
        self,
        products: Products[Panel],
        shares: Buffer,
        moved: Buffer,
        rows: tuple[Buffer, Buffer],
        kept: Kept | None,
    ) -> None:
        """From scores and what arrives at them the shares, and what moves the scores."""
        b, late = self.e.b, self.p.constant(self.p.late)
        lse, delta = rows
        columns, factor = products.columns(self.sizes.others), self.p.constant(self.p.factor)
        with each(self.e, products, self.sizes.others) as (i, j, at):
            row = i if self.by_queries else j
            share = b.let(
                unary(self.p.power, fma(load(shares, at), late, -load(lse, row))), "share"
            )
            number, arrived = i * columns + j, load(moved, at)
            b.store(shares, at, share if kept is None else kept.only(number, share))
            if self.moves:
                if kept is not None:
                    arrived = kept.only(number, arrived * factor)
                b.store(moved, at, share * (arrived - load(delta, row)))

    def _store(
        self,
        products: Products[Panel],
        sums: Buffer,
        features: int,
        target: Source,
        start: Expr,
        factor: float,
    ) -> None:
        p, e, b, axis = self.p, self.e, self.e.b, self.own.axis
        out = e.buffer(target.slot, "write", "out")
        first = b.let(p.base(target), "base")
        with b.loop(products.own, "unroll") as i:
            row = b.let(start + products.row(i), "row")
            with b.when(binary("lt", row, e.expr(axis.extent))):
                where = b.let(p.place(target, first, {axis: row}), "where")
                stored(e, products, sums, features, out, where, i, p.constant(factor))


__all__ = ["fits", "lower_attention_grad"]
