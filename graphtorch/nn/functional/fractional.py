"""Fractional max pooling (https://arxiv.org/abs/1412.6071): windows of one size at random
distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphtorch.ir.shape import numel

from ..._deferred.tensor import Tensor
from ..._ops.autocast import single_precision_on_cpus
from ..._ops.base import FUNCTIONS
from ...autograd.keeps import keeps_as_one
from ._common import batched, floating, tuple_of

__all__ = [
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]


@keeps_as_one("input")
@single_precision_on_cpus
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Largest element of windows of `kernel_size` over [N, C, H, W] or [C, H, W], chosen at random.

    The windows of a channel are `output_size` many a dim (or `output_ratio` times the input's
    size); their distances differ by at most one and follow from `_random_samples` [N, C, 2] in [0,
    1), for width and height, drawn where it is None.

    Returns:
        The maxima, and with `return_indices` also their flat positions in H x W.

    Raises:
        ValueError, RuntimeError: sizes do not fit.
    """
    return _pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


@keeps_as_one("input")
@single_precision_on_cpus
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """`fractional_max_pool2d` over [N, C, D, H, W] or [C, D, H, W]; `_random_samples` [N, C, 3] is
    for depth, height and width.
    """
    return _pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool2d_with_indices(*args: Any, **kwargs: Any) -> Any:
    """`fractional_max_pool2d` with ``return_indices=True``."""
    return fractional_max_pool2d(*args, **{**kwargs, "return_indices": True})


def fractional_max_pool3d_with_indices(*args: Any, **kwargs: Any) -> Any:
    """`fractional_max_pool3d` with ``return_indices=True``."""
    return fractional_max_pool3d(*args, **{**kwargs, "return_indices": True})


def _pool(
    n: int,
    x: Tensor,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    return_indices: bool,
    samples: Tensor | None,
) -> Any:
    name = f"fractional_max_pool{n}d"
    out = _output_size(name, n, x, output_size, output_ratio)
    floating(x, name)
    if x.dim() not in (n + 1, n + 2):
        kind = IndexError if samples is None else RuntimeError
        raise kind(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {list(x.shape)}")
    if 0 in x.shape[-n - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, but "
            f"got {list(x.shape)}"
        )
    kernel = tuple_of(kernel_size, n, "kernel_size")
    for size, k, o in zip(x.shape[-n:], kernel, out, strict=True):
        if o + k - 1 > size:
            raise RuntimeError(
                f"{name}(): pool size {k} too large relative to input size {size} for an "
                f"output of size {o}"
            )
    batch, unbatch = batched(x, n)
    if samples is None:
        samples = FUNCTIONS["rand"]((*batch.shape[:2], n), dtype=x.dtype, device=x.device)
    _check_samples(samples, batch, n)
    values, places = _largest(batch, _windows(batch, samples, kernel, out), out)
    return (unbatch(values), unbatch(places)) if return_indices else unbatch(values)


def _output_size(
    name: str, n: int, x: Tensor, output_size: Any, output_ratio: Any
) -> tuple[int, ...]:
    if output_size is not None:
        return tuple_of(output_size, n, "output_size")
    if output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    ratios = output_ratio if isinstance(output_ratio, Sequence) else (output_ratio,) * n
    if len(ratios) != n:
        raise ValueError(
            f"{name} requires output_ratio to either be a single Int or tuple of Ints: got "
            f"{output_ratio}."
        )
    return tuple(int(size * ratio) for size, ratio in zip(x.shape[-n:], ratios, strict=True))


def _check_samples(samples: Tensor, x: Tensor, n: int) -> None:
    if not isinstance(samples, Tensor):
        raise TypeError(f"argument '_random_samples' must be Tensor, not {type(samples).__name__}")
    if samples.dtype != x.dtype:
        raise RuntimeError(
            f"Expect _random_samples to have the same dtype as input, got {samples.dtype} and "
            f"{x.dtype}"
        )
    if samples.dim() != 3:
        raise RuntimeError(f"Expect _random_samples to have 3 dimensions, got {samples.dim()}")
    if samples.shape[0] < x.shape[0] or samples.shape[1] != x.shape[1] or samples.shape[2] != n:
        raise RuntimeError(
            f"Expect _random_samples of shape {[*x.shape[:2], n]}, got {list(samples.shape)}"
        )


def _windows(x: Tensor, samples: Tensor, kernel: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
    """[N, C, positions, elements]: where in the flat image each element of each window lies."""
    n = len(kernel)
    spatial = tuple(x.shape[-n:])
    lead = tuple(x.shape[:2])
    flat: Any = 0
    for axis, (size, k, o) in enumerate(zip(spatial, kernel, out, strict=True)):
        # the first is for the width in 2-d, for the depth in 3-d
        which = n - 1 - axis if n == 2 else axis
        start = _starts(samples[: lead[0], :, which], size, k, o)
        inside = start.unsqueeze(-1) + FUNCTIONS["arange"](k, device=x.device)
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = o, k
        flat = flat + inside.reshape((*lead, *shape)) * math.prod(spatial[axis + 1 :])
    return flat.reshape((*lead, math.prod(out), math.prod(kernel)))


def _starts(u: Tensor, size: int, kernel: int, out: int) -> Tensor:
    """[N, C, out]: int((i + u) a) - int(u a) with a = (size - kernel) / (out - 1); the last fits
    the end."""
    u = u.unsqueeze(-1)
    last = FUNCTIONS["full"]((*u.shape[:2], min(out, 1)), size - kernel, device=u.device)
    if out < 2:
        return last
    step = (size - kernel) / (out - 1)
    i = FUNCTIONS["arange"](out - 1, device=u.device).to(u.dtype)
    first = ((i + u) * step).trunc() - (u * step).trunc()
    return FUNCTIONS["cat"]([first.long(), last], -1)


def _largest(x: Tensor, places: Tensor, out: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The maxima of windows, and where in the image they are."""
    lead, shape = tuple(x.shape[:2]), (*x.shape[:2], *out)
    flat = x.reshape((*lead, numel(x.shape[2:])))
    every = places.reshape((*lead, numel(places.shape[2:])))
    elements = flat.detach().gather(-1, every).reshape(places.shape)
    winner = places.gather(-1, elements.argmax(-1, keepdim=True)).squeeze(-1)
    return flat.gather(-1, winner).reshape(shape), winner.reshape(shape)
