"""3 x 3 convolutions with fewer multiplications (`ops.winograd`), where that pays and filters
seldom change.

What is saved has to be more than moving tiles to and fro takes, and the transformed filters, four
times as many numbers, have to stay in a cache where they are read more than once. They are computed
from the filters by one product, which depends on nothing else and so is done once.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from .. import ops
from ..graph import Graph, Node, Value
from ..literal import Literal
from ..ops.checks import attrs_of
from ..ops.conv import ConvAttrs
from ..ops.winograd import FILTER, WINDOW
from ..rewrite import rewrite
from . import affine

CHANNELS = int(__import__("os").environ.get("WCH","32"))
PIXELS = 12  # of an image along a dimension: smaller ones are all borders of tiles
FILTER_BYTES = 8 << 20  # of transformed filters that a cache holds


def run(graph: Graph, stable: Container[Value]) -> Graph:
    """`graph` with the convolutions replaced whose filters are constants or among `stable`."""
    seldom = affine.seldom_changed(graph, stable)
    return rewrite(graph, lambda node: _replaced(node, seldom), (ops.channels_last_conv,))


def _replaced(node: Node, stable: Container[Value]) -> Value | None:
    x, w = node.operands[:2]
    if w not in stable or not _pays(node):
        return None
    filters, channels = w.shape[:2]
    tiled = ops.winograd_image(x, padding=attrs_of(node, ConvAttrs).padding)
    made = ops.winograd_result(ops.matmul(tiled, _filters(w)), shape=node.types[0].shape)
    assert filters == made.shape[-1] and channels == tiled.shape[-1]
    return ops.add(made, node.operands[2]) if len(node.operands) == 3 else made  # type: ignore[no-any-return]


def _pays(node: Node) -> bool:
    x, w = node.operands[:2]
    attrs, (filters, channels, *kernel) = attrs_of(node, ConvAttrs), w.shape
    if (
        kernel != [3, 3]
        or {*attrs.stride, *attrs.dilation, attrs.groups} != {1}
        or x.dtype.itemsize != 4
    ):
        return False
    if not all(isinstance(d, int) for d in (*node.types[0].shape[1:], *w.shape)):
        return False
    if min(filters, channels) < CHANNELS or min(node.types[0].shape[1:3]) < PIXELS:  # type: ignore[type-var]
        return False
    return bool(filters * channels * WINDOW * WINDOW * 4 <= FILTER_BYTES)


def _filters(w: Value) -> Value:
    """G w G^T of each filter w [F, C, 3, 3]: [36, C, F]."""
    transform = np.array(FILTER)
    both = np.kron(transform, transform).astype(w.dtype.numpy)  # [36, 9]
    filters, channels = w.shape[:2]
    taps = ops.permute(ops.reshape(w, shape=(filters, channels, 9)), dims=(2, 1, 0))
    flat = ops.reshape(taps, shape=(9, channels * filters))
    made = ops.matmul(ops.constant(value=Literal.of(both, w.dtype)), flat)
    return ops.reshape(made, shape=(WINDOW * WINDOW, channels, filters))  # type: ignore[no-any-return]
