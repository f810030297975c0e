"""What the function families share: calling IR ops on tensors, argument forms, masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ir import ops

from ..._deferred.tensor import Tensor
from ..._deferred.write import assign, forget_target
from ..._ops.base import FUNCTIONS, run

_GRAD_NAMES = {
    "conv": "Convolution",
    "conv_transpose": "Convolution",
    "batch_norm": "NativeBatchNorm",
    "batch_norm_train": "NativeBatchNorm",
    "layer_norm": "NativeLayerNorm",
    "group_norm": "NativeGroupNorm",
    "hardtanh": "Hardtanh",
    "cross_entropy": "NllLoss",
    "max_pool": "MaxPoolWithIndices",
}


@functools.cache
def _grad_name(op: str) -> str:
    return _GRAD_NAMES.get(op) or "".join(part.capitalize() for part in op.split("_"))


def call(name: str, *tensors: Tensor, **attrs: Any) -> Any:
    """Apply the IR op `name` to tensors: its result, or a tuple of them, with the gradient
    recorded."""
    for i, x in enumerate(tensors, 1):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}(): argument {i} must be Tensor, not {type(x).__name__}")
    return run(_grad_name(name), getattr(ops, name), *tensors, **attrs)


def where(condition: Tensor, a: Any, b: Any) -> Tensor:
    """a where `condition` holds, else b; tensors or numbers, broadcast."""
    return FUNCTIONS["where"](condition, a, b)


def cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate along `dim`."""
    return call("concat", *tensors, dim=dim)


def in_place(target: Tensor, result: Tensor, inplace: bool) -> Tensor:
    """`result`, which a function made of `target` alone, written into it where `inplace` asks for
    it."""
    if not inplace or result is target:
        return result
    forget_target(target, result)
    return assign(target, result, updates=True)


def floating(x: Tensor, kernel: str) -> Tensor:
    """`x` if it is floating-point (or complex), else PyTorch's error for the kernel."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{kernel}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}"
        )
    if not (x.dtype.is_floating_point or x.dtype.is_complex):
        raise NotImplementedError(
            f'"{kernel}" not implemented for {x.dtype}: convert it with .float()'
        )
    return x


def same_dtype(name: str, *tensors: Tensor | None) -> None:
    """Raise RuntimeError where the tensors' dtypes differ, TypeError where one is no tensor."""
    for i, t in enumerate(tensors):
        # only what follows the weight is optional
        if not isinstance(t, Tensor) and (t is not None or i < 2):
            raise TypeError(
                f"{name}(): argument (position {i + 1}) must be Tensor, not {type(t).__name__}"
            )
    given = [t for t in tensors if t is not None]
    if any(t.dtype is not given[0].dtype for t in given):
        raise RuntimeError(
            f"{name}: expected all tensors to have the same dtype, but got "
            f"{', '.join(str(t.dtype) for t in given)}: cast one with .to(...)"
        )


def constant_like(x: Tensor, value: float) -> Any:
    """The number `value` in the category of x's dtype, for `where`: it does not change the result's
    dtype."""
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return float(value)
    return bool(value) if x.dtype.name == "bool" else int(value)


def tuple_of(given: Any, count: int, name: str) -> tuple[int, ...]:
    """`count` ints from one int or a sequence of one or `count` ints."""
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,) * count
    if not isinstance(given, (tuple, list)):
        raise TypeError(
            f"{name} must be int or a tuple of {count} ints, not {type(given).__name__}"
        )
    if len(given) not in (1, count):
        raise RuntimeError(
            f"{name} should be a single integer or a tuple of {count} integers, but got {given}"
        )
    values = tuple(given) * (count if len(given) == 1 else 1)
    for v in values:
        if not hasattr(v, "__index__"):
            raise TypeError(
                f"{name} must be a tuple of ints, but found element of type {type(v).__name__}"
            )
    return tuple(v.__index__() for v in values)


def batched(x: Tensor, spatial: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`x` as [N, C, *S], and a function that takes the batch dim off a result again if it was
    added."""
    if x.dim() == spatial + 2:
        return x, lambda result: result
    return x.unsqueeze(0), lambda result: result.squeeze(0)


def vector_norm(x: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    """(sum |x|^p)^(1/p) along `dim`."""
    return x.norm(p, dim, keepdim)


__all__ = [
    "batched",
    "call",
    "cat",
    "constant_like",
    "floating",
    "in_place",
    "same_dtype",
    "tuple_of",
    "vector_norm",
    "where",
]
