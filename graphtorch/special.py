"""Functions of mathematics under their own module (``torch.special``), most of which stand in ``torch`` too.

Formulas: https://docs.pytorch.org/docs/stable/special.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._deferred.tensor import Tensor
from ._ops.accept import accepting
from ._ops.base import FUNCTIONS, check_tensor, rounded_once
from ._torch.absent import attribute_of
from .nn.functional import log_softmax, softmax

# name here: name in `torch`
_SAME = {name: name for name in (
    "digamma", "erf", "erfc", "erfinv", "exp2", "expm1", "log1p", "logit", "logsumexp", "round", "sinc",
    "xlogy",
)} | {"expit": "sigmoid", "gammaln": "lgamma", "psi": "digamma"}


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
    x, y = (v if isinstance(v, Tensor) else FUNCTIONS["full_like"](other if v is input else input, v)
            for v in (input, other))
    nothing = (x == 0) & FUNCTIONS["isnan"](y).logical_not()
    return FUNCTIONS["where"](nothing, 0.0, x * FUNCTIONS["log1p"](y))  # type: ignore[no-any-return]


@rounded_once
def ndtr(input: Tensor) -> Tensor:
    """The distribution function of the standard normal distribution."""
    check_tensor("special_ndtr", "input", input)
    return FUNCTIONS["erfc"](input * -math.sqrt(0.5)) * 0.5  # type: ignore[no-any-return]


@rounded_once
def ndtri(input: Tensor) -> Tensor:
    """The inverse of `ndtr`; NaN outside of 0 .. 1."""
    check_tensor("special_ndtri", "input", input)
    return FUNCTIONS["erfinv"](input * 2 - 1) * math.sqrt(2)  # type: ignore[no-any-return]


@rounded_once
def multigammaln(input: Tensor, p: int) -> Tensor:
    """The logarithm of the gamma function of dimension `p`, for elements greater than (p - 1) / 2."""
    check_tensor("mvlgamma", "input", input)
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    constant = p * (p - 1) / 4 * math.log(math.pi)
    parts = [FUNCTIONS["lgamma"](input - i / 2) for i in range(p)]
    return sum(parts[1:], parts[0]) + constant  # type: ignore[no-any-return]


def _public() -> dict[str, Callable[..., Any]]:
    own = {f.__name__: f for f in (entr, log_softmax, multigammaln, ndtr, ndtri, softmax, xlog1py)}
    found = {here: FUNCTIONS[there] for here, there in _SAME.items()}
    return {name: accepting(name, f, __name__) for name, f in {**found, **own}.items()}


globals().update(_public())
__all__ = sorted(_public())
__getattr__ = attribute_of(__name__)
