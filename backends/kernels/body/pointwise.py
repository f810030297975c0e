"""Pointwise ops as kernel expressions: one rule for each elementwise op of the IR.

Rules work on any number of lanes. Values keep the dtype the IR gives them; f16 and bf16 are
computed in f32 and rounded once for each op, so results do not depend on what was fused with what.
Rules name what they use twice, because expressions are trees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from graphtorch.ir.dtype import DType, boolean, f32, i16, i64
from graphtorch.ir.graph import Node, Value

from ..builder import Builder
from ..ir import Const, Expr, KType, Unary, binary, cast, constant, fma, select, unary

Rule = Callable[..., Expr]
RULES: dict[str, Rule] = {}
AS_GIVEN: set[str] = set()  # those whose operands are not widened


def wide(dtype: DType) -> DType:
    """The dtype a pointwise op computes in."""
    return f32 if dtype.is_floating_point and dtype.itemsize == 2 else dtype


def emit_op(b: Builder, node: Node, operands: Iterable[Expr]) -> Expr:
    """One pointwise node applied to the values of its operands.

    Raises:
        TypeError: the op has no rule here, or works on a complex dtype.
    """
    name, dtype = node.op.name, node.types[0].dtype
    rule = RULES.get(name)
    types = [v.dtype for v in node.operands]
    if rule is None or dtype.is_complex or any(t.is_complex for t in types):
        raise TypeError(
            f"op {name} on {', '.join(map(str, types))} has no pointwise kernel: run it on the "
            "reference backend"
        )
    xs = list(operands)
    if name not in AS_GIVEN:
        xs = [
            b.let(cast(x, wide(x.type.dtype)), "x") if wide(x.type.dtype) is not x.type.dtype else x
            for x in xs
        ]
    if name == "exp" and is_below_maximum(node.operands[0]):
        result = unary("exp_negative", *xs)
    else:
        result = rule(b, node.attrs, dtype, *xs)
    return b.let(cast(result, dtype), name)


def emit_pointwise(b: Builder, nodes: Iterable[Node], env: dict[Value, Expr]) -> dict[Value, Expr]:
    """Apply pointwise `nodes` in order; `env` holds the values they start from and receives their
    results."""
    for node in nodes:
        env[node.result()] = emit_op(b, node, [env[v] for v in node.operands])
    return env


def is_below_maximum(value: Value) -> bool:
    """Whether `value` is x minus a maximum of x, as in a softmax: NaN or not above 0."""
    if value.node is None or value.node.op.name != "sub":
        return False
    x, maximum = value.node.operands
    of = maximum.node
    return of is not None and of.op.name == "max" and of.operands[0] == x and of.attrs.keepdim


def is_pointwise(node: Node) -> bool:
    return node.op.name in RULES


def number(value: float | int | bool, like: Expr) -> Expr:
    """A constant of the type of `like`."""
    return constant(value, like.type)


def rule(*names: str, widened: bool = True) -> Callable[[Rule], Rule]:
    """Register how ops are written; operands of 16 bits come as f32, unless `widened` is false."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        AS_GIVEN.update(() if widened else names)
        return function

    return register


def unsigned(x: Expr) -> bool:
    """Whether the kernel ops that read their operands as unsigned apply."""
    return not x.type.dtype.signed


def less(a: Expr, b: Expr) -> Expr:
    return binary("lt_u" if unsigned(a) else "lt", a, b)


def logical_not(x: Expr) -> Expr:
    return unary("not", x)


# Unary --------------------------------------------------------------------------------------------

DIRECT = [
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "erfinv",
    "lgamma",
    "digamma",
    "sigmoid",
]


def _direct(name: str) -> Rule:
    return lambda b, attrs, dtype, x: unary(name, x)


for _name in DIRECT:
    RULES[_name] = _direct(_name)


def _rounding(name: str) -> Rule:
    return lambda b, attrs, dtype, x: unary(name, x) if x.type.dtype.is_floating_point else x


for _name in ("floor", "ceil", "round", "trunc"):
    RULES[_name] = _rounding(_name)


