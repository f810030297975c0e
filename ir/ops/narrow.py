"""Products of numbers of 8 and 16 bits, and products that are computed by them.

int8: with one scale for each row of x and of w, chosen so that the largest element is 127,

    s[i] = max |v[i, :]| / 127,    q[i, k] = round(v[i, k] / s[i]),
    x w^T  is about  (qx qw^T) * sx * sw

where the sums of qx qw^T are exact. A row of zeros is zeros; one with an infinity or nan has no
scale, and all that it is multiplied with is nan. Both scales are symmetric, those of x are taken
anew at each call (Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342, section 2.3).

bf16: both rounded to nearest even, products and sums in f32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, bf16, f32, i8, i16, i32, u8
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, NoGradient, Op, Weight
from .batching import Mapped, Values
from .checks import attrs_of, listed
from .common import Expr, cast_to, fn, number, ops
from .timing import product_ns

__all__ = ["low_linear", "narrow_linear"]

INT8, BF16 = "int8", "bf16"
PRECISIONS = (BF16, INT8)
LARGEST = 127  # of a quantised number
SMALLEST = 1e-35  # of a row's largest element: below it 127 / largest could be infinite
GROUP = 4  # numbers of 8 bits in a word; rows are filled up to whole words
LONGEST = (2**31 - 1) // LARGEST**2 // GROUP * GROUP  # a row whose sum of products fits 32 bits
SHIFT = 128  # from signed to unsigned numbers of 8 bits

# the dtype of the sums, by those of the operands
SUMS: dict[tuple[DType, DType], DType] = {
    (i8, i8): i32,
    (i16, i16): i32,
    (u8, i8): i32,
    (bf16, bf16): f32,
    (f32, bf16): f32,
}


def _check_shapes(name: str, x: Type, w: Type) -> None:
    if not x.rank or w.rank != 2 or x.shape[-1] != w.shape[1]:
        raise RuntimeError(
            f"{name}: expected x [*, in] and a weight [out, in], got {listed(x.shape)} and "
            f"{listed(w.shape)}"
        )


# ------------------------------ narrow numbers


def _narrow_infer(attrs: Attrs, x: Type, w: Type) -> tuple[Type, ...]:
    _check_shapes("narrow_linear", x, w)
    if (x.dtype, w.dtype) not in SUMS:
        raise TypeError(
            f"narrow_linear: no products of {x.dtype} and {w.dtype}; there are those of "
            f"{', '.join(f'{a} and {b}' for a, b in SUMS)}"
        )
    return (Type(SUMS[x.dtype, w.dtype], (*x.shape[:-1], w.shape[0])),)


def _narrow_parts(node: Node) -> tuple[Value]:
    sums = node.types[0].dtype
    x, w = (cast_to(v, sums) for v in node.operands)
    return (ops.linear(x, w),)


def _narrow_reference(attrs: Attrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "iu":  # NumPy has no bf16
        return np.matmul(x.astype(np.float32), w.astype(np.float32).T)
    # exact in float64: products have 30 bits at most
    sums = np.matmul(x.astype(np.float64), w.astype(np.float64).T)
    return sums.astype(np.int64).astype(np.int32)


def _narrow_batch(node: Node, values: Values, mapped: Mapped, size: Any) -> Values:
    if not mapped[1]:
        return (ops.narrow_linear(*values),)
    (wide,) = _narrow_parts(node)
    assert wide.node is not None
    sums = node.types[0].dtype
    return wide.node.op.batch(wide.node, tuple(cast_to(v, sums) for v in values), mapped, size)  # type: ignore[operator]


narrow_linear = Op(
    "narrow_linear",
    "x [*, in] times the transposed w [out, in], both i8 or i16, or u8 and i8, in i32 sums, which "
    "wrap; or w bf16 and x as well, or f32, in f32.",
    ("x", "w"),
    infer=_narrow_infer,
    vjp=NoGradient("of rounded numbers"),
    decompose=_narrow_parts,
    reference=_narrow_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=product_ns,
    batch=_narrow_batch,
)


# ------------------------------ products by narrow numbers


@dataclass(frozen=True)
class Precision(Attrs):
    """precision: "int8" or "bf16"."""

    precision: str


def _low_infer(attrs: Precision, x: Type, w: Type) -> tuple[Type, ...]:
    _check_shapes("low_linear", x, w)
    if x.dtype is not f32 or w.dtype is not f32:
        raise TypeError(f"low_linear: expected f32 operands, got {x.dtype} and {w.dtype}")
    if attrs.precision not in PRECISIONS:
        raise ValueError(f"low_linear: {attrs.precision!r} is none of {', '.join(PRECISIONS)}")
    depth = w.shape[1]
    if attrs.precision == INT8 and not (isinstance(depth, int) and 0 < depth <= LONGEST):
        raise RuntimeError(
            f"low_linear: sums of {depth} products; int8 needs a known number of 1 to {LONGEST}"
        )
    return (x.with_shape((*x.shape[:-1], w.shape[0])),)


def _quantised(v: Value, dtype: DType) -> tuple[Value, Expr]:
    """The elements of each row (the last dimension) as numbers of `dtype`, and the rows' scales."""
    x, along = Expr(v), {"dims": (v.rank - 1,), "keepdim": True}
    # of both ends, not of |x|, which whoever computes x would store beside it
    top = fn.maximum(fn.max(x, **along), -fn.min(x, **along))
    top = fn.maximum(top, Expr(number(SMALLEST, f32)))
    q = fn.round(x * (LARGEST / top))
    if dtype is u8:
        q = q + SHIFT
    scale = fn.where(top < float("inf"), top / LARGEST, float("nan"))
    return _whole_words(ops.cast(q.value, dtype=dtype)), scale


