"""Greatest common divisors and least common multiples, as loops in the graph."""

from __future__ import annotations

import importlib
from typing import Any

from .._deferred.tensor import Tensor
from .._types import DTYPES
from .base import FUNCTIONS, in_place, with_out


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers, not negative (Euclid)."""
    a, b = _integers("gcd", input, other)

    def step(a: Any, b: Any) -> tuple[Any, Any]:
        rest = b == 0  # those that are finished stay
        divisor = FUNCTIONS["where"](rest, 1, b)
        return FUNCTIONS["where"](rest, a, b), FUNCTIONS["where"](
            rest, 0, FUNCTIONS["fmod"](a, divisor)
        )

    control = importlib.import_module("graphtorch._captured.control")  # few programs use it
    return control.while_loop(lambda a, b: (b != 0).any(), step, (a, b))[0].abs()  # type: ignore[no-any-return]


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers, not negative; 0 where one is 0."""
    a, b = _integers("lcm", input, other)
    dtype = a.dtype
    if dtype.itemsize < 4:  # C multiplies in ints, and cuts the result off at the end
        a, b = (x.to(DTYPES["int32"]) for x in (a, b))
    divisor = gcd(a, b)
    safe = FUNCTIONS["where"](divisor == 0, 1, divisor)
    return (FUNCTIONS["div"](a, safe, rounding_mode="trunc") * b).abs().to(dtype)  # type: ignore[no-any-return]


def _integers(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    for i, x in enumerate((a, b), 1):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}(): argument {i} must be Tensor, not {type(x).__name__}")
        if not x._type.dtype.is_integer:
            raise NotImplementedError(
                f"\"{name}_cpu\" not implemented for '{x.dtype}': it is of integers"
            )
    common = FUNCTIONS["promote_types"](a.dtype, b.dtype)
    return tuple(FUNCTIONS["broadcast_tensors"](a.to(common), b.to(common)))


def positive(input: Tensor) -> Tensor:
    """The tensor itself. Raises RuntimeError for bools."""
    if input._type.dtype.is_bool:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


PUBLIC = {f.__name__: with_out(f.__name__, f) for f in (gcd, lcm)}
PUBLIC |= {f"{name}_": in_place(f"{name}_", f) for name, f in (("gcd", gcd), ("lcm", lcm))}
PUBLIC["positive"] = positive
METHODS = {**PUBLIC, "gcd": gcd, "lcm": lcm}
