"""What the distributions share: broadcast parameters, and the two parametrisations of discrete
ones."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._ops.devices import chosen
from .._types import finfo, get_default_dtype
from ..autograd.grad_mode import enable_grad

__all__ = [
    "broadcast_all",
    "clamp_probs",
    "lazy_property",
    "logits_to_probs",
    "probs_to_logits",
    "tril_matrix_to_vec",
    "vec_to_tril_matrix",
]

EULER = 0.57721566490153286060


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape; numbers take dtype and device of the first
    tensor.

    Raises: ValueError where a value is neither.
    """
    if not all(isinstance(v, (Tensor, Number)) for v in values):
        raise ValueError(
            "Input arguments must all be instances of Number, torch.Tensor or objects "
            "implementing __torch_function__."
        )
    dtype, place = next(
        ((v.dtype, v.device) for v in values if isinstance(v, Tensor)),
        (get_default_dtype(), chosen()),
    )
    tensors = [
        v if isinstance(v, Tensor) else FUNCTIONS["tensor"](v, dtype=dtype, device=place)
        for v in values
    ]
    return tuple(FUNCTIONS["broadcast_tensors"](*tensors))


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept away from 0 and 1, so that their logarithms are finite."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities from log-odds (`is_binary`) or from unnormalised logarithms along the last
    dimension."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The inverse of `logits_to_probs`."""
    clamped = clamp_probs(probs)
    return clamped.log() - (-clamped).log1p() if is_binary else clamped.log()


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions."""
    return value if dims == 0 else value.reshape((*value.shape[:-dims], -1)).sum(-1)


def all_numbers(*values: Any) -> bool:
    """Whether the parameters are all Python numbers, so that the batch has no dimensions."""
    return all(isinstance(v, Number) for v in values)


def uniform(shape: Any, like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) of the dtype of `like`, on its device."""
    return FUNCTIONS["rand"](tuple(shape), dtype=like.dtype, device=like.device)  # type: ignore


def gaussian(shape: Any, like: Tensor) -> Tensor:
    """Standard normal numbers of the dtype of `like`, on its device."""
    return FUNCTIONS["randn"](tuple(shape), dtype=like.dtype, device=like.device)  # type: ignore


def above(value: Tensor, least: float) -> Tensor:
    """`value`, at least `least`, with the gradient of `value` everywhere."""
    held = value.detach()
    return value + (held.clamp(min=least) - held)


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The elements on and below a diagonal of square matrices, row by row.

    Raises: ValueError for a diagonal that the matrices do not have.
    """
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    rows, columns = zip(
        *[(i, j) for i in range(n) for j in range(min(i + diag + 1, n))], strict=True
    )
    return mat[..., list(rows), list(columns)]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of `tril_matrix_to_vec`; zeros above the diagonal.

    Raises: ValueError where no square matrix has so many elements there.
    """
    count = vec.shape[-1]
    root = ((1 + 2 * diag) ** 2 + 8 * count + 4 * abs(diag) * (diag + 1)) ** 0.5
    n = (-(1 + 2 * diag) + root) / 2
    if round(n) - n > finfo(vec.dtype).eps:
        raise ValueError(
            f"The size of last dimension is {count} which cannot be expressed as the lower "
            "triangular part of a square D x D matrix."
        )
    size = round(n) if isinstance(n, float) else n
    places = {(i, j): 0 for i in range(size) for j in range(min(i + diag + 1, size))}
    order = {place: k for k, place in enumerate(places)}
    index = [order.get((i, j), count) for i in range(size) for j in range(size)]
    padded = FUNCTIONS["cat"]([vec, vec.new_zeros((*vec.shape[:-1], 1))], -1)
    return padded[..., index].reshape((*vec.shape[:-1], size, size))


class lazy_property:
    """A property computed at its first use, then an attribute of the instance."""

    def __init__(self, wrapped: Callable[[Any], Any]):
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value
