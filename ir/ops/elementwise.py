"""Elementwise ops of one operand, and the factory that makes them.

A record gives the NumPy function and the gradient as algebra on (cotangent g, operand x, result y).
Gradients of complex functions follow PyTorch: the cotangent times the conjugate of the derivative
(https://docs.pytorch.org/docs/stable/notes/autograd.html#autograd-for-complex-numbers). f16 and
bf16 are computed in f32 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..dtype import DType, boolean
from ..graph import Node, Type, Value
from ..op import CORE, Attrs, ByDecomposition, Core, Kind, NoGradient, Op, Weight
from .batching import unchanged
from .common import (
    ANY,
    BITS,
    BOOLEAN,
    COMPLEX,
    FLOATING,
    NUMERIC,
    REAL,
    Domain,
    Expr,
    algebra,
    algebra_wide,
    cast_to,
    check_domain,
    fn,
    narrow,
    quiet,
    wide,
    wide_dtype,
    zeros,
)

__all__ = [
    "abs",
    "acos",
    "acosh",
    "angle",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bitwise_not",
    "ceil",
    "conj",
    "cos",
    "cosh",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log1p",
    "log2",
    "log10",
    "logical_not",
    "neg",
    "real",
    "reciprocal",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
]

Formula = Callable[..., Expr]

ZERO = object()  # in the place of a rule: the gradient is zero wherever it exists


def with_attrs(function: Callable[..., Any], attrs: Attrs) -> Callable[..., Any]:
    """`function`, given the attributes first where its op has any."""
    return function if type(attrs) is Attrs else partial(function, attrs)


def decomposition(formula: Formula, *, widen: bool) -> Callable[[Node], tuple[Value, ...]]:
    """A `decompose` from a formula on `Expr`s, computed in f32 for f16 and bf16 where `widen`."""

    def decompose(node: Node) -> tuple[Value, ...]:
        operands = (
            [cast_to(v, wide_dtype(v.dtype)) for v in node.operands] if widen else node.operands
        )
        result = algebra(with_attrs(formula, node.attrs), *operands)
        return (cast_to(result, node.types[0].dtype),)

    return decompose


def unary(
    name: str,
    doc: str,
    numpy: Callable[..., Any],
    rule: Any,
    domain: Domain = FLOATING,
    *,
    weight: Weight,
    reference_ns: float | None = None,
    attrs: type[Attrs] = Attrs,
    formula: Formula | None = None,
    widen: bool = True,
    result: Callable[[DType], DType] = lambda dtype: dtype,
    check: Callable[[Any], None] = lambda attrs: None,
) -> Op:
    """An elementwise op of one operand.

    Args:
        weight: what an element costs; `reference_ns` what it takes `numpy`, where that is much
            more.
        numpy: the function on an array (f32 for f16 and bf16); attributes first where there are
            any.
        rule: gradient from (g, x, y) on `Expr`s, attributes first; or `ZERO`, `NoGradient`,
            `ByDecomposition`.
        formula: of a composite: the result from x on `Expr`s, attributes first.
        widen: whether the formula rounds more than once, so that f16 and bf16 need f32 inside.
        result: dtype of the result from that of the operand.
        check: raises on attributes out of range.
    """

    def infer(attrs: Attrs, x: Type) -> tuple[Type, ...]:
        check_domain(name, x, domain)
        check(attrs)
        return (x.with_dtype(result(x.dtype)),)

    def vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
        if rule is ZERO:
            return (zeros(node.operands[0].type),)
        run = algebra_wide if formula is not None and widen else algebra
        return (run(with_attrs(rule, node.attrs), g, node.operands[0], node.result()),)

    @quiet
    def reference(attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return narrow(with_attrs(numpy, attrs)(wide(x)), result(DType.of(x.dtype)))

    plain = numpy if attrs is not Attrs else lambda attrs, x: numpy(x)

    stated = isinstance(rule, (NoGradient, ByDecomposition))
    expand: Any = CORE if formula is None else decomposition(formula, widen=widen)
    assert not (isinstance(rule, ByDecomposition) and isinstance(expand, Core)), name
    return Op(
        name,
        doc,
        ("x",),
        infer,
        rule if stated else vjp,
        reference,
        attrs,
        expand,
        plain,
        kind=Kind.POINTWISE,
        weight=weight,
        reference_ns=reference_ns,
        batch=unchanged,
    )


def _to_bool(dtype: DType) -> DType:
    return boolean


def _to_real(dtype: DType) -> DType:
    return dtype.real


# ------------------------------ sign and powers


def _sign_numpy(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        size = np.abs(x)
        return np.where(size == 0, 0, x / np.where(size == 0, 1, size))
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _sign_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    """Only the part of g across the direction of a complex x turns x / |x|."""
    if not x.dtype.is_complex:
        return Expr(zeros(x.value.type))
    along = fn.cast(fn.real(g * y.conj), dtype=x.dtype)
    size = fn.cast(fn.abs(x), dtype=x.dtype)
    return fn.where(fn.eq(x, 0), 0, (g - along * y) / size)


def _abs_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    return (fn.cast(g, dtype=x.dtype) if x.dtype.is_complex else g) * fn.sign(x)


neg = unary(
    "neg", "-x; integers wrap.", np.negative, lambda g, x, y: -g, NUMERIC, weight=Weight.CHEAP
)
abs = unary(
    "abs",
    "|x|; the modulus of a complex x, as its real dtype. abs'(0) = 0.",
    np.abs,
    _abs_rule,
    NUMERIC,
    result=_to_real,
    weight=Weight.CHEAP,
)
sign = unary(
    "sign",
    "-1, 0 or 1; 0 for nan. x / |x| of a complex x, 0 at 0 (torch.sgn).",
    _sign_numpy,
    _sign_rule,
    NUMERIC,
    weight=Weight.CHEAP,
)
square = unary(
    "square",
    "x * x.",
    np.square,
    lambda g, x, y: g * (2 * x).conj,
    NUMERIC,
    formula=lambda x: x * x,
    widen=False,
    weight=Weight.CHEAP,
)
reciprocal = unary(
    "reciprocal",
    "1 / x.",
    lambda x: 1 / x,
    lambda g, x, y: -g * (y * y).conj,
    formula=lambda x: 1 / x,
    widen=False,
    weight=Weight.PLAIN,
)
sqrt = unary(
    "sqrt",
    "Square root; nan below 0.",
    np.sqrt,
    lambda g, x, y: g / (2 * y).conj,
    weight=Weight.PLAIN,
)
rsqrt = unary(
    "rsqrt",
    "1 / sqrt(x).",
    lambda x: 1 / np.sqrt(x),
    lambda g, x, y: -0.5 * g * (y * y * y).conj,
    formula=lambda x: 1 / fn.sqrt(x),
    weight=Weight.PLAIN,
)


# ------------------------------ exp and log

LN2, LN10 = math.log(2), math.log(10)


def _exp2_numpy(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        # part by part: a complex LN2 would turn inf into nan
        parts = np.ascontiguousarray(x).reshape(x.shape)[..., None].view(x.real.dtype) * LN2
        return np.asarray(np.exp(parts.astype(x.real.dtype).view(x.dtype)[..., 0]))
    return np.exp2(x)


def _sigmoid_numpy(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        return 1 / (1 + np.exp(-x))
    small = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, small) / (1 + small)


exp = unary("exp", "e to the x.", np.exp, lambda g, x, y: g * y.conj, weight=Weight.SLOW)
exp2 = unary(
    "exp2", "2 to the x.", _exp2_numpy, lambda g, x, y: g * (y * LN2).conj, weight=Weight.SLOW
)
expm1 = unary(
    "expm1",
    "exp(x) - 1, exact near 0.",
    np.expm1,
    lambda g, x, y: g * (y + 1).conj,
    weight=Weight.SLOW,
)
log = unary(
    "log",
    "Natural logarithm; -inf at 0, nan below.",
    np.log,
    lambda g, x, y: g / x.conj,
    weight=Weight.SLOW,
)
log2 = unary(
    "log2", "Logarithm to base 2.", np.log2, lambda g, x, y: g / (x * LN2).conj, weight=Weight.SLOW
)
log10 = unary(
    "log10",
    "Logarithm to base 10.",
    np.log10,
    lambda g, x, y: g / (x * LN10).conj,
    weight=Weight.SLOW,
)
log1p = unary(
    "log1p",
    "log(1 + x), exact near 0.",
    np.log1p,
    lambda g, x, y: g / (x + 1).conj,
    weight=Weight.SLOW,
)
sigmoid = unary(
    "sigmoid",
    "1 / (1 + exp(-x)).",
    _sigmoid_numpy,
    lambda g, x, y: g * ((1 - y) * y).conj,
    weight=Weight.SLOW,
)


# ------------------------------ circular, hyperbolic


def _acosh_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    if x.dtype.is_complex:  # two roots: the branch cuts of sqrt(x * x - 1) are elsewhere
        return g * (fn.rsqrt(x + 1) * fn.rsqrt(x - 1)).conj
    return g * fn.rsqrt(x * x - 1)


sin = unary(
    "sin", "Sine of x in radians.", np.sin, lambda g, x, y: g * fn.cos(x).conj, weight=Weight.SLOW
)
cos = unary(
    "cos",
    "Cosine of x in radians.",
    np.cos,
    lambda g, x, y: -g * fn.sin(x).conj,
    weight=Weight.SLOW,
)
tan = unary(
    "tan",
    "Tangent of x in radians.",
    np.tan,
    lambda g, x, y: g * (1 + y * y).conj,
    weight=Weight.SLOW,
)
asin = unary(
    "asin",
    "Inverse sine, within -pi/2..pi/2.",
    np.arcsin,
    lambda g, x, y: g * fn.rsqrt(1 - x * x).conj,
    weight=Weight.SLOW,
)
acos = unary(
    "acos",
    "Inverse cosine, within 0..pi.",
    np.arccos,
    lambda g, x, y: -g * fn.rsqrt(1 - x * x).conj,
    weight=Weight.SLOW,
)
atan = unary(
    "atan",
    "Inverse tangent, within -pi/2..pi/2.",
    np.arctan,
    lambda g, x, y: g / (x * x + 1).conj,
    weight=Weight.SLOW,
)
sinh = unary(
    "sinh", "Hyperbolic sine.", np.sinh, lambda g, x, y: g * fn.cosh(x).conj, weight=Weight.SLOW
)
cosh = unary(
    "cosh", "Hyperbolic cosine.", np.cosh, lambda g, x, y: g * fn.sinh(x).conj, weight=Weight.SLOW
)
tanh = unary(
    "tanh", "Hyperbolic tangent.", np.tanh, lambda g, x, y: g * (1 - y * y).conj, weight=Weight.SLOW
)
asinh = unary(
    "asinh",
    "Inverse hyperbolic sine.",
    np.arcsinh,
    lambda g, x, y: g * fn.rsqrt(x * x + 1).conj,
    weight=Weight.SLOW,
)
acosh = unary(
    "acosh", "Inverse hyperbolic cosine; nan below 1.", np.arccosh, _acosh_rule, weight=Weight.SLOW
)
atanh = unary(
    "atanh",
    "Inverse hyperbolic tangent; nan outside -1..1.",
    np.arctanh,
    lambda g, x, y: g / (1 - x * x).conj,
    weight=Weight.SLOW,
)


# ------------------------------ rounding, tests, bits


def _rounding(name: str, doc: str, numpy: Callable[..., Any]) -> Op:
    def run(x: np.ndarray) -> np.ndarray:
        return numpy(x) if x.dtype.kind == "f" else x  # NumPy would round a large integer to f64

    return unary(name, doc + " Integers stay.", run, ZERO, REAL, weight=Weight.CHEAP)


floor = _rounding("floor", "Largest integer not above x.", np.floor)
ceil = _rounding("ceil", "Smallest integer not below x.", np.ceil)
round = _rounding("round", "Nearest integer, halves to even.", np.rint)
trunc = _rounding("trunc", "x without its fraction.", np.trunc)

CONDITION = NoGradient("the result is a bool")
isnan = unary(
    "isnan",
    "Whether x, or a part of a complex x, is nan.",
    np.isnan,
    CONDITION,
    ANY,
    result=_to_bool,
    weight=Weight.CHEAP,
)
isinf = unary(
    "isinf",
    "Whether x, or a part of a complex x, is inf or -inf.",
    np.isinf,
    CONDITION,
    ANY,
    result=_to_bool,
    weight=Weight.CHEAP,
)
isfinite = unary(
    "isfinite",
    "Whether x is neither inf nor nan.",
    np.isfinite,
    CONDITION,
    ANY,
    result=_to_bool,
    weight=Weight.CHEAP,
)
logical_not = unary(
    "logical_not",
    "Whether a bool x is false.",
    np.logical_not,
    CONDITION,
    BOOLEAN,
    weight=Weight.CHEAP,
)
bitwise_not = unary(
    "bitwise_not",
    "Each bit of an integer inverted; logical_not of a bool.",
    np.invert,
    NoGradient("defined on integers"),
    BITS,
    weight=Weight.CHEAP,
)


# ------------------------------ complex parts


def _angle_numpy(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        return np.angle(x)
    return np.where(
        np.isnan(x), x, np.where(x < 0, np.asarray(math.pi, x.dtype), np.asarray(0, x.dtype))
    )


def _angle_formula(x: Expr) -> Expr:
    if x.dtype.is_complex:
        return fn.atan2(fn.imag(x), fn.real(x))
    return fn.where(fn.isnan(x), x, fn.cast(x < 0, dtype=x.dtype) * math.pi)


def _angle_rule(g: Expr, x: Expr, y: Expr) -> Expr:
    if not x.dtype.is_complex:
        return Expr(zeros(x.value.type))
    re, im = fn.real(x), fn.imag(x)
    scale = g / (re * re + im * im)
    return fn.where(fn.eq(x, 0), 0, fn.complex(-im * scale, re * scale))


conj = unary(
    "conj",
    "Complex conjugate; a real x itself.",
    np.conj,
    lambda g, x, y: g.conj,
    NUMERIC,
    weight=Weight.FREE,
)
real = unary(
    "real",
    "Real part of a complex x.",
    np.real,
    lambda g, x, y: fn.cast(g, dtype=x.dtype),
    COMPLEX,
    result=_to_real,
    weight=Weight.FREE,
)
imag = unary(
    "imag",
    "Imaginary part of a complex x.",
    np.imag,
    lambda g, x, y: fn.complex(0, g),
    COMPLEX,
    result=_to_real,
    weight=Weight.CHEAP,
)
angle = unary(
    "angle",
    "Argument of a complex x, within -pi..pi; of a real x 0, or pi below 0.",
    _angle_numpy,
    _angle_rule,
    formula=_angle_formula,
    result=_to_real,
    weight=Weight.SLOW,
)
