"""Losses. `reduction` is "none", "mean" or "sum". Formulas:
https://docs.pytorch.org/docs/stable/nn.html"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch.ir.dtype import SCALAR_NAMES, i64, u8
from graphtorch.ir.shape import Shape

from ..._deferred.tensor import Tensor
from ..._ops.autocast import refused_on_gpus, single_precision
from ..._ops.base import FUNCTIONS, check_places, check_tensor, checked, refuse, rounded_once
from ..._settings import warn_user
from ...autograd.keeps import keeps, keeps_as_one, shown_as
from ._common import call, constant_like, where
from .activation import log_softmax, logsigmoid
from .distance import pairwise_distance

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]

IGNORE = -100


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Apply `reduction`; raises ValueError for an unknown one."""
    if reduction == "none":
        return values
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    raise ValueError(
        f"{reduction} is not a valid value for reduction: expected 'none', 'mean' or 'sum'"
    )


def legacy_reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """What the deprecated flags `size_average` and `reduce` mean; `reduction` where both are
    None."""
    if size_average is None and reduce is None:
        return reduction
    size_average = True if size_average is None else size_average
    chosen = "none" if reduce is False else "mean" if size_average else "sum"
    warn_user(
        f"size_average and reduce args will be deprecated, please use reduction={chosen!r} "
        "instead.",
    )
    return chosen


def _warn_broadcast(input: Tensor, target: Tensor) -> None:
    if input._type.shape != target._type.shape:
        warn_user(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}). This will likely lead to incorrect results due to "
            "broadcasting. Please ensure they have the same size.",
        )


def _elementwise(
    input: Tensor, target: Tensor, values: Tensor, reduction: str, weight: Tensor | None
) -> Tensor:
    if weight is None:
        return reduced(values, reduction)
    if tuple(weight.shape) != tuple(input.shape):
        raise ValueError("Inputs and weights must have the same size.")
    if reduction == "mean":
        return (values * weight).sum() / weight.sum()
    return reduced(values * weight, reduction)


@shown_as("MseLoss")
@keeps_as_one("input target")
@single_precision
@rounded_once
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(x - t)^2."""
    _warn_broadcast(input, target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    difference = input - target
    refuse("mse_cpu", difference._type.dtype, "bool", "integer")
    return _elementwise(input, target, difference * difference, reduction, weight)


@single_precision
@rounded_once
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|x - t|."""
    _warn_broadcast(input, target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    return _elementwise(input, target, (input - target).abs(), reduction, weight)


@shown_as("SmoothL1Loss")
@keeps_as_one("input target")
@single_precision
@rounded_once
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """0.5 d^2 / beta where d = |x - t| < beta, else d - 0.5 beta."""
    _warn_broadcast(input, target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}.")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    d = (input - target).abs()
    return reduced(where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta), reduction)


@shown_as("HuberLoss")
@keeps_as_one("input target")
@single_precision
@rounded_once
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """0.5 d^2 where d = |x - t| < delta, else delta (d - 0.5 delta)."""
    _warn_broadcast(input, target)
    if delta <= 0:
        raise RuntimeError(
            f"huber_loss does not support non-positive values for delta, got {delta}."
        )
    d = (input - target).abs()
    return _elementwise(
        input, target, where(d < delta, d * d * 0.5, (d - 0.5 * delta) * delta), reduction, weight
    )


@keeps_as_one("input target weight")
@single_precision
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = IGNORE,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """-weight[t] * input[n, t, ...] for log-probabilities [N, C, *S] (or [C]) and classes [N, *S]
    (or []).

    "mean" divides by the weights of the targets counted; targets equal to `ignore_index` are not.
    """
    reduction = legacy_reduction(reduction, size_average, reduce)
    return _class_loss("nll_loss", input, target, weight, reduction, ignore_index)


@single_precision
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = IGNORE,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`nll_loss` of log_softmax(input) along the classes; floating-point targets are class
    probabilities of the input's shape."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if target.dtype.is_floating_point:
        return _soft_cross_entropy(input, target, weight, reduction, ignore_index, label_smoothing)
    return _class_loss(
        "cross_entropy", input, target, weight, reduction, ignore_index, label_smoothing
    )


