"""Lowering of contraction regions: matmul, convolution and its gradients, with prologue and
epilogue.

A region's one contraction op becomes index algebra (`problem`), a schedule is chosen for it
(`choice`), operands are packed where the schedule says so (`packing`), and the register-tile kernel
(`tile`) is launched with the region's epilogue in its `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from graphtorch.ir.dtype import DType, bf16, f16
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim

from ...kernels.body.scope import Scope
from ...kernels.contraction.conv import (
    conv_problem,
    conv_transpose_problems,
    conv_weight_grad_problem,
)
from ...kernels.contraction.matmul import matmul_problem, narrow_problem
from ...kernels.contraction.operands import passing
from ...kernels.contraction.problem import (
    Contraction,
    Source,
    axis,
    extent_of,
    merge_axes,
    merge_steps,
    part_axes,
)
from ...kernels.ir import Expr, KType, binary, cast, constant, fma, load
from ...kernels.program.lowering import Lowering, Region
from .choice import blocked, guess
from .diagonal import diagonal_tile
from .dot import dot_tile
from .offers import planned
from .packing import Packing, pack
from .schedule import Schedule
from .split import add_parts, partial_address, partial_slot, split
from .tile import Direct, Packed, TileBody, emit_tiles, register_tile
from .winograd import lower_winograd_result
from .winograd_conv import lower_winograd_conv
from .writer import PartialWriter, ResultWriter


def _one(make: Callable[[Node, Region, Lowering], Contraction]) -> Problems:
    return lambda *given: (make(*given),)


Problems: TypeAlias = Callable[[Node, Region, Lowering], Iterable[Contraction]]
PROBLEMS: dict[str, Problems] = {
    "matmul": _one(matmul_problem),
    "narrow_linear": _one(narrow_problem),
    "conv": _one(conv_problem),
    "conv_transpose": conv_transpose_problems,
    "conv_weight_grad": _one(conv_weight_grad_problem),
    "channels_last_conv": _one(conv_problem),
    "channels_last_conv_transpose": conv_transpose_problems,
    "channels_last_conv_weight_grad": _one(conv_weight_grad_problem),
}

HALVES = (f16, bf16)
FEW_ROWS = 2  # that share what is widened of a column

WITHOUT_SUMS: dict[str, Callable[[Region, Lowering, Node], None]] = {
    "winograd_conv": lower_winograd_conv,
    "winograd_result": lower_winograd_result,
}
TILES: dict[str, Callable[[int], TileBody]] = {
    "tile": lambda lanes: register_tile,
    "dot": dot_tile,
    "diagonal": lambda lanes: diagonal_tile,
}


def lower_contraction(region: Region, lowering: Lowering) -> None:
    """Append the launches that compute `region`."""
    node = anchor_of(region)
    if node.op.name in WITHOUT_SUMS:
        WITHOUT_SUMS[node.op.name](region, lowering, node)
        return
    for problem in PROBLEMS[node.op.name](node, region, lowering):
        merge_axes(problem)
        for group in (problem.m, problem.n):
            if not group:
                group.append(axis(problem.space, 1))
        lowering.schedules.contract(problem, region, lowering)


def contract(problem: Contraction, region: Region, lowering: Lowering) -> Schedule:
    """The launches of a contraction by the schedule that is returned."""
    if not lowering.machine.tasks_are_threads:
        part_axes(problem)
    return lower_scheduled(*planned(problem, lowering.machine), region, lowering)


def lower_scheduled(p: Contraction, s: Schedule, region: Region, lowering: Lowering) -> Schedule:
    """The launches of a schedule, which is returned as it is on the threads that there are."""
    if lowering.serial and s.parallel:
        s = blocked(p, replace(s, parallel=False), lowering.machine)
    if s.kind == "loops":
        lower_loop_nest(p, region, lowering)
    else:
        lower_tiles(p, region, lowering, s)
    return s


def anchor_of(region: Region) -> Node:
    """The region's one contraction op."""
    found = [n for n in region.nodes if n.op.name in PROBLEMS or n.op.name in WITHOUT_SUMS]
    if len(found) != 1:
        raise TypeError(
            f"a contraction region holds one of {', '.join(PROBLEMS)}, but this one holds "
            f"{[n.op.name for n in found]}"
        )
    return found[0]


