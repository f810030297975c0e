"""Comparison, logic, selection and limits; the operators of Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, bf16, boolean
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import SymInt

from .. import _types
from .._deferred import at_once
from .._deferred.tensor import Tensor
from .._settings import warn_user
from ..autograd.keeps import keeps, keeps_as_one, shown_as
from . import base
from .base import (
    DENSE,
    FLOATS,
    FUNCTIONS,
    METHODS,
    NO_ATTRS,
    cast_value,
    check_tensor,
    common_dtype,
    elementwise,
    fitting,
    in_place,
    is_number_tensor,
    is_operand,
    register,
    rounded_once,
    run,
    scalar,
    write_out,
)
from .orders import row_major
from .pointwise import (
    _both,
    add,
    div,
    floor_divide,
    isnan_,
    isneginf,
    isposinf,
    mul,
    pow,
    remainder,
    sub,
)

# -------------------------------------------------------------------------------------- comparison,
# logic, bits


def _comparison(name: str, aliases: tuple[str, ...]) -> Callable[..., Tensor]:
    op = getattr(ops, name)

    def define(input: Any, other: Any) -> Tensor:
        if type(input) in DENSE:  # without detours, as most are: see `_arithmetic`
            kind, dtype = type(other), input._type.dtype
            if (kind is float or kind is int) and dtype in FLOATS:
                return base.record(name, op, (input, scalar(other, dtype)), NO_ATTRS)
            if kind in DENSE and other._type.dtype is dtype:
                return base.record(name, op, (input, other), NO_ATTRS)
        check_tensor(name, "input", input)
        _both(name, input, other)
        return elementwise(name, op, input, other)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc
    register(name, *aliases, out=True)(define)
    for alias in (name, *aliases):
        METHODS[alias + "_"] = in_place(alias + "_", lambda a, b: define(a, b).to(a.dtype))
    return define


eq = _comparison("eq", ())
ne = _comparison("ne", ("not_equal",))
lt = _comparison("lt", ("less",))
le = _comparison("le", ("less_equal",))
gt = _comparison("gt", ("greater",))
ge = _comparison("ge", ("greater_equal",))


def _logic(name: str) -> None:
    op = getattr(ops, name)

    def define(input: Any, other: Any) -> Tensor:
        _both(name, input, other)
        given = [x if isinstance(x, Tensor) else scalar(bool(x), boolean) for x in (input, other)]
        return run(name, lambda a, b: op(cast_value(a, boolean), cast_value(b, boolean)), *given)

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc
    register(name, out=True)(define)
    METHODS[name + "_"] = in_place(name + "_", lambda a, b: define(a, b).to(a.dtype))


for _name in ("logical_and", "logical_or", "logical_xor"):
    _logic(_name)


def _bits(name: str, torch_name: str) -> Callable[..., Tensor]:
    op = getattr(ops, name)

    def define(input: Any, other: Any) -> Tensor:
        _both(torch_name, input, other)
        dtype = common_dtype(input, other)
        if dtype.is_differentiable:
            raise NotImplementedError(
                f'"{torch_name}" not implemented for {dtype.torch_name}: it takes integers and '
                "bools"
            )
        return elementwise(torch_name, op, input, other, dtype=dtype)

    define.__name__ = define.__qualname__ = torch_name
    define.__doc__ = op.doc
    return register(torch_name, inplace=True, out=True)(define)


bitwise_and = _bits("bitwise_and", "bitwise_and")
bitwise_or = _bits("bitwise_or", "bitwise_or")
bitwise_xor = _bits("bitwise_xor", "bitwise_xor")
bitwise_left_shift = _bits("shift_left", "bitwise_left_shift")
bitwise_right_shift = _bits("shift_right", "bitwise_right_shift")


@register()
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|."""
    if input._type.dtype is not other._type.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance < 0:
            raise RuntimeError(f"{name} must be greater than or equal to zero, but got {tolerance}")
    if not input._type.dtype.is_differentiable:
        if input._type.dtype.is_bool or (rtol == 0 and atol == 0):
            return eq(input, other)
        input, other = input.to(_types.DTYPES["float64"]), other.to(_types.DTYPES["float64"])
    near = le(FUNCTIONS["abs"](sub(input, other)), add(mul(FUNCTIONS["abs"](other), rtol), atol))
    near = near.logical_and(FUNCTIONS["isfinite"](other)).logical_or(eq(input, other))
    return near.logical_or(isnan_(input).logical_and(isnan_(other))) if equal_nan else near