@keeps("NllLoss", (1, 2))
def _class_loss(
    name: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    _check_classes(name, input, target, weight, reduction)
    single = input.dim() == 1
    x, t = (
        (input.unsqueeze(0), target.unsqueeze(0))
        if single and target.dim() == 0
        else (input, target)
    )
    if single and target.dim() == 1:
        if target.shape[0] != 1:
            raise ValueError(
                f"For 1D input, 1D target must have size 1, but got target size: {target.shape[0]}"
            )
        x = input.unsqueeze(0)
    classes = x.shape[0] if x.dim() == 1 else x.shape[1]
    check_places(t, classes, "Target {} is out of bounds.", but=ignore_index)
    operands = (x, t.long()) if weight is None else (x, t.long(), weight)
    attrs: dict[str, Any] = {"reduction": reduction, "ignore_index": ignore_index}
    if label_smoothing:
        attrs["label_smoothing"] = float(label_smoothing)
    out = call(name, *operands, **attrs)
    return out.reshape(target.shape) if single and reduction == "none" else out


def _check_classes(
    name: str, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str
) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(
            f"{reduction} is not a valid value for reduction: expected 'none', 'mean' or 'sum'"
        )
    shape, labels = input._type.shape, target._type.shape
    if name == "nll_loss" and len(shape) > 1:
        _check_batch(shape, labels)
    if target._type.dtype not in (i64, u8):
        raise RuntimeError(
            f"{name}: expected scalar type Long but found {target.dtype}: convert the target "
            "with .long()"
        )
    if not shape:
        raise RuntimeError(f"{name}: expected an input with a dim of classes, got a 0-d tensor")
    channels = shape[0] if len(shape) == 1 else shape[1]
    if len(shape) > 1:
        _check_batch(shape, labels)
        expected = (shape[0], *shape[2:])
        if labels != expected:
            raise RuntimeError(f"Expected target size {list(expected)}, got {list(labels)}")
    if weight is not None and (weight.dim() != 1 or weight.shape[0] != channels):
        raise RuntimeError(
            "weight tensor should be defined either for all or no classes: expected "
            f"[{channels}], got {list(weight.shape)}"
        )


def _check_batch(shape: Shape, labels: Shape) -> None:
    batch = labels[0] if labels else "none: the target is 0-d"
    if shape[0] != batch:
        raise ValueError(
            f"Expected input batch_size ({shape[0]}) to match target batch_size ({batch})."
        )


@rounded_once
def _soft_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    shape, labels = input._type.shape, target._type.shape
    if shape != labels:
        if len(shape) > 1:
            _check_batch(shape, labels)
        raise RuntimeError(
            "Expected floating point type for target with class probabilities of the input's "
            f"shape {list(shape)}, got {list(labels)}; class indices have to be integers"
        )
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    axis = 0 if input.dim() == 1 else 1
    classes = input.shape[axis]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    weighted = log_softmax(input, axis) * target
    if weight is not None:
        weighted = weighted * weight.reshape((-1, *[1] * (input.dim() - axis - 1)))
    values = -weighted.sum(axis)
    if reduction != "mean":
        return reduced(values, reduction)
    return values.sum() / max(math.prod(input.shape) // classes, 1)


@shown_as("BinaryCrossEntropy")
@keeps_as_one("input target weight")
@refused_on_gpus
@rounded_once
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t log x + (1 - t) log(1 - x)) with logarithms cut at -100; x are probabilities."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}) is deprecated. Please ensure they have the same size."
        )
    input, target = (
        checked(x, "probability", f"all elements of {name} should be between 0 and 1")
        for x, name in ((input, "input"), (target, "target"))
    )
    values = -(target * _log_cut(input) + (1 - target) * _log_cut(1 - input))
    return reduce_weighted(values, weight, reduction)


def _log_cut(p: Tensor) -> Tensor:
    """max(log p, -100) whose gradient at p = 0 is finite."""
    positive = p > 0
    safe = where(positive, p, constant_like(p, 1))
    return where(positive, safe.log().clamp(min=-100), constant_like(p, -100))


