"""Depthwise convolutions of images whose channels lie side by side, and their gradients.

Next to a result stands that of the next channel: threads take neighbouring channels, 16 bytes of
them, as they do of a pool. Filters are read in that order too, from a copy. Gradients of filters
are a sum over all pixels for each tap: reductions of columns, which one kernel makes together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from graphtorch.ir import ops
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.rewrite import rewrite

from ...cpu.loops.stages import Stages, lower_loops
from ...kernels.body.depthwise import MOST_TAPS, is_depthwise
from ...kernels.body.evaluate import Evaluator, Leaf, Mask, Result
from ...kernels.body.pointwise import wide
from ...kernels.body.views import Index
from ...kernels.program.lowering import Lowering, Region


def way_of(region: Region) -> Callable[[Region, Lowering], None] | None:
    """What lowers a region whose contraction is a depthwise convolution's; None for others."""
    if any(map(is_depthwise, region.nodes)):
        return lambda region, lowering: lower_loops(region, lowering, ByChannels)
    return lower_taps if any(map(is_sum_by_tap, region.nodes)) else None


class ByChannels(Stages):
    """The kernels of a depthwise convolution, and the one that turns its filters."""

    def run(self) -> None:
        self.turned: dict[Value, Leaf] = {}
        for node in filter(is_depthwise, self.region.nodes):
            self.turn(node.operands[1])
        super().run()

    def leaves(self) -> dict[Value, Leaf]:
        return {**super().leaves(), **self.turned}

    def turn(self, w: Value) -> None:
        """Let filters [C, 1, *K] be read from a copy with channels innermost."""
        moved = ops.permute(w, dims=(*range(1, w.rank), 0))
        inputs = self.region.body.inputs
        stable = w in inputs and self.lowering.is_stable(self.region.operands[inputs.index(w)])
        with self.lowering.kept() if stable else nullcontext():
            slot = self.materialise(moved)

        def read(e: Evaluator, index: Index, mask: Mask | None) -> Result:
            return e.load(slot, e.scope.space.linear((*index[1:], index[0]), moved.shape), mask)

        self.turned[w] = read


def is_sum_by_tap(node: Node) -> bool:
    """Whether a gradient of filters has one channel of the image, and one of the result, for
    each."""
    if node.op is not ops.channels_last_conv_weight_grad:
        return False
    filters, inner, *taps = node.types[0].shape
    alone = inner == 1 and filters == node.attrs.groups  # type: ignore[attr-defined]
    return alone and math.prod(taps) <= MOST_TAPS  # type: ignore[arg-type]


def lower_taps(region: Region, lowering: Lowering) -> None:
    body = rewrite(region.body, lambda n: sums_by_tap(n) if is_sum_by_tap(n) else None)
    lower_loops(replace(region, body=body), lowering)


def sums_by_tap(node: Node) -> Value:
    """The gradient of filters [C, 1, *K] as a sum over pixels for each element of K."""
    x, g = node.operands
    attrs, result = node.attrs, node.types[0]
    low, high = (tuple(p[i] for p in attrs.padding) for i in (0, 1))  # type: ignore[attr-defined]
    if any((*low, *high)):
        x = ops.pad(x, low=(0, *low, 0), high=(0, *high, 0), value=0)
    dtype, pixels = wide(g.dtype), tuple(range(g.rank - 1))
    x, g = (v if v.dtype is dtype else ops.cast(v, dtype=dtype) for v in (x, g))
    sums = []
    for tap in itertools.product(*map(range, attrs.kernel)):  # type: ignore[attr-defined]
        start = [0, *[k * d for k, d in zip(tap, attrs.dilation, strict=True)], 0]  # type: ignore[attr-defined]
        step = (1, *attrs.stride, 1)  # type: ignore[attr-defined]
        stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, g.shape, step, strict=True)]
        seen = ops.slice(x, start=tuple(start), stop=tuple(stop), step=step)
        total = ops.sum(ops.mul(seen, g), dims=pixels, keepdim=False)
        sums.append(ops.reshape(total, shape=(*total.shape, 1)))
    found = ops.reshape(ops.concat(*sums, dim=1) if len(sums) > 1 else sums[0], shape=result.shape)
    return found if dtype is result.dtype else ops.cast(found, dtype=result.dtype)
