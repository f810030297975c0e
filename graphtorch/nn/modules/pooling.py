"""Pooling layers over [N, C, *S] or [C, *S]; each is a function of `nn.functional`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from ..functional._common import tuple_of
from ._thin import thin
from .module import Module


def _max_signature(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    return_indices: bool = False,
    ceil_mode: bool = False,
) -> None: ...


def _avg_signature(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> None: ...


def _step(self: Any) -> Any:
    return self.kernel_size if self.stride is None else self.stride


def _show_max(self: Any) -> str:
    return (
        f"kernel_size={self.kernel_size}, stride={_step(self)}, padding={self.padding}, "
        f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
    )


def _show_window(self: Any) -> str:
    return f"kernel_size={self.kernel_size}, stride={_step(self)}, padding={self.padding}"


def _defaulting_stride(made: Any) -> Any:
    """`stride` reads as the kernel size where none was given, as in PyTorch."""
    init = made.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.stride = _step(self)

    __init__.__signature__ = init.__signature__  # type: ignore[attr-defined]
    made.__init__ = __init__
    return made


MaxPool1d, MaxPool2d, MaxPool3d = (
    _defaulting_stride(
        thin(
            f"MaxPool{n}d",
            function,
            _max_signature,
            "Largest element of each window.",
            shown=_show_max,
        )
    )
    for n, function in enumerate((F.max_pool1d, F.max_pool2d, F.max_pool3d), 1)
)

AvgPool2d, AvgPool3d = (
    _defaulting_stride(
        thin(f"AvgPool{n}d", function, _avg_signature, "Mean of each window.", shown=_show_window)
    )
    for n, function in enumerate((F.avg_pool2d, F.avg_pool3d), 2)
)

LPPool1d, LPPool2d, LPPool3d = (
    thin(
        f"LPPool{n}d",
        function,
        lambda norm_type, kernel_size, stride=None, ceil_mode=False: None,
        "(sum of x^p)^(1/p) of each window.",
        shown="norm_type={norm_type}, kernel_size={kernel_size}, stride={stride}, "
        "ceil_mode={ceil_mode}",
    )
    for n, function in enumerate((F.lp_pool1d, F.lp_pool2d, F.lp_pool3d), 1)
)

AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (
    thin(
        f"AdaptiveAvgPool{n}d",
        function,
        lambda output_size: None,
        "Means over windows that give output_size positions.",
        shown="output_size={output_size}",
    )
    for n, function in enumerate(
        (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), 1
    )
)

AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (
    thin(
        f"AdaptiveMaxPool{n}d",
        function,
        lambda output_size, return_indices=False: None,
        "Maxima over windows that give output_size positions.",
        shown="output_size={output_size}",
    )
    for n, function in enumerate(
        (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d), 1
    )
)


class AvgPool1d(Module):
    """Mean of each window."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__()
        self.kernel_size = tuple_of(kernel_size, 1, "kernel_size")
        self.stride = self.kernel_size if stride is None else tuple_of(stride, 1, "stride")
        self.padding = tuple_of(padding, 1, "padding")
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )

    def extra_repr(self) -> str:
        return _show_window(self)


class _MaxUnpoolNd(Module):
    rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__()
        self.kernel_size = tuple_of(kernel_size, self.rank, "kernel_size")
        self.stride = self.kernel_size if stride is None else tuple_of(stride, self.rank, "stride")
        self.padding = tuple_of(padding, self.rank, "padding")

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[self.rank - 1]
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return _show_window(self)


class MaxUnpool1d(_MaxUnpoolNd):
    """Put values back where `MaxPool1d` found them."""

    rank = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Put values back where `MaxPool2d` found them."""

    rank = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Put values back where `MaxPool3d` found them."""

    rank = 3


class _FractionalMaxPoolNd(Module):
    rank: int
    _random_samples: Tensor | None

    def __init__(
        self,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ):
        super().__init__()
        name = type(self).__name__
        self.kernel_size = self._spread(kernel_size)
        if self.rank == 3 and min(self.kernel_size) <= 0:
            raise ValueError(f"kernel_size must be greater than 0, but got {kernel_size}")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        if output_size is None and output_ratio is None:
            raise ValueError(
                f"{name} requires specifying either an output size, or a pooling ratio"
            )
        if output_size is not None and output_ratio is not None:
            raise ValueError("only one of output_size and output_ratio may be specified")
        self.output_size = None if output_size is None else self._spread(output_size)
        ratios = self._spread(output_ratio)
        if output_ratio is not None and not all(0 < ratio < 1 for ratio in ratios):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")
        self.output_ratio = None if output_ratio is None else ratios

    def _spread(self, given: Any) -> tuple[Any, ...]:
        """One for each spatial dim; what it is, the function checks."""
        return tuple(given) if isinstance(given, Iterable) else (given,) * self.rank

    def forward(self, input: Tensor) -> Any:
        pool = F.fractional_max_pool2d if self.rank == 2 else F.fractional_max_pool3d
        return pool(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            self._random_samples,
        )


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    """Largest element of windows at random distances; see `functional.fractional_max_pool2d`."""

    rank = 2


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    """Largest element of windows at random distances; see `functional.fractional_max_pool3d`."""

    rank = 3
