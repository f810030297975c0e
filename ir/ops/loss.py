"""Losses over class indices, as
https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html."""

from __future__ import annotations

import numpy as np

from ..dataclass import dataclass
from ..dtype import i64
from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..passes.batch import through_decomposition
from ..shape import Dim, Shape, numel
from .batching import Mapped, Values, folding
from .checks import attrs_of, listed
from .common import (
    REAL_FLOATING,
    Expr,
    check_domain,
    check_same_dtype,
    count,
    fn,
    quiet,
    wide,
    zeros_like,
)

__all__ = ["cross_entropy", "nll_loss"]

REDUCTIONS = ("none", "mean", "sum")


@dataclass(frozen=True)
class NllLossAttrs(Attrs):
    """reduction: "none", "mean" (weighted) or "sum"; ignore_index: a target that does not count."""

    reduction: str = "mean"
    ignore_index: int = -100


@dataclass(frozen=True)
class CrossEntropyAttrs(Attrs):
    reduction: str = "mean"
    ignore_index: int = -100
    label_smoothing: float = 0.0


LossAttrs = NllLossAttrs | CrossEntropyAttrs


def _loss_infer(
    name: str, attrs: LossAttrs, x: Type, target: Type, *weight: Type
) -> tuple[Type, ...]:
    check_domain(name, x, REAL_FLOATING)
    check_same_dtype(name, x, *weight)
    if attrs.reduction not in REDUCTIONS:
        raise ValueError(
            f"{attrs.reduction} is not a valid value for reduction: expected one of {REDUCTIONS}"
        )
    if target.dtype is not i64:
        raise RuntimeError(
            f"expected target dtype to be Long (i64), but got {target.dtype}: cast class indices "
            "to i64; class probabilities have the input's shape"
        )
    if x.rank < 2:
        raise RuntimeError(f"{name}: expected input [N, C, *S], but got shape {listed(x.shape)}")
    _check_target(x, target)
    for w in weight:
        if w.shape != (x.shape[1],):
            raise RuntimeError(
                f"weight tensor should be defined either for all {x.shape[1]} classes or no "
                f"classes but got weight tensor of shape: {listed(w.shape)}"
            )
    return (x.with_shape(target.shape if attrs.reduction == "none" else ()),)


def _check_target(x: Type, target: Type) -> None:
    expected = (x.shape[0], *x.shape[2:])
    if target.rank and target.shape[0] != x.shape[0]:
        raise ValueError(
            f"Expected input batch_size ({x.shape[0]}) to match target batch_size "
            f"({target.shape[0]})."
        )
    if target.shape != expected:
        raise RuntimeError(f"Expected target size {listed(expected)}, got {listed(target.shape)}")


# by decomposition ---------------------------------------------------------------------------------


def _with_class_axis(value: Expr) -> Expr:
    n, *spatial = value.shape
    return fn.reshape(value, shape=(n, 1, *spatial))


def _without_class_axis(value: Expr) -> Expr:
    n, _, *spatial = value.shape
    return fn.reshape(value, shape=(n, *spatial))


class Targets:
    """What the losses read off a node's target and weight: a mask, classes in range, and
    weights."""

    def __init__(self, node: Node, ignore_index: int):
        x, target, *weight = node.operands
        self.valid = fn.ne(Expr(target), ignore_index)
        self.classes = fn.where(self.valid, Expr(target), 0)
        self.weights = self._weights(weight, x)

    def _weights(self, weight: list[Value], x: Value) -> Expr:
        """The weight of each target, 0 where it is ignored."""
        if not weight:
            return fn.cast(self.valid, dtype=x.dtype)
        shape: Shape = self.classes.shape
        flat = fn.reshape(self.classes, shape=(numel(shape),))
        return fn.where(
            self.valid, fn.reshape(fn.index_select(Expr(weight[0]), flat, dim=0), shape=shape), 0
        )

    def reduced(self, losses: Expr, reduction: str) -> Expr:
        """`losses`, one per target, summed or averaged by the targets' weights."""
        if reduction == "none":
            return losses
        total = _total(losses)
        return total / _total(self.weights) if reduction == "mean" else total


