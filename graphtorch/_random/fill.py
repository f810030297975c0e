"""Tensor methods that fill with random numbers, in the order of the tensor's memory."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType
from graphtorch.ir.graph import Value

from .._deferred.making import beside, from_value
from .._deferred.memory_order import own_order
from .._deferred.storage import MetaLeaf
from .._deferred.tensor import Tensor
from .._deferred.write import assign, check_writable
from .._ops.base import METHODS, checked
from . import draw
from .generator import Generator

CHANCES = "bernoulli: expected all probabilities to be in [0, 1]"
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
HALF: Any = np.float64(0.5)  # a number that a tensor may stand for
_REQUIRED: Any = inspect.Parameter.empty


def _method(
    name: str, doc: str, *parameters: tuple[str, Any]
) -> Callable[[Callable[..., Value]], Any]:
    """Makes a method of ``define(self, shape, dtype, generator, *arguments)``, which draws row
    after row."""
    own = [inspect.Parameter("self", _POSITIONAL)]
    own += [
        inspect.Parameter(
            n.replace("from", "from_"),
            _POSITIONAL,
            default=d,
            annotation="float" if type(d) is float else "Any",
        )
        for n, d in parameters
    ]
    last = inspect.Parameter("generator", inspect.Parameter.KEYWORD_ONLY, default=None)
    names = [n for n, _ in parameters]

    def publish(define: Callable[..., Value]) -> Callable[..., Value]:
        def fill(
            self: Tensor, *args: Any, generator: Generator | None = None, **options: Any
        ) -> Tensor:
            if len(args) > len(names):
                raise TypeError(
                    f"{name}() takes {len(names)} positional arguments but {len(args)} were given"
                )
            given = dict(parameters) | dict(zip(names, args, strict=False))
            for option, value in options.items():
                if option not in given:
                    raise TypeError(f"{name}() got an unexpected keyword argument '{option}'")
                given[option] = value
            for n, value in given.items():
                if value is _REQUIRED:
                    raise TypeError(f"{name}() missing 1 required positional argument: '{n}'")
            check_writable(self)
            if self.is_meta:
                return assign(self, from_value(MetaLeaf(self._type)))
            dtype, order = self._type.dtype, own_order(self)
            numbers, source = list(given.values()), draw.source_beside(self, generator)

            def make(shape: Any) -> Value:
                return define(self, shape, dtype, source, *numbers)

            return assign(
                self, beside(self, draw.drawn_in_order(tuple(self._type.shape), order, make))
            )

        fill.__name__ = fill.__qualname__ = name
        fill.__doc__ = doc
        fill.__signature__ = inspect.Signature([*own, last])  # type: ignore[attr-defined]
        METHODS[name] = fill
        return define

    return publish


# what PyTorch's messages call them
KERNELS = {
    "uniform_": "check_uniform_bounds",
    "normal_": "normal_kernel_cpu",
}


def _floating(name: str, dtype: DType) -> None:
    if not dtype.is_floating_point and not dtype.is_complex:
        if name not in KERNELS:
            raise RuntimeError(
                f"{name}: the distribution is a continuous probability distribution. dtype must be "
                f"a floating point but you specified {SCALAR_NAMES[dtype]}"
            )
        raise NotImplementedError(
            f"\"{KERNELS[name]}\" not implemented for '{SCALAR_NAMES[dtype]}': {name} fills "
            "tensors of a floating point dtype"
        )


@_method("uniform_", "Uniform numbers in [from, to).", ("from", 0.0), ("to", 1.0))
def _uniform(
    self: Tensor, shape: Any, dtype: DType, generator: Any, low: float, high: float
) -> Value:
    if low > high:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}"
        )
    _floating("uniform_", dtype)
    if dtype.is_complex:
        return draw.complex_of(lambda s, d: draw.uniform(s, d, generator, low, high), shape, dtype)
    return draw.uniform(shape, dtype, generator, low, high)


@_method("normal_", "Normal numbers of a mean and standard deviation.", ("mean", 0.0), ("std", 1.0))
def _normal(
    self: Tensor, shape: Any, dtype: DType, generator: Any, mean: float, std: float
) -> Value:
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    _floating("normal_", dtype)
    return normal_of(shape, dtype, generator, mean, std, self.is_contiguous())


def normal_of(
    shape: Any, dtype: DType, generator: Any, mean: Any = 0.0, std: float = 1.0, dense: bool = True
) -> Value:
    """Normal numbers of any dtype; of complex ones each part has half of the variance."""
    if not dtype.is_complex:
        return draw.normal(shape, dtype, generator, mean, std, dense)
    part = std * 0.5**0.5
    made = draw.complex_of(
        lambda s, d: draw.normal(s, d, generator, 0.0, part, dense), shape, dtype
    )
    return ops.add(made, draw.scalar(mean, dtype)) if mean else made  # type: ignore[no-any-return]


@_method(
    "bernoulli_", "0 or 1, with `p` (a number or a tensor) as the probability of 1.", ("p", HALF)
)
def _bernoulli(self: Tensor, shape: Any, dtype: DType, generator: Any, p: Any) -> Value:
    if not isinstance(p, Tensor):
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        return draw.below(shape, dtype, generator, p)
    if not p._type.dtype.is_floating_point:
        raise RuntimeError(
            f"bernoulli_: expected probabilities of a floating point dtype, got {p.dtype}"
        )
    chances = checked(p.detach(), "probability", CHANCES).expand(self._type.shape)
    value = draw.to_order(chances._value(), own_order(self))
    return draw.rounded(draw.below_each(generator, value), dtype)


@_method(
    "random_",
    "Integers in [from, to); without bounds over the range of the dtype.",
    ("from", None),
    ("to", None),
)
def _random(self: Tensor, shape: Any, dtype: DType, generator: Any, low: Any, high: Any) -> Value:
    if low is None and high is None:
        return draw.integers(
            shape, dtype, generator, 0, _limit(dtype), dtype.name in ("i64", "u64", "f64")
        )
    if high is None:
        low, high = 0, low
    if low >= high:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    return draw.integers(shape, dtype, generator, int(low), int(high))


def _limit(dtype: DType) -> int:
    """What `random_` without bounds stays below: all numbers up to it are exact."""
    if dtype.is_bool:
        return 2
    if dtype.is_integer:
        return int(np.iinfo(dtype.numpy).max) + 1
    return (1 << {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}[dtype.name]) + 1


def _between(name: str, parameter: str, number: float, high: float = math.inf) -> None:
    if not 0 < number < high:
        raise RuntimeError(f"{name} expects {parameter} to be in (0, {high}), but got {number}")


@_method("exponential_", "Exponential numbers of a rate.", ("lambd", 1.0))
def _exponential(self: Tensor, shape: Any, dtype: DType, generator: Any, lambd: float) -> Value:
    _between("exponential_", "lambd", lambd)
    _floating("exponential_", dtype)
    return draw.exponential(shape, dtype, generator, lambd)


@_method(
    "geometric_",
    "How many trials of success probability p a first success takes.",
    ("p", _REQUIRED),
)
def _geometric(self: Tensor, shape: Any, dtype: DType, generator: Any, p: float) -> Value:
    _between("geometric_", "p", p, 1)
    return draw.geometric(shape, dtype, generator, p)


@_method("cauchy_", "Cauchy numbers of a median and scale.", ("median", 0.0), ("sigma", 1.0))
def _cauchy(
    self: Tensor, shape: Any, dtype: DType, generator: Any, median: float, sigma: float
) -> Value:
    _between("cauchy_", "sigma", sigma)
    _floating("cauchy_", dtype)
    return draw.cauchy(shape, dtype, generator, median, sigma)


@_method(
    "log_normal_",
    "exp of normal numbers of a mean and standard deviation.",
    ("mean", 1.0),
    ("std", 2.0),
)
def _log_normal(
    self: Tensor, shape: Any, dtype: DType, generator: Any, mean: float, std: float
) -> Value:
    _between("log_normal_", "std", std)
    _floating("log_normal_", dtype)
    return draw.log_normal(shape, dtype, generator, mean, std)