def lower_tiles(p: Contraction, region: Region, lowering: Lowering, s: Schedule) -> None:
    """The tile kernel, after what it needs packed; with a long k in parts, also the kernel that
    adds them."""
    a = packed_slot(p, lowering, s, p.a, True) if s.pack_a else None
    b = packed_slot(p, lowering, s, p.b, False) if s.pack_b else None
    label, flops, moved = f"{region.label} [{s}]", 2 * extent_of(p.axes()), moved_bytes(p, region)
    p = merge_steps(p, a is not None, b is not None)
    emit = TILES[s.kind](s.lanes)
    if s.split == 1:
        e = Scope(lowering, region.label, p.space)
        emit_tiles(
            e, p, s, feed(e, p, a, p.a, 0), feed(e, p, b, p.b, 0), ResultWriter(e, p, region), emit
        )
        e.launch(label, flops, moved)
        return
    cut, part, skipped = split(p, s.split)
    if s.kind == "tile":
        s = blocked(cut, s, lowering.machine)
    slot = partial_slot(p, lowering, s.split)
    e = Scope(lowering, region.label, p.space)
    emit_tiles(
        e,
        cut,
        s,
        feed(e, cut, a, cut.a, skipped),
        feed(e, cut, b, cut.b, skipped),
        PartialWriter(e, slot, partial_address(p, part)),
        emit,
    )
    e.launch(label, flops, moved)
    add_parts(p, region, lowering, s, slot, part)


def moved_bytes(p: Contraction, region: Region) -> Dim:
    """Bytes of operands and results."""
    total: Dim = 0
    for value in (*region.operands, *region.results):
        total = total + value.type.numel * value.dtype.itemsize
    return total


def packing_of(p: Contraction, s: Schedule, source: Source, rows: bool) -> Packing:
    axes, tiling = (p.m, s.rows) if rows else (p.n, s.columns)
    return Packing(
        p.space, source, (*p.batch, *axes[:-1]), axes[-1], p.k, tiling, s.lanes, fill=not rows
    )


def packed_slot(
    p: Contraction, lowering: Lowering, s: Schedule, source: Source, rows: bool
) -> tuple[Source, Packing]:
    packing = packing_of(p, s, source, rows)
    label = f"pack {p.node.op.name} {'rows' if rows else 'columns'}"
    dtype = packed_dtype(p, source, rows)
    slot = pack(lowering, packing, dtype, label, s.parallel)
    return Source(slot, dtype, 0), packing


def packed_dtype(p: Contraction, source: Source, rows: bool) -> DType:
    """That of what is multiplied; or that of weights of 16 bits which few rows read, since that
    takes as long as reading them does."""
    narrow = source.stable and not rows and source.dtype in HALVES and not source.casts
    return source.dtype if narrow and guess(extent_of(p.m)) <= FEW_ROWS else p.factor


def feed(
    e: Scope, p: Contraction, packed: tuple[Source, Packing] | None, source: Source, skipped: Dim
) -> Direct | Packed:
    """How the tile kernel reads an operand."""
    if packed is None:
        return Direct(e, p, source, p.k)
    slot, q = packed
    return Packed(e, slot, p.k, q.depth, q.group, q.room, q.along.variable, skipped)


def lower_loop_nest(p: Contraction, region: Region, lowering: Lowering) -> None:
    """One sum after another, in scalars: integers, and whatever has no vector form."""
    e = Scope(lowering, region.label, p.space)
    writer = ResultWriter(e, p, region)
    zero = constant(0, KType(p.acc))
    levels = [x.loop for x in (*p.batch, *p.m)]
    with e.tasks(levels, work=extent_of(p.axes())), e.nested([x.loop for x in p.n]):
        total = e.b.var(zero, "sum")
        with e.nested([x.loop for x in p.k]):
            a, b = element_of(e, p.a, p), element_of(e, p.b, p)
            e.b.assign(total, multiply_add(a, b, total))
        writer.element(total, {}, None, 1)
    e.launch(region.label, 2 * extent_of(p.axes()), moved_bytes(p, region))


def element_of(e: Scope, source: Source, p: Contraction) -> Expr:
    address, *coordinates = map(e.expr, source.polynomials)
    where, inside = passing(e, source, address, [e.b.let(t, "t") for t in coordinates])
    value: Expr = load(e.buffer(source.slot), where, mask=inside)
    for dtype in (*source.casts, p.acc):
        value = cast(value, dtype)
    return value


def multiply_add(a: Expr, b: Expr, total: Expr) -> Expr:
    if a.type.dtype.is_floating_point:
        return fma(a, b, total)
    if a.type.dtype.is_bool:
        return binary("or", total, binary("and", a, b))
    return binary("add", total, binary("mul", a, b))
