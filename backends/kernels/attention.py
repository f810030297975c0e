"""Attention as one kernel: blocks of queries against blocks of keys, with an online softmax.

A task owns a block of queries. It goes through the keys block by block: scores by the register tile, their
exponentials, and the weighted values by the register tile again, added to what the blocks before gave after
scaling that to the new maximum (https://arxiv.org/abs/2307.08691). Scores stay in the task's scratch memory:

    scores [keys, queries]      vectors run along queries, so maxima and sums need no reduction of lanes,
                                keys are read where they lie, and the exponentials are stored just as
                                the second product reads its rows
    sums [queries, features]    vectors run along features, as the values lie

Queries beyond the last are zeros, computed with the others and not stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphtorch.ir.dtype import DType, i32
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, evaluate, numel

from .access import Reader, broadcast_to, lane_mask, store_lanes
from .ir import Const, Expr, KType, Lanes, binary, cast, fma, load, select, splat, unary
from .operands import accumulator
from .problem import Axis, Contraction, Emission, Source, axis
from .program import Slot
from .schedule import (
    SERIAL_WORK,
    TASK_WORK,
    Machine,
    Tiling,
    chunks,
    column_sizes,
    machine_of,
    most_rows,
    row_sizes,
)
from .space import Space, coefficient
from .tile import Column, Direct, Row, Side, Writer, register_tile, sweep_axis, tile_columns, tile_rows
from .writer import PartialWriter

if TYPE_CHECKING:  # stages.py runs what is defined here
    from .stages import Stages

KEYS = 128  # in a block: their scores fit into L1 beside a block of sums
WIDEST = 512  # features of queries and of values for which a task's memory stays small
FEW = 4  # queries: so few have no more scores than keys have elements, and would waste lanes


def fits(node: Node) -> bool:
    """Whether attention runs as one kernel: sizes of heads are known and moderate, queries not too few."""
    q, k, v = node.operands[:3]
    sizes = q.shape[-1], v.shape[-1]
    few = isinstance(q.shape[-2], int) and q.shape[-2] < FEW
    return all(isinstance(d, int) and 0 < d <= WIDEST for d in sizes) and not few and 0 not in k.shape


def lower_attention(stages: Stages, node: Node) -> None:
    """One kernel for the result and the rows' log-sum-exp."""
    operands = [stages.materialise(x) for x in node.operands]
    results = [stages.result_slot(r) for r in node.results()]
    if 0 not in node.types[0].shape:
        AttentionKernel(stages, node, operands, results).emit()


@dataclass(frozen=True)
class Blocks:
    """Sizes of the schedule: `queries` in `lanes` of vectors; how tiles cover keys, queries and features."""

    lanes: int
    queries: int
    keys: int
    score_rows: Tiling
    sum_rows: Tiling
    features: Tiling

    @property
    def vectors(self) -> int:
        return self.queries // self.lanes


def blocks_of(node: Node, acc: DType, machine: Machine) -> Blocks:
    q, k, v = node.operands[:3]
    length, keys, features = q.shape[-2], k.shape[-2], v.shape[-1]
    assert isinstance(features, int)
    lanes = machine.lanes(acc.itemsize)
    while isinstance(length, int) and lanes > 4 and length <= lanes // 2:
        lanes //= 2
    vectors = 1 if isinstance(length, int) and length <= lanes else 2
    whole = isinstance(keys, int) and keys <= KEYS + KEYS // 4 and not node.attrs.is_causal
    block = keys if whole else KEYS
    rows = row_sizes(block, most_rows(vectors, machine.registers))
    if not whole and (not isinstance(keys, int) or keys % KEYS or node.attrs.is_causal):
        rows = (8, 4, 1) if vectors == 1 or machine.registers >= 32 else (4, 1)  # for a rest of any length
    across = column_sizes(features, 4 if machine.registers >= 32 else 2, machine.lanes(acc.itemsize))
    widest = len(chunks(across[0], machine.lanes(acc.itemsize)))
    return Blocks(lanes, lanes * vectors, int(block), Tiling(rows),  # type: ignore[arg-type]
                  Tiling(row_sizes(lanes * vectors, most_rows(widest, machine.registers))), Tiling(across))