@register()
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether every element is close; a Python bool."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


@register()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements; a Python bool."""
    check_tensor("equal", "other", other, 2)
    return input.shape == other.shape and bool(eq(input, other).all())


# -------------------------------------------------------------------------------- selection, limits


@register(method=False)
def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """input where condition holds, other elsewhere; with the condition alone, the indices where it
    holds."""
    check_tensor("where", "condition", condition)
    if input is None and other is None:
        return FUNCTIONS["nonzero"](condition, as_tuple=True)
    if input is None or other is None:
        raise TypeError(
            "where() received an invalid combination of arguments: it takes both 'input' and "
            "'other', or neither"
        )
    if condition._type.dtype.name not in ("bool", "u8"):
        raise RuntimeError(
            "where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{condition.dtype}"
        )
    if not condition._type.dtype.is_bool:
        warn_user(
            "where received a uint8 condition tensor. This behavior is deprecated and will be "
            "removed in a future version of PyTorch. Use a boolean condition instead."
        )
    dtype = common_dtype(input, other)
    given = [
        x if isinstance(x, Tensor) else scalar(fitting(x, dtype), dtype) for x in (input, other)
    ]

    def apply(c: Value, a: Value, b: Value) -> Value:
        return ops.where(cast_value(c, boolean), cast_value(a, dtype), cast_value(b, dtype))

    result = run("Where", apply, condition, *given)
    if out is not None:
        return write_out("where", result, out)
    return result


METHODS["where"] = lambda self, condition, other: where(condition, self, other)


@register("clamp", "clip", inplace=True, out=True)
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limited to min..max, numbers or tensors; a NaN stays, and a bound that is NaN gives NaN."""
    check_tensor("clamp", "input", input)
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    _check_bounds(min, max)
    bounds = [b for b in (min, max) if b is not None]
    dtype = common_dtype(input, *bounds)
    bounds = [b if isinstance(b, Tensor) else fitting(b, dtype) for b in bounds]

    def apply(v: Value, *limits: Value) -> Value:
        rest = list(limits)
        if min is not None:
            v = _limit(v, rest.pop(0), ops.lt, _may_be_nan(min))
        return _limit(v, rest.pop(0), ops.gt, _may_be_nan(max)) if max is not None else v

    by_numbers = not any(isinstance(b, Tensor) for b in bounds)
    name = "ClampBackward1" if by_numbers else "Clamp"
    return elementwise(name, apply, input, *bounds, dtype=dtype)


def _check_bounds(min: Any, max: Any) -> None:
    """Raise for a number beside a tensor that cannot take the place of one."""
    tensors = [b for b in (min, max) if isinstance(b, Tensor)]
    if len(tensors) == 1 and None not in (min, max) and not is_number_tensor(tensors[0]):
        given = f"min={type(min).__name__}, max={type(max).__name__}"
        raise TypeError(
            f"clamp() received an invalid combination of arguments - got (Tensor, {given}), but "
            "expected one of: (Tensor input, Tensor min, Tensor max), (Tensor input, Number min, "
            "Number max): make both bounds tensors"
        )


def _may_be_nan(bound: Any) -> bool:
    return isinstance(bound, Tensor) or bound != bound


