"""Random numbers: Philox, keyed by the seed and offset of a `Generator`.

The stream depends on the program only: each operation takes as many counters as it has elements and moves the
generator's offset on, whenever it runs.
"""

from __future__ import annotations

import inspect
import math
import os
import struct
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphtorch.backends.locks import lock_across_forks
from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, f32, i64
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import SymInt, bounds, broadcast, numel

from . import _types
from ._deferred.running import locate
from ._deferred.storage import Leaf, recorder
from ._deferred.tensor import Tensor, from_value
from ._deferred.write import assign
from ._ops.base import (
    FUNCTIONS,
    METHODS,
    cast_value,
    checked,
    elementwise,
    known_elements,
    register,
    run,
    scalar,
    write_out,
)
from ._ops.creation import _sizes, from_array, like
from ._types import CPU, check_device, to_ir

drawing = lock_across_forks()  # no number is drawn by two threads
_STATE_BYTES = 5056  # as PyTorch's; only the first 24 mean something here


class Generator:
    """A stream of random numbers of its own: a seed and how far it was used.

    Args:
        device: only 'cpu'.
    """

    def __init__(self, device: Any = "cpu"):
        self.device = check_device(device)
        self._seed = 67280421310721
        self._offset = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` again; returns the generator."""
        seed = int(seed)
        if not -(1 << 63) <= seed < (1 << 64):
            raise RuntimeError(f"Overflow when unpacking long long: seed {seed} is outside [-2**63, 2**64)")
        if recorder.capture is not None:
            recorder.capture.reseeded(self)
        self._seed = seed
        self._offset = 0
        return self

    def seed(self) -> int:
        """Start a stream that cannot be foreseen; returns its seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self._seed

    def initial_seed(self) -> int:
        """The seed of the present stream."""
        return self._seed

    def get_state(self) -> Tensor:
        """Seed and offset as a byte tensor."""
        state = struct.pack("<8sQQ", b"gtphilox", self._seed & (2**64 - 1), self._offset)
        return from_array(np.frombuffer(state.ljust(_STATE_BYTES, b"\0"), np.uint8).copy())

    def set_state(self, new_state: Tensor) -> Generator:
        """Continue where `get_state` was called.

        Raises:
            TypeError: not a byte tensor. RuntimeError: not a state of graphtorch.
        """
        if not isinstance(new_state, Tensor) or new_state._type.dtype.name != "u8":
            raise TypeError(
                f"expected a torch.ByteTensor, but got "
                f"{getattr(new_state, 'dtype', type(new_state).__name__)}"
            )
        magic, self._seed, self._offset = struct.unpack(
            "<8sQQ", new_state._array().tobytes()[:24].ljust(24, b"\0")
        )
        if magic != b"gtphilox":
            raise RuntimeError(
                "this RNG state was not made by graphtorch: streams of other libraries cannot be continued"
            )
        return self

    def clone_state(self) -> Generator:
        """A generator at the same place."""
        made = Generator()
        made._seed, made._offset = self._seed, self._offset
        return made

    def get_offset(self) -> int:
        """How many counters of the stream were used."""
        return self._offset

    def set_offset(self, offset: int) -> None:
        """Move to a place in the stream."""
        self._offset = int(offset)

    def __getstate__(self) -> tuple[int, int]:
        return self._seed, self._offset

    def __setstate__(self, state: tuple[int, int]) -> None:
        self.device = CPU
        self._seed, self._offset = state

    def take(self, count: Any) -> tuple[Value, Value]:
        """Seed and offset for `count` elements as values; the offset moves on."""
        if isinstance(count, SymInt):
            count = bounds(count)[1]
        used = (
            (count + 3) // 4 * 2
        )  # blocks of the widest element type: the stream does not depend on the dtype
        if recorder.capture is not None:
            return recorder.capture.random(self, used)
        with drawing:
            seed, offset = self._seed, self._offset
            self._offset = offset + used
        return Leaf.of(np.array(signed(seed))), Leaf.of(np.array(offset))


def signed(seed: int) -> int:
    """A seed as the 64-bit signed integer of the same bits."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >> 63 else seed


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Start the global stream of `seed`."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Start a global stream that cannot be foreseen; returns its seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the global stream."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the global stream."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Set the state of the global stream."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **options: Any) -> Any:
    """The global stream after the block is as it was before."""
    state = default_generator.__getstate__()
    try:
        yield
    finally:
        if enabled:
            default_generator.__setstate__(state)


# ------------------------------------------------------------------------------------------ distributions


def _stream(generator: Generator | None, shape: tuple[Any, ...]) -> tuple[Value, Value]:
    locate()
    Type(f32, shape)  # refuses more than can be addressed, before the stream moves
    return (generator or default_generator).take(numel(shape))


def uniform_value(shape: tuple[Any, ...], dtype: DType, generator: Generator | None = None) -> Value:
    """Uniform in [0, 1)."""
    return ops.random_uniform(*_stream(generator, shape), shape=tuple(shape), dtype=dtype)


def normal_value(shape: tuple[Any, ...], dtype: DType, generator: Generator | None = None) -> Value:
    """Standard normal."""
    return ops.random_normal(*_stream(generator, shape), shape=tuple(shape), dtype=dtype)


def _float_dtype(dtype: Any, name: str) -> DType:
    ir = _types.default_dtype() if dtype is None else to_ir(dtype)
    if not ir.is_differentiable:
        raise RuntimeError(
            f"\"{name}\" not implemented for '{SCALAR_NAMES[ir]}': use torch.randint for integers"
        )
    return ir


def _finish(value: Value, requires_grad: bool, out: Tensor | None) -> Tensor:
    made = from_value(value)
    if out is not None:
        return write_out("random", made, out)
    return made.requires_grad_() if requires_grad else made


def _float_factory(name: str, make: Callable[..., Value]) -> Callable[..., Tensor]:
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
        check_device(device)
        ir = out._type.dtype if out is not None and dtype is None else _float_dtype(dtype, name)
        shape = _sizes(name, size)
        if not ir.is_complex:
            return _finish(make(shape, ir, generator), requires_grad, out)
        parts = [make(shape, ir.real, generator) for _ in range(2)]
        if name == "randn":
            half = scalar(0.5**0.5, ir.real)
            parts = [ops.mul(p, half) for p in parts]
        return _finish(ops.complex(*parts), requires_grad, out)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = f"Random numbers: {make.__doc__}"
    return factory


rand, randn = _float_factory("rand", uniform_value), _float_factory("randn", normal_value)


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
    check_device(device)
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("randint() missing 1 required positional argument: 'size'")
    if not isinstance(size, (tuple, list)):
        raise TypeError("randint(): argument 'size' must be tuple of ints, not " + type(size).__name__)
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    ir = i64 if dtype is None else to_ir(dtype)
    shape = _sizes("randint", (size,))
    return _finish(_integers(int(low), int(high), shape, ir, generator), requires_grad, out)


def _integers(low: int, high: int, shape: tuple[Any, ...], ir: DType, generator: Generator | None) -> Value:
    whole = ir if ir.is_integer else i64
    value = ops.random_int(*_stream(generator, shape), low=low, high=high, shape=shape, dtype=whole)
    return cast_value(value, ir)


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
    check_device(device)
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got {n}")
    keys = ops.random_int(*_stream(generator, (n,)), low=-(1 << 62), high=1 << 62, shape=(n,), dtype=i64)
    order = ops.sort(keys, dim=0, descending=False)[1]
    ir = i64 if dtype is None else to_ir(dtype)
    return _finish(cast_value(order, ir), requires_grad, out)


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
    check_device(device)
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    for x in (mean, std):
        if isinstance(x, complex):
            raise TypeError("normal() received an invalid combination of arguments: a complex number")
    if isinstance(std, (int, float)) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if isinstance(std, Tensor):
        std = checked(std.detach(), "not negative", "normal expects all elements of std >= 0.0")
    if not tensors:
        if size is None:
            raise TypeError("normal(): with two numbers, size= is required")
        ir = _float_dtype(dtype, "normal")
        shape = _sizes("normal", (size,))
    else:
        shape, ir = broadcast(*[t._type.shape for t in tensors]), tensors[0]._type.dtype
    made = from_value(normal_value(shape, ir, generator))
    with FUNCTIONS["no_grad"]():
        made = made * std + mean
    if out is not None:
        return write_out("normal", made, out)
    return made.requires_grad_() if requires_grad else made


rand_like, randn_like = like("rand_like", rand), like("randn_like", randn)
randint_like = like("randint_like", randint, size_last=True)


@register(out=True)
def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """0 or 1, with the elements of `input` (or `p`) as probabilities of 1."""
    shape = input._type.shape
    seed, offset = _stream(generator, shape)
    if p is not None:
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        ir = input._type.dtype if input._type.dtype.is_floating_point else _types.default_dtype()
        chance = ops.expand(scalar(float(p), ir), shape=shape)
        return from_value(cast_value(ops.bernoulli(chance, seed, offset), input._type.dtype))
    if not input._type.dtype.is_floating_point:
        raise RuntimeError(f"bernoulli: expected probabilities of a floating point dtype, got {input.dtype}")
    chances = checked(input.detach(), "probability", CHANCES)
    return run("Bernoulli", ops.bernoulli, chances, seed, offset)


CHANCES = "bernoulli: expected all probabilities to be in [0, 1]"


def _rates(name: str, *inputs: Tensor) -> None:
    for x in inputs:
        if not isinstance(x, Tensor) or not x._type.dtype.is_floating_point:
            raise RuntimeError(f"{name}: expected a tensor of a floating point dtype, got "
                               f"{getattr(x, 'dtype', type(x).__name__)}")


@register(method=False)
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the elements of `input`, none of them negative, as rates."""
    _rates("poisson", input)
    rates = checked(input, "not negative", "invalid Poisson rate, expected rate to be non-negative")
    return run("Poisson", ops.poisson, rates, *_stream(generator, input._type.shape))


@register(method=False)
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials of probability `prob` succeed, the two broadcast against each other."""
    _rates("binomial", count, prob)
    if count._type.dtype is not prob._type.dtype:
        raise RuntimeError(f"Found dtype {prob.dtype} but expected {count.dtype}")
    shape = broadcast(count._type.shape, prob._type.shape)
    return run("Binomial", ops.binomial, count, prob, *_stream(generator, shape))


@register(method=False)
def _standard_gamma(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma numbers of concentrations `input` and rate 1, differentiable in the concentrations."""
    _rates("_standard_gamma", input)
    return run("StandardGamma", ops.standard_gamma, input, *_stream(generator, input._type.shape))


@register(method=False)
def _standard_gamma_grad(input: Tensor, output: Tensor) -> Tensor:
    """The derivative of gamma numbers `output` by their concentrations `input`."""
    return elementwise("StandardGammaGrad", ops.standard_gamma_grad, input, output)


@register(method=False)
def _von_mises(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Angles around 0 of concentrations `input`."""
    _rates("_von_mises", input)
    return run("VonMises", ops.von_mises, input, *_stream(generator, input._type.shape))


@register(method=False)
def _dirichlet_grad(x: Tensor, alpha: Tensor, total: Tensor) -> Tensor:
    """The derivative of elements of Dirichlet samples by their own concentrations, over 1 - x."""
    return elementwise("DirichletGrad", ops.dirichlet_grad, x, alpha, total)


@register()
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with the elements of each row as weights."""
    weights = input.detach() if input.ndim == 2 else input.detach().unsqueeze(0)
    rows, count = weights.shape
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > count:
        raise RuntimeError(
            f"cannot sample n_sample > prob_dist.size(-1) samples without replacement: {num_samples} > "
            f"{count}"
        )
    weights = _checked_weights(weights)
    if replacement:
        steps = FUNCTIONS["cumsum"](weights, 1)
        drawn = from_value(uniform_value((rows, num_samples), weights._type.dtype, generator)) * steps[:, -1:]
        found = FUNCTIONS["searchsorted"](steps, drawn, right=True).clamp(max=count - 1)
    else:  # the largest of log(u) / w: Efraimidis and Spirakis, Weighted random sampling with a reservoir
        drawn = from_value(uniform_value((rows, count), weights._type.dtype, generator))
        keys = FUNCTIONS["where"](weights > 0, (1 - drawn).log() / weights, -float("inf"))
        found = keys.topk(num_samples, 1)[1]
    return found if input.ndim == 2 else found.squeeze(0)


def _checked_weights(weights: Tensor) -> Tensor:
    """Weights [rows, count] that can be drawn with: none is negative, not all of a row are 0."""
    weights = checked(weights, "finite and not negative",
                      "probability tensor contains either `inf`, `nan` or element < 0")
    known = known_elements(weights)
    nothing = "invalid multinomial distribution (sum of probabilities <= 0)"
    if known is None:
        total = checked(weights.sum(1, keepdim=True), "positive", nothing)
        return FUNCTIONS["where"](total > 0, weights, 0.0)  # type: ignore[no-any-return]
    if not np.all(np.any(known > 0, axis=-1)):
        raise RuntimeError(nothing)
    return weights


# ------------------------------------------------------------------------------------------ in place


def _in_place(name: str, doc: str) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    def publish(define: Callable[..., Value]) -> Callable[..., Value]:
        def fill(self: Tensor, *args: Any, generator: Generator | None = None, **options: Any) -> Tensor:
            return assign(
                self, from_value(define(self._type.shape, self._type.dtype, generator, *args, **options))
            )

        fill.__name__ = fill.__qualname__ = name
        fill.__doc__ = doc
        shape, _, generator, *own = inspect.signature(define).parameters.values()
        named = [p for p in own if p.kind is inspect.Parameter.VAR_KEYWORD]
        fill.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
            shape.replace(name="self"), *(p for p in own if p not in named),
            generator.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=None), *named])
        METHODS[name] = fill
        return define

    return publish


@_in_place("uniform_", "Uniform numbers in [from, to).")
def _uniform(
    shape: Any, ir: DType, generator: Any, low: float = 0.0, high: float = 1.0, **named: Any
) -> Value:
    low, high = named.get("from", low), named.get("to", high)
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}")
    unit = uniform_value(shape, ir, generator)
    return ops.add(ops.mul(unit, scalar(float(high - low), ir)), scalar(float(low), ir))


@_in_place("normal_", "Normal numbers of a mean and standard deviation.")
def _normal(shape: Any, ir: DType, generator: Any, mean: float = 0.0, std: float = 1.0) -> Value:
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    unit = normal_value(shape, ir, generator)
    return ops.add(ops.mul(unit, scalar(float(std), ir)), scalar(float(mean), ir))


@_in_place("bernoulli_", "0 or 1, with `p` (a number or a tensor) as the probability of 1.")
def _bernoulli(shape: Any, ir: DType, generator: Any, p: Any = 0.5) -> Value:
    if isinstance(p, Tensor):
        chance = checked(p.detach(), "probability", CHANCES).expand(shape)._value()
    else:
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        real = ir if ir.is_floating_point else _types.default_dtype()
        chance = ops.expand(scalar(float(p), real), shape=tuple(shape))
    return cast_value(ops.bernoulli(chance, *_stream(generator, shape)), ir)


@_in_place("random_", "Integers in [from, to); without bounds over the range of the dtype.")
def _random(shape: Any, ir: DType, generator: Any, low: Any = None, high: Any = None, **named: Any) -> Value:
    low, high = named.get("from", low), named.get("to", high)
    if high is None:
        low, high = (0, low) if low is not None else (0, _limit(ir))
    return _integers(int(low), int(high), tuple(shape), ir, generator)


def _limit(ir: DType) -> int:
    if ir.is_bool:
        return 2
    if ir.is_integer:
        return int(np.iinfo(ir.numpy).max)
    return 1 << {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}[ir.name]


def _inverse(name: str, doc: str, parameter: str, low: float, high: float,
             transform: Callable[..., Value]) -> None:
    """A distribution by its inverse; `parameter` is a number between `low` and `high`, both excluded."""
    takes = inspect.signature(transform).parameters

    @_in_place(name, doc)
    def draw(shape: Any, ir: DType, generator: Any, *args: Any, **options: Any) -> Value:
        given = dict(zip(list(takes)[2:], args, strict=False)) | options
        number = given.get(parameter, takes[parameter].default)
        if not low < number < high:
            raise RuntimeError(f"{name} expects {parameter} to be in ({low}, {high}), but got {number}")
        unit = uniform_value(shape, ir, generator)
        return transform(ops.sub(scalar(1, ir), unit), ir, *args, **options)  # in (0, 1]


_inverse(
    "exponential_",
    "Exponential numbers of a rate.",
    "lambd", 0.0, math.inf,
    lambda u, ir, lambd=1.0: ops.div(ops.neg(ops.log(u)), scalar(float(lambd), ir)),
)
_inverse(
    "geometric_",
    "How many trials of success probability p a first success takes.",
    "p", 0.0, 1.0,
    lambda u, ir, p=0.5: ops.maximum(
        ops.ceil(ops.div(ops.log(u), scalar(float(np.log1p(-p)), ir))), scalar(1, ir)
    ),
)
_inverse(
    "cauchy_",
    "Cauchy numbers of a median and scale.",
    "sigma", 0.0, math.inf,
    lambda u, ir, median=0.0, sigma=1.0: ops.add(
        scalar(float(median), ir),
        ops.mul(
            scalar(float(sigma), ir), ops.tan(ops.mul(scalar(float(np.pi), ir), ops.sub(u, scalar(0.5, ir))))
        ),
    ),
)


@_in_place("log_normal_", "exp of normal numbers of a mean and standard deviation.")
def _log_normal(shape: Any, ir: DType, generator: Any, mean: float = 1.0, std: float = 2.0) -> Value:
    return ops.exp(_normal(shape, ir, generator, mean, std))


PUBLIC = {
    f.__name__: f
    for f in (
        manual_seed,
        seed,
        initial_seed,
        get_rng_state,
        set_rng_state,
        rand,
        randn,
        randint,
        randperm,
        normal,
        rand_like,
        randn_like,
        randint_like,
    )
}
