"""Functions of mathematics under their own module (``torch.special``), most of which stand in
``torch`` too.

Formulas: https://docs.pytorch.org/docs/stable/special.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch.ir import ops

from ._deferred.tensor import Tensor
from ._ops.accept import accepting
from ._ops.base import FUNCTIONS, check_tensor, common_dtype, elementwise, floating, rounded_once
from ._torch.absent import attribute_of
from ._types import get_default_dtype
from .autograd.grad_mode import modes
from .autograd.keeps import keeps_as_one
from .nn.functional import log_softmax, softmax

# name here: name in `torch`
_SAME = {
    name: name
    for name in (
        "digamma",
        "erf",
        "erfc",
        "erfinv",
        "exp2",
        "expm1",
        "i0",
        "log1p",
        "logit",
        "logsumexp",
        "polygamma",
        "round",
        "sinc",
        "xlogy",
    )
} | {
    "expit": "sigmoid",
    "gammainc": "igamma",
    "gammaincc": "igammac",
    "gammaln": "lgamma",
    "multigammaln": "mvlgamma",
    "psi": "digamma",
}


@keeps_as_one("input")
@rounded_once
def entr(input: Tensor) -> Tensor:
    """-x log x; 0 at 0, -inf below."""
    check_tensor("special_entr", "input", input)
    where = FUNCTIONS["where"]
    safe = where(input > 0, input, 1.0)
    found = where(input > 0, -safe * safe.log(), where(input == 0, 0.0, -math.inf))
    return where(FUNCTIONS["isnan"](input), math.nan, found)  # type: ignore[no-any-return]


@rounded_once
def xlog1py(input: Any, other: Any) -> Tensor:
    """x log(1 + y); 0 where x is 0 and y is not NaN."""
    x, y = (
        v if isinstance(v, Tensor) else FUNCTIONS["full_like"](other if v is input else input, v)
        for v in (input, other)
    )
    nothing = (x == 0) & FUNCTIONS["isnan"](y).logical_not()
    return FUNCTIONS["where"](nothing, 0.0, x * FUNCTIONS["log1p"](y))  # type: ignore[no-any-return]


@rounded_once
def ndtr(input: Tensor) -> Tensor:
    """The distribution function of the standard normal distribution."""
    check_tensor("special_ndtr", "input", input)
    return FUNCTIONS["erfc"](input * -math.sqrt(0.5)) * 0.5  # type: ignore[no-any-return]


@keeps_as_one("result")
@rounded_once
def ndtri(input: Tensor) -> Tensor:
    """The inverse of `ndtr`; NaN outside of 0 .. 1."""
    check_tensor("special_ndtri", "input", input)
    return FUNCTIONS["erfinv"](input * 2 - 1) * math.sqrt(2)  # type: ignore[no-any-return]


@keeps_as_one("input result")
@rounded_once
def log_ndtr(input: Tensor) -> Tensor:
    """The logarithm of `ndtr`, exact also where that vanishes: on the left by `erfcx`."""
    check_tensor("special_log_ndtr", "input", input)
    where = FUNCTIONS["where"]
    low = input < -1
    left = where(low, input, -1.0)
    right = where(low, 0.0, input)
    scaled = erfcx(left * -math.sqrt(0.5))
    return where(
        low,
        (scaled * 0.5).log() - left * left * 0.5,  # type: ignore[no-any-return]
        (FUNCTIONS["erfc"](right * math.sqrt(0.5)) * -0.5).log1p(),
    )


@keeps_as_one("input result")
@rounded_once
def erfcx(input: Tensor) -> Tensor:
    """exp(x^2) erfc(x)."""
    check_tensor("special_erfcx", "input", input)
    where = FUNCTIONS["where"]
    dtype = input.dtype
    x = input.double()
    far, low = x > 5, x < -7
    near, away = where(far | low, 0.0, x), where(far, x, 10.0)
    tail = away
    for k in range(40, 0, -1):  # the continued fraction, Abramowitz and Stegun 7.1.14
        tail = away + (k / 2) / tail
    found = where(far, math.sqrt(1 / math.pi) / tail, (near * near).exp() * FUNCTIONS["erfc"](near))
    found = where(low, 2 * where(low, x, 0.0).square().exp(), found)
    return found.to(dtype if dtype.is_floating_point else get_default_dtype())  # type: ignore[no-any-return]


def _unary(name: str) -> Callable[..., Tensor]:
    op = getattr(ops, name)

    def define(input: Tensor) -> Tensor:
        check_tensor(f"special_{name}", "input", input)
        return elementwise(name.capitalize(), op, input, dtype=floating(input._type.dtype))

    define.__name__ = define.__qualname__ = name
    define.__doc__ = op.doc
    return define


i0e, i1, i1e = _unary("i0e"), _unary("i1"), _unary("i1e")


def zeta(input: Any, other: Any) -> Tensor:
    """Hurwitz's zeta function of s = `input` and q = `other`; it has a gradient by q only."""
    if isinstance(input, Tensor) and input.requires_grad and modes.grad:
        raise RuntimeError(
            "the derivative for 'special_zeta: self' is not implemented: detach() it"
        )
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        raise TypeError(
            "special_zeta() received an invalid combination of arguments: two numbers, but one of "
            "input and other must be a Tensor"
        )
    return elementwise(
        "SpecialZeta", ops.zeta, input, other, dtype=floating(common_dtype(input, other))
    )


def _public() -> dict[str, Callable[..., Any]]:
    own = {
        f.__name__: f
        for f in (
            entr,
            erfcx,
            i0e,
            i1,
            i1e,
            log_ndtr,
            log_softmax,
            ndtr,
            ndtri,
            softmax,
            xlog1py,
            zeta,
        )
    }
    found = {here: FUNCTIONS[there] for here, there in _SAME.items()}
    return {name: accepting(name, f, __name__) for name, f in {**found, **own}.items()}


globals().update(_public())
__all__ = sorted(_public())
__getattr__ = attribute_of(__name__)
