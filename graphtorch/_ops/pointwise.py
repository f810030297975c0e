"""Elementwise operations: one table of unary ones, the arithmetic ones, comparison, logic,
selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, boolean, f32, f64, i64
from graphtorch.ir.graph import Value

from .. import _types
from .._deferred.making import beside
from .._deferred.tensor import Tensor
from .._deferred.write import cast_tensor
from ..autograd.keeps import keeps, keeps_as_one
from .base import (
    FUNCTIONS,
    METHODS,
    Number,
    SparseOperand,
    cast_value,
    check_tensor,
    checked,
    common_dtype,
    elementwise,
    floating,
    in_place,
    is_operand,
    number_given,
    refuse,
    register,
    rounded_once,
    run,
    scalar,
)
from .creation import full_value

# ------------------------------------------------------------------------------------------ unary

# name in PyTorch -> op, by what it does with integers
FLOAT_UNARY = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
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
    "reciprocal",
]
SAME_UNARY = ["neg", "abs", "square", "floor", "ceil", "trunc", "bitwise_not", "relu"]
UNARY_ALIASES = {
    "neg": ("negative",),
    "abs": ("absolute",),
    "asin": ("arcsin",),
    "acos": ("arccos",),
    "atan": ("arctan",),
    "asinh": ("arcsinh",),
    "acosh": ("arccosh",),
    "atanh": ("arctanh",),
    "trunc": ("fix",),
}
# of which the gradient keeps (see `keeps`) something else than its rule here reads
UNARY_KEEPS = {"erfinv": 0}
ROUNDING = frozenset({"floor", "ceil", "trunc"})
_ROUNDED_ONCE = (f32, f64)  # whose x * y + z is one operation


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _float_unary(name: str) -> Callable[..., Tensor]:
    op, node = getattr(ops, name), _camel(name)

    def define(input: Tensor) -> Tensor:
        check_tensor(name, "input", input)
        dtype = input._type.dtype
        if input.is_sparse:
            return input._unary(name)
        if dtype.is_differentiable:
            return run(node, op, input)
        target = _types.default_dtype()
        return run(node, lambda v: op(ops.cast(v, dtype=target)), input)

    return define


def _same_unary(name: str) -> Callable[..., Tensor]:
    op, node = getattr(ops, name), "Pow" if name == "square" else _camel(name)

    def define(input: Tensor) -> Tensor:
        check_tensor(name, "input", input)
        dtype = input._type.dtype
        if input.is_sparse:
            return input._unary(name)
        if dtype.is_bool and name in ("neg", "relu", "floor", "ceil", "trunc", "square", "abs"):
            return _bool_unary(name, input)
        if dtype.is_integer and name in ROUNDING:
            return run(node, lambda v: ops.reshape(v, shape=v.shape), input)
        return run(node, op, input)

    return define


def _bool_unary(name: str, input: Tensor) -> Tensor:
    if name == "neg":
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to "
            "invert a mask, use the `~` or `logical_not()` operator instead."
        )
    if name == "square":
        return run("Square", lambda v: ops.square(ops.cast(v, dtype=i64)), input)
    if name == "relu":
        raise RuntimeError("Boolean inputs not supported for relu")
    raise NotImplementedError(
        f"\"{name}_cpu\" not implemented for 'Bool': convert the input with .to(dtype) first"
    )


def _publish_unary() -> None:
    for names, make in ((FLOAT_UNARY, _float_unary), (SAME_UNARY, _same_unary)):
        for name in names:
            define = make(name)
            define.__name__ = define.__qualname__ = name
            define.__doc__ = getattr(ops, name).doc
            register(name, *UNARY_ALIASES.get(name, ()), inplace=True, out=True)(define)


_publish_unary()
for _name, _place in UNARY_KEEPS.items():
    keeps(_camel(_name), (_place,))


@register(inplace=True, out=True)
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1."""
    check_tensor("sign", "input", input)
    if input._type.dtype.is_complex:
        raise NotImplementedError(
            "Unlike NumPy, torch.sign is not intended to support complex numbers. Please use "
            "torch.sgn instead."
        )
    return _sign(input)


