"""Elementwise ops of two or three operands, and `cast`.

Operands have one dtype (the front end promotes) and broadcast; gradients sum over what was
repeated. Integer arithmetic wraps; dividing an integer by zero gives 0; shifting by less than 0 or
by the number of bits and more gives 0, or the sign for a right shift.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType, boolean, c64, c128, f32, f64, narrow_through
from ..graph import Node, Type, Value
from ..op import CORE, Attrs, ByDecomposition, Kind, NoGradient, Op, Weight
from ..shape import broadcast
from .batching import pointwise, unchanged
from .common import (
    ANY,
    BITS,
    BOOLEAN,
    FLOATING,
    INTEGER,
    NUMERIC,
    ORDERED,
    REAL,
    REAL_FLOATING,
    Domain,
    Expr,
    algebra_wide,
    cast_to,
    check_domain,
    check_same_dtype,
    fn,
    narrow,
    quiet,
    sum_to,
    wide,
    zeros,
)
from .elementwise import CONDITION, ZERO, Formula, decomposition

__all__ = [
    "add",
    "atan2",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "cast",
    "complex",
    "copysign",
    "div",
    "eq",
    "floor_div",
    "fmax",
    "fmin",
    "fmod",
    "ge",
    "gt",
    "hypot",
    "le",
    "logaddexp",
    "logical_and",
    "logical_or",
    "logical_xor",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "muladd",
    "ne",
    "nextafter",
    "pow",
    "product",
    "remainder",
    "shift_left",
    "shift_right",
    "sub",
    "trunc_div",
    "where",
    "xlogy",
]

COMPLEX_OF = {f32: c64, f64: c128}


def binary(
    name: str,
    doc: str,
    numpy: Callable[..., Any],
    rule: Any,
    domain: Domain = REAL_FLOATING,
    *,
    weight: Weight,
    formula: Formula | None = None,
    result: Callable[[DType], DType] = lambda dtype: dtype,
    hint: str = "",
    widen: bool = True,
    operands: tuple[str, str] = ("x", "y"),
) -> Op:
    """An elementwise op of two operands.

    Args:
        weight: what an element costs.
        numpy: the function on two arrays (f32 for f16 and bf16 where `widen`).
        rule: gradients (of x, of y) from (g, x, y, z) on `Expr`s with z the result, each of the
            broadcast shape or None; or `ZERO` (for both), `NoGradient`, `ByDecomposition`.
        formula: of a composite: the result from (x, y) on `Expr`s.
        result: dtype of the result from that of the operands.
        hint: what to do instead, for the error on a wrong dtype.
    """

    def infer(attrs: Attrs, x: Type, y: Type) -> tuple[Type, ...]:
        dtype = check_same_dtype(name, x, y)
        check_domain(name, x, domain, hint)
        return (Type(result(dtype), broadcast(x.shape, y.shape)),)

    def vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
        if rule is ZERO:
            return tuple(zeros(v.type) for v in node.operands)
        found = algebra_wide(rule, g, *node.operands, node.result())
        return tuple(
            None if r is None else sum_to(r, v.shape)
            for r, v in zip(found, node.operands, strict=True)
        )

    @quiet
    def reference(attrs: Attrs, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        dtype = result(DType.of(x.dtype))
        return narrow(numpy(wide(x), wide(y)) if widen else numpy(x, y), dtype)

    stated = isinstance(rule, (NoGradient, ByDecomposition))
    expand: Any = CORE if formula is None else decomposition(formula, widen=True)
    return Op(
        name,
        doc,
        operands,
        infer,
        rule if stated else vjp,
        reference,
        Attrs,
        expand,
        lambda attrs, x, y: numpy(x, y),
        kind=Kind.POINTWISE,
        weight=weight,
        batch=pointwise,
    )


# ------------------------------ arithmetic


def _integer(x: np.ndarray) -> bool:
    return x.dtype.kind in "iu"


def _trunc_div_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not _integer(x):
        return np.trunc(x / y)
    quotient = np.floor_divide(x, y)  # 0 where y is 0
    return quotient + ((quotient * y != x) & ((x < 0) != (y < 0)) & (y != 0)).astype(x.dtype)


def _remainder_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if _integer(x):
        return np.remainder(x, y)
    rest = np.fmod(x, y)
    return np.where((rest != 0) & ((y < 0) != (rest < 0)), rest + y, rest)


def _pow_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not _integer(x) or x.dtype.kind == "u":
        return np.power(x, y)
    odd = np.where(y % 2 == 0, x * x, x)  # x ** -n is 1 for 1, +-1 for -1
    inverse = np.where(np.abs(x) == 1, odd, 0)
    return np.where(y < 0, inverse, np.power(x, np.where(y < 0, 0, y)))


def _pow_rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    to_x = fn.where(fn.eq(y, 0), 0, g * (y * fn.pow(x, y - 1)).conj)
    positive = (fn.real(y) if y.dtype.is_complex else y) >= 0
    to_y = fn.where(fn.eq(x, 0) & positive, 0, g * (z * fn.log(x)).conj)
    return to_x, to_y


def _mul_rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    return g * y.conj, g * x.conj


def _div_rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    to_x = g / y.conj
    return to_x, -to_x * z.conj


add = binary(
    "add",
    "x + y.",
    np.add,
    lambda g, x, y, z: (g, g),
    NUMERIC,
    hint="use logical_or for bools",
    weight=Weight.CHEAP,
)
sub = binary(
    "sub",
    "x - y.",
    np.subtract,
    lambda g, x, y, z: (g, -g),
    NUMERIC,
    hint="use the `^` operator or logical_xor() for bools",
    weight=Weight.CHEAP,
)
mul = binary(
    "mul",
    "x * y.",
    np.multiply,
    _mul_rule,
    NUMERIC,
    hint="use logical_and for bools",
    weight=Weight.CHEAP,
)
product = binary(
    "product",
    "x * y rounded by itself, never as one with a sum: what mul gives where it is not fused.",
    np.multiply,
    _mul_rule,
    REAL_FLOATING,
    weight=Weight.CHEAP,
)
div = binary(
    "div",
    "x / y of floating-point or complex numbers.",
    np.true_divide,
    _div_rule,
    FLOATING,
    weight=Weight.PLAIN,
)
floor_div = binary(
    "floor_div",
    "floor(x / y), exact as Python's //; 0 for an integer x / 0.",
    np.floor_divide,
    ZERO,
    REAL,
    weight=Weight.PLAIN,
)
trunc_div = binary(
    "trunc_div",
    "trunc(x / y), as C divides integers; 0 for an integer x / 0.",
    _trunc_div_numpy,
    ZERO,
    REAL,
    weight=Weight.PLAIN,
)
remainder = binary(
    "remainder",
    "x - y * floor(x / y), with the sign of y; 0 for an integer x % 0.",
    _remainder_numpy,
    lambda g, x, y, z: (g, -g * fn.floor_div(x, y)),
    REAL,
    weight=Weight.SLOW,
)
fmod = binary(
    "fmod",
    "x - y * trunc(x / y), with the sign of x; 0 for an integer y = 0.",
    np.fmod,
    lambda g, x, y, z: (g, -g * fn.trunc_div(x, y)),
    REAL,
    weight=Weight.SLOW,
)
pow = binary(
    "pow",
    "x to the y. Integers: a negative power is 0, but for x = 1 and -1.",
    _pow_numpy,
    _pow_rule,
    NUMERIC,
    weight=Weight.SLOW,
)


# ------------------------------ extrema


def _extremum(name: str, doc: str, numpy: Callable[..., Any], loses: str) -> Op:
    """maximum or minimum; `loses` compares x with y where x is not the result. Ties share the
    gradient."""

    def rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
        shared = fn.where(fn.eq(x, y), g * 0.5, g)
        compare = getattr(fn, loses)
        return fn.where(compare(x, y), 0, shared), fn.where(compare(y, x), 0, shared)

    return binary(name, doc, numpy, rule, ORDERED, weight=Weight.CHEAP)


def _known_extremum(name: str, doc: str, numpy: Callable[..., Any], keeps: str) -> Op:
    """fmax or fmin; `keeps` compares x with y where x is the result. A tie is x's."""

    def rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
        first = getattr(fn, keeps)(x, y) | fn.isnan(y)
        return fn.where(first, g, 0), fn.where(first, 0, g)

    return binary(name, doc, numpy, rule, REAL, weight=Weight.CHEAP)


