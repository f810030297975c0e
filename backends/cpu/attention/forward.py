"""Attention as one kernel: blocks of queries against blocks of keys, with an online softmax.

A task owns a block of queries. It goes through the keys block by block: scores by the register
tile, their exponentials, and the weighted values by the register tile again, added to what the
blocks before gave after scaling that to the new maximum (https://arxiv.org/abs/2307.08691). Scores
stay in the task's scratch memory:

    scores [keys, queries]      vectors run along queries, so maxima and sums need no reduction of
                                lanes, keys are read where they lie, and the exponentials are stored
                                just as the second product reads its rows
    sums [queries, features]    vectors run along features, as the values lie

Queries beyond the last are zeros, computed with the others and not stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import numel

from ...dataclass import dataclass
from ...kernels.body.access import store_lanes
from ...kernels.contraction.operands import accumulator
from ...kernels.contraction.problem import Source, axis
from ...kernels.ir import Const, Expr, KType, binary, cast, load, select, unary
from ...kernels.machine import SERIAL_WORK, Machine
from ...kernels.program.program import Slot
from ..contraction.schedule import TASK_WORK, Tiling, most_rows, row_sizes
from ..contraction.writer import PartialWriter
from ..cost import traffic
from ..loops.places import Places
from .tiles import AddingWriter, Blocks, Span, fits_blocks, rest_rows, vector_tiling

KEYS = 128  # in a block: their scores fit into L1 beside a block of sums


def fits(node: Node) -> bool:
    """Whether the kernel takes an attention node."""
    q, k, v = node.operands[:3]
    return fits_blocks(q, k, v)


def lower_attention(places: Places, node: Node) -> None:
    """One kernel for the result and the rows' log-sum-exp."""
    results = [places.result_slot(r) for r in node.results()]
    if 0 not in node.types[0].shape:
        AttentionKernel(places, node, results).emit()


@dataclass(frozen=True)
class Sizes:
    """Of the schedule: `queries` in vectors of `lanes`, `keys` of a block, tiles of the two
    products."""

    lanes: int
    queries: int
    keys: int
    score_rows: Tiling
    sum_rows: Tiling
    features: Tiling


def sizes_of(node: Node, acc: DType, machine: Machine) -> Sizes:
    q, k, v = node.operands[:3]
    length, keys, features = q.shape[-2], k.shape[-2], v.shape[-1]
    assert isinstance(features, int)
    lanes = machine.lanes(acc.itemsize)
    across, most = vector_tiling(features, 4 if machine.registers >= 32 else 2, lanes, machine)
    while isinstance(length, int) and lanes > 4 and length <= lanes // 2:
        lanes //= 2
    vectors = 1 if isinstance(length, int) and length <= lanes else 2
    queries = lanes * vectors
    causal = node.attrs.is_causal
    block = keys if isinstance(keys, int) and keys <= KEYS + KEYS // 4 and not causal else KEYS
    assert isinstance(block, int)
    known = isinstance(keys, int) and keys % block == 0 and not causal
    rows = (
        Tiling(row_sizes(block, most_rows(vectors, machine.registers)))
        if known
        else rest_rows(machine)
    )
    return Sizes(lanes, queries, block, rows, Tiling(row_sizes(queries, most)), across)


