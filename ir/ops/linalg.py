"""Matrix products."""

from __future__ import annotations

import numpy as np

from ..graph import Node, Type, Value
from ..op import Attrs, Kind, Op, Weight
from ..shape import Dim, Shape, broadcast, numel
from .batching import Mapped, Values, lifted, pointwise, whole
from .checks import listed
from .common import (
    NUMERIC,
    cast_to,
    check_domain,
    check_same_dtype,
    conj,
    ops,
    sum_to,
    swap_last,
    wide,
    wide_dtype,
)
from .timing import product_ns

__all__ = ["affine", "linear", "matmul"]


def _matmul_infer(attrs: Attrs, a: Type, b: Type) -> tuple[Type, ...]:
    check_domain("matmul", a, NUMERIC)
    check_same_dtype("matmul", a, b)
    if a.rank < 2 or b.rank < 2:
        raise RuntimeError(
            "matmul: both arguments need at least 2 dimensions, but they have shapes "
            f"{listed(a.shape)} and {listed(b.shape)}: reshape vectors to matrices"
        )
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({a.shape[-2]}x{a.shape[-1]} and "
            f"{b.shape[-2]}x{b.shape[-1]}): got {listed(a.shape)} and {listed(b.shape)}"
        )
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return (a.with_shape((*batch, a.shape[-2], b.shape[-1])),)


def _matmul_vjp(node: Node, g: Value) -> tuple[Value, Value]:
    a, b = node.operands
    ga = ops.matmul(g, swap_last(conj(b)))
    gb = ops.matmul(swap_last(conj(a)), g)
    return sum_to(ga, a.shape), sum_to(gb, b.shape)


