"""Softmax and normalisation. 16-bit floats are computed in f32 and rounded once, at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..dataclass import dataclass
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..passes.batch import through_decomposition
from ..shape import Dim, numel
from .batching import Mapped, Values, along, merged, parted, wholes
from .checks import attrs_of, check_axis, listed
from .common import (
    REAL_FLOATING,
    Expr,
    added,
    cast_to,
    check_domain,
    check_same_dtype,
    count,
    fn,
    ops,
    quiet,
    sum_to,
    wide,
    wide_dtype,
)
from .shape import DimAttrs

__all__ = [
    "batch_norm",
    "batch_norm_train",
    "group_norm",
    "layer_norm",
    "log_softmax",
    "rms_norm",
    "softmax",
]


def _widened(value: Value) -> Expr:
    return Expr(cast_to(value, wide_dtype(value.dtype)))


def _narrowed(result: Expr, like: Value) -> Value:
    return cast_to(result.value, like.dtype)


# softmax ------------------------------------------------------------------------------------------


def _softmax_infer(attrs: DimAttrs, x: Type) -> tuple[Type, ...]:
    check_domain("softmax", x, REAL_FLOATING)
    check_axis(attrs.dim, x, "softmax")
    return (x,)


def _sum_along(node: Node, x: Expr) -> Expr:
    return fn.sum(x, dims=(attrs_of(node, DimAttrs).dim,), keepdim=True)


def _softmax_vjp(node: Node, g: Value) -> tuple[Value]:
    y, g_wide = _widened(node.result()), _widened(g)
    total = _sum_along(node, g_wide * y)
    return (_narrowed(y * (g_wide - total), g),)


def _log_softmax_vjp(node: Node, g: Value) -> tuple[Value]:
    y, g_wide = _widened(node.result()), _widened(g)
    total = _sum_along(node, g_wide)
    return (_narrowed(g_wide - fn.exp(y) * total, g),)


def _below_maximum(node: Node) -> Expr:
    """x minus its maximum, which keeps exp from overflowing."""
    x = _widened(node.operands[0])
    return x - fn.max(x, dims=(attrs_of(node, DimAttrs).dim,), keepdim=True)


def _softmax_decompose(node: Node) -> tuple[Value]:
    (x,) = node.operands
    if x.shape[attrs_of(node, DimAttrs).dim] == 0:  # nothing to take a maximum of
        return (x,)
    e = fn.exp(_below_maximum(node))
    # one division a row: within an ULP of one an element, which takes as long as the exponential
    return (_narrowed(e * fn.reciprocal(_sum_along(node, e)), x),)


def _log_softmax_decompose(node: Node) -> tuple[Value]:
    (x,) = node.operands
    if x.shape[attrs_of(node, DimAttrs).dim] == 0:
        return (x,)
    below = _below_maximum(node)
    return (_narrowed(below - fn.log(_sum_along(node, fn.exp(below))), x),)


@quiet
def _softmax_reference(attrs: DimAttrs, x: np.ndarray) -> np.ndarray:
    a = wide(x)
    e = np.exp(a - a.max(attrs.dim, keepdims=True, initial=-np.inf))
    return (e / e.sum(attrs.dim, keepdims=True)).astype(x.dtype)


@quiet
def _log_softmax_reference(attrs: DimAttrs, x: np.ndarray) -> np.ndarray:
    a = wide(x)
    a = a - a.max(attrs.dim, keepdims=True, initial=-np.inf)
    return (a - np.log(np.exp(a).sum(attrs.dim, keepdims=True))).astype(x.dtype)


softmax = Op(
    "softmax",
    "exp(x) / sum(exp(x)) along dim.",
    ("x",),
    attrs=DimAttrs,
    infer=_softmax_infer,
    vjp=_softmax_vjp,
    decompose=_softmax_decompose,
    reference=_softmax_reference,
    kind=Kind.WHOLE,
    weight=Weight.SLOW,
    batch=along("dim"),
)
log_softmax = Op(
    "log_softmax",
    "x - log(sum(exp(x))) along dim.",
    ("x",),
    attrs=DimAttrs,
    infer=_softmax_infer,
    vjp=_log_softmax_vjp,
    decompose=_log_softmax_decompose,
    reference=_log_softmax_reference,
    kind=Kind.WHOLE,
    weight=Weight.SLOW,
    batch=along("dim"),
)


# layer norm, RMS norm -----------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerNormAttrs(Attrs):
    """axes: how many trailing dimensions are normalised together."""

    axes: int
    eps: float = 1e-5


def _layer_norm_infer(attrs: LayerNormAttrs, x: Type, *affine: Type) -> tuple[Type, ...]:
    check_domain("layer_norm", x, REAL_FLOATING)
    check_same_dtype("layer_norm", x, *affine)
    if not 1 <= attrs.axes <= x.rank:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional and at most of the input's "
            f"rank, but got {attrs.axes} trailing dimensions of input {listed(x.shape)}"
        )
    normalized = x.shape[-attrs.axes :]
    for name, t in zip(("weight", "bias"), affine, strict=False):
        if t.shape != normalized:
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{listed(t.shape)} and normalized_shape = {listed(normalized)}"
            )
    return (x,)


def _last(axes: int, rank: int) -> tuple[int, ...]:
    return tuple(range(rank - axes, rank))


def _normalized(x: Expr, dims: Sequence[int], eps: float, centre: bool) -> tuple[Expr, Expr]:
    """(x - mean) / deviation, and 1 / deviation; without `centre` the mean counts as 0."""
    if centre:
        x = x - fn.mean(x, dims=tuple(dims), keepdim=True)
    rstd = fn.rsqrt(fn.mean(x * x, dims=tuple(dims), keepdim=True) + eps)
    return x * rstd, rstd


def _norm_decompose(node: Node, centre: bool) -> tuple[Value]:
    x, *affine = node.operands
    attrs = attrs_of(node, LayerNormAttrs)
    y, _ = _normalized(_widened(x), _last(attrs.axes, x.rank), attrs.eps, centre)
    if affine:
        y = y * _widened(affine[0])
    if len(affine) == 2:
        y = y + _widened(affine[1])
    return (_narrowed(y, x),)


def _through_norm(g: Expr, y: Expr, rstd: Expr, dims: tuple[int, ...], centre: bool) -> Expr:
    """The gradient of x where `g` arrives at y = (x - mean) * rstd, less what changes mean and
    deviation."""
    moved = g - y * fn.mean(g * y, dims=dims, keepdim=True)
    if centre:
        moved = moved - fn.mean(g, dims=dims, keepdim=True)
    return rstd * moved


def _norm_vjp(node: Node, g: Value, centre: bool) -> tuple[Value, ...]:
    x, *affine = node.operands
    attrs = attrs_of(node, LayerNormAttrs)
    dims = _last(attrs.axes, x.rank)
    y, rstd = _normalized(_widened(x), dims, attrs.eps, centre)
    arrived = _widened(g)
    scaled = arrived * _widened(affine[0]) if affine else arrived
    gx = _through_norm(scaled, y, rstd, dims, centre)
    g_affine = [
        sum_to(e.value, p.shape) for e, p in zip((arrived * y, arrived), affine, strict=False)
    ]
    return _narrowed(gx, x), *(cast_to(p, x.dtype) for p in g_affine)


def _norm_reference(
    attrs: LayerNormAttrs, x: np.ndarray, affine: tuple[np.ndarray, ...], centre: bool
) -> np.ndarray:
    a, dims = wide(x), _last(attrs.axes, x.ndim)
    if a.size and centre:
        a = a - a.mean(dims, keepdims=True)
    y = a / np.sqrt(np.square(a).mean(dims, keepdims=True) + attrs.eps) if a.size else a
    if affine:
        y = y * wide(affine[0])
    if len(affine) == 2:
        y = y + wide(affine[1])
    return y.astype(x.dtype)


def _norm_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    if any(mapped[1:]):
        return through_decomposition(node, values, mapped, size)
    return node.op.node(values, node.attrs).results()


layer_norm = Op(
    "layer_norm",
    "(x - mean) / sqrt(biased variance + eps) over the trailing dimensions, times w, plus b.",
    ("x", "w?", "b?"),
    attrs=LayerNormAttrs,
    infer=_layer_norm_infer,
    vjp=lambda node, g: _norm_vjp(node, g, centre=True),
    decompose=lambda node: _norm_decompose(node, centre=True),
    reference=quiet(lambda attrs, x, *affine: _norm_reference(attrs, x, affine, centre=True)),
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=_norm_batch,
)
rms_norm = Op(
    "rms_norm",
    "x / sqrt(mean of squares + eps) over the trailing dimensions, times w.",
    ("x", "w?"),
    attrs=LayerNormAttrs,
    infer=_layer_norm_infer,
    vjp=lambda node, g: _norm_vjp(node, g, centre=False),
    decompose=lambda node: _norm_decompose(node, centre=False),
    reference=quiet(lambda attrs, x, *affine: _norm_reference(attrs, x, affine, centre=False)),
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=_norm_batch,
)


# batch norm ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpsAttrs(Attrs):
    eps: float = 1e-5


def _check_channels(name: str, x: Type, **parameters: Type) -> None:
    check_domain(name, x, REAL_FLOATING)
    check_same_dtype(name, x, *parameters.values())
    if x.rank < 2:
        raise RuntimeError(
            f"{name}: expected at least 2 dimensions [N, C, *S], but got shape {listed(x.shape)}"
        )
    for parameter, t in parameters.items():
        if t.shape != (x.shape[1],):
            raise RuntimeError(
                f"{parameter} should contain {x.shape[1]} elements not {t.numel}: {name} got "
                f"{listed(t.shape)} for input {listed(x.shape)}"
            )


def _channels_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Entries are further channels: dimension 1 of x, the only one of statistics and parameters."""
    x, *rest = wholes(values, mapped, size)
    made = node.op.node((merged(x, 1), *(merged(v, 0) for v in rest)), node.attrs).results()
    axes = [1 if t.rank > 1 else 0 for t in node.types]
    return tuple(
        [parted(y, a, size, t.shape) for y, a, t in zip(made, axes, node.types, strict=True)]
    )


