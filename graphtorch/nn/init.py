"""Initialisation of tensors, in place and outside autograd.

Formulas: https://docs.pytorch.org/docs/stable/nn.init.html
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._settings import warn_user
from ..autograd import no_grad

_F = TypeVar("_F", bound=Callable[..., Any])
_GAINS = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
_LINEAR = (
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks the standard deviation; `param` is leaky_relu's
    slope."""
    if not isinstance(nonlinearity, str):
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, (int, float))):
            raise ValueError(f"negative_slope {param} not a valid number")
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def _outside_autograd(fill: _F) -> _F:
    @functools.wraps(fill)
    def filled(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with no_grad():
            return fill(tensor, *args, **kwargs)

    return filled  # type: ignore[return-value]


@_outside_autograd
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """U(a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@_outside_autograd
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """N(mean, std^2)."""
    return tensor.normal_(mean, std, generator=generator)


@_outside_autograd
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """N(mean, std^2) restricted to [a, b], by drawing until all numbers are inside.

    Where more than 0.3 of N(mean, std^2) is inside, its numbers are drawn; else uniform ones, which
    are taken with the probability that the density has beside its largest in [a, b].
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warn_user(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of "
            "values may be incorrect.",
        )
    low, high = ((1 + math.erf((x - mean) / std / math.sqrt(2))) / 2 for x in (a, b))
    if high - low > 0.3:
        return _normal_inside(tensor, mean, std, a, b, generator)
    return _uniform_taken(tensor, mean, std, a, b, generator)


def _normal_inside(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any
) -> Tensor:
    first, last = (float(tensor.new_tensor(x).item()) for x in (a, b))  # as the dtype has them
    made = tensor.normal_(mean, std, generator=generator).clone()
    while True:
        outside = (made < first) | (made > last)
        if not outside.any():
            return tensor.copy_(made)
        again = FUNCTIONS["empty_like"](made).normal_(mean, std, generator=generator)
        made = FUNCTIONS["where"](outside, again, made)


def _uniform_taken(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any
) -> Tensor:
    highest = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

    def drawn() -> tuple[Tensor, Tensor]:
        """Candidates, and which are refused."""
        numbers = FUNCTIONS["empty_like"](tensor).uniform_(a, b, generator=generator)
        log = ((numbers - mean) / std).pow(2) * -0.5 - highest
        return numbers, FUNCTIONS["empty_like"](tensor).uniform_(generator=generator).log() > log

    made, refused = drawn()
    while refused.any():
        again, still = drawn()
        made = FUNCTIONS["where"](refused, again, made)
        refused = FUNCTIONS["where"](refused, still, refused)
    return tensor.copy_(made)


@_outside_autograd
def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    return tensor.fill_(val)


@_outside_autograd
def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return tensor.fill_(1.0)


@_outside_autograd
def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return tensor.zero_()


@_outside_autograd
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, for 2-d tensors."""
    if tensor.dim() != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return _from_array(tensor, np.eye(*tensor.shape))


@_outside_autograd
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Convolution weights that copy channels, in each of `groups` groups; for 3-, 4- and 5-d
    tensors."""
    if tensor.dim() not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    out, into, *kernel = tensor.shape
    if out % groups:
        raise ValueError("dim 0 must be divisible by groups")
    array = np.zeros(tuple(tensor.shape))
    centre = tuple(k // 2 for k in kernel)
    each = out // groups
    for g in range(groups):
        for d in range(min(each, into)):
            array[(g * each + d, d, *centre)] = 1
    return _from_array(tensor, array)


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    out, into, *kernel = tensor.shape
    field = math.prod(kernel)
    return into * field, out * field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return fan_in if mode == "fan_in" else fan_out


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """N(0, s^2), s = gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan = _calculate_correct_fan(tensor, mode)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def _is_empty(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        warn_user("Initializing zero-element tensors is a no-op")
        return True
    return False


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """U(-b, b), b = gain sqrt(3 / fan) (He et al. 2015); `a` is leaky_relu's slope."""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """N(0, s^2), s = gain / sqrt(fan) (He et al. 2015); `a` is leaky_relu's slope."""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


@_outside_autograd
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A (semi-)orthogonal matrix from the QR decomposition of a normal one (Saxe et al. 2013)."""
    if tensor.dim() < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    flat = (
        tensor.new_empty((rows, columns))
        .normal_(0, 1, generator=generator)
        .double()
        .numpy(force=True)
    )
    q, r = np.linalg.qr(flat.T if rows < columns else flat)
    q = q * np.sign(np.diag(r))
    return _from_array(tensor, (q.T if rows < columns else q).reshape(tuple(tensor.shape)) * gain)


@_outside_autograd
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """N(0, std^2) with the share `sparsity` of each column zero; for 2-d tensors (Martens 2010)."""
    if tensor.dim() != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    tensor.normal_(0, std, generator=generator)
    mask = np.ones((rows, columns))
    for column in range(columns):  # drawn from the global generator, as PyTorch does
        mask[FUNCTIONS["randperm"](rows).numpy()[:zeros], column] = 0.0
    return tensor.mul_(_array_tensor(mask).to(tensor))


def _array_tensor(array: np.ndarray) -> Tensor:
    return FUNCTIONS["from_numpy"](np.ascontiguousarray(array))


def _from_array(tensor: Tensor, array: np.ndarray) -> Tensor:
    return tensor.copy_(_array_tensor(array))


def _deprecated(new: Callable[..., Tensor]) -> Callable[..., Tensor]:
    old = new.__name__[:-1]

    @functools.wraps(new)
    def alias(*args: Any, **kwargs: Any) -> Tensor:
        warn_user(
            f"`nn.init.{old}` is now deprecated in favor of `nn.init.{new.__name__}`.",
            FutureWarning,
        )
        return new(*args, **kwargs)

    return alias


uniform, normal, constant = _deprecated(uniform_), _deprecated(normal_), _deprecated(constant_)
eye, dirac = _deprecated(eye_), _deprecated(dirac_)
xavier_uniform, xavier_normal = _deprecated(xavier_uniform_), _deprecated(xavier_normal_)
kaiming_uniform, kaiming_normal = _deprecated(kaiming_uniform_), _deprecated(kaiming_normal_)
orthogonal, sparse = _deprecated(orthogonal_), _deprecated(sparse_)