@shown_as("BinaryCrossEntropyWithLogits")
@keeps_as_one("input target weight pos_weight")
@single_precision
@rounded_once
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), computed stably; `pos_weight` multiplies the
    positive term.
    """
    reduction = legacy_reduction(reduction, size_average, reduce)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"Target size ({target.size()}) must be the same as input size ({input.size()})"
        )
    if weight is not None:
        check_tensor("binary_cross_entropy_with_logits", "weight", weight, 3)
    if not target._type.dtype.is_differentiable:
        raise RuntimeError(
            "result type Float can't be cast to the desired output type "
            f"{SCALAR_NAMES[target._type.dtype]}: convert the target with .float()"
        )
    positive = 1 if pos_weight is None else (pos_weight - 1) * target + 1
    return reduce_weighted((1 - target) * input - positive * logsigmoid(input), weight, reduction)


def reduce_weighted(values: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Multiply by `weight` where there is one, then reduce; the mean divides by the number of
    elements."""
    return reduced(values if weight is None else values * weight, reduction)


@single_precision
@rounded_once
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t (log t - x) for log-probabilities x; "batchmean" divides the sum by the first size."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if reduction == "mean":
        warn_user(
            "reduction: 'mean' divides the total loss by both the batch size and the support "
            "size.'batchmean' divides only by the batch size, and aligns with the KL div "
            "math definition.",
        )
    if not (input._type.dtype.is_differentiable and target._type.dtype.is_differentiable):
        raise RuntimeError("kl_div: Integral inputs not supported.")
    if log_target:
        values = target.exp() * (target - input)
    else:
        # 0 log 0 is 0; log of less is NaN
        safe = where(target == 0, constant_like(target, 1), target)
        values = target * safe.log() - target * input
    if reduction == "batchmean":
        return values.sum() / (input.shape[0] if input.dim() else 1)
    return reduced(values, reduction)


@single_precision
@rounded_once
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - t x, or x - t log(x + eps) without `log_input`; `full` adds Stirling's term for t >
    1."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    values = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        safe = where(target > 1, target, constant_like(target, 1))
        stirling = safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log()
        values = values + where(target > 1, stirling, constant_like(stirling, 0))
    return reduced(values, reduction)


@rounded_once
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """0.5 (log v + (x - t)^2 / v) with v = max(var, eps), whose gradient passes the maximum
    unchanged."""
    if not isinstance(var, Tensor) and var < 0:
        raise ValueError("var has negative entry/entries")
    if isinstance(var, Tensor):
        var = checked(var, "not below zero", "var has negative entry/entries", "value")
    given = (
        _fitting_variance(input, var)
        if isinstance(var, Tensor)
        else input.new_full(input.shape, var)
    )
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    cut = given + (given.clamp(min=eps) - given).detach()
    difference = input - target
    values = 0.5 * (cut.log() + difference * difference / cut)
    return reduced(values + 0.5 * math.log(2 * math.pi) if full else values, reduction)


def _fitting_variance(input: Tensor, var: Tensor) -> Tensor:
    """`var` so that it broadcasts: of the input's shape, without its last dim, or with one dim of
    size 1."""
    if tuple(var.shape) != tuple(input.shape):
        if tuple(input.shape[:-1]) == tuple(var.shape):
            return var.unsqueeze(-1)
        if not (
            var.dim() == input.dim()
            and sum(y for x, y in zip(input.shape, var.shape, strict=True) if x != y) == 1
        ):
            raise ValueError(
                f"var is of incorrect size: got {list(var.shape)} for an input of shape "
                f"{list(input.shape)}"
            )
    return var