def _limit(v: Value, bound: Value, beyond: Callable[..., Value], may_be_nan: bool) -> Value:
    # PyTorch's gradient passes where v equals the bound, so a selection, not maximum/minimum
    outside = beyond(v, bound)
    if may_be_nan and bound.dtype.is_floating_point:
        known = ops.logical_not(ops.isnan(v))  # a NaN stays, also beside the other bound
        outside = ops.logical_or(outside, ops.logical_and(ops.isnan(bound), known))
    return ops.where(outside, bound, v)


@register(inplace=True, out=True)
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """max(input, min)."""
    return clamp(input, min=min)


@register(inplace=True, out=True)
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """min(input, max)."""
    return clamp(input, max=max)


@register(inplace=True)
@row_major
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` where mask holds, input elsewhere."""
    check_tensor("masked_fill", "mask", mask)
    if not isinstance(value, (Tensor, bool, int, float, complex, np.generic, SymInt)):
        raise TypeError(
            "masked_fill(): argument 'value' (position 3) must be Tensor or Number, not "
            f"{type(value).__name__}"
        )
    if not mask._type.dtype.is_bool:
        raise RuntimeError(
            f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype}"
        )
    dtype = input._type.dtype
    if isinstance(value, Tensor):
        if value._type.shape:
            raise RuntimeError(
                "masked_fill only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.dim()} dimension(s)."
            )
        given: Any = value
    else:
        if isinstance(value, complex) and not dtype.is_complex:
            raise RuntimeError(
                f"value cannot be converted to type {dtype.torch_name} without overflow"
            )
        given = scalar(fitting(value, dtype), dtype)
    return run(
        "MaskedFill", lambda v, m, f: ops.where(m, cast_value(f, dtype), v), input, mask, given
    )


@register(inplace=True, out=True)
@shown_as("NanToNum")
@keeps_as_one("input")
def nan_to_num(
    input: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """NaN and infinities replaced by numbers (0, the largest, the smallest)."""
    if not input._type.dtype.is_floating_point:
        return input.clone()
    info = _types.finfo(input.dtype)
    result = where(isnan_(input), 0.0 if nan is None else nan, input)
    result = where(isposinf(result), info.max if posinf is None else posinf, result)
    return where(isneginf(result), info.min if neginf is None else neginf, result).to(input.dtype)


@register("complex", method=False, out=True)
@keeps("Complex", (0, 1))
def complex_(real: Tensor, imag: Tensor) -> Tensor:
    """The complex tensor real + i imag."""
    return run("Complex", ops.complex, real, imag)


@register(method=False, out=True)
@keeps("Polar", (~0,))
def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """The complex tensor abs * exp(i angle), of two tensors of one float dtype."""
    kinds = (abs._type.dtype, angle._type.dtype)
    if not all(k.is_floating_point for k in kinds) or kinds[0] is bf16:
        raise RuntimeError(
            "Expected both inputs to be Half, Float or Double tensors but got "
            f"{SCALAR_NAMES[kinds[0]]} and {SCALAR_NAMES[kinds[1]]}"
        )
    if kinds[0] is not kinds[1]:
        raise RuntimeError(
            f"Expected object of scalar type {SCALAR_NAMES[kinds[0]]} but got scalar type "
            f"{SCALAR_NAMES[kinds[1]]} for second argument"
        )
    return run(
        "Polar",
        lambda r, a: ops.complex(ops.mul(r, ops.cos(a)), ops.mul(r, ops.sin(a))),
        abs,
        angle,
    )


@register(inplace=True, out=True)
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below 0, 1 above, `values` at 0. Raises RuntimeError for tensors of two dtypes."""
    if input._type.dtype is not values._type.dtype:
        raise RuntimeError(
            "heaviside is not yet implemented for tensors with different dtypes: got "
            f"{input.dtype} and {values.dtype}."
        )
    return where(eq(input, 0), values, gt(input, 0).to(input.dtype))


@register(inplace=True, out=True)
def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    return mul(input, math.pi / 180)


@register(inplace=True, out=True)
def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    return mul(input, 180 / math.pi)


@register(inplace=True, out=True)
@keeps_as_one("input")
@rounded_once
def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x); 1 at 0."""
    x = mul(input, math.pi)
    zero = eq(input, 0)
    safe = where(zero, 1.0, x)
    return where(zero, 1.0, div(FUNCTIONS["sin"](safe), safe))


# ---------------------------------------------------------------------------------------- operators


def _operator(define: Callable[..., Tensor], reflected: bool = False) -> Callable[..., Any]:
    def call(self: Tensor, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return define(other, self) if reflected else define(self, other)

    return call


def _arithmetic(
    define: Callable[..., Tensor], node: str, op: Callable[..., Value], reflected: bool = False
) -> Callable[..., Any]:
    """As `_operator`, for the operators that most lines consist of: two floats of one dtype, or a
    float and a number, go without detours."""
    general = _operator(define, reflected)

    def call(self: Tensor, other: Any) -> Any:
        kind, dtype = type(other), self._type.dtype
        if type(self) in DENSE and dtype in FLOATS:
            if kind is float or kind is int:
                number = scalar(other, dtype)
                given = (number, self) if reflected else (self, number)
                return base.record(node, op, given, NO_ATTRS)
            if kind in DENSE and other._type.dtype is dtype:
                given = (other, self) if reflected else (self, other)
                return base.record(node, op, given, NO_ATTRS)
        return general(self, other)

    return call


def _mod(a: Any, b: Any) -> Tensor:
    return remainder(a, b)


OPERATORS = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "truediv": div,
    "floordiv": floor_divide,
    "mod": _mod,
    "pow": pow,
    "and": bitwise_and,
    "or": bitwise_or,
    "xor": bitwise_xor,
    "lshift": bitwise_left_shift,
    "rshift": bitwise_right_shift,
}
for _name, _define in OPERATORS.items():
    METHODS[f"__{_name}__"] = _operator(_define)
    METHODS[f"__r{_name}__"] = _operator(_define, reflected=True)
    METHODS[f"__i{_name}__"] = in_place(f"__i{_name}__", _define)
for _name, _node, _op in (
    ("add", "Add", ops.add),
    ("sub", "Sub", ops.sub),
    ("mul", "Mul", ops.mul),
    ("truediv", "Div", ops.div),
):
    METHODS[f"__{_name}__"] = _arithmetic(OPERATORS[_name], _node, _op)
    _node = "RsubBackward1" if _name == "sub" else _node
    METHODS[f"__r{_name}__"] = _arithmetic(OPERATORS[_name], _node, _op, reflected=True)


def _updating(general: Callable[..., Any], operation: np.ufunc) -> Callable[..., Any]:
    def call(self: Tensor, other: Any) -> Any:
        return self if at_once.update(self, operation, other) else general(self, other)

    return call


for _name, _operation in (
    ("__iadd__", np.add),
    ("__isub__", np.subtract),
    ("__imul__", np.multiply),
):
    METHODS[_name] = _updating(METHODS[_name], _operation)
METHODS["__rtruediv__"] = _operator(lambda x, number: mul(FUNCTIONS["reciprocal"](x), number))
METHODS["__idiv__"] = METHODS["__itruediv__"]
METHODS["__div__"], METHODS["__rdiv__"] = METHODS["__truediv__"], METHODS["__rtruediv__"]
for _name, _define in {"eq": eq, "ne": ne, "lt": lt, "le": le, "gt": gt, "ge": ge}.items():
    METHODS[f"__{_name}__"] = _operator(_define)
METHODS["__neg__"] = FUNCTIONS["neg"]
METHODS["__pos__"] = lambda self: self
METHODS["__abs__"] = METHODS["abs"]


def _invert(self: Tensor) -> Tensor:
    dtype = self._type.dtype
    if not (dtype.is_integer or dtype.is_bool):
        raise TypeError(
            "~ (operator.invert) is only implemented on integer and Boolean-type tensors, but this "
            f"one is of {self.dtype}"
        )
    return METHODS["bitwise_not"](self)  # type: ignore[no-any-return]


METHODS["__invert__"] = _invert
