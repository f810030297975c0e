"""Convolutions of images whose channels lie next to each other: x [N, *S, C], y [N, *S', O].

What they compute is what `conv`, `conv_transpose` and `conv_weight_grad` compute; filters have
those ops' order. The layout pass makes them, for targets that take them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph import Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, Op, Weight
from ..shape import Shape
from .common import ops
from .conv import (
    ConvAttrs,
    ConvTransposeAttrs,
    ConvWeightGradAttrs,
    conv,
    conv_transpose,
    conv_weight_grad,
)

__all__ = ["channels_last_conv", "channels_last_conv_transpose", "channels_last_conv_weight_grad"]


def last_dims(rank: int) -> tuple[int, ...]:
    """The dimensions of [N, C, *S] in the order [N, *S, C]."""
    return (0, *range(2, rank), 1)


def first_dims(rank: int) -> tuple[int, ...]:
    """The dimensions of [N, *S, C] in the order [N, C, *S]."""
    return (0, rank - 1, *range(1, rank - 1))


def to_channels_last(x: Value) -> Value:
    """[N, C, *S] as [N, *S, C]."""
    return ops.permute(x, dims=last_dims(x.rank))  # type: ignore[no-any-return]


def from_channels_last(x: Value) -> Value:
    """[N, *S, C] as [N, C, *S]."""
    return ops.permute(x, dims=first_dims(x.rank))  # type: ignore[no-any-return]


def _in_order(shape: Shape, dims: tuple[int, ...]) -> Shape:
    return tuple(shape[d] for d in dims)


def _infer(plain: Op, images: int, gives_image: bool) -> Callable[..., tuple[Type, ...]]:
    """The types of `plain` for images among its first operands, `images` of them, in the other
    order."""

    def infer(attrs: Attrs, *types: Type) -> tuple[Type, ...]:
        for t in types[:images]:
            if t.rank < 3:
                raise RuntimeError(
                    f"channels_last_{plain.name}: expected an image [N, *S, C] of at least 3 "
                    f"dimensions, but got shape {list(t.shape)}"
                )
        given = [t.with_shape(_in_order(t.shape, first_dims(t.rank))) for t in types[:images]]
        (made,) = plain.infer(attrs, *given, *types[images:])
        return (
            made.with_shape(_in_order(made.shape, last_dims(made.rank))) if gives_image else made,
        )

    return infer


def _decompose(plain: Op, images: int, gives_image: bool) -> Callable[[Node], tuple[Value, ...]]:
    def decompose(node: Node) -> tuple[Value, ...]:
        given = [from_channels_last(x) for x in node.operands[:images]]
        made = plain.node((*given, *node.operands[images:]), node.attrs).result()
        return (to_channels_last(made) if gives_image else made,)

    return decompose


def _reference(plain: Op, images: int, gives_image: bool) -> Callable[..., Any]:
    def reference(attrs: Attrs, *arrays: np.ndarray) -> np.ndarray:
        given = [np.moveaxis(x, -1, 1) for x in arrays[:images]]
        made = plain.reference(attrs, *given, *arrays[images:])
        return np.ascontiguousarray(np.moveaxis(made, 1, -1)) if gives_image else made

    return reference


def _op(
    plain: Op,
    doc: str,
    operands: tuple[str, ...],
    attrs: type[Attrs],
    images: int,
    gives_image: bool,
) -> Op:
    what = images, gives_image
    return Op(
        f"channels_last_{plain.name}",
        doc,
        operands,
        attrs=attrs,
        infer=_infer(plain, *what),
        vjp=BY_DECOMPOSITION,
        batch=BY_DECOMPOSITION,
        decompose=_decompose(plain, *what),
        reference=_reference(plain, *what),
        kind=Kind.CONTRACTION,
        weight=Weight.CONTRACTION,
        reference_ns=plain.reference_ns,
    )


channels_last_conv = _op(
    conv,
    "`conv` of x [N, *S, C] with filters w [O, C/groups, *K], plus b [O]: [N, *S', O].",
    ("x", "w", "b?"),
    ConvAttrs,
    1,
    True,
)
channels_last_conv_transpose = _op(
    conv_transpose,
    "`conv_transpose` of x [N, *S, C] with w [C, O/groups, *K], plus b [O]: [N, *S', O].",
    ("x", "w", "b?"),
    ConvTransposeAttrs,
    1,
    True,
)
channels_last_conv_weight_grad = _op(
    conv_weight_grad,
    "`conv_weight_grad` of x [N, *S, C] and g [N, *S', O]: [O, C/groups, *K].",
    ("x", "g"),
    ConvWeightGradAttrs,
    2,
    False,
)