@single_precision
@rounded_once
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """x where t = 1, max(0, margin - x) where t = -1."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    zero = constant_like(input, 0)
    near = where(target != 1, (margin - input).clamp(min=0), zero)
    far = where(target != -1, input, zero)
    return reduced(near + far, reduction)


@single_precision
@rounded_once
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -t (x1 - x2) + margin)."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got "
            f"sizes: input1: {input1.size()}, input2: {input2.size()}, target: "
            f"{target.size()} "
        )
    return reduced((-target * (input1 - input2) + margin).clamp(min=0), reduction)


@keeps_as_one("input target")
@single_precision
@rounded_once
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-t x))."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    return reduced(-logsigmoid(target * input), reduction)


@rounded_once
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes of -(t log sigmoid(x) + (1 - t) log sigmoid(-x))."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    values = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return reduced((values if weight is None else values * weight).mean(-1), reduction)


@keeps_as_one("input target weight")
@single_precision
@rounded_once
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over i != t of weight[t] max(0, margin - x[t] + x[i])^p / C for x [N, C], t [N]."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    single = input.dim() < 2
    x = input.reshape(1, -1) if single else input
    t = target.reshape(-1)
    if x.shape[0] != t.shape[0]:
        raise RuntimeError(
            f"inconsistent target size, expected {x.shape[0]} but got {list(target.shape)}"
        )
    check_places(
        t, x.shape[1], f"target out of range: got {{}} for {x.shape[1]} classes", "runtime"
    )
    gap = (margin - x.gather(1, t.unsqueeze(1)) + x).relu()
    gap = gap if p == 1 else gap * gap
    gap = gap if weight is None else gap * weight.index_select(0, t).unsqueeze(1)
    others = _positions(x) != t.unsqueeze(1)
    values = where(others, gap, constant_like(gap, 0)).sum(1) / x.shape[1]
    return reduced(values.reshape(()) if single and target.dim() == 0 else values, reduction)


@keeps_as_one("input target")
@single_precision
@rounded_once
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over targets j and others i of max(0, 1 - (x[j] - x[i])) / C; the targets of each row end
    at the first -1."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if tuple(input.shape) != tuple(target.shape):
        raise RuntimeError(
            f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}"
        )
    x, t = (v.reshape(1, -1) if v.dim() < 2 else v for v in (input, target))
    check_places(
        t,
        x.shape[1],
        f"argument #2 'target' is out of range: got {{}} for {x.shape[1]} classes",
        "runtime",
        lowest=-1,
    )
    listed = (t < 0).long().cumsum(1) == 0
    safe = where(listed, t, constant_like(t, 0))
    hits = (safe.unsqueeze(2) == _positions(x).unsqueeze(0)).logical_and(listed.unsqueeze(2))
    is_target = hits.any(1)
    gap = (1 - x.gather(1, safe).unsqueeze(2) + x.unsqueeze(1)).relu()
    counted = listed.unsqueeze(2).logical_and(is_target.logical_not().unsqueeze(1))
    values = where(counted, gap, constant_like(gap, 0)).sum((1, 2)) / x.shape[1]
    return reduced(values.reshape(()) if input.dim() < 2 else values, reduction)


def _positions(x: Tensor) -> Tensor:
    """[[0, 1, ..., C - 1]]"""
    return FUNCTIONS["arange"](x.shape[1], device=x.device).unsqueeze(0)


@single_precision
@rounded_once
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if target.dim() > 1 or input1.dim() - 1 != target.dim():
        raise RuntimeError(
            f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, but "
            f"found inputs with sizes {list(input1.shape)} and "
            f"{list(input2.shape)}."
        )
    eps = 1e-12
    squares = ((input1 * input1).sum(-1) + eps) * ((input2 * input2).sum(-1) + eps)
    cosine = (input1 * input2).sum(-1) / squares.sqrt()
    zero = constant_like(cosine, 0)
    same = where(target == 1, 1 - cosine, zero)
    other = where(target == -1, (cosine - margin).clamp(min=0), zero)
    return reduced(same + other, reduction)


@single_precision
@rounded_once
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(a, p) - d(a, n) + margin) with the p-norm distance; `swap` also looks at d(p, n)."""
    reduction = legacy_reduction(reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return _triplet(
        anchor,
        positive,
        negative,
        lambda a, b: pairwise_distance(a, b, p, eps),
        margin,
        swap,
        reduction,
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with another distance; None is the Euclidean one."""
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return _triplet(
        anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction
    )


def _triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number "
            f"of dimensions, but got: anchor {anchor.dim()}D, positive "
            f"{positive.dim()}D, and negative {negative.dim()}D inputs"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced((near - far + margin).clamp(min=0), reduction)