class AttentionKernel(Blocks):
    """The kernel of one attention node under construction."""

    def __init__(self, places: Places, node: Node, results: Sequence[Slot]):
        q, k, v = node.operands[:3]
        super().__init__(places, node, accumulator(q.dtype), "attention")
        self.results = results
        self.sizes = s = sizes_of(node, self.acc, places.lowering.machine)
        shape, space = node.types[1].shape, self.space
        self.length, self.size, self.depth, self.width = (
            shape[-1],
            k.shape[-2],
            q.shape[-1],
            v.shape[-1],
        )
        self.batch = [axis(space, d) for d in shape[:-1]]
        self.block = axis(space, (self.length + (s.queries - 1)) // s.queries)
        self.first = axis(space, self.size)  # the first key of a block
        self.key, self.query = axis(space, s.keys), axis(space, s.queries)
        self.feature, self.inner = axis(space, self.width), axis(space, self.depth)
        self.count = axis(space, s.keys + 1)  # keys in a block
        at = [a.variable for a in self.batch]
        self.where = (*at, self.block.variable * s.queries + self.query.variable)
        place = self.first.variable + self.key.variable
        self.q = self.operand(places, q, (*self.where, self.inner.variable))
        self.k = self.operand(places, k, (*at, place, self.inner.variable))
        self.v = self.operand(places, v, (*at, place, self.feature.variable))
        self.masks = [self.operand(places, m, (*self.where, place)) for m in node.operands[3:]]

    def emit(self) -> None:
        work = self.sizes.queries * self.size * (self.depth + self.width)
        total = numel(self.node.types[1].shape) * self.size * (self.depth + self.width)
        parallel = not isinstance(total, int) or total >= SERIAL_WORK
        grain = max(1, TASK_WORK // max(1, work)) if isinstance(work, int) else 1
        with self.e.tasks([a.loop for a in (*self.batch, self.block)], parallel, grain, total):
            self.task()
        moved = traffic((*self.node.operands, *self.node.results()))
        label = f"attention [{self.sizes.queries} queries x {self.sizes.keys} keys]"
        self.e.launch(label, 2 * total, moved)

    # -- one block of queries

    def task(self) -> None:
        e, b, n = self.e, self.b, self.sizes.queries
        self.space.bind(self.query.variable, Const(0))
        start = b.let(e.expr(self.block.variable * n), "start")
        valid = b.let(binary("min", Const(n), e.expr(self.length) - start), "valid")
        turned = self.turned(self.q, self.query, valid, self.inner, "turned", self.node.attrs.scale)
        scores = self.scratch(self.sizes.keys * n, "scores")
        sums = self.scratch(n * int(self.width), "sums", 0.0)
        most, total, scale = (
            self.scratch(n, name, number)
            for name, number in (("most", -math.inf), ("total", 0.0), ("scale", None))
        )
        end = e.expr(self.size)
        if self.is_causal:
            end = b.let(binary("min", end, start + n), "end")
        with b.loop(end, name="keys", step=self.sizes.keys) as at:
            self.space.bind(self.first.variable, at)
            count = self._keys_in_block(at, end)
            self._scores(turned, scores, count)
            self._exponentials(scores, (most, total, scale), count, start, valid)
            self._weighted(scores, sums, scale, count)
        self._store(sums, (most, total, scale), valid)

    def _keys_in_block(self, at: Expr, end: Expr) -> int | Expr:
        block = self.sizes.keys
        if isinstance(self.size, int) and self.size % block == 0 and not self.is_causal:
            return block
        count = self.b.let(binary("min", Const(block), end - at), "count")
        self.space.bind(self.count.variable, count)
        return count

    # -- one block of keys

    def _scores(self, turned: Slot, scores: Slot, count: int | Expr) -> None:
        """scores[key, query] = k . q"""
        n = self.sizes.queries
        columns = Source(turned, self.acc, self.inner.variable * n + self.query.variable)
        place = self.key.variable * n + self.query.variable
        self.product(
            Span(self.key, count, self.sizes.score_rows),
            Span(self.query, n, Tiling((n,))),
            (self.inner, None),
            self.k,
            columns,
            place,
            PartialWriter(self.e, scores, place),
            self.sizes.lanes,
        )

    def _weighted(self, scores: Slot, sums: Slot, scale: Slot, count: int | Expr) -> None:
        """sums[query, feature] = scale[query] sums[query, feature] + exponentials . v"""
        n, s = self.sizes.queries, self.sizes
        rows = Source(scores, self.acc, self.key.variable * n + self.query.variable)
        place = self.query.variable * self.width + self.feature.variable
        limit = None if isinstance(count, int) else self.count.variable
        writer = AddingWriter(self.e, sums, place, (scale, self.query.variable))
        self.product(
            Span(self.query, n, s.sum_rows),
            Span(self.feature, int(self.width), s.features),
            (self.key, limit),
            rows,
            self.v,
            place,
            writer,
        )

    def _exponentials(
        self,
        scores: Slot,
        rows: tuple[Slot, Slot, Slot],
        count: int | Expr,
        start: Expr,
        valid: Expr,
    ) -> None:
        """The scores become exp(score - maximum); maxima, sums and the scale of earlier sums
        follow."""
        b, n, lanes = self.b, self.sizes.queries, self.sizes.lanes
        vector = KType(self.acc, lanes)
        at = [Const(j) for j in range(0, n, lanes)]
        most, total, scale = map(self.e.buffer, rows)
        source = self.e.buffer(scores)
        before = [b.let(load(most, j, lanes), "before") for j in at]
        maxima = [b.var(x, "most") for x in before]
        with b.loop(count, name="key") as key:
            for j, new in zip(at, maxima, strict=True):
                x = self._seen(load(source, key * n + j, lanes), key, j, start, valid)
                if self.masks or self.is_causal:
                    x = b.let(x, "score")
                    b.store(source, key * n + j, x)
                b.assign(new, binary("maxnum", new, x))
        nothing, zero = Const(-math.inf, vector), Const(0.0, vector)
        finite = [b.let(select(binary("eq", m, nothing), zero, m), "finite") for m in maxima]
        totals = []
        for j, old, m in zip(at, before, finite, strict=True):
            factor = b.let(unary("exp", old - m), "scale")
            b.store(scale, j, factor)
            totals.append(b.var(load(total, j, lanes) * factor, "total"))
        with b.loop(count, name="key") as key:
            for j, m, added in zip(at, finite, totals, strict=True):
                x = b.let(unary("exp", load(source, key * n + j, lanes) - m), "share")
                b.store(source, key * n + j, x)
                b.assign(added, added + x)
        for j, new, added in zip(at, maxima, totals, strict=True):
            b.store(most, j, new)
            b.store(total, j, added)

    def _seen(self, x: Expr, key: Expr, j: Const, start: Expr, valid: Expr) -> Expr:
        """Scores of a key for the queries from j on, -inf where it is not seen."""
        self.space.bind(self.key.variable, key)
        self.space.bind(self.query.variable, j)
        x = self.seen(
            x, self.query, valid - j, "ge", self.e.expr(self.first.variable) + key - start - j
        )
        self.space.bind(self.query.variable, Const(0))
        return x

    # -- the results

    def _store(self, sums: Slot, rows: tuple[Slot, Slot, Slot], valid: Expr) -> None:
        e, b, lanes = self.e, self.b, self.sizes.lanes
        vector, width = KType(self.acc, lanes), int(self.width)
        out, lse = (
            e.buffer(s, "write", name) for s, name in zip(self.results, ("out", "lse"), strict=True)
        )
        start = b.let(e.expr(self.space.linear(self.where, self.node.types[1].shape)), "row")
        most, total, inverse = map(e.buffer, rows)
        for j in range(0, self.sizes.queries, lanes):
            t = b.let(load(total, Const(j), lanes), "total")
            none = binary("eq", t, Const(0.0, vector))
            b.store(inverse, Const(j), select(none, Const(0.0, vector), Const(1.0, vector) / t))
            logs = unary("log", t) + load(most, Const(j), lanes)
            store_lanes(b, lse, start + j, logs, valid - j, e.masks)
        source = e.buffer(sums)
        with b.loop(valid, name="query") as query:
            factor = b.let(load(inverse, query), "factor")
            with b.loop(width, "vector", "i") as i:
                x = load(source, query * width + i) * factor
                b.store(out, (start + query) * width + i, cast(x, out.dtype))


__all__ = ["fits", "lower_attention"]
