"""Connectionist temporal classification (https://www.cs.toronto.edu/~graves/icml_2006.pdf).

The labels of a target are interleaved with blanks. alpha[s], the log-probability of all paths that
end at position s of that after some steps, follows from step to step by one `scan` over time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Type, Value, located
from graphtorch.ir.ops.common import full
from graphtorch.ir.ops.scan_grad import ScanAttrs

from ..._deferred.storage import recorder
from ..._deferred.tensor import Tensor
from ..._ops.autocast import single_precision_on_cpus
from ..._ops.base import FUNCTIONS, run
from ...autograd import Function
from ...autograd.keeps import keeps_as_one
from ._common import cat, constant_like, where


@keeps_as_one("log_probs targets")
@single_precision_on_cpus
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability that `log_probs` gives to all alignments of `targets`.

    The gradient is PyTorch's: it takes `log_probs` for the result of a `log_softmax` and leaves its
    normalisation out, exp(log_probs) minus the share of each class.

    Args:
        log_probs: [T, N, C] (or [T, C]), floating point.
        targets: [N, S] (or [S]), or the targets of all samples one after the other, [sum of
            lengths].
        input_lengths, target_lengths: N lengths each, both tensors or both tuples of ints.
        blank: the class that stands for no label.
        reduction: "none", "sum", or "mean" of the losses over the lengths of their targets.
        zero_infinity: make infinite losses (a target too long for its input) and their gradients
            zero.

    Raises:
        RuntimeError: shapes, lengths or dtypes do not fit. ValueError: an unknown reduction.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(
            f"{reduction} is not a valid value for reduction: expected 'none', 'mean' or 'sum'"
        )
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
    _check(log_probs, blank)
    steps, n, _ = log_probs.shape
    inputs, known_inputs = _lengths(input_lengths, target_lengths, "input_lengths", n, log_probs)
    lengths, known = _lengths(target_lengths, input_lengths, "target_lengths", n, log_probs)
    _check_lengths("input_lengths", known_inputs, steps)
    _check_lengths("target_lengths", known, None)
    labels = _labels(targets.to(log_probs.device), lengths, known, n, blank, single)
    valid = (FUNCTIONS["arange"](steps, device=log_probs.device).unsqueeze(1) < inputs).unsqueeze(2)
    nll = _negative_log_likelihood(log_probs, labels, lengths, valid, blank)
    nll = nll + Normalisation.apply(log_probs, nll.detach(), valid)
    if zero_infinity:
        nll = where(nll == math.inf, constant_like(nll, 0), nll)
    if reduction == "mean":
        return (nll / lengths.clamp(min=1).to(nll.dtype)).mean()
    if reduction == "sum":
        return nll.sum()
    return nll.squeeze(0) if single else nll


class Normalisation(Function):
    """Zeros, with the part of the gradient that the softmax before the loss would add."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, nll: Tensor, valid: Tensor) -> Tensor:
        ctx.save_for_backward(log_probs, nll, valid)
        return nll.new_zeros(tuple(nll.shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        log_probs, nll, valid = ctx.saved_tensors
        undefined = (nll == math.inf) & (gradient != 0)
        share = where(undefined, constant_like(gradient, math.nan), gradient)
        added = log_probs.exp() * share.unsqueeze(1)
        return Underivable.apply(where(valid, added, constant_like(added, 0))), None, None


class Underivable(Function):
    """The identity, with an error in the place of a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise RuntimeError(
            "derivative for the gradient of ctc_loss is not implemented: it leaves the "
            "normalisation of log_probs out, so it is not the gradient of a "
            "function"
        )


# the recursion ------------------------------------------------------------------------------------


def _negative_log_likelihood(
    log_probs: Tensor, labels: Tensor, lengths: Tensor, valid: Tensor, blank: int
) -> Tensor:
    steps, n, _ = log_probs.shape
    count = labels.shape[1]
    blanks = labels.new_full((n, count), blank)
    between = FUNCTIONS["stack"]([labels, blanks], -1).reshape((n, 2 * count))
    path = cat([labels.new_full((n, 1), blank), between], 1)
    emitted = log_probs.gather(2, path.unsqueeze(0).expand((steps, n, path.shape[1])))
    # a label may follow the one before it without a blank, unless the two are equal
    skips = cat(
        [
            path.new_zeros((n, min(2, path.shape[1]))) > 0,
            (path[:, 2:] != path[:, :-2]) & (path[:, 2:] != blank),
        ],
        1,
    )
    start = cat([log_probs.new_zeros((n, 1)), log_probs.new_full((n, 2 * count), -math.inf)], 1)
    alpha = run("CtcLoss", _last_alpha, start, emitted, valid, skips)
    ends = FUNCTIONS["stack"]([2 * lengths, (2 * lengths - 1).clamp(min=0)], 1)
    last = alpha.gather(1, ends)
    none = FUNCTIONS["stack"]([lengths < 0, lengths == 0], 1)
    return -_log_sum(where(none, constant_like(last, -math.inf), last))


def _log_sum(x: Tensor) -> Tensor:
    """log(sum(exp(x))) along the last dim, -inf with a gradient of zero where all are -inf."""
    most = x.detach().amax(-1, keepdim=True)
    most = where(most == -math.inf, constant_like(most, 0), most)
    total = (x - most).exp().sum(-1)
    empty = total == 0
    logs = where(empty, constant_like(total, 1), total).log() + most.squeeze(-1)
    return where(empty, constant_like(logs, -math.inf), logs)


def _last_alpha(start: Value, emitted: Value, valid: Value, skips: Value) -> Value:
    body = _step(start.type)
    attrs = ScanAttrs(body, 1, 2, emitted.shape[0])
    return ops.scan.node((start, emitted, valid, skips), attrs).result()


@functools.lru_cache(maxsize=256)
def _step(type: Type) -> Graph:
    """One step as a graph: alpha, what is emitted, whether the step counts, where blanks may be
    skipped."""
    boolean = Type(ops.eq(zero := full((), 0, type.dtype), zero).dtype, type.shape)
    with located(None):
        alpha, emitted = Value(type, name="alpha"), Value(type, name="emitted")
        valid = Value(boolean.with_shape((type.shape[0], 1)), name="valid")
        skips = Value(boolean, name="skips")
        nothing = full((), -math.inf, type.dtype)
        stay, move = alpha, _moved(alpha, 1)
        skip = ops.where(skips, _moved(alpha, 2), nothing)
        most = ops.detach(ops.maximum(ops.maximum(stay, move), skip))
        most = ops.where(ops.eq(most, nothing), full((), 0, type.dtype), most)
        total = ops.add(
            ops.add(*(ops.exp(ops.sub(x, most)) for x in (stay, move))),
            ops.exp(ops.sub(skip, most)),
        )
        empty = ops.eq(total, full((), 0, type.dtype))
        logs = ops.add(ops.log(ops.where(empty, full((), 1, type.dtype), total)), most)
        after = ops.add(ops.where(empty, nothing, logs), emitted)
        after = ops.where(valid, after, alpha)
        return Graph("ctc", [alpha, emitted, valid, skips], [after, after])


def _moved(alpha: Value, by: int) -> Value:
    """alpha[s - by], -inf where there is none."""
    n, count = alpha.shape
    by = min(by, int(count))  # type: ignore[arg-type]
    kept = ops.slice(alpha, start=(0, 0), stop=(n, count - by), step=(1, 1))
    return ops.pad(kept, low=(0, by), high=(0, 0), value=-math.inf)


# arguments ----------------------------------------------------------------------------------------


def _check(log_probs: Tensor, blank: int) -> None:
    if log_probs.dim() != 3:
        raise RuntimeError(
            "Expected 3-dimensional tensor (or 2-dimensional without batch), but got "
            f"{log_probs.dim()}-dimensional tensor for argument #1 'log_probs' "
            "(while checking arguments for ctc_loss)"
        )
    if log_probs.numel() == 0:
        raise RuntimeError(f"log_probs tensor must not be empty, got {list(log_probs.shape)}")
    if log_probs.dtype.name not in ("float32", "float64"):
        raise NotImplementedError(
            f'"ctc_loss_cpu" not implemented for {log_probs.dtype}: convert log_probs with .float()'
        )
    if not 0 <= blank < log_probs.shape[2]:
        raise RuntimeError(
            f"blank must be in label range: got {blank} for {log_probs.shape[2]} classes"
        )


def _lengths(
    given: Any, other: Any, name: str, n: int, log_probs: Tensor
) -> tuple[Tensor, list[int] | None]:
    """Lengths as i64 [N] beside `log_probs`, and their values where they can be known now."""
    listed = isinstance(given, (tuple, list)) and all(hasattr(x, "__index__") for x in given)
    if not (listed or isinstance(given, Tensor)) or isinstance(given, Tensor) != isinstance(
        other, Tensor
    ):
        raise TypeError(
            "ctc_loss(): input_lengths and target_lengths must be two tensors or two tuples of "
            f"ints, not {type(given).__name__} and {type(other).__name__}"
        )
    if isinstance(given, Tensor):
        if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype.name == "bool":
            raise RuntimeError(f"{name} must be integral, got {given.dtype}")
        tensor = given.detach().long().reshape(-1)
        known = tensor.tolist() if recorder.capture is None and not tensor.is_meta else None
    else:
        known = [int(x) for x in given]
        tensor = FUNCTIONS["tensor"](
            known, dtype=FUNCTIONS["arange"](0).dtype, device=log_probs.device
        )
    if tensor.shape[0] != n:
        raise RuntimeError(
            f"{name} must be of size batch_size: expected {n}, got {tensor.shape[0]}"
        )
    return tensor.to(log_probs.device), known


def _check_lengths(name: str, known: Sequence[int] | None, most: int | None) -> None:
    for value in known or ():
        if value < 0:
            raise RuntimeError(
                f"Expected {name} to have value at least 0, but got value {value} (while "
                "checking arguments for ctc_loss)"
            )
        if most is not None and value > most:
            raise RuntimeError(
                f"Expected {name} to have value at most {most}, but got value {value} (while "
                "checking arguments for ctc_loss)"
            )


def _labels(
    targets: Tensor, lengths: Tensor, known: list[int] | None, n: int, blank: int, single: bool
) -> Tensor:
    """The targets as [N, S], blanks after the end of each."""
    targets = targets.detach().long()
    if targets.dim() not in (1, 2) or (single and targets.dim() == 2 and targets.shape[0] != 1):
        raise RuntimeError(
            "Expected 1-dimensional or 2-dimensional targets, but got shape "
            f"{list(targets.shape)} for argument #2 'targets' (while checking "
            "arguments for ctc_loss)"
        )
    longest = targets.shape[-1] if known is None else max(known)
    place = FUNCTIONS["arange"](longest, device=targets.device)
    if targets.dim() == 2:
        if targets.shape[0] != n or targets.shape[1] < longest:
            raise RuntimeError(
                f"Expected tensor to have size {n} at dimension 0 and at least {longest} at "
                f"dimension 1, but got {list(targets.shape)} for argument #2 "
                "'targets' (while checking arguments for ctc_loss)"
            )
        labels = targets[:, :longest]
    else:
        if known is not None and targets.shape[0] != sum(known):
            raise RuntimeError(
                f"Expected tensor to have size {sum(known)} at dimension 0, but got size "
                f"{targets.shape[0]} for argument #2 'targets' (while checking "
                "arguments for ctc_loss)"
            )
        starts = (lengths.cumsum(0) - lengths).unsqueeze(1)
        where_from = (starts + place).clamp(max=max(targets.shape[0] - 1, 0))
        labels = targets.index_select(0, where_from.reshape(-1)).reshape((n, longest))
    return where(place < lengths.unsqueeze(1), labels, blank)
