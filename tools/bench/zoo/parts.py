"""What the models of the zoo are put together from: branches that are added, multiplied or
concatenated, and the usual units of convolutional nets.

Every function takes the library (PyTorch or graphtorch) as `torch` and makes modules of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

Module = Any
Library = Any


class Joints(NamedTuple):
    """Classes of modules that join what their branches give."""

    Sum: Callable[..., Module]
    Gate: Callable[..., Module]
    Concat: Callable[..., Module]
    Apply: Callable[..., Module]


@functools.cache
def joints(torch: Library) -> Joints:
    """The joints of a library."""
    nn = torch.nn

    class Branches(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, *branches: Module):
            super().__init__()
            self.branches = nn.ModuleList(branches)

    class Sum(Branches):
        """x -> a(x) + b(x) + ..."""

        def forward(self, x: Any) -> Any:
            first, *others = self.branches
            total = first(x)
            for branch in others:
                total = total + branch(x)
            return total

    class Gate(Branches):
        """x -> x * a(x)"""

        def forward(self, x: Any) -> Any:
            return x * self.branches[0](x)

    class Concat(Branches):
        """x -> the channels of a(x), b(x), ..."""

        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self.branches], 1)

    class Apply(nn.Module):  # type: ignore[misc,name-defined]
        """x -> function(x)"""

        def __init__(self, function: Callable[[Any], Any]):
            super().__init__()
            self.function = function

        def forward(self, x: Any) -> Any:
            return self.function(x)

    return Joints(Sum, Gate, Concat, Apply)


def residual(torch: Library, body: Module, short: Module = None) -> Module:
    """x -> short(x) + body(x)"""
    return joints(torch).Sum(torch.nn.Identity() if short is None else short, body)


def unit(
    torch: Library,
    channels: int,
    out: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[], Module] | None = None,
) -> list[Module]:
    """Convolution, batch norm and activation."""
    nn = torch.nn
    conv = nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), *([act()] if act else [])]


def head(torch: Library, channels: int, classes: int = 1000) -> list[Module]:
    """Global pooling and a linear classifier."""
    nn = torch.nn
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def squeeze(
    torch: Library,
    channels: int,
    narrow: int,
    act: Callable[[], Module],
    gate: Callable[[], Module],
) -> Module:
    """Squeeze and excitation (Hu et al., 2018): channels weighted by their means."""
    nn = torch.nn
    return joints(torch).Gate(
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1),
            act(),
            nn.Conv2d(narrow, channels, 1),
            gate(),
        )
    )


def encoder(torch: Library, layers: int, width: int, heads: int, factor: int = 4) -> Module:
    """A transformer encoder with norms first and GELU."""
    nn = torch.nn
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        factor * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
