"""The gradients of attention as one kernel, again without scores in memory.

A task owns all gradients of one head. It goes through the keys block by block and, for each block,
through the queries; the shares follow from the saved log-sum-exp (https://arxiv.org/abs/2307.08691,
algorithm 2):

    shares [queries, keys]      exp(q . k - lse), and
    moved [queries, keys]       shares (g . v - delta) scale: the gradient of the scores

in scratch memory, vectors along keys. The gradients of a block's keys and values are summed in
scratch memory, too, those of the queries in the result. Keys beyond the last are zeros, computed
and not stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, numel

from ...dataclass import dataclass
from ...kernels.contraction.problem import Axis, Source, axis
from ...kernels.ir import Const, Expr, KType, binary, load, select, unary
from ...kernels.machine import SERIAL_WORK
from ...kernels.program.program import Slot
from ..contraction.schedule import TASK_WORK, Tiling, row_sizes
from ..contraction.writer import PartialWriter
from ..cost import traffic
from ..loops.places import Places
from .tiles import AddingWriter, Blocks, Span, fits_blocks, rest_rows, vector_tiling

QUERIES = 64  # in a block: two blocks of shares beside those of keys and values fit the L2 cache


def fits(node: Node) -> bool:
    """Whether the kernel takes an attention_grad node: f32 or f64, each query head with keys of its
    own."""
    q, k, v = node.operands[:3]
    batch = node.operands[4].shape[:-1]
    own = all(x.shape[:-2] == batch for x in (q, k, v))
    return own and q.dtype.itemsize >= 4 and 0 not in q.shape and fits_blocks(q, k, v)


def lower_attention_grad(places: Places, node: Node) -> None:
    """One kernel for the gradients of queries, keys and values."""
    results = [places.result_slot(r) for r in node.results()]
    if 0 not in node.operands[4].shape:
        AttentionGradKernel(places, node, results).emit()


@dataclass(frozen=True)
class Wide:
    """Tiles of a product whose columns are features: `keys` rows of a block, or rows of any
    number."""

    columns: Tiling
    keys: Tiling
    rest: Tiling


class AttentionGradKernel(Blocks):
    """The kernel of one attention_grad node under construction."""

    def __init__(self, places: Places, node: Node, results: Sequence[Slot]):
        q, k, v, g, lse, delta = node.operands[:6]
        super().__init__(places, node, q.dtype, "attention_grad")
        space, shape = self.space, lse.shape
        self.length, self.size, self.depth, self.width = (
            shape[-1],
            k.shape[-2],
            q.shape[-1],
            v.shape[-1],
        )
        self.keys = 2 * self.lanes
        self.batch = [axis(space, d) for d in shape[:-1]]
        self.first, self.key = axis(space, self.size), axis(space, self.keys)
        self.start, self.query = axis(space, self.length), axis(space, QUERIES)
        self.feature, self.inner = axis(space, self.width), axis(space, self.depth)
        self.held, self.count = axis(space, self.keys + 1), axis(space, QUERIES + 1)
        at = tuple(a.variable for a in self.batch)
        self.row = (*at, self.start.variable + self.query.variable)
        place = (*at, self.first.variable + self.key.variable)
        of_q, of_k, of_v = (
            (*self.row, self.inner.variable),
            (*place, self.inner.variable),
            (*place, self.feature.variable),
        )
        self.q, self.k, self.v = (
            self.operand(places, x, i) for x, i in ((q, of_q), (k, of_k), (v, of_v))
        )
        self.gq, self.gk, self.gv = (
            self.result(slot, x, i)
            for slot, x, i in zip(results, (q, k, v), (of_q, of_k, of_v), strict=True)
        )
        self.g = self.operand(places, g, (*self.row, self.feature.variable))
        self.lse, self.delta = (
            self.result(places.materialise(x), x, self.row) for x in (lse, delta)
        )
        self.masks = [self.operand(places, m, (*self.row, place[-1])) for m in node.operands[6:]]
        self.across = {int(a.extent): self._wide(int(a.extent)) for a in (self.feature, self.inner)}

    def _wide(self, extent: int) -> Wide:
        vectors = 4 if self.machine.registers >= 32 else 2
        columns, most = vector_tiling(extent, vectors, self.lanes, self.machine)
        rest = (4, 1) if most >= 4 else (1,)
        return Wide(columns, Tiling(row_sizes(self.keys, most)), Tiling(rest))

    def emit(self) -> None:
        head = self.length * self.size * (3 * self.depth + 2 * self.width)
        total = numel(tuple(a.extent for a in self.batch)) * head
        parallel = not isinstance(total, int) or total >= SERIAL_WORK
        grain = max(1, TASK_WORK // max(1, head)) if isinstance(head, int) else 1
        with self.e.tasks([a.loop for a in self.batch], parallel, grain, total):
            self.task()
        moved = traffic((*self.node.operands, *self.node.results()))
        self.e.launch(f"attention_grad [{QUERIES} queries x {self.keys} keys]", 2 * total, moved)

    # -- one head

    def task(self) -> None:
        e, b = self.e, self.b
        for a in (self.first, self.key, self.start, self.query, self.feature, self.inner):
            self.space.bind(a.variable, Const(0))
        target = e.buffer(self.gq.slot, "readwrite", "gq")
        first = b.let(e.expr(self.gq.address), "first")
        self.fill(target, first, e.expr(self.length) * int(self.depth), 0.0)
        with b.loop(e.expr(self.size), name="keys", step=self.keys) as at:
            self.space.bind(self.first.variable, at)
            held = b.let(binary("min", Const(self.keys), e.expr(self.size) - at), "held")
            self.space.bind(self.held.variable, held)
            self._block_of_keys(at, held)

    def _block_of_keys(self, at: Expr, held: Expr) -> None:
        e, b = self.e, self.b
        scale = self.node.attrs.scale
        keys = self.turned(self.k, self.key, held, self.inner, "keys_turned", scale)
        values = self.turned(self.v, self.key, held, self.feature, "values_turned")
        shares, moved = (self.scratch(QUERIES * self.keys, name) for name in ("shares", "moved"))
        gk = self.scratch(self.keys * int(self.depth), "gk", 0.0)
        gv = self.scratch(self.keys * int(self.width), "gv", 0.0)
        lowest = at if self.is_causal else 0
        with b.loop(e.expr(self.length), name="queries", lo=lowest, step=QUERIES) as start:
            self.space.bind(self.start.variable, start)
            count = b.let(binary("min", Const(QUERIES), e.expr(self.length) - start), "count")
            self.space.bind(self.count.variable, count)
            self._against(self.q, keys, self.inner, shares, count)
            self._against(self.g, values, self.feature, moved, count)
            self._moves(shares, moved, count, held)
            self._sum_up(shares, self.g, self.feature, gv)
            self._sum_up(moved, self.q, self.inner, gk)
            self._to_queries(moved, count)
        for slot, source, a in ((gk, self.gk, self.inner), (gv, self.gv, self.feature)):
            self._store(slot, source, int(a.extent), held)

    # -- one block of queries

    def _place(self) -> Dim:
        return self.query.variable * self.keys + self.key.variable

    def _against(self, rows: Source, turned: Slot, inner: Axis, to: Slot, count: Expr) -> None:
        """to[query, key] = rows . turned"""
        columns = Source(turned, self.acc, inner.variable * self.keys + self.key.variable)
        self.product(
            Span(self.query, count, rest_rows(self.machine)),
            Span(self.key, self.keys, Tiling((self.keys,))),
            (inner, None),
            rows,
            columns,
            self._place(),
            PartialWriter(self.e, to, self._place()),
        )

    def _moves(self, shares: Slot, moved: Slot, count: Expr, held: Expr) -> None:
        """From scores and g . v the shares and what moves the scores, row by row."""
        e, b, lanes = self.e, self.b, self.lanes
        vector = KType(self.acc, lanes)
        s, m = e.buffer(shares), e.buffer(moved)
        lse, delta = (
            e.buffer(x.slot, hint=name) for x, name in ((self.lse, "lse"), (self.delta, "delta"))
        )
        with b.loop(count, name="query") as query:
            self.space.bind(self.query.variable, query)
            at = b.let(e.expr(self.lse.address), "row")
            most = b.let(load(lse, at), "lse")
            blind = binary("eq", most, Const(-math.inf, KType(self.acc)))
            most = b.let(select(blind, Const(0.0, KType(self.acc)), most), "finite")
            less = b.let(load(delta, at), "delta")
            ahead = b.let(
                e.expr(self.start.variable) + query - e.expr(self.first.variable), "ahead"
            )
            for j in range(0, self.keys, lanes):
                place = b.let(query * self.keys + j, "at")
                self.space.bind(self.key.variable, Const(j))
                x = self.seen(load(s, place, lanes), self.key, held - j, "le", ahead - j)
                share = b.let(unary("exp", x - most), "share")
                b.store(s, place, share)
                scale = Const(self.node.attrs.scale, vector)
                b.store(m, place, share * (load(m, place, lanes) - less) * scale)
        self.space.bind(self.query.variable, Const(0))
        self.space.bind(self.key.variable, Const(0))

    def _sum_up(self, weights: Slot, rows: Source, along: Axis, to: Slot) -> None:
        """to[key, along] += weights[query, key] . rows[query, along]"""
        extent = int(along.extent)
        tiles = self.across[extent]
        place = self.key.variable * extent + along.variable
        self.product(
            Span(self.key, self.keys, tiles.keys),
            Span(along, extent, tiles.columns),
            (self.query, self.count.variable),
            Source(weights, self.acc, self._place()),
            rows,
            place,
            AddingWriter(self.e, to, place),
        )

    def _to_queries(self, moved: Slot, count: Expr) -> None:
        """gq[query, inner] += moved[query, key] . k[key, inner]"""
        tiles = self.across[int(self.depth)]
        self.product(
            Span(self.query, count, tiles.rest),
            Span(self.inner, int(self.depth), tiles.columns),
            (self.key, self.held.variable),
            Source(moved, self.acc, self._place()),
            self.k,
            self.gq.address,
            AddingWriter(self.e, self.gq.slot, self.gq.address),
        )

    def _store(self, sums: Slot, target: Source, width: int, held: Expr) -> None:
        """The rows of the keys that there are, which lie one after the other."""
        b, source = self.b, self.e.buffer(sums)
        out = self.e.buffer(target.slot, "write", "out")
        first = b.let(self.e.expr(target.address), "first")
        with b.loop(held * width, "vector", "i") as i:
            b.store(out, first + i, load(source, i))


__all__ = ["fits", "lower_attention_grad"]