def _sign(input: Tensor) -> Tensor:
    if input._type.dtype.is_bool:
        return run("Sign", lambda v: ops.reshape(v, shape=v.shape), input)
    return run("Sign", ops.sign, input)


@register(inplace=True, out=True)
@keeps_as_one("input result")
def sgn(input: Tensor) -> Tensor:
    """-1, 0 or 1; of a complex number, that on the unit circle (or 0)."""
    check_tensor("sgn", "input", input)
    return _sign(input)


@register(inplace=True, out=True)
@rounded_once
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded to `decimals` places, halves to even."""
    check_tensor("round", "input", input)
    dtype = input._type.dtype
    if decimals:
        refuse("round_cpu", dtype, "bool", "integer", "complex")
    refuse("round_vml_cpu", dtype, "bool", "complex")
    if not dtype.is_floating_point:
        return run("Round", lambda v: ops.reshape(v, shape=v.shape), input)
    if decimals == 0:
        return run("Round", ops.round, input)
    factor = scalar(10.0 ** abs(decimals), dtype)
    if decimals > 0:
        return run("Round", lambda v, f: ops.div(ops.round(ops.mul(v, f)), f), input, factor)
    return run("Round", lambda v, f: ops.mul(ops.round(ops.div(v, f)), f), input, factor)


@register(inplace=True, out=True)
def frac(input: Tensor) -> Tensor:
    """The fraction after the point, with the sign of the input."""
    return run("Frac", lambda v: ops.sub(v, ops.trunc(v)), input)


@register(inplace=True, out=True)
@keeps_as_one("input")
@keeps("Logit", ())
@rounded_once
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), with x clamped to eps .. 1 - eps."""
    x = input if eps is None else FUNCTIONS["clamp"](input, eps, 1 - eps)
    dtype = floating(x._type.dtype)

    def apply(v: Value) -> Value:
        v = cast_value(v, dtype)
        return ops.log(ops.div(v, ops.sub(scalar(1, dtype), v)))

    return run("Logit", apply, x)


def _predicate(name: str, otherwise: bool) -> Callable[..., Tensor]:
    op = getattr(ops, name)

    def define(input: Tensor) -> Tensor:
        check_tensor(name, "input", input)
        dtype = input._type.dtype
        if input.is_sparse:
            return input._unary(name)
        if dtype.is_differentiable:
            return run(name, op, input)
        return beside(input, full_value(input._type.shape, otherwise, boolean))

    define.__name__ = name
    define.__doc__ = op.doc
    return define


for _name, _otherwise in (("isnan", False), ("isinf", False), ("isfinite", True)):
    register(_name)(_predicate(_name, _otherwise))


@register()
def isneginf(input: Tensor) -> Tensor:
    """Whether elements are minus infinity."""
    return FUNCTIONS["lt"](input, 0).logical_and(isinf_(input))


@register()
def isposinf(input: Tensor) -> Tensor:
    """Whether elements are plus infinity."""
    return FUNCTIONS["gt"](input, 0).logical_and(isinf_(input))


def isinf_(input: Tensor) -> Tensor:
    return FUNCTIONS["isinf"](input)


@register()
def isreal(input: Tensor) -> Tensor:
    """Whether elements have no imaginary part."""
    if input._type.dtype.is_complex:
        return FUNCTIONS["eq"](FUNCTIONS["imag"](input), 0)
    return FUNCTIONS["eq"](input, input).logical_or(True)


@register(inplace=True, out=True)
def logical_not(input: Tensor) -> Tensor:
    """Whether elements are zero."""
    check_tensor("logical_not", "input", input)
    return run("logical_not", lambda v: ops.logical_not(cast_value(v, boolean)), input)


@register("conj", "conj_physical")
def conj(input: Tensor) -> Tensor:
    """The complex conjugate."""
    return run("Conj", ops.conj, input) if input._type.dtype.is_complex else input


