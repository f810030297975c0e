"""Activation functions. Formulas: https://docs.pytorch.org/docs/stable/nn.functional.html"""

from __future__ import annotations

from typing import Any

from graphtorch.ir.dtype import Kind

from ..._deferred.making import beside
from ..._deferred.tensor import Tensor
from ..._ops.autocast import lower_precision, single_precision_on_gpus
from ..._ops.base import FUNCTIONS, rounded_once
from ..._random import draw
from ..._settings import warn_user
from ...autograd.keeps import keeps, keeps_as_one, shown_as
from ._common import call, constant_like, floating, in_place, where

__all__ = [
    "celu",
    "celu_",
    "elu",
    "elu_",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rrelu",
    "rrelu_",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "threshold_",
]

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), elementwise; any real dtype."""
    kind = input._type.dtype.kind
    if kind is Kind.COMPLEX:
        raise RuntimeError(f"relu is not supported for complex dtypes, got {input.dtype}")
    if kind is Kind.BOOL:
        raise RuntimeError("Boolean inputs not supported for relu")
    result = call("relu", input)
    return in_place(input, result, inplace) if inplace else result


def relu_(input: Tensor) -> Tensor:
    """`relu` in place."""
    return relu(input, inplace=True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """x cut to [min_val, max_val]. Raises ValueError where min_val > max_val."""
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, got {min_val} and {max_val}")
    if input.dtype.is_floating_point:
        out = call("hardtanh", input, low=float(min_val), high=float(max_val))
    else:
        out = input.clamp(int(min_val), int(max_val))
    return in_place(input, out, inplace)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh` in place."""
    return hardtanh(input, min_val, max_val, inplace=True)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha (exp(x) - 1)."""
    return in_place(input, _elu(input, "elu", alpha, 1.0, 1.0), inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu` in place."""
    return elu(input, alpha, inplace=True)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha) with the self-normalising constants
    (https://arxiv.org/abs/1706.02515)."""
    return in_place(input, _elu(input, "selu", SELU_ALPHA, SELU_SCALE, 1.0), inplace)


def selu_(input: Tensor) -> Tensor:
    """`selu` in place."""
    return selu(input, inplace=True)


@shown_as("Celu")
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha (exp(x / alpha) - 1)."""
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return in_place(input, _elu(input, "celu", alpha, 1.0, 1.0 / alpha), inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu` in place."""
    return celu(input, alpha, inplace=True)


@keeps("Elu", (0,))
def _elu(x: Tensor, name: str, alpha: float, scale: float, input_scale: float) -> Tensor:
    return call(
        "elu",
        floating(x, name),
        alpha=float(alpha),
        scale=float(scale),
        input_scale=float(input_scale),
    )


@keeps("LeakyRelu", (0,))
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x."""
    out = call("leaky_relu", floating(input, "leaky_relu"), slope=float(negative_slope))
    return in_place(input, out, inplace)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu` in place."""
    return leaky_relu(input, negative_slope, inplace=True)


@shown_as("PreluKernel")
@keeps_as_one("input weight")
@lower_precision
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x >= 0, else weight * x; weight has one element, or one for each channel (dim 1)."""
    if input.dtype != weight.dtype:
        raise RuntimeError(
            f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}"
        )
    if weight.numel() != 1:
        if input.dim() == 0:
            raise RuntimeError("Not allow zero-dim input tensor.")
        channels = input.shape[1] if input.dim() >= 2 else 1
        if channels != weight.numel():
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter "
                f"numbers = {weight.numel()} and channel size = {channels}."
            )
    if weight.dim() > 1:
        raise RuntimeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.dim()}"
        )
    spread = (
        weight.reshape((-1, *[1] * max(input.dim() - 2, 0)))
        if input.dim() > 1
        else weight.reshape(())
    )
    return where(input > 0, input, input * spread)


@keeps_as_one("input")
def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """`leaky_relu` with slopes drawn from U(lower, upper) in training, and their mean otherwise."""
    if lower > upper:
        raise RuntimeError(
            f"Lower bound should be less than or equal to the upper bound, got {lower} and {upper}"
        )
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    below = ~(floating(input, "rrelu").detach() > 0)  # only for these slopes are drawn
    source = draw.source(draw.source_beside(input, None))
    drawn = source.draw("where", draw.OPERANDS, below._value())
    slope = beside(input, drawn) * (upper - lower) + lower
    return in_place(input, where(below, input * slope.to(input.dtype), input), inplace)


def rrelu_(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False
) -> Tensor:
    """`rrelu` in place."""
    return rrelu(input, lower, upper, training, inplace=True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x), or with `approximate` "tanh" 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"approximate argument must be either none or tanh, got {approximate!r}")
    return call("gelu", floating(input, "GeluKernelImpl"), approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x sigmoid(x)."""
    if input.dtype.is_complex:
        return in_place(input, input * input.sigmoid(), inplace)
    return in_place(input, call("silu", floating(input, "silu_cpu")), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x))."""
    return in_place(input, call("mish", floating(input, "mish_cpu")), inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return in_place(input, call("hardsigmoid", floating(input, "hardsigmoid_cpu")), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6."""
    return in_place(input, call("hardswish", floating(input, "hardswish_cpu")), inplace)


