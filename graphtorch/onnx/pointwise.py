"""ONNX spelling of elementwise ops and reductions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

from graphtorch.ir import dtype as dt
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Node

from .builder import ELEM_TYPE, ModelBuilder

Emit = Callable[[ModelBuilder, Node, list[str]], "str | list[str]"]
E = TypeVar("E", bound=Emit)
POINTWISE: dict[str, Emit] = {}


def emits(*names: str) -> Callable[[E], E]:
    """Registers how the ops `names` are written."""

    def register(emit: E) -> E:
        for name in names:
            POINTWISE[name] = emit
        return emit

    return register


def _direct(kind: str) -> Emit:
    return lambda b, node, x: b.op(kind, x)


DIRECT = {
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "reciprocal": "Reciprocal",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "tanh": "Tanh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "isnan": "IsNaN",
    "isinf": "IsInf",
    "logical_not": "Not",
    "bitwise_not": "BitwiseNot",
    "relu": "Relu",
    "softsign": "Softsign",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
    "where": "Where",
    "detach": "Identity",
}
# Operators that a given opset does not have yet (https://onnx.ai/onnx/operators).
SINCE = {"mish": 18, "bitwise_and": 18, "bitwise_or": 18, "bitwise_xor": 18, "bitwise_not": 18}
# ONNX defines these on numbers only: booleans go through i32.
NUMERIC = frozenset(["add", "mul", "maximum", "minimum", "lt", "le", "gt", "ge"])

# ... and of integers only on those of 32 and 64 bits: narrower ones go through i64.
NARROW = frozenset(["sum", "prod", "max", "min", "cumsum"])

# ... and these on integers only: booleans have operators of their own.
LOGICAL = {"bitwise_and": "And", "bitwise_or": "Or", "bitwise_xor": "Xor", "bitwise_not": "Not"}

for _name, _kind in DIRECT.items():
    POINTWISE[_name] = _direct(_kind)


def unsupported(node: Node, why: str) -> RuntimeError:
    """The error for an op that ONNX has no operator for."""
    where = f" (recorded at {node.location})" if node.location else ""
    return RuntimeError(f"onnx.export: op {node.op.name}{where} cannot be exported: {why}")


def cast(b: ModelBuilder, name: str, dtype: DType) -> str:
    return b.op("Cast", [name], to=ELEM_TYPE[dtype])


def _through_i32(kind: str, to_bool: bool) -> Emit:
    def emit(b: ModelBuilder, node: Node, x: list[str]) -> str:
        result = b.op(kind, [cast(b, v, dt.i32) for v in x])
        return cast(b, result, dt.boolean) if to_bool else result

    return emit


def emit_pointwise(b: ModelBuilder, node: Node, x: list[str]) -> str | list[str]:
    """Write a pointwise op or a reduction; booleans take the detour ONNX asks for."""
    name = node.op.name
    if name in NUMERIC and node.operands[0].dtype is dt.boolean:
        return _through_i32(DIRECT[name], name in ("add", "mul", "maximum", "minimum"))(b, node, x)
    dtype = node.operands[0].dtype
    if name in LOGICAL and dtype is dt.boolean:
        return b.op(LOGICAL[name], x)
    if dtype.is_integer and name in ON_INTEGERS:
        return ON_INTEGERS[name](b, node, x)
    if dtype.is_integer and not dtype.signed and name in ON_UNSIGNED:
        return ON_UNSIGNED[name](b, node, x)
    if b.opset < SINCE.get(name, 0):
        raise unsupported(node, f"it needs opset {SINCE[name]}; pass opset_version={SINCE[name]}")
    if name in NARROW:
        return in_wide_integers(POINTWISE[name])(b, node, x)
    return POINTWISE[name](b, node, x)


def in_wide_integers(emit: Emit) -> Emit:
    """`emit` of one result, in i64 where the operands are integers of less than 32 bits: both wrap
    alike."""

    @functools.wraps(emit)
    def through(b: ModelBuilder, node: Node, x: list[str]) -> str:
        dtype = node.operands[0].dtype
        if not dtype.is_integer or dtype.bits >= 32:
            return one_result(emit(b, node, x))
        return cast(b, one_result(emit(b, node, [cast(b, v, dt.i64) for v in x])), dtype)

    return through


def one_result(found: str | list[str]) -> str:
    return found if isinstance(found, str) else found[0]


def _like(node: Node) -> DType:
    return node.operands[0].dtype


@emits("cast")
def _cast(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return cast(b, x[0], node.types[0].dtype)


@emits("ne")
def _ne(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Not", [b.op("Equal", x)])


@emits("square")
def _square(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Mul", [x[0], x[0]])


@emits("muladd")
def _muladd(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Add", [b.op("Mul", x[:2]), x[2]])


@emits("rsqrt")
def _rsqrt(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Reciprocal", [b.op("Sqrt", x)])


@emits("exp2")
def _exp2(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Pow", [b.scalar(2.0, _like(node)), x[0]])


@emits("expm1")
def _expm1(b: ModelBuilder, node: Node, x: list[str]) -> str:
    # exp(x) - 1 loses the small x; 2 sinh(x/2) exp(x/2) is the same number without the cancellation
    half = b.op("Mul", [x[0], b.scalar(0.5, _like(node))])
    product = b.op("Mul", [b.op("Sinh", [half]), b.op("Exp", [half])])
    return b.op("Mul", [product, b.scalar(2.0, _like(node))])


@emits("log2", "log10")
def _log_base(b: ModelBuilder, node: Node, x: list[str]) -> str:
    base = 2.0 if node.op.name == "log2" else 10.0
    return b.op("Mul", [b.op("Log", x), b.scalar(1.0 / math.log(base), _like(node))])


@emits("log1p")
def _log1p(b: ModelBuilder, node: Node, x: list[str]) -> str:
    # log(1 + x) = 2 atanh(x / (x + 2)), exact for small x
    sum_ = b.op("Add", [x[0], b.scalar(2.0, _like(node))])
    return b.op("Mul", [b.op("Atanh", [b.op("Div", [x[0], sum_])]), b.scalar(2.0, _like(node))])


@emits("erfc")
def _erfc(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Sub", [b.scalar(1.0, _like(node)), b.op("Erf", x)])


@emits("shift_left", "shift_right")
def _shift(b: ModelBuilder, node: Node, x: list[str]) -> str:
    """In 64 bits, signed as products and quotients with powers of two: BitShift takes unsigned
    numbers only.

    By less than 0 or as many as there are bits: 0, or the sign for a shift to the right.
    """
    dtype = node.types[0].dtype
    value, by = (cast(b, name, dt.i64) for name in x)
    zero, bits = b.constant(0, dt.i64), b.constant(dtype.bits, dt.i64)
    wrong = b.op("Or", [b.op("Less", [by, zero]), b.op("GreaterOrEqual", [by, bits])])
    if node.op.name == "shift_left":
        moved = b.op("Mul", [value, _power_of_two(b, b.op("Where", [wrong, zero, by]))])
        return cast(b, b.op("Where", [wrong, zero, moved]), dtype)
    if not dtype.signed:
        number, by = cast(b, x[0], dt.u64), cast(b, b.op("Where", [wrong, zero, by]), dt.u64)
        moved = cast(b, b.op("BitShift", [number, by], direction="RIGHT"), dt.i64)
        return cast(b, b.op("Where", [wrong, zero, moved]), dtype)
    by = b.op("Where", [wrong, b.constant(dtype.bits - 1, dt.i64), by])
    # in two steps: no power of two is the 64th then
    half = b.op("Div", [by, b.constant(2, dt.i64)])
    for part in (half, b.op("Sub", [by, half])):
        power = _power_of_two(b, part)
        value = b.op("Div", [b.op("Sub", [value, b.op("Mod", [value, power])]), power])
    return cast(b, value, dtype)


def _power_of_two(b: ModelBuilder, exponent: str) -> str:
    """2 ** exponent in i64, for exponents below 64."""
    moved = b.op("BitShift", [b.constant(1, dt.u64), cast(b, exponent, dt.u64)], direction="LEFT")
    return cast(b, moved, dt.i64)


def _no_pow(b: ModelBuilder, node: Node, x: list[str]) -> str:
    raise unsupported(
        node, f"ONNX has no powers of {node.types[0].dtype}: cast to int64 or float64 before"
    )


def _differs(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Not", [b.op("Equal", [x[0], x[0]])])


# How integers, and unsigned ones, take what ONNX defines on floats, and on signed numbers, only.
ON_INTEGERS: dict[str, Emit] = {
    **dict.fromkeys(("floor", "ceil", "round", "trunc"), _direct("Identity")),
    **dict.fromkeys(("isnan", "isinf"), _differs),
    "isfinite": lambda b, node, x: b.op("Equal", [x[0], x[0]]),
}
ON_UNSIGNED: dict[str, Emit] = {
    "neg": lambda b, node, x: b.op("Sub", [b.constant(0, _like(node)), x[0]]),
    "relu": _direct("Identity"),
    "pow": _no_pow,
}


@emits("trunc")
def _trunc(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Mul", [b.op("Sign", x), b.op("Floor", [b.op("Abs", x)])])


@emits("isfinite")
def _isfinite(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Not", [b.op("Or", [b.op("IsNaN", x), b.op("IsInf", x)])])


@emits("silu")
def _silu(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Mul", [x[0], b.op("Sigmoid", x)])


@emits("gelu")
def _gelu(b: ModelBuilder, node: Node, x: list[str]) -> str:
    dtype, approximate = _like(node), node.attrs.approximate
    if b.opset >= 20:
        return b.op("Gelu", x, approximate=approximate)
    if approximate == "tanh":
        cube = b.op("Mul", [b.op("Mul", [x[0], x[0]]), x[0]])
        inner = b.op("Add", [x[0], b.op("Mul", [cube, b.scalar(0.044715, dtype)])])
        gate = b.op("Tanh", [b.op("Mul", [inner, b.scalar(math.sqrt(2 / math.pi), dtype)])])
    else:
        gate = b.op("Erf", [b.op("Mul", [x[0], b.scalar(math.sqrt(0.5), dtype)])])
    scaled = b.op("Mul", [x[0], b.op("Add", [gate, b.scalar(1.0, dtype)])])
    return b.op("Mul", [scaled, b.scalar(0.5, dtype)])


@emits("softplus")
def _softplus(b: ModelBuilder, node: Node, x: list[str]) -> str:
    dtype, beta, threshold = _like(node), node.attrs.beta, node.attrs.threshold
    if beta == 1:
        soft, scaled = b.op("Softplus", x), x[0]
    else:
        scaled = b.op("Mul", [x[0], b.scalar(beta, dtype)])
        soft = b.op("Mul", [b.op("Softplus", [scaled]), b.scalar(1 / beta, dtype)])
    if threshold >= 20 and dtype is not dt.f64:
        return soft  # beyond 20 softplus(x) equals x in f32 anyway
    return b.op("Where", [b.op("Greater", [scaled, b.scalar(threshold, dtype)]), x[0], soft])


@emits("log_sigmoid")
def _log_sigmoid(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Neg", [b.op("Softplus", [b.op("Neg", x)])])


@emits("elu")
def _elu(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a = node.attrs
    if a.input_scale == 1 and a.scale == 1:
        return b.op("Elu", x, alpha=a.alpha)
    if a.input_scale == 1:
        return b.op("Selu", x, alpha=a.alpha, gamma=a.scale)
    dtype = _like(node)
    shifted = _expm1(b, node, [b.op("Mul", [x[0], b.scalar(a.input_scale, dtype)])])
    low = b.op("Mul", [shifted, b.scalar(a.alpha * a.scale, dtype)])
    high = b.op("Mul", [x[0], b.scalar(a.scale, dtype)])
    return b.op("Where", [b.op("Greater", [x[0], b.scalar(0.0, dtype)]), high, low])


@emits("leaky_relu")
def _leaky_relu(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("LeakyRelu", x, alpha=node.attrs.slope)


@emits("hardtanh")
def _hardtanh(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op(
        "Clip",
        [x[0], b.scalar(node.attrs.low, _like(node)), b.scalar(node.attrs.high, _like(node))],
    )


@emits("hardsigmoid")
def _hardsigmoid(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@emits("div")
def _div(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Div", x)


@emits("trunc_div")
def _trunc_div(b: ModelBuilder, node: Node, x: list[str]) -> str:
    quotient = b.op("Div", x)  # ONNX truncates integers
    return _trunc(b, node, [quotient]) if _like(node).is_floating_point else quotient


@emits("floor_div")
def _floor_div(b: ModelBuilder, node: Node, x: list[str]) -> str:
    if _like(node).is_floating_point:
        return b.op("Floor", [b.op("Div", x)])
    return b.op("Div", [b.op("Sub", [x[0], b.op("Mod", x)]), x[1]])


@emits("remainder")
def _remainder(b: ModelBuilder, node: Node, x: list[str]) -> str:
    if not _like(node).is_floating_point:
        return b.op("Mod", x)
    return b.op("Sub", [x[0], b.op("Mul", [b.op("Floor", [b.op("Div", x)]), x[1]])])


@emits("fmod")
def _fmod(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Mod", x, fmod=1)


@emits("atan2")
def _atan2(b: ModelBuilder, node: Node, x: list[str]) -> str:
    dtype = _like(node)
    zero, pi = b.scalar(0.0, dtype), b.scalar(math.pi, dtype)
    y_negative = b.op("Less", [x[0], zero])
    turn = b.op("Where", [y_negative, b.op("Neg", [pi]), pi])
    base = b.op("Atan", [b.op("Div", x)])
    left = b.op("Where", [b.op("Less", [x[1], zero]), b.op("Add", [base, turn]), base])
    half = b.op("Mul", [b.op("Sign", [x[0]]), b.scalar(math.pi / 2, dtype)])
    return b.op("Where", [b.op("Equal", [x[1], zero]), half, left])


@emits("fmax", "fmin")
def _fmax(b: ModelBuilder, node: Node, x: list[str]) -> str:
    # ONNX's Max and Min propagate NaN; these return the other operand
    both = b.op("Max" if node.op.name == "fmax" else "Min", x)
    if not _like(node).is_floating_point:
        return both
    left = b.op("Where", [b.op("IsNaN", [x[1]]), x[0], both])
    return b.op("Where", [b.op("IsNaN", [x[0]]), x[1], left])


@emits("copysign")
def _copysign(b: ModelBuilder, node: Node, x: list[str]) -> str:
    zero = b.scalar(0.0, _like(node))
    # a zero shows its sign in its reciprocal
    below = b.op(
        "Less",
        [b.op("Where", [b.op("Equal", [x[1], zero]), b.op("Reciprocal", [x[1]]), x[1]]), zero],
    )
    size = b.op("Abs", [x[0]])
    return b.op("Where", [below, b.op("Neg", [size]), size])


# ---- reductions ----------------------------------------------------------------------------------

REDUCE = {
    "sum": "ReduceSum",
    "prod": "ReduceProd",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "mean": "ReduceMean",
    "logsumexp": "ReduceLogSumExp",
}


def reduce(b: ModelBuilder, kind: str, x: str, dims: tuple[int, ...], keepdim: bool) -> str:
    """A reduction; axes became an input in opset 13 (ReduceSum) and 18 (the others)."""
    if not dims:
        return x
    if kind == "ReduceSum" or b.opset >= 18:
        return b.op(kind, [x, b.ints(dims, "axes")], keepdims=int(keepdim))
    return b.op(kind, [x], axes=list(dims), keepdims=int(keepdim))


@emits(*REDUCE)
def _reduce(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return reduce(b, REDUCE[node.op.name], x[0], node.attrs.dims, node.attrs.keepdim)


@emits("any", "all")
def _any_all(b: ModelBuilder, node: Node, x: list[str]) -> str:
    kind = "ReduceMax" if node.op.name == "any" else "ReduceMin"
    number = reduce(b, kind, cast(b, x[0], dt.i32), node.attrs.dims, node.attrs.keepdim)
    return cast(b, number, dt.boolean)


@emits("argmax", "argmin")
def _argmax(b: ModelBuilder, node: Node, x: list[str]) -> str:
    kind = "ArgMax" if node.op.name == "argmax" else "ArgMin"
    return b.op(kind, x, axis=node.attrs.dim, keepdims=int(node.attrs.keepdim))


@emits("cumsum")
def _cumsum(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("CumSum", [x[0], b.constant(node.attrs.dim, dt.i64, "axis")])


@emits("size")
def _size(b: ModelBuilder, node: Node, x: list[str]) -> str:
    shape: Any = b.op("Shape", x)
    return b.op("Gather", [shape, b.constant(node.attrs.dim, dt.i64, "axis")], axis=0)