maximum = _extremum("maximum", "The larger of x and y; nan where either is.", np.maximum, "lt")
minimum = _extremum("minimum", "The smaller of x and y; nan where either is.", np.minimum, "gt")
fmax = _known_extremum(
    "fmax", "The larger of x and y; the other one where one is nan.", np.fmax, "ge"
)
fmin = _known_extremum(
    "fmin", "The smaller of x and y; the other one where one is nan.", np.fmin, "le"
)


# ------------------------------ functions of two reals


def _atan2_rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    square = x * x + y * y
    scale = fn.where(fn.eq(square, 0), 0, g / square)
    return scale * y, -scale * x


def _copysign_rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    same = fn.where(fn.eq(x, 0), 0, z / x)
    return g * same, Expr(zeros(z.value.type))


def _hypot_formula(x: Expr, y: Expr) -> Expr:
    """Scaled by the larger side, so that no square overflows."""
    a, b = fn.abs(x), fn.abs(y)
    large = fn.maximum(a, b)
    ratio = fn.minimum(a, b) / large
    length = fn.where(fn.eq(large, 0), 0, large * fn.sqrt(1 + ratio * ratio))
    return fn.where(fn.isinf(x) | fn.isinf(y), math.inf, length)


def _logaddexp_formula(x: Expr, y: Expr) -> Expr:
    apart = fn.maximum(x, y) + fn.log1p(fn.exp(-fn.abs(x - y)))
    return fn.where(fn.eq(x, y), x + math.log(2), apart)  # inf - inf is nan


