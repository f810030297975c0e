"""Functions that make tensors of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, boolean, f64, i64
from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import number
from graphtorch.ir.shape import broadcast

from .. import _types
from .._deferred.at_once import element
from .._deferred.making import beside, in_order
from .._deferred.memory_order import Order, order_asked
from .._deferred.tensor import Tensor
from .._ops.base import (
    FUNCTIONS,
    METHODS,
    cast_value,
    check_tensor,
    checked,
    elementwise,
    known_elements,
    refuse,
    register,
    run,
    size_of,
    write_out,
)
from .._ops.creation import _sizes, dtype_for, place_for, without_elements
from .._types import META, check_device, device, to_ir
from . import draw
from .fill import CHANCES, normal_of
from .generator import Generator


def _float_dtype(dtype: Any, name: str) -> DType:
    if dtype is None:
        return _types.default_dtype()
    ir = to_ir(dtype)
    if not ir.is_differentiable:
        kernel = "check_uniform_bounds" if name == "rand" else "normal_kernel_cpu"
        raise NotImplementedError(
            f"\"{kernel}\" not implemented for '{SCALAR_NAMES[ir]}': {name} makes floats; use "
            "torch.randint for integers"
        )
    return ir


def _resized(out: Tensor, shape: tuple[Any, ...]) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(f"argument 'out' must be Tensor, not {type(out).__name__}")
    return out if out._type.shape == shape else METHODS["resize_"](out, shape)


def _finish(value: Value, requires_grad: bool, place: device, order: Order | None = None) -> Tensor:
    made = in_order(value, order, place)
    return made.requires_grad_() if requires_grad else made


def _uniform_of(shape: Any, dtype: DType, generator: Any) -> Value:
    """In [0, 1)."""
    if dtype.is_complex:
        return draw.complex_of(lambda s, d: draw.uniform(s, d, generator), shape, dtype)
    return draw.uniform(shape, dtype, generator)


def _float_factory(
    name: str, doc: str, make: Callable[..., Value], fill: str
) -> Callable[..., Tensor]:
    def factory(
        *size: Any,
        generator: Generator | None = None,
        out: Tensor | None = None,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        pin_memory: bool = False,
        names: Any = None,
    ) -> Tensor:
        place = place_for(device, out)
        shape = _sizes(name, size)
        if out is not None:
            return METHODS[fill](_resized(out, shape), generator=generator)
        if place is META:
            return without_elements(shape, _float_dtype(dtype, name), requires_grad)
        drawn = make(shape, _float_dtype(dtype, name), draw.source_on(place, generator))
        if pin_memory:
            return METHODS["pin_memory"](_finish(drawn, False, place)).requires_grad_(requires_grad)
        return _finish(drawn, requires_grad, place)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = doc
    return factory


rand = _float_factory("rand", "Random numbers: uniform in [0, 1).", _uniform_of, "uniform_")
randn = _float_factory("randn", "Random numbers: standard normal.", normal_of, "normal_")


def randint(
    low: Any,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers in [low, high); ``randint(high, size)`` starts at 0."""
    place = place_for(device, out)
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("randint() missing 1 required positional argument: 'size'")
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            "randint(): argument 'size' must be tuple of ints, not " + type(size).__name__
        )
    for key, end in (("low", low), ("high", high)):
        if isinstance(end, float):
            raise TypeError(f"randint(): argument '{key}' must be int, not float")
    _check_range(low, high)
    shape = _sizes("randint", (size,))
    if out is not None:
        return METHODS["random_"](_resized(out, shape), low, high, generator=generator)
    ir = i64 if dtype is None else to_ir(dtype)
    if place is META:
        return without_elements(shape, ir, requires_grad)
    drawn = draw.integers(shape, ir, draw.source_on(place, generator), int(low), int(high))
    return _finish(drawn, requires_grad, place)


