"""A table of the elementwise ops: points, and PyTorch's function for each.

tests/ir/test_pointwise.py holds the records against it, tests/frontend/test_gradcheck.py the
functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

inf, nan = math.inf, math.nan

REALS = (-3.3, -1.7, -0.6, -0.1, 0.2, 0.7, 1.3, 2.9)
CORNERS = (0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 1e-30, 80.0, -80.0)
UNIT = (-0.95, -0.6, -0.2, 0.1, 0.3, 0.9)
ABOVE_ONE = (1.1, 1.5, 2.0, 3.0, 10.0)
COMPLEX = (0.3 + 0.4j, -1.2 + 0.7j, 2.1 - 1.3j, -0.4 - 0.8j)


@dataclass(frozen=True)
class Case:
    """`oracle` is PyTorch's function, by its name or as one of the package and operands; `smooth`
    are points where finite differences hold; `corners` others."""

    oracle: str | Callable[..., Any]
    smooth: tuple[float, ...] = REALS
    corners: tuple[float, ...] = CORNERS
    attrs: dict[str, Any] = field(default_factory=dict)
    complex: bool = False
    integers: bool = False

    def function(self, package: Any) -> Callable[..., Any]:
        """The oracle in PyTorch, or in a package with its names."""
        if isinstance(self.oracle, str):
            return attrgetter(self.oracle)(package)  # type: ignore[no-any-return]
        return partial(self.oracle, package)


def numeric(oracle: Any, **options: Any) -> Case:
    return Case(oracle, complex=True, integers=True, **options)


def analytic(oracle: Any, **options: Any) -> Case:
    return Case(oracle, complex=True, **options)


UNARY: dict[str, list[Case]] = {
    "neg": [numeric("neg")],
    "abs": [numeric("abs")],
    "sign": [numeric("sgn")],
    "square": [numeric("square")],
    "reciprocal": [analytic("reciprocal")],
    "sqrt": [analytic("sqrt", smooth=ABOVE_ONE)],
    "rsqrt": [analytic("rsqrt", smooth=ABOVE_ONE)],
    "exp": [analytic("exp")],
    "exp2": [analytic("exp2")],
    "expm1": [analytic("expm1")],
    "log": [analytic("log", smooth=ABOVE_ONE)],
    "log2": [analytic("log2", smooth=ABOVE_ONE)],
    "log10": [analytic("log10", smooth=ABOVE_ONE)],
    "log1p": [analytic("log1p", smooth=UNIT)],
    "sigmoid": [analytic("sigmoid")],
    "sin": [analytic("sin")],
    "cos": [analytic("cos")],
    "tan": [analytic("tan")],
    "asin": [analytic("asin", smooth=UNIT)],
    "acos": [analytic("acos", smooth=UNIT)],
    "atan": [analytic("atan")],
    "sinh": [analytic("sinh")],
    "cosh": [analytic("cosh")],
    "tanh": [analytic("tanh")],
    "asinh": [analytic("asinh")],
    "acosh": [analytic("acosh", smooth=ABOVE_ONE)],
    "atanh": [analytic("atanh", smooth=UNIT)],
    "floor": [Case("floor", integers=True)],
    "ceil": [Case("ceil", integers=True)],
    "round": [Case("round", integers=True, corners=(*CORNERS, 0.5, 1.5, 2.5, -0.5))],
    "trunc": [Case("trunc", integers=True)],
    "isnan": [numeric("isnan")],
    "isinf": [numeric("isinf")],
    "isfinite": [numeric("isfinite")],
    "conj": [numeric(lambda t, x: t.conj(x).resolve_conj())],
    "angle": [analytic("angle")],
    "erf": [Case("erf")],
    "erfc": [Case("erfc")],
    "erfinv": [
        Case("erfinv", smooth=UNIT, corners=(0.0, 1.0, -1.0, 1.5, nan, 1e-6, 0.999999, -0.5, 0.5))
    ],
    "lgamma": [Case("lgamma", corners=(*CORNERS, -2.0, 30.5))],
    "digamma": [Case("digamma", corners=(0.0, -0.0, inf, nan, 1.4616, 30.0, 1e10, -0.5, -10.25))],
    "relu": [Case("relu", integers=True)],
    "leaky_relu": [Case(lambda t, x: t.nn.functional.leaky_relu(x, 0.2), attrs={"slope": 0.2})],
    "hardtanh": [
        Case(lambda t, x: t.nn.functional.hardtanh(x, -1.0, 2.0), attrs={"low": -1.0, "high": 2.0})
    ],
    "hardsigmoid": [Case("nn.functional.hardsigmoid", corners=(*CORNERS, 3.0, -3.0))],
    "hardswish": [Case("nn.functional.hardswish", corners=(0.0, 3.0, -3.0, nan, 80.0, -80.0))],
    "softsign": [Case("nn.functional.softsign")],
    "gelu": [
        Case("nn.functional.gelu", attrs={"approximate": "none"}),
        Case(
            lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), attrs={"approximate": "tanh"}
        ),
    ],
    "gelu_slope": [
        Case(lambda t, x: t.special.ndtr(x) + x * t.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))
    ],
    "silu": [Case("nn.functional.silu")],
    "softplus": [
        Case("nn.functional.softplus", attrs={"beta": 1.0, "threshold": 20.0}),
        Case(
            lambda t, x: t.nn.functional.softplus(x, 2.0, 3.0),
            attrs={"beta": 2.0, "threshold": 3.0},
        ),
    ],
    "log_sigmoid": [Case("nn.functional.logsigmoid")],
    "elu": [
        Case(
            lambda t, x: t.nn.functional.elu(x, 0.7),
            attrs={"alpha": 0.7, "scale": 1.0, "input_scale": 1.0},
        ),
        Case(
            lambda t, x: t.nn.functional.celu(x, 0.7),
            attrs={"alpha": 0.7, "scale": 1.0, "input_scale": 1 / 0.7},
        ),
    ],
    "mish": [Case("nn.functional.mish")],
}

PAIRS = tuple((x, y) for x in (-2.3, -0.4, 0.6, 1.9) for y in (-1.6, -0.7, 0.5, 2.2))
POSITIVE_BASE = tuple((abs(x), y) for x, y in PAIRS)
POSITIVE_SECOND = tuple((x, abs(y)) for x, y in PAIRS)
CORNER_PAIRS = tuple(
    (x, y) for x in (0.0, -0.0, 1.0, -2.0, inf, -inf, nan) for y in (0.0, 1.0, -2.0, 3.0, inf, nan)
)

BINARY: dict[str, list[Case]] = {
    "add": [numeric("add")],
    "sub": [numeric("sub")],
    "mul": [numeric("mul")],
    "product": [Case("mul")],
    "div": [analytic("div")],
    "floor_div": [Case(lambda t, x, y: t.div(x, y, rounding_mode="floor"), integers=True)],
    "trunc_div": [Case(lambda t, x, y: t.div(x, y, rounding_mode="trunc"), integers=True)],
    "remainder": [Case("remainder", integers=True)],
    "fmod": [Case("fmod", integers=True)],
    "pow": [numeric("pow", smooth=POSITIVE_BASE)],
    "maximum": [Case("maximum", integers=True)],
    "minimum": [Case("minimum", integers=True)],
    "fmax": [Case("fmax", integers=True)],
    "fmin": [Case("fmin", integers=True)],
    "atan2": [Case("atan2")],
    "copysign": [Case("copysign")],
    "nextafter": [Case("nextafter")],
    "hypot": [Case("hypot")],
    "logaddexp": [Case("logaddexp")],
    "xlogy": [Case("xlogy", smooth=POSITIVE_SECOND)],
    "eq": [numeric("eq")],
    "ne": [numeric("ne")],
    "lt": [Case("lt", integers=True)],
    "le": [Case("le", integers=True)],
    "gt": [Case("gt", integers=True)],
    "ge": [Case("ge", integers=True)],
}


def named() -> list[tuple[str, Case]]:
    """Every case, with the name of its op."""
    return [(name, case) for name, cases in (UNARY | BINARY).items() for case in cases]


def operands(name: str, points: Sequence[Any]) -> list[Any]:
    """The operands of an op at points, each a list of numbers."""
    return [list(points)] if name in UNARY else [[p[i] for p in points] for i in (0, 1)]


def points(name: str, case: Case, kind: str) -> tuple[Any, ...]:
    """The `smooth` points of a case, or its `corners`; pairs of an op of two operands."""
    if name in UNARY:
        return case.smooth if kind == "smooth" else case.corners
    if kind == "corners":
        return CORNER_PAIRS
    return PAIRS if case.smooth is REALS else case.smooth