def _xlogy_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where((x == 0) & ~np.isnan(y), 0, x * np.log(y))


def _xlogy_rule(g: Expr, x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    return fn.where(fn.eq(x, 0) & (y <= 0), 0, g * fn.log(y)), g * x / y


atan2 = binary(
    "atan2",
    "Angle of the point (y, x), where y is the first operand, within -pi..pi.",
    np.arctan2,
    _atan2_rule,
    operands=("y", "x"),
    weight=Weight.SLOW,
)
copysign = binary(
    "copysign", "|x| with the sign bit of y.", np.copysign, _copysign_rule, weight=Weight.CHEAP
)
nextafter = binary(
    "nextafter",
    "The float next to x on the way to y.",
    np.nextafter,
    lambda g, x, y, z: (fn.where(fn.ne(x, y), g, 0), Expr(zeros(z.value.type))),
    widen=False,
    weight=Weight.VERY_SLOW,
)
hypot = binary(
    "hypot",
    "sqrt(x * x + y * y) without overflow.",
    np.hypot,
    lambda g, x, y, z: (g * (x / z), g * (y / z)),
    formula=_hypot_formula,
    weight=Weight.PLAIN,
)
logaddexp = binary(
    "logaddexp",
    "log(exp(x) + exp(y)) without overflow.",
    np.logaddexp,
    lambda g, x, y, z: (g * fn.sigmoid(x - y), g * fn.sigmoid(y - x)),
    formula=_logaddexp_formula,
    weight=Weight.SLOW,
)
xlogy = binary(
    "xlogy",
    "x * log(y); 0 where x is 0 and y is not nan.",
    _xlogy_numpy,
    _xlogy_rule,
    formula=lambda x, y: fn.where(fn.eq(x, 0) & ~fn.isnan(y), 0, x * fn.log(y)),
    weight=Weight.SLOW,
)


# ------------------------------ comparison, logic, bits


def _to_bool(dtype: DType) -> DType:
    return boolean


def _compare(name: str, sign: str, numpy: Callable[..., Any], domain: Domain) -> Op:
    return binary(
        name, f"Whether x {sign} y.", numpy, CONDITION, domain, weight=Weight.CHEAP, result=_to_bool
    )


def _logic(name: str, doc: str, numpy: Callable[..., Any]) -> Op:
    return binary(
        name, doc, numpy, CONDITION, BOOLEAN, weight=Weight.CHEAP, hint="compare it with != 0"
    )


ON_INTEGERS = NoGradient("defined on integers")


def _bits(name: str, doc: str, numpy: Callable[..., Any], domain: Domain = BITS) -> Op:
    return binary(name, doc, numpy, ON_INTEGERS, domain, weight=Weight.CHEAP)


def _shift_left_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    fits = (y >= 0) & (y < x.dtype.itemsize * 8)
    return np.where(fits, np.left_shift(x, np.where(fits, y, 0)), 0)


def _shift_right_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    fits = (y >= 0) & (y < x.dtype.itemsize * 8)
    return np.where(
        fits, np.right_shift(x, np.where(fits, y, 0)), np.where(x < 0, ~np.zeros_like(x), 0)
    )


eq = _compare("eq", "==", np.equal, ANY)
ne = _compare("ne", "!=", np.not_equal, ANY)
lt = _compare("lt", "<", np.less, ORDERED)
le = _compare("le", "<=", np.less_equal, ORDERED)
gt = _compare("gt", ">", np.greater, ORDERED)
ge = _compare("ge", ">=", np.greater_equal, ORDERED)
logical_and = _logic("logical_and", "Whether both bools are true.", np.logical_and)
logical_or = _logic("logical_or", "Whether one of two bools is true.", np.logical_or)
logical_xor = _logic("logical_xor", "Whether exactly one of two bools is true.", np.logical_xor)
bitwise_and = _bits("bitwise_and", "x & y, bit by bit.", np.bitwise_and)
bitwise_or = _bits("bitwise_or", "x | y, bit by bit.", np.bitwise_or)
bitwise_xor = _bits("bitwise_xor", "x ^ y, bit by bit.", np.bitwise_xor)
shift_left = _bits(
    "shift_left", "x << y; 0 for y < 0 or y >= the number of bits.", _shift_left_numpy, INTEGER
)
shift_right = _bits(
    "shift_right",
    "x >> y, filling with the sign; only the sign for y < 0 or y >= the number of bits.",
    _shift_right_numpy,
    INTEGER,
)


# ------------------------------ complex, where, cast


def _complex_infer(attrs: Attrs, re: Type, im: Type) -> tuple[Type, ...]:
    dtype = check_same_dtype("complex", re, im)
    if dtype not in COMPLEX_OF:
        raise RuntimeError(
            f"complex: expected both inputs to be f32 or f64 tensors, got {re} and {im}"
        )
    return (Type(COMPLEX_OF[dtype], broadcast(re.shape, im.shape)),)


def _complex_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    re, im = node.operands
    return sum_to(fn.real(Expr(g)).value, re.shape), sum_to(fn.imag(Expr(g)).value, im.shape)


def _complex_reference(attrs: Attrs, re: np.ndarray, im: np.ndarray) -> np.ndarray:
    dtype = COMPLEX_OF[DType.of(re.dtype)].numpy
    result = np.empty(np.broadcast_shapes(re.shape, im.shape), dtype)
    result.real, result.imag = re, im  # re + 1j * im would turn inf into nan
    return result


complex = Op(
    "complex",
    "The complex number re + i im; f32 gives c64, f64 gives c128.",
    ("re", "im"),
    _complex_infer,
    _complex_vjp,
    _complex_reference,
    kind=Kind.POINTWISE,
    weight=Weight.CHEAP,
    batch=pointwise,
)


def _where_infer(attrs: Attrs, cond: Type, x: Type, y: Type) -> tuple[Type, ...]:
    if not cond.dtype.is_bool:
        raise RuntimeError(
            f"where expected condition to be a boolean tensor, but got {cond}; compare it with != 0"
        )
    return (Type(check_same_dtype("where", x, y), broadcast(cond.shape, x.shape, y.shape)),)


def _where_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    cond, x, y = node.operands
    chosen, given = Expr(cond), Expr(g)
    return (
        None,
        sum_to(fn.where(chosen, given, 0).value, x.shape),
        sum_to(fn.where(chosen, 0, given).value, y.shape),
    )


where = Op(
    "where",
    "x where cond holds, y elsewhere; all three broadcast.",
    ("cond", "x", "y"),
    _where_infer,
    _where_vjp,
    lambda attrs, cond, x, y: np.where(cond, x, y),
    kind=Kind.POINTWISE,
    weight=Weight.CHEAP,
    batch=pointwise,
)


def _muladd_infer(attrs: Attrs, *types: Type) -> tuple[Type, ...]:
    dtype = check_same_dtype("muladd", *types)
    if dtype not in (f32, f64):
        raise RuntimeError(f"muladd: expected f32 or f64, got {dtype}; cast the operands")
    return (Type(dtype, broadcast(*[t.shape for t in types])),)


def _muladd_vjp(node: Node, g: Value) -> tuple[Value, ...]:
    x, y, z = node.operands
    a, b, given = Expr(x), Expr(y), Expr(g)
    return (
        sum_to((given * b).value, x.shape),
        sum_to((given * a).value, y.shape),
        sum_to(g, z.shape),
    )


_BELOW_SINGLE, _HALF_OF_SINGLE = (1 << 29) - 1, 1 << 28  # bits of f64 that f32 has not
_SIZE, _ONE = np.uint64((1 << 63) - 1), np.uint64(1)  # all bits but that of the sign
_LEAST_NORMAL = np.uint64((1023 - 126) << 52)  # 2**-126 as bits: below it f32 has fewer


def _sum_as_single(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x + y in f64 rounded to odd, and so to f32 once (Boldo and Melquiond, Emulation of FMA and
    correctly rounded sums, 2008)."""
    total = np.asarray(x + y)
    bits = total.view(np.int64)
    # rounding twice goes wrong only where the first one gives the middle of two numbers in f32
    middles = ((bits & _BELOW_SINGLE) == _HALF_OF_SINGLE).any()
    # 0, of which 1 is taken here, is not among the small ones
    if not middles and not ((total.view(np.uint64) & _SIZE) - _ONE < _LEAST_NORMAL).any():
        return total.astype(np.float32)
    part = total - x
    error = (x - (total - part)) + (y - part)
    away = np.where((error > 0) == (total > 0), 1, -1)
    lost = np.isfinite(error) & (error != 0) & (bits & 1 == 0)
    return np.asarray((bits + np.where(lost, away, 0)).view(np.float64).astype(np.float32))


def _muladd_reference(attrs: Attrs, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """With the errors of product and sum (Dekker, A floating-point technique for extending the
    available precision, 1971; Knuth's sum) added at the end."""
    with np.errstate(all="ignore"):
        if x.dtype == np.float32:
            return _sum_as_single(x.astype(np.float64) * y, z.astype(np.float64))
        split = 134217729.0  # 2**27 + 1
        halves = []
        for v in (x, y):
            upper = split * v - (split * v - v)
            halves.append((upper, v - upper))
        (xh, xl), (yh, yl) = halves
        product = x * y
        lost = ((xh * yh - product) + xh * yl + xl * yh) + xl * yl
        total = product + z
        part = total - product
        error = (product - (total - part)) + (z - part) + lost
        return np.asarray(np.where(np.isfinite(error), total + error, total))


muladd: Op = Op(
    "muladd",
    "x * y + z, rounded once; all three broadcast.",
    ("x", "y", "z"),
    _muladd_infer,
    _muladd_vjp,
    _muladd_reference,
    kind=Kind.POINTWISE,
    weight=Weight.CHEAP,
    batch=pointwise,
)


@dataclass(frozen=True)
class Cast(Attrs):
    dtype: DType


def _whole(x: np.ndarray, source: DType, target: DType) -> np.ndarray:
    """Floats as integers, rounded towards zero; see `narrow_through` for those out of range; nan
    gives 0."""
    x = np.trunc(x.astype(np.float64))
    if bits := narrow_through(source, target):
        held = np.where(np.abs(x) < 2.0 ** (bits - 1), x, 0).astype(np.int64)
        return np.asarray(held.astype(target.numpy))
    info = np.iinfo(target.numpy)
    above, below = x >= float(info.max), x <= float(info.min)
    inside = np.where(above | below | np.isnan(x), 0, x).astype(target.numpy)
    return np.where(above, info.max, np.where(below, info.min, inside)).astype(target.numpy)


@quiet
def _cast_reference(attrs: Cast, x: np.ndarray) -> np.ndarray:
    source, target = DType.of(x.dtype), attrs.dtype
    if target.is_bool:
        return np.asarray(wide(x) != 0)
    if source.is_complex and not target.is_complex:
        x = x.real
    if target.is_integer and source.kind > target.kind:
        return _whole(x, source, target)
    if target.is_floating_point and target.itemsize == 2 and source is not target:
        x = x.astype(np.float32)
    return np.asarray(x).astype(target.numpy)


def _cast_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    (x,) = node.operands
    return (
        cast_to(g, x.dtype) if x.dtype.is_differentiable and g.dtype.is_differentiable else None,
    )


cast = Op(
    "cast",
    "x as another dtype. Float to integer rounds towards zero, nan gives 0; i32, i64 and u64 "
    "saturate, narrower ones and u32 wrap (beyond a wide integer: 0); integers wrap; to bool is != "
    "0; complex to real drops the imaginary part; to f16 and bf16 goes through f32.",
    ("x",),
    lambda attrs, x: (x.with_dtype(attrs.dtype),),
    _cast_vjp,
    _cast_reference,
    Cast,
    kind=Kind.POINTWISE,
    weight=Weight.CHEAP,
    batch=unchanged,
)