def _total(values: Expr) -> Expr:
    return fn.sum(values, dims=tuple(range(len(values.shape))), keepdim=False)


def _picked(x: Expr, targets: Targets) -> Expr:
    """Minus x at each target's class."""
    return -_without_class_axis(fn.gather(x, _with_class_axis(targets.classes), dim=1))


def _nll(x: Expr, targets: Targets, reduction: str) -> Expr:
    # `where` and not only a zero weight: an ignored target counts 0 also beside an infinite x
    losses = fn.where(targets.valid, _picked(x, targets) * targets.weights, 0)
    return targets.reduced(losses, reduction)


def _nll_loss_decompose(node: Node) -> tuple[Value]:
    attrs = attrs_of(node, NllLossAttrs)
    return (_nll(Expr(node.operands[0]), Targets(node, attrs.ignore_index), attrs.reduction).value,)


def _nll_loss_vjp(node: Node, g: Value) -> tuple[Value | None, ...]:
    """A comparison of classes instead of a scatter, so that it fuses with softmax's gradient."""
    x, target, *weight = node.operands
    attrs = attrs_of(node, NllLossAttrs)
    targets, reduction = Targets(node, attrs.ignore_index), attrs.reduction
    arrived = Expr(g)
    share = arrived / _total(targets.weights) if reduction == "mean" else arrived
    chosen = fn.where(targets.valid, Expr(target), -1)
    here = fn.eq(fn.iota(shape=x.shape, dim=1, dtype=i64), _with_class_axis(chosen))
    gx = fn.where(here, -_with_class_axis(share * targets.weights), 0)
    return (gx.value, None, *[_weight_gradient(node, targets, share).value for _ in weight])


def _weight_gradient(node: Node, targets: Targets, share: Expr) -> Expr:
    """Of each class: the losses of its targets, minus (mean) the loss itself, which their weights
    dilute."""
    x, _, weight = node.operands
    losses = _picked(Expr(x), targets)
    if attrs_of(node, NllLossAttrs).reduction == "mean":
        losses = losses - Expr(node.result())
    moved = fn.where(targets.valid, losses * share, 0)
    flat = (numel(moved.shape),)
    moved, classes = fn.reshape(moved, shape=flat), fn.reshape(targets.classes, shape=flat)
    return fn.index_put(Expr(zeros_like(weight)), moved, classes, dims=(0,), accumulate=True)


def _cross_entropy_decompose(node: Node) -> tuple[Value]:
    x, _, *weight = node.operands
    attrs = attrs_of(node, CrossEntropyAttrs)
    targets = Targets(node, attrs.ignore_index)
    logp = fn.log_softmax(Expr(x), dim=1)
    operands = (logp, *map(Expr, node.operands[1:]))
    exact = fn.nll_loss(*operands, reduction=attrs.reduction, ignore_index=attrs.ignore_index)
    if attrs.label_smoothing == 0:
        return (exact.value,)
    if weight:
        logp = logp * fn.reshape(Expr(weight[0]), shape=(1, x.shape[1], *(1,) * (x.rank - 2)))
    spread = fn.where(targets.valid, -fn.sum(logp, dims=(1,), keepdim=False), 0)
    smooth = targets.reduced(spread, attrs.reduction) / Expr(count(x, (1,), x.dtype))
    return (((1 - attrs.label_smoothing) * exact + attrs.label_smoothing * smooth).value,)


# references ---------------------------------------------------------------------------------------


