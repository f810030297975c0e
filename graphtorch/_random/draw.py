"""Values drawn for a tensor: its dtype, the order of its memory, what distributions do to uniform
numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i64
from graphtorch.ir.graph import Value

from .._deferred.memory_order import Order
from .._deferred.running import locate
from .._deferred.tensor import Tensor
from .._ops.base import cast_value, scalar
from .._types import CPU, META, device
from .generator import Generator, current, on_gpu

OPERANDS = None  # in the place of a shape: a draw that has operands is always recorded
Shape = tuple[Any, ...]
Make = Callable[[Shape], Value]


def source(generator: Generator | None) -> Generator:
    """The generator to draw from."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"argument 'generator' must be Generator, not {type(generator).__name__}")
    return current(generator)


def source_beside(x: Tensor, generator: Generator | None) -> Generator | None:
    """The generator to draw from for `x`."""
    return source_on(x.device, generator)


def source_on(place: device, generator: Generator | None) -> Generator | None:
    """The generator to draw from for tensors on a device: what has no elements moves no stream.

    Raises: RuntimeError: `generator` is one of another device.
    """
    if place is META:
        return Generator()
    if generator is None:
        return None if place is CPU else on_gpu(place)
    if isinstance(generator, Generator) and generator.device is not place:
        raise RuntimeError(
            f"Expected a '{place.type}' device type for generator but found "
            f"'{generator.device.type}'"
        )
    return generator


def _real(dtype: DType) -> DType:
    return f64 if dtype is f64 else f32


def rounded(value: Value, dtype: DType) -> Value:
    """`value` in a narrower dtype; of 16 bits by way of f32, as PyTorch."""
    if value.dtype is f64 and dtype.is_floating_point and dtype.itemsize < 4:
        value = cast_value(value, f32)
    return cast_value(value, dtype)


def uniform(
    shape: Shape, dtype: DType, generator: Generator | None, low: float = 0.0, high: float = 1.0
) -> Value:
    """In [low, high)."""
    real = _real(dtype)
    value = source(generator).draw("unit", shape, shape, real)
    unit = low == 0.0 and high == 1.0
    if unit and dtype is real:
        return value
    locate()
    first, last = (real.numpy.type(x) for x in (low, high))
    if not unit:
        value = ops.muladd(value, scalar(float(last - first), real), scalar(float(first), real))
    value = cast_value(value, dtype)
    # `high` itself, to which a number may be rounded, is excluded
    return ops.where(  # type: ignore[no-any-return]
        ops.eq(value, scalar(float(last), dtype)), scalar(float(first), dtype), value
    )


def normal(
    shape: Shape,
    dtype: DType,
    generator: Generator | None,
    mean: float = 0.0,
    std: float = 1.0,
    dense: bool = True,
) -> Value:
    """Of a mean and standard deviation."""
    value = source(generator).draw("standard", shape, shape, dtype, dense)
    if dtype is value.type.dtype and mean == 0.0 and std == 1.0:
        return value
    locate()
    if (mean, std) != (0.0, 1.0):
        value = ops.muladd(value, scalar(float(std), value.dtype), scalar(float(mean), value.dtype))
    return rounded(value, dtype)


def integers(
    shape: Shape,
    dtype: DType,
    generator: Generator | None,
    low: int,
    high: int,
    wide: bool | None = None,
) -> Value:
    """In low..high, high excluded; `wide` says of how many words, if that does not depend on the
    range."""
    whole = dtype if dtype.is_integer else i64
    value = source(generator).draw("integers", shape, low, high, shape, whole, wide)
    locate()
    return cast_value(value, dtype)


def below(shape: Shape, dtype: DType, generator: Generator | None, chance: float) -> Value:
    """1 with a probability that is a number, else 0."""
    value = source(generator).draw("below", shape, shape, chance)
    locate()
    return cast_value(value, dtype)


def noise(shape: Shape, dtype: DType, generator: Generator | None, chance: float) -> Value:
    """1 / chance with the probability `chance`, else 0; of f32 or f64."""
    return source(generator).draw("noise", shape, shape, chance, dtype)


