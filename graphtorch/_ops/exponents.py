"""Floats taken apart into mantissa and exponent, and put together again."""

from __future__ import annotations

from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i32, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import cast_to, number

from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps
from ..return_types import define
from .base import SHORT, common_dtype, elementwise, floating, register, rounded_once, run

__all__ = ["Frexp", "frexp", "ldexp"]

Frexp: Any = define("frexp", ("mantissa", "exponent"))
# the integer of a float's bits, how many of those are its fraction's, and what 0 is stored as
_BITS = {f32: (i32, 23, 127), f64: (i64, 52, 1023)}


@register(out=True)
@keeps("Frexp", (~1,))
def frexp(input: Tensor) -> Any:
    """`input` as mantissa * 2 ** exponent, with 1/2 <= |mantissa| < 1 and an int32 exponent; of 0,
    infinities and NaN the exponent is 0.

    Raises: RuntimeError: `input` is not of real floats.
    """
    if not input._type.dtype.is_floating_point:
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    return Frexp(*run("Frexp", _parts, input))


def _parts(x: Value) -> tuple[Value, Value]:
    wide = cast_to(x, f32) if x.dtype in SHORT else x
    exponent = _exponent(wide)
    # 2 ** -exponent may lie beyond the range, its root does not
    half = ops.shift_right(exponent, number(1, exponent.dtype))
    mantissa = ops.mul(wide, _power_of_two(ops.neg(half), wide.dtype))
    mantissa = ops.mul(mantissa, _power_of_two(ops.sub(half, exponent), wide.dtype))
    return cast_to(mantissa, x.dtype), cast_to(exponent, i32)


def _exponent(x: Value) -> Value:
    """floor(log2 |x|) + 1 as an integer of the size of `x`."""
    whole, fraction, bias = _BITS[x.dtype]
    size, smallest = ops.abs(x), number(2.0 ** (1 - bias), x.dtype)
    small = ops.lt(size, smallest)  # no bits tell the exponent of those
    normal = ops.where(small, ops.mul(size, number(2.0**fraction, x.dtype)), size)
    stored = ops.shift_right(ops.bitcast(normal, dtype=whole), number(fraction, whole))
    found = ops.sub(stored, number(bias - 1, whole))
    found = ops.where(small, ops.sub(found, number(fraction, whole)), found)
    has_none = ops.logical_or(ops.eq(size, number(0.0, x.dtype)), ops.logical_not(ops.isfinite(x)))
    return ops.where(has_none, number(0, whole), found)  # type: ignore[no-any-return]


def _power_of_two(exponent: Value, dtype: DType) -> Value:
    """2 ** exponent, of integers for which that is a normal number."""
    whole, fraction, bias = _BITS[dtype]
    stored = ops.add(exponent, number(bias, whole))
    return ops.bitcast(ops.shift_left(stored, number(fraction, whole)), dtype=dtype)  # type: ignore[no-any-return]


@register(inplace=True, out=True)
@keeps("Ldexp", (1, ~0), (~0,))
@rounded_once
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other."""

    def scaled(x: Value, exponent: Value) -> Value:
        return ops.mul(x, ops.pow(number(2.0, exponent.dtype), exponent))  # type: ignore[no-any-return]

    return elementwise("Ldexp", scaled, input, other, dtype=floating(common_dtype(input, other)))
