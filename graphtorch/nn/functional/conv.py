"""Linear maps and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.ir import ops

from ..._deferred.tensor import Tensor
from ..._ops.autocast import lower_precision, promoted_on_gpus
from ..._ops.base import DENSE, SHORT, rounded_once, run
from ..._ops.orders import format_kept
from ...autograd.keeps import keeps_as_one
from ._common import batched, call, same_dtype, tuple_of


@lower_precision
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for x of shape [*, in], W [out, in] (or [in]), b [out].

    Raises RuntimeError where the sizes or dtypes do not fit.
    """
    if type(input) in DENSE and type(weight) in DENSE:
        x, w = input._type, weight._type
        if len(w.shape) == 2 and x.shape and x.dtype is w.dtype and x.shape[-1] == w.shape[1]:
            if bias is None:
                return run("Mm" if len(x.shape) == 2 else "UnsafeView", ops.linear, input, weight)
            b = bias._type if type(bias) in DENSE else None
            if b is not None and b.dtype is x.dtype and b.shape == w.shape[:1]:
                return run(
                    "Addmm" if len(x.shape) == 2 else "View", ops.affine, bias, input, weight
                )
    same_dtype("linear", input, weight, bias)
    if weight.dim() not in (1, 2):
        raise RuntimeError(
            f"linear: expected a weight of shape [out_features, in_features], got {_s(weight)}"
        )
    if input.dim() == 0 or _differ(input.shape[-1], weight.shape[-1]):
        rows = 1
        for size in input.shape[:-1]:
            rows = rows * size
        width = input.shape[-1] if input.dim() else 1
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{width} and "
            f"{weight.shape[-1]}x{weight.shape[0]}): linear got an input of shape "
            f"{_s(input)} and a weight of shape {_s(weight)}; the last sizes must "
            "be equal"
        )
    if bias is not None and input._type.dtype in SHORT:
        return _product_and_bias(input, weight, bias)
    out = input.matmul(weight if weight.dim() == 1 else weight.transpose(0, 1))
    return out if bias is None else out + bias


@rounded_once
def _product_and_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.matmul(weight if weight.dim() == 1 else weight.transpose(0, 1)) + bias


@keeps_as_one("input1 input2 weight")
@promoted_on_gpus
@rounded_once
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y_o = x1^T W_o x2 + b_o for x1 [*, in1], x2 [*, in2], W [out, in1, in2], b [out]."""
    if input1.dim() != input2.dim() or tuple(input1.shape[:-1]) != tuple(input2.shape[:-1]):
        raise RuntimeError(
            f"bilinear(): input batch dimensions do not match: got {_s(input1)} and {_s(input2)}"
        )
    out, in1, in2 = weight.shape
    for which, x, size in (("input1", input1, in1), ("input2", input2, in2)):
        if x.shape[-1] != size:
            raise RuntimeError(
                f"bilinear(): {which} size does not match weight size: got {x.shape[-1]} "
                f"but expected {size}"
            )
    left = input1.reshape(-1, in1).matmul(weight.permute(1, 0, 2).reshape(in1, out * in2))
    flat = left.reshape(-1, out, in2) * input2.reshape(-1, 1, in2)
    result = flat.sum(-1, dtype=flat.dtype).reshape((*input1.shape[:-1], out))
    return result if bias is None else result + bias


@lower_precision
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution (cross-correlation) of [N, C, L] or [C, L] with weight [O, C / groups, K]."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


@format_kept
@lower_precision
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution (cross-correlation) of [N, C, H, W] or [C, H, W] with weight [O, C / groups, KH,
    KW]."""
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


@format_kept
@lower_precision
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution (cross-correlation) of [N, C, D, H, W] or [C, D, H, W] with weight
    [O, C / groups, KD, KH, KW]."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