def _matmul_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Entries are further batch dimensions; rows of one larger matrix where all meet the same
    one."""
    a, b = values
    rank = max(v.rank for v in node.operands)
    if node.operands[0].shape[-1] == 1:  # a column by a row: nothing to sum
        return (ops.mul(lifted(a, mapped[0], rank), lifted(b, mapped[1], rank)),)
    if not mapped[1] and b.rank == 2:
        return (_rows_of_one(a, b),)
    few = node.operands[1].shape[-1]
    if not mapped[0] and rank == 2 and isinstance(few, int) and few <= FEW_COLUMNS:
        return (_turned(_rows_of_one(_turned(b), swap_last(a))),)
    return pointwise(node, values, mapped, size)


FEW_COLUMNS = 4  # so many are multiplied faster as rows of one matrix than as narrow matrices


def _turned(x: Value) -> Value:
    """x [size, m, n] as [size, n, m]."""
    size, m, n = x.shape
    return ops.reshape(x, shape=(size, n, m)) if 1 in (m, n) else swap_last(x)


def _rows_of_one(a: Value, b: Value) -> Value:
    """a [*B, m, k] times b [k, n]."""
    rows = ops.matmul(ops.reshape(a, shape=(numel(a.shape[:-1]), a.shape[-1])), b)
    return ops.reshape(rows, shape=(*a.shape[:-1], b.shape[-1]))


matmul = Op(
    "matmul",
    "Matrix products of a [*B, m, k] and b [*B, k, n]; batch dimensions broadcast.",
    ("a", "b"),
    infer=_matmul_infer,
    vjp=_matmul_vjp,
    reference=lambda attrs, a, b: np.matmul(wide(a), wide(b)).astype(a.dtype),
    plain=lambda attrs, a, b: np.matmul(a, b),
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=product_ns,
    batch=_matmul_batch,
)


# ------------------------------ linear maps


def _linear_types(name: str, x: Type, w: Type) -> tuple[Type, ...]:
    check_domain(name, x, NUMERIC)
    check_same_dtype(name, x, w)
    if not x.rank or w.rank != 2 or x.shape[-1] != w.shape[1]:
        raise RuntimeError(
            f"{name}: expected x [*, in] and a weight [out, in], got {listed(x.shape)} and "
            f"{listed(w.shape)}"
        )
    return (x.with_shape((*x.shape[:-1], w.shape[0])),)


def _affine_infer(attrs: Attrs, b: Type, x: Type, w: Type) -> tuple[Type, ...]:
    types = _linear_types("affine", x, w)
    check_same_dtype("affine", x, b)
    if b.shape != w.shape[:1]:
        raise RuntimeError(
            f"affine: expected a bias {listed(w.shape[:1])} for a weight {listed(w.shape)}, "
            f"got {listed(b.shape)}"
        )
    return types


def _rows(x: Value) -> Value:
    """`x` [*, n] as a matrix [rows, n]."""
    return x if x.rank == 2 else ops.reshape(x, shape=(numel(x.shape[:-1]), x.shape[-1]))


def _like_rows(rows: Value, lead: Shape) -> Value:
    """A matrix [rows, n] as [*lead, n]."""
    return rows if len(lead) == 1 else ops.reshape(rows, shape=(*lead, rows.shape[1]))


def _product_of_rows(x: Value, w: Value) -> Value:
    return _like_rows(ops.matmul(_rows(x), w), x.shape[:-1])


def _gradients_of_rows(x: Value, w: Value, g: Value) -> tuple[Value, Value]:
    """Of x and w in x w^T, given that of the product."""
    rows = _rows(g)
    gx = _like_rows(ops.matmul(rows, conj(w)), x.shape[:-1])
    return gx, ops.matmul(swap_last(rows), conj(_rows(x)))


def _linear_vjp(node: Node, g: Value) -> tuple[Value, Value]:
    x, w = node.operands
    return _gradients_of_rows(x, w, g)


def _affine_vjp(node: Node, g: Value) -> tuple[Value, Value, Value]:
    b, x, w = node.operands
    return sum_to(g, b.shape), *_gradients_of_rows(x, w, g)


def _linear_reference(attrs: Attrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.matmul(wide(x), wide(w).T).astype(x.dtype)


def _affine_parts(node: Node) -> tuple[Value]:
    """The sum rounded once: of 16 bits the product by itself could overflow."""
    dtype = node.operands[1].dtype
    b, x, w = (cast_to(v, wide_dtype(dtype)) for v in node.operands)
    return (cast_to(ops.add(_product_of_rows(x, swap_last(w)), b), dtype),)


def _linear_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    x, w = values
    if not mapped[1]:
        return (ops.linear(x, w),)
    return (_products_of_entries(whole(x, mapped[0], size), swap_last(w)),)


def _products_of_entries(x: Value, w: Value) -> Value:
    """Each entry of x [size, *, in] times its own of w [size, in, out]."""
    rows = (
        x if x.rank == 3 else ops.reshape(x, shape=(x.shape[0], numel(x.shape[1:-1]), x.shape[-1]))
    )
    found = ops.matmul(rows, w)
    return found if x.rank == 3 else ops.reshape(found, shape=(*x.shape[:-1], w.shape[-1]))


def _affine_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    if not mapped[0] and not mapped[2]:
        return (ops.affine(*values),)
    dtype, several, rank = values[1].dtype, any(mapped[1:]), node.types[0].rank
    b, x, w = (cast_to(v, wide_dtype(dtype)) for v in values)
    (product,) = _linear_batch(node, (x, w), mapped[1:], size) if several else (ops.linear(x, w),)
    return (cast_to(ops.add(lifted(product, several, rank), lifted(b, mapped[0], rank)), dtype),)


linear = Op(
    "linear",
    "x [*, in] times the transposed w [out, in].",
    ("x", "w"),
    infer=lambda attrs, x, w: _linear_types("linear", x, w),
    vjp=_linear_vjp,
    decompose=lambda node: (_product_of_rows(node.operands[0], swap_last(node.operands[1])),),
    reference=_linear_reference,
    plain=lambda attrs, x, w: np.matmul(x, w.T),
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=product_ns,
    batch=_linear_batch,
)
affine = Op(
    "affine",
    "b [out] added to x [*, in] times the transposed w [out, in].",
    ("b", "x", "w"),
    infer=_affine_infer,
    vjp=_affine_vjp,
    decompose=_affine_parts,
    reference=lambda attrs, b, x, w: (np.matmul(wide(x), wide(w).T) + wide(b)).astype(x.dtype),
    plain=lambda attrs, b, x, w: np.matmul(x, w.T) + b,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=product_ns,
    batch=_affine_batch,
)