def _whole_words(v: Value) -> Value:
    """`v` with zeros after each row, so that kernels can read rows by words."""
    missing = -v.shape[-1] % GROUP if isinstance(v.shape[-1], int) else 0
    if not missing:
        return v
    none = (0,) * (v.rank - 1)
    return ops.pad(v, low=(*none, 0), high=(*none, missing), value=0)  # type: ignore[no-any-return]


def low_product(node: Node, integers: tuple[DType, DType], floats: tuple[DType, DType]) -> Value:
    """A `low_linear` by narrow products.

    Args:
        integers: the dtypes of quantised x and w when they are multiplied.
        floats: those of x and w that are rounded to bf16.
    """
    x, w = node.operands
    if attrs_of(node, Precision).precision == BF16:
        x, w = (
            cast_to(ops.cast(v, dtype=bf16), dtype) for v, dtype in zip((x, w), floats, strict=True)
        )
        if floats == (f32, f32):
            return ops.linear(x, w)  # type: ignore[no-any-return]
        if floats == (bf16, bf16):
            x, w = _whole_words(x), _whole_words(w)
        return ops.narrow_linear(x, w)  # type: ignore[no-any-return]
    (qx, sx), (qw, sw) = (_quantised(v, t) for v, t in zip((x, w), integers, strict=True))
    sums = ops.narrow_linear(qx, qw)
    if integers[0] is u8:
        columns = ops.sum(ops.cast(qw, dtype=i32), dims=(1,), keepdim=False)
        sums = ops.sub(sums, ops.mul(columns, number(SHIFT, i32)))
    by_column = Expr(ops.reshape(sw.value, shape=w.shape[:1]))
    # the scales first: they and the sum may be large where the result is not
    return (Expr(ops.cast(sums, dtype=f32)) * (sx * by_column)).value


def _low_reference(attrs: Precision, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if attrs.precision == BF16:
        return _narrow_reference(attrs, x.astype(bf16.numpy), w.astype(bf16.numpy))
    (qx, sx), (qw, sw) = (_quantised_array(v) for v in (x, w))
    sums = np.matmul(qx.astype(np.float64), qw.astype(np.float64).T)
    return sums.astype(np.float32) * (sx * sw[:, 0])


def _quantised_array(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top = np.maximum(np.abs(v).max(-1, keepdims=True), np.float32(SMALLEST))
    scale = np.where(top < np.inf, top / np.float32(LARGEST), np.float32(np.nan))
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.rint(v * (np.float32(LARGEST) / top)), nan=0.0), scale


low_linear = Op(
    "low_linear",
    "x [*, in] times the transposed w [out, in], f32, by products of numbers of int8, with a "
    "scale for each row of both, or of bf16.",
    ("x", "w"),
    attrs=Precision,
    infer=_low_infer,
    vjp=NoGradient("of rounded numbers"),
    decompose=lambda node: (low_product(node, (i8, i8), (bf16, bf16)),),
    reference=_low_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=product_ns,
    batch=BY_DECOMPOSITION,
)