def _samples_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Entries of x alone are further samples."""
    made = node.op.node((merged(values[0], 0), *values[1:]), node.attrs).result()
    return (parted(made, 0, size, node.types[0].shape),)


def _batch_norm_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    return (_channels_batch if any(mapped[1:]) else _samples_batch)(node, values, mapped, size)


def _group_norm_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    return (through_decomposition if any(mapped[1:]) else _samples_batch)(
        node, values, mapped, size
    )


def _batch_norm_infer(attrs: EpsAttrs, x: Type, *rest: Type) -> tuple[Type, ...]:
    names = ("running_mean", "running_var", "weight", "bias")
    _check_channels("batch_norm", x, **dict(zip(names, rest, strict=False)))
    return (x,)


def _per_channel(value: Value, rank: int) -> Expr:
    """A [C] vector aligned with dimension 1 of a tensor of `rank` dimensions."""
    return _widened(ops.reshape(value, shape=(1, value.shape[0], *(1,) * (rank - 2))))


def _affine(y: Expr, affine: Sequence[Value], rank: int) -> Expr:
    if affine:
        y = y * _per_channel(affine[0], rank)
    return y + _per_channel(affine[1], rank) if len(affine) == 2 else y


def _batch_norm_decompose(node: Node) -> tuple[Value]:
    x, mean, var, *affine = node.operands
    rstd = fn.rsqrt(_per_channel(var, x.rank) + attrs_of(node, EpsAttrs).eps)
    y = (_widened(x) - _per_channel(mean, x.rank)) * rstd
    return (_narrowed(_affine(y, affine, x.rank), x),)


def _channel_shaped(v: np.ndarray, rank: int) -> np.ndarray:
    return wide(v).reshape(1, -1, *(1,) * (rank - 2))


@quiet
def _batch_norm_reference(
    attrs: EpsAttrs, x: np.ndarray, mean: np.ndarray, var: np.ndarray, *affine: np.ndarray
) -> np.ndarray:
    eps = wide(var).dtype.type(attrs.eps)
    y = (wide(x) - _channel_shaped(mean, x.ndim)) / np.sqrt(_channel_shaped(var, x.ndim) + eps)
    return _affine_reference(y, affine).astype(x.dtype)


def _affine_reference(y: np.ndarray, affine: tuple[np.ndarray, ...]) -> np.ndarray:
    if affine:
        y = y * _channel_shaped(affine[0], y.ndim)
    return y + _channel_shaped(affine[1], y.ndim) if len(affine) == 2 else y


batch_norm = Op(
    "batch_norm",
    "(x - mean) / sqrt(var + eps) * w + b with given statistics per channel of x [N, C, *S].",
    ("x", "mean", "var", "w?", "b?"),
    attrs=EpsAttrs,
    infer=_batch_norm_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_batch_norm_decompose,
    reference=_batch_norm_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=_batch_norm_batch,
)


def _batch_norm_train_infer(attrs: EpsAttrs, x: Type, *affine: Type) -> tuple[Type, ...]:
    _check_channels("batch_norm_train", x, **dict(zip(("weight", "bias"), affine, strict=False)))
    if numel((x.shape[0], *x.shape[2:])) == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got input size "
            f"{listed(x.shape)}"
        )
    statistics = x.with_shape((x.shape[1],))
    return x, statistics, statistics


def _batch_dims(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank))


def _batch_norm_train_decompose(node: Node) -> tuple[Value, ...]:
    x, *affine = node.operands
    a, dims = _widened(x), _batch_dims(x.rank)
    mean = fn.mean(a, dims=dims, keepdim=True)
    var = fn.mean((a - mean) * (a - mean), dims=dims, keepdim=True)
    y = _affine((a - mean) * fn.rsqrt(var + attrs_of(node, EpsAttrs).eps), affine, x.rank)
    channels = (x.shape[1],)
    return (_narrowed(y, x), *(_narrowed(fn.reshape(s, shape=channels), x) for s in (mean, var)))


def _batch_norm_train_vjp(
    node: Node, g: Value | None, g_mean: Value | None, g_var: Value | None
) -> tuple[Value | None, ...]:
    """The statistics are read from the results, so that the backward pass does not compute them
    again."""
    x, *affine = node.operands
    dims, rank = _batch_dims(x.rank), x.rank
    centred = _widened(x) - _per_channel(node.result(1), rank)
    rstd = fn.rsqrt(_per_channel(node.result(2), rank) + attrs_of(node, EpsAttrs).eps)
    parts: list[Expr] = []
    g_affine: list[Value | None] = [None] * len(affine)
    if g is not None:
        arrived, y = _widened(g), centred * rstd
        scaled = arrived * _per_channel(affine[0], rank) if affine else arrived
        parts.append(_through_norm(scaled, y, rstd, dims, centre=True))
        sums = [fn.sum(e, dims=dims, keepdim=False) for e in (arrived * y, arrived)]
        g_affine = [_narrowed(s, x) for s, _ in zip(sums, affine, strict=False)]
    elements = Expr(count(x, dims, centred.dtype))
    if g_mean is not None:
        parts.append(fn.expand(_per_channel(g_mean, rank) / elements, shape=x.shape))
    if g_var is not None:
        parts.append(centred * (_per_channel(g_var, rank) * 2 / elements))
    total = sum(parts[1:], start=parts[0])
    return (_narrowed(total, x), *g_affine)


@quiet
def _batch_norm_train_reference(
    attrs: EpsAttrs, x: np.ndarray, *affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, dims = wide(x), _batch_dims(x.ndim)
    size = a.dtype.type(math.prod(a.shape[d] for d in dims))
    mean = added(a, dims) / size
    apart = a - _channel_shaped(mean, a.ndim)
    var = added(apart * apart, dims) / size
    y = apart / np.sqrt(_channel_shaped(var, a.ndim) + a.dtype.type(attrs.eps))
    return _affine_reference(y, affine).astype(x.dtype), mean.astype(x.dtype), var.astype(x.dtype)


batch_norm_train = Op(
    "batch_norm_train",
    "batch_norm by the batch's own statistics; also returns its mean and biased variance.",
    ("x", "w?", "b?"),
    attrs=EpsAttrs,
    infer=_batch_norm_train_infer,
    vjp=_batch_norm_train_vjp,
    decompose=_batch_norm_train_decompose,
    reference=_batch_norm_train_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=_channels_batch,
)


# group norm ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupNormAttrs(Attrs):
    groups: int
    eps: float = 1e-5


def _group_norm_infer(attrs: GroupNormAttrs, x: Type, *affine: Type) -> tuple[Type, ...]:
    _check_channels("group_norm", x, **dict(zip(("weight", "bias"), affine, strict=False)))
    if len(affine) == 1:
        raise RuntimeError("group_norm: give both weight and bias, or neither")
    if attrs.groups < 1:
        raise RuntimeError(f"Expected num groups to be greater than 0, got {attrs.groups}")
    if x.shape[1] % attrs.groups != 0:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {listed(x.shape)} and num_groups={attrs.groups}"
        )
    return (x,)


def _group_norm_decompose(node: Node) -> tuple[Value]:
    x, *affine = node.operands
    attrs = attrs_of(node, GroupNormAttrs)
    inside: Dim = (x.shape[1] // attrs.groups) * numel(x.shape[2:])
    rows = fn.reshape(_widened(x), shape=(x.shape[0], attrs.groups, inside))
    y = fn.reshape(fn.layer_norm(rows, axes=1, eps=attrs.eps), shape=x.shape)
    return (_narrowed(_affine(y, affine, x.rank), x),)


@quiet
def _group_norm_reference(attrs: GroupNormAttrs, x: np.ndarray, *affine: np.ndarray) -> np.ndarray:
    rows = wide(x).reshape(x.shape[0], attrs.groups, math.prod(x.shape[1:]) // attrs.groups)
    y = _norm_reference(LayerNormAttrs(1, attrs.eps), rows, (), centre=True).reshape(x.shape)
    return _affine_reference(y, affine).astype(x.dtype)


group_norm = Op(
    "group_norm",
    "layer_norm over each group of channels of x [N, C, *S], times w [C], plus b [C].",
    ("x", "w?", "b?"),
    attrs=GroupNormAttrs,
    infer=_group_norm_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_group_norm_decompose,
    reference=_group_norm_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    batch=_group_norm_batch,
)