class AttentionKernel:
    """The kernel of one attention node under construction."""

    def __init__(self, stages: Stages, node: Node, operands: Sequence[Slot], results: Sequence[Slot]):
        lowering = stages.lowering
        self.node, self.results, self.mask_slots = node, results, operands[3:]
        q, k, v = node.operands[:3]
        self.acc = accumulator(q.dtype)
        self.machine = machine_of(lowering.target)
        self.blocks = blocks_of(node, self.acc, self.machine)
        self.space = space = Space()
        self.e = Emission(lowering, space, "attention")
        shape = node.types[1].shape
        self.length, self.size, self.depth, self.width = shape[-1], k.shape[-2], q.shape[-1], v.shape[-1]
        self.batch = [axis(space, d) for d in shape[:-1]]
        self.block = axis(space, (self.length + (self.blocks.queries - 1)) // self.blocks.queries)
        self.first = axis(space, self.size)  # the first key of a block
        self.key = axis(space, self.blocks.keys)
        self.query = axis(space, self.blocks.queries)
        self.feature, self.inner = axis(space, self.width), axis(space, self.depth)
        self.count = axis(space, self.blocks.keys + 1)  # keys in a block
        at = [a.variable for a in self.batch]
        self.where = (*at, self.block.variable * self.blocks.queries + self.query.variable)
        place = self.first.variable + self.key.variable
        self.q = self._source(operands[0], q, (*self.where, self.inner.variable))
        self.k = self._source(operands[1], k, (*at, place, self.inner.variable))
        self.v = self._source(operands[2], v, (*at, place, self.feature.variable))
        self.masks = [space.linear(broadcast_to((*self.where, place), m), m.shape) for m in node.operands[3:]]

    def _source(self, slot: Slot, value: object, index: tuple[Dim, ...]) -> Source:
        index = broadcast_to(index, value)  # type: ignore[arg-type]
        return Source(slot, slot.dtype, self.space.linear(index, slot.shape))

    def emit(self) -> None:
        work = self.blocks.queries * self.size * (self.depth + self.width)
        total = numel(self.node.types[1].shape) * self.size * (self.depth + self.width)
        parallel = not isinstance(total, int) or total >= SERIAL_WORK
        grain = max(1, TASK_WORK // max(1, work)) if isinstance(work, int) else 1
        levels = [(self.e.binder(a), a.extent) for a in (*self.batch, self.block)]
        self.e.tasks(levels, self.task, parallel, grain)
        moved = sum((s.elements * s.dtype.itemsize for s in (self.q.slot, self.k.slot, self.v.slot,
                                                             *self.mask_slots, *self.results)), start=0)
        self.e.launch(self._label(), 2 * total, moved)

    def _label(self) -> str:
        return f"attention [{self.blocks.queries} queries x {self.blocks.keys} keys]"

    # -- one block of queries

    def task(self) -> None:
        e, b, n = self.e, self.e.b, self.blocks.queries
        self.space.bind(self.query.variable, Const(0))
        start = b.let(e.expr(self.block.variable * n), "start")
        valid = b.let(binary("min", Const(n), e.expr(self.length) - start), "valid")
        turned = self._turned_queries(valid)
        scores = e.scratch(self.acc, self.blocks.keys * n, "scores")
        sums = e.scratch(self.acc, n * self.width, "sums")
        rows = {name: e.scratch(self.acc, n, name) for name in ("most", "total", "scale")}
        self._fill(sums, n * self.width, 0.0)
        self._fill(rows["most"], n, -math.inf)
        self._fill(rows["total"], n, 0.0)
        end = e.expr(self.size)
        if self.node.attrs.is_causal:
            end = b.let(binary("min", end, start + n), "end")
        with b.loop(end, name="keys", step=self.blocks.keys) as at:
            self.space.bind(self.first.variable, at)
            count = self._keys_in_block(at, end)
            self._scores(turned, scores, count)
            self._exponentials(scores, rows, count, start, valid)
            self._weighted(scores, sums, rows["scale"], count)
        self._store(sums, rows, valid)

    def _keys_in_block(self, at: Expr, end: Expr) -> int | Expr:
        size = self.size
        known = isinstance(size, int) and size % self.blocks.keys == 0 and not self.node.attrs.is_causal
        if known:
            return self.blocks.keys
        count = self.e.b.let(binary("min", Const(self.blocks.keys), end - at), "count")
        self.space.bind(self.count.variable, count)
        return count

    def _fill(self, slot: Slot, size: int, number: float) -> None:
        with self.e.b.loop(size, "vector", "i") as i:
            self.e.b.store(self.e.buffer(slot), i, Const(number, KType(self.acc)))

    def _turned_queries(self, valid: Expr) -> Slot:
        """The block's queries times the scale, [depth, queries]; zeros beyond the last."""
        e, b, n = self.e, self.e.b, self.blocks.queries
        slot = e.scratch(self.acc, self.depth * n, "turned")
        target, source = e.buffer(slot), e.buffer(self.q.slot, hint="q")
        self._fill(slot, self.depth * n, 0.0)
        with b.loop(valid, name="query") as query:
            self.space.bind(self.query.variable, query)
            self.space.bind(self.inner.variable, Const(0))
            row = b.let(e.expr(self.q.address), "row")
            with b.loop(self.depth, name="i") as i:
                x = cast(load(source, row + i), self.acc)
                b.store(target, i * n + query, x * Const(self.node.attrs.scale, KType(self.acc)))
        self.space.bind(self.query.variable, Const(0))
        return slot

    # -- one block of keys

    def _scores(self, turned: Slot, scores: Slot, count: int | Expr) -> None:
        """scores[key, query] = k . q"""
        n = self.blocks.queries
        columns = Source(turned, self.acc, self.inner.variable * n + self.query.variable)
        place = self.key.variable * n + self.query.variable
        p = self._contraction([self.key], [self.query], [self.inner], self.k, columns, place)
        tiling = Tiling((n,))
        side = Side((), self.query, None, tiling)
        writer = PartialWriter(self.e, scores, place)

        def tile(size: int, _: int | Expr) -> None:
            self._tile(p, tile_rows(Side((), self.key, None, tiling), (size,)),
                       tile_columns(side, (n,), n, self.blocks.lanes), writer)
        sweep_axis(self.e, self.key, Const(0), count, self.blocks.score_rows, tile)

    def _weighted(self, scores: Slot, sums: Slot, scale: Slot, count: int | Expr) -> None:
        """sums[query, feature] = scale[query] sums[query, feature] + exponentials . v"""
        e, n = self.e, self.blocks.queries
        rows = Source(scores, self.acc, self.key.variable * n + self.query.variable)
        place = self.query.variable * self.width + self.feature.variable
        p = self._contraction([self.query], [self.feature], [self.key], rows, self.v, place)
        if not isinstance(count, int):
            p.limits[self.key.name] = self.count.variable
        writer = RescalingWriter(e, sums, place, scale, self.query.variable)
        rows_side, side = (Side((), a, None, Tiling((1,))) for a in (self.query, self.feature))
        lanes = self.machine.lanes(self.acc.itemsize)

        def across(width: int, _: int | Expr) -> None:
            sweep_axis(e, self.query, Const(0), n, self.blocks.sum_rows, lambda size, _: self._tile(
                p, tile_rows(rows_side, (size,)), tile_columns(side, (width,), width, lanes), writer))
        sweep_axis(e, self.feature, Const(0), self.width, self.blocks.features, across)
        self.space.bind(self.query.variable, Const(0))

    def _contraction(self, m: list[Axis], n: list[Axis], k: list[Axis], a: Source, b: Source,
                     address: Dim) -> Contraction:
        return Contraction(self.node, self.space, [], m, n, k, a, b, (), address, (), self.acc)

    def _tile(self, p: Contraction, rows: Sequence[Row], columns: Sequence[Column], writer: Writer) -> None:
        a, b = (Direct(self.e, p, source, p.k) for source in (p.a, p.b))
        register_tile(self.e, p, rows, columns, a, b, writer)

    def _exponentials(self, scores: Slot, rows: dict[str, Slot], count: int | Expr, start: Expr,
                      valid: Expr) -> None:
        """The scores become exp(score - maximum); maxima, sums and the scale of earlier sums follow."""
        e, b = self.e, self.e.b
        n, lanes = self.blocks.queries, self.blocks.lanes
        vector = KType(self.acc, lanes)
        at = [j * lanes for j in range(self.blocks.vectors)]
        buffers = {name: e.buffer(slot) for name, slot in rows.items()}
        before = [b.let(load(buffers["most"], Const(j), lanes), "before") for j in at]
        most = [b.var(x, "most") for x in before]
        source = e.buffer(scores)
        with b.loop(count, name="key") as key:
            for j, new in zip(at, most, strict=True):
                x = self._seen(load(source, key * n + j, lanes), key, j, start, valid)
                if self.masks or self.node.attrs.is_causal:
                    x = b.let(x, "score")
                    b.store(source, key * n + j, x)
                b.assign(new, binary("maxnum", new, x))
        nothing, zero = Const(-math.inf, vector), Const(0.0, vector)
        finite = [b.let(select(binary("eq", m, nothing), zero, m), "finite") for m in most]
        totals = []
        for j, old, m in zip(at, before, finite, strict=True):
            scale = b.let(unary("exp", old - m), "scale")
            b.store(buffers["scale"], Const(j), scale)
            totals.append(b.var(load(buffers["total"], Const(j), lanes) * scale, "total"))
        with b.loop(count, name="key") as key:
            for j, m, total in zip(at, finite, totals, strict=True):
                x = b.let(unary("exp", load(source, key * n + j, lanes) - m), "share")
                b.store(source, key * n + j, x)
                b.assign(total, total + x)
        for j, new, total in zip(at, most, totals, strict=True):
            b.store(buffers["most"], Const(j), new)
            b.store(buffers["total"], Const(j), total)

    def _seen(self, x: Expr, key: Expr, j: int, start: Expr, valid: Expr) -> Expr:
        """Scores of a key for the queries from j on, -inf where the key is not seen."""
        lanes = self.blocks.lanes
        nothing = Const(-math.inf, x.type)
        if self.node.attrs.is_causal:
            ahead = self.e.expr(self.first.variable) + key - start - j
            lane = Lanes(KType(i32, lanes))
            x = select(binary("ge", lane, splat(cast(ahead, i32), lanes)), x, nothing)
        for slot, address in zip(self.mask_slots, self.masks, strict=True):
            m = splat(self._mask(slot, address, key, j, valid), lanes)
            x = select(m, x, nothing) if slot.dtype.is_bool else x + cast(m, self.acc)
        return x

    def _mask(self, slot: Slot, address: Dim, key: Expr, j: int, valid: Expr) -> Expr:
        space, lanes = self.space, self.blocks.lanes
        space.bind(self.key.variable, key)
        space.bind(self.query.variable, Const(j))
        if coefficient(address, self.query.name) != 0:
            space.vector, space.lanes = self.query.name, lanes
        reader = Reader(self.e.b, space, lambda _: self.e.buffer(slot))
        reader.mask = lane_mask(valid - j, lanes) if space.vector is not None else None
        found = reader.read(address, self.e.buffer(slot, hint="mask"))
        space.vector = None
        space.bind(self.query.variable, Const(0))
        return found

    # -- the results

    def _store(self, sums: Slot, rows: dict[str, Slot], valid: Expr) -> None:
        e, b, lanes = self.e, self.e.b, self.blocks.lanes
        vector = KType(self.acc, lanes)
        out, lse = (e.buffer(s, "write", name) for s, name in zip(self.results, ("out", "lse"), strict=True))
        place = self.space.linear(self.where, self.node.types[1].shape)
        start = b.let(e.expr(place), "row")
        total, inverse = e.buffer(rows["total"]), e.buffer(rows["scale"])
        for j in range(0, self.blocks.queries, lanes):
            t = b.let(load(total, Const(j), lanes), "total")
            none = binary("eq", t, Const(0.0, vector))
            b.store(inverse, Const(j), select(none, Const(0.0, vector), Const(1.0, vector) / t))
            m = load(e.buffer(rows["most"]), Const(j), lanes)
            store_lanes(b, lse, start + j, unary("log", t) + m, valid - j, e.masks)
        source = e.buffer(sums)
        with b.loop(valid, name="query") as query:
            factor = b.let(load(inverse, query), "factor")
            with b.loop(self.width, "vector", "i") as i:
                x = load(source, query * self.width + i) * factor
                b.store(out, (start + query) * self.width + i, cast(x, out.dtype))


class RescalingWriter:
    """Adds finished sums to those in memory, these first multiplied by the scale of their query."""

    def __init__(self, e: Emission, slot: Slot, place: Dim, scale: Slot, query: Dim):
        self.e, self.slot, self.place, self.scale, self.query = e, slot, place, scale, query

    def write(self, rows: Sequence[Row], columns: Sequence[Column],
              values: dict[tuple[int, int], Expr]) -> None:
        e, b = self.e, self.e.b
        target, scales = e.buffer(self.slot), e.buffer(self.scale)
        factors = [b.let(load(scales, e.expr(evaluate(self.query, row))), "scale") for row in rows]
        for (i, j), value in values.items():
            column = columns[j]
            where = b.let(e.expr(evaluate(self.place, {**rows[i], **column.at})), "at")
            lanes = value.type.lanes
            old = load(target, where, lanes, column.mask())
            store_lanes(b, target, where, fma(splat(factors[i], lanes), old, value), column.inside(), e.masks)


__all__ = ["fits", "lower_attention"]