FUNCTIONS["conj_physical_"] = METHODS["conj_physical_"] = in_place("conj_physical_", conj)


@register("resolve_conj", "resolve_neg")
def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are never left unresolved here."""
    return input


@register("is_conj", "is_neg")
def is_conj(input: Tensor) -> bool:
    """False: conjugates and negatives are never left unresolved here."""
    check_tensor("is_conj", "input", input)
    return False


@register()
def real(input: Tensor) -> Tensor:
    """The real part; a real tensor itself."""
    if not input._type.dtype.is_complex:
        return input
    return FUNCTIONS["view_as_real"](input)[..., 0]


@register()
def imag(input: Tensor) -> Tensor:
    """The imaginary part of a complex tensor."""
    if not input._type.dtype.is_complex:
        raise RuntimeError(
            f"imag is not implemented for tensors with non-complex dtypes (got {input.dtype})."
        )
    return FUNCTIONS["view_as_real"](input)[..., 1]


METHODS.update(real=property(real), imag=property(imag))


@register(out=True)
@keeps("Angle", (0,))
def angle(input: Tensor) -> Tensor:
    """The argument of complex numbers; 0 or pi for real ones."""
    dtype = input._type.dtype
    if dtype.is_complex:
        return run("Angle", ops.angle, input)
    return run("Angle", lambda v: ops.angle(cast_value(v, floating(dtype))), input)


def isnan_(input: Tensor) -> Tensor:
    return FUNCTIONS["isnan"](input)


@register("signbit", out=True)
def signbit(input: Tensor) -> Tensor:
    """Whether the sign bit is set."""
    if not input._type.dtype.is_floating_point:
        return FUNCTIONS["lt"](input, 0)
    one = scalar(1, input._type.dtype)
    zero = scalar(0, input._type.dtype)
    return run("signbit", lambda v: ops.lt(ops.copysign(one, v), zero), input)


# --------------------------------------------------------------------------------------- arithmetic


def _both(name: str, input: Any, other: Any) -> None:
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        check_tensor(name, "input", input)
    if not is_operand(other):
        raise TypeError(
            f"{name}(): argument 'other' (position 2) must be Tensor or Number, not "
            f"{type(other).__name__}"
        )
    if not is_operand(input):
        check_tensor(name, "input", input)


def _scaled(
    name: str,
    node: str,
    op: Callable[..., Value],
    bool_op: Callable[..., Value] | None,
    input: Any,
    other: Any,
    alpha: Any,
) -> Tensor:
    """add and sub: input op alpha * other."""
    # the common case, without detours
    if type(input) is Tensor and type(other) is Tensor and alpha == 1:
        dtype = input._type.dtype
        if dtype is other._type.dtype and dtype is not boolean:
            return run(node, op, input, other)
    _both(name, input, other)
    alpha = number_given(name, "alpha", alpha, 3)
    dtype = common_dtype(input, other)
    if bool_op is None and not dtype.is_bool and (_is_bool(input) or _is_bool(other)):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying "
            "to invert a mask, use the `~` or `logical_not()` operator instead."
        )
    if isinstance(alpha, float) and not dtype.is_differentiable:
        raise RuntimeError(
            "For integral input tensors, argument alpha must not be a floating point number."
        )
    if dtype.is_bool:
        if bool_op is None:
            raise RuntimeError(
                "Subtraction, the `-` operator, with two bool tensors is not supported. Use the "
                "`^` or `logical_xor()` operator instead."
            )
        return elementwise(node, bool_op, input, other if alpha else False)
    if alpha == 1:
        node = "RsubBackward1" if node == "Sub" and not isinstance(input, Tensor) else node
        return elementwise(node, op, input, other, dtype=dtype)
    if dtype in _ROUNDED_ONCE:
        signed = scalar(alpha if node == "Add" else -alpha, dtype)
        return elementwise(node, lambda a, b: ops.muladd(b, signed, a), input, other, dtype=dtype)
    if not isinstance(other, Tensor):
        return elementwise(node, op, input, other * alpha, dtype=dtype)
    factor = scalar(alpha, dtype)
    return elementwise(node, lambda a, b: op(a, ops.mul(b, factor)), input, other, dtype=dtype)


def _muladd(x: Value, y: Value, z: Value) -> Value:
    """x * y + z, rounded once where there is an instruction for it: PyTorch's kernels use it."""
    return ops.muladd(x, y, z) if z.dtype in _ROUNDED_ONCE else ops.add(ops.mul(x, y), z)