@lower_precision
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Transposed convolution of [N, C, L] or [C, L] with weight [C, O / groups, K]."""
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@format_kept
@lower_precision
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Transposed convolution of [N, C, H, W] or [C, H, W] with weight [C, O / groups, KH, KW]."""
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@format_kept
@lower_precision
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Transposed convolution of [N, C, D, H, W] or [C, D, H, W] with weight [C, O / groups, KD, KH,
    KW]."""
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def _conv(
    n: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    name = f"conv{n}d"
    _check(
        name,
        n,
        x,
        weight,
        bias,
        groups,
        channels=weight.shape[1] * groups if weight.dim() > 1 else 0,
        outputs=weight.shape[0],
        transposed=False,
    )
    steps = _positive(name, "stride", tuple_of(stride, n, "stride"))
    spread = _positive(name, "dilation", tuple_of(dilation, n, "dilation"))
    pads = _padding(name, padding, weight.shape[2:], steps, spread)
    x, unbatch = batched(x, n)
    _check_extent(x, weight, pads, spread)
    operands = (x, weight) if bias is None else (x, weight, bias)
    return unbatch(
        call("conv", *operands, stride=steps, padding=pads, dilation=spread, groups=groups)
    )


def _conv_transpose(
    n: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    name = f"conv_transpose{n}d"
    _check(
        name,
        n,
        x,
        weight,
        bias,
        groups,
        channels=weight.shape[0],
        outputs=weight.shape[1] * groups if weight.dim() > 1 else 0,
        transposed=True,
    )
    steps = _positive(name, "stride", tuple_of(stride, n, "stride"))
    spread = _positive(name, "dilation", tuple_of(dilation, n, "dilation"))
    extra = tuple_of(output_padding, n, "output_padding")
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread, strict=True)):
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding={extra}, stride={steps}, dilation={spread}"
        )
    pads = tuple((p, p) for p in tuple_of(padding, n, "padding"))
    x, unbatch = batched(x, n)
    operands = (x, weight) if bias is None else (x, weight, bias)
    return unbatch(
        call(
            "conv_transpose",
            *operands,
            stride=steps,
            padding=pads,
            dilation=spread,
            groups=groups,
            output_padding=extra,
        )
    )


def _check(
    name: str,
    n: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    *,
    channels: int,
    outputs: int,
    transposed: bool,
) -> None:
    if weight.dim() != n + 2:
        raise RuntimeError(
            f"{name}: expected weight to be {n + 2}-dimensional, got a weight of shape {_s(weight)}"
        )
    if x.dim() not in (n + 1, n + 2):
        raise RuntimeError(
            f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to {name}, but got "
            f"input of size: {_s(x)}"
        )
    if x.dtype != weight.dtype:
        raise RuntimeError(
            f"Input type ({x.dtype}) and weight type ({weight.dtype}) should be the same: "
            f"cast one with .to(...)"
        )
    if bias is not None and bias.dtype != x.dtype:
        raise RuntimeError(
            f"Input type ({x.dtype}) and bias type ({bias.dtype}) should be the same"
        )
    if groups < 1:
        raise RuntimeError("non-positive groups is not supported")
    if weight.shape[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension "
            f"0, but got weight of size {_s(weight)} instead"
        )
    given = x.shape[-n - 1]
    if _differ(given, channels):
        what = "transposed=1, " if transposed else ""
        raise RuntimeError(
            f"Given {what}groups={groups}, weight of size {_s(weight)}, expected input{_s(x)} "
            f"to have {channels} channels, but got {given} channels instead"
        )
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != outputs):
        raise RuntimeError(
            f"Given weight of size {_s(weight)}, expected bias to be 1-dimensional with "
            f"{outputs} elements, but got bias of size {_s(bias)} instead"
        )


def _check_extent(
    x: Tensor, weight: Tensor, pads: tuple[tuple[int, int], ...], spread: tuple[int, ...]
) -> None:
    kernel = tuple(d * (k - 1) + 1 for k, d in zip(weight.shape[2:], spread, strict=True))
    sizes = tuple(s + lo + hi for s, (lo, hi) in zip(x.shape[2:], pads, strict=True))
    if any(isinstance(s, int) and s < k for s, k in zip(sizes, kernel, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, sizes))}). "
            f"Kernel size: ({' x '.join(map(str, kernel))}). Kernel size can't be "
            "greater than actual input size"
        )


def _padding(
    name: str,
    padding: Any,
    kernel: Sequence[int],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """Low and high padding of each spatial dim, from a number, a tuple, 'valid' or 'same'."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise RuntimeError(f"Invalid padding string: {padding!r}; expected 'valid' or 'same'")
    pads = tuple_of(padding, len(kernel), "padding")
    if any(p < 0 for p in pads):
        raise RuntimeError(f"negative padding is not supported: {name} got padding={pads}")
    return tuple((p, p) for p in pads)


def _positive(name: str, what: str, values: tuple[int, ...]) -> tuple[int, ...]:
    if any(v < 1 for v in values):
        raise RuntimeError(f"non-positive {what} is not supported: {name} got {what}={values}")
    return values


def _differ(a: Any, b: Any) -> bool:
    return a != b


def _s(t: Tensor) -> str:
    return str(list(t.shape))
