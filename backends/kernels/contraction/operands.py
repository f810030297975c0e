"""Operands of a contraction: read in place through views and casts, or computed into memory
first."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.dtype import DType, f32, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import Dim

from ..body.access import Reader, resolve
from ..body.scope import Scope
from ..body.space import Space
from ..ir import Expr, binary, cast
from ..program.lowering import Lowering, Region
from .problem import Source, axis, flat

SHORT = 64  # elements of a last dimension that are too few for a task


def known_below(extent: Dim, limit: int) -> bool:
    return isinstance(extent, int) and extent < limit


def accumulator(dtype: DType) -> DType:
    """The dtype that products of `dtype` are summed in."""
    return f32 if dtype.is_floating_point and dtype.itemsize == 2 else dtype


def source_of(
    region: Region, lowering: Lowering, space: Space, value: Value, index: Sequence[Dim]
) -> Source:
    """`value` of the region's body at `index`."""
    access = resolve(value, index)
    if access is None:
        return computed(region, lowering, value).at(space.linear(index, value.shape))
    outside = region.operands[region.body.inputs.index(access.leaf)]
    stable = lowering.is_stable(outside)
    reused = lowering.is_fixed(outside)
    return Source(
        lowering.slot(outside), outside.dtype, access.address, access.casts, stable, reused
    )


def plain_source(region: Region, lowering: Lowering, value: Value) -> Source:
    """`value` as a row-major array in memory (address 0), copied if it is a view of something."""
    if value.node is not None:
        return computed(region, lowering, value)
    outside = region.operands[region.body.inputs.index(value)]
    return Source(lowering.slot(outside), outside.dtype, 0, (), lowering.is_stable(outside))


def computed(region: Region, lowering: Lowering, value: Value) -> Source:
    """Launch the kernel that computes `value` into a temporary."""
    slot = lowering.temporary(value.dtype, value.shape)
    if lowering.schedules.operand is not None:
        lowering.schedules.operand(region, lowering, value, slot)
        return Source(slot, value.dtype, 0)
    e = Scope(lowering, "operand")
    axes = [axis(e.space, d) for d in value.shape]
    slots = dict(zip(region.body.inputs, region.operands, strict=True))
    reader = Reader(e.b, e.space, lambda leaf: e.buffer(lowering.slot(slots[leaf])))
    inner = 2 if len(axes) > 2 and known_below(axes[-1].extent, SHORT) else 1
    loops = [a.loop for a in axes]
    with e.tasks(loops[:-inner]), e.nested(loops[-inner:]):
        result = reader.value(value, [a.variable for a in axes], {})
        e.b.store(e.buffer(slot, "write", "y"), e.expr(flat(axes)), cast(result, value.dtype))
    e.launch("operand")
    return Source(slot, value.dtype, 0)


def passing(
    e: Scope, source: Source, address: Expr, coordinates: Sequence[Expr]
) -> tuple[Expr, Expr | None]:
    """The address of an element and whether there is one, None where there always is.

    Args: address, coordinates: the values of the source's `polynomials`.
    """
    condition: Expr | None = None
    for gate, at in zip(source.gates, coordinates, strict=True):
        inside = binary("lt_u", at, cast(e.expr(gate.reach), at.type.dtype))
        if gate.step != 1:
            inside = binary("and", inside, binary("eq", binary("rem", at, gate.step), 0))
            address = address + cast(binary("div", at, gate.step), i64) * e.expr(gate.stride)
        condition = inside if condition is None else binary("and", condition, inside)
    return address, condition
