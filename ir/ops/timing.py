"""What references take where it is much more than the weight of an op says: the `reference_ns` of
records.

Nanoseconds on a core of about 3 GHz, of nodes whose sizes are known; only their ratios matter much.
"""

from __future__ import annotations

import math
from typing import Any

from ..graph import Node, Type

TURN_NS = 4_000.0  # of a loop in Python around NumPy
MULTIPLY_ADD_NS = 0.06
WINDOW_NS = 1.5 / 32  # a multiply-add's share of the windows that a convolution copies first
SCORE_NS = 0.5  # of attention: the exponential of a score that is still in the cache
TAPS = 16  # pixels of a bin, roughly


_elements: dict[Type, int] = {}
REMEMBERED = 1 << 15  # types


def elements(type: Type) -> int:
    """The number of elements of a static type."""
    found = _elements.get(type)
    if found is None:
        if len(_elements) > REMEMBERED:
            _elements.clear()
        found = _elements[type] = math.prod(type.shape)  # type: ignore[arg-type]
    return found


# ------------------------------ contractions


def product_ns(node: Node) -> float:
    """A product of matrices, the last two operands."""
    depth: Any = node.operands[-2].shape[-1]
    return elements(node.types[0]) * depth * MULTIPLY_ADD_NS


def conv_ns(node: Node) -> float:
    """Each element of the result meets one of the filters [O, ...]."""
    return _convolved(elements(node.types[0]), node.operands[1].type)


def conv_transpose_ns(node: Node) -> float:
    """Each element of the input meets the filters [C, ...] of its channel."""
    return _convolved(elements(node.operands[0].type), node.operands[1].type)


def conv_weight_grad_ns(node: Node) -> float:
    """Each element of the cotangent meets one of the filters, the result [O, ...]."""
    return _convolved(elements(node.operands[1].type), node.types[0])


def _convolved(count: int, filters: Type) -> float:
    channels: Any = max(1, filters.shape[0])  # type: ignore[call-overload]
    return count * elements(filters) // channels * (MULTIPLY_ADD_NS + WINDOW_NS)  # type: ignore[no-any-return]


def transformed_ns(node: Node) -> float:
    """Each element of a tile, of the operand, meets 16 of the transform back."""
    return elements(node.operands[0].type) * 16 * MULTIPLY_ADD_NS


def tiled_ns(node: Node) -> float:
    """w^2 numbers for t^2 results, each a sum over channels, and the transforms around them."""
    channels: Any = node.operands[1].shape[2]
    return elements(node.types[0]) * (4 * channels + 64) * MULTIPLY_ADD_NS


def attention_ns(node: Node) -> float:
    """Scores of q and k, the first two operands, and their product with v."""
    keys: Any = node.operands[1].shape[-2]
    return elements(node.types[0]) * keys * (2 * MULTIPLY_ADD_NS + SCORE_NS)


# ------------------------------ loops in Python


def regions_ns(node: Node) -> float:
    """A turn for each tap of a bin of the result [K, C, *size], all channels at once."""
    return _binned(node.types[0])


def regions_grad_ns(node: Node) -> float:
    """The same for each bin of the cotangent, the first operand."""
    return _binned(node.operands[0].type)


def _binned(pooled: Type) -> float:
    channels: Any = max(1, pooled.shape[1])  # type: ignore[call-overload]
    return TURN_NS * TAPS * (elements(pooled) // channels)


def maxima_ns(node: Node) -> float:
    """A turn for each tap of a bin of the result and channel."""
    return TURN_NS * TAPS * elements(node.types[0])


def maxima_grad_ns(node: Node) -> float:
    """The same for each bin and channel of the cotangent, the first operand."""
    return TURN_NS * TAPS * elements(node.operands[0].type)


def samples_ns(node: Node) -> float:
    """A turn for each of four pixels at coordinates, the last operand."""
    return TURN_NS * 4 * elements(node.operands[-1].type)


def deformed_ns(node: Node) -> float:
    """A turn for each of four pixels that a tap of a filter, the second operand, lies between."""
    filters = node.operands[1].type
    outs: Any = max(1, filters.shape[0])  # type: ignore[call-overload]
    return TURN_NS * (4 * elements(node.types[0]) * elements(filters) // outs)


def suppression_ns(node: Node) -> float:
    """A turn for each pair of boxes."""
    return TURN_NS * (elements(node.types[0]) ** 2 // 2)
