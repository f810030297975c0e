"""Convolution and its two gradients, which differentiate into one another.

All three come from one trilinear form,

    T(x, w, g) = sum x[n, c, o*stride + k*dilation - low] w[f, c, k] g[n, f, o]

`conv` is dT/dg, `conv_transpose` is dT/dx and `conv_weight_grad` is dT/dw. So the gradients of each
are the other two, with the cotangent in the place of the operand that the op does not read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..dataclass import dataclass
from ..dtype import i64
from ..graph import Node, Type, Value
from ..op import Attrs, Kind, Op, Weight
from ..shape import Dim, Shape, bounds
from .batching import Mapped, Values, merged, parted, wholes
from .checks import attrs_of, ints, listed, surely_less
from .common import FLOATING, check_domain, check_same_dtype, conj, ops, wide
from .shape import slice_dim
from .timing import conv_ns, conv_transpose_ns, conv_weight_grad_ns

__all__ = ["conv", "conv_transpose", "conv_weight_grad"]

Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ConvAttrs(Attrs):
    """stride, dilation and padding (zeros before, zeros after) per spatial dimension."""

    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class ConvTransposeAttrs(Attrs):
    """As ConvAttrs; output_padding is added to the result's size at its end."""

    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[Dim, ...]


@dataclass(frozen=True)
class ConvWeightGradAttrs(Attrs):
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1


AnyConvAttrs = ConvAttrs | ConvTransposeAttrs | ConvWeightGradAttrs


# shapes -------------------------------------------------------------------------------------------


def _check_attrs(name: str, attrs: AnyConvAttrs, x: Type, kernel: Shape) -> None:
    """The attributes' lengths and ranges, for this kernel's spatial dimensions."""
    rank = len(kernel)
    if rank < 1 or x.rank != rank + 2:
        raise RuntimeError(
            f"{name}: expected an input [N, C, *S] of {rank + 2} dimensions for {rank} spatial "
            f"ones, but got shape {listed(x.shape)}"
        )
    for field in ("stride", "padding", "dilation"):
        value = getattr(attrs, field)
        if len(value) != rank:
            raise RuntimeError(
                f"{name}: expected {field} to be a list of {rank} values to match the convolution "
                f"dimensions, but got {field}={list(value)}"
            )
    if any(surely_less(k, 1) for k in kernel):
        raise RuntimeError(
            f"{name}: kernel size should be greater than zero, but got {listed(kernel)}"
        )
    if min(attrs.stride) < 1:
        raise RuntimeError(
            f"{name}: non-positive stride is not supported: stride={list(attrs.stride)}"
        )
    if min(attrs.dilation) < 1:
        raise RuntimeError(
            f"{name}: dilation should be greater than zero, but got {list(attrs.dilation)}"
        )
    if min(min(p) for p in attrs.padding) < 0:
        raise RuntimeError(
            f"{name}: negative padding is not supported: padding={list(attrs.padding)}"
        )
    if attrs.groups < 1:
        raise RuntimeError(
            f"{name}: expected groups to be greater than 0, but got groups={attrs.groups}"
        )


def _reach(kernel: Sequence[Dim], attrs: AnyConvAttrs) -> tuple[Dim, ...]:
    """Distance from the first to the last position a kernel covers."""
    return tuple(d * (k - 1) for k, d in zip(kernel, attrs.dilation, strict=True))