def _counted(attrs: LossAttrs, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which targets are not ignored. IndexError where one of these is no class."""
    counted: np.ndarray = target != attrs.ignore_index
    bad = counted & ((target < 0) | (target >= x.shape[1]))
    if bad.any():
        raise IndexError(f"Target {target[bad].flat[0]} is out of bounds.")
    return counted


def _one_hot(attrs: LossAttrs, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 at each counted target's class, of the shape of x."""
    counted = _counted(attrs, x, target)
    classes = np.arange(x.shape[1]).reshape(-1, *(1,) * (x.ndim - 2))
    return (classes == target[:, None]) & counted[:, None]


def _class_weights(x: np.ndarray, weight: tuple[np.ndarray, ...]) -> np.ndarray:
    values = wide(weight[0]) if weight else np.ones(x.shape[1], wide(x).dtype)
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def _reduce(losses: np.ndarray, weights: np.ndarray, reduction: str, dtype: np.dtype) -> np.ndarray:
    if reduction == "none":
        return losses.astype(dtype)
    total = losses.sum() / weights.sum() if reduction == "mean" else losses.sum()
    return np.asarray(total, dtype)


@quiet
def _nll_loss_reference(
    attrs: NllLossAttrs, x: np.ndarray, target: np.ndarray, *weight: np.ndarray
) -> np.ndarray:
    if x.ndim == 2:
        counted, rows = _counted(attrs, x, target), np.arange(len(target))
        classes = np.where(counted, target, 0)
        weights = wide(weight[0])[classes] * counted if weight else counted.astype(wide(x).dtype)
        losses = np.where(counted, -wide(x)[rows, classes] * weights, 0)
        return _reduce(losses, weights, attrs.reduction, x.dtype)
    hot, by_class = _one_hot(attrs, x, target), _class_weights(x, weight)
    losses = np.where(hot, -wide(x) * by_class, 0).sum(1)
    return _reduce(losses, np.where(hot, by_class, 0), attrs.reduction, x.dtype)


@quiet
def _cross_entropy_reference(
    attrs: CrossEntropyAttrs, x: np.ndarray, target: np.ndarray, *weight: np.ndarray
) -> np.ndarray:
    """Cross entropy with the smoothed distribution (1 - s) * one_hot + s / C, both weighted by
    class."""
    a, hot, by_class = wide(x), _one_hot(attrs, x, target), _class_weights(x, weight)
    a = a - a.max(1, keepdims=True, initial=-np.inf)
    logp = a - np.log(np.exp(a).sum(1, keepdims=True))
    s = attrs.label_smoothing
    losses = np.where(hot, -logp * by_class * (1 - s), 0).sum(1)
    if s:
        spread = (-logp * by_class * (s / x.shape[1])).sum(1)
        losses = losses + np.where(target != attrs.ignore_index, spread, 0)
    return _reduce(losses, np.where(hot, by_class, 0), attrs.reduction, x.dtype)


def _cross_entropy_infer(attrs: CrossEntropyAttrs, *types: Type) -> tuple[Type, ...]:
    if not 0 <= attrs.label_smoothing <= 1:
        raise RuntimeError(
            f"label_smoothing must be between 0.0 and 1.0. Got: {attrs.label_smoothing}"
        )
    return _loss_infer("cross_entropy", attrs, *types)


def _loss_batch(node: Node, values: Values, mapped: Mapped, size: Dim) -> Values:
    """Without a reduction entries are further samples, where all weigh the classes alike."""
    attrs = node.attrs
    assert isinstance(attrs, LossAttrs)
    if attrs.reduction != "none" or len(values) > 2:
        return through_decomposition(node, values, mapped, size)
    return folding(0)(node, values, mapped, size)


nll_loss = Op(
    "nll_loss",
    "Minus the log-probability [N, C, *S] of each target i64 [N, *S], times its class's weight.",
    ("logp", "target", "weight?"),
    attrs=NllLossAttrs,
    infer=lambda attrs, *types: _loss_infer("nll_loss", attrs, *types),
    vjp=_nll_loss_vjp,
    decompose=_nll_loss_decompose,
    reference=_nll_loss_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    raises=True,
    batch=_loss_batch,
)
cross_entropy = Op(
    "cross_entropy",
    "nll_loss of log_softmax(logits); label_smoothing spreads targets over all classes.",
    ("logits", "target", "weight?"),
    attrs=CrossEntropyAttrs,
    infer=_cross_entropy_infer,
    vjp=BY_DECOMPOSITION,
    decompose=_cross_entropy_decompose,
    reference=_cross_entropy_reference,
    kind=Kind.WHOLE,
    weight=Weight.PLAIN,
    raises=True,
    batch=_loss_batch,
)
