"""Padding layers: one class for each mode and number of spatial dims."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from ..functional._common import tuple_of
from .module import Module


class _PadNd(Module):
    rank: int
    mode: str

    def __init__(self, padding: Any):
        super().__init__()
        several = isinstance(padding, (tuple, list))  # of any number: the call looks at it
        self.padding = tuple(padding) if several else tuple_of(padding, 2 * self.rank, "padding")

    def forward(self, input: Tensor) -> Tensor:
        if self.mode == "circular" and input.dim() not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"expected {self.rank + 1}D or {self.rank + 2}D input (got {input.dim()}D input)"
            )
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    mode = "constant"

    def __init__(self, padding: Any, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPadNd(_ConstantPadNd):
    def __init__(self, padding: Any):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


_KINDS: tuple[tuple[str, type[_PadNd], str], ...] = (
    ("ReflectionPad", _PadNd, "reflect"),
    ("ReplicationPad", _PadNd, "replicate"),
    ("CircularPad", _PadNd, "circular"),
    ("ConstantPad", _ConstantPadNd, "constant"),
    ("ZeroPad", _ZeroPadNd, "constant"),
)


def _layers(name: str, base: type[_PadNd], mode: str) -> tuple[Any, ...]:
    return tuple(
        type(
            f"{name}{n}d",
            (base,),
            {
                "rank": n,
                "mode": mode,
                "__module__": __name__,
                "__doc__": f"Pad the last {n} dims, mode {mode!r}; `padding` is a number or "
                "(low, high) pairs, last dim first.",
            },
        )
        for n in (1, 2, 3)
    )


ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = _layers(*_KINDS[0])
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = _layers(*_KINDS[1])
CircularPad1d, CircularPad2d, CircularPad3d = _layers(*_KINDS[2])
ConstantPad1d, ConstantPad2d, ConstantPad3d = _layers(*_KINDS[3])
ZeroPad1d, ZeroPad2d, ZeroPad3d = _layers(*_KINDS[4])