def _out_size(name: str, spatial: Shape, kernel: Sequence[Dim], attrs: AnyConvAttrs) -> Shape:
    padded = tuple(s + low + high for s, (low, high) in zip(spatial, attrs.padding, strict=True))
    rooms = [s - reach - 1 for s, reach in zip(padded, _reach(kernel, attrs), strict=True)]
    if any(surely_less(room, 0) for room in rooms):
        covered = " x ".join(str(r + 1) for r in _reach(kernel, attrs))
        raise RuntimeError(
            f"{name}: Calculated padded input size per channel: ({' x '.join(map(str, padded))}). "
            f"Kernel size: ({covered}). Kernel size can't be greater than actual input size"
        )
    return tuple(room // stride + 1 for room, stride in zip(rooms, attrs.stride, strict=True))


def _check_bias(w: Type, channels: Dim, bias: tuple[Type, ...]) -> None:
    for b in bias:
        if b.shape != (channels,):
            raise RuntimeError(
                f"Given weight of size {listed(w.shape)}, expected bias to be 1-dimensional with "
                f"{channels} elements, but got bias of size {listed(b.shape)} instead"
            )


def _divides(groups: int, channels: Dim) -> bool:
    return channels % groups == 0


def _check_dtype(name: str, x: Type) -> None:
    """As PyTorch on CPUs: i64 is the only integer type."""
    if x.dtype is not i64:
        check_domain(name, x, FLOATING)


def _conv_infer(attrs: ConvAttrs, x: Type, w: Type, *bias: Type) -> tuple[Type, ...]:
    _check_dtype("conv", x)
    check_same_dtype("conv", x, w, *bias)
    _check_attrs("conv", attrs, x, w.shape[2:])
    if not _divides(attrs.groups, w.shape[0]):
        raise RuntimeError(
            f"Given groups={attrs.groups}, expected weight to be divisible by {attrs.groups} at "
            f"dimension 0, but got weight of size {listed(w.shape)} instead"
        )
    if x.shape[1] != w.shape[1] * attrs.groups:
        raise RuntimeError(
            f"Given groups={attrs.groups}, weight of size {listed(w.shape)}, expected input"
            f"{listed(x.shape)} to have {w.shape[1] * attrs.groups} channels, but got {x.shape[1]} "
            "channels instead"
        )
    _check_bias(w, w.shape[0], bias)
    return (
        x.with_shape((x.shape[0], w.shape[0], *_out_size("conv", x.shape[2:], w.shape[2:], attrs))),
    )


def _transposed_size(x: Type, w: Type, attrs: AnyConvAttrs) -> Shape:
    """Spatial size of a transposed convolution without output padding."""
    reach = _reach(w.shape[2:], attrs)
    return tuple(
        (size - 1) * stride - low - high + r + 1
        for size, stride, (low, high), r in zip(
            x.shape[2:], attrs.stride, attrs.padding, reach, strict=True
        )
    )


def _check_output_padding(attrs: ConvTransposeAttrs, rank: int) -> None:
    if len(attrs.output_padding) != rank:
        raise RuntimeError(
            f"conv_transpose: expected output_padding to be a list of {rank} values, but got "
            f"{list(attrs.output_padding)}"
        )
    for extra, stride, dilation in zip(
        attrs.output_padding, attrs.stride, attrs.dilation, strict=True
    ):
        if surely_less(extra, 0):
            raise RuntimeError(
                f"negative output_padding is not supported: {list(attrs.output_padding)}"
            )
        if surely_less(max(stride, dilation) - 1, extra):
            raise RuntimeError(
                "output padding must be smaller than either stride or dilation, but got "
                f"output_padding {list(attrs.output_padding)}, stride {list(attrs.stride)} and "
                f"dilation {list(attrs.dilation)}"
            )


def _conv_transpose_infer(
    attrs: ConvTransposeAttrs, x: Type, w: Type, *bias: Type
) -> tuple[Type, ...]:
    _check_dtype("conv_transpose", x)
    check_same_dtype("conv_transpose", x, w, *bias)
    _check_attrs("conv_transpose", attrs, x, w.shape[2:])
    _check_output_padding(attrs, w.rank - 2)
    if x.shape[1] != w.shape[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {listed(w.shape)}, expected "
            f"input{listed(x.shape)} to have {w.shape[0]} channels, but got {x.shape[1]} channels "
            "instead"
        )
    if not _divides(attrs.groups, w.shape[0]):
        raise RuntimeError(
            f"conv_transpose: {w.shape[0]} input channels are not divisible by "
            f"groups={attrs.groups}"
        )
    if any(surely_less(size, 1) for size in x.shape[2:]):
        raise RuntimeError(
            f"conv_transpose: Expected non-zero spatial dimensions, but got input {listed(x.shape)}"
        )
    channels = w.shape[1] * attrs.groups
    _check_bias(w, channels, bias)
    plain = _transposed_size(x, w, attrs)
    spatial = tuple(size + extra for size, extra in zip(plain, attrs.output_padding, strict=True))
    if any(bounds(size)[1] <= 0 for size in spatial):
        raise RuntimeError(
            f"conv_transpose: Given input size {listed(x.shape)} and weight {listed(w.shape)}, the "
            f"calculated output size {listed(spatial)} is too small"
        )
    return (x.with_shape((x.shape[0], channels, *spatial)),)


def _conv_weight_grad_infer(attrs: ConvWeightGradAttrs, x: Type, g: Type) -> tuple[Type, ...]:
    check_domain("conv_weight_grad", x, FLOATING)
    check_same_dtype("conv_weight_grad", x, g)
    _check_attrs("conv_weight_grad", attrs, x, attrs.kernel)
    expected = _out_size("conv_weight_grad", x.shape[2:], attrs.kernel, attrs)
    if g.rank != x.rank or (g.shape[0], *g.shape[2:]) != (x.shape[0], *expected):
        raise RuntimeError(
            f"conv_weight_grad: input {listed(x.shape)} and kernel {list(attrs.kernel)} make an "
            f"output [{x.shape[0]}, O, {', '.join(map(str, expected))}], but g has shape "
            f"{listed(g.shape)}"
        )
    if not (_divides(attrs.groups, x.shape[1]) and _divides(attrs.groups, g.shape[1])):
        raise RuntimeError(
            f"conv_weight_grad: {x.shape[1]} and {g.shape[1]} channels are not both divisible by "
            f"groups={attrs.groups}"
        )
    return (x.with_shape((g.shape[1], x.shape[1] // attrs.groups, *attrs.kernel)),)


# gradients ----------------------------------------------------------------------------------------


def _place(attrs: AnyConvAttrs) -> dict[str, object]:
    return {
        "stride": attrs.stride,
        "padding": attrs.padding,
        "dilation": attrs.dilation,
        "groups": attrs.groups,
    }


def _input_gradient(attrs: AnyConvAttrs, g: Value, w: Value, x: Value) -> Value:
    """dT/dx with the shape of `x`: where the stride does not divide, the last positions of x are
    not read."""
    plain = _transposed_size(g.type, w.type, attrs)
    extra = tuple(size - p for size, p in zip(x.shape[2:], plain, strict=True))
    return ops.conv_transpose(g, conj(w), **_place(attrs), output_padding=extra)


def _weight_gradient(attrs: AnyConvAttrs, x: Value, g: Value, w: Value) -> Value:
    return ops.conv_weight_grad(conj(x), g, kernel=w.shape[2:], **_place(attrs))


def _bias_gradient(node: Node, g: Value) -> tuple[Value, ...]:
    dims = (0, *range(2, g.rank))
    return (ops.sum(g, dims=dims, keepdim=False),) if len(node.operands) == 3 else ()


def _conv_vjp(node: Node, g: Value) -> tuple[Value, ...]:
    x, w = node.operands[:2]
    attrs = attrs_of(node, ConvAttrs)
    return (
        _input_gradient(attrs, g, w, x),
        _weight_gradient(attrs, x, g, w),
        *_bias_gradient(node, g),
    )


def _without_spare(attrs: ConvTransposeAttrs, g: Value) -> tuple[Value, dict[str, object]]:
    """`g` and the attributes of the conv that reads it at exactly the positions of x.

    Output padding of a whole stride or more would give that conv more outputs than x has positions.
    As far as it undoes high padding it is taken off that padding; beyond it nothing but the bias
    was written, and those elements are cut off. (A symbolic output padding is a remainder, less
    than the stride.)
    """
    place, padding = _place(attrs), list(attrs.padding)
    for i, (extra, stride) in enumerate(zip(attrs.output_padding, attrs.stride, strict=True)):
        if isinstance(extra, int) and extra >= stride:
            low, high = padding[i]
            padding[i] = (low, max(high - extra, 0))
            spare = max(extra - high, 0)
            g = slice_dim(g, i + 2, 0, g.shape[i + 2] - spare + spare % stride)
    return g, {**place, "padding": tuple(padding)}


def _conv_transpose_vjp(node: Node, g: Value) -> tuple[Value, ...]:
    x, w = node.operands[:2]
    read, place = _without_spare(attrs_of(node, ConvTransposeAttrs), g)
    gw = ops.conv_weight_grad(read, conj(x), kernel=w.shape[2:], **place)
    return (ops.conv(read, conj(w), **place), gw, *_bias_gradient(node, g))


def _conv_weight_grad_vjp(node: Node, g: Value) -> tuple[Value, Value]:
    x, out = node.operands
    attrs = attrs_of(node, ConvWeightGradAttrs)
    return _input_gradient(attrs, conj(out), conj(g), x), ops.conv(conj(x), g, **_place(attrs))


# entries ------------------------------------------------------------------------------------------


def _grouped(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """A convolution of each entry with filters of its own: entries are groups."""
    if not isinstance(size, int):
        raise RuntimeError(
            f"{node.op.name}: vmap over filters needs a batch of known size, but got {size}: do "
            "not mark that dimension as dynamic"
        )
    axes = {"x": 1, "g": 1, "w": 0, "b": 0}
    names = [name.removesuffix("?") for name in node.op.operands]
    operands = tuple(
        [
            merged(v, axes[name])
            for v, name in zip(wholes(values, mapped, size), names, strict=False)
        ]
    )
    attrs: Any = node.attrs
    made = node.op.node(operands, replace(attrs, groups=attrs.groups * size)).result()
    return (parted(made, 0 if node.op is conv_weight_grad else 1, size, node.types[0].shape),)


def _conv_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Of images alone more images; also of `conv_transpose`."""
    if any(mapped[1:]):
        return _filters(node, values, mapped, size)
    made = node.op.node((merged(values[0], 0), *values[1:]), node.attrs).result()
    return (parted(made, 0, size, node.types[0].shape),)


def _filters(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Of filters of one image more filters, where these all read all channels."""
    attrs: Any = node.attrs
    if mapped[0] or attrs.groups != 1 or node.op is conv_transpose:
        return _grouped(node, values, mapped, size)
    filters = tuple([merged(v, 0) for v in wholes(values[1:], mapped[1:], size)])
    made = ops.conv.node((values[0], *filters), attrs).result()
    return (parted(made, 1, size, node.types[0].shape),)


def _conv_weight_grad_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    if mapped[0] or attrs_of(node, ConvWeightGradAttrs).groups != 1:
        return _grouped(node, values, mapped, size)
    made = ops.conv_weight_grad.node((values[0], merged(values[1], 1)), node.attrs).result()
    return (parted(made, 0, size, node.types[0].shape),)


# references ---------------------------------------------------------------------------------------


def _places(padded: Sequence[int], kernel: Sequence[int], attrs: AnyConvAttrs) -> list[int]:
    """How many places a kernel has along each axis of a padded input."""
    return [
        (s - r - 1) // step + 1
        for s, r, step in zip(padded, ints(_reach(kernel, attrs)), attrs.stride, strict=True)
    ]


def _windows(x: np.ndarray, kernel: Sequence[int], attrs: AnyConvAttrs) -> np.ndarray:
    """A view [N, G, C/G, *O, *K] of the zero-padded input: every kernel position at every
    output."""
    x = np.pad(x, [(0, 0), (0, 0), *attrs.padding])
    out = _places(x.shape[2:], kernel, attrs)
    x = x.reshape(x.shape[0], attrs.groups, x.shape[1] // attrs.groups, *x.shape[2:])
    strides = x.strides[3:]
    moves = [s * step for s, step in zip(strides, attrs.stride, strict=True)]
    taps = [s * step for s, step in zip(strides, attrs.dilation, strict=True)]
    return as_strided(
        x, (*x.shape[:3], *out, *kernel), (*x.strides[:3], *moves, *taps), writeable=False
    )


def _columns(windows: np.ndarray, rank: int) -> np.ndarray:
    """The windows as matrices [G, N*O, C/G*K], one row an output position."""
    axes = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    moved = windows.transpose(axes)
    rows, columns = math.prod(moved.shape[1 : 2 + rank]), math.prod(moved.shape[2 + rank :])
    return moved.reshape(moved.shape[0], rows, columns)


def _with_bias(y: np.ndarray, bias: tuple[np.ndarray, ...], dtype: np.dtype) -> np.ndarray:
    for b in bias:
        y = y + wide(b).reshape(-1, *[1] * (y.ndim - 2))
    return y.astype(dtype)


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _depthwise(attrs: ConvAttrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """`conv` of one channel a group, a tap at a time: a product of matrices for each group takes
    NumPy many times as long."""
    kernel = w.shape[2:]
    padded = _channels_last(np.pad(x, [(0, 0), (0, 0), *attrs.padding]))[..., None]
    out = _places(padded.shape[1:-2], kernel, attrs)
    y = np.zeros((x.shape[0], *out, attrs.groups, w.shape[0] // attrs.groups), x.dtype)
    filters = w.reshape(*y.shape[-2:], *kernel)
    for tap in _taps(kernel):
        y += padded[_under(tap, attrs, out)] * filters[_at(tap)]
    return np.moveaxis(y.reshape(*y.shape[:-2], w.shape[0]), -1, 1)


def _under(tap: Sequence[int], attrs: AnyConvAttrs, out: Sequence[int]) -> tuple[slice, ...]:
    """What of [N, *S, ...] a tap meets: [N, *O, ...]."""
    starts = [k * d for k, d in zip(tap, attrs.dilation, strict=True)]
    return slice(None), *_every(starts, attrs.stride, out)


def _conv_reference(
    attrs: ConvAttrs, x: np.ndarray, w: np.ndarray, *bias: np.ndarray
) -> np.ndarray:
    if attrs.groups > 1 and w.shape[1] == 1:
        return _with_bias(_depthwise(attrs, wide(x), wide(w)), bias, x.dtype)
    kernel, rank = w.shape[2:], x.ndim - 2
    windows = _windows(wide(x), kernel, attrs)
    out = windows.shape[3 : 3 + rank]
    filters = wide(w).reshape(attrs.groups, w.shape[0] // attrs.groups, math.prod(w.shape[1:]))
    y = _columns(windows, rank) @ filters.transpose(0, 2, 1)
    y = y.reshape(attrs.groups, x.shape[0], *out, filters.shape[1])
    y = np.moveaxis(y, (1, 0, -1), (0, 1, 2)).reshape(x.shape[0], w.shape[0], *out)
    return _with_bias(y, bias, x.dtype)


def _taps(kernel: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, kernel))


def _at(tap: Sequence[int]) -> Any:
    """The index of a tap in [..., *K]."""
    return (..., *tap)


def _every(starts: Sequence[int], steps: Sequence[int], counts: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(a, a + (n - 1) * s + 1, s) for a, s, n in zip(starts, steps, counts, strict=True)
    )


def _conv_transpose_reference(
    attrs: ConvTransposeAttrs, x: np.ndarray, w: np.ndarray, *bias: np.ndarray
) -> np.ndarray:
    """Each input position adds its copy of the kernel to the result; the padding is cut off at the
    end."""
    kernel, groups = w.shape[2:], attrs.groups
    reach = ints(_reach(kernel, attrs))
    whole = [
        (s - 1) * step + r + 1 + extra
        for s, step, r, extra in zip(
            x.shape[2:], attrs.stride, reach, ints(attrs.output_padding), strict=True
        )
    ]
    kept: Any = (
        ...,
        *(slice(low, size - high) for (low, high), size in zip(attrs.padding, whole, strict=True)),
    )
    if w.shape[0] == groups > 1:
        y = _depthwise_transpose(attrs, wide(x), wide(w), whole)
        return _with_bias(y[kept], bias, x.dtype)
    a = wide(x).reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    b = wide(w).reshape(groups, w.shape[0] // groups, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, w.shape[1], *whole), a.dtype)
    taps = list(_taps(kernel))
    # one product for all taps: [G, K*O, C/G] with [N, G, C/G, S]
    filters = np.moveaxis(b.reshape(*b.shape[:3], len(taps)), 1, -1).transpose(0, 2, 1, 3)
    filters = filters.reshape(groups, len(taps) * w.shape[1], a.shape[2])
    products = filters @ a.reshape(*a.shape[:3], math.prod(a.shape[3:]))
    products = products.reshape(x.shape[0], groups, len(taps), w.shape[1], *x.shape[2:])
    for i, tap in enumerate(taps):
        starts = [k * d for k, d in zip(tap, attrs.dilation, strict=True)]
        where: Any = (..., *_every(starts, attrs.stride, x.shape[2:]))
        y[where] += products[:, :, i]
    y = y.reshape(x.shape[0], groups * w.shape[1], *whole)[kept]
    return _with_bias(y, bias, x.dtype)


def _depthwise_transpose(
    attrs: ConvTransposeAttrs, x: np.ndarray, w: np.ndarray, whole: Sequence[int]
) -> np.ndarray:
    """`conv_transpose` of one channel a group, with its padding: [N, O, *whole]."""
    y = np.zeros((x.shape[0], *whole, *w.shape[:2]), x.dtype)
    a = _channels_last(x)[..., None]
    for tap in _taps(w.shape[2:]):
        y[_under(tap, attrs, x.shape[2:])] += a * w[_at(tap)]
    return np.moveaxis(y.reshape(*y.shape[:-2], w.shape[0] * w.shape[1]), -1, 1)


def _depthwise_weight_grad(attrs: ConvWeightGradAttrs, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """`conv_weight_grad` of one channel a group: [O, 1, *K]."""
    padded = _channels_last(np.pad(x, [(0, 0), (0, 0), *attrs.padding]))
    out, kept = g.shape[2:], math.prod((g.shape[0], *g.shape[2:]))
    outputs = _channels_last(g).reshape(kept, attrs.groups, g.shape[1] // attrs.groups)
    grad = np.empty((*outputs.shape[1:], *attrs.kernel), x.dtype)
    for tap in _taps(attrs.kernel):
        met = padded[_under(tap, attrs, out)].reshape(kept, attrs.groups, 1)
        grad[_at(tap)] = (met * outputs).sum(0)
    return grad.reshape(g.shape[1], 1, *attrs.kernel)


def _conv_weight_grad_reference(
    attrs: ConvWeightGradAttrs, x: np.ndarray, g: np.ndarray
) -> np.ndarray:
    if x.shape[1] == attrs.groups > 1:
        return _depthwise_weight_grad(attrs, wide(x), wide(g)).astype(x.dtype)
    groups, rank = attrs.groups, x.ndim - 2
    columns = _columns(_windows(wide(x), attrs.kernel, attrs), rank)
    outputs = wide(g).reshape(g.shape[0], groups, g.shape[1] // groups, math.prod(g.shape[2:]))
    rows = outputs.transpose(1, 2, 0, 3).reshape(groups, g.shape[1] // groups, columns.shape[1])
    return (rows @ columns).reshape(g.shape[1], x.shape[1] // groups, *attrs.kernel).astype(x.dtype)


conv = Op(
    "conv",
    "Cross-correlation of x [N, C, *S] with filters w [O, C/groups, *K], plus b [O].",
    ("x", "w", "b?"),
    attrs=ConvAttrs,
    infer=_conv_infer,
    vjp=_conv_vjp,
    reference=_conv_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=conv_ns,
    batch=_conv_batch,
)
conv_transpose = Op(
    "conv_transpose",
    "The transpose of conv as a map of its input: x [N, C, *S], w [C, O/groups, *K], b [O].",
    ("x", "w", "b?"),
    attrs=ConvTransposeAttrs,
    infer=_conv_transpose_infer,
    vjp=_conv_transpose_vjp,
    reference=_conv_transpose_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=conv_transpose_ns,
    batch=_conv_batch,
)
conv_weight_grad = Op(
    "conv_weight_grad",
    "The transpose of conv as a map of its filters: x [N, C, *S], g [N, O, *S'].",
    ("x", "g"),
    attrs=ConvWeightGradAttrs,
    infer=_conv_weight_grad_infer,
    vjp=_conv_weight_grad_vjp,
    reference=_conv_weight_grad_reference,
    kind=Kind.CONTRACTION,
    weight=Weight.CONTRACTION,
    reference_ns=conv_weight_grad_ns,
    batch=_conv_weight_grad_batch,
)
