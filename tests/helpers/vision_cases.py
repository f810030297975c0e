"""Ops on regions, at coordinates and of boxes, for the table of tensor ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.graph import Value
from graphtorch.ir.literal import Literal
from tensor_cases import Case, F, T

REGIONS = np.array(
    [
        [0, 1.2, 0.4, 6.1, 4.7],
        [1, -1.5, 1, 4, 9],
        [1, 3, 3.3, 2, 3.1],
        [0, 0.3, 0.2, 4.4, 3.6],
    ]
)
BINS: dict[str, Any] = {"scale": 0.7, "size": (2, 2)}
MAP = (2, 4, 5, 6)
CONVOLVED = (2, 4, 5, 6), (4, 2, 3, 2), (2, 24, 3, 4), (4,)
DEFORM: dict[str, Any] = {
    "stride": (2, 1),
    "padding": (1, 0),
    "dilation": (1, 2),
    "groups": 2,
    "offset_groups": 2,
}


def regions(x: Value) -> Value:
    return ops.cast(ops.constant(value=Literal.of(REGIONS)), dtype=x.dtype)


def pooled(name: str, channels: int, label: str = "", grad: bool = False, **attrs: Any) -> Case:
    made = getattr(ops, f"{name}_grad" if grad else name)
    attrs = {**BINS, **attrs, **({"shape": MAP} if grad else {})}
    shape = (len(REGIONS), channels, 2, 2) if grad else MAP
    symbolic = () if grad else ((0, 0), (0, 2), (0, 3))
    title = f"{name}{'_grad' * grad}{label}"
    return Case(title, (shape,), lambda x: made(x, regions(x), **attrs), symbolic=symbolic)


def maxima_grad(x: Value, g: Value) -> Value:
    places = ops.roi_pool(x, regions(x), **BINS)[1]
    return ops.roi_pool_grad(g, regions(x), places, shape=MAP)  # type: ignore[no-any-return]


def coordinates(x: Value, *noise: Value) -> tuple[Value, ...]:
    """Coordinates around the middle of an image, some of them outside."""
    wide, middle = (ops.constant(value=Literal.of(n, x.dtype)) for n in (1.7, 1.9))
    return tuple(ops.add(ops.mul(n, wide), middle) for n in noise)


def sampled(x: Value, rows: Value, columns: Value) -> Value:
    return ops.sample_bilinear(x, *coordinates(x, rows, columns))  # type: ignore[no-any-return]


def sampled_torch(x: Any, rows: Any, columns: Any) -> Any:
    places = [
        (2 * (n * 1.7 + 1.9) + 1) / size - 1
        for n, size in ((columns, x.shape[3]), (rows, x.shape[2]))
    ]
    return F().grid_sample(x, T().stack(places, -1), align_corners=False)


def sampled_grad(g: Value, x: Value, rows: Value, columns: Value) -> tuple[Value, ...]:
    return ops.sample_bilinear_grad(g, x, *coordinates(x, rows, columns))  # type: ignore[no-any-return]


def deformed(x: Value, weight: Value, offset: Value, *more: Value) -> Value:
    """Offsets that are not whole, where samples have no derivative."""
    (moved,) = coordinates(x, offset)
    return ops.deform_conv2d(x, weight, moved, *more, **DEFORM)  # type: ignore[no-any-return]


VISION = [
    pooled("roi_align", 4, ratio=2, aligned=False),
    pooled("roi_align", 4, " adaptive", ratio=0, aligned=True),
    pooled("roi_align", 4, grad=True, ratio=2, aligned=True),
    pooled("ps_roi_align", 1, ratio=3),
    pooled("ps_roi_align", 1, grad=True, ratio=2),
    pooled("ps_roi_pool", 1),
    pooled("ps_roi_pool", 1, grad=True),
    pooled("roi_pool", 4),
    Case("roi_pool_grad", (MAP, (len(REGIONS), 4, 2, 2)), maxima_grad),
    Case(
        "sample_bilinear",
        ((2, 3, 4, 5), (2, 2, 3), (2, 2, 3)),
        sampled,
        sampled_torch,
        symbolic=((0, 1), (0, 2), (0, 3)),
        wide=True,
    ),
    Case(
        "sample_bilinear_grad",
        ((2, 3, 2, 3), (2, 3, 4, 5), (2, 2, 3), (2, 2, 3)),
        sampled_grad,
        wide=True,
    ),
    Case("deform_conv2d", (*CONVOLVED, (2, 12, 3, 4)), deformed, wide=True),
    Case("deform_conv2d without mask", CONVOLVED, deformed, wide=True),
    Case("nms", ((2, 9, 4),), lambda x: ops.nms(x, threshold=0.1)),
]