def _is_bool(x: Any) -> bool:
    return x._type.dtype.is_bool if isinstance(x, Tensor) else isinstance(x, bool)


@register(inplace=True, out=True)
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input + alpha * other."""
    try:
        return _scaled("add", "Add", ops.add, ops.logical_or, input, other, alpha)
    except SparseOperand as sparse:
        return sparse.tensor._combined("add", input, other, alpha)


@register("sub", "subtract", inplace=True, out=True)
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input - alpha * other."""
    try:
        return _scaled("sub", "Sub", ops.sub, None, input, other, alpha)
    except SparseOperand as sparse:
        return sparse.tensor._combined("sub", input, other, alpha)


@register()
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


@register("mul", "multiply", inplace=True, out=True)
def mul(input: Any, other: Any) -> Tensor:
    """input * other."""
    if type(input) is Tensor and type(other) is Tensor:
        dtype = input._type.dtype
        if dtype is other._type.dtype and dtype is not boolean:
            return run("Mul", ops.mul, input, other)
    _both("mul", input, other)
    dtype = common_dtype(input, other)
    try:
        return elementwise(
            "Mul", ops.logical_and if dtype.is_bool else ops.mul, input, other, dtype=dtype
        )
    except SparseOperand as sparse:
        return sparse.tensor._combined("mul", input, other)


@register("div", "divide", inplace=True, out=True)
@keeps("Div", (1,), (0, 1))
@keeps("DivBackward2", (1,), (0, 1))
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; `rounding_mode` "trunc" or "floor" rounds and keeps integers integer."""
    _both("div", input, other)
    dtype = common_dtype(input, other)
    if rounding_mode is None:
        try:
            return elementwise("Div", ops.div, input, other, dtype=floating(dtype))
        except SparseOperand as sparse:
            return sparse.tensor._combined("div", input, other)
    if rounding_mode not in ("trunc", "floor"):
        raise RuntimeError(
            "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
            f"'{rounding_mode}'"
        )
    op = ops.trunc_div if rounding_mode == "trunc" else ops.floor_div
    _no_bools(f"div_{rounding_mode}", dtype)
    return elementwise("DivBackward2", op, input, _divisor(dtype, other), dtype=dtype)


def _no_bools(name: str, dtype: DType) -> None:
    if dtype.is_bool:
        raise NotImplementedError(
            f"\"{name}_cpu\" not implemented for 'Bool': convert one with .int()"
        )


def _divisor(dtype: DType, other: Any) -> Any:
    """What integers (operands meet in `dtype`) are divided by: not 0."""
    if dtype.is_differentiable:
        return other
    if isinstance(other, Tensor):
        other = cast_tensor(other, i64) if other._type.dtype.is_bool else other
        return checked(other, "divides", NO_DIVISOR)
    if isinstance(other, Number) and other == 0:
        raise RuntimeError(NO_DIVISOR)
    return other


NO_DIVISOR = "ZeroDivisionError: integers are divided by zero"


@register("true_divide", inplace=True, out=True)
def true_divide(input: Any, other: Any) -> Tensor:
    """input / other."""
    return div(input, other)


@register(inplace=True, out=True)
def floor_divide(input: Any, other: Any) -> Tensor:
    """floor(input / other)."""
    return div(input, other, rounding_mode="floor")


def _simple_binary(
    name: str,
    op: Callable[..., Value],
    to_float: bool = False,
    bools: str = "int",
    node: str = "",
    aliases: tuple[str, ...] = (),
    inplace: bool = True,
    divides: bool = False,
) -> Callable[..., Tensor]:
    def define(input: Any, other: Any) -> Tensor:
        _both(name, input, other)
        dtype = common_dtype(input, other)
        if to_float:
            dtype = floating(dtype)
        elif divides:
            _no_bools(name, dtype)
        elif dtype.is_bool and bools == "int":
            dtype = i64
        if divides:
            other = _divisor(dtype, other)
        return elementwise(node or _camel(name), op, input, other, dtype=dtype)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, *aliases, inplace=inplace, out=True)(define)


remainder = _simple_binary("remainder", ops.remainder, divides=True)
fmod = _simple_binary("fmod", ops.fmod, divides=True)
atan2 = _simple_binary("atan2", ops.atan2, to_float=True, aliases=("arctan2",))
copysign = _simple_binary("copysign", ops.copysign, to_float=True)
nextafter = _simple_binary("nextafter", ops.nextafter)
hypot = _simple_binary("hypot", ops.hypot)
real_logaddexp = _simple_binary("logaddexp", ops.logaddexp, to_float=True)


@register(out=True)
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow."""
    _both("logaddexp", input, other)
    refuse("logaddexp_cpu", common_dtype(input, other), "bool", "integer")
    if not common_dtype(input, other).is_complex:
        return real_logaddexp(input, other)
    a, b = (
        x if x._type.dtype.is_complex else x.to(_types.DTYPES["complex64"]) for x in (input, other)
    )
    # the imaginary part is not wrapped, as PyTorch's
    first = FUNCTIONS["real"](a) >= FUNCTIONS["real"](b)
    high, low = FUNCTIONS["where"](first, a, b), FUNCTIONS["where"](first, b, a)
    return high + FUNCTIONS["log"](FUNCTIONS["exp"](sub(low, high)) + 1)  # type: ignore[no-any-return]


