"""Copies of operands in the order in which tiles read them.

A packed operand is a sequence of blocks, one a tile: ``[k][w]`` for a tile of w rows (or columns),
the columns filled up with zeros to whole vectors. Where the source is contiguous along the rows it
moves as vectors; where it is contiguous along k, as square blocks transposed in registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import Dim, evaluate

from ...kernels.body.access import lane_mask, store_lanes
from ...kernels.body.scope import Scope
from ...kernels.body.space import Space, depends
from ...kernels.contraction.problem import (
    Axis,
    Source,
    extent_of,
    flat,
    is_affine,
    stride,
)
from ...kernels.ir import Const, Expr, KType, binary, cast, constant, load, splat
from ...kernels.program.lowering import Lowering
from ...kernels.program.program import Slot
from ...record import Part
from .schedule import TASKS, Tiling, chunks, padded, tiles_of
from .tile import sweep_axis, transpose

LINE = 64  # bytes of a cache line
PACKED = "packed"  # begins the keys of copies that are packed


class Packing:
    """Where a packed operand lies: `group` numbers matrices, each of `room` rows and `depth` steps
    of k."""

    def __init__(
        self,
        space: Space,
        source: Source,
        around: Sequence[Axis],
        along: Axis,
        k: Sequence[Axis],
        tiling: Tiling,
        lanes: int,
        fill: bool,
    ):
        self.space, self.source, self.along, self.k = space, source, along, k
        self.tiling, self.lanes = tiling, lanes
        self.fill = fill  # columns are filled up to whole vectors, rows are not
        self.around = [a for a in around if depends(source.address, a.name)]
        self.group = flat(self.around)
        self.depth = extent_of(k)
        self.room = self._room()

    def _room(self) -> Dim:
        extent, main = self.along.extent, self.tiling.sizes[0]
        if not self.fill:
            return extent
        whole = padded(main, self.lanes)
        if self.tiling.ragged or not isinstance(extent, int):
            return (extent + (main - 1)) // main * whole
        return extent // main * whole + padded(extent % main, self.lanes)

    @property
    def elements(self) -> Dim:
        return extent_of(self.around) * self.depth * self.room

    def width(self, size: int) -> int:
        return padded(size, self.lanes) if self.fill else size

    def key(self, acc: DType) -> tuple[Any, ...] | None:
        """What the copy holds, whatever its variables are called; None where strides do not
        tell."""
        axes = [*self.around, self.along, *self.k]
        address = self.source.address
        if not is_affine(address, axes):
            return None
        start = evaluate(address, {a.name: 0 for a in axes})
        walk = tuple((stride(address, a), a.extent) for a in axes)
        axes_of_k = len(self.k)
        tiling = self.tiling.sizes, self.tiling.ragged, axes_of_k
        casts = self.source.casts
        return PACKED, self.source.slot, casts, acc, start, walk, tiling, self.lanes, self.fill


def rearranged(key: tuple[Any, ...], copy: Slot) -> tuple[Part, ...] | None:
    """Where the elements of a source lie in the packed `copy` with this key; None where that has
    not all of them as they are, or sizes are not known."""
    _, source, casts, acc, start, walk, (sizes, ragged, inner), lanes, fill = key
    known = all(isinstance(n, int) for pair in walk for n in pair) and not ragged and start == 0
    if not known or casts or not acc is source.dtype is copy.dtype:
        return None
    if not _covers(walk, source.elements):
        return None
    around, (stride, extent), k = walk[: -1 - inner], walk[-1 - inner], walk[len(walk) - inner :]
    depth = math.prod(n for _, n in k)
    groups = math.prod(n for _, n in around)
    parts, first = [], 0
    for size in sizes:
        count = (extent - first) // size
        if not count:
            continue
        width = padded(size, lanes) if fill else size
        shape = (*(n for _, n in around), count, *(n for _, n in k), size)
        of_groups = _strides([n for _, n in around], int(copy.elements) // groups)
        places = (*of_groups, size * depth, *_strides([n for _, n in k], width), 1)
        strides = (*(s for s, _ in around), size * stride, *(s for s, _ in k), stride)
        parts.append(Part(shape, first * depth, places, first * stride, strides))
        first += count * size
    return tuple(parts) if first == extent else None


def _strides(extents: Sequence[int], inner: int) -> list[int]:
    """Of a row-major array of parts of `inner` elements."""
    return [inner * math.prod(extents[i + 1 :]) for i in range(len(extents))]


def _covers(walk: Sequence[tuple[int, int]], elements: Dim) -> bool:
    """Whether axes of these strides and extents come to each of `elements` once."""
    reached = 1
    for step, extent in sorted(walk):
        if extent != 1 and step != reached:
            return False
        reached *= extent
    return reached == elements


def pack(lowering: Lowering, q: Packing, acc: DType, label: str, parallel: bool) -> Slot:
    """The packed copy; its launch is in the prologue where the source is stable."""
    key = q.key(acc)
    if key is None or key not in lowering.copies:
        slot = _launch_pack(lowering, q, acc, label, parallel)
        if key is None:
            return slot
        lowering.copies[key] = slot
    return lowering.copies[key]


def _launch_pack(lowering: Lowering, q: Packing, acc: DType, label: str, parallel: bool) -> Slot:
    stable = q.source.stable
    make = lowering.packed if stable else lowering.temporary
    slot = make(acc, (q.elements,))
    e = Scope(lowering, "pack", q.space)
    sizes = (q.tiling.sizes[0] * _tiles_at_once(q), *q.tiling.sizes)
    main = sizes[0]
    extent = q.along.extent
    tile = Axis(q.space.opaque((extent + (main - 1)) // main), (extent + (main - 1)) // main)
    spread = len(q.k) > 1 and few(extent_of([*q.around, tile]))
    levels = [a.loop for a in (*q.around, tile, *q.k[:spread])]
    with e.tasks(levels, parallel):
        first = e.b.let(e.expr(tile.variable * main), "first")
        length: int | Expr = main
        if not isinstance(extent, int) or extent % main:
            length = e.b.let(binary("min", Const(main), e.expr(extent) - first), "length")
        sweep_axis(
            e,
            q.along,
            first,
            length,
            replace(q.tiling, sizes=tuple(dict.fromkeys(sizes))),
            lambda size, valid: _pack_tile(e, q, q.k[spread:], slot, acc, size, valid),
        )
    moved = q.elements * (acc.itemsize + q.source.dtype.itemsize)
    e.launch(label, 0, moved, prologue=stable)
    return slot


def _tiles_at_once(q: Packing) -> int:
    """How many tiles a task copies side by side, where the source is contiguous along them: of a
    narrow tile each step of k is a part of a cache line, which would be fetched for each of the
    tiles that share it."""
    extent, size = q.along.extent, q.tiling.sizes[0]
    if not _moves_as_vectors(q, size) or q.tiling.ragged or not isinstance(extent, int):
        return 1
    tiles = LINE // math.gcd(LINE, size * q.source.dtype.itemsize)
    groups = extent // (size * tiles)
    around = extent_of(q.around)
    enough = groups * (around if isinstance(around, int) else 1) >= TASKS
    return tiles if enough or groups == tiles_of(extent, size) else 1


def few(count: Dim) -> bool:
    """Whether so few tiles give too few tasks, so that steps of k have to be tasks too."""
    return isinstance(count, int) and count < TASKS


def known(extent: Dim) -> int:
    """A size, or 0 where it is not known before a run."""
    return extent if isinstance(extent, int) else 0


def _pack_tile(
    e: Scope, q: Packing, k: Sequence[Axis], slot: Slot, acc: DType, size: int, valid: int | Expr
) -> None:
    base = e.b.let(e.expr(q.group * (q.depth * q.room) + q.along.variable * q.depth), "to")
    width = q.width(size)
    if not is_affine(q.source.address, [q.along, *q.k]):
        _pack_scalars(e, q, k, slot, acc, base, width, valid)
    elif _moves_as_vectors(q, size):
        _pack_vectors(e, q, k, slot, acc, base, size, valid)
    elif (
        k and stride(q.source.address, k[-1]) == 1 and size >= 4 and known(k[-1].extent) >= q.lanes
    ):
        _pack_transposed(e, q, k, slot, acc, base, size, valid)
    else:
        _pack_scalars(e, q, k, slot, acc, base, width, valid)


def _moves_as_vectors(q: Packing, size: int) -> bool:
    affine = is_affine(q.source.address, [q.along, *q.k])
    return affine and stride(q.source.address, q.along) == 1 and size >= 4


def _converted(value: Expr, source: Source, acc: DType) -> Expr:
    for dtype in (*source.casts, acc):
        value = cast(value, dtype)
    return value


def _pack_scalars(
    e: Scope,
    q: Packing,
    k: Sequence[Axis],
    slot: Slot,
    acc: DType,
    base: Expr,
    width: int,
    valid: int | Expr,
) -> None:
    with e.nested([x.loop for x in k]):
        _scalar_step(e, q, slot, acc, base, width, valid)


def _scalar_step(
    e: Scope, q: Packing, slot: Slot, acc: DType, base: Expr, width: int, valid: int | Expr
) -> None:
    """One step of k of one tile, element by element, and the zeros after them."""
    source = e.buffer(q.source.slot, hint="x", dtype=q.source.dtype)
    target = e.buffer(slot, "write", "packed")
    start = e.space.env[q.along.name]
    at = e.b.let(base + e.expr(flat(q.k)) * width, "at")
    inside = (
        Const(min(width, valid))
        if isinstance(valid, int)
        else e.b.let(binary("min", Const(width), valid), "inside")
    )
    with e.b.loop(inside, name="r") as r:
        e.space.bind(q.along.variable, start + r)
        e.b.store(target, at + r, _converted(load(source, e.expr(q.source.address)), q.source, acc))
    e.space.bind(q.along.variable, start)
    if not (isinstance(valid, int) and valid >= width):
        with e.b.loop(width, name="r", lo=inside) as r:
            e.b.store(target, at + r, constant(0, KType(acc)))


def _pack_vectors(
    e: Scope,
    q: Packing,
    k: Sequence[Axis],
    slot: Slot,
    acc: DType,
    base: Expr,
    size: int,
    valid: int | Expr,
) -> None:
    """`size` rows or columns: a tile, or several whole ones."""
    source = e.buffer(q.source.slot, hint="x", dtype=q.source.dtype)
    target = e.buffer(slot, "write", "packed")
    one = min(size, q.tiling.sizes[0])
    with e.nested([x.loop for x in k]):
        at = e.b.let(base + e.expr(flat(q.k)) * q.width(one), "at")
        start = e.b.let(e.expr(q.source.address), "from")
        for tile in range(0, size, one):
            to = at if tile == 0 else e.b.let(at + e.expr(q.depth) * tile, "at")
            for c in chunks(one, q.lanes):
                inside = c.valid if isinstance(valid, int) else valid - c.offset
                value = load(source, start + (tile + c.offset), c.lanes, lane_mask(inside, c.lanes))
                kept = c.lanes if q.fill else c.valid
                value = _converted(value, q.source, acc)
                store_lanes(e.b, target, to + c.offset, value, kept, e.masks)


def _pack_transposed(
    e: Scope,
    q: Packing,
    k: Sequence[Axis],
    slot: Slot,
    acc: DType,
    base: Expr,
    size: int,
    valid: int | Expr,
) -> None:
    """Square blocks along the innermost k; the few steps of k that are left go one by one."""
    *outer, last = k
    assert isinstance(last.extent, int)
    whole = last.extent // q.lanes * q.lanes
    with e.nested([x.loop for x in outer]):
        with e.b.loop(whole, name="kb", step=q.lanes) as at:
            e.space.bind(last.variable, at)
            _turn_blocks(e, q, slot, acc, base, size, valid)
        if last.extent != whole:
            with e.b.loop(last.extent, name="k", lo=whole) as at:
                e.space.bind(last.variable, at)
                _scalar_step(e, q, slot, acc, base, q.width(size), valid)


def _turn_blocks(
    e: Scope, q: Packing, slot: Slot, acc: DType, base: Expr, size: int, valid: int | Expr
) -> None:
    """A tile for as many steps of k as a vector has lanes: whole blocks in a loop, then the
    rest."""
    at = e.b.let(base + e.expr(flat(q.k)) * q.width(size), "at")
    start = e.b.let(e.expr(q.source.address), "from")
    whole = size // q.lanes * q.lanes
    if whole:
        with e.b.loop(whole, name="block", step=q.lanes) as first:
            _turn(e, q, slot, acc, (at, start), size, first, q.lanes, valid)
    if size != whole:
        _turn(e, q, slot, acc, (at, start), size, Const(whole), size - whole, valid)


def _turn(
    e: Scope,
    q: Packing,
    slot: Slot,
    acc: DType,
    places: tuple[Expr, Expr],
    size: int,
    first: Expr,
    count: int,
    valid: int | Expr,
) -> None:
    """`count` rows from `first` on, read along k, transposed, stored along the tile."""
    source = e.buffer(q.source.slot, hint="x", dtype=q.source.dtype)
    target = e.buffer(slot, "write", "packed")
    width, lanes, (at, start) = q.width(size), q.lanes, places
    hop = e.b.let(e.expr(stride(q.source.address, q.along)), "hop")
    rows = []
    for i in range(count):
        mask = None if isinstance(valid, int) else splat(binary("lt", first + i, valid), lanes)
        value = load(source, start + (first + i) * hop, lanes, mask)
        rows.append(e.b.let(_converted(value, q.source, acc), "row"))
    zero = constant(0, KType(acc, lanes))
    turned = transpose(e, rows + [zero] * (lanes - count))
    for i in range(lanes):
        kept = lanes if count == lanes else width - size + count
        if width <= lanes and i * width + lanes <= lanes * width:
            kept = lanes  # what is too much is overwritten by the next step
        store_lanes(e.b, target, at + (first + i * width), turned[i], kept, e.masks)
