"""Pooling over windows, and its gradients.

A window of a pool starts at ``o*stride - padding``. Positions outside the input count as -inf for a
maximum; for a mean they are zeros whose number counts or not (`count_include_pad`). In `ceil_mode`
a last, partial window is added where it starts inside the input or its left padding. The rules are
those of https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html and AvgPool2d.html.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..dtype import i64
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..shape import Dim, Shape, numel
from .batching import folding
from .checks import attrs_of, ints, listed, surely_less
from .common import REAL, REAL_FLOATING, check_domain, ops, wide, zeros

__all__ = [
    "adaptive_avg_pool",
    "adaptive_avg_pool_grad",
    "adaptive_max_pool",
    "avg_pool",
    "avg_pool_grad",
    "max_pool",
    "max_pool_grad",
    "max_pool_input_grad",
]


@dataclass(frozen=True)
class MaxPoolAttrs(Attrs):
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False


@dataclass(frozen=True)
class SpatialAttrs(Attrs):
    """spatial: the sizes of the pool's input, which its gradient has again."""

    spatial: tuple[Dim, ...]


@dataclass(frozen=True)
class MaxPoolGradAttrs(Attrs):
    """spatial: the sizes of the pool's input. The others are the pool's, each of whose indices lies
    in its window; a pool that has no such windows (an adaptive one) has none of them."""

    spatial: tuple[Dim, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


@dataclass(frozen=True)
class AvgPoolAttrs(Attrs):
    """divisor: what every window's sum is divided by; None divides by the number of elements."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None


@dataclass(frozen=True)
class AvgPoolGradAttrs(Attrs):
    spatial: tuple[Dim, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None


@dataclass(frozen=True)
class AdaptiveAttrs(Attrs):
    output_size: tuple[int, ...]


PoolAttrs = MaxPoolAttrs | AvgPoolAttrs | AvgPoolGradAttrs


# shapes -------------------------------------------------------------------------------------------


def _dilation(attrs: PoolAttrs) -> tuple[int, ...]:
    return attrs.dilation if isinstance(attrs, MaxPoolAttrs) else (1,) * len(attrs.kernel)


def _check_rank(name: str, shape: Shape, rank: int) -> None:
    if rank < 1 or len(shape) != rank + 2:
        raise RuntimeError(
            f"{name}: expected an input [N, C, *S] of {rank + 2} dimensions for {rank} spatial "
            f"ones, but got shape {listed(shape)}: add a batch dimension or give one size per "
            "dimension"
        )
    if any(size == 0 for size in shape[2:]):
        raise RuntimeError(
            f"{name}: Expected input to have non-zero size for non-batch dimensions, but got "
            f"{listed(shape)}"
        )


def _check_window(name: str, attrs: PoolAttrs) -> None:
    for field in ("stride", "padding"):
        if len(getattr(attrs, field)) != len(attrs.kernel):
            raise RuntimeError(
                f"{name}: {field} must have one value for each of the {len(attrs.kernel)} spatial "
                f"dimensions, but got {list(getattr(attrs, field))}"
            )
    if len(_dilation(attrs)) != len(attrs.kernel) or min(_dilation(attrs)) < 1:
        raise RuntimeError(
            f"{name}: dilation should be greater than zero, one value for each of the "
            f"{len(attrs.kernel)} spatial dimensions, but got {list(_dilation(attrs))}"
        )
    if min(attrs.kernel) < 1:
        raise RuntimeError(
            f"{name}: kernel size should be greater than zero, but got {list(attrs.kernel)}"
        )
    if min(attrs.stride) < 1:
        raise RuntimeError(
            f"{name}: stride should be greater than zero, but got {list(attrs.stride)}"
        )
    for kernel, padding in zip(attrs.kernel, attrs.padding, strict=True):
        if not 0 <= padding <= kernel // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of kernel size and not negative, but got "
                f"pad={padding} and kernel_size={kernel}"
            )
    if getattr(attrs, "divisor", None) == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")


def _pooled(name: str, shape: Shape, attrs: PoolAttrs) -> Shape:
    """The shape of the pool of an input of `shape`.

    In ceil mode the last window must fit after rounding up, and must start before the input's end.
    Both limits are ``(size + c) // stride + 1``, so the smaller c decides, for symbolic sizes too.
    """
    _check_rank(name, shape, len(attrs.kernel))
    _check_window(name, attrs)
    out: list[Dim] = []
    for size, k, step, pad, dil in zip(
        shape[2:], attrs.kernel, attrs.stride, attrs.padding, _dilation(attrs), strict=True
    ):
        room = 2 * pad - dil * (k - 1) - 1
        if attrs.ceil_mode:
            room = min(room + step - 1, pad - 1)
        out.append((size + room) // step + 1)
    if any(surely_less(size, 1) for size in out):
        raise RuntimeError(
            f"Given input size: ({'x'.join(map(str, shape[1:]))}). Calculated output size: "
            f"({'x'.join(map(str, (shape[1], *out)))}). Output size is too small"
        )
    return (*shape[:2], *out)


# max pool -----------------------------------------------------------------------------------------


def _max_pool_infer(attrs: MaxPoolAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("max_pool", x, REAL)
    shape = _pooled("max_pool", x.shape, attrs)
    return x.with_shape(shape), Type(i64, shape)


def _max_pool_vjp(node: Node, g: Value | None, _: Value | None = None) -> tuple[Value | None]:
    """Also of adaptive_max_pool: the indices say all that has to be known."""
    if g is None:
        return (None,)
    window = _max_window(node.attrs) if isinstance(node.attrs, MaxPoolAttrs) else {}
    return (ops.max_pool_grad(g, node.result(1), spatial=node.operands[0].shape[2:], **window),)


def _max_window(attrs: MaxPoolAttrs | MaxPoolGradAttrs) -> dict[str, tuple[int, ...]]:
    """The fields that the gradient of a max pool has as well."""
    names = ("kernel", "stride", "padding", "dilation")
    return {name: getattr(attrs, name) for name in names}


def _lowest(dtype: np.dtype) -> Any:
    return np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else -np.inf


def _at(spatial: Sequence[Any]) -> Any:
    """The subscript of an array [N, C, *S] at spatial positions."""
    return (..., *spatial)


Tap = tuple[tuple[np.ndarray, ...], np.ndarray]


def _taps(x: np.ndarray, attrs: PoolAttrs, out: Sequence[int]) -> Iterator[Tap]:
    """For each kernel element, in order: its positions per spatial dimension (the nearest ones
    inside the input), and which of them are inside."""
    for tap in itertools.product(*map(range, attrs.kernel)):
        lines = [
            np.arange(o) * step - pad + k * dil
            for o, step, pad, k, dil in zip(
                out, attrs.stride, attrs.padding, tap, _dilation(attrs), strict=True
            )
        ]
        positions = np.ix_(*lines)
        inside = np.ones((), bool)
        for line, size in zip(positions, x.shape[2:], strict=True):
            inside = inside & (line >= 0) & (line < size)
        near = tuple(
            np.clip(p, 0, size - 1) for p, size in zip(positions, x.shape[2:], strict=True)
        )
        yield near, inside


def _max_pool_reference(attrs: MaxPoolAttrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scans the kernel as PyTorch does: a greater element replaces the best one, and so does a NaN.

    A dilated window may lie wholly in the padding: its maximum is -inf, its position 0.
    """
    x_wide, spatial = wide(x), x.shape[2:]
    shape = ints(_pooled("max_pool", x.shape, attrs))
    best = np.full(shape, _lowest(x_wide.dtype), x_wide.dtype)
    where = np.full(shape, -1, np.int64)
    for near, inside in _taps(x, attrs, shape[2:]):
        found = x_wide[_at(near)]
        flat = np.ravel_multi_index(np.broadcast_arrays(*near), spatial)
        taken = inside & ((found > best) | (found != found) | (where < 0))
        best, where = np.where(taken, found, best), np.where(taken, flat, where)
    return best.astype(x.dtype), np.maximum(where, 0)


max_pool = Op(
    "max_pool",
    "The maximum of each window of x [N, C, *S], and its position in the flattened S (the first of "
    "equal ones; NaN counts as greatest, the last NaN stays).",
    ("x",),
    attrs=MaxPoolAttrs,
    infer=_max_pool_infer,
    vjp=_max_pool_vjp,
    reference=_max_pool_reference,
    kind=Kind.WINDOW,
    weight=Weight.COSTLY,
    batch=folding(0),
)


def _max_pool_grad_infer(attrs: MaxPoolGradAttrs, g: Type, indices: Type) -> tuple[Type, ...]:
    if indices.dtype is not i64 or indices.shape != g.shape:
        raise RuntimeError(
            f"max_pool_grad: expected i64 indices of shape {listed(g.shape)}, but got {indices}"
        )
    _check_rank("max_pool_grad", (*g.shape[:2], *attrs.spatial), g.rank - 2)
    if any(len(field) not in (0, g.rank - 2) for field in _max_window(attrs).values()):
        raise RuntimeError(
            f"max_pool_grad: expected windows of {g.rank - 2} dimensions or none, but got "
            f"{_max_window(attrs)}"
        )
    return (g.with_shape((*g.shape[:2], *attrs.spatial)),)


def _flat_spatial(x: Value) -> Value:
    return ops.reshape(x, shape=(*x.shape[:2], numel(x.shape[2:])))


def _max_pool_grad_vjp(node: Node, g: Value) -> tuple[Value, None]:
    _, indices = node.operands
    found = ops.gather(_flat_spatial(g), _flat_spatial(indices), dim=2)
    return ops.reshape(found, shape=indices.shape), None


def _max_pool_grad_decompose(node: Node) -> tuple[Value]:
    g, indices = node.operands
    flat = g.type.with_shape((*g.shape[:2], numel(attrs_of(node, MaxPoolGradAttrs).spatial)))
    total = ops.scatter_add(zeros(flat), _flat_spatial(indices), _flat_spatial(g), dim=2)
    return (ops.reshape(total, shape=node.types[0].shape),)


def _max_pool_grad_reference(
    attrs: MaxPoolGradAttrs, g: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    planes, size = math.prod(g.shape[:2]), math.prod(ints(attrs.spatial))
    bad = (indices < 0) | (indices >= size)
    if bad.any():
        raise IndexError(
            f"max_pool_grad: index {indices[bad].flat[0]} is out of bounds for {size} positions"
        )
    where = indices.reshape(planes, -1) + np.arange(planes)[:, None] * size if planes else indices
    total = np.bincount(where.ravel(), wide(g).ravel(), minlength=planes * size)
    return total.reshape(*g.shape[:2], *attrs.spatial).astype(g.dtype)


max_pool_grad = Op(
    "max_pool_grad",
    "Adds each g [N, C, *O] to the position in the flat spatial sizes that indices name.",
    ("g", "indices"),
    attrs=MaxPoolGradAttrs,
    infer=_max_pool_grad_infer,
    vjp=_max_pool_grad_vjp,
    decompose=_max_pool_grad_decompose,
    reference=_max_pool_grad_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    raises=True,
    batch=folding(0),
)


@dataclass(frozen=True)
class WindowAttrs(Attrs):
    """Windows without padding, dilation or partial windows."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]


def _pool_of(attrs: WindowAttrs) -> MaxPoolAttrs:
    rank = len(attrs.kernel)
    return MaxPoolAttrs(attrs.kernel, attrs.stride, (0,) * rank, (1,) * rank)


def _max_pool_input_grad_infer(attrs: WindowAttrs, g: Type, x: Type) -> tuple[Type, ...]:
    values, _ = _max_pool_infer(_pool_of(attrs), x)
    if any(s < k for s, k in zip(attrs.stride, attrs.kernel, strict=True)):
        raise RuntimeError(
            f"max_pool_input_grad: windows must not overlap, but got kernel {list(attrs.kernel)} "
            f"and stride {list(attrs.stride)}: use max_pool_grad"
        )
    if g != values:
        raise RuntimeError(f"max_pool_input_grad: the pool of {x} is {values}, but got g {g}")
    return (x,)


def _max_pool_input_grad_decompose(node: Node) -> tuple[Value]:
    g, x = node.operands
    pool = _pool_of(attrs_of(node, WindowAttrs))
    _, indices = ops.max_pool(
        x,
        kernel=pool.kernel,
        stride=pool.stride,
        padding=pool.padding,
        dilation=pool.dilation,
        ceil_mode=False,
    )
    return (ops.max_pool_grad(g, indices, spatial=x.shape[2:], **_max_window(pool)),)


def _max_pool_input_grad_reference(attrs: WindowAttrs, g: np.ndarray, x: np.ndarray) -> np.ndarray:
    _, indices = _max_pool_reference(_pool_of(attrs), x)
    return _max_pool_grad_reference(MaxPoolGradAttrs(x.shape[2:]), g, indices)


max_pool_input_grad = Op(
    "max_pool_input_grad",
    "The gradient of a max pool of x [N, C, *S] whose windows do not overlap: each g [N, C, *O] at "
    "the position of its window's maximum, zeros elsewhere.",
    ("g", "x"),
    attrs=WindowAttrs,
    infer=_max_pool_input_grad_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_max_pool_input_grad_decompose,
    reference=_max_pool_input_grad_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=folding(0),
)


# average pool -------------------------------------------------------------------------------------


def _avg_pool_infer(attrs: AvgPoolAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("avg_pool", x, REAL_FLOATING)
    return (x.with_shape(_pooled("avg_pool", x.shape, attrs)),)


def _window_fields(attrs: AvgPoolAttrs | AvgPoolGradAttrs) -> dict[str, Any]:
    names = ("kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor")
    return {name: getattr(attrs, name) for name in names}


def _avg_pool_vjp(node: Node, g: Value) -> tuple[Value]:
    return (
        ops.avg_pool_grad(
            g, spatial=node.operands[0].shape[2:], **_window_fields(attrs_of(node, AvgPoolAttrs))
        ),
    )


AvgAttrs = AvgPoolAttrs | AvgPoolGradAttrs


def _divisors(attrs: AvgAttrs, spatial: Sequence[int], out: Sequence[int]) -> np.ndarray:
    """What each window's sum is divided by, of shape `out`."""
    total = np.ones((), np.int64)
    for size, o, k, step, pad in zip(
        spatial, out, attrs.kernel, attrs.stride, attrs.padding, strict=True
    ):
        start = np.arange(o) * step - pad
        # a partial window of ceil mode ends with the padding
        stop = np.minimum(start + k, size + pad)
        if not attrs.count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size)
        total = np.multiply.outer(total, np.maximum(stop - start, 1))
    return total if attrs.divisor is None else np.full_like(total, attrs.divisor)


def _avg_pool_reference(attrs: AvgPoolAttrs, x: np.ndarray) -> np.ndarray:
    shape = ints(_pooled("avg_pool", x.shape, attrs))
    a = wide(x)
    total = np.zeros(shape, a.dtype)
    for near, inside in _taps(x, attrs, shape[2:]):
        total += np.where(inside, a[_at(near)], 0)
    return (total / _divisors(attrs, x.shape[2:], shape[2:]).astype(a.dtype)).astype(x.dtype)


avg_pool = Op(
    "avg_pool",
    "The mean of each window of x [N, C, *S].",
    ("x",),
    attrs=AvgPoolAttrs,
    infer=_avg_pool_infer,
    vjp=_avg_pool_vjp,
    reference=_avg_pool_reference,
    kind=Kind.WINDOW,
    weight=Weight.PLAIN,
    batch=folding(0),
)


def _avg_pool_grad_infer(attrs: AvgPoolGradAttrs, g: Type) -> tuple[Type, ...]:
    check_domain("avg_pool_grad", g, REAL_FLOATING)
    shape = (*g.shape[:2], *attrs.spatial)
    expected = _pooled("avg_pool_grad", shape, attrs)
    if g.shape != expected:
        raise RuntimeError(
            f"avg_pool_grad: the pool of {listed(shape)} has shape {listed(expected)}, but g has "
            f"{listed(g.shape)}"
        )
    return (g.with_shape(shape),)


def _avg_pool_grad_reference(attrs: AvgPoolGradAttrs, g: np.ndarray) -> np.ndarray:
    """Adds each window's share to a padded input, then cuts the padding off."""
    out, spatial = g.shape[2:], ints(attrs.spatial)
    share = wide(g) / _divisors(attrs, spatial, out).astype(wide(g).dtype)
    wholes = [
        max(p + s, (o - 1) * step + k)
        for p, s, o, step, k in zip(
            attrs.padding, spatial, out, attrs.stride, attrs.kernel, strict=True
        )
    ]
    total = np.zeros((*g.shape[:2], *wholes), share.dtype)
    for tap in itertools.product(*map(range, attrs.kernel)):
        lines = [
            slice(k, k + (o - 1) * step + 1, step)
            for k, o, step in zip(tap, out, attrs.stride, strict=True)
        ]
        total[_at(lines)] += share
    kept = [slice(p, p + s) for p, s in zip(attrs.padding, spatial, strict=True)]
    return total[_at(kept)].astype(g.dtype)


avg_pool_grad = Op(
    "avg_pool_grad",
    "The transpose of avg_pool: each g [N, C, *O] spread over its window.",
    ("g",),
    attrs=AvgPoolGradAttrs,
    infer=_avg_pool_grad_infer,
    vjp=lambda node, c: (ops.avg_pool(c, **_window_fields(node.attrs)),),
    reference=_avg_pool_grad_reference,
    kind=Kind.WINDOW,
    weight=Weight.PLAIN,
    batch=folding(0),
)


# adaptive pools -----------------------------------------------------------------------------------


def _adaptive_shape(name: str, attrs: AdaptiveAttrs, x: Type) -> Shape:
    _check_rank(name, x.shape, len(attrs.output_size))
    if min(attrs.output_size) < 0:
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0, but got "
            f"{list(attrs.output_size)}"
        )
    return (*x.shape[:2], *attrs.output_size)