def _check_range(low: Any, high: Any) -> None:
    if low >= high:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """The integers 0 .. n - 1 in random order."""
    place = place_for(device, out)
    n = size_of(n)
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got {n}")
    ir = dtype_for(dtype, out, i64)
    element(max(n - 1, 0), ir)  # refuses what the dtype does not hold
    if place is META and out is None:
        return without_elements((n,), ir, requires_grad)
    order = draw.source(draw.source_on(place, generator)).draw("permutation", (n,), n)
    made = _finish(cast_value(order, ir), requires_grad, place)
    return made if out is None else write_out("factory", made, out)  # type: ignore[no-any-return]


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Normal numbers: of the shape of `mean` or `std`, or of `size` for two numbers."""
    place = place_for(device, out)
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    for x in (mean, std):
        if isinstance(x, complex):
            raise TypeError(
                "normal() received an invalid combination of arguments: a complex number"
            )
    if isinstance(std, (int, float)) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if not tensors:
        if size is None:
            raise TypeError("normal(): with two numbers, size= is required")
        shape = _sizes("normal", (size,))
        if out is not None:
            return METHODS["normal_"](_resized(out, shape), mean, std, generator=generator)
        if place is META:
            return without_elements(shape, _float_dtype(dtype, "normal"), requires_grad)
        drawn = normal_of(
            shape, _float_dtype(dtype, "normal"), draw.source_on(place, generator), mean, std
        )
        return _finish(drawn, requires_grad, place)
    if size is not None:
        raise TypeError(
            "normal() received an invalid combination of arguments: size= is for two numbers; the "
            "result has the shape of the tensors"
        )
    made_of = tensors[0] if out is None else out
    refuse("normal_kernel_cpu", made_of._type.dtype, "bool", "integer")
    if isinstance(std, Tensor):
        std = checked(std.detach(), "not negative", "normal expects all elements of std >= 0.0")
    shape, ir = broadcast(*[t._type.shape for t in tensors]), tensors[0]._type.dtype
    scale = std if isinstance(mean, Tensor) and not isinstance(std, Tensor) else 1.0
    generator = draw.source_beside(tensors[0], generator)
    made = beside(tensors[0], normal_of(shape, ir, generator, 0.0, scale))
    with FUNCTIONS["no_grad"]():
        made = (made * std if isinstance(std, Tensor) else made) + mean
    if any(x.requires_grad for x in tensors):
        made = run("Normal", _independent, made, *tensors)
    if out is not None:
        return write_out("normal", made, out)  # type: ignore[no-any-return]
    return made.requires_grad_() if requires_grad else made


def _independent(drawn: Value, *parameters: Value) -> Value:
    """What was drawn; its gradients with respect to the parameters are zero, as PyTorch's: for
    others there is ``distributions.Normal.rsample``."""
    never = number(False, boolean)
    for x in parameters:
        drawn = ops.where(never, cast_value(x, drawn.dtype), drawn)
    return drawn


def _like(
    name: str, make: Callable[..., Value], to: Callable[..., Any] = _float_dtype
) -> Callable[..., Tensor]:
    """Random numbers like a tensor, which PyTorch draws in the order of the tensor's memory."""

    def made(
        input: Tensor,
        *bounds: Any,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
        pin_memory: bool = False,
        generator: Any = None,
        **named: Any,
    ) -> Tensor:
        check_tensor(name, "input", input)
        place = check_device(input.device if device is None else device)
        if input.is_sparse:
            return input._like(name, dtype)  # type: ignore[no-any-return]
        ir = to(input.dtype if dtype is None else dtype, name)
        if place is META:
            return without_elements(tuple(input._type.shape), ir, requires_grad)
        order = order_asked(name, memory_format, input)
        shape = tuple(input._type.shape)
        source = draw.source_on(place, generator)

        def drawn(sizes: Any) -> Value:
            return make(sizes, ir, source, order is None, *bounds, **named)

        return _finish(draw.drawn_in_order(shape, order, drawn), requires_grad, place, order)

    made.__name__ = made.__qualname__ = name
    made.__doc__ = f"As `{name.removesuffix('_like')}`, with the shape and dtype of `input`."
    return made


rand_like = _like(
    "rand_like", lambda shape, dtype, generator, dense: _uniform_of(shape, dtype, generator)
)
randn_like = _like(
    "randn_like",
    lambda shape, dtype, generator, dense: normal_of(shape, dtype, generator, dense=dense),
)


def _integers_like(
    shape: Any, dtype: Any, generator: Any, dense: bool, low: Any = None, high: Any = None
) -> Value:
    if low is None and high is None:
        raise TypeError("randint_like() missing 1 required positional argument: 'high'")
    low, high = (0, low) if high is None else (0 if low is None else low, high)
    _check_range(low, high)
    return draw.integers(shape, dtype, generator, int(low), int(high))


randint_like = _like("randint_like", _integers_like, lambda dtype, name: to_ir(dtype))


