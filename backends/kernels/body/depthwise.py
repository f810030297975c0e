"""Depthwise convolutions of images [N, *S, C] as values at an index: sums of few products.

They are computed where they are needed, as pools are. What is read of images is in memory, or views
and casts of that: where a tap lies beside the image, a load gives zero, and so does the product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.ops.channels_last import channels_last_conv, channels_last_conv_transpose
from graphtorch.ir.shape import Dim

from ..ir import Const, KType, binary, cast, fma
from .evaluate import SPECIAL, Evaluator, Mask, Result
from .pointwise import wide
from .views import Index

MOST_TAPS = 64  # of a filter, all of which are written out

Test = tuple[Dim, Dim, Dim]  # low <= i < high, as (i, low, high)
Place = tuple[Dim, Dim, list[Test]]  # along an axis: of the image, of the filter, where both are


def is_depthwise(node: Node) -> bool:
    """Whether results of a convolution of [N, *S, C] are sums over the taps of one channel."""
    if node.op not in (channels_last_conv, channels_last_conv_transpose):
        return False
    filters, inner, *taps = node.operands[1].shape
    alone = inner == 1 and (node.op is channels_last_conv or filters == node.attrs.groups)  # type: ignore[attr-defined]
    return alone and all(isinstance(k, int) for k in taps) and math.prod(taps) <= MOST_TAPS  # type: ignore[arg-type]


def _forward(e: Evaluator, node: Node, axis: int, o: Dim) -> Iterator[Place]:
    """The places that result `o` reads along a spatial axis."""
    attrs, size = node.attrs, node.operands[0].shape[1 + axis]
    for k in range(int(node.operands[1].shape[2 + axis])):  # type: ignore[arg-type]
        at = o * attrs.stride[axis] - attrs.padding[axis][0] + k * attrs.dilation[axis]  # type: ignore[attr-defined]
        yield at, k, [(at, 0, size)]


def _backward(e: Evaluator, node: Node, axis: int, i: Dim) -> Iterator[Place]:
    """The same of a transposed convolution: o with ``o * stride + k * dilation = i + padding``."""
    attrs, size, space = node.attrs, node.operands[0].shape[1 + axis], e.scope.space
    taps = int(node.operands[1].shape[2 + axis])  # type: ignore[arg-type]
    s, d, at = attrs.stride[axis], attrs.dilation[axis], i + attrs.padding[axis][0]  # type: ignore[attr-defined]
    if d == 1 and s > 1:  # few of the taps meet an element
        for back in range(-(-taps // s)):
            o, k = space.div(at, s) - back, space.mod(at, s) + back * s
            yield o, k, [(o, 0, size), (k, 0, taps)]
        return
    for k in range(taps):
        ahead = -(-k * d // s)  # what is divided is not negative
        met = at - k * d + ahead * s
        o = space.div(met, s) - ahead
        yield o, k, [(o, 0, size), *([(space.mod(met, s), 0, 1)] if s > 1 else [])]


def depthwise(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
    """The value at `index`, of the dtype that its products are summed in until it is cast."""
    node = value.node
    assert node is not None
    x, w, *bias = node.operands
    b, dtype = e.scope.b, wide(value.dtype)
    image, *spatial, channel = index
    places = _forward if node.op is channels_last_conv else _backward
    own = e.scope.space.div(channel, w.shape[0] // x.shape[-1])  # type: ignore[operator]
    total = b.var(Const(0.0, KType(dtype)), "sum")
    for taps in itertools.product(
        *[list(places(e, node, axis, i)) for axis, i in enumerate(spatial)]
    ):
        tests = [test for _, _, tests in taps for test in tests]
        _, here = e.within(mask, tests)
        read = e.at(x, (image, *[at for at, _, _ in taps], own), here)
        ks = [k for _, k, _ in taps]
        factor = e.at(w, (channel, 0, *ks), None if all(isinstance(k, int) for k in ks) else here)
        b.assign(total, fma(cast(read, dtype), cast(factor, dtype), total))
    result = total if not bias else binary("add", total, cast(e.at(bias[0], (channel,)), dtype))
    return Result(b.let(cast(result, value.dtype), node.op.name), b.depth)


SPECIAL.update({op.name: depthwise for op in (channels_last_conv, channels_last_conv_transpose)})
