"""Elementary functions as kernel-IR expansions: branch-free, so that any loop around them
vectorises.

f32 functions are ours: at most 2 ULP for exp, log, tanh, erf and sigmoid, 4 for the others, over
all of f32 with its denormals, infinities and NaNs (tests/backends/test_maths.py). f64 functions are
libm's, apart from those it does not have.
"""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.ir.dtype import DType, f32, f64

from ....dataclass import dataclass
from ...builder import Builder
from ...ir import Const, Expr, binary, select, unary
from . import exponentials as e
from . import special as s
from . import trigonometric as t


@dataclass(frozen=True)
class Definition:
    """An expansion: appends `let`s to a builder and returns the result."""

    expand: Callable[..., Expr]
    arity: int = 1


def definition(op: str, dtype: DType) -> Definition | None:
    """Our own expansion of `op`, or None where libm's is called."""
    if op == "nextafter":
        return Definition(nextafter, 2)
    return F32.get(op) if dtype is f32 else F64.get(op) if dtype is f64 else None


def nextafter(b: Builder, x: Expr, y: Expr) -> Expr:
    """One step on the bits, in any float type: away from 0 where y is farther out on x's side."""
    word = b.let(unary("bitcast_int", x), "word")
    out = binary("eq", binary("gt", y, x), binary("gt", x, 0.0))
    one = Const(1, word.type)
    moved = unary("bitcast_float", b.let(select(out, word + one, word - one), "moved"))
    least = unary("bitcast_float", one)
    moved = select(binary("eq", x, 0.0), binary("copysign", least, y), moved)
    nan = binary("or", unary("isnan", x), unary("isnan", y))
    return select(nan, Const(float("nan"), x.type), select(binary("eq", x, y), y, moved))


F32 = {
    "exp": Definition(e.exp),
    "exp2": Definition(e.exp2),
    "near_exp2": Definition(e.exp2),
    "exp_negative": Definition(e.exp_negative),
    "expm1": Definition(e.expm1),
    "log": Definition(e.log),
    "log2": Definition(e.log2),
    "log10": Definition(e.log10),
    "log1p": Definition(e.log1p),
    "half_exp": Definition(e.half_exp),
    "sigmoid": Definition(e.sigmoid),
    "tanh": Definition(e.tanh),
    "sinh": Definition(e.sinh),
    "cosh": Definition(e.cosh),
    "asinh": Definition(e.asinh),
    "acosh": Definition(e.acosh),
    "atanh": Definition(e.atanh),
    "pow": Definition(e.power, 2),
    "sin": Definition(t.sin),
    "cos": Definition(t.cos),
    "tan": Definition(t.tan),
    "asin": Definition(t.asin),
    "acos": Definition(t.acos),
    "atan": Definition(t.atan),
    "atan2": Definition(t.atan2, 2),
    "erf": Definition(s.erf),
    "erfc": Definition(s.erfc),
    "erfinv": Definition(s.erfinv),
    "normal_cdf": Definition(s.normal_cdf),
    "lgamma": Definition(s.lgamma),
    "digamma": Definition(s.digamma),
}
F64 = {
    "exp_negative": Definition(lambda b, x: unary("exp", x)),
    "half_exp": Definition(s.half_exp64),
    "sigmoid": Definition(s.sigmoid64),
    "erfinv": Definition(s.erfinv64),
    "normal_cdf": Definition(s.normal_cdf64),
    "digamma": Definition(s.digamma64),
}
