"""Rounding as quantisation would, in floats (for training that knows of it).

Formulas: https://docs.pytorch.org/docs/stable/generated/torch.fake_quantize_per_tensor_affine.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._deferred.tensor import Tensor
from ..autograd.grad_mode import no_grad
from ..autograd.keeps import keeps_as_one, shown_as
from .accept import accepting
from .base import FUNCTIONS, SHORT, axis_of, check_tensor, checked, known_elements, refuse

WITHIN = "`zero_point` must be between `quant_min` and `quant_max`."


@shown_as("FakeQuantizePerTensorAffineCachemask")
@keeps_as_one()
def fake_quantize_per_tensor_affine(
    input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int
) -> Tensor:
    """The multiple of `scale` nearest to each element among those that quant_min .. quant_max stand
    for, where `zero_point` stands for 0. Inside of these the gradient passes, else it is 0.

    Args:
        scale, zero_point: numbers, or tensors of one element.

    Raises:
        RuntimeError: no range, a zero point outside of it, or a `scale` that requires grad.
        NotImplementedError: integers.
    """
    name = "fake_quantize_per_tensor_affine"
    check_tensor(name, "input", input)
    _check_range(quant_min, quant_max)
    for key, x in (("scale", scale), ("zero_point", zero_point)):
        if isinstance(x, Tensor):
            _check_parameter(name, key, x)
    if not isinstance(zero_point, Tensor):
        if not isinstance(zero_point, int):
            raise TypeError(
                f"{name}(): argument 'zero_point' (position 3) must be int, not "
                f"{type(zero_point).__name__}"
            )
        if not isinstance(scale, Tensor) and not quant_min <= zero_point <= quant_max:
            raise RuntimeError(WITHIN)
    step = scale.float().reshape(()) if isinstance(scale, Tensor) else np.float32(scale)
    zero = zero_point.float().reshape(()) if isinstance(zero_point, Tensor) else zero_point
    return _rounded(input, step, zero, quant_min, quant_max, False)


@shown_as("FakeQuantizePerChannelAffineCachemask")
@keeps_as_one()
def fake_quantize_per_channel_affine(
    input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """As `fake_quantize_per_tensor_affine`, with a scale and a zero point for each entry along
    `axis`.

    Args:
        scale: [size], float32 or bfloat16. zero_point: [size], int32, float32 or float16.
    """
    name = "fake_quantize_per_channel_affine"
    for i, (key, x) in enumerate((("input", input), ("scale", scale), ("zero_point", zero_point))):
        check_tensor(name, key, x, i + 1)
    _check_channels(scale, zero_point)
    if axis < 0:
        raise RuntimeError("`axis` must be between 0 and number of dimensions of input")
    at = axis_of(axis, input.ndim)
    if scale.shape[0] != input.shape[at]:
        raise RuntimeError(
            "dimensions of scale and zero-point are not consistent with input tensor"
        )
    _check_range(quant_min, quant_max)
    shape = [-1 if i == at else 1 for i in range(input.ndim)]
    whole = not zero_point._type.dtype.is_floating_point
    if whole:
        zero_point = _within(zero_point, quant_min, quant_max)
    step, zero = scale.detach().float().reshape(shape), zero_point.detach().float().reshape(shape)
    return _rounded(input, step, zero, quant_min, quant_max, not whole)


def _rounded(x: Tensor, step: Any, zero: Any, lowest: int, highest: int, with_zero: bool) -> Tensor:
    """`with_zero`: rounded after the zero point is added, as where that is no integer."""
    refuse("fake_quantize_tensor_cachemask_kernel", x._type.dtype, "bool", "integer", "complex")
    with no_grad():
        wide = x.float() if x._type.dtype in SHORT else x
        with np.errstate(divide="ignore"):
            inverse = 1 / step
        if not isinstance(step, Tensor):
            step, inverse = float(step), float(inverse)
        place = wide * inverse
        place = (place + zero).round() if with_zero else place.round() + zero
        inside = (place >= lowest).logical_and(place <= highest)
        place = FUNCTIONS["where"](place.isnan(), float(lowest), place.clamp(lowest, highest))
        found = ((place - zero) * step).to(x.dtype)
    # the elements of `found`, the gradient of `x`
    return FUNCTIONS["where"](inside, x - x.detach() + found, found)  # type: ignore[no-any-return]


def _check_range(quant_min: int, quant_max: int) -> None:
    if quant_min > quant_max:
        raise RuntimeError("`quant_min` should be less than or equal to `quant_max`.")


def _within(zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """`zero_point`, whose elements have to be in a range: those in memory are looked at now."""
    known = known_elements(zero_point)
    if known is None:
        above = checked(zero_point - lowest, "not negative", WITHIN) + lowest
        return highest - checked(highest - above, "not negative", WITHIN)
    if known.size and not lowest <= known.min() <= known.max() <= highest:
        raise RuntimeError(WITHIN)
    return zero_point


def _check_parameter(name: str, key: str, x: Tensor) -> None:
    if x.numel() != 1:
        raise RuntimeError(f"a Tensor with {x.numel()} elements cannot be converted to Scalar")
    if x.requires_grad:
        raise RuntimeError(
            f"The function '{name}' is not differentiable with respect to argument '{key}'. This "
            "input cannot have requires_grad True."
        )


def _check_channels(scale: Tensor, zero_point: Tensor) -> None:
    if scale.dtype.name not in ("float32", "bfloat16"):
        raise RuntimeError(f"Scale must be Float or BFloat16, found {scale.dtype}")
    if zero_point.dtype.name not in ("int32", "float32", "float16"):
        raise RuntimeError(f"Zero-point must be Int32, Float or Half, found {zero_point.dtype}")
    for key, x in (("scale", scale), ("zero point", zero_point)):
        if x.ndim != 1:
            raise RuntimeError(f"{key} should be a 1-D tensor")
    if scale.shape != zero_point.shape:
        raise RuntimeError("scale and zero-point need to have the same dimensions")


for _define in (fake_quantize_per_tensor_affine, fake_quantize_per_channel_affine):
    globals()[_define.__name__] = accepting(_define.__name__, _define, "graphtorch")