def adaptive_window(index: int, size: int, out: int) -> tuple[int, int]:
    """First position and end of window `index` of `out` over `size` positions."""
    return index * size // out, -(-(index + 1) * size // out)


def _adaptive_avg_infer(attrs: AdaptiveAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("adaptive_avg_pool", x, REAL_FLOATING)
    return (x.with_shape(_adaptive_shape("adaptive_avg_pool", attrs, x)),)


def _adaptive_avg_reference(attrs: AdaptiveAttrs, x: np.ndarray) -> np.ndarray:
    """A box's mean is the mean of means, dimension by dimension."""
    y = wide(x)
    for axis, out in enumerate(attrs.output_size, start=2):
        size, shape = y.shape[axis], list(y.shape)
        shape[axis] = out
        line, result = np.moveaxis(y, axis, 0), np.empty(shape, y.dtype)
        for i in range(out):
            start, stop = adaptive_window(i, size, out)
            np.moveaxis(result, axis, 0)[i] = line[start:stop].mean(0)
        y = result
    return y.astype(x.dtype)


adaptive_avg_pool = Op(
    "adaptive_avg_pool",
    "Means of windows floor(i*I/O) .. ceil((i+1)*I/O), whose number is given.",
    ("x",),
    attrs=AdaptiveAttrs,
    infer=_adaptive_avg_infer,
    vjp=lambda node, g: (ops.adaptive_avg_pool_grad(g, spatial=node.operands[0].shape[2:]),),
    reference=_adaptive_avg_reference,
    kind=Kind.WINDOW,
    weight=Weight.PLAIN,
    batch=folding(0),
)


def _adaptive_avg_grad_infer(attrs: SpatialAttrs, g: Type) -> tuple[Type, ...]:
    check_domain("adaptive_avg_pool_grad", g, REAL_FLOATING)
    shape = (*g.shape[:2], *attrs.spatial)
    _check_rank("adaptive_avg_pool_grad", shape, g.rank - 2)
    if not all(isinstance(d, int) for d in g.shape[2:]):
        raise RuntimeError(
            "adaptive_avg_pool_grad: the pool's output sizes are fixed, but g has "
            f"{listed(g.shape)}"
        )
    return (g.with_shape(shape),)


def _adaptive_avg_grad_reference(attrs: SpatialAttrs, g: np.ndarray) -> np.ndarray:
    y = wide(g)
    for axis, size in enumerate(ints(attrs.spatial), start=2):
        out, shape = y.shape[axis], list(y.shape)
        shape[axis] = size
        line, result = np.moveaxis(y, axis, 0), np.zeros(shape, y.dtype)
        for i in range(out):
            start, stop = adaptive_window(i, size, out)
            np.moveaxis(result, axis, 0)[start:stop] += line[i] / (stop - start)
        y = result
    return y.astype(g.dtype)


adaptive_avg_pool_grad = Op(
    "adaptive_avg_pool_grad",
    "The transpose of adaptive_avg_pool: g spread over its windows.",
    ("g",),
    attrs=SpatialAttrs,
    infer=_adaptive_avg_grad_infer,
    vjp=lambda node, c: (ops.adaptive_avg_pool(c, output_size=node.operands[0].shape[2:]),),
    reference=_adaptive_avg_grad_reference,
    kind=Kind.WINDOW,
    weight=Weight.PLAIN,
    batch=folding(0),
)


def _adaptive_max_infer(attrs: AdaptiveAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("adaptive_max_pool", x, REAL)
    shape = _adaptive_shape("adaptive_max_pool", attrs, x)
    return x.with_shape(shape), Type(i64, shape)


def _adaptive_max_reference(attrs: AdaptiveAttrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spatial = x.shape[2:]
    shape = (*x.shape[:2], *attrs.output_size)
    values, indices = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    numbers = np.arange(math.prod(spatial)).reshape(spatial)
    for at in itertools.product(*map(range, attrs.output_size)):
        ends = [
            adaptive_window(i, s, o) for i, s, o in zip(at, spatial, attrs.output_size, strict=True)
        ]
        box = tuple(slice(*e) for e in ends)
        found = (
            wide(x)[_at(box)].reshape(*x.shape[:2], -1) if x.size else np.empty((*x.shape[:2], 1))
        )
        pick = _first_greatest(found)
        indices[_at(at)] = numbers[box].ravel()[pick]
        values[_at(at)] = np.take_along_axis(found, pick[..., None], -1)[..., 0]
    return values, indices


def _first_greatest(rows: np.ndarray) -> np.ndarray:
    """Position of each row's maximum, as PyTorch scans: the first of equal ones, but the last
    NaN."""
    nan = rows != rows
    last_nan = rows.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1)
    return np.where(nan.any(-1), last_nan, np.argmax(rows, axis=-1))


adaptive_max_pool = Op(
    "adaptive_max_pool",
    "Maxima of windows floor(i*I/O) .. ceil((i+1)*I/O); their flat positions.",
    ("x",),
    attrs=AdaptiveAttrs,
    infer=_adaptive_max_infer,
    vjp=_max_pool_vjp,
    reference=_adaptive_max_reference,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=folding(0),
)