xlogy = _simple_binary("xlogy", ops.xlogy, to_float=True)


@register(out=True)
@keeps_as_one("input other")
@rounded_once
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2**input + 2**other)."""
    ln2 = math.log(2)
    return div(logaddexp(mul(input, ln2), mul(other, ln2)), ln2)


@register(out=True)
def float_power(input: Any, exponent: Any) -> Tensor:
    """input ** exponent in double precision."""
    dtype = _types.DTYPES["complex128" if common_dtype(input, exponent).is_complex else "float64"]
    number = complex if dtype.is_complex else float
    base, power = (x.to(dtype) if isinstance(x, Tensor) else number(x) for x in (input, exponent))
    return pow(base, power)


def _float_power_of_double(input: Tensor, exponent: Any) -> Tensor:
    """As `float_power`. Raises RuntimeError: the base has not the dtype of the result."""
    made = float_power(input, exponent)
    if made._type.dtype is not input._type.dtype:
        given, needed = (SCALAR_NAMES[x._type.dtype] for x in (input, made))
        raise RuntimeError(
            f"the base given to float_power_ has dtype {given} but the operation's result requires "
            f"dtype {needed}"
        )
    return made


METHODS["float_power_"] = in_place("float_power_", _float_power_of_double)


def _extremum(
    name: str, op: Callable[..., Value], bool_op: Callable[..., Value]
) -> Callable[..., Tensor]:
    def define(input: Tensor, other: Tensor) -> Tensor:
        check_tensor(name, "input", input)
        check_tensor(name, "other", other, 2)
        dtype = common_dtype(input, other)
        if dtype.is_complex and name in ("maximum", "minimum"):
            raise RuntimeError(f"{name} not implemented for complex tensors.")
        return elementwise(
            _camel(name), bool_op if dtype.is_bool else op, input, other, dtype=dtype
        )

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc  # type: ignore[attr-defined]
    return register(name, out=True)(define)


maximum = _extremum("maximum", ops.maximum, ops.logical_or)
minimum = _extremum("minimum", ops.minimum, ops.logical_and)
fmax = _extremum("fmax", ops.fmax, ops.logical_or)
fmin = _extremum("fmin", ops.fmin, ops.logical_and)


@register(inplace=True, out=True)
def pow(input: Any, exponent: Any) -> Tensor:
    """input ** exponent. Small constant exponents become products."""
    _both("pow", input, exponent)
    dtype = common_dtype(input, exponent)
    if isinstance(exponent, Number) and isinstance(input, Tensor):
        if dtype.is_integer and isinstance(exponent, int) and exponent < 0:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
        short = _powers(exponent, dtype)
        if short is not None:
            return elementwise("Pow", short, input, dtype=dtype)
    if dtype.is_bool and isinstance(input, Tensor) and isinstance(exponent, Tensor):
        refuse("pow", dtype, "bool")
    dtype = i64 if dtype.is_bool else dtype
    by_number = not isinstance(exponent, Tensor)
    node = "Pow" if by_number else f"PowBackward{1 if isinstance(input, Tensor) else 2}"
    return elementwise(node, ops.pow, input, exponent, dtype=dtype)


def _powers(exponent: Any, dtype: DType) -> Callable[[Value], Value] | None:
    if dtype.is_bool or isinstance(exponent, (bool, complex)):
        return None
    if exponent == 2:
        return ops.square
    if exponent == 1:
        return lambda v: ops.reshape(v, shape=v.shape)
    if exponent == 3:
        return lambda v: ops.mul(ops.square(v), v)
    if not dtype.is_differentiable:
        return None
    return {0.5: ops.sqrt, -1: ops.reciprocal, -0.5: ops.rsqrt}.get(exponent)


@register(inplace=True, out=True)
@rounded_once
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    dtype = common_dtype(input, tensor1, tensor2)
    factor = scalar(value, dtype)
    return elementwise(
        "Addcmul",
        lambda a, b, c: _muladd(ops.mul(factor, b), c, a),
        input,
        tensor1,
        tensor2,
        dtype=dtype,
    )


@register(inplace=True, out=True)
@rounded_once
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    dtype = common_dtype(input, tensor1, tensor2)
    if not dtype.is_differentiable:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported: convert the inputs to a float "
            "dtype first"
        )
    factor = scalar(value, dtype)
    return elementwise(
        "Addcdiv",
        lambda a, b, c: ops.add(a, ops.div(ops.mul(factor, b), c)),
        input,
        tensor1,
        tensor2,
        dtype=dtype,
    )


@register(inplace=True, out=True)
@rounded_once
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight * (end - input), counted from the nearer end. Raises NotImplementedError for
    integers and bools, RuntimeError for tensors of several dtypes."""
    dtype = input._type.dtype
    for name, other in (("end", end), ("weight", weight)):
        if isinstance(other, Tensor) and other._type.dtype is not dtype:
            raise RuntimeError(
                f"expected dtype {dtype.torch_name} for `{name}` but got dtype "
                f"{other._type.dtype.torch_name}: convert it with .to(dtype)"
            )
    if not dtype.is_differentiable:
        raise NotImplementedError(
            f"\"lerp\" not implemented for '{SCALAR_NAMES[dtype]}': convert the "
            "inputs to a float dtype first"
        )

    def from_input(a: Value, b: Value, w: Value) -> Value:
        return _muladd(w, ops.sub(b, a), a)

    def from_end(a: Value, b: Value, w: Value) -> Value:
        return _muladd(ops.sub(a, b), ops.sub(scalar(1, dtype), w), b)

    def apply(a: Value, b: Value, w: Value) -> Value:
        near = ops.lt(ops.abs(w), scalar(0.5, dtype.real))
        return ops.where(near, from_input(a, b, w), from_end(a, b, w))

    if not isinstance(weight, Tensor):
        apply = from_input if abs(weight) < 0.5 else from_end
    return elementwise("Lerp", apply, input, end, weight, dtype=dtype)