@single_precision_on_gpus
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""
    return call(
        "softplus", floating(input, "softplus_cpu"), beta=float(beta), threshold=float(threshold)
    )


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return call("log_sigmoid", floating(input, "log_sigmoid_cpu"))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return call("softsign", input) if input.dtype.is_floating_point else input / (input.abs() + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - input.tanh()


@keeps_as_one("input")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0 (NaN stays)."""
    inside = (input >= -lambd).logical_and(input <= lambd)
    return where(inside, constant_like(input, 0), floating(input, "hardshrink_cpu"))


@keeps_as_one("input")
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    x = floating(input, "softshrink_cpu")
    return where(x > lambd, x - lambd, where(x < -lambd, x + lambd, x * 0))


@shown_as("Threshold")
@keeps_as_one("input")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value."""
    return in_place(input, where(input <= threshold, constant_like(input, value), input), inplace)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold` in place."""
    return in_place(input, where(input <= threshold, constant_like(input, value), input), True)


@shown_as("Glu")
@rounded_once
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a sigmoid(b), where a and b are the halves of `input` along `dim`."""
    if input.dim() == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    size = input.shape[_wrapped(dim, input.dim())]
    if size % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {size}")
    return input.narrow(dim, 0, size // 2) * sigmoid(input.narrow(dim, size // 2, size // 2))


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return input.tanh()


@single_precision_on_gpus
def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`; `dtype` casts the input first."""
    return _soft("softmax", input, dim, dtype)


@single_precision_on_gpus
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """log(softmax(x)) along `dim`; `dtype` casts the input first."""
    return _soft("log_softmax", input, dim, dtype)


@single_precision_on_gpus
def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """softmax(-x) along `dim`."""
    return _soft("softmin", -input, dim, dtype)


def _soft(name: str, x: Tensor, dim: int | None, dtype: Any) -> Tensor:
    if isinstance(dim, bool):
        raise TypeError(f"{name}(): argument 'dim' (position 1) must be int, not bool")
    if dim is None:
        warn_user(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
            "dim=X as an argument.",
        )
        dim = 0 if x.dim() in (0, 1, 3) else 1
    x = x if dtype is None else x.to(dtype)
    axis = _wrapped(dim, x.dim())
    x = floating(x, f"{name}_lastdim_kernel_impl")
    op = "log_softmax" if name == "log_softmax" else "softmax"
    return call(op, x.reshape(1), dim=0).reshape(()) if x.dim() == 0 else call(op, x, dim=axis)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A sample of the Gumbel-softmax distribution along `dim`; `hard` rounds it to one-hot while
    the gradient stays that of the soft sample (https://arxiv.org/abs/1611.00712)."""
    waits = FUNCTIONS["empty"](
        tuple(logits.shape), dtype=logits.dtype, device=logits.device
    ).exponential_()
    soft = softmax((logits - waits.log()) / tau, dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, keepdim=True)
    one_hot = (soft.detach() * 0).scatter(dim, index, 1.0)
    return one_hot - soft.detach() + soft


def _wrapped(dim: int, rank: int) -> int:
    limit = max(rank, 1)
    if not -limit <= dim < limit:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], "
            f"but got {dim})"
        )
    return dim % limit