def place(generator: Generator, shape: Shape) -> tuple[Value, Value]:
    """Seed and offset in a Philox stream, for an op that draws `noise` of this shape by itself."""
    found: Any = generator.draw("place", OPERANDS, shape)
    return found  # type: ignore[no-any-return]


def below_each(generator: Generator | None, chances: Value) -> Value:
    """1 with the elements of `chances` as probabilities, else 0, in their dtype."""
    unit = source(generator).draw("unit", chances.shape, chances.shape, _real(chances.dtype))
    locate()
    return ops.bernoulli(chances, unit)  # type: ignore[no-any-return]


def samples(name: str, dtype: DType, generator: Generator | None, *numbers: Value) -> Value:
    """Gamma, poisson or binomial numbers of parameters of one shape."""
    drawn_from = source(generator)
    locate()
    wide = [cast_value(x, f64) for x in numbers]
    return rounded(drawn_from.draw("sample", OPERANDS, name, dtype is not f64, *wide), dtype)


# -------------------------------------------------------------------------------- by their inverses


def _double(shape: Shape, generator: Generator | None) -> Value:
    value = source(generator).draw("unit", shape, shape, f64)
    locate()
    return value


def exponential(
    shape: Shape, dtype: DType, generator: Generator | None, lambd: float = 1.0
) -> Value:
    """Of a rate."""
    log = ops.log1p(ops.neg(_double(shape, generator)))
    return rounded(ops.mul(log, scalar(-1.0 / lambd, f64)), dtype)


def geometric(shape: Shape, dtype: DType, generator: Generator | None, p: float) -> Value:
    """How many trials of success probability p a first success takes."""
    log = ops.log(_double(shape, generator))
    return rounded(ops.ceil(ops.div(log, scalar(math.log1p(-p), f64))), dtype)


def cauchy(
    shape: Shape, dtype: DType, generator: Generator | None, median: float = 0.0, sigma: float = 1.0
) -> Value:
    """Of a median and scale."""
    turn = ops.mul(ops.sub(_double(shape, generator), scalar(0.5, f64)), scalar(math.pi, f64))
    made = ops.muladd(ops.tan(turn), scalar(float(sigma), f64), scalar(float(median), f64))
    return rounded(made, dtype)


def log_normal(
    shape: Shape, dtype: DType, generator: Generator | None, mean: float = 1.0, std: float = 2.0
) -> Value:
    """exp of normal numbers."""
    drawn = source(generator).draw("singly", shape, shape)
    locate()
    return rounded(
        ops.exp(ops.muladd(drawn, scalar(float(std), f64), scalar(float(mean), f64))), dtype
    )


# ---------------------------------------------------------------------------------- complex, memory


def complex_of(make: Callable[[Shape, DType], Value], shape: Shape, dtype: DType) -> Value:
    """Complex numbers whose parts, drawn one after the other, are neighbours."""
    pairs = make((*shape, 2), dtype.real)
    zero, one = (0,) * len(shape), (1,) * (len(shape) + 1)
    parts = [ops.slice(pairs, start=(*zero, i), stop=(*shape, i + 1), step=one) for i in range(2)]
    return ops.complex(*[ops.reshape(p, shape=shape) for p in parts])  # type: ignore[no-any-return]


def drawn_in_order(shape: Shape, order: Order | None, make: Make) -> Value:
    """What `make` draws for `shape`, filled in dimension by dimension of `order`."""
    if order is None:
        return make(shape)
    return from_order(make(tuple([shape[d] for d in order])), order)


def to_order(value: Value, order: Order | None) -> Value:
    """A value with the dimensions in another order."""
    return value if order is None else ops.permute(value, dims=order)  # type: ignore[no-any-return]


def from_order(value: Value, order: Order | None) -> Value:
    """What `to_order` was given."""
    if order is None:
        return value
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return ops.permute(value, dims=back)  # type: ignore[no-any-return]