@register()
def bernoulli(
    input: Tensor, p: Any = None, *, generator: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """0 or 1, with the elements of `input` (or `p`) as probabilities of 1. `out` may be of any
    dtype."""
    shape, ir = tuple(input._type.shape), input._type.dtype
    if out is not None:
        return METHODS["bernoulli_"](_resized(out, shape), input, generator=generator)  # type: ignore[no-any-return]
    if p is not None:
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        return beside(input, draw.below(shape, ir, draw.source_beside(input, generator), p))
    if not ir.is_floating_point:
        raise NotImplementedError(
            f"\"bernoulli_tensor_cpu_p_\" not implemented for '{SCALAR_NAMES[ir]}': expected "
            "probabilities of a floating point dtype"
        )
    chances = checked(input, "probability", CHANCES)
    generator = draw.source_beside(input, generator)
    return run("Bernoulli", lambda value: draw.below_each(generator, value), chances)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------- by rejection


def _rates(name: str, *inputs: Tensor) -> None:
    for x in inputs:
        if not isinstance(x, Tensor) or not x._type.dtype.is_floating_point:
            kind = SCALAR_NAMES[x._type.dtype] if isinstance(x, Tensor) else type(x).__name__
            raise NotImplementedError(
                f"\"{name}_cpu\" not implemented for '{kind}': expected a tensor of a floating "
                "point dtype"
            )


def _sampled(name: str, node: str, generator: Generator | None, *inputs: Tensor) -> Tensor:
    """Samples of tensors of parameters of one shape and dtype."""
    dtype = inputs[0]._type.dtype
    generator = draw.source_beside(inputs[0], generator)
    return run(node, lambda *v: draw.samples(name, dtype, generator, *v), *inputs)  # type: ignore[no-any-return]


@register(method=False)
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the elements of `input`, none of them negative, as rates."""
    _rates("poisson", input)
    rates = checked(input, "not negative", "invalid Poisson rate, expected rate to be non-negative")
    return _sampled("poisson", "Poisson", generator, rates)


@register(method=False)
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials of probability `prob` succeed, the two broadcast against each
    other."""
    _rates("binomial", count, prob)
    if count._type.dtype is not prob._type.dtype:
        raise RuntimeError(f"Found dtype {prob.dtype} but expected {count.dtype}")
    return _sampled("binomial", "Binomial", generator, *FUNCTIONS["broadcast_tensors"](count, prob))


@register(method=False)
def _standard_gamma(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma numbers of concentrations `input` and rate 1, differentiable in the concentrations."""
    _rates("_standard_gamma", input)
    made = _sampled("gamma", "StandardGamma", generator, input)
    least = float(input._type.dtype.numpy.type(_types.finfo(input.dtype).tiny))
    return made.clamp_min(least)  # type: ignore[no-any-return]


@register(method=False)
def _standard_gamma_grad(input: Tensor, output: Tensor) -> Tensor:
    """The derivative of gamma numbers `output` by their concentrations `input`."""
    return elementwise("StandardGammaGrad", ops.standard_gamma_grad, input, output)


@register(method=False)
def _sample_dirichlet(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Dirichlet samples of concentrations [..., n]."""
    made = FUNCTIONS["_standard_gamma"](input.double(), generator=generator)
    return (made / made.sum(-1, keepdim=True)).to(input.dtype)  # type: ignore[no-any-return]


@register(method=False)
def _dirichlet_grad(x: Tensor, alpha: Tensor, total: Tensor) -> Tensor:
    """The derivative of elements of Dirichlet samples by their own concentrations, over 1 - x."""
    return elementwise("DirichletGrad", ops.dirichlet_grad, x, alpha, total)


# -------------------------------------------------------------------------------------- multinomial


@register()
def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Indices drawn with the elements of each row as weights."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim, but got {input.ndim}")
    if not input._type.dtype.is_floating_point:
        raise RuntimeError(
            "multinomial only supports floating-point dtypes for input, got: "
            f"{SCALAR_NAMES[input._type.dtype]}"
        )
    weights = input.detach() if input.ndim == 2 else input.detach().unsqueeze(0)
    rows, count = weights.shape
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > count:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement: "
            f"{num_samples} > {count}"
        )
    weights = _checked_weights(weights)
    generator = draw.source_beside(weights, generator)
    if not replacement or num_samples == 1:
        drawn = beside(weights, draw.exponential((rows, count), weights._type.dtype, generator))
        keys = weights / drawn
        found = keys.argmax(1, keepdim=True) if num_samples == 1 else keys.topk(num_samples, 1)[1]
    else:
        found = _by_steps(weights, num_samples, generator)
    return found if input.ndim == 2 else found.squeeze(0)


def _by_steps(weights: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
    """With replacement: the first of the normalised running sums that a uniform number does not
    exceed."""
    rows = weights.shape[0]
    steps = FUNCTIONS["cumsum"](weights if weights._type.dtype is f64 else weights.float(), 1)
    steps = steps / steps[:, -1:]
    steps = FUNCTIONS["cat"]([steps[:, :-1], FUNCTIONS["ones_like"](steps[:, -1:])], 1)
    shape = rows, num_samples
    source = draw.source(draw.source_beside(weights, generator))
    unit = beside(weights, source.draw("unit", shape, shape, f64))
    return FUNCTIONS["searchsorted"](steps.double(), unit)  # type: ignore[no-any-return]


def _checked_weights(weights: Tensor) -> Tensor:
    """Weights [rows, count] that can be drawn with: none is negative, not all of a row are 0."""
    weights = checked(
        weights,
        "finite and not negative",
        "probability tensor contains either `inf`, `nan` or element < 0",
    )
    known = known_elements(weights)
    nothing = "invalid multinomial distribution (sum of probabilities <= 0)"
    if known is None:
        total = checked(weights.sum(1, keepdim=True), "positive", nothing)
        return FUNCTIONS["where"](total > 0, weights, 0.0)  # type: ignore[no-any-return]
    if not np.all(np.any(known > 0, axis=-1)):
        raise RuntimeError(nothing)
    return weights
