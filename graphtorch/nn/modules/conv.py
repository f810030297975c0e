"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from .. import init
from ..functional._common import tuple_of
from ..parameter import Parameter
from ._build import parameter
from .module import Module

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolutions share: parameters, their initialisation and checks."""

    rank: int
    transposed = False
    weight: Parameter
    bias: Parameter | None
    # a number for each axis; "valid" or "same" where the convolution is not transposed
    padding: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        output_padding: Any = 0,
    ):
        super().__init__()
        _check(in_channels, out_channels, groups, padding, padding_mode, stride)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple_of(kernel_size, self.rank, "kernel_size")
        self.stride = tuple_of(stride, self.rank, "stride")
        self.padding = (
            padding if isinstance(padding, str) else tuple_of(padding, self.rank, "padding")
        )
        self.dilation = tuple_of(dilation, self.rank, "dilation")
        self.output_padding = tuple_of(output_padding, self.rank, "output_padding")
        self.groups = groups
        self.padding_mode = padding_mode
        self._reversed_padding_repeated_twice = self._padding_list()
        self.weight = parameter(self._weight_shape(), device, dtype)
        self.register_parameter("bias", parameter((out_channels,), device, dtype) if bias else None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        first, second = (
            (self.in_channels, self.out_channels)
            if self.transposed
            else (self.out_channels, self.in_channels)
        )
        return first, second // self.groups, *self.kernel_size

    def _padding_list(self) -> list[int]:
        """Amounts for ``F.pad``: pairs from the last dim backwards."""
        pairs = [(0, 0)] * self.rank
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            pairs = [(t // 2, t - t // 2) for t in total]
        elif not isinstance(self.padding, str):
            pairs = [(p, p) for p in self.padding]
        return [amount for pair in reversed(pairs) for amount in pair]

    def reset_parameters(self) -> None:
        """Draw the parameters anew: U(-k, k) with k = 1 / sqrt(values per output)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        ones, zeros = (1,) * self.rank, (0,) * self.rank
        shown = {
            "padding": (self.padding, zeros),
            "dilation": (self.dilation, ones),
            "output_padding": (self.output_padding, zeros),
            "groups": (self.groups, 1),
        }
        parts += [f"{name}={value}" for name, (value, usual) in shown.items() if value != usual]
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)


def _check(
    in_channels: int, out_channels: int, groups: int, padding: Any, padding_mode: str, stride: Any
) -> None:
    if groups <= 0:
        raise ValueError("groups must be a positive integer")
    if in_channels % groups:
        raise ValueError(f"in_channels must be divisible by groups: got {in_channels} and {groups}")
    if out_channels % groups:
        raise ValueError(
            f"out_channels must be divisible by groups: got {out_channels} and {groups}"
        )
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(
                f"Invalid padding string {padding!r}, should be one of {{'same', 'valid'}}"
            )
        if padding == "same" and any(
            s != 1 for s in (stride if isinstance(stride, (tuple, list)) else (stride,))
        ):
            raise ValueError("padding='same' is not supported for strided convolutions")
    if padding_mode not in PADDING_MODES:
        raise ValueError(
            f"padding_mode must be one of {set(PADDING_MODES)}, but got "
            f"padding_mode={padding_mode!r}"
        )


class Conv1d(_ConvNd):
    """Convolution over [N, C, L] or [C, L]; see `functional.conv1d`."""

    rank = 1


class Conv2d(_ConvNd):
    """Convolution over [N, C, H, W] or [C, H, W]; see `functional.conv2d`."""

    rank = 2


class Conv3d(_ConvNd):
    """Convolution over [N, C, D, H, W] or [C, D, H, W]; see `functional.conv3d`."""

    rank = 3


class _ConvTransposeNd(_ConvNd):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
            output_padding,
        )

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.rank - 1]
        extra = (
            self.output_padding if output_size is None else self._extra(input, list(output_size))
        )
        return convolve(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )

    def _extra(self, input: Tensor, output_size: list[int]) -> tuple[int, ...]:
        """The output padding that gives `output_size`. Raises ValueError where none does."""
        lead = input.dim() - self.rank
        wanted = output_size[lead:] if len(output_size) == lead + self.rank else output_size
        if len(wanted) != self.rank:
            raise ValueError(
                f"ConvTranspose{self.rank}D: for {input.dim()}D input, output_size must have "
                f"{self.rank} or {lead + self.rank} elements (got {len(output_size)})"
            )
        smallest = [
            (s - 1) * t - 2 * p + d * (k - 1) + 1
            for s, t, p, d, k in zip(
                input.shape[lead:],
                self.stride,
                self.padding,
                self.dilation,
                self.kernel_size,
                strict=True,
            )
        ]
        largest = [m + t - 1 for m, t in zip(smallest, self.stride, strict=True)]
        if any(not lo <= w <= hi for lo, w, hi in zip(smallest, wanted, largest, strict=True)):
            raise ValueError(
                f"requested an output size of {output_size}, but valid sizes range from "
                f"{smallest} to {largest} (for an input of "
                f"{list(input.shape[lead:])})"
            )
        return tuple(w - lo for w, lo in zip(wanted, smallest, strict=True))


class ConvTranspose1d(_ConvTransposeNd):
    """Transposed convolution over [N, C, L] or [C, L]; see `functional.conv_transpose1d`."""

    rank = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Transposed convolution over [N, C, H, W] or [C, H, W]; see `functional.conv_transpose2d`."""

    rank = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Transposed convolution over [N, C, D, H, W] or [C, D, H, W]; see
    `functional.conv_transpose3d`."""

    rank = 3