@rule("detach", "conj", "real")
def _identity(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return x


@rule("imag")
def _imag(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return number(0, x)


@rule("neg")
def _neg(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return unary("neg", x) if x.type.dtype.is_floating_point else binary("sub", number(0, x), x)


@rule("abs")
def _abs(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    if unsigned(x):
        return x
    if x.type.dtype.is_floating_point:
        return unary("abs", x)
    return select(binary("lt", x, number(0, x)), binary("sub", number(0, x), x), x)


@rule("sign")
def _sign(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    zero, one = number(0, x), number(1, x)
    if x.type.dtype.is_bool:
        return x
    if unsigned(x):
        return select(binary("ne", x, zero), one, zero)
    # NaN gives 0, as PyTorch has it
    return select(binary("gt", x, zero), one, select(binary("lt", x, zero), number(-1, x), zero))


@rule("square")
def _square(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return binary("and" if x.type.dtype.is_bool else "mul", x, x)


@rule("reciprocal")
def _reciprocal(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return binary("div", number(1, x), x)


@rule("isnan")
def _isnan(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return unary("isnan", x) if x.type.dtype.is_floating_point else _constant_bool(False, x)


@rule("isinf")
def _isinf(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    if not x.type.dtype.is_floating_point:
        return _constant_bool(False, x)
    return binary("eq", unary("abs", x), number(math.inf, x))


@rule("isfinite")
def _isfinite(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    if not x.type.dtype.is_floating_point:
        return _constant_bool(True, x)
    return binary("lt", unary("abs", x), number(math.inf, x))


def _constant_bool(value: bool, like: Expr) -> Expr:
    return Const(value, KType(boolean, like.type.lanes))


@rule("logical_not")
def _logical_not(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return logical_not(cast(x, boolean))


@rule("bitwise_not")
def _bitwise_not(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return unary("not", x)


@rule("angle")
def _angle(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    value = cast(x, wide(dtype))
    turned = select(binary("lt", value, number(0, value)), number(math.pi, value), number(0, value))
    return select(unary("isnan", value), value, turned)


# Activations --------------------------------------------------------------------------------------


@rule("relu")
def _relu(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    # "0 > x ? 0 : x" keeps NaN and is one instruction on x86, which the IEEE maximum is not.
    return x if unsigned(x) else select(binary("lt", x, number(0, x)), number(0, x), x)


@rule("silu")
def _silu(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    """x / (1 + e^-x), both halved."""
    half = number(0.5, x)
    return binary(
        "div", binary("mul", x, half), binary("add", half, unary("half_exp", unary("neg", x)))
    )


@rule("gelu")
def _gelu(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    if attrs.approximate == "none":
        return binary("mul", x, unary("normal_cdf", x))
    half = binary("mul", x, number(0.5, x))
    cubic = fma(binary("mul", binary("mul", x, x), x), number(0.044715, x), x)
    inner = unary("tanh", binary("mul", cubic, number(math.sqrt(2 / math.pi), x)))
    return binary("mul", half, binary("add", number(1, x), inner))


@rule("gelu_slope")
def _gelu_slope(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    below = unary("normal_cdf", x)
    exponent = b.let(binary("mul", x, binary("mul", x, number(-0.5, x))), "exponent")
    density = binary("mul", unary("exp_negative", exponent), number(1 / math.sqrt(2 * math.pi), x))
    return fma(x, density, below)


def softplus(b: Builder, x: Expr, beta: float, threshold: float) -> Expr:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""
    scaled = x if beta == 1 else b.let(binary("mul", x, number(beta, x)))
    soft = unary("log1p", unary("exp", scaled))
    soft = soft if beta == 1 else binary("div", soft, number(beta, x))
    return select(binary("gt", scaled, number(threshold, x)), x, soft)


@rule("softplus")
def _softplus(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return softplus(b, x, attrs.beta, attrs.threshold)


@rule("log_sigmoid")
def _log_sigmoid(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    tail = unary("log1p", unary("exp", unary("neg", unary("abs", x))))
    return binary("sub", binary("min", x, number(0, x)), tail)


@rule("elu")
def _elu(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    inner = x if attrs.input_scale == 1 else binary("mul", x, number(attrs.input_scale, x))
    low = binary("mul", unary("expm1", inner), number(attrs.alpha * attrs.scale, x))
    high = x if attrs.scale == 1 else binary("mul", x, number(attrs.scale, x))
    return select(binary("gt", x, number(0, x)), high, low)


@rule("leaky_relu")
def _leaky_relu(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return select(binary("gt", x, number(0, x)), x, binary("mul", x, number(attrs.slope, x)))


def clip(x: Expr, low: Expr, high: Expr, b: Builder) -> Expr:
    """`x` within [low, high]; NaN stays."""
    x = b.let(x)
    raised = b.let(select(less(x, low), low, x))
    return select(less(high, raised), high, raised)


@rule("hardtanh")
def _hardtanh(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return clip(x, number(attrs.low, x), number(attrs.high, x), b)


def _relu6_shifted(b: Builder, x: Expr) -> Expr:
    return clip(binary("add", x, number(3, x)), number(0, x), number(6, x), b)


@rule("hardsigmoid")
def _hardsigmoid(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return binary("div", _relu6_shifted(b, x), number(6, x))


@rule("hardswish")
def _hardswish(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return binary("div", binary("mul", x, _relu6_shifted(b, x)), number(6, x))


@rule("mish")
def _mish(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return binary("mul", x, unary("tanh", softplus(b, x, 1.0, 20.0)))


@rule("softsign")
def _softsign(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    return binary("div", x, binary("add", number(1, x), unary("abs", x)))


# Arithmetic ---------------------------------------------------------------------------------------


def _arithmetic(name: str, on_bool: str) -> Rule:
    return lambda b, attrs, dtype, x, y: binary(on_bool if dtype.is_bool else name, x, y)


RULES.update(
    {
        "add": _arithmetic("add", "or"),
        "sub": _arithmetic("sub", "xor"),
        "mul": _arithmetic("mul", "and"),
    }
)


@rule("product")
def _product(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    return unary("rounded", binary("mul", x, y))


@rule("muladd")
def _muladd(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr, z: Expr) -> Expr:
    return fma(x, y, z, exact=True)


@rule("div")
def _div(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    return binary("div_u" if unsigned(x) else "div", x, y)


@rule("trunc_div")
def _trunc_div(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    quotient = _div(b, attrs, dtype, x, y)
    return unary("trunc", quotient) if dtype.is_floating_point else quotient


def opposite_signs(a: Expr, b: Expr) -> Expr:
    return binary("ne", binary("lt", a, number(0, a)), binary("lt", b, number(0, b)))


@rule("floor_div")
def _floor_div(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    if unsigned(x):
        return binary("div_u", x, y)
    if dtype.is_floating_point:
        return _floor_div_float(b, x, y)
    quotient, rest = b.let(binary("div", x, y)), b.let(binary("rem", x, y))
    down = binary("and", binary("ne", rest, number(0, x)), opposite_signs(rest, y))
    return select(down, binary("sub", quotient, number(1, x)), quotient)


def _floor_div_float(b: Builder, x: Expr, y: Expr) -> Expr:
    """As NumPy and PyTorch: from the exact remainder, so that the result fits with `remainder`."""
    rest = b.let(binary("fmod", x, y))
    quotient = b.let(binary("div", binary("sub", x, rest), y))
    down = binary("and", binary("ne", rest, number(0, x)), opposite_signs(rest, y))
    quotient = b.let(select(down, binary("sub", quotient, number(1, x)), quotient))
    floored = b.let(unary("floor", quotient))
    off = binary("gt", binary("sub", quotient, floored), number(0.5, x))
    floored = b.let(select(off, binary("add", floored, number(1, x)), floored))
    exact = b.let(binary("div", x, y))
    signed = select(
        binary("eq", quotient, number(0, x)), binary("copysign", number(0, x), exact), floored
    )
    return select(binary("eq", y, number(0, y)), exact, signed)


@rule("remainder")
def _remainder(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    if unsigned(x):
        return binary("rem_u", x, y)
    rest = b.let(binary("fmod" if dtype.is_floating_point else "rem", x, y))
    nonzero = binary("ne", rest, number(0, x))
    moved = select(binary("and", nonzero, opposite_signs(rest, y)), binary("add", rest, y), rest)
    if not dtype.is_floating_point:
        return select(binary("eq", y, number(0, y)), number(0, y), moved)
    return select(binary("eq", rest, number(0, x)), binary("copysign", number(0, x), y), moved)


@rule("fmod")
def _fmod(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    return binary("fmod" if dtype.is_floating_point else "rem_u" if unsigned(x) else "rem", x, y)


@rule("pow")
def _pow(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    if dtype.is_floating_point:
        return _pow_float(b, x, y)
    return _pow_integer(b, x, y)


def _pow_float(b: Builder, x: Expr, y: Expr) -> Expr:
    exponent = y.value if isinstance(y, Const) else None
    if exponent == 2:
        return binary("mul", x, x)
    if exponent == 3:
        return binary("mul", binary("mul", x, x), x)
    if exponent == 1:
        return x
    if exponent == -1:
        return binary("div", number(1, x), x)
    return binary("pow", x, y)


def _pow_integer(b: Builder, x: Expr, y: Expr) -> Expr:
    """By squaring, wrapping; a negative exponent gives the truncated reciprocal (0 unless x is 1 or
    -1)."""
    if x.type.dtype.is_bool:
        return binary("or", x, logical_not(y))
    result: Expr = number(1, x)
    power = x
    for bit in range(x.type.dtype.bits - (1 if x.type.dtype.signed else 0)):
        chosen = binary("ne", binary("and", y, number(1 << bit, y)), number(0, y))
        result = b.let(select(chosen, binary("mul", result, power), result))
        power = b.let(binary("mul", power, power))
    if unsigned(x):
        return result
    odd = binary("ne", binary("and", y, number(1, y)), number(0, y))
    minus = select(odd, number(-1, x), number(1, x))
    is_one, is_minus = binary("eq", x, number(1, x)), binary("eq", x, number(-1, x))
    reciprocal = select(is_one, number(1, x), select(is_minus, minus, number(0, x)))
    return select(binary("lt", y, number(0, y)), reciprocal, result)


def minimum(a: Expr, b: Expr, floating: str = "min") -> Expr:
    """The smaller one; `floating` names the kernel op for floats, which decides about NaN."""
    return _extremum(a, b, floating, "and", True)


def maximum(a: Expr, b: Expr, floating: str = "max") -> Expr:
    return _extremum(a, b, floating, "or", False)


def _extremum(a: Expr, b: Expr, floating: str, on_bool: str, smaller: bool) -> Expr:
    dtype = a.type.dtype
    if dtype.is_floating_point:
        if isinstance(b, Const) and b.value == b.value and floating in ("min", "max"):
            # A number on one side (relu, clamp): "b < a ? b : a" keeps NaN and is one instruction
            # on x86.
            return select(binary("lt", b, a) if smaller else binary("lt", a, b), b, a)
        return binary(floating, a, b)
    if dtype.is_bool:
        return binary(on_bool, a, b)
    if not dtype.signed:
        return select(binary("lt_u", a, b) if smaller else binary("lt_u", b, a), a, b)
    return binary("min" if smaller else "max", a, b)


RULES.update(
    {
        "maximum": lambda b, attrs, dtype, x, y: maximum(x, y),
        "minimum": lambda b, attrs, dtype, x, y: minimum(x, y),
        "fmax": lambda b, attrs, dtype, x, y: maximum(x, y, "maxnum"),
        "fmin": lambda b, attrs, dtype, x, y: minimum(x, y, "minnum"),
        "atan2": lambda b, attrs, dtype, x, y: binary("atan2", x, y),
        "copysign": lambda b, attrs, dtype, x, y: binary("copysign", x, y),
    }
)


@rule("clamp")
def _clamp(b: Builder, attrs: Any, dtype: DType, x: Expr, low: Expr, high: Expr) -> Expr:
    return minimum(b.let(maximum(x, low)), high)


@rule("nextafter", widened=False)
def _nextafter(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    if dtype.itemsize > 2:
        return binary("nextafter", x, y)
    return _nextafter_half(b, dtype, x, y)


def _nextafter_half(b: Builder, dtype: DType, x: Expr, y: Expr) -> Expr:
    """The neighbour in a 16-bit format: one up or down in the integer order of the bits."""
    a, c = b.let(cast(x, f32)), b.let(cast(y, f32))
    bits = b.let(unary("bitcast_int", x))
    toward_zero = binary("eq", binary("lt", a, c), binary("lt", a, number(0, a)))
    step = select(
        toward_zero, Const(-1, KType(i16, x.type.lanes)), Const(1, KType(i16, x.type.lanes))
    )
    moved = _bits_to_half(binary("add", bits, step), dtype)
    tiny = b.let(_bits_to_half(Const(1, bits.type), dtype))
    from_zero = select(binary("lt", c, number(0, c)), unary("neg", tiny), tiny)
    result = select(binary("eq", a, number(0, a)), from_zero, moved)
    result = select(binary("eq", a, c), y, result)
    return select(unary("isnan", c), y, select(unary("isnan", a), x, result))


def _bits_to_half(bits: Expr, dtype: DType) -> Expr:
    # A bf16 has no name of its own among the bitcasts, so the type is spelled out.

    return Unary("bitcast_float", bits, KType(dtype, bits.type.lanes))


@rule("hypot")
def _hypot(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    a, c = b.let(unary("abs", x)), b.let(unary("abs", y))
    large, small = b.let(binary("maxnum", a, c)), b.let(binary("minnum", a, c))
    ratio = b.let(binary("div", small, large))
    length = binary("mul", large, unary("sqrt", fma(ratio, ratio, number(1, x))))
    length = select(binary("eq", large, number(0, x)), large, length)
    infinite = binary("eq", large, number(math.inf, x))
    nan = binary("or", unary("isnan", a), unary("isnan", c))
    return select(infinite, large, select(nan, binary("add", a, c), length))


@rule("logaddexp")
def _logaddexp(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    top = b.let(binary("max", x, y))
    soft = unary("log1p", unary("exp", unary("neg", unary("abs", binary("sub", x, y)))))
    equal = binary("and", binary("eq", x, y), binary("eq", unary("abs", x), number(math.inf, x)))
    return select(equal, x, binary("add", top, soft))


@rule("xlogy")
def _xlogy(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    product = binary("mul", x, unary("log", y))
    nothing = binary("and", binary("eq", x, number(0, x)), logical_not(unary("isnan", y)))
    return select(nothing, number(0, x), product)


# Comparisons, logic, bits -------------------------------------------------------------------------


def _comparison(name: str) -> Rule:
    def compare(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
        if name in ("eq", "ne") or not unsigned(x):
            return binary(name, x, y)
        first, second = (x, y) if name in ("lt", "ge") else (y, x)
        strict = binary("lt_u", first, second)
        return strict if name in ("lt", "gt") else logical_not(strict)

    return compare


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    RULES[_name] = _comparison(_name)

for _name in ("and", "or", "xor"):
    RULES["logical_" + _name] = (
        lambda op: lambda b, attrs, dtype, x, y: binary(op, cast(x, boolean), cast(y, boolean))
    )(_name)
    RULES["bitwise_" + _name] = (lambda op: lambda b, attrs, dtype, x, y: binary(op, x, y))(_name)


def _in_range(x: Expr, bits: int) -> Expr:
    return binary("lt_u", x, number(bits, x))


@rule("shift_left")
def _shift_left(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    inside = b.let(_in_range(y, dtype.bits))
    return select(inside, binary("shl", x, select(inside, y, number(0, y))), number(0, x))


@rule("shift_right")
def _shift_right(b: Builder, attrs: Any, dtype: DType, x: Expr, y: Expr) -> Expr:
    inside = _in_range(y, dtype.bits)
    if unsigned(x):
        inside = b.let(inside)
        return select(inside, binary("shr_u", x, select(inside, y, number(0, y))), number(0, x))
    # beyond: only the sign is left
    return binary("shr", x, select(inside, y, number(dtype.bits - 1, y)))


@rule("where")
def _where(b: Builder, attrs: Any, dtype: DType, condition: Expr, x: Expr, y: Expr) -> Expr:
    return select(cast(condition, boolean), x, y)


@rule("bitcast", widened=False)
def _bitcast(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    bits = Unary("bitcast_int", x, KType(DType.named(f"i{dtype.bits}"), x.type.lanes))
    return (
        Unary("bitcast_float", bits, KType(dtype, x.type.lanes))
        if dtype.is_floating_point
        else bits
    )


@rule("cast", widened=False)
def _cast(b: Builder, attrs: Any, dtype: DType, x: Expr) -> Expr:
    source = x.type.dtype
    if wide(source) is not source and wide(dtype) is not dtype and dtype is not source:
        return cast(cast(x, f32), dtype)
    if wide(source) is not source and not dtype.is_floating_point:
        return cast(cast(x, f32), dtype)
    if wide(dtype) is not dtype and source is i64:
        return cast(cast(x, f32), dtype)
    return cast(x, dtype)
