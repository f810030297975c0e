"""What of an operand of a contraction lies together in memory, for copies of 16 bytes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import Dim, evaluate

from ...cpu.contraction.choice import guess
from ...kernels.body.scope import Scope
from ...kernels.builder import Builder
from ...kernels.contraction.problem import Axis, Contraction, Source, stride
from ...kernels.ir import Buffer, Const, Expr, KType, aligned, binary, load

COPIED = 16  # bytes of a copy, and of a matrix's row
BANKED = 128  # bytes that the banks of shared memory give at a time


def copied(dtype: DType) -> int:
    """Elements of a copy."""
    return COPIED // dtype.itemsize


def along_k(p: Contraction, source: Source) -> bool:
    return stride(source.address, p.k[-1]) == 1 and guess(p.k[-1].extent) > 1


def in_parts(p: Contraction, source: Source, axes: Sequence[Axis]) -> list[Dim] | None:
    """Sizes that are multiples of the elements of 16 bytes where such parts lie together in memory,
    all of them inside or none, and aligned if the operand is: those that are not known yet. None:
    they do not.
    """
    inner = p.k[-1] if along_k(p, source) else axes[-1]
    limit = evaluate(p.limits.get(inner.name, 0), {x.name: 0 for x in p.batch})
    return parts_along(source, inner, p.axes(), limit)


def parts_along(
    source: Source, inner: Axis, axes: Sequence[Axis], limit: Dim = 0
) -> list[Dim] | None:
    """As `in_parts`, of parts along one of an operand's axes, which ends at `limit` too."""
    gated = any(stride(g.coordinate, inner) != 0 for g in source.gates)
    if source.casts or gated or stride(source.address, inner) != 1:
        return None
    start = evaluate(source.address, {x.name: 0 for x in axes})
    strides = (stride(source.address, x) for x in axes if x is not inner)
    sizes = [inner.extent, limit, start, *strides, *(g.stride for g in source.gates)]
    if any(isinstance(n, int) and n % copied(source.dtype) for n in sizes):
        return None
    return [n for n in sizes if not isinstance(n, int)]


def parts_fit(e: Scope, buffer: Buffer, sizes: Sequence[Dim]) -> Expr | None:
    """Whether parts are aligned, of an operand with these sizes that are not known yet; None: they
    are."""
    tests = [binary("eq", e.expr(n) % copied(buffer.dtype), 0) for n in sizes]
    if buffer.align % COPIED:
        tests.append(aligned(buffer))
    found = both(tests)
    return None if found is None else e.b.let(found, "aligned")


def is_multiple(extent: Dim, of: int) -> bool:
    return isinstance(extent, int) and extent % of == 0


def both(tests: Sequence[Expr]) -> Expr | None:
    """Whether all hold; None where there are none."""
    return functools.reduce(lambda a, b: binary("and", a, b), tests) if tests else None


def read_part(
    b: Builder,
    to: Buffer,
    at: Expr,
    source: Buffer,
    where: Expr,
    lanes: int,
    inside: Expr | None,
) -> None:
    """Read aligned neighbours into a thread's own memory; 0 where they are not `inside`."""
    value = load(source, where, lanes, aligned=True)
    if inside is None:
        b.store(to, at, value)
        return
    with b.loop(lanes, "unroll", "u") as u:
        b.store(to, at + u, Const(0.0, KType(to.dtype)))
    with b.when(inside):
        b.store(to, at, value)
